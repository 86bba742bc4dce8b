# Exported from notebooks/14_leaderboard.ipynb; edit there.
"""Written in chapter 14, where it is explained line by line."""

import numpy as np


def randomization_test(differences: np.ndarray, rounds: int = 10_000, seed: int = 0) -> np.ndarray:
    """Two-sided p-values of mean paired differences, by random signs (Smucker et al. 2007).

    differences: of one user a row, one comparison a column, (U, P). Returns (P,); the smallest
    possible value is 1 / (rounds + 1). Raises ValueError for a value that is not finite.
    """
    if differences.ndim != 2 or not np.isfinite(differences).all():
        raise ValueError(f"differences: shape {differences.shape}; expected finite values, (U, P)")
    rng, reached = np.random.default_rng(seed), np.zeros(differences.shape[1])
    observed = np.abs(differences.sum(axis=0)) - 1e-9
    for start in range(0, rounds, 1000):
        signs = rng.choice([-1.0, 1.0], (min(1000, rounds - start), len(differences)))
        reached += (np.abs(signs @ differences) >= observed).sum(axis=0)
    return (reached + 1) / (rounds + 1)


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for their number by Holm's step-down method, same shape (m,)."""
    order = np.argsort(p)
    steps = (len(p) - np.arange(len(p))) * p[order]
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(steps).clip(max=1)
    return corrected
