# Exported from notebooks/04_neighbours.ipynb; edit there.
"""Written in chapter 04, where it is explained line by line."""

import numpy as np
from scipy import sparse

from recsys_utils.interactions import Interactions


def overlap_pearson(ratings: sparse.csr_matrix, shrinkage: float = 0.0) -> np.ndarray:
    """Pearson correlation of every two rows over the columns both have filled, shape (n, n),
    zero diagonal.

    ratings: shape (n, m), positive where rated. Rows with fewer than two common columns, or a
    constant one, get 0. shrinkage: β in films in common, the correlation is multiplied by
    overlap / (overlap + β) (Bell & Koren 2007).
    """
    R, M = ratings.toarray().astype(float), (ratings.toarray() > 0).astype(float)
    n = M @ M.T  # films in common
    sums = R @ M.T  # stars of the row's user over the overlap
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = R @ R.T - sums * sums.T / n
        variance = R**2 @ M.T - sums**2 / n
        scale = np.sqrt(variance * variance.T)
        correlation = np.where((n > 1) & (scale > 1e-9), covariance / scale, 0.0)
        correlation *= n / (n + shrinkage) if shrinkage else 1.0
    np.fill_diagonal(correlation, 0)
    return np.nan_to_num(correlation)


def predict_from_users(train: Interactions, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean-centred user-kNN ratings for all pairs, in stars, and how many neighbours spoke; both
    (n_users, n_items).

    similarity: shape (n_users, n_users); negative weights are ignored. Without a neighbour: the
    mean of the user.
    """
    R, M = train.matrix("ratings").toarray().astype(float), train.matrix().toarray().astype(float)
    means = R.sum(axis=1) / np.maximum(M.sum(axis=1), 1)
    weights = np.maximum(similarity, 0)
    total = weights @ M
    offsets = weights @ ((R - means[:, None]) * M)
    ratings = means[:, None] + np.divide(offsets, total, out=np.zeros_like(offsets), where=total > 0)
    return ratings, (weights > 0).astype(float) @ M


def cosine_neighbours(X: sparse.csr_matrix, k: int, shrinkage: float = 0.0) -> np.ndarray:
    """Cosine similarity of the columns of X, shape (m, m), zero diagonal, float32; of each column
    the k largest are kept, and all that equal the last of them.

    X: shape (n, m), ones. shrinkage: β, added to the denominator in units of co-occurrence
    counts, so that pairs seen together rarely weigh less. Scores of items are X @ S. Raises
    ValueError unless 1 <= k. Memory about 16 · m² bytes.
    """
    if k < 1:
        raise ValueError(f"k={k}; expected at least one neighbour")
    counts = (X.T @ X).toarray().astype(np.float32)  # how often two columns occur together
    norms = np.sqrt(np.diag(counts))
    similarity = counts / (np.outer(norms, norms) + np.float32(shrinkage + 1e-9))
    np.fill_diagonal(similarity, 0)
    if k < len(similarity):
        similarity[similarity < np.partition(similarity, -k, axis=0)[-k]] = 0
    return similarity


def fit_user_knn(train: Interactions, k: int, shrinkage: float) -> np.ndarray:
    """Scores of user-kNN by summed evidence, shape (n_users, n_items)."""
    X = train.matrix()
    return cosine_neighbours(X.T.tocsr(), k, shrinkage).T @ X


def fit_item_knn(train: Interactions, k: int, shrinkage: float) -> np.ndarray:
    """Scores of item-kNN by summed evidence, shape (n_users, n_items)."""
    X = train.matrix()
    return X @ cosine_neighbours(X, k, shrinkage)


def ease(X: sparse.csr_matrix, regularization: float) -> np.ndarray:
    """Item-to-item weights of EASE (Steck 2019, eq. 8): shape (n_items, n_items), zero diagonal;
    scores are X @ B.

    X: ones, shape (n_users, n_items). regularization: λ > 0 in units of co-occurrence counts;
    ValueError otherwise. Memory 8 · n_items² bytes five times over; time grows with n_items³.
    """
    if not regularization > 0:
        raise ValueError(f"regularization={regularization}; expected λ > 0, or the matrix cannot be inverted")
    gram = (X.T @ X).toarray().astype(float)  # (n_items, n_items), co-occurrence counts
    inverse = np.linalg.inv(gram + regularization * np.eye(X.shape[1]))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def fit_ease(train: Interactions, regularization: float) -> np.ndarray:
    """Scores of EASE, shape (n_users, n_items), float32."""
    X = train.matrix()
    return X @ ease(X, regularization).astype(np.float32)
