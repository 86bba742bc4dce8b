"""The dot product of Rendle et al. (2020) in compiled loops: one step is the gradient, one thread repeats itself."""

from __future__ import annotations

import logistic_mf
import numpy as np
import pytest
from logistic_mf import fit_logistic_mf, logistic_sgd

from core_checks import check_beats_chance
from kernels import broken
from recsys_utils import Interactions, splits
from recsys_utils.evaluation import dense_scorer
from recsys_utils.simulators import simulate_demo, simulate_uniform

F32 = np.float32
SETTING = {"embedding_dim": 4, "n_negatives": 2, "learning_rate": 0.05, "regularization": 0.01, "epochs": 1}
OTHER = {"embedding_dim": 8, "n_negatives": 3, "learning_rate": 0.1, "regularization": 0.1, "epochs": 2, "seed": 1}


def check_step(kernel):
    """A pair and a negative, one after the other, move every parameter down the gradient of its own loss.

    There is one item, so the negative is known; gradients of log(1 + e^±x) + λ/2 |θ|², by finite differences. The
    global bias has no penalty.
    """
    rng, d, rate, penalty = np.random.default_rng(0), 5, 0.1, 0.3
    theta = rng.normal(size=2 * d + 3)  # p, q, b, c, mean
    P, Q = theta[None, :d].astype(F32), theta[None, d : 2 * d].astype(F32)
    b, c, mean = (theta[2 * d + k :][:1].astype(F32) for k in range(3))
    expected = theta.copy()
    for sign in (-1, 1):  # log(1 + e^-x) of the positive, log(1 + e^x) of the negative

        def objective(theta, sign=sign):
            x = theta[:d] @ theta[d : 2 * d] + theta[2 * d :].sum()
            return np.log1p(np.exp(sign * x)) + penalty / 2 * theta[:-1] @ theta[:-1]

        steps = 1e-6 * np.eye(len(theta))
        gradient = np.array([(objective(expected + step) - objective(expected - step)) / 2e-6 for step in steps])
        expected -= rate * gradient
    zero = np.zeros(1, np.int32)
    kernel(zero, zero, np.zeros(1, np.int64), 1, 1, P, Q, b, c, mean, F32(rate), F32(penalty), rng)
    moved = np.concatenate([P.ravel(), Q.ravel(), b, c, mean])
    assert np.allclose(moved, expected, atol=1e-6), f"moved by {moved - theta}, expected {expected - theta}"


def test_one_step_is_the_gradient():
    check_step(logistic_sgd)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("e * old", "e * p[f]"),  # the item sees the user's new value
        ("mean[0] += learning_rate * e", "mean[0] += learning_rate * (e - regularization * mean[0])"),
        ("c[i] += learning_rate * (e - regularization * c[i])", "c[i] += learning_rate * e"),
        ("np.exp(-x)", "np.exp(x)"),
    ],
)
def test_canary_a_wrong_step(old, new):
    with pytest.raises(AssertionError, match="moved by"):
        check_step(broken(logistic_sgd, old, new))


def test_vectors_hold_the_biases():
    """The dot products are μ + b_u + b_i + p_u · q_i: users who met nothing differ by their start only."""
    data = simulate_uniform(40, 30, 300)
    U, V = fit_logistic_mf(data, **SETTING)
    assert U.shape == (40, 6)
    assert V.shape == (30, 6)
    assert (U[:, -1] == 1).all()
    assert (V[:, -2] == 1).all()


def test_one_thread_repeats_itself_and_every_option_matters():
    data = simulate_uniform(40, 30, 300)
    before, again = (fit_logistic_mf(data, **SETTING)[1] for _ in range(2))
    assert np.array_equal(before, again)
    for name, value in OTHER.items():
        changed = fit_logistic_mf(data, **SETTING | {name: value})[1]
        assert not np.array_equal(before, changed), f"{name} changes nothing"


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_work(monkeypatch, threads):
    """Every pair once an epoch, whoever takes it, in another order the next time."""
    taken = []
    monkeypatch.setattr(logistic_mf, "logistic_sgd", lambda users, items, rows, *rest: taken.append(rows))
    fit_logistic_mf(simulate_uniform(40, 30, 301), **SETTING | {"epochs": 2}, threads=threads)
    first, second = np.concatenate(taken[:threads]), np.concatenate(taken[threads:])
    assert len(taken) == 2 * threads
    assert np.array_equal(np.sort(first), np.arange(301))
    assert np.array_equal(np.sort(second), np.arange(301))
    assert not np.array_equal(first, second)


def test_after_epoch_sees_each_epoch():
    seen = []
    data = simulate_uniform(40, 30, 300)
    U, V = fit_logistic_mf(data, **SETTING | {"epochs": 3}, after_epoch=lambda U, V: seen.append((U, V)))
    assert len(seen) == 3
    assert np.array_equal(seen[-1][0], U)
    assert np.array_equal(seen[-1][1], V)
    assert not np.array_equal(seen[0][1], seen[1][1])


def test_it_learns_a_planted_world():
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    U, V = fit_logistic_mf(
        split.train_validation, embedding_dim=8, n_negatives=4, learning_rate=0.05, regularization=0.01, epochs=40
    )
    check_beats_chance(dense_scorer(U, V.T), split.test)


def test_steps_that_are_too_large():
    with pytest.raises(ValueError, match=r"the vectors overflow: learning_rate=1e\+20 is too large"):
        fit_logistic_mf(simulate_uniform(40, 30, 300), **SETTING | {"learning_rate": 1e20})


@pytest.mark.parametrize(
    ("name", "value"),
    [("embedding_dim", 0), ("n_negatives", 0), ("learning_rate", -1), ("epochs", 0.5), ("threads", 0)],
)
def test_settings_that_cannot_be_used(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}; expected"):
        fit_logistic_mf(simulate_uniform(40, 30, 300), **SETTING | {name: value})


def test_no_interactions():
    empty = Interactions(np.zeros(0, int), np.zeros(0, int), user_ids=np.arange(3), item_ids=np.arange(4))
    with pytest.raises(ValueError, match="interactions=0"):
        fit_logistic_mf(empty, **SETTING)
