# Exported from notebooks/01_interactions.ipynb; edit there.
"""Written in chapter 01, where it is explained line by line."""

import numpy as np


def lorenz(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lorenz curve of counts, shape (n,): shares of items, fewest first, and of events, both of shape (n + 1,)."""
    cumulated = np.concatenate([[0], np.sort(counts).cumsum()])
    return np.linspace(0, 1, len(cumulated)), cumulated / cumulated[-1]


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts, shape (n,): 0 when all are equal, up to 1 - 1/n."""
    events = lorenz(counts)[1]
    return 1 - (events[1:] + events[:-1]).mean()             # 1 - 2 × the area under the curve
