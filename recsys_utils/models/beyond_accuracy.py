# Exported from notebooks/14_leaderboard.ipynb; edit there.
"""Written in chapter 14, where it is explained line by line."""

import numpy as np
import pandas as pd


def exposure(items: np.ndarray, n_items: int) -> np.ndarray:
    """How many lists each item is in, (n_items,). items: lists, (U, k), -1 marks an empty place."""
    return np.bincount(items[items >= 0], minlength=n_items)


def tail_share(items: np.ndarray, item_counts: np.ndarray, head: float = 0.2) -> float:
    """Share of the filled places given to items outside the most popular `head` of the catalogue."""
    tail = np.argsort(-item_counts, kind="stable")[round(head * len(item_counts)) :]
    return float(np.isin(items[items >= 0], tail).mean())


def intra_list_diversity(items: np.ndarray, features: np.ndarray) -> np.ndarray:
    """One minus the mean cosine of all pairs in each list (Ziegler et al. 2005), shape (U,).

    items: (U, k), -1 marks an empty place. features: (n_items, d); an item without any has cosine 0
    with every other. A list with fewer than two items has no pair: nan.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = (features / np.where(lengths > 0, lengths, 1))[items] * (items >= 0)[:, :, None]  # (U, k, d)
    own = (unit**2).sum(axis=(1, 2))
    n = (items >= 0).sum(axis=1)
    pairs = np.where(n > 1, n * (n - 1), np.nan)
    return 1 - ((unit.sum(axis=1) ** 2).sum(axis=1) - own) / pairs


def miscalibration(
    items: np.ndarray, genres: np.ndarray, history: np.ndarray, mix: float = 0.01
) -> np.ndarray:
    """KL divergence of the genres of a list from those of the history (Steck 2018), nats, shape (U,).

    items: (U, k), -1 marks an empty place. genres: shares of each item, (n_items, G). history: shares
    in each user's history, (U, G). nan where a list or a history has no genre at all.
    """
    q = (genres[items] * (items >= 0)[:, :, None]).sum(axis=1)
    total_p, total_q = (np.where(total > 0, total, np.nan) for total in (history.sum(axis=1), q.sum(axis=1)))
    p, q = history / total_p[:, None], q / total_q[:, None]
    ratio = np.divide(p, (1 - mix) * q + mix * p, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(axis=1)


def group_means(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Mean of each group with a 95% bootstrap interval: users, mean, low, high, a row a group.

    values: one a user, (U,). groups: a label a user, (U,); rows are in the order of the labels.
    """
    rng, rows = np.random.default_rng(seed), {}
    for group in np.unique(groups):
        own = values[groups == group]
        low, high = np.quantile(rng.choice(own, (1000, len(own))).mean(axis=1), [0.025, 0.975])
        rows[group] = {"users": len(own), "mean": own.mean(), "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index")


def gap(
    values: np.ndarray, first: np.ndarray, strata: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of the users in `first` minus that of the others: (mean, low, high), 95% bootstrap interval.

    first: a mask, (U,). strata: a label a user; the gap is then taken within each stratum and averaged
    with the strata's sizes, so that groups which differ in the strata are compared like with like.
    """
    rng, strata = np.random.default_rng(seed), np.zeros(len(values)) if strata is None else strata
    draws, observed = np.zeros(1000), 0.0
    for stratum in np.unique(strata):
        one, two = (values[(strata == stratum) & mask] for mask in (first, ~first))
        share = (strata == stratum).mean()
        observed += share * (one.mean() - two.mean())
        one, two = (rng.choice(own, (1000, len(own))).mean(axis=1) for own in (one, two))
        draws += share * (one - two)
    return observed, *np.quantile(draws, [0.025, 0.975])
