"""Tune every model of the house table on validation, refit it, measure it on test once, and once more per tie seed.

    python benchmarks/house.py [model ...]
    python benchmarks/house.py global-time [model ...]    # the same on one date for everybody
    python benchmarks/house.py demo [model ...]           # the same in the demo world; chapter 4 measures the others

Every model gets the same number of trials: twenty settings, validation NDCG@10 decides. A model trained by gradient
steps stops early in each trial, and its best epoch becomes part of the setting. Test is read with the chosen setting
only. Writes results/latest-small/house/<model>.json with the grid, the choice and the means of five seeds,
from which the tests know how far a fresh run may lie from the recorded one. Seconds are processor time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import torch

from recsys_utils import features, leaderboard, splits
from recsys_utils.datasets import load_house, load_tags
from recsys_utils.evaluation import Scorer, dense_scorer, evaluate
from recsys_utils.interactions import Interactions
from recsys_utils.models import baselines, blend, mf, neighbours
from recsys_utils.models.bpr_torch import fit_bpr
from recsys_utils.models.dot_product_torch import fit_dot_product
from recsys_utils.models.ials import fit_ials
from recsys_utils.models.mf_numba import fit_mf
from recsys_utils.models.neumf_torch import GMF, MLP, NeuMF, fit_ncf, fit_pretrained, ncf_scorer
from recsys_utils.models.two_tower_torch import content_vectors, fit_two_tower
from recsys_utils.simulators import simulate_demo
from recsys_utils.training import require

SEEDS = range(5)
TAGS = load_tags()
MOST_EPOCHS, PATIENCE = 200, 10


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
    "dot_product": grid(
        embedding_dim=[32, 64], n_negatives=[4], learning_rate=[0.001, 0.003],
        weight_decay=[3e-6, 1e-5, 2e-5, 3e-5, 6e-5], batch_size=[4096], seed=[0],
    ),
    "biases": grid(item_regularization=np.geomspace(1, 1000, 20).round(1).tolist(), user_regularization=[10.0]),
    "mf": grid(
        embedding_dim=[16, 64], learning_rate=[0.005, 0.01], regularization=[0.0, 0.01, 0.02, 0.05, 0.1], seed=[0]
    ),
    "als": grid(embedding_dim=[4, 16, 64, 128], regularization=[0.003, 0.01, 0.02, 0.05, 0.1], epochs=[10], seed=[0]),
    "bpr": grid(
        embedding_dim=[64, 128], n_negatives=[4], alpha=[0.0], learning_rate=[0.003, 0.005],
        weight_decay=[1e-5, 1.5e-5, 2e-5, 3e-5, 5e-5], batch_size=[4096], seed=[0],
    ),
    "ials": grid(
        embedding_dim=[64], alpha=[3.0, 5.0, 8.0, 12.0], regularization=[10.0, 20.0, 30.0, 50.0, 80.0],
        frequency=[1.0], epochs=[15], seed=[0],
    ),
    "blend": blend.TRIALS,
} | {
    model: grid(
        factors=[16], n_negatives=[4], learning_rate=[0.001, 0.002, 0.005, 0.01],
        weight_decay=[0.0, 1e-6, 3e-6, 1e-5, 3e-5], batch_size=[1024], seed=[0],
    )
    for model in ("gmf", "mlp", "neumf")
} | {
    "neumf_pretrained": grid(  # of the fine-tuning; the parts have the settings chosen for them
        alpha=[0.2, 0.4, 0.6, 0.8], n_negatives=[4], learning_rate=[0.01, 0.03, 0.1, 0.3, 1.0], batch_size=[1024],
        seed=[0],
    ),
    "two_tower_keras": grid(
        learning_rate=[0.0005, 0.001, 0.002, 0.004, 0.008], batch_size=[1024, 2048], hidden=[0.0, 0.2], seed=[0]
    ),
    "two_tower": grid(
        embedding_dim=[64, 128], temperature=[0.12, 0.15, 0.18, 0.21, 0.25], learning_rate=[0.003, 0.005],
        batch_size=[512], logq=[1.0], seed=[0],
    ),
    "two_tower_features": grid(
        n_components=[64, 128], id_dropout=[0.0, 0.25], embedding_dim=[64],
        temperature=[0.12, 0.15, 0.18, 0.21, 0.25], learning_rate=[0.005], batch_size=[512], logq=[1.0], seed=[0],
    ),
}  # fmt: skip


def random_scores(train: Interactions, seed: int) -> Scorer:
    """Independent uniform scores for every pair, as in chapter 2."""
    return dense_scorer(np.random.default_rng(seed).random((train.n_users, train.n_items)))


def scorer_of(model, train: Interactions) -> Scorer:
    """A network scores pairs; anything else has factors."""
    return ncf_scorer(model, train.n_items) if isinstance(model, GMF | MLP | NeuMF) else factor_scorer(model)


def factor_scorer(model) -> Scorer:
    """Dot products of user vectors, shape (n_users, d), and item vectors, shape (n_items, d): a pair, or a model's."""
    users, items = model if isinstance(model, tuple) else model.vectors()
    return dense_scorer(users, items.T)


