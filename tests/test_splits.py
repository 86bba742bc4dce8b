"""Splits: no pair in two parts, the house formula, ties by file row, fingerprints."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canaries.splits import leaky
from core_checks import check_holdout, pairs, world
from recsys_utils import Interactions, splits
from recsys_utils.splits import TEST, TRAIN, VALIDATION, Split

ALL = [
    splits.temporal_per_user,
    splits.random_per_user,
    splits.random_within_item,
    splits.leave_last_out,
    splits.global_temporal,
]


@pytest.mark.parametrize("split_by", ALL)
def test_parts_cover_everything_once(split_by):
    data = world()
    split = split_by(data)
    check_holdout(split.validation)
    check_holdout(split.test)
    parts = [pairs(part) for part in (split.train, split.validation.truth, split.test.truth)]
    assert set.union(*parts) == pairs(data)
    assert sum(map(len, parts)) == len(data)
    assert pairs(split.validation.seen) == parts[0]
    assert pairs(split.test.seen) == parts[0] | parts[1] == pairs(split.train_validation)
    assert (split.test.part, split.validation.part) == ("test", "validation")
    assert split.test.users.tolist() == sorted(set(split.test.truth.users.tolist()))
    assert split.train.n_items == data.n_items


def test_canary_a_split_with_test_rows_in_train_is_caught():
    data = world()
    with pytest.raises(AssertionError, match="held-out pairs are in the training data"):
        check_holdout(leaky(splits.temporal_per_user(data).test, data))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 60))
def test_house_formula_row_by_row(seed, n):
    """Of n rows, row j is test when j/n >= 4/5, validation when 7/10 <= j/n < 4/5; exact fractions, stable order."""
    rng = np.random.default_rng(seed)
    other = 10  # a second user, so that no part is empty
    times = rng.integers(0, 5, n + other)
    users = rng.permutation([0] * n + [1] * other)
    data = Interactions(users, np.arange(n + other), user_ids=[0, 1], item_ids=range(n + other), timestamps=times)
    expected = np.empty(n + other, int)
    for user in (0, 1):
        rows = sorted(np.flatnonzero(users == user), key=lambda row: (times[row], row))
        for j, row in enumerate(rows):
            share = Fraction(j, len(rows))
            expected[row] = TEST if share >= Fraction(4, 5) else VALIDATION if share >= Fraction(7, 10) else TRAIN
    assert splits.temporal_per_user(data).parts.tolist() == expected.tolist()


@pytest.mark.parametrize("parts", [3, 6, 7, 9])
def test_shares_that_are_no_decimals_are_cut_exactly(parts):
    data = Interactions([0] * 63 * 2, range(126), user_ids=[0], item_ids=range(126), timestamps=range(126))
    counts = np.bincount(splits.temporal_per_user(data, 1 / parts, 1 / parts).parts)
    assert counts.tolist() == [126 - 2 * (126 // parts), 126 // parts, 126 // parts]


def test_temporal_puts_the_future_into_test():
    data = world()
    split = splits.temporal_per_user(data)
    for user in range(data.n_users):
        times = [data.timestamps[(data.users == user) & (split.parts == part)] for part in (TRAIN, VALIDATION, TEST)]
        for before, after in pairwise(times):
            assert not len(before) or not len(after) or before.max() <= after.min()


def test_leave_last_out_takes_one_row_each_and_leaves_short_histories_alone():
    users = [0, 0, 0, 0, 1, 1, 2]
    data = Interactions(users, range(7), user_ids=range(3), item_ids=range(7), timestamps=[5, 9, 9, 1, 1, 2, 3])
    assert splits.leave_last_out(data).parts.tolist() == [0, 1, 2, 0, 0, 0, 0]  # the tie at 9 keeps file order


def test_global_temporal_never_tears_equal_time_stamps_apart():
    data = world()
    split = splits.global_temporal(data)
    first_test, first_validation = split.test.truth.timestamps.min(), split.validation.truth.timestamps.min()
    assert split.train.timestamps.max() < first_validation <= split.validation.truth.timestamps.max() < first_test
    assert (split.parts == TEST).mean() == pytest.approx(0.2, abs=0.01)
    assert (split.parts == VALIDATION).mean() == pytest.approx(0.1, abs=0.01)


def test_within_item_keeps_popularity():
    data = world(300, 20, 3000)
    split = splits.random_within_item(data)
    test_counts = split.test.truth.item_counts
    assert (np.abs(test_counts - data.item_counts * 0.25) < 1).all()
    assert (np.abs(split.validation.truth.item_counts - data.item_counts * 0.1875) < 1).all()


@pytest.mark.parametrize("split_by", [splits.random_per_user, splits.random_within_item])
def test_random_splits_follow_the_seed(split_by):
    data = world()
    assert split_by(data, seed=1).fingerprint == split_by(data, seed=1).fingerprint
    assert split_by(data, seed=1).fingerprint != split_by(data, seed=2).fingerprint


def test_fingerprint_changes_with_data_and_parts_only():
    data = world()
    split = splits.temporal_per_user(data)
    assert (
        split.fingerprint == splits.temporal_per_user(world()).fingerprint == Split(data, split.parts, "x").fingerprint
    )
    moved = split.parts.copy()
    moved[0] = (moved[0] + 1) % 3
    others = [Split(data, moved, "house").fingerprint, splits.temporal_per_user(world(seed=1)).fingerprint]
    assert len({split.fingerprint, *others}) == 3
    assert split.test.fingerprint == split.fingerprint


def test_parts_cannot_change_after_the_fingerprint():
    data = world()
    parts = splits.temporal_per_user(data).parts.copy()
    split = Split(data, parts, "x")
    before = split.fingerprint
    parts[:] = 0
    assert Split(data, split.parts, "x").fingerprint == before
    with pytest.raises(ValueError, match="read-only"):
        split.parts[0] = 1


def test_a_pair_in_two_parts_raises():
    ids = {"user_ids": ["ann", "bob"], "item_ids": ["x", "y", "z"]}
    data = Interactions([0, 0, 0, 1], [0, 1, 0, 2], **ids)
    assert Split(data, [0, 1, 0, 2], "x").train.users.tolist() == [0, 0]  # both rows in one part are fine
    for parts in ([0, 1, 2, 2], [0, 0, 1, 2]):
        with pytest.raises(ValueError, match="user ann and item x are in two parts"):
            Split(data, parts, "x")


def test_pairs_are_told_apart_where_32_bits_would_overflow():
    n_users, n_items = 200_000, 87_000  # 17.4 thousand million cells
    users = np.array([0, 49_367, n_users - 1, n_users - 1])  # 49,367 * 87,000 = 2^32 - 38,296
    items = np.array([1, 38_297, n_items - 1, n_items - 2])
    data = Interactions(users, items, user_ids=range(n_users), item_ids=range(n_items))
    split = Split(data, [0, 2, 1, 2], "x")
    assert (49_367 * n_items + 38_297) % 2**32 == 1
    assert split.test.seen_matrix.nnz == 2


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([0, 1, 2], r"parts has shape \(3,\); expected 4 values"),
        ([0, 1, 2, 256], "0, 1 or 2"),  # 256 is 0 in eight bits
        ([0, 1, 2, 0.5], "0, 1 or 2"),
        ([0, 0, 2, 2], "the validation part of the split is empty"),
        ([1, 1, 2, 2], "the train part of the split is empty"),
        ([0, 0, 1, 1], "the test part of the split is empty"),
    ],
)
def test_bad_parts(parts, message):
    data = Interactions([0] * 4, range(4), user_ids=[0], item_ids=range(4))
    with pytest.raises(ValueError, match=message):
        Split(data, parts, "x")


@pytest.mark.parametrize("split_by", [split for split in ALL if split is not splits.leave_last_out])
@pytest.mark.parametrize("shares", [(0, 0.1), (1.5, 0.1), (0.5, 0.5), (np.nan, 0.1), (-0.1, 0.5), (0.2, 0)])
def test_bad_shares(split_by, shares):
    with pytest.raises(ValueError, match=r"both must lie in \(0, 1\) and leave a share to train"):
        split_by(world(), *shares)


@pytest.mark.parametrize("split_by", ALL)
def test_nothing_to_split(split_by):
    with pytest.raises(ValueError, match=r"empty|no interactions"):
        split_by(world().select([]))


@pytest.mark.parametrize("split_by", [splits.temporal_per_user, splits.leave_last_out, splits.global_temporal])
def test_time_is_needed(split_by):
    data = Interactions([0], [0], user_ids=[0], item_ids=[0], name="clicks")
    with pytest.raises(ValueError, match=r"clicks has no time stamps, .* use random_per_user"):
        split_by(data)
