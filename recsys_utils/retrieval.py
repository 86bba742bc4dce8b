"""Nearest rows by inner product: an exact index and a graph index behind one small protocol.

Vectors of shape (n, d) lie under int64 ids; the score of a row is its inner product with the query, higher is better.
Cosine is the inner product of rows of length one. Both indexes keep float32, give ids and scores best first, and are
stored in one safetensors file: nothing in it is executed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Self

import numpy as np

BLOCK = 1 << 24  # scores held at a time in an exact search: 64 MB


class Index:
    """What both indexes below do with their rows. ids: int64, (n,), in the order of adding; dimension: d.

    Each of them brings _append(vectors), _nearest(queries, k), which gives row numbers and scores, and _content(), the
    array that save keeps and _restored(content, path) reads.
    """

    def __init__(self, dimension: int):
        self.dimension = check_whole("dimension", dimension)
        self.ids = np.empty(0, np.int64)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Append vectors, shape (n, d), under whole-number ids, shape (n,), at least 0, each once in the index; without
        ids, under the numbers after the largest one. ValueError says what cannot be used; then nothing is added.
        """
        vectors = _rows("vectors", vectors, self.dimension)
        ids = _new_ids(ids, len(vectors), self.ids)
        self._append(vectors)
        self.ids = np.concatenate([self.ids, ids])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows of queries, shape (B, d): ids, int64, and scores, float32, both (B, k), best first.

        Raises ValueError for an empty index, k outside 1 to len(index), and queries of another shape or not finite.
        """
        queries = _rows("queries", queries, self.dimension)
        if len(self) == 0:
            raise ValueError("the index is empty; add vectors before searching")
        k = check_whole("k", k)
        if k > len(self):
            raise ValueError(f"k={k}, but the index holds {len(self)} rows; ask for at most that many")
        rows, scores = self._nearest(queries, k)
        return self.ids[rows], scores

    def save(self, path: Path | str) -> None:
        """Write one file; a reader finds the old one or the new one, never half of it."""
        from safetensors.numpy import save

        replace_file(Path(path), save({"ids": self.ids, "content": self._content()}, {"index": type(self).__name__}))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The index that save wrote. ValueError for a file of another one, and for one that holds none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                kind = (file.metadata() or {}).get("index", "no index")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(f"{path} is no stored index ({error}); write it again with save") from None
        if kind != cls.__name__ or set(arrays) != {"ids", "content"}:
            raise ValueError(f"{path} holds {kind} with {', '.join(arrays)}; expected {cls.__name__} with ids, content")
        index, rows = cls._restored(arrays["content"], path)
        if rows != len(arrays["ids"]):
            raise ValueError(f"{path}: {len(arrays['ids'])} ids for {rows} rows; build the index again")
        index.ids = _new_ids(arrays["ids"], rows, index.ids)
        return index


class FlatIndex(Index):
    """Exact search: every row is scored, with one matrix product."""

    def __init__(self, dimension: int):
        super().__init__(dimension)
        self.vectors = np.empty((0, dimension), np.float32)

    def _append(self, vectors: np.ndarray) -> None:
        self.vectors = np.concatenate([self.vectors, vectors])

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        batch = max(1, BLOCK // len(self))
        parts = [queries[start : start + batch] for start in range(0, len(queries), batch)] or [queries]
        found = [_best(part @ self.vectors.T, k) for part in parts]
        return tuple(map(np.concatenate, zip(*found)))

    def _content(self) -> np.ndarray:
        return self.vectors

    @classmethod
    def _restored(cls, content: np.ndarray, path: Path | str) -> tuple[Self, int]:
        index = cls(content.shape[-1])
        index._append(_rows(f"{path}: vectors", content, index.dimension))
        return index, len(content)


class HNSWIndex(Index):
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

        super().__init__(dimension)
        self.ef_search = ef_search
        self._graph = faiss.IndexHNSWFlat(dimension, check_whole("m", m, least=2), faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = check_whole("ef_construction", ef_construction)

    def _append(self, vectors: np.ndarray) -> None:
        self._graph.add(vectors)

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        ef = max(check_whole("ef_search", self.ef_search), k)
        scores, rows = self._graph.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=ef))
        short = (rows < 0).any(axis=1)
        if short.any():  # no link leads to enough rows: exact search for these few queries
            rows[short], scores[short] = _best(queries[short] @ self._graph.reconstruct_n(0, len(self)).T, k)
        return rows, scores

    def _content(self) -> np.ndarray:
        import faiss

        self._graph.hnsw.efSearch = self.ef_search  # stored with the graph
        return faiss.serialize_index(self._graph)

    @classmethod
    def _restored(cls, content: np.ndarray, path: Path | str) -> tuple[Self, int]:
        import faiss

        try:
            graph = faiss.deserialize_index(content)
        except RuntimeError as error:
            fault = str(error).splitlines()[0]
            raise ValueError(f"{path}: faiss cannot read its graph ({fault}); build the index again") from None
        if not isinstance(graph, faiss.IndexHNSWFlat):
            raise ValueError(f"{path}: its graph is a {type(graph).__name__}; build the index again")
        index = cls(graph.d, ef_search=graph.hnsw.efSearch)
        index._graph = graph
        return index, graph.ntotal


def replace_file(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there when it is on the disk."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        write_file(Path(folder, path.name), content)
        os.replace(Path(folder, path.name), path)


def write_file(path: Path, content: bytes) -> None:
    """Write a new file, and wait until it is on the disk. Raises FileExistsError where there is one."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


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


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and values of the k highest scores of each row, both (B, k), best first."""
    n = scores.shape[1]
    top = np.argpartition(scores, n - k, axis=1)[:, n - k :]
    top = np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1), axis=1)
    return top, np.take_along_axis(scores, top, axis=1)


def check_whole(name: str, value: int, least: int = 1) -> int:
    """The value as an int. Raises ValueError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r}; expected a whole number of at least {least}")
    return int(value)


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