def fit_keras_towers(train: Interactions, **options) -> tuple:
    """Vectors of the rating towers of chapter 9, and their history; TensorFlow is imported for them alone."""
    require("tensorflow")
    from recsys_utils.models import two_tower_keras

    model, history = two_tower_keras.fit_two_tower_keras(train, **options)
    return two_tower_keras.vectors(model, train), history


NETWORKS = {"gmf": GMF, "mlp": MLP, "neumf": NeuMF, "neumf_pretrained": NeuMF}

# Trained by gradient steps: (model, history) = fit(train, **setting, epochs=, validation=, patience=).
GRADIENT = {
    "dot_product": fit_dot_product,
    "mf": fit_mf,
    "bpr": fit_bpr,
    "gmf": partial(fit_ncf, GMF),
    "mlp": partial(fit_ncf, MLP),
    "neumf": partial(fit_ncf, NeuMF),
    "neumf_pretrained": fit_pretrained,
    "two_tower_keras": fit_keras_towers,
    "two_tower": fit_two_tower,
    "two_tower_features": lambda train, n_components, **setting: fit_two_tower(
        train, item_features=content_vectors(train, None if train.name == "demo" else TAGS, n_components), **setting
    ),
}
RATINGS = ("mf", "two_tower_keras")  # watch an error in stars, lower is better
BY_CHAPTER_4 = ("random", "popularity", "tfidf", "covisitation", "user_knn", "item_knn", "ease")  # in the demo world

FITS: dict[str, Callable[..., Scorer]] = {
    "random": random_scores,
    "popularity": lambda train, **setting: baselines.same_for_all(baselines.popularity(train, **setting)),
    "genre_charts": baselines.genre_charts,
    "tfidf": lambda train, **setting: baselines.fit_content(train, TAGS, **setting),
    "covisitation": baselines.fit_covisitation,
    "user_knn": lambda train, **setting: dense_scorer(neighbours.fit_user_knn(train, **setting)),
    "item_knn": lambda train, **setting: dense_scorer(neighbours.fit_item_knn(train, **setting)),
    "ease": lambda train, **setting: dense_scorer(neighbours.fit_ease(train, **setting)),
    "biases": lambda train, **setting: factor_scorer(mf.fit_biases(train, **setting)),
    "als": lambda train, **setting: factor_scorer(mf.fit_als(train, **setting)),
    "blend": blend.fit_blend,
    "ials": lambda train, **setting: factor_scorer(fit_ials(train, **setting)),
} | {
    model: lambda train, fit=fit, **setting: scorer_of(fit(train, **setting)[0], train)
    for model, fit in GRADIENT.items()
}


def n_parameters(model: str, data: Interactions, setting: dict) -> int:
    """Numbers that are learnt; a neighbourhood of counts has none."""
    if model == "ease":
        return data.n_items**2
    if model == "blend":
        return sum(leaderboard.result(part)["n_parameters"] for part in blend.PARTS)
    if model in NETWORKS:
        factors = (setting | setting.get("mlp", {}))["factors"]
        return sum(p.numel() for p in NETWORKS[model](data.n_users, data.n_items, factors).parameters())
    if model == "two_tower_keras":
        from recsys_utils.models.two_tower_keras import tower

        tables = features.user_features(data), features.item_features(data)
        return sum(tower(table, None, "tower").count_params() for table in tables)
    if model in {"biases", "als", "ials", *GRADIENT}:
        bias = model not in {"ials", "two_tower", "two_tower_features"}
        dim = setting.get("embedding_dim", 0)
        return (data.n_users + data.n_items) * (dim + bias) + bias + setting.get("n_components", 0) * dim
    return 0


