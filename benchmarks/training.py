"""Training speed: python benchmarks/training.py writes results/speed/training.json.

One run on the house data, fitted on train, NDCG@10 on validation, 64 factors, two threads unless said, wall seconds
after a first fit that warms up, the models taking turns:

1. BPR triples a second, ours against implicit and cornac at equal NDCG: the compiled loop with the settings, the start
   and the sampling of each library (implicit draws negatives by popularity, cornac uniformly), torch and Keras with
   Adam. What counts are triples learnt from: a library that meets a positive among its negatives leaves that triple
   out. The time is that of a whole fit less that of a fit of one epoch, so nobody's preparations count. Medians over
   five seeds.
2. One half step of iALS against implicit's exact solver with the same factors, one thread each.
3. Seconds to a fixed NDCG: of the shortest fit, among ever longer ones from the start, that reaches it, preparations
   included. Median over three seeds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as implicit advises
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits leaves its core to others
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import cornac
import implicit
import numpy as np
import torch
from evaluation import median_seconds, row, write

from recsys_utils import Interactions, splits
from recsys_utils.datasets import load_house
from recsys_utils.evaluation import dense_scorer, evaluate
from recsys_utils.models.bpr_keras import fit_bpr_keras
from recsys_utils.models.bpr_numba import fit_bpr_numba
from recsys_utils.models.bpr_torch import fit_bpr
from recsys_utils.models.ials import fit_ials
from recsys_utils.models.mf import half_step

DIM, THREADS, SEEDS = 64, 2, range(5)
POPULAR = {"learning_rate": 0.02, "regularization": 0.03}  # of plain SGD, with negatives by popularity
UNIFORM = {"learning_rate": 0.05, "regularization": 0.01}
ADAM = {"n_negatives": 4, "alpha": 0.0, "learning_rate": 0.01, "weight_decay": 2e-5, "batch_size": 4096}
IALS = {"alpha": 5.0, "regularization": 20.0}
TARGET = 0.085  # popularity has .056
LENGTHS = [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 90, 128, 181, 256]  # epochs tried, each half as long again

Vectors = tuple[np.ndarray, np.ndarray]


class Model(NamedTuple):
    """fit(epochs, seed) gives vectors whose dot products are the scores; triples: learnt from in an epoch."""

    fit: Callable[[int, int], Vectors]
    settings: dict
    triples: float = 0


def models(train: Interactions) -> dict[str, Model]:
    pairs, common = train.matrix(), {"embedding_dim": DIM}
    positives, everything = train.user_counts[train.users], np.arange(train.n_items)
    popular = (pairs @ train.item_counts)[train.users] / len(train)  # chance that such a negative is a positive
    known = cornac.data.Dataset(  # the codes as they are
        train.n_users,
        train.n_items,
        dict(enumerate(range(train.n_users))),
        dict(enumerate(everything)),
        (train.users, train.items, np.ones(len(train))),
    )

    def compiled(settings: dict, popularity: bool) -> Model:
        def fit(epochs: int, seed: int) -> Vectors:
            options = common | settings | {"popularity": popularity, "threads": THREADS}
            return fit_bpr_numba(train, epochs=epochs, seed=seed, **options)

        return Model(fit, settings | {"popularity": popularity}, len(train))

    def start(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [rng.normal(0, 0.1, (n, DIM)).astype(np.float32) for n in (train.n_users, train.n_items)]

    def of_implicit(epochs: int, seed: int) -> Vectors:
        model = implicit.cpu.bpr.BayesianPersonalizedRanking(
            DIM, iterations=epochs, num_threads=THREADS, random_state=seed, **POPULAR
        )
        P, Q = start(seed)
        model.user_factors = np.hstack([P, np.ones((len(P), 1), np.float32)])  # the last column is for the bias
        model.item_factors = np.hstack([Q, np.zeros((len(Q), 1), np.float32)])
        model.fit(pairs, show_progress=False)
        return model.user_factors, model.item_factors

    def of_cornac(epochs: int, seed: int) -> Vectors:  # told a seed it would use one thread
        model = cornac.models.BPR(
            k=DIM,
            max_iter=epochs,
            learning_rate=UNIFORM["learning_rate"],
            lambda_reg=UNIFORM["regularization"],
            num_threads=THREADS,
            init_params=dict(zip("UV", start(seed), strict=True)),
        ).fit(known)
        return model.get_user_vectors(), model.get_item_vectors()

    def implicit_als(epochs: int, seed: int) -> Vectors:
        model = implicit.cpu.als.AlternatingLeastSquares(
            DIM, iterations=epochs, num_threads=THREADS, random_state=seed, **IALS
        )
        model.fit(pairs, show_progress=False)
        return model.user_factors, model.item_factors

    def ials(epochs: int, seed: int) -> Vectors:
        return fit_ials(train, epochs=epochs, seed=seed, frequency=1.0, **common, **IALS)

    def adam(fit: Callable) -> Model:
        def vectors(epochs: int, seed: int) -> Vectors:
            return fit(train, epochs=epochs, seed=seed, **common, **ADAM)[0].vectors()

        return Model(vectors, ADAM, len(train) * ADAM["n_negatives"])

    return {
        "compiled loop, popular negatives": compiled(POPULAR, True),
        "implicit, popular negatives": Model(of_implicit, POPULAR, float((1 - popular).sum())),
        "compiled loop, uniform negatives": compiled(UNIFORM, False),
        "cornac, uniform negatives": Model(of_cornac, UNIFORM, float((1 - positives / train.n_items).sum())),
        "torch, uniform negatives": adam(fit_bpr),
        "Keras, uniform negatives": adam(fit_bpr_keras),
        "iALS": Model(ials, IALS | {"frequency": 1.0}),
        "iALS, implicit": Model(implicit_als, IALS | {"use_cg": True}),
    }


def timed(model: Model, epochs: int, seed: int, holdout: splits.Holdout) -> tuple[float, float]:
    """Wall seconds of one fit, and its NDCG@10."""
    started = time.perf_counter()
    users, items = model.fit(epochs, seed)
    seconds = time.perf_counter() - started
    return seconds, evaluate(dense_scorer(users, items.T), holdout).mean("ndcg")


def throughput(known: dict[str, Model], holdout: splits.Holdout) -> list[dict]:
    """Millions of triples a second; the epochs bring every model to the NDCG of the others with such negatives."""
    epochs = {
        "compiled loop, popular negatives": 40,
        "implicit, popular negatives": 40,
        "compiled loop, uniform negatives": 100,
        "cornac, uniform negatives": 100,
        "torch, uniform negatives": 25,
        "Keras, uniform negatives": 25,
    }
    found: dict[str, list] = {name: [] for name in epochs}
    for seed in SEEDS:
        for name, n in epochs.items():
            once, _ = timed(known[name], 1, seed, holdout)
            seconds, ndcg = timed(known[name], n, seed, holdout)
            found[name].append((known[name].triples * (n - 1) / (seconds - once) / 1e6, ndcg))
    rates = {f"BPR triples, {name}": float(np.median([rate for rate, _ in runs])) for name, runs in found.items()}
    rows = []
    for name, runs in found.items():
        kind = name.split(", ")[1]
        ours = f"BPR triples, compiled loop, {kind}"
        full = f"BPR triples, {name}"
        cells = row(full, rates[full], "million/s", rates, None if full == ours else ours)
        settings = known[name].settings | {"epochs": epochs[name], "threads": THREADS}
        rows.append(cells | {"settings": settings, "ndcg": round(float(np.mean([ndcg for _, ndcg in runs])), 4)})
    return rows


def half_steps(train: Interactions) -> list[dict]:
    """All users solved from the same random item factors, one thread: how far apart, and how long."""
    pairs, weight, penalty = train.matrix(), IALS["alpha"], IALS["regularization"]
    factors = np.random.default_rng(0).normal(0, 0.1, (train.n_items, DIM)).astype(np.float32)
    model = implicit.cpu.als.AlternatingLeastSquares(DIM, penalty, weight, use_cg=False)
    theirs = np.zeros((train.n_users, DIM), np.float32)

    def ours(dtype: type) -> np.ndarray:
        X, Q = pairs.astype(dtype), factors.astype(dtype)
        return half_step((weight - 1) * X, weight * X, Q, penalty, gram=Q.T @ Q)

    jobs = {
        "iALS half step, implicit, exact solver": lambda: model.solver(weight * pairs, theirs, factors, penalty, 1),
        "iALS half step, NumPy, float32": lambda: ours(np.float32),
        "iALS half step, NumPy, float64": lambda: ours(np.float64),
    }
    seconds = median_seconds(jobs, clock=time.perf_counter)
    first = next(iter(jobs))
    rows = [row(name, value, "s", seconds, None if name == first else first) for name, value in seconds.items()]
    for dtype in (np.float32, np.float64):
        difference = float(np.abs(ours(dtype) - theirs).max() / np.abs(theirs).max())
        name = f"iALS half step, NumPy, {np.dtype(dtype)}: largest difference from implicit"
        rows.append(row(name, 1e6 * difference, "millionths", {}))
    return rows


def time_to_target(known: dict[str, Model], holdout: splits.Holdout) -> list[dict]:
    """Seconds of the shortest fit that reaches TARGET, median over three seeds; a model that does not is said so."""
    rows, values = [], {}
    for name, model in known.items():
        runs = []
        for seed in SEEDS[:3]:
            for epochs in LENGTHS:
                seconds, ndcg = timed(model, epochs, seed, holdout)
                if ndcg >= TARGET or seconds > 10:
                    break
            runs.append((seconds, epochs, ndcg))
        seconds, epochs, ndcg = np.median(runs, axis=0)
        full = f"time to NDCG@10 {TARGET}, {name}"
        values[full] = seconds
        unit = "s" if ndcg >= TARGET else "s, not reached"
        settings = model.settings | {"epochs": int(epochs)}
        rows.append(row(full, seconds, unit, values) | {"settings": settings, "ndcg": round(float(ndcg), 4)})
    return rows


def main() -> None:
    torch.set_num_threads(THREADS)
    logging.getLogger("tensorflow").setLevel("ERROR")  # it warns of every fit that traces anew
    split = splits.temporal_per_user(load_house())
    known = models(split.train)
    for model in known.values():
        model.fit(1, 0)  # compiles what is compiled
    rows = throughput(known, split.validation) + half_steps(split.train) + time_to_target(known, split.validation)
    write("training", rows)


if __name__ == "__main__":
    main()
