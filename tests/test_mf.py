"""Matrix factorisation of ratings: closed forms, compiled loops, alternating least squares, and the two twins."""

import numpy as np
import pytest
import torch
from scipy import sparse

from core_checks import world
from recsys_utils import splits
from recsys_utils.evaluation import evaluate_ratings
from recsys_utils.models import dot_product_keras, dot_product_torch, mf, mf_keras, mf_numba, mf_torch
from twins import check_twins

DATA = world(40, 30, 500)
SPLIT = splits.random_per_user(DATA)
MF = {"embedding_dim": 4, "learning_rate": 0.02, "regularization": 0.05, "epochs": 3}
BATCHED = MF | {"batch_size": 64}
FITS = {
    "biases": lambda train: mf.fit_biases(train, item_regularization=1.0, user_regularization=2.0),
    "als": lambda train: mf.fit_als(train, embedding_dim=3, regularization=0.1, epochs=2),
    "sgd": lambda train: mf_numba.fit_mf(train, **MF)[0],
    "torch": lambda train: mf_torch.fit_mf_torch(train, **BATCHED)[0].vectors(),
    "keras": lambda train: mf_keras.fit_mf_keras(train, **BATCHED)[0].vectors(),
}


def rmse(vectors, pairs):
    return np.sqrt(np.mean((mf.predict(*vectors, pairs, (0.5, 5.0)) - pairs.ratings) ** 2))


# --- biases


def test_biases_are_the_two_sums_of_the_formula():
    U, V = mf.fit_biases(DATA, item_regularization=3.0, user_regularization=7.0)
    mean = DATA.ratings.mean(dtype=float)
    for item in range(DATA.n_items):
        rows = DATA.items == item
        assert V[item, 1] == pytest.approx((DATA.ratings[rows] - mean).sum() / (3 + rows.sum()), abs=1e-6)
    for user in range(DATA.n_users):
        rows = DATA.users == user
        rest = DATA.ratings[rows] - mean - V[DATA.items[rows], 1]
        assert U[user, 0] - mean == pytest.approx(rest.sum() / (7 + rows.sum()), abs=1e-6)
    assert (U[:, 1] == 1).all()
    assert (V[:, 0] == 1).all()


def test_nobody_rated_means_no_bias():
    few = DATA.select(DATA.items < 5)
    U, V = mf.fit_biases(few, item_regularization=0.0, user_regularization=0.0)
    assert (V[5:, 1] == 0).all()
    assert np.isfinite(U).all()
    assert np.isfinite(V).all()


def test_predictions_are_cut_to_the_scale():
    U, V = np.array([[1.0, 9.0], [1.0, -9.0]]), np.array([[3.0, 1.0]])
    pairs = type(DATA)([0, 1], [0, 0], user_ids=np.arange(2), item_ids=np.arange(1), ratings=[1.0, 1.0])
    assert mf.predict(U, V, pairs, (0.5, 5.0)).tolist() == [5.0, 0.5]


# --- stochastic gradient descent


def by_the_paper(data, order, P, Q, b, c, mean, rate, penalty):
    """Koren et al. 2009, eq. 5, with whole vectors, in float64."""
    for row in order:
        u, i = data.users[row], data.items[row]
        error = data.ratings[row] - (mean + b[u] + c[i] + P[u] @ Q[i])
        p, q = P[u].copy(), Q[i].copy()
        b[u] += rate * (error - penalty * b[u])
        c[i] += rate * (error - penalty * c[i])
        P[u] += rate * (error * q - penalty * p)
        Q[i] += rate * (error * p - penalty * q)


def start(seed=0, dim=4):
    rng = np.random.default_rng(seed)
    P, Q = rng.normal(0, 0.3, (DATA.n_users, dim)), rng.normal(0, 0.3, (DATA.n_items, dim))
    return rng.permutation(len(DATA)), P, Q, np.zeros(DATA.n_users), np.zeros(DATA.n_items), 3.0, 0.05, 0.1


