# Exported from notebooks/05_embeddings.ipynb; edit there.
"""Written in chapter 05, where it is explained line by line."""

import keras
import numpy as np
from keras import initializers, layers, ops


class DotProduct(keras.Model):
    """Dot product of a user and an item embedding, plus three biases: the twin of the torch model."""

    def __init__(self, n_users, n_items, embedding_dim, scale=0.1, mean=0.0, **kwargs):
        super().__init__(**kwargs)

        def table(size, dim, scale):
            rows = layers.Embedding(size, dim, initializers.RandomNormal(0, scale), dtype=self.dtype)
            rows.build(())  # weights exist before the first call
            return rows

        self.user_embedding = table(n_users, embedding_dim, scale)
        self.item_embedding = table(n_items, embedding_dim, scale)
        self.user_bias, self.item_bias = table(n_users, 1, 0.0), table(n_items, 1, 0.0)
        self.global_bias = self.add_weight(shape=(), initializer=initializers.Constant(mean))
        self.built = True

    def call(self, inputs):
        users, items = inputs
        product = ops.sum(self.user_embedding(users) * self.item_embedding(items), axis=-1)
        return product + self.user_bias(users)[..., 0] + self.item_bias(items)[..., 0] + self.global_bias

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item vectors, (n_users, d + 2) and (n_items, d + 2); their dot products are the
        scores."""
        mean, P, Q, b, c = self.get_weights()
        return np.hstack([P, b + mean, np.ones_like(b)]), np.hstack([Q, np.ones_like(c), c])
