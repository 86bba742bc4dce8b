"""Negative samplers: never a positive, exactly the weights, in a table or by search."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from benchmarks.evaluation import measured_memory
from canaries import samplers
from core_checks import check_negatives, met
from recsys_utils import sampling
from recsys_utils.sampling import NegativeSampler, _alias_table

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("dense_cells", [10**9, 0], ids=["table", "search"])
@pytest.mark.parametrize("alpha", [0, 0.75, 1])
def test_draws_follow_the_weights_and_avoid_every_positive(alpha, dense_cells, monkeypatch):
    monkeypatch.setattr(sampling, "DENSE_CELLS", dense_cells)
    positives = met()
    check_negatives(NegativeSampler(positives, alpha), positives, alpha)


def test_canaries_samplers_that_ignore_positives_or_alpha_are_caught():
    positives = met()
    with pytest.raises(AssertionError, match="own positives as a negative"):
        check_negatives(samplers.IgnoresPositives(positives), positives, 0)
    check_negatives(samplers.IgnoresAlpha(positives), positives, 0)
    with pytest.raises(AssertionError, match="do not follow the weights"):
        check_negatives(samplers.IgnoresAlpha(positives, 0.75), positives, 0.75)


@pytest.mark.parametrize("alpha", [0, 0.75])
def test_table_and_search_draw_the_same(alpha, monkeypatch):
    positives, users = met(), np.random.default_rng(0).integers(0, 30, 500)
    table = NegativeSampler(positives, alpha)
    monkeypatch.setattr(sampling, "DENSE_CELLS", 0)
    search = NegativeSampler(positives, alpha)
    assert (table._keys, search._table) == (None, None)
    drawn = table.sample(users, 7, np.random.default_rng(1))
    np.testing.assert_array_equal(drawn, search.sample(users, 7, np.random.default_rng(1)))
    assert drawn.shape == (500, 7)
    assert drawn.dtype == np.int32


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any))
def test_alias_table_is_exact(counts):
    weights = np.array(counts, float)
    threshold, other = _alias_table(weights)
    mass = threshold.astype(float)
    np.add.at(mass, other, 1 - threshold.astype(float))
    np.testing.assert_allclose(mass / len(weights), weights / weights.sum(), atol=2e-7)
    never = weights == 0
    assert (threshold[never] == 0).all()
    assert not np.isin(other[threshold < 1], np.flatnonzero(never)).any()


@pytest.mark.parametrize("dense_cells", [10**9, 0], ids=["table", "search"])
def test_a_user_who_has_met_all_but_a_rare_item_gets_it_without_waiting(dense_cells, monkeypatch):
    monkeypatch.setattr(sampling, "DENSE_CELLS", dense_cells)
    n_users, n_items = 3000, 20
    dense = np.ones((n_users, n_items), bool)
    dense[:, -1] = False
    dense[1, -1] = True  # one in 57,000 of all interactions
    dense[1, :5] = False
    drawn = NegativeSampler(sparse.csr_matrix(dense), alpha=1).sample(
        np.array([0, 2, 1]), 100, np.random.default_rng(0)
    )
    assert (drawn[:2] == n_items - 1).all()
    assert set(drawn[2]) == set(range(5))


@pytest.mark.parametrize("alpha", [0, 1])
def test_a_user_who_has_met_everything_raises(alpha):
    dense = np.zeros((3, 4), bool)
    dense[1] = True
    dense[0, 0] = True
    sampler = NegativeSampler(sparse.csr_matrix(dense), alpha)
    assert sampler.sample(np.array([0, 2]), 3, np.random.default_rng(0)).shape == (2, 3)
    with pytest.raises(ValueError, match="user code 1 has met every item that can be drawn; leave the user out"):
        sampler.sample(np.array([0, 1]), 3, np.random.default_rng(0))


def test_with_popularity_an_item_nobody_met_cannot_be_drawn():
    dense = np.array([[1, 1, 0], [1, 0, 0]])
    sampler = NegativeSampler(sparse.csr_matrix(dense), alpha=0.5)
    with pytest.raises(ValueError, match="user code 0 has met every item that can be drawn"):
        sampler.sample(np.array([0]), 1, np.random.default_rng(0))
    assert (sampler.sample(np.array([1]), 20, np.random.default_rng(0)) == 1).all()
    nothing = NegativeSampler(sparse.csr_matrix((2, 3)), alpha=1)
    with pytest.raises(ValueError, match="met every item"):
        nothing.sample(np.array([1]), 1, np.random.default_rng(0))
    assert NegativeSampler(sparse.csr_matrix((2, 3))).sample(np.array([1]), 5, np.random.default_rng(0)).max() < 3


@pytest.mark.parametrize("dense_cells", [10**9, 0], ids=["table", "search"])
def test_stored_zeros_repeats_and_unsorted_entries_are_positives_and_the_matrix_is_left_alone(dense_cells, monkeypatch):
    monkeypatch.setattr(sampling, "DENSE_CELLS", dense_cells)
    indices = np.array([3, 0, 3, 1], np.int32)
    positives = sparse.csr_matrix((np.array([True, False, True, True]), indices, np.array([0, 3, 4])), shape=(2, 5))
    before = positives.indices.copy()
    drawn = NegativeSampler(positives).sample(np.zeros(200, int), 2, np.random.default_rng(0))
    assert set(drawn.ravel()) == {1, 2, 4}
    np.testing.assert_array_equal(positives.indices, before)
    assert positives.nnz == 4


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([5], "user codes run from 5 to 5; expected 0..2"),
        ([-1, 0], "run from -1 to 0"),
        ([0.5], "float64; expected user codes"),
        ([[0]], r"users has shape \(1, 1\)"),
    ],
)
def test_bad_users(users, message):
    with pytest.raises(ValueError, match=message):
        NegativeSampler(sparse.csr_matrix((3, 4))).sample(users, 1, np.random.default_rng(0))


@pytest.mark.parametrize("alpha", [-1, np.nan, np.inf])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match=r"expected 0 .uniform. or more"):
        NegativeSampler(met(), alpha)


def test_nothing_asked_nothing_drawn():
    sampler, rng = NegativeSampler(met(), 1), np.random.default_rng(0)
    assert sampler.sample([], 3, rng).shape == (0, 3)
    assert sampler.sample([0, 1], 0, rng).shape == (2, 0)


def test_no_overflow_at_200_000_users_and_87_000_items():
    """17.4 thousand million cells, searched for: the users and items with the highest codes."""
    n_users, n_items = 200_000, 87_000
    rows = np.repeat([0, 49_367, n_users - 1], 4)
    columns = np.tile([0, 1, n_items - 2, n_items - 1], 3)
    positives = sparse.csr_matrix((np.ones(12, bool), (rows, columns)), shape=(n_users, n_items))
    sampler = NegativeSampler(positives)
    assert sampler._table is None
    assert sampler._is_positive(rows * n_items + columns).all()
    assert not sampler._is_positive(rows[3::4] * n_items + 1 + 2).any()
    drawn = sampler.sample(np.full(100_000, n_users - 1), 2, np.random.default_rng(0))
    assert drawn.min() >= 2
    assert drawn.max() <= n_items - 3
    popular = NegativeSampler(positives, alpha=1)
    with pytest.raises(ValueError, match=f"user code {n_users - 1} has met every item"):
        popular.sample(np.array([n_users - 1]), 1, np.random.default_rng(0))


def test_memory_of_a_search_over_two_million_positives():
    found = measured_memory(ROOT / "benchmarks" / "sampling.py", 20_000, 87_000, 100)
    assert found["process"] < 400, found


def test_measured_speed_meets_the_bars():
    """What benchmarks/sampling.py last wrote: at least 10 million a second, at most 1 GB."""
    path = ROOT / "results" / "speed" / "sampling.json"
    rows = {row["name"]: row["value"] for row in json.loads(path.read_text(encoding="utf-8"))}
    assert rows["NegativeSampler, uniform"] >= 10
    assert rows["NegativeSampler, popularity^0.75"] >= 10
    assert rows["whole process with it, 200,000 x 87,000"] <= 1000
