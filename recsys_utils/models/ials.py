# Exported from notebooks/07_bpr.ipynb; edit there.
"""Written in chapter 07, where it is explained line by line."""

import numpy as np

from recsys_utils.interactions import Interactions
from recsys_utils.models.mf import half_step
from recsys_utils.training import check_settings


def fit_ials(
    train: Interactions, *, embedding_dim: int, alpha: float, regularization: float, epochs: int,
    frequency: float = 0.0, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Implicit ALS (Hu, Koren & Volinsky 2008): vectors U (n_users, d) and V (n_items, d), scores
    U @ V.T.

    alpha: weight of an observed pair; an unobserved one weighs 1. regularization: λ > 0.
    frequency: ν, a row's penalty is λ times (its total weight / the mean one)^ν; 0 is the same for
    all (Rendle et al. 2022). Raises ValueError without interactions, and for settings that cannot
    be used.
    """
    check_settings(interactions=len(train), embedding_dim=embedding_dim, epochs=epochs)
    if not alpha > 1 or not regularization > 0:
        raise ValueError(f"alpha={alpha}, regularization={regularization}; expected above 1, above 0")
    X = train.matrix().astype(float)
    V = np.random.default_rng(seed).normal(0, 0.1 / embedding_dim**0.5, (train.n_items, embedding_dim))

    def solve(rows, factors):
        weight = (alpha - 1) * rows.getnnz(axis=1) + rows.shape[1]
        penalty = regularization * (weight / weight.mean()) ** frequency
        return half_step((alpha - 1) * rows, alpha * rows, factors, penalty, gram=factors.T @ factors)

    for _ in range(epochs):
        U = solve(X, V)
        V = solve(X.T.tocsr(), U)
    return U, V
