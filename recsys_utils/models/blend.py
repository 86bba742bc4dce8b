# Exported from notebooks/14_leaderboard.ipynb; edit there.
"""Written in chapter 14, where it is explained line by line."""

from functools import cache

import numpy as np
from scipy import stats

from recsys_utils import leaderboard
from recsys_utils.datasets import load_tags
from recsys_utils.evaluation import Scorer, dense_scorer
from recsys_utils.interactions import Interactions
from recsys_utils.models import baselines, neighbours
from recsys_utils.models.dot_product_torch import fit_dot_product
from recsys_utils.models.two_tower_torch import content_vectors, fit_two_tower


def of_vectors(fitted: tuple) -> Scorer:
    """Dot products of the vectors of a trained model; fitted: (model, history)."""
    users, items = fitted[0].vectors()
    return dense_scorer(users, items.T)


def fit_hybrid(train: Interactions, n_components: int, **setting) -> Scorer:
    """Two towers with features, as in chapter 10."""
    features = content_vectors(train, load_tags(), n_components)
    return of_vectors(fit_two_tower(train, item_features=features, **setting))


PARTS = {
    "covisitation": baselines.fit_covisitation,
    "ease": lambda train, **setting: dense_scorer(neighbours.fit_ease(train, **setting)),
    "dot_product": lambda train, **setting: of_vectors(fit_dot_product(train, **setting)),
    "two_tower_features": fit_hybrid,
}


def log_ranks(scorer: Scorer, train: Interactions) -> np.ndarray:
    """Minus the log of each item's rank for each user, (n_users, n_items); 0 is the best item.

    What the user has met in train comes last; equal scores share their mean rank.
    """
    seen = train.matrix()
    batches = np.array_split(np.arange(train.n_users), 8)
    scores = np.concatenate([scorer(users) for users in batches]).astype(float)
    scores[seen.nonzero()] = -np.inf
    return -np.log(stats.rankdata(-scores, axis=1)).astype(np.float32)


@cache
def fit_parts(train: Interactions, seed: int = 0) -> np.ndarray:
    """Log ranks of all PARTS, fitted with the settings recorded for the house, (4, n_users, n_items)."""
    settings = {name: leaderboard.result(name)["hyperparameters"] for name in PARTS}
    for setting in settings.values():
        setting |= {"seed": seed} if "seed" in setting else {}
    return np.stack([log_ranks(fit(train, **settings[name]), train) for name, fit in PARTS.items()])


def fit_blend(train: Interactions, weights: list[float], seed: int = 0) -> Scorer:
    """A weighted mean of log ranks. weights: one for each of PARTS."""
    return dense_scorer(np.tensordot(np.asarray(weights, np.float32), fit_parts(train, seed), 1))


DRAWS = np.random.default_rng(0).dirichlet(np.ones(len(PARTS)), 19).round(3).tolist()
TRIALS = [{"weights": weights, "seed": 0} for weights in [[0.25] * len(PARTS), *DRAWS]]
