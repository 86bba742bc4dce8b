"""NDCG done wrong."""

import numpy as np


def natural_log_ndcg(hits, n_relevant):
    """Discounts with the natural logarithm and no best possible sum below: values above 1 are possible."""
    return np.asarray(hits) @ (1 / np.log(np.arange(2, np.shape(hits)[1] + 2)))
