# Exported from notebooks/06_matrix_factorization.ipynb; edit there.
"""Written in chapter 06, where it is explained line by line."""

import time

import keras
import pandas as pd
import tensorflow as tf

from recsys_utils.interactions import Interactions
from recsys_utils.models.dot_product_keras import DotProduct as DotProductKeras
from recsys_utils.models.mf import rating_mean


def rating_loss_keras(model, users, items, ratings, regularization: float):
    """Mean over a batch of (r - r̂)² + λ (|p_u|² + |q_i|² + b_u² + b_i²), a scalar in stars² (Koren et
    al. 2009, eq. 5); the global bias goes free. users, items, ratings: (B,).
    """
    rows = [table(users) for table in (model.user_embedding, model.user_bias)]  # (B, d) and (B, 1)
    rows += [table(items) for table in (model.item_embedding, model.item_bias)]
    size = sum(keras.ops.sum(row**2, axis=-1) for row in rows)
    return keras.ops.mean((ratings - model((users, items))) ** 2 + regularization * size)


def step_keras(model, optimizer, users, items, ratings, regularization: float):
    """One step of the optimiser on one batch; returns the loss before it."""
    with tf.GradientTape() as tape:
        loss = rating_loss_keras(model, users, items, ratings, regularization)
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


def fit_mf_keras(train: Interactions, *, embedding_dim: int, learning_rate: float, regularization: float,
                 epochs: int, batch_size: int, seed: int = 0):
    """Biased matrix factorisation by Adam on batches: the model and a row an epoch: epoch, loss (stars²,
    penalty included, mean over batches), seconds. Raises ValueError without ratings.
    """
    mean, history = rating_mean(train), []
    keras.utils.set_random_seed(seed)
    model = DotProductKeras(train.n_users, train.n_items, embedding_dim, mean=mean)
    optimizer, step = keras.optimizers.Adam(learning_rate), tf.function(step_keras)
    columns = tf.data.Dataset.from_tensor_slices((train.users, train.items, train.ratings))
    batches = columns.shuffle(len(train), seed=seed).batch(batch_size)
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        losses = [step(model, optimizer, *batch, regularization) for batch in batches]
        loss, seconds = float(sum(losses)) / len(losses), time.perf_counter() - started
        history.append({"epoch": epoch, "loss": loss, "seconds": seconds})
    return model, pd.DataFrame(history)
