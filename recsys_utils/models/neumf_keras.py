# Exported from notebooks/08_neumf.ipynb; edit there.
"""Written in chapter 08, where it is explained line by line."""

import keras
from keras import initializers, layers, ops


def made(layer: layers.Layer, shape=()) -> layers.Layer:
    """The layer with its weights, for inputs of this shape."""
    layer.build(shape)
    return layer


class Pairs(keras.Model):
    """Two tables of embeddings, and a prediction layer over the features that a subclass makes.

    predicts: False for the parts of a NeuMF, which have no prediction layer of their own.
    """

    def __init__(self, n_users, n_items, dim, factors, predicts=True, **kwargs):
        super().__init__(**kwargs)
        self.user_embedding, self.item_embedding = (made(layers.Embedding(
            n, dim, initializers.RandomNormal(0, 0.01), dtype=self.dtype)) for n in (n_users, n_items))
        if predicts:
            self.prediction = made(layers.Dense(1, dtype=self.dtype), (None, factors))
        self.built = True

    def call(self, inputs):
        return self.prediction(self.features(*inputs))[..., 0]


class GMF(Pairs):
    """The twin of the torch GMF."""

    def __init__(self, n_users, n_items, factors, **kwargs):
        super().__init__(n_users, n_items, factors, factors, **kwargs)

    def features(self, users, items):
        return self.user_embedding(users) * self.item_embedding(items)


class MLP(Pairs):
    """The twin of the torch MLP."""

    def __init__(self, n_users, n_items, factors, depth=3, **kwargs):
        n = [factors * 2 ** max(depth - 1, 0), *(factors * 2**step for step in reversed(range(depth)))]
        super().__init__(n_users, n_items, n[0] // 2, factors, **kwargs)
        self.hidden = [made(layers.Dense(n[k + 1], "relu", dtype=self.dtype), (None, n[k])) for k in range(depth)]

    def features(self, users, items):
        p, q = self.user_embedding(users), self.item_embedding(items)
        z = ops.concatenate([p + ops.zeros_like(q), q + ops.zeros_like(p)], axis=-1)  # broadcast
        for layer in self.hidden:
            z = layer(z)
        return z


class NeuMF(keras.Model):
    """The twin of the torch NeuMF."""

    def __init__(self, n_users, n_items, factors, depth=3, **kwargs):
        super().__init__(**kwargs)
        self.gmf = GMF(n_users, n_items, factors, predicts=False, dtype=self.dtype)
        self.mlp = MLP(n_users, n_items, factors, depth, predicts=False, dtype=self.dtype)
        self.prediction = made(layers.Dense(1, dtype=self.dtype), (None, 2 * factors))
        self.built = True

    def call(self, inputs):
        return self.prediction(ops.concatenate([m.features(*inputs) for m in (self.gmf, self.mlp)], axis=-1))[..., 0]
