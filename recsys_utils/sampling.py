"""Negative samplers: items a user has not met, drawn without a Python loop over rows."""

from __future__ import annotations

import numpy as np
from scipy import sparse

DENSE_CELLS = 256_000_000  # up to here a table of one byte a cell answers "is it a positive?"; above, a binary search
ROUNDS = 50  # redraws before the few rows still without a negative are drawn one by one from their exact weights


class NegativeSampler:
    """Draws items uniformly or in proportion to popularity^alpha among those that are no positive of the user.

    positives: shape (n_users, n_items), a stored entry is a positive; all of a user's are avoided.
    alpha: 0 for uniform; 1 for popularity; 0.75 is common (Mikolov et al. 2013). Items without positives have weight 0
    when alpha > 0. Rejection is exact: the draws follow the weights restricted to the user's non-positives.
    Memory: n_users * n_items bytes up to DENSE_CELLS, 8 bytes a positive beyond.
    """

    def __init__(self, positives: sparse.csr_matrix, alpha: float = 0.0) -> None:
        if not 0 <= alpha < np.inf:
            raise ValueError(f"alpha={alpha}; expected 0 (uniform) or more")
        positives = sparse.csr_matrix(positives, dtype=bool, copy=True)
        positives.sum_duplicates()
        positives.data[:] = True  # a stored zero is a positive too
        self.shape = positives.shape
        self._weights = positives.getnnz(axis=0).astype(float) ** alpha if alpha else np.ones(self.shape[1])
        if alpha:
            self._weights[positives.getnnz(axis=0) == 0] = 0
        self._alias = _alias_table(self._weights) if alpha and positives.nnz else None
        self._available = np.count_nonzero(self._weights) - positives.getnnz(axis=1)
        self._table = self._keys = None
        if self.shape[0] * self.shape[1] <= DENSE_CELLS:
            self._table = positives.toarray().ravel()
        else:
            self._keys = np.repeat(np.arange(self.shape[0], dtype=np.int64), np.diff(positives.indptr))
            self._keys *= self.shape[1]  # in place: there may be tens of millions
            self._keys += positives.indices

    def sample(self, users: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """n negatives for each user code, drawn with replacement. users: shape (B,) → item codes, shape (B, n), int32.

        Raises ValueError for a user who has no item left to draw.
        """
        users = np.asarray(users)
        if users.ndim != 1 or (len(users) and not np.issubdtype(users.dtype, np.integer)):
            raise ValueError(f"users has shape {users.shape} and type {users.dtype}; expected user codes of shape (B,)")
        users = users.astype(np.int64)
        if len(users) and (users.min() < 0 or users.max() >= self.shape[0]):
            raise ValueError(f"user codes run from {users.min()} to {users.max()}; expected 0..{self.shape[0] - 1}")
        empty = self._available[users] <= 0
        if empty.any():
            raise ValueError(
                f"user code {users[empty.argmax()]} has met every item that can be drawn; leave the user out"
            )
        rows = np.repeat(users * self.shape[1], n)  # where the user's cells begin
        items = self._draw(len(rows), rng)
        redo = np.flatnonzero(self._is_positive(rows + items))
        for _ in range(ROUNDS):
            items[redo] = self._draw(len(redo), rng)
            redo = redo[self._is_positive(rows[redo] + items[redo])]
            if not len(redo):
                break
        for start in np.unique(rows[redo]):  # users who have met nearly everything
            mine = redo[rows[redo] == start]
            weights = self._weights * ~self._is_positive(start + np.arange(self.shape[1]))
            items[mine] = rng.choice(self.shape[1], len(mine), p=weights / weights.sum())
        return items.reshape(len(users), n)

    def _draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        items = rng.integers(0, self.shape[1], n, dtype=np.int32)
        if self._alias is None:
            return items
        threshold, other = self._alias
        return np.where(rng.random(n, dtype=np.float32) < threshold[items], items, other[items])

    def _is_positive(self, keys: np.ndarray) -> np.ndarray:
        if self._table is not None:
            return self._table[keys]
        if not len(self._keys):
            return np.zeros(len(keys), bool)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return self._keys[place] == keys


def _alias_table(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias method (Vose 1991): thresholds and aliases, shape (n_items,); a draw costs two random numbers."""
    n = len(weights)
    scaled = weights * (n / weights.sum())
    threshold, other = np.ones(n, np.float32), np.arange(n, dtype=np.int32)
    small, large = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
    while small and large:
        low, high = small.pop(), large[-1]
        threshold[low], other[low] = scaled[low], high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            small.append(large.pop())
    return threshold, other
