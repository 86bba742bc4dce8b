"""Predicted ratings of MovieLens 100K in 5-fold cross-validation, beside the table that Surprise publishes.

    python benchmarks/ratings_5fold.py [model ...]

In each fold one fifth is test and another fifth validation. The setting with the lowest validation RMSE, pooled over
the five folds of seed 0 and fitted on the other three fifths, is refitted on four fifths and measured on test, pooled
over the folds; then the same setting with four other seeds, which draw other folds and other starting values.
Predictions are cut to the scale of one to five stars. Writes results/100k/ratings-5fold/<model>.json.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np
from house import SEEDS, grid, n_parameters, search

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_movielens
from recsys_utils.evaluation import RATING, Report, evaluate_ratings
from recsys_utils.interactions import Interactions
from recsys_utils.models import mf, mf_numba
from recsys_utils.splits import TEST, TRAIN, VALIDATION

SCALE = (1.0, 5.0)
MOST_EPOCHS = 120

GRIDS = {
    "biases": grid(item_regularization=[1.0, 2.5, 5.0, 10.0, 25.0], user_regularization=[1.0, 5.0, 10.0, 15.0]),
    "als": grid(embedding_dim=[4, 8, 16, 32], regularization=[0.05, 0.08, 0.1, 0.12, 0.15], epochs=[15], seed=[0]),
    "mf": grid(
        embedding_dim=[100, 200], learning_rate=[0.005, 0.01], regularization=[0.06, 0.08, 0.1, 0.12, 0.14], seed=[0]
    ),
}
FITS = {
    "biases": mf.fit_biases,
    "als": mf.fit_als,
    "mf": lambda train, **setting: mf_numba.fit_mf(train, **setting)[0],
}


def random_folds(data: Interactions, n_folds: int = 5, seed: int = 0) -> list[splits.Split]:
    """Cross-validation over rows in random order: in split f, fold f is test and the next one is validation.

    Every row is test exactly once. Users and items are not balanced over the folds, as in the tables of Surprise.
    Raises ValueError for fewer than three folds.
    """
    if n_folds < 3:
        raise ValueError(f"n_folds={n_folds}; expected at least 3: one to test, one to validate, the rest to train")
    fold = np.random.default_rng(seed).permutation(len(data)) % n_folds
    parts = (np.select([fold == f, fold == (f + 1) % n_folds], [TEST, VALIDATION], TRAIN) for f in range(n_folds))
    return [splits.Split(data, part, f"ratings-{n_folds}fold") for part in parts]


def pool(reports: list[Report]) -> Report:
    """One rating report from those of the folds of a cross-validation: the sums of each user are added up.

    It carries the fingerprint of the first fold. Raises ValueError without reports, and for one that is not of ratings.
    """
    if not reports:
        raise ValueError("there are no reports to pool; expected one a fold")
    first = reports[0]
    for report in reports:
        if report.names != RATING or (report.protocol, report.part) != (first.protocol, first.part):
            raise ValueError(f"{report!r} cannot be pooled with {first!r}; expected rating reports of one protocol")
    users, row = np.unique(np.concatenate([report.users for report in reports]), return_inverse=True)
    columns = np.zeros((len(users), first.columns.shape[1]))
    np.add.at(columns, row, np.concatenate([report.columns for report in reports]))
    return replace(first, users=users, columns=columns, seconds=sum(report.seconds for report in reports))


def measured(vectors: tuple[np.ndarray, np.ndarray], holdout: splits.Holdout) -> Report:
    return evaluate_ratings(mf.predict(*vectors, holdout.truth, SCALE), holdout)


def trial(model: str, folds: list[splits.Split], setting: dict) -> dict:
    """Validation RMSE of one setting, pooled over folds; of all epochs of SGD the best one, the same for every fold."""
    if model == "mf":
        curves = [
            mf_numba.fit_mf(fold.train, **setting, epochs=MOST_EPOCHS, validation=fold.validation)[1]["validation"]
            for fold in folds
        ]
        pooled = np.sqrt(np.mean(np.square(curves), axis=0))  # the folds differ by one row at most
        return {"setting": setting | {"epochs": int(pooled.argmin()) + 1}, "rmse": round(float(pooled.min()), 5)}
    report = pool([measured(FITS[model](fold.train, **setting), fold.validation) for fold in folds])
    return {"setting": setting, "rmse": round(report.mean("rmse"), 5)}


def measure(model: str, data: Interactions) -> None:
    all_folds = [random_folds(data, seed=seed) for seed in SEEDS]
    setting, selection = search(GRIDS[model], lambda setting: trial(model, all_folds[0], setting), "rmse", best=min)
    reports, seconds = [], []
    for seed, folds in zip(SEEDS, all_folds, strict=True):
        now = setting | {"seed": seed} if "seed" in setting else setting
        started = time.perf_counter()
        fitted = [FITS[model](fold.train_validation, **now) for fold in folds]
        seconds.append(time.perf_counter() - started)
        reports.append(pool([measured(vectors, fold.test) for vectors, fold in zip(fitted, folds, strict=True)]))
    leaderboard.record(
        model,
        reports[0],
        all_folds[0][0],
        hyperparameters=setting,
        n_parameters=n_parameters(model, data, setting),
        train_seconds=seconds[0],
        selection=selection,
        seeds={str(seed): report.means for seed, report in zip(SEEDS, reports, strict=True)},
        command="python benchmarks/ratings_5fold.py",
    )
    means = [report.mean("rmse") for report in reports]
    print(f"{model:7s} {setting} RMSE {reports[0]:rmse}, mean of {len(means)} seeds {np.mean(means):.4f}", flush=True)


def main() -> None:
    data = load_movielens("100k")
    for model in sys.argv[1:] or GRIDS:
        measure(model, data)


if __name__ == "__main__":
    main()
