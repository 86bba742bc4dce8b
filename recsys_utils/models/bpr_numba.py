# Exported from notebooks/07_bpr.ipynb; edit there.
"""Written in chapter 07, where it is explained line by line."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from recsys_utils.interactions import Interactions
from recsys_utils.training import check_settings


@numba.njit(nogil=True, fastmath={"reassoc", "contract"})  # sums in any order, so several at a time
def bpr_sgd(users, items, starts, pool, n_triples, P, Q, c, learning_rate, regularization, rng):
    """LearnBPR (Rendle et al. 2009, figure 4): n_triples steps of gradient descent, in place.

    users, items: the n pairs, ordered by user, then item; those of user u begin at starts[u], shape
    (n_users + 1,). pool: item codes a negative is drawn from, shape (m,). P: (n_users, d), Q:
    (n_items, d), c: item biases, (n_items,). Floats are float32. A triple whose j is a positive of
    u is drawn again.
    """
    done = 0
    while done < n_triples:
        row = int(rng.random() * len(users))
        u, i, j = users[row], items[row], pool[int(rng.random() * len(pool))]
        low, size = starts[u], starts[u + 1] - starts[u]
        while size > 1:  # binary search for j among the items of u
            half = size // 2
            if items[low + half] <= j:
                low += half
            size -= half
        if items[low] == j:
            continue
        p, q_i, q_j = P[u], Q[i], Q[j]
        x = c[i] - c[j]
        for f in range(len(p)):
            x += p[f] * (q_i[f] - q_j[f])
        z = np.float32(1) / (np.float32(1) + np.exp(x))  # σ(-x), how wrong the order is
        for f in range(len(p)):
            old, difference = p[f], q_i[f] - q_j[f]
            p[f] += learning_rate * (z * difference - regularization * old)
            q_i[f] += learning_rate * (z * old - regularization * q_i[f])
            q_j[f] -= learning_rate * (z * old + regularization * q_j[f])
        c[i] += learning_rate * (z - regularization * c[i])
        c[j] -= learning_rate * (z + regularization * c[j])
        done += 1


def fit_bpr_numba(
    train: Interactions, *, embedding_dim: int, learning_rate: float, regularization: float,
    epochs: int, popularity: bool = False, threads: int = 1, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """BPR by plain SGD in compiled loops: U, (n_users, d + 2), and V, (n_items, d + 2), whose dot
    products are the scores.

    An epoch is as many triples as train has pairs. popularity: negatives are drawn as often as they
    were met, else uniformly. threads: they share the tables without locks (Niu et al. 2011); one
    thread gives the same numbers every time. Raises ValueError when no user has a negative, and when
    the steps are too large. Memory beside the tables: about 20 bytes a pair.
    """
    check_settings(embedding_dim=embedding_dim, threads=threads, regularization=regularization, epochs=epochs)
    pairs = train.matrix()
    pairs.sort_indices()
    met = np.diff(pairs.indptr)
    pool = pairs.indices if popularity else np.arange(train.n_items, dtype=np.int32)
    if not ((met > 0) & (met < len(np.unique(pool)))).any():
        raise ValueError(f"{train.name}: no user has a positive and a negative; nothing to order")
    rng, f32 = np.random.default_rng(seed), np.float32
    P = rng.normal(0, 0.1, (train.n_users, embedding_dim)).astype(f32)
    Q = rng.normal(0, 0.1, (train.n_items, embedding_dim)).astype(f32)
    c = np.zeros(train.n_items, f32)
    users = np.repeat(np.arange(train.n_users, dtype=np.int32), met)

    def work(rng: np.random.Generator) -> None:
        bpr_sgd(users, pairs.indices, pairs.indptr, pool, epochs * pairs.nnz // threads,
                P, Q, c, f32(learning_rate), f32(regularization), rng)

    with ThreadPoolExecutor(threads) as workers:
        list(workers.map(work, rng.spawn(threads)))
    U = np.column_stack([P, np.zeros(train.n_users, f32), np.ones(train.n_users, f32)])
    V = np.column_stack([Q, np.ones(train.n_items, f32), c])
    if not (np.isfinite(U).all() and np.isfinite(V).all()):
        raise ValueError(f"the vectors overflow: learning_rate={learning_rate} is too large")
    return U, V
