"""Nearest rows: exact against NumPy's full sort, the graph against exact, files, and every bad input."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_utils.retrieval import FlatIndex, HNSWIndex, recall

INDEXES = [FlatIndex, HNSWIndex]


def blobs(n=2_000, d=16, seed=0):
    """Rows in fifty groups, of unequal length, as learnt vectors lie; never white noise."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(50, d))[rng.integers(50, size=n)] + 0.3 * rng.normal(size=(n, d))
    return (rows * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


def filled(index, n=2_000, d=16):
    built = index(d)
    built.add(blobs(n, d))
    return built


@pytest.fixture(scope="module", params=INDEXES)
def index(request):
    return filled(request.param)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 10**6), st.data())
@settings(max_examples=60, deadline=None)
def test_exact_search_is_the_full_sort(n, d, seed, data):
    rows, queries = blobs(n, d, seed), blobs(5, d, seed + 1)
    k = data.draw(st.integers(1, n))
    index = FlatIndex(d)
    index.add(rows, np.arange(n) * 3 + 7)
    ids, scores = index.search(queries, k)
    expected = np.sort(queries @ rows.T, axis=1)[:, ::-1][:, :k]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        np.take_along_axis(queries @ rows.T, (ids - 7) // 3, axis=1), scores, rtol=1e-5, atol=1e-5
    )
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32
    assert all(len(set(row)) == k for row in ids.tolist())


def test_exact_search_in_blocks_is_the_same(monkeypatch):
    index, queries = filled(FlatIndex), blobs(100, seed=1)
    whole = index.search(queries, 10)
    monkeypatch.setattr("recsys_utils.retrieval.BLOCK", 5_000)
    np.testing.assert_array_equal(index.search(queries, 10)[0], whole[0])


def test_the_graph_finds_nearly_all_and_more_with_a_wider_search():
    queries, graph = blobs(300, seed=1), filled(HNSWIndex)
    exact = filled(FlatIndex).search(queries, 10)[0]
    found = {}
    for graph.ef_search in (10, 200):
        found[graph.ef_search] = recall(graph.search(queries, 10)[0], exact).mean()
    assert found[200] >= max(0.98, found[10])
    ids, scores = graph.search(queries, 10)
    np.testing.assert_allclose(np.einsum("bd,bkd->bk", queries, blobs()[ids]), scores, rtol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_rows_that_no_link_reaches_are_found_all_the_same(index):
    """k = n: a graph alone gives fewer rows than that, in silence."""
    ids, scores = index.search(blobs(3, seed=2), len(index))
    assert all(sorted(row) == list(range(len(index))) for row in ids.tolist())
    assert (np.diff(scores, axis=1) <= 1e-5).all()
    assert index.search(blobs(3), np.int64(5))[0].shape == (3, 5)


def test_adding_in_parts_and_numbers_given(index):
    parts = type(index)(16)
    parts.add(blobs()[:1_500], np.arange(10, 1_510))
    parts.add(blobs()[1_500:])
    assert len(parts) == 2_000
    assert parts.ids[-1] == 2_009
    queries = blobs(100, seed=1)
    shared = recall(parts.search(queries, 5)[0] - 10, index.search(queries, 5)[0])
    assert shared.mean() > (0.9 if isinstance(index, HNSWIndex) else 0.999)
    parts.add(np.empty((0, 16), np.float32))
    assert len(parts) == 2_000


def test_a_stored_index_answers_the_same(index, tmp_path):
    if isinstance(index, HNSWIndex):
        index.ef_search = 40
    index.save(tmp_path / "index.safetensors")
    again = type(index).load(tmp_path / "index.safetensors")
    queries = blobs(50, seed=1)
    for before, after in zip(index.search(queries, 7), again.search(queries, 7), strict=True):
        np.testing.assert_array_equal(before, after)
    again.add(blobs(10, seed=3))
    assert len(again) == 2_010
    assert getattr(again, "ef_search", None) == getattr(index, "ef_search", None)
    assert os.listdir(tmp_path) == ["index.safetensors"]


def test_a_failed_write_leaves_the_old_file(index, tmp_path, monkeypatch):
    path = tmp_path / "index.safetensors"
    index.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        filled(type(index), 100).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["index.safetensors"]


def test_files_of_another_kind(tmp_path):
    flat, graph, other = tmp_path / "flat", tmp_path / "graph", tmp_path / "other"
    filled(FlatIndex, 100).save(flat)
    filled(HNSWIndex, 100).save(graph)
    other.write_bytes(b"not an index")
    with pytest.raises(ValueError, match="expected HNSWIndex"):
        HNSWIndex.load(flat)
    with pytest.raises(ValueError, match="expected FlatIndex"):
        FlatIndex.load(graph)
    for index in INDEXES:
        with pytest.raises(ValueError, match="is no stored index"):
            index.load(other)
        with pytest.raises(FileNotFoundError):
            index.load(tmp_path / "nowhere")
    for path, kind in ((flat, FlatIndex), (graph, HNSWIndex)):
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(ValueError, match="is no stored index"):
            kind.load(path)


def test_a_graph_that_does_not_fit_its_ids(tmp_path):
    import faiss
    from safetensors.numpy import save_file

    ids, graph = np.arange(99), faiss.serialize_index(filled(HNSWIndex, 100)._graph)
    for stored, message in ((graph, "99 ids for 100 rows"), (graph[:-100], "faiss cannot read")):
        save_file({"ids": ids, "content": stored}, tmp_path / "index", metadata={"index": "HNSWIndex"})
        with pytest.raises(ValueError, match=message):
            HNSWIndex.load(tmp_path / "index")


def nan(rows):
    rows = rows.copy()
    rows[1, 3] = np.nan
    return rows


BAD_ROWS = {
    "another dimension": (blobs(5, 8), r"shape \(5, 8\); expected \(n, 16\)"),
    "one vector": (blobs(1)[0], r"shape \(16,\).*put one vector in a list"),
    "NaN": (nan(blobs(5)), "row 1 holds NaN"),
    "infinite": (blobs(5) * np.float32(np.inf), "NaN or numbers beyond float32"),
    "beyond float32": (blobs(5).astype(float) * 1e300, "NaN or numbers beyond float32"),
    "texts": (np.full((5, 16), "1"), "of type <U1; expected numbers"),
    "objects": (np.full((5, 16), None), "of type object; expected numbers"),
    "complex": (blobs(5).astype(complex), "of type complex128; expected numbers"),
    "booleans": (blobs(5) > 0, "of type bool; expected numbers"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_vectors_and_queries(index, rows, message):
    with pytest.raises(ValueError, match="vectors.*" + message):
        index.add(rows)
    with pytest.raises(ValueError, match="queries.*" + message):
        index.search(rows, 3)
    assert len(index) == 2_000


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.arange(4), r"ids of shape \(4,\)"),
        (np.arange(5.0), "type float64"),
        (["a", "b", "c", "d", "e"], "type <U1"),
        ([3_000, 3_001, 3_000, 3_002, 3_003], "id 3000 would be in the index twice"),
        ([1_999, 3_001, 3_002, 3_003, 3_004], "id 1999 would be in the index twice"),
        ([-1, 3_001, 3_002, 3_003, 3_004], "ids run from -1"),
        (np.array([2**64 - 1, 1, 2, 3, 4], np.uint64), "ids run from 1 to 18446744073709551615"),
    ],
)
def test_bad_ids(index, ids, message):
    with pytest.raises(ValueError, match=message):
        index.add(blobs(5), ids)
    assert len(index) == 2_000


