"""Worlds grown with their degrees, and shards that give what one index gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_checks import world
from recsys_utils.models.growth import enlarge
from recsys_utils.models.shards import merge
from recsys_utils.retrieval import FlatIndex


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 12))
def test_merged_shards_are_the_single_index(seed, n_shards, k):
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.normal(size=(n, 4)).astype(np.float32) for n in (60, 7))
    ids = rng.permutation(1000)[:60]
    whole = FlatIndex(4)
    whole.add(vectors, ids)
    found = []
    for rows in np.array_split(rng.permutation(60), n_shards):
        shard = FlatIndex(4)
        shard.add(vectors[rows], ids[rows])
        found.append(shard.search(queries, min(k, len(shard))))
    wanted, scores = whole.search(queries, k)
    np.testing.assert_array_equal(merge(found, k)[0], wanted)
    np.testing.assert_allclose(merge(found, k)[1], scores, atol=1e-6)


def test_canary_too_few_from_each_shard():
    found = [(np.array([[1, 2]]), np.array([[9.0, 8.0]])), (np.array([[5, 6]]), np.array([[1.0, 0.5]]))]
    assert merge(found, 3)[0].tolist() == [[1, 2, 5]]
    assert merge([(ids[:, :1], scores[:, :1]) for ids, scores in found], 2)[0].tolist() == [[1, 5]]  # 2 was better


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_an_enlarged_world_keeps_every_degree_and_makes_no_pair_twice(items, multiple, seed):
    small = world(n_users=20, n_items=15, n=120)
    users = items * multiple
    grown = enlarge(small, users, items, seed)
    np.testing.assert_array_equal(grown.user_counts, np.tile(small.user_counts, users))
    np.testing.assert_array_equal(grown.item_counts, np.tile(multiple * small.item_counts, items))
    assert len(set(zip(grown.users.tolist(), grown.items.tolist(), strict=True))) == len(grown)
    np.testing.assert_array_equal(grown.timestamps, np.tile(small.timestamps, users))
    assert (grown.items % small.n_items == np.tile(small.items, users)).all()


@pytest.mark.parametrize(("users", "items"), [(0, 1), (1, 0), (3, 2), (2, 4)])
def test_a_world_that_cannot_keep_degrees_is_refused(users, items):
    with pytest.raises(ValueError, match=f"users={users}, items={items}; expected counts, users a multiple of items"):
        enlarge(world(n_users=20, n_items=15, n=120), users, items)
