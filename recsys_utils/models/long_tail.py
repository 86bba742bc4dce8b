# Exported from notebooks/01_interactions.ipynb; edit there.
"""Written in chapter 01, where it is explained line by line."""

import numpy as np

from recsys_utils import plots


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts, shape (n,): 0 when all are equal, up to 1 - 1/n."""
    events = plots.lorenz(counts)[1]
    return 1 - (events[1:] + events[:-1]).mean()             # 1 - 2 × the area under the curve
