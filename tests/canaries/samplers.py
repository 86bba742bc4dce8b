"""Negative samplers done wrong."""

import numpy as np


class IgnoresPositives:
    """Draws from all items."""

    def __init__(self, positives, alpha=0.0):
        self.n_items = positives.shape[1]

    def sample(self, users, n, rng):
        return rng.integers(0, self.n_items, (len(users), n))


class IgnoresAlpha:
    """Avoids positives and accepts alpha, but draws uniformly whatever it is."""

    def __init__(self, positives, alpha=0.0):
        self.dense = positives.toarray() != 0

    def sample(self, users, n, rng):
        return np.stack([rng.choice(np.flatnonzero(~self.dense[user]), n) for user in users])
