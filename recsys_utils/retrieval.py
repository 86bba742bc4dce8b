"""Nearest rows by inner product: an exact index and a graph index behind one small protocol.

Vectors of shape (n, d) lie under int64 ids; the score of a row is its inner product with the query, higher is better.
Cosine is the inner product of rows of length one. Both indexes keep float32, give ids and scores best first, and are
stored in one safetensors file: nothing in it is executed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Protocol, Self

import numpy as np

BLOCK = 1 << 24  # scores held at a time in an exact search: 64 MB


class Index(Protocol):
    """What an index can do. n: rows in it; d: numbers in a vector."""

    dimension: int

    def __len__(self) -> int:
        """Number of rows."""

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Append vectors, shape (m, d), under whole-number ids, shape (m,), at least 0, each once in the index; without
        ids, under the numbers that follow the largest one. ValueError says what cannot be used; then nothing is added.
        """

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids, int64, and scores, float32, both (B, k), best first, of queries of shape (B, d); 1 <= k <= n."""

    def save(self, path: Path | str) -> None:
        """Write one file; a reader finds the old one or the new one, never half of it."""

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """What save wrote. ValueError names a file of another index or of none."""


class FlatIndex:
    """Exact search: every row is scored, with one matrix product."""

    def __init__(self, dimension: int):
        self.dimension = _whole("dimension", dimension)
        self.ids = np.empty(0, np.int64)
        self.vectors = np.empty((0, dimension), np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> None:
        vectors = _rows("vectors", vectors, self.dimension)
        self.ids = np.concatenate([self.ids, _new_ids(ids, len(vectors), self.ids)])
        self.vectors = np.concatenate([self.vectors, vectors])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        queries, k = _rows("queries", queries, self.dimension), _check_k(k, len(self))
        found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        batch = max(1, BLOCK // len(self))
        for start in range(0, len(queries), batch):
            scores = queries[start : start + batch] @ self.vectors.T
            best = _best(scores, k)
            found[0][start : start + batch] = self.ids[best]
            found[1][start : start + batch] = np.take_along_axis(scores, best, axis=1)
        return found

    def save(self, path: Path | str) -> None:
        _save(path, "flat", {"ids": self.ids, "vectors": self.vectors})

    @classmethod
    def load(cls, path: Path | str) -> FlatIndex:
        stored = _load(path, "flat", ("ids", "vectors"))
        index = cls(stored["vectors"].shape[-1])
        index.add(stored["vectors"], stored["ids"])
        return index


class HNSWIndex:
    """A graph of near rows, walked from the top layer down (Malkov and Yashunin 2020), by faiss.

    m: links of a row on each layer, twice as many on the lowest; ef_construction: rows kept in mind while a row is
    added; ef_search: the same in a search, raised to k where it is lower. More of each finds more and costs more; only
    ef_search can be changed later. Rows cannot be taken out: build a new index, or leave them out of the answers.
    Answers may miss some of the k best rows. Memory: about 4 d + 8 m + 8 bytes a row. It adds and searches with the
    threads faiss is given (`faiss.omp_set_num_threads`). A file is as trusted as the code that reads it: faiss checks
    little of a graph it loads, so load your own.
    """

    def __init__(self, dimension: int, m: int = 32, ef_construction: int = 200, ef_search: int = 64):
        import faiss

        self.dimension = _whole("dimension", dimension)
        self.ef_search = ef_search
        self.ids = np.empty(0, np.int64)
        self._graph = faiss.IndexHNSWFlat(dimension, _whole("m", m, least=2), faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = _whole("ef_construction", ef_construction)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> None:
        vectors = _rows("vectors", vectors, self.dimension)
        ids = _new_ids(ids, len(vectors), self.ids)
        self._graph.add(vectors)
        self.ids = np.concatenate([self.ids, ids])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        queries, k = _rows("queries", queries, self.dimension), _check_k(k, len(self))
        ef = max(_whole("ef_search", self.ef_search), k)
        scores, rows = self._graph.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=ef))
        if (rows < 0).any():  # rows that no link leads to, hence not found: exact search for these few queries
            short = (rows < 0).any(axis=1)
            every = queries[short] @ self._graph.reconstruct_n(0, len(self)).T
            rows[short] = _best(every, k)
            scores[short] = np.take_along_axis(every, rows[short], axis=1)
        return self.ids[rows], scores

    def save(self, path: Path | str) -> None:
        import faiss

        _save(path, "hnsw", {"ids": self.ids, "graph": faiss.serialize_index(self._graph)})

    @classmethod
    def load(cls, path: Path | str) -> HNSWIndex:
        import faiss

        stored = _load(path, "hnsw", ("ids", "graph"))
        try:
            graph = faiss.deserialize_index(stored["graph"])
        except RuntimeError as error:
            raise ValueError(
                f"{path}: faiss cannot read its graph ({str(error).splitlines()[0]}); build it again"
            ) from None
        if not isinstance(graph, faiss.IndexHNSW) or graph.ntotal != len(stored["ids"]):
            raise ValueError(f"{path}: {len(stored['ids'])} ids for {graph.ntotal} rows; build the index again")
        index = cls(graph.d)
        index._graph, index.ids = graph, stored["ids"]
        return index


def recall(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Share of the exact answers that were found, by query: ids (B, k) against ids (B, m) of exact search, shape (B,).

    Each id counts once. Ids below 0 stand for no answer. ValueError where exact has none, or one twice: two rows under
    one id, or titles in place of ids, make an index look better than it is.
    """
    found, exact = np.asarray(found), np.asarray(exact)
    if found.ndim != 2 or exact.ndim != 2 or len(found) != len(exact) or exact.shape[1] == 0:
        raise ValueError(f"ids of shapes {found.shape} and {exact.shape}; expected (B, k) and (B, m), m at least 1")
    if not (np.issubdtype(found.dtype, np.integer) and np.issubdtype(exact.dtype, np.integer)):
        raise ValueError(
            f"ids of types {found.dtype} and {exact.dtype}; expected whole numbers: titles repeat, ids do not"
        )
    ordered = np.sort(exact, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any() or (exact < 0).any():
        raise ValueError("the exact answers of a query hold an id twice, or one below 0; expected m different ids")
    return (exact[:, :, None] == found[:, None, :]).any(axis=2).mean(axis=1)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k highest scores of each row, (B, k), best first."""
    n = scores.shape[1]
    top = np.argpartition(scores, n - k, axis=1)[:, n - k :]
    return np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1), axis=1)


def _whole(name: str, value: int, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r}; expected a whole number of at least {least}")
    return int(value)


def _check_k(k: int, n: int) -> int:
    if n == 0:
        raise ValueError("the index is empty; add vectors before searching")
    if _whole("k", k) > n:
        raise ValueError(f"k={k}, but the index holds {n} rows; ask for at most that many")
    return int(k)


def _rows(name: str, rows: np.ndarray, dimension: int) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise ValueError(
            f"{name} of shape {rows.shape}; expected (n, {dimension})" + "; put one vector in a list" * (rows.ndim == 1)
        )
    if rows.dtype.kind not in "fiu":
        raise ValueError(f"{name} of type {rows.dtype}; expected numbers, best float32")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(rows, np.float32)
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{name}: row {bad.argmax()} holds NaN or numbers beyond float32 ({bad.sum()} such rows); mend it"
        )
    return rows


def _new_ids(ids: np.ndarray | None, n: int, known: np.ndarray) -> np.ndarray:
    if ids is None:
        first = known.max(initial=-1) + 1
        return np.arange(first, first + n)
    ids = np.asarray(ids)
    if ids.shape != (n,) or ids.dtype.kind not in "iu":
        raise ValueError(f"ids of shape {ids.shape} and type {ids.dtype}; expected {n} whole numbers, one a vector")
    if ids.min(initial=0) < 0 or ids.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(f"ids run from {ids.min()} to {ids.max()}; expected 0 to 2**63 - 1")
    ids = ids.astype(np.int64)
    unique, counts = np.unique(ids, return_counts=True)
    twice = np.concatenate([unique[counts > 1], np.intersect1d(unique, known)])
    if len(twice):
        raise ValueError(
            f"id {twice[0]} would be in the index twice ({len(twice)} such ids); give each row an id of its own"
        )
    return ids


def _save(path: Path | str, kind: str, arrays: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        part = Path(folder, "index")
        with open(part, "wb") as file:
            file.write(save(arrays, metadata={"index": kind}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def _load(path: Path | str, kind: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            found = (file.metadata() or {}).get("index")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise ValueError(f"{path} is no stored index ({error}); write it again with save") from None
    if found != kind or set(arrays) != set(names):
        raise ValueError(
            f"{path} holds {found or 'no'} index with {sorted(arrays)}; expected {kind} with {sorted(names)}"
        )
    return arrays
