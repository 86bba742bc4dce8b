# Exported from notebooks/09_two_tower_keras.ipynb; edit there.
"""Written in chapter 09, where it is explained line by line."""

import time

import keras
import numpy as np
import pandas as pd
from keras.callbacks import EarlyStopping, LambdaCallback

from recsys_utils import features
from recsys_utils.interactions import Interactions
from recsys_utils.splits import Holdout
from recsys_utils.training import check_settings


def tower(table: pd.DataFrame, counts: np.ndarray | None, name: str) -> keras.Model:
    """Raw features (B, d) to unit vectors (B, 32): standardise, 256 → 128 with ReLU, 32, unit norm.

    table: features, (n, d). counts: how many training rows each of its rows has, (n,); the first
    layer keeps mean and standard deviation of the columns that features.py standardises. None:
    features go in as they are.
    """
    scale = []
    if counts is not None:
        scaler = features.fit_scaler(table, counts)
        scale = [keras.layers.Normalization(mean=scaler.mean_, variance=scaler.scale_**2)]
    return keras.Sequential([
        keras.Input((table.shape[1],)), *scale,
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(32),
        keras.layers.UnitNormalization(),
    ], name=name)  # fmt: skip


def rating_towers(user_tower: keras.Model, item_tower: keras.Model) -> keras.Model:
    """Cosines of two towers: features (B, d) and (B, e) to (B, 1)."""
    u, i = (keras.Input(one.input_shape[1:]) for one in (user_tower, item_tower))
    return keras.Model([u, i], keras.layers.Dot(axes=1)([user_tower(u), item_tower(i)]))


def hide_genres(rows: np.ndarray, columns: pd.Index, share: float, seed: int = 0) -> np.ndarray:
    """User rows (n, d), a `share` of which look like newcomers: a random part of the row's genres is
    imputed with the user's mean and flagged; number of ratings and mean stay. columns: names, (d,).
    """
    rows, rng = rows.copy(), np.random.default_rng(seed)
    stars, unknown = (np.flatnonzero(columns.str.startswith(kind)) for kind in ("stars ", "no "))
    part = rng.random((len(rows), 1)) * (rng.random((len(rows), 1)) < share)
    hidden = rng.random((len(rows), len(stars))) < part
    rows[:, stars] = np.where(hidden, rows[:, [columns.get_loc("mean rating")]], rows[:, stars])
    rows[:, unknown] = np.maximum(rows[:, unknown], hidden)
    return rows


def fit_ratings(
    model: keras.Model, inputs, ratings: np.ndarray, scale: tuple[float, float], *,
    learning_rate: float, batch_size: int, epochs: int, held=None, patience: int | None = None,
) -> pd.DataFrame:
    """Train by Adam on the squared error of ratings scaled to [-1, 1]; a row an epoch comes back.

    inputs: features, (n, d) and (n, e). ratings: (n,), in stars. held: (inputs, ratings) to watch: the
    model ends with its best epoch, and stops after `patience` epochs without a better one. Columns:
    epoch, loss (mean squared error, scaled), seconds, validation (RMSE of held, in stars).
    """
    clock, watched = [time.perf_counter()], {}
    callbacks = [LambdaCallback(on_epoch_end=lambda *_: clock.append(time.perf_counter()))]
    if held is not None:
        watched = {"validation_data": (held[0], features.scale_ratings(held[1], scale)[:, None])}
        callbacks += [EarlyStopping(patience=patience or epochs, restore_best_weights=True)]
    model.compile(keras.optimizers.Adam(learning_rate), "mse")
    log = model.fit(inputs, features.scale_ratings(ratings, scale)[:, None], batch_size, epochs,
                    verbose=0, callbacks=callbacks, validation_batch_size=8192, **watched).history
    history = {"epoch": 1 + np.arange(len(clock) - 1), "loss": log["loss"], "seconds": np.diff(clock)}
    if held is not None:
        history["validation"] = np.sqrt(log["val_loss"]) * (scale[1] - scale[0]) / 2
    return pd.DataFrame(history)


def pair_features(users: pd.DataFrame, items: pd.DataFrame, pairs: Interactions) -> list[np.ndarray]:
    """Rows of the two tables for each pair, float32, (n, d) and (n, e)."""
    return [users.to_numpy(np.float32)[pairs.users], items.to_numpy(np.float32)[pairs.items]]


def fit_two_tower_keras(
    train: Interactions, *, learning_rate: float, batch_size: int, epochs: int, seed: int = 0,
    folds: int = 5, hidden: float = 0.2, validation: Holdout | None = None, patience: int | None = None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Feature towers for ratings, and their history as fit_ratings gives it.

    folds, hidden: of row_features and hide_genres. validation: watched with the features of train.
    Raises ValueError without ratings, for settings that cannot be used, and for patience without
    validation.
    """
    check_settings(learning_rate=learning_rate, batch_size=batch_size, epochs=epochs)
    if patience is not None and (patience < 1 or validation is None):
        raise ValueError(f"patience={patience}; expected at least 1, together with a validation part")
    keras.utils.set_random_seed(seed)
    users, items = features.user_features(train), features.item_features(train)
    model = rating_towers(
        tower(users, train.user_counts, "user_tower"), tower(items, train.item_counts, "item_tower"))
    user_rows, item_rows = features.row_features(train, folds, seed)
    held = validation and (pair_features(users, items, validation.truth), validation.truth.ratings)
    return model, fit_ratings(
        model, [hide_genres(user_rows, users.columns, hidden, seed), item_rows], train.ratings,
        features.rating_scale(train), learning_rate=learning_rate, batch_size=batch_size, epochs=epochs,
        held=held, patience=patience)


def user_vectors(model: keras.Model, users: pd.DataFrame) -> np.ndarray:
    """Unit vectors, (n, 32), of rows of user_features."""
    return keras.ops.convert_to_numpy(model.get_layer("user_tower")(users.to_numpy(np.float32)))


def item_vectors(model: keras.Model, items: pd.DataFrame) -> np.ndarray:
    """Unit vectors, (n, 32), of rows of item_features."""
    return keras.ops.convert_to_numpy(model.get_layer("item_tower")(items.to_numpy(np.float32)))


def vectors(model: keras.Model, train: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """User and item vectors, (n_users, 32) and (n_items, 32), of everybody as train describes them;
    their dot products are ratings on [-1, 1].
    """
    return (user_vectors(model, features.user_features(train)),
            item_vectors(model, features.item_features(train)))
