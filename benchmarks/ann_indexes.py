"""The kinds of index that benchmarks/ann.py compares, each of one library, all by inner product and with one thread.

A kind is built once and tuned often: the effort is the number of cells, of candidates or of tree nodes that a search
looks at.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recsys_utils.models.ann import latency
from recsys_utils.retrieval import recall

Search = Callable[[np.ndarray, int], np.ndarray]  # queries (B, d), k -> row numbers (B, k), best first


class Built(NamedTuple):
    """An index with its vectors: tune(effort) gives a Search; n_bytes: the size of its stored form.

    Searches share the index: one of an earlier tune() works with the effort of the latest.
    """

    tune: Callable[[int], Search]
    n_bytes: int


def cells(n: int) -> int:
    """Cells of an inverted file for n rows: the power of two nearest to 4 √n that leaves 39 a cell."""
    return 2 ** int(np.log2(max(1, min(4 * (2 * n) ** 0.5, n / 39))))


def build_faiss(vectors: np.ndarray, recipe: str, parameter: str = "") -> Built:
    """An index of faiss.index_factory by inner product, one thread; {cells} and {bytes} are filled in.

    parameter: what the effort sets, "nprobe" or "efSearch". A refined index looks again at 10 k rows. In a recipe "np"
    leaves the codes of a PQ in any order: to sort them, which nothing here uses, takes longer than all else.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    recipe = recipe.format(cells=cells(len(vectors)), bytes=vectors.shape[1] // 4)
    index = faiss.index_factory(vectors.shape[1], recipe, faiss.METRIC_INNER_PRODUCT)
    setting = faiss.ParameterSpace().set_index_parameter
    if recipe.startswith("HNSW"):
        setting(index, "efConstruction", 200)
    if recipe.endswith("RFlat"):
        setting(index, "k_factor_rf", 10)
    index.train(vectors)
    index.add(vectors)

    def tune(effort: int) -> Search:
        if parameter:
            setting(index, parameter, effort)
        return lambda queries, k: index.search(queries, k)[1]

    return Built(tune, len(faiss.serialize_index(index)))


def build_usearch(vectors: np.ndarray) -> Built:
    """HNSW of usearch, 32 links, inner product, one thread."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=200)
    index.add(np.arange(len(vectors)), vectors, threads=1)

    def tune(effort: int) -> Search:
        index.expansion_search = effort
        return lambda queries, k: np.reshape(index.search(queries, k, threads=1).keys, (len(queries), k)).astype(
            np.int64
        )

    return Built(tune, index.serialized_length)


def build_voyager(vectors: np.ndarray) -> Built:
    """HNSW of voyager, 32 links, inner product, one thread."""
    import voyager

    index = voyager.Index(voyager.Space.InnerProduct, vectors.shape[1], M=32, ef_construction=200)
    index.add_items(vectors, num_threads=1)
    return Built(
        lambda effort: (
            lambda queries, k: index.query(queries, k, num_threads=1, query_ef=max(effort, k))[0].astype(np.int64)
        ),
        len(index.as_bytes()),
    )


def build_hnswlib(vectors: np.ndarray) -> Built:
    """HNSW of hnswlib, 32 links, inner product, one thread."""
    import hnswlib

    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=32, ef_construction=200, random_seed=0)
    index.add_items(vectors, num_threads=1)

    def tune(effort: int) -> Search:
        index.set_ef(effort)
        return lambda queries, k: index.knn_query(queries, k, num_threads=1)[0].astype(np.int64)

    return Built(tune, index.index_file_size())


def build_annoy(vectors: np.ndarray) -> Built:
    """Fifty random trees of Annoy, inner product (reduced to angles), one thread."""
    import annoy

    index = annoy.AnnoyIndex(vectors.shape[1], "dot")
    index.set_seed(0)
    for row, vector in enumerate(vectors):
        index.add_item(row, vector)
    index.build(50, n_jobs=1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        index.save(str(Path(folder, "annoy")))
        n_bytes = Path(folder, "annoy").stat().st_size
    return Built(
        lambda effort: lambda queries, k: np.array([index.get_nns_by_vector(q, k, effort) for q in queries]), n_bytes
    )


def build_scann(vectors: np.ndarray) -> Built:
    """Cells and anisotropic codes of ScaNN (Guo et al. 2020), the best 100 again exactly; one thread."""
    import scann

    builder = scann.scann_ops_pybind.builder(vectors, 10, "dot_product").set_n_training_threads(1)
    builder = builder.tree(cells(len(vectors)), 1, training_sample_size=min(len(vectors), 250_000))
    index = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
    with tempfile.TemporaryDirectory() as folder:
        index.serialize(folder)
        n_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())

    def tune(effort: int) -> Search:
        def search(queries: np.ndarray, k: int) -> np.ndarray:
            if len(queries) == 1:  # faster than a batch of one
                return index.search(queries[0], k, leaves_to_search=effort)[0][None].astype(np.int64)
            return index.search_batched(queries, k, leaves_to_search=effort)[0].astype(np.int64)

        return search

    return Built(tune, n_bytes)


class Kind(NamedTuple):
    """A kind of index: the package it needs, build(vectors) -> Built, efforts worth trying, least first."""

    package: str
    build: Callable[[np.ndarray], Built]
    efforts: tuple[int, ...]


def _faiss(recipe: str, parameter: str = "", efforts: tuple[int, ...] = (0,)) -> Kind:
    return Kind("faiss", lambda vectors: build_faiss(vectors, recipe, parameter), efforts)


NPROBE, EF = (1, 2, 4, 8, 16, 32, 64, 128), (16, 32, 64, 128, 256, 512)
KINDS = {
    "Flat": _faiss("Flat"),
    "IVF": _faiss("IVF{cells},Flat", "nprobe", NPROBE),
    "PQ": _faiss("PQ{bytes}np"),
    "IVF-PQ": _faiss("IVF{cells},PQ{bytes}np", "nprobe", NPROBE),
    "IVF-PQ, refined": _faiss("IVF{cells},PQ{bytes}np,RFlat", "nprobe", NPROBE),
    "HNSW": _faiss("HNSW32", "efSearch", EF),
    "HNSW, 8 bits": _faiss("HNSW32_SQ8", "efSearch", EF),
    "usearch": Kind("usearch", build_usearch, EF),
    "voyager": Kind("voyager", build_voyager, EF),
    "hnswlib": Kind("hnswlib", build_hnswlib, EF),
    "Annoy": Kind("annoy", build_annoy, (500, 2_000, 8_000, 32_000)),
    "ScaNN": Kind("scann", build_scann, NPROBE),
}


def timed_build(name: str, vectors: np.ndarray) -> tuple[Built, float]:
    """An index of a kind in KINDS, and the processor seconds it took."""
    started = time.process_time()
    return KINDS[name].build(vectors), time.process_time() - started


def measure(
    name: str,
    vectors: np.ndarray,
    queries: np.ndarray,
    exact: np.ndarray,
    *,
    repeats: int = 3,
    efforts: tuple[int, ...] = (),
    built: tuple[Built, float] | None = None,
) -> list[dict]:
    """Build a kind of index and measure it: one row an effort (of KINDS, unless given); one thread.

    exact: the exact answers, row numbers (B, k). built: what timed_build gave, if called before.
    Columns: index, n, dimension, bytes (stored), build_s (processor time), effort, recall (mean over
    queries), p50_ms and p99_ms (one query a call, median of the repeats), p99_worst_ms (of the
    repeats), batch_ms (a query in calls of 100).
    """
    (index, seconds), k, rows = built or timed_build(name, vectors), exact.shape[1], []
    for effort in efforts or KINDS[name].efforts:
        search, batch = index.tune(effort), min(100, len(queries))
        p50, p99 = np.percentile(latency(search, queries, k=k, repeats=repeats), [50, 99], axis=1)
        many = latency(search, queries, k=k, batch=batch, repeats=repeats, warm=1)
        numbers = {
            "recall": recall(search(queries, k), exact).mean(),
            "p50_ms": np.median(p50),
            "p99_ms": np.median(p99),
            "p99_worst_ms": p99.max(),
            "batch_ms": np.median(many),
        }
        rows.append(
            {
                "index": name,
                "n": len(vectors),
                "dimension": vectors.shape[1],
                "bytes": index.n_bytes,
                "build_s": seconds,
                "effort": effort,
                **{key: float(x) for key, x in numbers.items()},
            }
        )
    return rows
