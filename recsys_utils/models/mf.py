# Exported from notebooks/06_matrix_factorization.ipynb; edit there.
"""Written in chapter 06, where it is explained line by line."""

import numpy as np
from scipy import sparse

from recsys_utils.interactions import Interactions


def rating_mean(train: Interactions) -> float:
    """μ, the mean of all ratings in stars. Raises ValueError when there are none."""
    if train.ratings is None or not len(train):
        raise ValueError(f"{train.name} has {len(train)} rows and no ratings; expected rows with ratings")
    return float(train.ratings.mean(dtype=float))


def as_vectors(mean, user_bias, item_bias, P, Q) -> tuple[np.ndarray, np.ndarray]:
    """Biases and embeddings as two tables, U (n_users, d + 2) and V (n_items, d + 2): U @ V.T are the
    ratings. P: (n_users, d), Q: (n_items, d), biases: (n_users,) and (n_items,), in stars.
    """
    U = np.column_stack([P, user_bias + mean, np.ones_like(user_bias)])
    return U, np.column_stack([Q, np.ones_like(item_bias), item_bias])


def predict(U: np.ndarray, V: np.ndarray, pairs: Interactions, scale: tuple[float, float]) -> np.ndarray:
    """Ratings of the users and items in pairs, in stars, shape (n,), cut to the ends of the scale."""
    return np.clip((U[pairs.users] * V[pairs.items]).sum(axis=1), *scale)


def fit_biases(train: Interactions, *, item_regularization: float, user_regularization: float):
    """Damped biases of items, then of users (baseline estimates of Koren 2010): (U, V), both of width 2.

    regularizations: how many average ratings to add to each item and user, 0 or more. Whoever has no
    rating gets a bias of 0. Raises ValueError without ratings.
    """
    mean = rating_mean(train)
    rest = train.ratings - mean
    c = np.bincount(train.items, rest, train.n_items) / np.maximum(train.item_counts + item_regularization, 1)
    rest -= c[train.items]
    b = np.bincount(train.users, rest, train.n_users) / np.maximum(train.user_counts + user_regularization, 1)
    return as_vectors(mean, b, c, np.empty((train.n_users, 0)), np.empty((train.n_items, 0)))


def half_step(weights: sparse.csr_matrix, targets: sparse.csr_matrix, factors: np.ndarray, regularization,
              gram: np.ndarray | None = None) -> np.ndarray:
    """One side of alternating least squares, all rows at once, shape (n, d).

    Row u of the answer solves (gram + Σ_i w_ui q_i q_iᵀ + λ_u I) p_u = Σ_i t_ui q_i.
    weights, targets: w and t, both (n, m). factors: the q_i, (m, d). regularization: λ, a number or
    one a row, (n,). gram: (d, d), None for zero. Rows of like length are solved together, padded to
    the longest; a temporary array holds at most four million numbers, or one row.
    """
    n, d, counts, right = weights.shape[0], factors.shape[1], np.diff(weights.indptr), targets @ factors
    penalty = np.broadcast_to(regularization, n).astype(factors.dtype)[:, None, None]
    order, out, start = np.argsort(-counts, kind="stable"), np.empty((n, d), factors.dtype), 0
    while start < n:
        longest = counts[order[start]]
        rows = order[start : start + max(1, 4_000_000 // (d * max(d, longest)))]
        real = np.arange(longest) < counts[rows, None]  # (B, longest), False where padded
        entry = np.where(real, weights.indptr[rows, None] + np.arange(longest), 0)
        Q, w = factors[weights.indices[entry]], np.where(real, weights.data[entry], 0)  # (B, longest, d)
        A = (Q * w[..., None]).transpose(0, 2, 1) @ Q + penalty[rows] * np.eye(d, dtype=factors.dtype)
        out[rows] = np.linalg.solve(A if gram is None else A + gram, right[rows, :, None])[..., 0]
        start += len(rows)
    return out


def fit_als(train: Interactions, *, embedding_dim: int, regularization: float, epochs: int, seed: int = 0):
    """Biased matrix factorisation by alternating least squares: U, (n_users, d + 2), and V; U @ V.T are
    ratings (Zhou et al. 2008, with biases). The penalised squared error never rises.

    regularization: λ > 0; a row is penalised by λ times its ratings. Raises ValueError without ratings.
    """
    mean, M, R = rating_mean(train), train.matrix().astype(float), train.matrix("ratings").astype(float)
    R.data -= mean

    def solve(M, R, factors, bias):
        features = np.column_stack([factors, np.ones(len(factors))])
        penalty = regularization * np.maximum(np.diff(M.indptr), 1)
        solved = half_step(M, (R - M.multiply(bias)).tocsr(), features, penalty)
        return solved[:, :-1], solved[:, -1]

    Q, c = np.random.default_rng(seed).normal(0, 0.1, (train.n_items, embedding_dim)), np.zeros(train.n_items)
    for _ in range(epochs):
        P, b = solve(M, R, Q, c)
        Q, c = solve(M.T.tocsr(), R.T.tocsr(), P, b)
    return as_vectors(mean, b, c, P, Q)