def check_epoch(epoch):
    """Two passes over the ratings move every table as the formula of the paper does."""
    expected, found = start(), start()
    for _ in range(2):
        by_the_paper(DATA, *expected)
        epoch(DATA.users, DATA.items, DATA.ratings.astype(float), *found)
    for name, ours, theirs in zip("PQbc", found[1:], expected[1:]):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-11), f"{name} differs by {np.abs(ours - theirs).max():.1e}"


@pytest.mark.parametrize("epoch", [mf_numba.sgd_epoch, mf_numba.sgd_epoch.py_func], ids=["compiled", "interpreted"])
def test_an_epoch_is_the_formula(epoch):
    check_epoch(epoch)


def swapped_sign(users, items, ratings, order, P, Q, b, c, mean, rate, penalty):
    mf_numba.sgd_epoch.py_func(users, items, ratings, order, P, Q, b, c, mean, -rate, -penalty)


def forgotten_bias(users, items, ratings, order, P, Q, b, c, mean, rate, penalty):
    mf_numba.sgd_epoch.py_func(users, items, ratings, order, P, Q, b, np.zeros_like(c), mean, rate, penalty)


def penalised_mean(users, items, ratings, order, P, Q, b, c, mean, rate, penalty):
    mf_numba.sgd_epoch.py_func(users, items, ratings, order, P, Q, b, c, mean * (1 - rate * penalty), rate, penalty)


@pytest.mark.parametrize("broken", [swapped_sign, forgotten_bias, penalised_mean])
def test_a_broken_epoch_is_noticed(broken):
    with pytest.raises(AssertionError, match="differs by"):
        check_epoch(broken)


def test_the_best_epoch_comes_back_and_patience_ends_the_training():
    setting = MF | {"embedding_dim": 16, "regularization": 0.0, "epochs": 60, "learning_rate": 0.05}
    vectors, history = mf_numba.fit_mf(SPLIT.train, **setting, validation=SPLIT.validation)
    assert history["epoch"].tolist() == list(range(1, 61))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    scale = SPLIT.train.ratings.min(), SPLIT.train.ratings.max()
    truth = SPLIT.validation.truth
    error = np.sqrt(np.mean((mf.predict(*vectors, truth, scale) - truth.ratings) ** 2))
    assert error == pytest.approx(history["validation"].min(), abs=1e-6)
    assert history["validation"].idxmin() < 40, "the example must overfit, or nothing is tested"
    _, stopped = mf_numba.fit_mf(SPLIT.train, **setting, validation=SPLIT.validation, patience=4)
    assert len(stopped) == stopped["validation"].idxmin() + 5


def test_factors_find_what_biases_cannot():
    rng = np.random.default_rng(0)  # two tastes that cancel: every bias is zero
    users, items = np.repeat(np.arange(60), 30), np.tile(np.arange(30), 60)
    kept = rng.random(len(users)) < 0.7
    ratings = 3.0 + 1.5 * np.where(users % 2 == items % 2, 1, -1)
    data = type(DATA)(users[kept], items[kept], user_ids=np.arange(60), item_ids=np.arange(30), ratings=ratings[kept])
    split = splits.random_per_user(data)
    biases = mf.fit_biases(split.train, item_regularization=1.0, user_regularization=1.0)
    factors = mf_numba.fit_mf(split.train, **MF | {"learning_rate": 0.05, "epochs": 60})[0]
    assert rmse(biases, split.test.truth) > 1.4
    assert rmse(factors, split.test.truth) < 0.3
    assert rmse(mf.fit_als(split.train, embedding_dim=2, regularization=0.01, epochs=5), split.test.truth) < 0.3


# --- alternating least squares


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("per_row", [False, True])
def test_half_step_solves_every_row(dtype, shared, per_row):
    rng = np.random.default_rng(1)
    n, m, d = 50, 40, 6
    weights = sparse.random(n, m, 0.2, "csr", dtype, random_state=2)
    weights.data += 0.5
    weights = sparse.vstack([weights, sparse.csr_matrix((1, m), dtype=dtype)]).tocsr()  # a row without entries
    targets = weights.copy()
    targets.data = rng.normal(size=targets.nnz).astype(dtype)
    factors = rng.normal(size=(m, d)).astype(dtype)
    gram = (factors.T @ factors) if shared else None
    penalty = rng.uniform(0.5, 2.0, n + 1) if per_row else 0.7
    found = mf.half_step(weights, targets, factors, penalty, gram)
    assert found.dtype == dtype
    for row in range(n + 1):
        w, t = weights.toarray()[row], targets.toarray()[row]
        A = (factors.T * w) @ factors + np.eye(d) * (penalty[row] if per_row else 0.7) + (gram if shared else 0)
        assert np.allclose(found[row], np.linalg.solve(A, factors.T @ t), atol=1e-10 if dtype == np.float64 else 1e-4)


