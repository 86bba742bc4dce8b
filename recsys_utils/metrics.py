"""Ranking and rating metrics: arrays in, one value per user out.

A ranking enters as `hits`, shape (U, k): hits[u, r] is True where the item at rank r (from 0) of user u is relevant.
`n_relevant`, shape (U,), counts all relevant items of the user, found or not; it must be positive, because a user
without relevant items has no recall. A list shorter than k is padded with False: a place left empty is a miss.
Every function is vectorised over users. All values lie in [0, 1]; 1 is perfect.
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def _checked(hits: np.ndarray, n_relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hits, n_relevant = np.asarray(hits, dtype=bool), np.asarray(n_relevant)
    if hits.ndim != 2 or not hits.shape[1] or n_relevant.shape != hits.shape[:1]:
        raise ValueError(
            f"hits has shape {hits.shape}, n_relevant {n_relevant.shape}; expected (U, k) with k >= 1, and (U,)"
        )
    too_few = n_relevant < np.maximum(hits.sum(axis=1), 1)
    if too_few.any():
        user = int(too_few.argmax())
        raise ValueError(
            f"row {user} has {hits[user].sum()} hits and n_relevant {n_relevant[user]}; expected at least one relevant "
            f"item and no more hits than that. Leave out users without held-out items, and rank no item twice"
        )
    return hits, n_relevant


def hit_rate(hits: np.ndarray, n_relevant: np.ndarray) -> np.ndarray:
    """1 when at least one relevant item is among the k, else 0. Shape (U,)."""
    hits, _ = _checked(hits, n_relevant)
    return hits.any(axis=1).astype(float)


def precision(hits: np.ndarray, n_relevant: np.ndarray) -> np.ndarray:
    """Share of the k places that hold a relevant item. Shape (U,)."""
    hits, _ = _checked(hits, n_relevant)
    return hits.mean(axis=1)


def recall(hits: np.ndarray, n_relevant: np.ndarray) -> np.ndarray:
    """Share of the relevant items that are among the k; below 1 by construction when n_relevant > k. Shape (U,)."""
    hits, n_relevant = _checked(hits, n_relevant)
    return hits.sum(axis=1) / n_relevant


def mrr(hits: np.ndarray, n_relevant: np.ndarray) -> np.ndarray:
    """1 / rank of the first relevant item, 0 when none is among the k. Shape (U,)."""
    hits, _ = _checked(hits, n_relevant)
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)


def ndcg(hits: np.ndarray, n_relevant: np.ndarray) -> np.ndarray:
    """Binary NDCG: discounts 1/log2(rank + 1), over the best possible sum (Järvelin & Kekäläinen 2002). Shape (U,)."""
    hits, n_relevant = _checked(hits, n_relevant)
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([[0], np.cumsum(discounts)])[np.minimum(n_relevant, hits.shape[1])]
    return hits @ discounts / ideal


def average_precision(hits: np.ndarray, n_relevant: np.ndarray, denominator: str = "achievable") -> np.ndarray:
    """Sum of the precisions at the ranks of the hits, divided by one of two counts; its mean over users is MAP.

    denominator: "achievable" divides by min(n_relevant, k), so that 1 can be reached; "relevant" divides by
    n_relevant, as many libraries do. The two differ for users with more than k relevant items. Shape (U,).
    """
    hits, n_relevant = _checked(hits, n_relevant)
    if denominator not in ("achievable", "relevant"):
        raise ValueError(f"denominator={denominator!r}; expected 'achievable' or 'relevant'")
    ranks = np.arange(1, hits.shape[1] + 1)
    total = (hits * hits.cumsum(axis=1) / ranks).sum(axis=1)
    return total / (np.minimum(n_relevant, hits.shape[1]) if denominator == "achievable" else n_relevant)


def auc(scores: np.ndarray, relevant: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Chance that a random relevant candidate scores above a random other one; a tie counts one half.

    All arguments have shape (U, n_items), relevant and candidates are masks. Users whose candidates are all relevant,
    or none of them, get nan: there is no pair to compare. Shape (U,).
    """
    scores = np.where(candidates, scores, -np.inf)
    ranks = stats.rankdata(scores, axis=1)  # 1 = lowest, ties share the mean rank
    positives = relevant & candidates
    n_positive, n_candidates = positives.sum(axis=1), candidates.sum(axis=1)
    below = (ranks * positives).sum(axis=1) - n_positive * (n_positive + 1) / 2
    below -= n_positive * (candidates.shape[1] - n_candidates)  # the masked items lie at the bottom
    pairs = n_positive * (n_candidates - n_positive)
    return np.divide(below, pairs, out=np.full(len(scores), np.nan), where=pairs > 0)


def coverage(items: np.ndarray, n_items: int) -> float:
    """Share of the catalogue that appears in at least one list. items: shape (U, k), -1 marks an empty place."""
    return len(np.unique(items[items >= 0])) / n_items


def novelty(items: np.ndarray, item_counts: np.ndarray, n_users: int) -> np.ndarray:
    """Mean self-information -log2(share of users who met the item) of each list, in bits (Zhou et al. 2010).

    items: shape (U, k), -1 marks an empty place; item_counts: shape (n_items,); an item nobody met counts as met once.
    An empty list has novelty 0. Shape (U,).
    """
    bits = -np.log2(np.maximum(item_counts, 1) / n_users)
    shown = items >= 0
    return (bits[np.maximum(items, 0)] * shown).sum(axis=1) / np.maximum(shown.sum(axis=1), 1)


RATING_SUMS = ("n", "squared_error", "absolute_error", "rating", "squared_rating")


def rating_sums(users: np.ndarray, truth: np.ndarray, predictions: np.ndarray, n_users: int) -> np.ndarray:
    """Per-user sums from which pooled rating metrics follow, shape (n_users, 5), columns RATING_SUMS.

    users: codes, shape (n,); truth and predictions: ratings in the same unit (stars), shape (n,).
    Raises ValueError for a prediction that is not finite.
    """
    truth, predictions = np.asarray(truth, float), np.asarray(predictions, float)
    if predictions.shape != truth.shape or not np.isfinite(predictions).all():
        raise ValueError(
            f"predictions have shape {predictions.shape} and {np.sum(~np.isfinite(predictions))} values that are not "
            f"finite; expected {truth.shape} finite ratings: give the model a fallback for what it cannot predict"
        )
    error = predictions - truth
    columns = (np.ones_like(error), error**2, np.abs(error), truth, truth**2)
    return np.stack([np.bincount(users, column, n_users) for column in columns], axis=1)


def rmse(sums: np.ndarray) -> np.ndarray:
    """Root mean squared error from summed RATING_SUMS, shape (..., 5) → (...). Pooled over ratings, in stars."""
    return np.sqrt(sums[..., 1] / sums[..., 0])


def mae(sums: np.ndarray) -> np.ndarray:
    """Mean absolute error from summed RATING_SUMS, shape (..., 5) → (...). Pooled over ratings, in stars."""
    return sums[..., 2] / sums[..., 0]


def r2(sums: np.ndarray) -> np.ndarray:
    """Share of the ratings' variance explained, from summed RATING_SUMS, shape (..., 5) → (...). Can be negative."""
    total = sums[..., 4] - sums[..., 3] ** 2 / sums[..., 0]
    return 1 - sums[..., 1] / total
