"""iALS of chapter 07: the short systems are the long ones, implicit agrees, and the objective never rises."""

import itertools
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from core_checks import check_beats_chance
from recsys_utils import Interactions, splits
from recsys_utils.evaluation import dense_scorer
from recsys_utils.models.ials import fit_ials
from recsys_utils.models.mf import half_step
from recsys_utils.simulators import simulate_demo

SETTING = {"embedding_dim": 6, "alpha": 5.0, "regularization": 2.0, "epochs": 8}


def world():
    return simulate_demo(n_users=60, items_per_category=12).interactions


def objective(train, U, V, alpha, regularization):
    """Over all pairs, the unobserved ones included (Hu, Koren & Volinsky 2008, eq. 3)."""
    X = train.matrix().toarray()
    return (np.where(X > 0, alpha, 1) * (X - U @ V.T) ** 2).sum() + regularization * ((U**2).sum() + (V**2).sum())


def check_half_step(step):
    """As the full system with a weight for every item, one user at a time."""
    X, rng, alpha, penalty = world().matrix().astype(float), np.random.default_rng(0), 5.0, np.linspace(1, 3, 60)
    Q = rng.normal(size=(X.shape[1], 6))
    found = step((alpha - 1) * X, alpha * X, Q, penalty, gram=Q.T @ Q)
    for user, row in enumerate(X.toarray()):
        c = np.where(row > 0, alpha, 1.0)
        expected = np.linalg.solve(Q.T @ (c[:, None] * Q) + penalty[user] * np.eye(6), Q.T @ (c * row))
        assert np.allclose(found[user], expected, rtol=1e-9), f"user {user} differs from the full system"


def check_minimum(fit, frequency=0.0):
    """V solves its side exactly: the derivative of the objective in V is zero, with the penalty of each row."""
    train, alpha = world(), SETTING["alpha"]
    U, V = fit(train, **SETTING, frequency=frequency)
    X = train.matrix().toarray()
    weight = np.where(X > 0, alpha, 1)
    total = weight.sum(axis=0)
    penalty = SETTING["regularization"] * (total / total.mean()) ** frequency
    derivative = -2 * (weight * (X - U @ V.T)).T @ U + 2 * penalty[:, None] * V
    assert np.abs(derivative).max() < 1e-8, f"the derivative is {np.abs(derivative).max():.1e}"


def test_the_short_system_is_the_long_one():
    check_half_step(half_step)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda weights, targets, factors, penalty, gram: half_step(weights, targets, factors, penalty),  # no unobserved
        lambda weights, targets, factors, penalty, gram: half_step(weights, targets, factors, penalty, gram=-gram),
        lambda weights, targets, factors, penalty, gram: half_step(weights * 1.25, targets, factors, penalty, gram),
        lambda weights, targets, factors, penalty, gram: half_step(weights, targets, factors, penalty[0], gram),
    ],
)
def test_canary_a_wrong_system(wrong):
    with pytest.raises(AssertionError, match="differs from the full system"):
        check_half_step(wrong)


@pytest.mark.parametrize("frequency", [0.0, 0.5, 1.0])
def test_the_last_half_step_is_a_minimum(frequency):
    check_minimum(fit_ials, frequency)


def test_canary_ignored_frequency():
    with pytest.raises(AssertionError, match="the derivative is"):
        check_minimum(lambda train, frequency, **setting: fit_ials(train, **setting), 1.0)


def test_the_objective_never_rises():
    train = world()
    values = [
        objective(train, *fit_ials(train, **SETTING | {"epochs": epochs}), SETTING["alpha"], SETTING["regularization"])
        for epochs in range(1, 9)
    ]
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(values)), values


def test_implicit_solves_the_same_system():
    pytest.importorskip("implicit")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        from implicit.als import AlternatingLeastSquares

    X, rng = world().matrix(), np.random.default_rng(0)
    Q = rng.normal(size=(X.shape[1], 16)).astype(np.float32)
    with threadpool_limits(1, "blas"):
        library = AlternatingLeastSquares(factors=16, regularization=2.0, alpha=5.0, use_cg=False, num_threads=1)
        library.item_factors = Q
        theirs = library.recalculate_user(np.arange(X.shape[0]), X)
    ours = half_step(4.0 * X.astype(float), 5.0 * X.astype(float), Q.astype(float), 2.0, gram=Q.T.astype(float) @ Q)
    assert np.abs(ours - theirs).max() < 1e-4


def test_it_learns_a_planted_world():
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    U, V = fit_ials(split.train_validation, **SETTING)
    check_beats_chance(dense_scorer(U, V.T), split.test)


def test_every_option_matters():
    train = world()
    _, before = fit_ials(train, **SETTING)
    np.testing.assert_array_equal(before, fit_ials(train, **SETTING)[1])
    for name, value in {"alpha": 7.0, "regularization": 3.0, "epochs": 9, "frequency": 1.0, "seed": 1}.items():
        _, after = fit_ials(train, **SETTING | {name: value})
        assert not np.allclose(before, after, atol=1e-6), f"{name}={value} changes nothing"
    U, V = fit_ials(train, **SETTING | {"embedding_dim": 3})
    assert (U.shape, V.shape) == ((train.n_users, 3), (train.n_items, 3))


def test_bad_input_is_said():
    empty = Interactions(np.array([], int), np.array([], int), user_ids=[1], item_ids=[1])
    with pytest.raises(ValueError, match="interactions=0; expected a whole number"):
        fit_ials(empty, **SETTING)
    with pytest.raises(ValueError, match=r"alpha=1\.0, regularization="):
        fit_ials(world(), **SETTING | {"alpha": 1.0})
    with pytest.raises(ValueError, match="epochs=0; expected a whole number"):
        fit_ials(world(), **SETTING | {"epochs": 0})
    with pytest.raises(ValueError, match=r"regularization=0\.0; expected above 1, above 0"):
        fit_ials(world(), **SETTING | {"regularization": 0.0})
