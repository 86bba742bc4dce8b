"""The exports of chapter 12: a grown catalogue, what is said of it, the clock; and the benchmark's kinds."""

import gc
import time
from importlib.util import find_spec

import numpy as np
import pytest
from ann import towers
from ann_indexes import KINDS, Built, cells, measure, timed_build

from recsys_utils.models.ann import describe_vectors, grow, latency
from recsys_utils.retrieval import FlatIndex, recall

REQUIRED = {"faiss", "usearch", "voyager"}
INSTALLED = [name for name, kind in KINDS.items() if kind.package in REQUIRED or find_spec(kind.package)]


@pytest.fixture(scope="module")
def book():
    """User and item vectors of the 64-dimensional towers."""
    return towers()


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clumps(n, d=16, n_clumps=30, seed=0):
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(n_clumps, d))[rng.integers(0, n_clumps, n)] + 0.4 * rng.normal(size=(n, d)))


def check_like(grown, original):
    """Spectrum within 5%, distance ratio within 10%, near-duplicates no commoner than 2 rows in 100 more."""
    new, old = describe_vectors(grown, sample=150), describe_vectors(original, sample=len(original))
    for name in ("shares", "energy"):
        worst = abs(new[name] / old[name] - 1).max()
        assert worst < 0.05, f"{name} are off by {worst:.1%}"
    assert abs(new["ratio"] / old["ratio"] - 1) < 0.1, f"distance ratio {new['ratio']:.3f}, not {old['ratio']:.3f}"
    assert abs(new["duplicates"] - old["duplicates"]) < 0.02, f"near-duplicates {new['duplicates']:.1%}"


@pytest.mark.parametrize("n", [20_000, 1_000_000])
def test_a_grown_catalogue_is_like_the_films(book, n):
    grown = grow(book[1], n)
    assert grown.shape == (n, 64)
    assert grown.dtype == np.float32
    assert np.isfinite(grown).all()
    np.testing.assert_allclose(np.linalg.norm(grown, axis=1), 1, atol=1e-5)
    check_like(grown, book[1])


def test_what_is_not_like_the_films_is_told_apart(book):
    items, rng = book[1], np.random.default_rng(0)
    with pytest.raises(AssertionError, match="shares are off"):
        check_like(unit(rng.normal(size=(20_000, 64))), items)
    copies = unit(items[rng.integers(0, len(items), 20_000)] + 0.02 * rng.normal(size=(20_000, 64)))
    with pytest.raises(AssertionError, match=r"distance ratio|near-duplicates"):
        check_like(copies, items)
    nearly = items.copy()
    nearly[::30] = items[1::30][: len(nearly[::30])]  # one film in thirty twice
    with pytest.raises(AssertionError, match="near-duplicates"):
        check_like(nearly, items)


def test_grow_follows_its_seed_and_takes_lengths():
    rows = clumps(300)
    np.testing.assert_array_equal(grow(rows, 500, seed=3), grow(rows, 500, seed=3))
    assert not np.array_equal(grow(rows, 500, seed=3), grow(rows, 500, seed=4))
    long = rows * np.linspace(1, 3, 300)[:, None].astype(np.float32)
    grown = grow(long, 20_000)
    assert np.linalg.norm(grown, axis=1).std() > 0.2
    np.testing.assert_allclose(grown.T @ grown / 20_000, long.T @ long / 300, atol=0.05)


def flat(rows):
    index = FlatIndex(rows.shape[1])
    index.add(rows)
    return index


@pytest.mark.parametrize(("rows", "n"), [(17, 10), (300, 0)])
def test_grow_says_what_it_needs(rows, n):
    with pytest.raises(ValueError, match=f"{rows} vectors, n={n}; expected at least 18"):
        grow(clumps(rows), n)


def test_describe_vectors_by_brute_force():
    rows = clumps(400) * np.linspace(0.5, 2, 400)[:, None].astype(np.float32)
    said = describe_vectors(rows, sample=400, bound=0.9)
    sigma = np.linalg.svd(rows, compute_uv=False)
    np.testing.assert_allclose(said["shares"], sigma / sigma.sum(), rtol=1e-4)
    np.testing.assert_allclose(said["energy"], sigma**2 / (sigma**2).sum(), rtol=1e-4)
    scaled = unit(rows).astype(float)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    distances.sort(axis=1)
    assert said["duplicates"] == pytest.approx((1 - distances[:, 0] ** 2 / 2 > 0.9).mean(), abs=0.003)
    assert said["ratio"] == pytest.approx(np.median(distances[:, 0] / distances[:, 9]), rel=1e-3)