def test_half_step_in_many_blocks_is_the_same():
    rng = np.random.default_rng(0)
    weights = sparse.random(30, 3000, 0.5, "csr", random_state=0)  # 30 rows of 1,500 entries and 100 factors: blocks
    factors = rng.normal(size=(3000, 100))
    found = mf.half_step(weights, weights, factors, 1.0)
    one = mf.half_step(weights[[7]], weights[[7]], factors, 1.0)
    assert np.allclose(found[7], one[0], atol=1e-10)


def test_the_objective_of_als_never_rises():
    objective, regularization = [], 0.3
    for epochs in range(1, 8):
        U, V = mf.fit_als(DATA, embedding_dim=4, regularization=regularization, epochs=epochs)
        error = DATA.ratings - (U[DATA.users] * V[DATA.items]).sum(axis=1)
        b, c = U[:, -2] - DATA.ratings.mean(dtype=float), V[:, -1]
        size = DATA.user_counts @ ((U[:, :-2] ** 2).sum(axis=1) + b**2)
        size += DATA.item_counts @ ((V[:, :-2] ** 2).sum(axis=1) + c**2)
        objective.append(error @ error + regularization * size)
    assert (np.diff(objective) < 1e-9).all(), objective
    assert objective[-1] < objective[0]


# --- the twins


def rating_batch(dtype):
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 9, 24), rng.integers(0, 7, 24)  # repeated rows: each rating is penalised
    return users, items, rng.integers(1, 11, 24).astype(dtype) / 2


def check_rating_twins(keras_loss=mf_keras.rating_loss_keras, dtype="float64"):
    ours = dot_product_torch.DotProduct(9, 7, 5, mean=3.0).to(getattr(torch, dtype))
    theirs = dot_product_keras.DotProduct(9, 7, 5, mean=3.0, dtype=dtype)
    check_twins(
        ours,
        theirs,
        lambda *batch: mf_torch.rating_loss_torch(*batch, 0.1),
        lambda *batch: keras_loss(*batch, 0.1),
        rating_batch(dtype),
        dtype,
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_losses_are_twins(dtype):
    check_rating_twins(dtype=dtype)


def test_a_twin_with_a_swapped_sign_is_noticed():
    with pytest.raises(AssertionError, match="loss differ"):
        check_rating_twins(lambda *args: -mf_keras.rating_loss_keras(*args))


def test_a_twin_that_forgets_the_penalty_of_a_bias_is_noticed():
    def forgetful(model, users, items, ratings, regularization):
        full = mf_keras.rating_loss_keras(model, users, items, ratings, regularization)
        return full - regularization * mf_keras.keras.ops.mean(model.item_bias(items) ** 2)

    with pytest.raises(AssertionError, match="loss differ"):
        check_rating_twins(forgetful)


def test_a_twin_that_penalises_the_global_bias_is_noticed():
    def greedy(model, users, items, ratings, regularization):
        return mf_keras.rating_loss_keras(model, users, items, ratings, regularization) + 0.1 * model.global_bias**2

    with pytest.raises(AssertionError, match="loss differ"):
        check_rating_twins(greedy)


def test_the_loss_is_the_formula():
    model = dot_product_torch.DotProduct(9, 7, 5, mean=3.0).double()
    users, items, ratings = rating_batch("float64")
    U, V = model.vectors()
    size = (U[users, :5] ** 2).sum(1) + (V[items, :5] ** 2).sum(1) + (U[users, 5] - 3) ** 2 + V[items, 6] ** 2
    expected = np.mean((ratings - (U[users] * V[items]).sum(1)) ** 2 + 0.1 * size)
    loss = mf_torch.rating_loss_torch(model, *map(torch.tensor, (users, items, ratings)), 0.1)
    assert loss.item() == pytest.approx(expected, abs=1e-10)


def test_the_penalty_does_not_depend_on_the_batch():
    model = dot_product_torch.DotProduct(9, 7, 5, mean=3.0).double()
    batch = [torch.tensor(column) for column in rating_batch("float64")]
    whole = mf_torch.rating_loss_torch(model, *batch, 0.1)
    halves = [mf_torch.rating_loss_torch(model, *(column[part] for column in batch), 0.1)
              for part in (slice(0, 12), slice(12, 24))]  # fmt: skip
    assert whole.item() == pytest.approx(sum(half.item() for half in halves) / 2, abs=1e-12)


@pytest.mark.parametrize("fit", [mf_torch.fit_mf_torch, mf_keras.fit_mf_keras], ids=["torch", "keras"])
def test_the_loops_learn(fit):
    setting = BATCHED | {"learning_rate": 0.05, "epochs": 8, "regularization": 0.01}
    model, history = fit(DATA, **setting)
    assert history.columns.tolist() == ["epoch", "loss", "seconds"]
    assert history["epoch"].tolist() == list(range(1, 9))
    constant = np.sqrt(np.var(DATA.ratings))
    assert rmse(model.vectors(), DATA) < 0.8 * constant
    again, _ = fit(DATA, **setting)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(model.vectors(), again.vectors()))