def trial(model: str, split: splits.Split, setting: dict) -> dict:
    """Validation NDCG@10 of one setting, fitted on train alone; a best epoch becomes part of the setting."""
    if model in GRADIENT:
        fitted, history = GRADIENT[model](
            split.train, **setting, epochs=MOST_EPOCHS, validation=split.validation, patience=PATIENCE
        )
        curve = history["validation"]
        best = curve.idxmin() if model in RATINGS else curve.idxmax()
        setting = setting | {"epochs": int(history["epoch"][best])}
        scorer = scorer_of(fitted, split.train)
    else:
        scorer = FITS[model](split.train, **setting)
    return {"setting": setting, "ndcg": round(evaluate(scorer, split.validation).mean("ndcg"), 5)}


def with_parts(model: str, settings: list[dict], split: splits.Split) -> list[dict]:
    """The settings; those of a pre-trained NeuMF together with the ones chosen for its parts on the same split."""
    if model != "neumf_pretrained":
        return settings
    rows = {name: leaderboard.result(name, split.protocol, split.data.name) for name in ("gmf", "mlp")}
    return [{name: row["hyperparameters"] for name, row in rows.items()} | setting for setting in settings]


def search(settings: list[dict], trial: Callable[[dict], dict], metric: str, best: Callable = max) -> tuple[dict, dict]:
    """The setting whose trial has the best validation value of `metric`, the first of equals, and how it was found.

    trial: gives {"setting": what was fitted in the end, metric: value}. best: max, or min for an error.
    """
    started = time.process_time()
    trials = []
    for setting in settings:
        trials.append(trial(setting))
        print(f"{trials[-1]['setting']} {trials[-1][metric]:.5f}", flush=True)
    chosen = best(trials, key=lambda found: found[metric])
    selection = {
        "metric": metric,
        "split": "validation",
        "trials": len(trials),
        "grid": trials,
        "seconds": round(time.process_time() - started, 1),
    }
    return chosen["setting"], selection


def measure(model: str, split: splits.Split, command: str) -> None:
    """Tune, refit on train and validation, measure on test with five seeds, record the first.

    A model with a setting called seed is fitted once a seed; for the others the seed only decides ties.
    """
    settings = with_parts(model, GRIDS[model], split)
    setting, selection = search(settings, lambda setting: trial(model, split, setting), "ndcg")
    started = time.process_time()
    scorer = FITS[model](split.train_validation, **setting)
    seconds = time.process_time() - started
    fits = [
        scorer if setting.get("seed", seed) == seed else FITS[model](split.train_validation, **setting | {"seed": seed})
        for seed in SEEDS
    ]
    reports = [evaluate(fitted, split.test, seed=seed) for seed, fitted in zip(SEEDS, fits, strict=True)]
    leaderboard.record(
        model,
        reports[0],
        split,
        hyperparameters=setting,
        n_parameters=n_parameters(model, split.data, setting),
        train_seconds=seconds,
        selection=selection,
        seeds={str(seed): report.means for seed, report in zip(SEEDS, reports, strict=True)},
        command=command,
    )
    print(f"{model:13s} {setting} NDCG@10 {reports[0]:ndcg} after {selection['seconds']:.0f} s of tuning", flush=True)


def main() -> None:
    torch.set_num_threads(1)  # in small batches threads wait for each other longer than they help
    protocol, models, command = "house", sys.argv[1:], "python benchmarks/house.py"
    if {*models[:1]} & {"global-time", "demo"}:
        protocol, *models = models
        command += f" {protocol}"
    if protocol == "demo":
        split, rest = splits.leave_last_out(simulate_demo().interactions), [m for m in GRIDS if m not in BY_CHAPTER_4]
        for setting in GRIDS["two_tower_features"]:
            setting["n_components"] //= 4  # there are 53 words in all
    else:
        cut = splits.global_temporal if protocol == "global-time" else splits.temporal_per_user
        split, rest = cut(load_house()), GRIDS
    for model in models or [name for name in rest if name != "blend" or protocol == "house"]:
        measure(model, split, command)


if __name__ == "__main__":
    main()
