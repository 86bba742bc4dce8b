"""Made-up worlds: one with something to learn, one with nothing."""

import numpy as np
import pytest

from core_checks import check_at_chance, check_beats_chance, popularity
from recsys_utils import splits
from recsys_utils.simulators import simulate_demo, simulate_uniform


def test_demo_is_what_it_says():
    demo = simulate_demo(n_users=40, items_per_category=8, seed=3)
    data = demo.interactions
    assert (data.name, data.n_users, data.n_items) == ("demo", 40, 40)
    assert data.item_table.columns.tolist() == ["title", "genres", "description"]
    assert set(data.ratings.tolist()) <= {1, 2, 3, 4, 5}
    assert data.matrix("ratings").nnz == len(data)  # one rating a pair
    inside = demo.category[data.items] == demo.favourite[data.users]
    assert data.ratings[inside].mean() > data.ratings[~inside].mean() + 0.5
    assert demo.sessions.groupby("session_id")["user_id"].nunique().eq(1).all()
    assert demo.sessions.groupby("session_id")["timestamp"].apply(lambda t: t.is_monotonic_increasing).all()
    clicked = set(zip(demo.sessions["user_id"], demo.sessions["item_id"], strict=True))
    frame = data.frame()
    assert clicked == set(zip(frame["user_id"], frame["item_id"], strict=True))


def test_each_option_matters_and_the_seed_repeats():
    def fingerprint(**options):
        return simulate_demo(**options).interactions.data_sha256

    hashes = [fingerprint(), fingerprint(seed=1), fingerprint(loyalty=0.1), fingerprint(items_per_category=12)]
    assert len({*hashes, fingerprint(n_users=31)}) == 5
    assert fingerprint() == hashes[0]
    loyal, fickle = (simulate_demo(300, loyalty=share) for share in (0.9, 0.1))
    shares = [(d.category[d.interactions.items] == d.favourite[d.interactions.users]).mean() for d in (loyal, fickle)]
    assert shares[0] > shares[1] + 0.3


def test_the_demo_can_be_learnt_and_the_uniform_world_cannot():
    demo = simulate_demo(n_users=200)
    holdout = splits.temporal_per_user(demo.interactions).test
    check_beats_chance(lambda users: (demo.category == demo.favourite[users][:, None]).astype(float), holdout)
    uniform = splits.temporal_per_user(simulate_uniform()).test
    check_at_chance(lambda seed: popularity(uniform.seen), uniform)
    with pytest.raises(AssertionError, match="not above chance"):
        check_beats_chance(popularity(uniform.seen), uniform)


def test_uniform_pairs_are_distinct():
    data = simulate_uniform(20, 10, 200)
    assert data.density == 1
    assert np.array_equal(data.user_counts, np.full(20, 10))
    with pytest.raises(ValueError, match="n_interactions=201, but there are only 200 pairs"):
        simulate_uniform(20, 10, 201)


@pytest.mark.parametrize("options", [{"loyalty": 1.5}, {"n_users": 1}, {"items_per_category": 1}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected a share in"):
        simulate_demo(**options)