# --- every option matters, and what cannot be fitted is refused


OPTIONS = {
    mf.fit_biases: {"item_regularization": 1.0, "user_regularization": 1.0},
    mf.fit_als: {"embedding_dim": 3, "regularization": 0.1, "epochs": 2, "seed": 0},
    mf_numba.fit_mf: MF | {"seed": 0},
    mf_torch.fit_mf_torch: BATCHED | {"epochs": 1, "seed": 0},
    mf_keras.fit_mf_keras: BATCHED | {"epochs": 1, "seed": 0},
}


def scores(fit, setting):
    fitted = fit(DATA, **setting)
    model = fitted if fit in (mf.fit_biases, mf.fit_als) else fitted[0]
    U, V = model if isinstance(model, tuple) else model.vectors()
    return np.hstack([U @ V.T, np.tile(U.shape[1], (len(U), 1))])


@pytest.mark.parametrize("fit", OPTIONS, ids=lambda fit: fit.__name__)
def test_every_option_matters(fit):
    setting = OPTIONS[fit]
    usual = scores(fit, setting)
    for option, value in setting.items():
        other = scores(fit, setting | {option: value + 1 if isinstance(value, int) else value * 3})
        assert np.abs(other - usual).max() > 1e-6, f"{option} is accepted and ignored"


@pytest.mark.parametrize("name", FITS)
def test_ratings_are_needed(name):
    blind = type(DATA)(DATA.users, DATA.items, user_ids=DATA.user_ids, item_ids=DATA.item_ids)
    for data in (blind, DATA.select(np.zeros(len(DATA), bool))):
        with pytest.raises(ValueError, match="expected rows with ratings"):
            FITS[name](data)


@pytest.mark.parametrize("name", FITS)
def test_scores_are_stars_and_fit_one_convention(name):
    U, V = FITS[name](SPLIT.train)
    assert U.shape[0] == DATA.n_users
    assert V.shape[0] == DATA.n_items
    assert U.shape[1] == V.shape[1]
    assert (U[:, -1] == 1).all()
    assert (V[:, -2] == 1).all()
    assert np.isfinite(U @ V.T).all()
    assert evaluate_ratings(mf.predict(U, V, SPLIT.test.truth, (0.5, 5.0)), SPLIT.test).mean("rmse") < 2.5


def test_steps_that_explode_are_named():
    with pytest.raises(ValueError, match=r"learning_rate=50\.0 is too large"):
        mf_numba.fit_mf(DATA, **MF | {"learning_rate": 50.0, "epochs": 20})


def test_patience_needs_something_to_watch():
    with pytest.raises(ValueError, match="patience=3 needs a validation part"):
        mf_numba.fit_mf(DATA, **MF, patience=3)
