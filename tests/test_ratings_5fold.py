"""The folds of the cross-validation of predicted ratings, and how their reports become one."""

import numpy as np
import pytest
from ratings_5fold import pool, random_folds

from core_checks import check_holdout, popularity, world
from recsys_utils.evaluation import evaluate, evaluate_ratings
from recsys_utils.splits import TEST, VALIDATION


def test_folds_test_every_row_once():
    data = world()
    folds = random_folds(data, 5, seed=0)
    tested = np.stack([fold.parts == TEST for fold in folds])
    np.testing.assert_array_equal(tested.sum(axis=0), 1)
    np.testing.assert_array_equal(np.stack([fold.parts == VALIDATION for fold in folds]), np.roll(tested, -1, axis=0))
    assert np.ptp(tested.sum(axis=1)) <= 1
    assert {fold.protocol for fold in folds} == {"ratings-5fold"}
    for fold in folds:
        check_holdout(fold.test)
    again, other = random_folds(data, 5, seed=0), random_folds(data, 5, seed=1)
    assert [fold.fingerprint for fold in folds] == [fold.fingerprint for fold in again]
    assert folds[0].fingerprint != other[0].fingerprint


def test_two_folds_are_too_few():
    with pytest.raises(ValueError, match="n_folds=2; expected at least 3"):
        random_folds(world(), 2)


def test_folds_are_pooled_over_ratings():
    """As if one model had predicted all ratings: sums are added, so a large fold counts for more than a small one."""
    data = world()
    predictions = data.ratings + np.random.default_rng(0).normal(0, 1, len(data))
    folds = random_folds(data)
    reports = [evaluate_ratings(predictions[fold.parts == TEST], fold.test) for fold in folds]
    pooled = pool(reports)
    error = predictions - data.ratings
    assert pooled.mean("rmse") == pytest.approx(np.sqrt((error**2).mean()))
    assert pooled.mean("mae") == pytest.approx(np.abs(error).mean())
    assert pooled.fingerprint == folds[0].fingerprint
    np.testing.assert_array_equal(pooled.users, np.flatnonzero(data.user_counts))
    ranking = evaluate(popularity(folds[0].test.seen), folds[0].test)
    with pytest.raises(ValueError, match="expected rating reports of one protocol"):
        pool([reports[0], ranking])
    with pytest.raises(ValueError, match="there are no reports to pool"):
        pool([])
