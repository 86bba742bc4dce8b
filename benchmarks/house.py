"""Tune every model of the house table on validation, refit it, measure it on test once, and once more per tie seed.

    python benchmarks/house.py [model ...]

Every model gets the same number of trials: twenty settings, validation NDCG@10 decides. Test is read with the chosen
setting only. Writes results/latest-small/house/<model>.json with the grid, the choice and the means of five seeds,
from which the tests know how far a fresh run may lie from the recorded one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import product

import numpy as np

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_house, load_tags
from recsys_utils.evaluation import Scorer, dense_scorer, evaluate
from recsys_utils.interactions import Interactions
from recsys_utils.models import baselines, neighbours

SEEDS = range(5)
TAGS = load_tags()


def grid(**values: list) -> list[dict]:
    return [dict(zip(values, setting, strict=True)) for setting in product(*values.values())]


GRIDS: dict[str, list[dict]] = {
    "random": [{"seed": 0}],
    "popularity": grid(half_life_days=[*np.geomspace(30, 30_000, 19).round().tolist(), None]),
    "genre_charts": grid(power=[0.25, 0.5, 1.0, 1.5, 2.0], lift=[0.0, 0.5, 0.75, 1.0]),
    "tfidf": grid(genre_weight=[0.25, 0.5, 1.0, 2.0, 4.0], tag_weight=[0.0, 0.5, 1.0, 2.0]),
    "covisitation": grid(gap_hours=[0.1, 1.0, 6.0, 24.0, 1000.0], damping=[0.0, 0.125, 0.25, 0.5]),
    "user_knn": grid(k=[10, 20, 50, 100, 200], shrinkage=[0.0, 10.0, 50.0, 100.0]),
    "item_knn": grid(k=[20, 50, 200, 500, 1500], shrinkage=[0.0, 10.0, 50.0, 100.0]),
    "ease": grid(regularization=np.geomspace(10, 3000, 20).round().tolist()),
}


def random_scores(train: Interactions, seed: int) -> Scorer:
    """Independent uniform scores for every pair, as in chapter 2."""
    return dense_scorer(np.random.default_rng(seed).random((train.n_users, train.n_items)))


FITS: dict[str, Callable[..., Scorer]] = {
    "random": random_scores,
    "popularity": lambda train, **setting: baselines.same_for_all(baselines.popularity(train, **setting)),
    "genre_charts": baselines.genre_charts,
    "tfidf": lambda train, **setting: baselines.fit_content(train, TAGS, **setting),
    "covisitation": baselines.fit_covisitation,
    "user_knn": lambda train, **setting: dense_scorer(neighbours.fit_user_knn(train, **setting)),
    "item_knn": lambda train, **setting: dense_scorer(neighbours.fit_item_knn(train, **setting)),
    "ease": lambda train, **setting: dense_scorer(neighbours.fit_ease(train, **setting)),
}


def tune(model: str, split: splits.Split) -> tuple[dict, dict]:
    """The setting with the highest validation NDCG@10, the first of equals, and how it was found."""
    started = time.perf_counter()
    trials = [
        {"setting": setting, "ndcg": evaluate(FITS[model](split.train, **setting), split.validation).mean("ndcg")}
        for setting in GRIDS[model]
    ]
    best = max(trials, key=lambda trial: trial["ndcg"])
    selection = {
        "metric": "ndcg",
        "split": "validation",
        "trials": len(trials),
        "grid": [trial | {"ndcg": round(trial["ndcg"], 5)} for trial in trials],
        "seconds": round(time.perf_counter() - started, 1),
    }
    return best["setting"], selection


def measure(model: str, split: splits.Split, command: str) -> None:
    """Tune, refit on train and validation, measure on test with five seeds, record the first.

    A model with a setting called seed is fitted once a seed; for the others the seed only decides ties.
    """
    setting, selection = tune(model, split)
    started = time.perf_counter()
    scorer = FITS[model](split.train_validation, **setting)
    seconds = time.perf_counter() - started
    fits = [FITS[model](split.train_validation, seed=seed) if "seed" in setting else scorer for seed in SEEDS]
    reports = [evaluate(fitted, split.test, seed=seed) for seed, fitted in zip(SEEDS, fits, strict=True)]
    n_parameters = split.data.n_items**2 if model == "ease" else 0
    leaderboard.record(
        model,
        reports[0],
        split,
        hyperparameters=setting,
        n_parameters=n_parameters,
        train_seconds=seconds,
        selection=selection,
        seeds={str(seed): report.means for seed, report in zip(SEEDS, reports, strict=True)},
        command=command,
    )
    print(f"{model:13s} {setting} NDCG@10 {reports[0]:ndcg} after {selection['seconds']:.0f} s of tuning", flush=True)


def main() -> None:
    split = splits.temporal_per_user(load_house())
    for model in sys.argv[1:] or GRIDS:
        measure(model, split, "python benchmarks/house.py")


if __name__ == "__main__":
    main()
