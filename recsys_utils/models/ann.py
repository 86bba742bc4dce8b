# Exported from notebooks/12_ann_search.ipynb; edit there.
"""Written in chapter 12, where it is explained line by line."""

import gc
import time
from collections.abc import Callable

import numpy as np

from recsys_utils.retrieval import FlatIndex


def latency(search: Callable, queries: np.ndarray, *, k=10, batch=1, repeats=3, warm=20) -> np.ndarray:
    """Milliseconds a query, shape (repeats, calls): the wall time of a call of `batch` queries over
    `batch`.

    search: called as search(queries, k); queries: shape (B, d). The first `warm` calls are made once
    more before the clock starts, and no garbage is collected while it runs. Raises ValueError for a
    batch of none, or of more than all queries.
    """
    if not 1 <= batch <= len(queries):
        raise ValueError(f"batch={batch} of {len(queries)} queries; expected 1 to that many")
    parts = [queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch)]
    taken = np.zeros((1 + repeats, len(parts)))
    gc.disable()
    try:
        for row, call in np.ndindex(taken.shape):
            if row or call < warm:
                started = time.perf_counter()
                search(parts[call], k)
                taken[row, call] = time.perf_counter() - started
    finally:
        gc.enable()
    return taken[1:] * 1000 / batch


def describe_vectors(vectors: np.ndarray, *, sample=500, bound=0.95, seed=0) -> dict:
    """What makes a catalogue easy or hard to search; vectors: shape (n, d), n at least 11.

    shares, energy: of the first 16 singular values, σ_i / Σσ and σ_i² / Σσ², both (min(16, d),).
    duplicates: share of `sample` rows whose nearest other row has a cosine above `bound`. ratio: median
    over them of the distance to the nearest over that to the tenth, rows scaled to length one.
    Memory: three times that of the vectors. Raises ValueError for too few rows.
    """
    energy = np.linalg.eigvalsh((vectors.T @ vectors).astype(float))[::-1].clip(0)
    rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    (index := FlatIndex(rows.shape[1])).add(rows)
    some = np.random.default_rng(seed).choice(len(rows), min(sample, len(rows)), replace=False)
    cosines = index.search(rows[some], 11)[1]  # column 0 is the row itself
    first, tenth = np.sqrt(np.maximum(1 - cosines[:, [1, 10]], 1e-9)).T
    return {"shares": (energy**0.5 / (energy**0.5).sum())[:16], "energy": (energy / energy.sum())[:16],
            "duplicates": float((cosines[:, 1] > bound).mean()), "ratio": float(np.median(first / tenth))}


def grow(vectors: np.ndarray, n: int, *, seed=0, neighbours=18) -> np.ndarray:
    """A catalogue of n rows that looks like `vectors`, shape (m, d): (n, d), float32.

    Each new row: draw an old one, take the mean of its nearest rows by cosine (itself among them), add
    noise with their covariance (a smoothed bootstrap, Silverman and Young 1987, with local noise). Then
    one linear map for all rows gives them the second moments of `vectors`, and rows of length one get
    length one again. Raises ValueError for fewer old rows than `neighbours`, and for n below 1.
    """
    X = np.asarray(vectors, np.float32)
    if len(X) < neighbours or n < 1:
        raise ValueError(f"{len(X)} vectors, n={n}; expected at least {neighbours}, and n of 1 or more")
    rng, length = np.random.default_rng(seed), np.linalg.norm(X, axis=1, keepdims=True).clip(1e-12)
    near = np.argsort(-(X / length) @ (X / length).T, axis=1)[:, :neighbours]  # (m, neighbours)
    mean, unit = X[near].mean(axis=1), np.allclose(length, 1, atol=1e-4)
    linear, wanted = np.eye(X.shape[1], dtype=np.float32), X.T.astype(float) @ X / len(X)

    def draw(size):
        old = rng.integers(0, len(X), size)
        noise = rng.standard_normal((size, 1, neighbours), np.float32) / np.float32(neighbours**0.5)
        return mean[old] + (noise @ (X[near[old]] - mean[old, None]))[:, 0]

    def finish(rows):
        rows = rows @ linear
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if unit else rows

    trial = draw(20_000)
    for _ in range(2):  # twice, because length one bends the moments a little
        rows = finish(trial)
        now = rows.T.astype(float) @ rows / len(rows)
        half, back = _power(now, 0.5), _power(now, -0.5)
        linear = (linear @ back @ _power(half @ wanted @ half, 0.5) @ back).astype(np.float32)
    return np.concatenate([finish(draw(min(20_000, n - done))) for done in range(0, n, 20_000)])


def _power(moments: np.ndarray, exponent: float) -> np.ndarray:
    """A power of a symmetric matrix with eigenvalues of 0 or more."""
    values, vectors = np.linalg.eigh(moments)
    return (vectors * np.maximum(values, 1e-9 * values[-1]) ** exponent) @ vectors.T
