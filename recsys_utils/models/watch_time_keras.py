# Exported from notebooks/11_watch_time.ipynb; edit there.
"""Written in chapter 11, where it is explained line by line."""

import keras
import numpy as np
import pandas as pd
from keras import layers

from recsys_utils.models.watch_time import N_CODES
from recsys_utils.training import check_settings


def side(width: int, n_codes: int, name: str) -> keras.Model:
    """Rows (B, width) to (B, width + 3 n_codes): the last n_codes columns, categories from -1 (never
    seen) to 254, become four numbers each.
    """
    given = keras.Input((width,))
    if not n_codes:
        return keras.Model(given, layers.Identity()(given), name=name)
    offsets = [1.0 + 256 * column for column in range(n_codes)]  # in one table for all columns
    rows = layers.Rescaling(1.0, offset=offsets)(given[:, width - n_codes:])
    vectors = layers.Flatten()(layers.Embedding(256 * n_codes, 4)(rows))
    return keras.Model(given, layers.Concatenate()([given[:, : width - n_codes], vectors]), name=name)


def concat_mlp(widths: list[int], n_codes: tuple[int, int], target: tuple[float, float]) -> keras.Model:
    """Features of user (B, d) and video (B, e), side by side through 128-64-32: watch ratios (B, 1).

    widths: d and e. n_codes: of `side`. target: mean and standard deviation of the ratios in train.
    """
    inputs = [keras.Input((width,)) for width in widths]
    parts = zip(inputs, widths, n_codes, ("user", "video"), strict=True)
    x = layers.Concatenate()([side(width, n, name)(given) for given, width, n, name in parts])
    for width in (128, 64, 32):
        x = layers.Dropout(0.1)(layers.Dense(width, activation="relu")(x))
    return keras.Model(inputs, layers.Rescaling(target[1], offset=target[0])(layers.Dense(1)(x)))


def two_towers(widths: list[int], n_codes: tuple[int, int], target: tuple[float, float]) -> keras.Model:
    """Towers 128-64-32 for user and video, and a dot product; otherwise as concat_mlp."""
    inputs = [keras.Input((width,)) for width in widths]
    towers = [
        keras.Sequential([side(width, n, f"{name}_features"), layers.Dense(128, activation="relu"),
                          layers.Dense(64, activation="relu"), layers.Dense(32)], name=name)
        for width, n, name in zip(widths, n_codes, ("user", "video"), strict=True)]
    dot = layers.Dot(axes=1)([tower(given) for tower, given in zip(towers, inputs, strict=True)])
    return keras.Model(inputs, layers.Rescaling(target[1], offset=target[0])(dot))


def fit_watch_time(
    build, inputs: list[np.ndarray], ratios: np.ndarray, *, learning_rate: float, batch_size: int,
    epochs: int, validation: tuple, patience: int = 2, n_codes: tuple[int, int] = N_CODES, seed: int = 0,
) -> tuple[keras.Model, pd.DataFrame]:
    """Train `build` (concat_mlp or two_towers) on the squared error: its best epoch, and the history.

    inputs: of `encode`. ratios: (n,). validation: (inputs, ratios) to watch: an epoch without a better
    error halves the learning rate, `patience` of them end the training. History, a row an epoch: loss
    (squared error, with dropout), val_loss, learning_rate, validation (RMSE).
    """
    check_settings(learning_rate=learning_rate, batch_size=batch_size, epochs=epochs)
    keras.utils.set_random_seed(seed)
    model = build([x.shape[1] for x in inputs], n_codes, (float(ratios.mean()), float(ratios.std())))
    model.compile(keras.optimizers.Adam(learning_rate), "mse")
    callbacks = [keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1),
                 keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)]
    log = pd.DataFrame(model.fit(
        inputs, ratios[:, None], batch_size, epochs, verbose=0, callbacks=callbacks,
        validation_data=(validation[0], validation[1][:, None]), validation_batch_size=8192).history)
    return model, log.assign(validation=np.sqrt(log["val_loss"]))


def predict(model: keras.Model, inputs: list[np.ndarray]) -> np.ndarray:
    """Watch ratios, (n,), none below 0."""
    parts = [model([x[at : at + 8192] for x in inputs]) for at in range(0, len(inputs[0]), 8192)]
    ratios = np.concatenate([keras.ops.convert_to_numpy(part)[:, 0] for part in parts])
    return np.maximum(ratios.astype(float), 0)
