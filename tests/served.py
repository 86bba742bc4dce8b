"""A small artefact to serve: random tastes, ratings and a film table, for the tests of recsys_utils.serving."""

import numpy as np
import pandas as pd

from recsys_utils import Interactions
from recsys_utils.serving import artefacts

GENRES = ("Action", "Comedy", "Drama", "Horror")


def interactions(n_users=30, n_items=50, n=400, seed=0):
    """Distinct pairs in random order, half stars, whole-number ids that are no codes, few distinct times."""
    rng = np.random.default_rng(seed)
    pairs = rng.choice(n_users * n_items, n, replace=False)
    table = pd.DataFrame({
        "title": [f"<b>Film {code}</b>" for code in range(n_items)],
        "year": np.where(np.arange(n_items) % 7 == 0, np.nan, 1950.0 + np.arange(n_items) % 70),
        "genres": [tuple(GENRES[: code % 4]) for code in range(n_items)],
    }, index=10 * np.arange(n_items) + 3)  # fmt: skip
    return Interactions(
        pairs // n_items, pairs % n_items, user_ids=2 * np.arange(n_users) + 100, item_ids=table.index.to_numpy(),
        ratings=rng.integers(1, 11, n) / 2, timestamps=rng.integers(0, 50, n), item_table=table,
    )  # fmt: skip


def parts(train, d=8, seed=0):
    """User vectors, item vectors and item-item weights for `train`, all random."""
    rng = np.random.default_rng(seed)
    vectors = [rng.normal(size=(n, d)).astype(np.float32) for n in (train.n_users, train.n_items)]
    return *vectors, rng.normal(size=(train.n_items, train.n_items))


def artefact(version="1", d=8, seed=0, n_weights=5, **sizes):
    """A whole artefact; the seed decides vectors, weights and ratings."""
    train = interactions(seed=seed, **sizes)
    return artefacts.build(version, train, *parts(train, d, seed), n_weights=n_weights)


def same(a, b):
    """Whether two artefacts are equal in every value and type."""
    arrays = ["item_vectors", "user_vectors", "user_ids", "ages"]
    cells = [(getattr(a, name), getattr(b, name)) for name in arrays]
    for name in ("history", "weights"):
        cells += [(getattr(getattr(a, name), part), getattr(getattr(b, name), part)) for part in ("data", "indices")]
        cells += [(getattr(a, name).indptr, getattr(b, name).indptr)]
    equal = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in cells)
    return equal and a.version == b.version and a.items.equals(b.items) and a.items.dtypes.equals(b.items.dtypes)
