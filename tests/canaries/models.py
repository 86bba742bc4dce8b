"""Scorers that know nothing, and one that knows the opposite."""

import numpy as np


def constant(n_items):
    """Every item is as good as any other: all ties."""
    return lambda users: np.zeros((len(users), n_items))


def random(n_items, seed=0):
    """Scores drawn anew; no two are equal."""
    rng = np.random.default_rng(seed)
    return lambda users: rng.random((len(users), n_items))


def reversed_popularity(data):
    """The least popular first: popularity with the sign lost."""
    counts = data.item_counts.astype(float)
    return lambda users: np.tile(-counts, (len(users), 1))


def first_items(n_items):
    """Items in the order of their codes: what a constant scorer becomes when ids break its ties."""
    return lambda users: np.tile(-np.arange(n_items, dtype=float), (len(users), 1))