@pytest.mark.parametrize(
    ("k", "message"), [(0, "k=0"), (-1, "k=-1"), (2_001, "holds 2000 rows"), (2.0, "k=2.0"), (True, "k=True")]
)
def test_bad_k(index, k, message):
    with pytest.raises(ValueError, match=message):
        index.search(blobs(2), k)


@pytest.mark.parametrize("index", INDEXES)
def test_an_empty_index_and_no_queries(index):
    with pytest.raises(ValueError, match="the index is empty; add vectors"):
        index(16).search(blobs(1), 1)
    ids, scores = filled(index, 50).search(np.empty((0, 16)), 3)
    assert ids.shape == scores.shape == (0, 3)


def test_bad_settings():
    for settings_, message in (
        ({"dimension": 0}, "dimension=0"),
        ({"dimension": 8, "m": 1}, "m=1"),
        ({"dimension": 8, "ef_construction": 0}, "ef_construction=0"),
    ):
        with pytest.raises(ValueError, match=message):
            HNSWIndex(**settings_)
    with pytest.raises(ValueError, match=r"dimension=2\.5"):
        FlatIndex(2.5)
    graph = filled(HNSWIndex, 50)
    graph.ef_search = 0
    with pytest.raises(ValueError, match="ef_search=0"):
        graph.search(blobs(1), 1)


def test_recall_by_hand():
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_array_equal(recall(np.array([[4, 3, 9], [5, -1, -1]]), exact), [0.5, 0.25])
    np.testing.assert_array_equal(recall(np.array([[1, 1, 1, 1], [0, 0, 0, 0]]), exact), [0.25, 0])  # each id once


@pytest.mark.parametrize(
    ("found", "exact", "message"),
    [
        ([[1, 2]], [[1, 1]], "hold an id twice"),
        ([[1, 2]], [[1, -1]], "below 0"),
        ([[1, 2]], [[1, 2], [3, 4]], "shapes"),
        ([1, 2], [1, 2], "shapes"),
        ([["Heat (1995)"]], [["Heat (1995)"]], "titles repeat, ids do not"),
    ],
)
def test_bad_recall(found, exact, message):
    with pytest.raises(ValueError, match=message):
        recall(np.array(found), np.array(exact))


def test_importing_it_and_exact_search_need_no_library():
    code = (
        "import sys, numpy as np; from recsys_utils.retrieval import FlatIndex; i = FlatIndex(2);"
        "i.add(np.eye(2)); i.search(np.eye(2), 1); assert not {'faiss', 'torch', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