def test_describe_vectors_at_the_edges():
    twice = np.repeat(clumps(20), 2, axis=0)
    assert describe_vectors(twice)["duplicates"] == 1
    assert describe_vectors(twice)["ratio"] < 0.01
    twice[0] = 0  # a row of length zero is nobody's neighbour
    assert np.isfinite(describe_vectors(twice)["ratio"])
    with pytest.raises(ValueError, match="k=11, but the index holds 10 rows"):
        describe_vectors(clumps(10))


def test_latency_counts_calls_batches_and_repeats():
    sizes = []
    taken = latency(lambda queries, k: sizes.append((len(queries), k)), np.zeros((10, 2)), k=3, batch=4, warm=1)
    assert taken.shape == (3, 2)
    assert sizes == [(4, 3)] * 7
    slow = latency(lambda queries, k: time.sleep(0.004), np.zeros((8, 2)), batch=4, repeats=2, warm=0)
    assert (slow >= 1).all()
    assert np.median(slow) < 3


@pytest.mark.parametrize(("warm", "hidden"), [(1, True), (0, False)])
def test_latency_warms_up(warm, hidden):
    calls = []

    def cold(queries, k):
        time.sleep(0 if calls else 0.02)
        calls.append(k)

    assert (latency(cold, np.zeros((5, 2)), repeats=1, warm=warm)[0, 0] < 15) == hidden


def test_latency_leaves_the_collector_as_it_was():
    seen = []
    latency(lambda queries, k: seen.append(gc.isenabled()), np.zeros((2, 2)), repeats=1, warm=0)
    assert seen == [False, False]
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        latency(lambda queries, k: 1 / 0, np.zeros((2, 2)), warm=0)
    assert gc.isenabled()


@pytest.mark.parametrize("batch", [0, 3])
def test_latency_refuses_a_batch_it_cannot_fill(batch):
    with pytest.raises(ValueError, match=f"batch={batch} of 2 queries"):
        latency(lambda queries, k: None, np.zeros((2, 2)), batch=batch)


@pytest.fixture(scope="module")
def small():
    """Vectors with lengths, so that only an inner product finds the right ones; queries and the exact answers."""
    rng = np.random.default_rng(5)
    vectors = (clumps(3_000) * rng.uniform(0.6, 1.6, (3_000, 1))).astype(np.float32)
    queries = clumps(60, seed=9)
    return vectors, queries, flat(vectors).search(queries, 10)[0]


def check_kind(built, efforts, queries, exact, least):
    """Ids of the right shape, more found with more effort, and enough with the most."""
    found = []
    for effort in (efforts[0], efforts[-1]):
        ids = built.tune(effort)(queries, 10)
        assert ids.shape == (len(queries), 10)
        assert ids.dtype == np.int64
        one = built.tune(effort)(queries[:1], 10)
        assert recall(one, ids[:1]).mean() >= 0.8
        found.append(recall(ids, exact).mean())
    assert max(least, found[0] - 0.02) <= found[1], f"recall {found[0]:.2f}, then {found[1]:.2f}"


@pytest.mark.parametrize("name", INSTALLED)
def test_every_kind_finds_by_inner_product(small, name):
    vectors, queries, exact = small
    built, seconds = timed_build(name, vectors)
    codes_alone = name in ("PQ", "IVF-PQ")
    check_kind(built, KINDS[name].efforts, queries, exact, 0.2 if codes_alone else 1 if name == "Flat" else 0.9)
    assert seconds > 0
    assert built.n_bytes > len(vectors) * (4 if codes_alone else 16)


def test_another_metric_would_be_noticed(small):
    import faiss

    vectors, queries, exact = small
    wrong = faiss.IndexFlatL2(16)
    wrong.add(vectors)
    with pytest.raises(AssertionError, match="recall"):
        check_kind(Built(lambda _: lambda q, k: wrong.search(q, k)[1], 0), (0,), queries, exact, 0.9)


def test_cells():
    assert [cells(n) for n in (10, 1_000, 20_000, 100_000, 1_000_000)] == [1, 16, 512, 1024, 4096]
    assert all(n / cells(n) >= 39 for n in range(39, 5_000, 7))


def test_measure_gives_a_row_an_effort(small):
    rows = measure("IVF", *small)
    assert [row["effort"] for row in rows] == list(KINDS["IVF"].efforts)
    assert {"index", "n", "dimension", "bytes", "build_s"} < rows[0].keys()
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["p99_worst_ms"]
        assert 0 <= row["recall"] <= 1
    assert rows[0]["recall"] < rows[-1]["recall"]
    assert len(measure("IVF", *small, efforts=(2, 4), repeats=1)) == 2
