# Exported from notebooks/10_two_tower_pytorch.ipynb; edit there.
"""Written in chapter 10, where it is explained line by line."""

import keras
import numpy as np
import tensorflow as tf
from keras import initializers, layers, ops

from recsys_utils.interactions import Interactions
from recsys_utils.sampling import NegativeSampler


class Tower(layers.Layer):
    """The twin of the torch tower without features: id embedding, blocks, output, length one."""

    def __init__(self, n, embedding_dim, hidden=(), normalize=True, **kwargs):
        super().__init__(**kwargs)
        start, dtype = initializers.RandomNormal(0, embedding_dim**-0.5), {"dtype": self.dtype}
        self.normalize = normalize
        self.embedding = layers.Embedding(n, embedding_dim, start, **dtype)
        self.linears = [layers.Dense(size, **dtype) for size in hidden]
        self.norms = [layers.LayerNormalization(epsilon=1e-5, **dtype) for size in hidden]
        self.last = layers.Dense(embedding_dim, **dtype) if hidden else None
        self(np.zeros(1, int))  # weights exist before the first call

    def call(self, codes):
        x = self.embedding(codes)
        for linear, norm in zip(self.linears, self.norms):
            x = norm(ops.relu(linear(x)))
        x = x if self.last is None else self.last(x)
        return ops.normalize(x, axis=-1, epsilon=1e-12) if self.normalize else x


class TwoTower(keras.Model):
    """The twin of the torch model without features: cosines divided by the temperature."""

    def __init__(self, n_users, n_items, embedding_dim, temperature, hidden=(), normalize=True, **kwargs):
        super().__init__(**kwargs)
        options = {"hidden": hidden, "normalize": normalize, "dtype": self.dtype}
        self.temperature = temperature
        self.user, self.item = (Tower(n, embedding_dim, **options) for n in (n_users, n_items))
        self.built = True

    def call(self, inputs):
        users, items = inputs
        return ops.sum(self.user(users) * self.item(items), axis=-1) / self.temperature

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item vectors, (n_users, d) and (n_items, d); their dot products rank."""
        return tuple(np.asarray(t(np.arange(t.embedding.input_dim))) for t in (self.user, self.item))


def with_negatives(train: Interactions, n_negatives: int, batch_size: int, seed: int = 0) -> tf.data.Dataset:
    """One epoch of shuffled batches ((users, lists), labels): users (B, 1), lists (B, 1 + n_negatives)
    with the positive in column 0, which is what the labels (B,) say.

    Negatives are items the user has not met, uniform, drawn afresh whenever the set is read.
    """
    sampler, rng = NegativeSampler(train.matrix()), np.random.default_rng(seed)

    def draw(users, items):
        negatives = tf.numpy_function(lambda u: sampler.sample(u, n_negatives, rng), [users], tf.int32)
        lists = tf.concat([items[:, None], tf.ensure_shape(negatives, (None, n_negatives))], axis=1)
        return (users[:, None], lists), tf.zeros_like(users)

    pairs = tf.data.Dataset.from_tensor_slices((train.users, train.items))
    return pairs.shuffle(len(train), seed=seed).batch(batch_size).map(draw).prefetch(2)
