"""Dot-product matrix factorisation on the logistic loss by plain SGD: what Rendle et al. (2020) set against NeuMF.

The model is that of chapter 5 and the loop is written as those of chapters 6 and 7; `benchmarks/ncf.py` trains it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from recsys_utils.interactions import Interactions
from recsys_utils.training import check_settings


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})  # sums in any order, so several at a time
def logistic_sgd(users, items, rows, n_items, n_negatives, P, Q, b, c, mean, learning_rate, regularization, rng):
    """One pass over the pairs of `rows`, each with n_negatives items drawn from all: SGD on the logistic loss.

    In place. P: (n_users, d), Q: (n_items, d), b, c: biases of users and items, mean: global bias, (1,); all float32.
    """
    for row in rows:
        u = users[row]
        p = P[u]
        for sample in range(n_negatives + 1):
            i = items[row] if sample == 0 else int(rng.random() * n_items)
            q = Q[i]
            x = mean[0] + b[u] + c[i]
            for f in range(len(p)):
                x += p[f] * q[f]
            e = np.float32(sample == 0) - np.float32(1) / (np.float32(1) + np.exp(-x))
            for f in range(len(p)):
                old = p[f]
                p[f] += learning_rate * (e * q[f] - regularization * old)
                q[f] += learning_rate * (e * old - regularization * q[f])
            b[u] += learning_rate * (e - regularization * b[u])
            c[i] += learning_rate * (e - regularization * c[i])
            mean[0] += learning_rate * e


def fit_logistic_mf(
    train: Interactions,
    *,
    embedding_dim: int,
    n_negatives: int,
    learning_rate: float,
    regularization: float,
    epochs: int,
    threads: int = 1,
    seed: int = 0,
    after_epoch: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Dot-product MF on the logistic loss by plain SGD (Rendle et al. 2020): U, (n_users, d + 2), and V,
    (n_items, d + 2), whose dot products are the logits.

    n_negatives: for each pair of train, drawn from all items, positives of the user included. regularization: of
    every number but the global bias, at each step. threads: they share the tables without locks (Niu et al. 2011);
    one thread gives the same numbers every time. after_epoch: called with U and V. Raises ValueError for settings
    that cannot be used, and when the steps are too large.
    """
    check_settings(
        interactions=len(train),
        embedding_dim=embedding_dim,
        n_negatives=n_negatives,
        learning_rate=learning_rate,
        regularization=regularization,
        epochs=epochs,
        threads=threads,
    )
    rng, f32 = np.random.default_rng(seed), np.float32
    P = rng.normal(0, 0.1, (train.n_users, embedding_dim)).astype(f32)
    Q = rng.normal(0, 0.1, (train.n_items, embedding_dim)).astype(f32)
    b, c, mean = np.zeros(train.n_users, f32), np.zeros(train.n_items, f32), np.zeros(1, f32)

    def work(rows: np.ndarray, rng: np.random.Generator) -> None:
        logistic_sgd(
            train.users,
            train.items,
            rows,
            train.n_items,
            n_negatives,
            P,
            Q,
            b,
            c,
            mean,
            f32(learning_rate),
            f32(regularization),
            rng,
        )

    def vectors() -> tuple[np.ndarray, np.ndarray]:
        return np.column_stack([P, b + mean, np.ones_like(b)]), np.column_stack([Q, np.ones_like(c), c])

    generators = rng.spawn(threads)
    with ThreadPoolExecutor(threads) as workers:
        for _ in range(epochs):
            list(workers.map(work, np.array_split(rng.permutation(len(train)), threads), generators))
            if after_epoch is not None:
                after_epoch(*vectors())
    U, V = vectors()
    if not (np.isfinite(U).all() and np.isfinite(V).all()):
        raise ValueError(f"the vectors overflow: learning_rate={learning_rate} is too large")
    return U, V
