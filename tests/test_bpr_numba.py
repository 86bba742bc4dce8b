"""The compiled BPR loop: one step is the gradient, triples are uniform over all there are, and it learns."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from core_checks import check_beats_chance
from kernels import broken
from recsys_utils import Interactions, splits
from recsys_utils.evaluation import dense_scorer
from recsys_utils.models import bpr_numba
from recsys_utils.models.bpr_numba import bpr_sgd, fit_bpr_numba
from recsys_utils.simulators import simulate_demo

ROOT = Path(__file__).resolve().parents[1]
F32 = np.float32
SETTING = {"embedding_dim": 8, "learning_rate": 0.05, "regularization": 0.01, "epochs": 20}


def check_step(kernel):
    """One triple moves every parameter up the gradient of ln σ(x) - λ/2 |θ|², taken by finite differences."""
    rng, d, rate, penalty = np.random.default_rng(0), 5, 0.1, 0.3
    theta = rng.normal(size=3 * d + 2)  # p, q_i, q_j, c_i, c_j

    def objective(theta):
        p, q_i, q_j, c = theta[:d], theta[d : 2 * d], theta[2 * d : 3 * d], theta[3 * d :]
        return -np.log1p(np.exp(-(p @ q_i + c[0] - p @ q_j - c[1]))) - penalty / 2 * theta @ theta

    steps = 1e-6 * np.eye(len(theta))
    gradient = np.array([(objective(theta + step) - objective(theta - step)) / 2e-6 for step in steps])
    P, Q, c = theta[None, :d].astype(F32), theta[d : 3 * d].reshape(2, d).astype(F32), theta[3 * d :].astype(F32)
    # the one user has met item 0 only, so (0, 0, 1) is the only triple
    pair, starts, pool = np.zeros(1, np.int32), np.array([0, 1], np.int32), np.arange(2, dtype=np.int32)
    kernel(pair, pair, starts, pool, 1, P, Q, c, F32(rate), F32(penalty), rng)
    moved = np.concatenate([P.ravel(), Q.ravel(), c]) - theta
    assert np.allclose(moved, rate * gradient, atol=1e-6), f"moved {moved / rate}, the gradient is {gradient}"


def drawn(kernel, positives: np.ndarray, pool: np.ndarray, n: int) -> np.ndarray:
    """How often a user's triples held an item as positive minus as negative, shape of positives.

    Users are one-hot, so every triple adds half a step to Q[i, u] and takes half a step from Q[j, u].
    """
    matrix, rate = sparse.csr_matrix(positives), 2.0**-40  # so small that σ stays at one half
    users = np.repeat(np.arange(len(positives), dtype=np.int32), np.diff(matrix.indptr))
    P, Q = np.eye(len(positives), dtype=F32), np.zeros(positives.T.shape, F32)
    c, rng = np.zeros(len(Q), F32), np.random.default_rng(1)
    kernel(users, matrix.indices, matrix.indptr, pool, n, P, Q, c, F32(rate), F32(0), rng)
    return np.rint(2 / rate * Q.T.astype(float)).astype(int)


def check_triples(kernel, pool: np.ndarray):
    """Every triple of a user, a positive and a negative from the pool is drawn, all as often: no positive among
    the negatives, and counts within five standard deviations."""
    n, positives = 20_000, np.random.default_rng(0).random((6, 12)) < 0.4
    positives[0], positives[1] = True, False  # who has met everything, and who has met nothing
    counts = drawn(kernel, positives, pool, n)
    assert counts[positives].sum() == n == -counts[~positives].sum(), "a positive was drawn as a negative"
    weights = np.bincount(pool, minlength=12) * ~positives  # what a negative of each user may be
    as_positive = positives * weights.sum(axis=1, keepdims=True)
    as_negative = weights * positives.sum(axis=1, keepdims=True)
    share = (as_positive - as_negative) / as_positive.sum()
    error = (counts - n * share) / np.sqrt(np.maximum(n * np.abs(share), 1))
    assert np.abs(error).max() < 5, f"{np.abs(error).max():.1f} standard deviations from uniform over the triples"


def check_learns(**changes):
    split = splits.temporal_per_user(simulate_demo(n_users=100, items_per_category=20).interactions)
    U, V = fit_bpr_numba(split.train_validation, **(SETTING | changes))
    check_beats_chance(dense_scorer(U, V.T), split.test)


def test_a_step_is_the_gradient():
    check_step(bpr_sgd)


@pytest.mark.parametrize("often", [np.ones(12, int), np.arange(1, 13)], ids=["uniform", "weights"])
def test_triples_are_uniform(often):
    check_triples(bpr_sgd, np.repeat(np.arange(12, dtype=np.int32), often))


@pytest.mark.parametrize("changes", [{}, {"popularity": True}, {"threads": 2}], ids=str)
def test_it_learns_a_planted_world(changes):
    check_learns(**changes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("z = np.float32(1) /", "z = -np.float32(1) /"),  # down the hill
        ("q_j[f] -= ", "q_j[f] += "),
        ("np.exp(x)", "np.exp(-x)"),
        ("c[j] -= learning_rate * (z + regularization * c[j])", "pass"),  # a forgotten bias
        ("x = c[i] - c[j]", "x = c[i] - c[i]"),
        ("- regularization * old", "+ regularization * old"),
    ],
)
def test_canary_a_wrong_step(old, new):
    with pytest.raises(AssertionError, match="the gradient is"):
        check_step(broken(bpr_sgd, old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("if items[low] == j:", "if items[low] == i:", "triples|positive"),
        ("if items[low] == j:", "if items[low] == -1:", "a positive was drawn"),
        ("pool[int(rng.random() * len(pool))]", "pool[int(rng.random() * rng.random() * len(pool))]", "from uniform"),
        ("<= j", "< j", "a positive was drawn"),
    ],
)
def test_canary_wrong_triples(old, new, message):
    with pytest.raises(AssertionError, match=message):
        check_triples(broken(bpr_sgd, old, new), np.arange(12, dtype=np.int32))


def test_canary_down_the_hill_does_not_learn(monkeypatch):
    monkeypatch.setattr(bpr_numba, "bpr_sgd", broken(bpr_sgd, "z = np.float32(1) /", "z = -np.float32(1) /"))
    with pytest.raises(AssertionError):
        check_learns(epochs=5)


def test_one_thread_is_reproducible_and_every_option_matters():
    train = simulate_demo().interactions
    first, again = fit_bpr_numba(train, **SETTING), fit_bpr_numba(train, **SETTING)
    for table, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(table, same)
    changes = {"learning_rate": 0.1, "regularization": 0.1, "epochs": 21, "popularity": True, "threads": 2, "seed": 1}
    for name, value in changes.items():
        other = fit_bpr_numba(train, **(SETTING | {name: value}))
        assert np.abs(other[1] - first[1]).max() > 1e-4, f"{name}={value} changes nothing"
    U, V = fit_bpr_numba(train, **(SETTING | {"embedding_dim": 3}))
    assert (U.shape, V.shape) == ((train.n_users, 5), (train.n_items, 5))
    assert (U.dtype, V.dtype) == (F32, F32)


def test_what_cannot_be_learnt_is_said():
    def met(users, items):
        return Interactions(np.array(users, int), np.array(items, int), user_ids=range(3), item_ids=range(2), name="x")

    for data in (met([], []), met([0, 0, 2, 2], [0, 1, 0, 1])):
        with pytest.raises(ValueError, match="x: no user has a positive and a negative"):
            fit_bpr_numba(data, **SETTING)
    with pytest.raises(ValueError, match="no user has"):  # item 1 was never met, so popularity never draws it
        fit_bpr_numba(met([0, 2], [0, 0]), **SETTING, popularity=True)
    fit_bpr_numba(met([0, 2], [0, 0]), **SETTING)
    with pytest.raises(ValueError, match=r"learning_rate=1e\+20 is too large"):
        fit_bpr_numba(met([0, 2], [0, 1]), **(SETTING | {"learning_rate": 1e20}))


def test_measured_speed_meets_the_bars():
    """What benchmarks/training.py last wrote: the loop is as fast as implicit's at its NDCG, the half step as exact."""
    path = ROOT / "results" / "speed" / "training.json"
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    for library, kind in (("implicit", "popular"), ("cornac", "uniform"), ("torch", "uniform"), ("Keras", "uniform")):
        ours = rows[f"BPR triples, compiled loop, {kind} negatives"]
        theirs = rows[f"BPR triples, {library}, {kind} negatives"]
        assert abs(ours["ndcg"] - theirs["ndcg"]) <= 0.005, f"{library}: {theirs['ndcg']}, ours {ours['ndcg']}"
        if library == "implicit":
            assert theirs["ratio_to"][ours["name"]] <= 1, "implicit is faster"
    for dtype in ("float32", "float64"):
        difference = rows[f"iALS half step, NumPy, {dtype}: largest difference from implicit"]
        assert (difference["unit"], difference["value"] < 100) == ("millionths", True)
