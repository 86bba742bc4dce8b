# Exported from notebooks/07_bpr.ipynb; edit there.
"""Written in chapter 07, where it is explained line by line."""

import time

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from recsys_utils.interactions import Interactions
from recsys_utils.models.dot_product_keras import DotProduct
from recsys_utils.models.losses_keras import bpr_loss
from recsys_utils.sampling import NegativeSampler
from recsys_utils.training import check_settings


def fit_bpr_keras(
    train: Interactions, *, embedding_dim: int, n_negatives: int, alpha: float, learning_rate: float,
    weight_decay: float, batch_size: int, epochs: int, seed: int = 0,
) -> tuple[DotProduct, pd.DataFrame]:
    """BPR in Keras, the twin of fit_bpr: the model and its history (epoch, loss, seconds)."""
    check_settings(interactions=len(train), n_negatives=n_negatives, batch_size=batch_size, epochs=epochs)
    keras.utils.set_random_seed(seed)
    rng, sampler = np.random.default_rng(seed), NegativeSampler(train.matrix(), alpha)
    model = DotProduct(train.n_users, train.n_items, embedding_dim)
    variables, adam = model.trainable_variables, keras.optimizers.Adam(learning_rate)

    @tf.function
    def run(users, items, negatives):  # one epoch, compiled: a loop over slices
        total = 0.0
        for start in tf.range(0, len(train), batch_size):
            u, i, j = (codes[start : start + batch_size] for codes in (users, items, negatives))
            with tf.GradientTape() as tape:
                loss = bpr_loss(model((u, i)), model((u[:, None], j)))
            gradients = tape.gradient(loss, variables)
            adam.apply([g + weight_decay * v for g, v in zip(gradients, variables)], variables)
            total += loss * tf.cast(len(u), tf.float32)
        return total / len(train)

    history = []
    for epoch in range(1, epochs + 1):
        started, order = time.perf_counter(), rng.permutation(len(train))
        negatives = sampler.sample(train.users, n_negatives, rng)
        loss = run(*(tf.constant(codes[order]) for codes in (train.users, train.items, negatives)))
        history.append({"epoch": epoch, "loss": float(loss), "seconds": time.perf_counter() - started})
    return model, pd.DataFrame(history)
