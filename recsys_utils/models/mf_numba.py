# Exported from notebooks/06_matrix_factorization.ipynb; edit there.
"""Written in chapter 06, where it is explained line by line."""

import time

import numba
import numpy as np
import pandas as pd

from recsys_utils.interactions import Interactions
from recsys_utils.models.mf import as_vectors, predict, rating_mean
from recsys_utils.splits import Holdout


@numba.njit(fastmath=True)
def sgd_epoch(users, items, ratings, order, P, Q, b, c, mean, rate, penalty):
    """One pass of stochastic gradient descent over the ratings, in place; returns the mean squared error
    met on the way. All floats of one type; float32 is fastest. order: rows to visit. P: (n_users, d),
    Q: (n_items, d). b, c: biases of users and of items.
    """
    squared = 0.0
    for row in order:
        u, i = users[row], items[row]
        e = ratings[row] - mean - b[u] - c[i]
        for f in range(P.shape[1]):
            e -= P[u, f] * Q[i, f]
        b[u] += rate * (e - penalty * b[u])
        c[i] += rate * (e - penalty * c[i])
        for f in range(P.shape[1]):
            p, q = P[u, f], Q[i, f]  # both move from where they were
            P[u, f] += rate * (e * q - penalty * p)
            Q[i, f] += rate * (e * p - penalty * q)
        squared += e * e
    return squared / len(order)


def fit_mf(train: Interactions, *, embedding_dim: int, learning_rate: float, regularization: float, epochs: int,
           seed: int = 0, validation: Holdout | None = None, patience: int | None = None):
    """Biased matrix factorisation by SGD, one rating at a time (Koren et al. 2009, eq. 5): (U, V) and
    a row an epoch: epoch, loss (mean squared error, stars²), seconds, validation (RMSE, stars).

    U @ V.T are ratings, not cut to the scale. With validation the tables of the best epoch come back,
    and training stops after `patience` epochs without a better one (None: never). Raises ValueError
    without ratings, for patience without validation, and when the steps are so large that they explode.
    """
    mean, history, best = np.float32(rating_mean(train)), [], (np.inf, 0, None)
    if patience is not None and validation is None:
        raise ValueError(f"patience={patience} needs a validation part to watch")
    rng, rates = np.random.default_rng(seed), np.array([learning_rate, regularization], np.float32)
    P, Q = (rng.normal(0, 0.1, (n, embedding_dim)).astype("f4") for n in (train.n_users, train.n_items))
    b, c = np.zeros(train.n_users, "f4"), np.zeros(train.n_items, "f4")
    for epoch in range(1, epochs + 1):
        started, order = time.perf_counter(), rng.permutation(len(train))
        loss = sgd_epoch(train.users, train.items, train.ratings, order, P, Q, b, c, mean, *rates)
        history.append({"epoch": epoch, "loss": loss, "seconds": time.perf_counter() - started})
        if not np.isfinite(loss):
            raise ValueError(f"the loss is {loss} in epoch {epoch}; learning_rate={learning_rate} is too large")
        if validation is not None:
            vectors, scale = as_vectors(mean, b, c, P, Q), (train.ratings.min(), train.ratings.max())
            error = predict(*vectors, validation.truth, scale) - validation.truth.ratings
            history[-1]["validation"] = rmse = float(np.sqrt(np.mean(error**2)))
            best = (rmse, epoch, vectors) if rmse < best[0] else best
        if patience is not None and epoch - best[1] >= patience:
            break
    return best[2] or as_vectors(mean, b, c, P, Q), pd.DataFrame(history)
