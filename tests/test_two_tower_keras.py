"""The feature towers of chapter 09: equal in Keras and torch, saved and loaded, no option ignored, and they learn."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from recsys_utils.training import require

require("tensorflow", "torch")  # before the frameworks, which it keeps quiet

import keras  # noqa: E402
import torch  # noqa: E402

from recsys_utils import features, splits  # noqa: E402
from recsys_utils.datasets import load_house  # noqa: E402
from recsys_utils.evaluation import compare, evaluate_ratings  # noqa: E402
from recsys_utils.models import mf, rating_towers_torch, two_tower_keras  # noqa: E402
from twins import check_twins  # noqa: E402

SETTING = {"learning_rate": 0.001, "batch_size": 1024, "epochs": 3}


@pytest.fixture(scope="module")
def split():
    return splits.random_per_user(load_house())


@pytest.fixture(scope="module")
def small(split):
    return split.data.select(np.arange(2000))


@pytest.fixture(scope="module")
def fitted(split):
    return two_tower_keras.fit_two_tower_keras(split.train, **SETTING)[0]


def table(width, seed):
    return pd.DataFrame(np.random.default_rng(seed).normal(2.0, 3.0, (50, width))).set_axis(
        ["ratings", "mean rating", *(f"stars {column}" for column in range(width - 2))], axis=1
    )


def policy(dtype):
    keras.config.set_floatx(dtype)  # of what comes in
    keras.config.set_dtype_policy(dtype)  # of the layers


def check(dtype="float64", broken=lambda model: model.call):
    """The twins on random features; the Keras towers hang on one object, as their torch twins do."""
    policy(dtype)
    try:
        tables, counts = (table(7, 0), table(5, 1)), np.arange(1, 51)
        towers = [two_tower_keras.tower(one, counts, name) for one, name in zip(tables, "ab", strict=True)]
        model = two_tower_keras.rating_towers(*towers)
    finally:
        policy("float32")
    scalers = [features.fit_scaler(one, counts) for one in tables]
    twin = rating_towers_torch.RatingTowers(
        *(rating_towers_torch.Tower(scaler.mean_, scaler.scale_) for scaler in scalers)
    ).to(getattr(torch, dtype))

    class Named:
        user_tower, item_tower = (
            SimpleNamespace(layers=[one for one in tower.layers if isinstance(one, keras.layers.Dense)])
            for tower in towers
        )
        trainable_variables = model.trainable_variables

        def __call__(self, inputs):
            return broken(model)(list(inputs))

    batch = [one.to_numpy(dtype)[:40] for one in tables]
    stars = np.random.default_rng(2).uniform(-1, 1, (40, 1)).astype(dtype)
    check_twins(
        twin, Named(), lambda model, u, i, r: ((model(u, i) - r) ** 2).mean(),
        lambda model, u, i, r: keras.ops.mean((model((u, i)) - r) ** 2), [*batch, stars], dtype,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_twins(dtype):
    check(dtype)


BROKEN = {  # an output of the Keras model that the torch twin does not have
    "another sign": lambda model: lambda inputs: -model.call(inputs),
    "a frozen tower": lambda model: (
        lambda inputs: keras.ops.sum(
            keras.ops.stop_gradient(model.get_layer("a")(inputs[0])) * model.get_layer("b")(inputs[1]),
            -1,
            keepdims=True,
        )
    ),
    "inputs not standardised": lambda model: lambda inputs: model.call([inputs[0] + 1.0, inputs[1]]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_twins_are_noticed(name):
    with pytest.raises(AssertionError, match=r"differ by|nan"):
        check(broken=BROKEN[name])


def test_vectors_are_unit_and_give_the_output(split, fitted):
    P, Q = two_tower_keras.vectors(fitted, split.train)
    assert P.shape == (split.data.n_users, 32)
    assert Q.shape == (split.data.n_items, 32)
    assert np.allclose(np.linalg.norm(P, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(Q, axis=1), 1, atol=1e-5)
    pairs = split.validation.truth.select(np.arange(500))
    users, items = features.user_features(split.train), features.item_features(split.train)
    whole = fitted(two_tower_keras.pair_features(users, items, pairs)).numpy()[:, 0]
    assert np.allclose(whole, (P[pairs.users] * Q[pairs.items]).sum(1), atol=1e-5)


def test_saved_and_loaded(split, fitted, tmp_path):
    fitted.save(tmp_path / "towers.keras")
    again = keras.models.load_model(tmp_path / "towers.keras")  # no custom objects, no lambda
    before, after = (two_tower_keras.vectors(model, split.train) for model in (fitted, again))
    assert np.allclose(before[0], after[0], rtol=0, atol=1e-6)
    assert np.allclose(before[1], after[1], rtol=0, atol=1e-6)


def test_parameters(small):
    model, _ = two_tower_keras.fit_two_tower_keras(small, **SETTING | {"epochs": 1})
    widths = [features.user_features(small).shape[1], features.item_features(small).shape[1]]
    assert model.count_params() == sum((d + 1) * 256 + 257 * 128 + 129 * 32 for d in widths)


def test_it_learns_more_than_biases(split):
    model, history = two_tower_keras.fit_two_tower_keras(
        split.train, **SETTING | {"epochs": 7}, validation=split.validation
    )
    held = split.validation
    P, Q = two_tower_keras.vectors(model, split.train)
    stars = features.unscale_ratings((P[held.truth.users] * Q[held.truth.items]).sum(1), (0.5, 5.0))
    damped = mf.fit_biases(split.train, item_regularization=5.0, user_regularization=5.0)
    biases = evaluate_ratings(mf.predict(*damped, held.truth, (0.5, 5.0)), held)
    report = evaluate_ratings(stars, held)
    assert compare(report, biases).high("rmse") < 0
    assert np.isclose(report.mean("rmse"), history["validation"].min(), atol=1e-4)
    assert list(history) == ["epoch", "loss", "seconds", "validation"]


def test_every_option_matters(small):
    usual = SETTING | {"epochs": 1, "batch_size": 500, "seed": 0}
    other = {"learning_rate": 0.01, "batch_size": 1000, "epochs": 2, "folds": 1, "hidden": 0.0, "seed": 1}
    vectors = [
        two_tower_keras.vectors(two_tower_keras.fit_two_tower_keras(small, **usual | change)[0], small)[1]
        for change in ({}, {}, *({name: value} for name, value in other.items()))
    ]
    assert np.array_equal(vectors[0], vectors[1])
    assert [np.array_equal(vectors[0], changed) for changed in vectors[2:]] == [False] * len(other)


def test_stops_early_and_keeps_the_best_epoch(split, small):
    setting = {"learning_rate": 0.01, "batch_size": 64, "epochs": 12}
    model, history = two_tower_keras.fit_two_tower_keras(small, **setting, validation=split.validation, patience=2)
    best = history["validation"].idxmin()
    assert len(history) == min(12, best + 3)
    short, _ = two_tower_keras.fit_two_tower_keras(small, **setting | {"epochs": best + 1})
    assert np.allclose(*(two_tower_keras.vectors(one, small)[0] for one in (model, short)), atol=1e-4)


def test_hidden_genres_look_like_those_of_a_newcomer(split):
    table = features.user_features(split.train)
    rows = table.to_numpy(np.float32)[split.train.users]
    hidden = pd.DataFrame(two_tower_keras.hide_genres(rows, table.columns, 0.2), columns=table.columns)
    flags, before = hidden.filter(like="no "), pd.DataFrame(rows, columns=table.columns).filter(like="no ")
    new = (flags > before).to_numpy()
    assert 0.15 < new.any(axis=1).mean() < 0.2
    means = np.broadcast_to(hidden["mean rating"].to_numpy()[:, None], new.shape)
    assert np.array_equal(hidden.filter(like="stars ").to_numpy()[new], means[new])
    assert np.array_equal(two_tower_keras.hide_genres(rows, table.columns, 0.0), rows)


def test_settings_that_cannot_be_used(small, split):
    with pytest.raises(ValueError, match="epochs=0; expected a whole number of at least 1"):
        two_tower_keras.fit_two_tower_keras(small, **SETTING | {"epochs": 0})
    with pytest.raises(ValueError, match="patience=2; expected at least 1, together with a validation part"):
        two_tower_keras.fit_two_tower_keras(small, **SETTING, patience=2)
    with pytest.raises(ValueError, match="has 0 rows and no ratings"):
        two_tower_keras.fit_two_tower_keras(small.select([]), **SETTING)
