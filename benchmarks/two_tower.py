"""Sweeps and ablations of chapter 10 on validation: losses, temperatures, logQ, towers, cold films, two tasks.

    python benchmarks/two_tower.py [losses | dial | ablations | cold | tasks ...]

Everything is chosen and compared on the validation part of the house split, or of the split that hides films; test is
never read here. Each part replaces its own rows of results/tables/two_tower.json.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from evaluation import store_part
from sklearn.decomposition import TruncatedSVD
from torch import nn
from torch.nn import functional as F

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_house, load_tags
from recsys_utils.evaluation import compare, dense_scorer, evaluate, evaluate_ratings, recommend
from recsys_utils.models import losses_torch, mf
from recsys_utils.models.baselines import content_features
from recsys_utils.models.dot_product_torch import report
from recsys_utils.models.two_tower_torch import (
    TwoTower,
    content_vectors,
    film_rows,
    fit_sampled,
    fit_two_tower,
    hide_films,
    in_batch_loss,
    log_frequencies,
    only,
    profiles,
    train_towers,
    triplet_loss,
)
from recsys_utils.sampling import NegativeSampler

SPLIT = splits.temporal_per_user(load_house())
TRAIN, VALIDATION, TAGS = SPLIT.train, SPLIT.validation, load_tags()
BASE = {"embedding_dim": 64, "learning_rate": 0.005, "batch_size": 512, "seed": 0}
STOP = {"epochs": 100, "patience": 5, "validation": VALIDATION}
TEMPERATURE = 0.15  # of the ablations


def row(part: str, name: str, model, history, **facts) -> dict:
    """What is kept of one run: its validation NDCG with interval, best epoch, curve, and what was varied."""
    measured = report(model, VALIDATION)
    mean, low, high = measured.interval("ndcg")
    found = {
        "part": part, "name": name, **facts, "epochs": int(history["epoch"][history["validation"].idxmax()]),
        "ndcg": mean, "low": low, "high": high, "seconds": round(history["seconds"].median(), 2),
        "loss": history["loss"].round(4).tolist(), "validation": history["validation"].round(4).tolist(),
    }  # fmt: skip
    print(part, name, facts, f"epoch {found['epochs']} of {len(history)}, ndcg {mean:.4f}", flush=True)
    return found | {"report": measured}


def against(rows: list[dict], base: dict) -> list[dict]:
    """Every row with its paired difference to the row `base`; reports are left out."""
    for each in rows:
        versus = compare(each["report"], base["report"])
        each["difference"], each["difference_low"], each["difference_high"] = versus.differences["ndcg"]
    return [{name: value for name, value in each.items() if name != "report"} for each in rows]


def fit_on_rows(loss, temperature: float):
    """Id towers trained on the rows of train alone; loss: of model, users and items, a scalar."""
    torch.manual_seed(BASE["seed"])
    model = TwoTower(TRAIN.n_users, TRAIN.n_items, BASE["embedding_dim"], temperature)
    options = {name: value for name, value in BASE.items() if name != "embedding_dim"}
    return model, train_towers(model, loss, lambda rng: (TRAIN.users, TRAIN.items.astype(np.int64)), **options, **STOP)


def fit_full_softmax(temperature: float):
    """The softmax over the whole catalogue, which the corrected in-batch softmax estimates."""
    seen, everything = torch.tensor(TRAIN.matrix().toarray() > 0), torch.arange(TRAIN.n_items)

    def loss(model, users, items):
        logits = model.user(users) @ model.item(everything).T / temperature
        others = seen[users].scatter(1, items[:, None], False)
        return F.cross_entropy(logits.masked_fill(others, -torch.inf), items)

    return fit_on_rows(loss, temperature)


def fit_unmasked(temperature: float):
    """The corrected in-batch softmax with the accidental hits left in."""
    log_q, nobody = log_frequencies(TRAIN), torch.zeros(TRAIN.n_users, TRAIN.n_items)
    return fit_on_rows(lambda model, users, items: in_batch_loss(model, users, items, log_q, nobody), temperature)


def uniform(n: int):
    sampler = NegativeSampler(TRAIN.matrix())
    return lambda model, rng: sampler.sample(TRAIN.users, n, rng)


def hard(n: int, n_hard: int, top: int = 50):
    """n negatives a positive, n_hard of them out of the `top` unseen films the model ranks first, refreshed."""
    easy, seen = uniform(n - n_hard), TRAIN.matrix()

    def draw(model, rng):
        users, items = model.vectors()
        lists = recommend(dense_scorer(users, items.T), seen, np.arange(TRAIN.n_users), k=top)
        best = lists[TRAIN.users[:, None], rng.integers(0, top, (len(TRAIN), n_hard))]
        return np.column_stack([best, easy(model, rng)]) if n > n_hard else best

    return draw


def losses() -> list[dict]:
    bce, bpr = losses_torch.bce_loss, losses_torch.bpr_loss

    def sampled(loss, negatives):
        return lambda temperature: fit_sampled(TRAIN, loss, negatives, temperature=temperature, **BASE, **STOP)

    def in_batch(**options):
        return lambda temperature: fit_two_tower(TRAIN, temperature=temperature, **options, **BASE, **STOP)

    def triplet(margin):
        loss = lambda positive, negative: triplet_loss(positive, negative, margin)  # noqa: E731
        return fit_sampled(TRAIN, loss, uniform(4), temperature=1.0, **BASE, **STOP)

    trials = {
        "BCE, no temperature": (sampled(bce, uniform(4)), [1.0]),
        "BCE": (sampled(bce, uniform(4)), [0.1, 0.15, 0.2, 0.3]),
        "BPR": (sampled(bpr, uniform(4)), [0.05, 0.1, 0.2, 0.3]),
        "triplet": (triplet, [0.1, 0.2, 0.4, 0.6]),
        "in-batch softmax": (in_batch(logq=0.0), [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]),
        "in-batch, logQ": (in_batch(), [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]),
        "in-batch, logQ added": (in_batch(logq=-1.0), [0.1, 0.15, 0.2, 0.3, 0.5, 1.0]),
        "in-batch, logQ, no mask": (fit_unmasked, [0.15, 0.2, 0.3]),
        "mixed negatives, logQ": (in_batch(n_uniform=1), [0.1, 0.15, 0.2, 0.3]),
        "BPR, one hard in four": (sampled(bpr, hard(4, 1)), [0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0]),
        "BPR, four hard": (sampled(bpr, hard(4, 4)), [0.1, 0.2, 0.3, 0.45, 0.6]),
        "full softmax": (fit_full_softmax, [0.15, 0.2, 0.3]),
    }
    found = [
        row("losses", name, *fit_model(value), **{"margin" if name == "triplet" else "temperature": value})
        for name, (fit_model, values) in trials.items()
        for value in values
    ]
    best = {name: max((r for r in found if r["name"] == name), key=lambda r: r["ndcg"]) for name in trials}
    for each in found:
        each["best"] = each is best[each["name"]]
    return against(found, best["in-batch, logQ"])


def dial() -> list[dict]:
    """The strength of the correction, and how popular the films in the lists of ten become."""
    counts, found = TRAIN.item_counts, []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        model, history = fit_two_tower(TRAIN, temperature=0.2, logq=strength, **BASE, **STOP)
        users, items = model.vectors()
        lists = recommend(dense_scorer(users, items.T), TRAIN.matrix(), VALIDATION.users)
        facts = {"logq": strength, "times_met": float(np.median(counts[lists]))}
        found.append(row("dial", f"logq = {strength:g}", model, history, **facts))
    return against(found, found[-1])


def ablations() -> list[dict]:
    content = content_vectors(TRAIN, TAGS, 64)
    taste = profiles(TRAIN, content)
    base = {"temperature": TEMPERATURE}
    variants = {
        ("features", "ids alone"): {},
        ("features", "and TF-IDF of films"): {"item_features": content},
        ("features", "and genres and year"): {"item_features": film_rows(TRAIN.item_table)},
        ("features", "and TF-IDF of films and users"): {"item_features": content, "user_features": taste},
        ("features", "TF-IDF alone for films"): {"item_features": content, "id_dropout": 1.0},
        ("depth", "no block"): {},
        ("depth", "one block of 64"): {"hidden": (64,)},
        ("depth", "two blocks of 64"): {"hidden": (64, 64)},
        ("dimension", "16"): {"embedding_dim": 16},
        ("dimension", "32"): {"embedding_dim": 32},
        ("dimension", "64"): {},
        ("dimension", "128"): {"embedding_dim": 128},
        ("normalisation", "length one"): {},
        ("normalisation", "none, τ = 1"): {"normalize": False, "temperature": 1.0},
        ("normalisation", "none, τ = 0.3"): {"normalize": False, "temperature": 0.3},
        ("batch", "128"): {"batch_size": 128, "learning_rate": 0.0025},
        ("batch", "512"): {},
        ("batch", "1024"): {"batch_size": 1024, "learning_rate": 0.007},
    }
    first, found = None, []
    for (what, name), changes in variants.items():
        if changes or first is None:
            new = row("ablations", name, *fit_two_tower(TRAIN, **BASE | base | STOP | changes), what=what)
            first = first or new
        else:
            new = first | {"what": what, "name": name}
        found.append(new)
    return against(found, first)


def cold() -> list[dict]:
    split, validation_films, test_films = hide_films(SPLIT)
    train = split.train
    warm_films = np.setdiff1d(np.arange(train.n_items), np.r_[validation_films, test_films])
    parts = {"cold": validation_films, "warm": warm_films}
    words = content_features(train.item_table)  # titles and genres; on its first day a film has no tags
    known = film_rows(train.item_table)  # the last column is the year
    content = TruncatedSVD(64, random_state=0).fit_transform(words)
    rows = {"genres, year": known, "TF-IDF, year": np.column_stack([content, known[:, -1]])}
    found = []
    for features in rows:
        for hidden in ((), (64,)):
            for id_dropout in (0.5, 1.0):
                for temperature in (0.15, 0.2, 0.3):
                    setting = {"hidden": list(hidden), "id_dropout": id_dropout, "temperature": temperature}
                    model, _ = fit_two_tower(train, item_features=rows[features], epochs=8, **setting, **BASE)
                    users, items = model.vectors()
                    scorer = dense_scorer(users, items.T)
                    reports = {
                        name: evaluate(scorer, only(split.validation, films), candidates=films)
                        for name, films in parts.items()
                    }
                    each = {"part": "cold", "name": features, **setting}
                    for name, measured in reports.items():
                        each |= {f"{name} {metric}": measured.mean(metric) for metric in ("ndcg", "recall")}
                    found.append(each)
                    print(each, flush=True)
    return found


class TwoTasks(TwoTower):
    """Id towers with a rating head on their vectors: biases and a weighted dot product."""

    def __init__(self, n_users, n_items, embedding_dim, temperature, mean):
        super().__init__(n_users, n_items, embedding_dim, temperature)
        self.user_bias, self.item_bias = nn.Embedding(n_users, 1), nn.Embedding(n_items, 1)
        self.head = nn.Linear(embedding_dim, 1)
        for start, weight in ((0.0, self.user_bias.weight), (0.0, self.item_bias.weight), (mean, self.head.bias)):
            nn.init.constant_(weight, start)

    def rate(self, users, items):
        """Predicted ratings, in stars, of pairs: codes (B,) and (B,)."""
        product = self.user(users) * self.item(items)  # (B, d)
        return (self.head(product) + self.user_bias(users) + self.item_bias(items))[:, 0]


def two_tasks_loss(model: TwoTasks, users, items, ratings, weight, log_q, seen) -> torch.Tensor:
    """(1 - w) times in_batch_loss plus w times the squared error in stars; ratings: shape (B,)."""
    error = F.mse_loss(model.rate(users, items), ratings)
    return (1 - weight) * in_batch_loss(model, users, items, log_q, seen) + weight * error


def fit_two_tasks(weight: float, epochs: int) -> TwoTasks:
    """Id towers and a rating head, trained on both losses at once."""
    torch.manual_seed(BASE["seed"])
    log_q, seen = log_frequencies(TRAIN), torch.tensor(np.where(TRAIN.matrix().toarray() > 0, -np.inf, 0)).float()
    model = TwoTasks(TRAIN.n_users, TRAIN.n_items, BASE["embedding_dim"], TEMPERATURE, TRAIN.ratings.mean())
    train_towers(
        model, lambda *batch: two_tasks_loss(*batch, weight, log_q, seen),
        lambda rng: (TRAIN.users, TRAIN.items, TRAIN.ratings), epochs=epochs,
        **{name: value for name, value in BASE.items() if name != "embedding_dim"},
    )  # fmt: skip
    return model


def tasks() -> list[dict]:
    """Weights of the rating loss, ten epochs each; two yardsticks: ratings alone at their best epoch, and biases."""

    def measure(name, predict, model=None, **facts) -> tuple:
        stars = np.clip(predict(VALIDATION.truth.users, VALIDATION.truth.items), 0.5, 5)
        ranking, rating = None if model is None else report(model, VALIDATION), evaluate_ratings(stars, VALIDATION)
        print(name, facts, f"rmse {rating:rmse}", "" if model is None else f"ndcg {ranking:ndcg}", flush=True)
        return {"part": "tasks", "name": name, **facts}, ranking, rating

    def towers(name, weight, epochs) -> tuple:
        model = fit_two_tasks(weight, epochs)
        predict = torch.no_grad()(lambda *codes: model.rate(*map(torch.tensor, codes)).numpy())
        return measure(name, predict, model, rating_weight=weight, epochs=epochs)

    runs = [towers(f"w = {weight:g}", weight, 10) for weight in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)]
    alone = [towers("w = 1, best epoch", 1.0, epochs) for epochs in (2, 3, 4, 5)]
    best = min(alone, key=lambda run: run[2].mean("rmse"))
    setting = leaderboard.result("biases", "ratings-5fold", "100k")["hyperparameters"]
    users, items = mf.fit_biases(TRAIN, **setting)
    biases = measure("biases", lambda u, i: (users[u] * items[i]).sum(axis=1))
    runs = runs + [best, biases]
    for each, ranking, rating in runs:
        for name, measured, other in (("ndcg", ranking, runs[0][1]), ("rmse", rating, best[2])):
            if measured is None or (name == "rmse" and each["name"] == "w = 0"):  # a head without training
                continue
            each[name], each[f"{name}_low"], each[f"{name}_high"] = measured.interval(name)
            difference, low, high = compare(measured, other).differences[name]
            each |= {f"{name}_difference": difference, f"{name}_difference_low": low, f"{name}_difference_high": high}
    return [each for each, _, _ in runs]


PARTS = {"losses": losses, "dial": dial, "ablations": ablations, "cold": cold, "tasks": tasks}


def main() -> None:
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        rows = PARTS[part]()
        store_part("two_tower", part, rows)
        print(f"{part}: {len(rows)} rows", flush=True)


if __name__ == "__main__":
    main()
