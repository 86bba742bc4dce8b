"""The protocol of He et al. (2017) on MovieLens 1M, and what Rendle et al. (2020) made of it.

    python benchmarks/ncf.py [--data PATH] [--seeds N] [model ...]    # the table of chapter 8
    python benchmarks/ncf.py [--data PATH] tables                     # NeuMF by factors, MLP by depth, one seed
    python benchmarks/ncf.py [--data PATH] full [model ...]           # the same models among all items, first seed
    python benchmarks/ncf.py [--data PATH] speed                      # NeuMF beside cornac's and a plain DataLoader

Each user's last item is ranked among 99 it never met. PATH: a folder with ml-1m.zip or ml-1m/ and the two test files
of the authors' repository, both fetched when they are missing; or ncf_ml_1m.npz, the same as arrays. Without it,
RECSYS_DATA_DIR is searched. The data may not be redistributed; results/1m/ holds metrics only.

Settings are chosen on one validation item a user: the last but one, or, in the arrays, which carry no times, one drawn
at random. The chosen setting is fitted again with the validation items and measured on test. Whatever was finished lies
in build/ncf/, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import torch
from evaluation import ROOT, median_seconds, row, simulated, store, write
from house import grid, n_parameters, search, with_parts
from logistic_mf import fit_logistic_mf
from scipy import sparse

from recsys_utils import leaderboard
from recsys_utils.datasets import load_movielens
from recsys_utils.evaluation import AGAINST, Report, evaluate, evaluate_against_negatives
from recsys_utils.interactions import Interactions
from recsys_utils.models import neighbours
from recsys_utils.models.bpr_numba import fit_bpr_numba
from recsys_utils.models.ials import fit_ials
from recsys_utils.models.neumf_torch import GMF, MLP, NeuMF, fit_ncf, fuse, pair_scores, train_ncf
from recsys_utils.sampling import NegativeSampler
from recsys_utils.splits import TEST, TRAIN, VALIDATION, Holdout, Split

AUTHORS = (
    "https://raw.githubusercontent.com/hexiangnan/neural_collaborative_filtering/"
    "4aab159e81c44b062c091bdaed0ab54ac632371f/Data/"
)
AUTHORS_FILES = {
    "ml-1m.test.rating": "sha256:231ae11eb060b643a8c58c063cd17ffc743b54f569afb073d1abb6cf126b88b5",
    "ml-1m.test.negative": "sha256:127853228a76b7d21c0481e8ef8d00dd009cd5c88670dbdd9e9debfdb9f93de4",
}
STATE = ROOT / "build" / "ncf"
METRIC = "hit_rate"  # chooses settings and epochs, as it does in the authors' code
MOST_EPOCHS, PATIENCE = 30, 3
THREADS = torch.get_num_threads()  # OMP_NUM_THREADS sets it
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # users (B,) and candidates (B, n) → scores (B, n)
After = Callable[[Score], float]  # what is done after an epoch; a higher value is a better epoch


def paper(path: Path | None) -> tuple[Split, np.ndarray]:
    """The paper's split and negatives, (n_users, 99), from `path`, else from RECSYS_DATA_DIR, else fetched."""
    path = path or Path(os.environ.get("RECSYS_DATA_DIR", "."))
    arrays = path if path.suffix == ".npz" else path / "ncf_ml_1m.npz"
    if arrays.is_file():
        return from_arrays(arrays)
    if path.suffix == ".npz" or not path.is_dir():
        raise FileNotFoundError(f"{path} is neither a folder nor a file of arrays; give one that holds ml-1m.zip")
    os.environ["RECSYS_DATA_DIR"] = str(path)
    files = pooch.create(path, base_url=AUTHORS, registry=AUTHORS_FILES)  # a damaged file is an error
    return from_ratings(load_movielens("1m"), *(Path(files.fetch(name)) for name in AUTHORS_FILES))


def from_arrays(path: Path) -> tuple[Split, np.ndarray]:
    """The split and the negatives from ncf_ml_1m.npz, which has no times: a random item of each user validates."""
    with np.load(path, allow_pickle=False) as stored:
        train, test, negatives = (stored[name].astype(np.int32) for name in ("train", "test", "negatives"))
    order = np.random.default_rng(0).random(len(train))
    return cut(np.concatenate([train, test]), np.append(order, np.full(len(test), 2.0))), negatives


def from_ratings(data: Interactions, test_rating: Path, test_negative: Path) -> tuple[Split, np.ndarray]:
    """The same from the ratings in the order of their file and the two test files of the authors' repository.

    Users are numbered from 0 as they come, items too. Which of a user's latest ratings is test the file decides; that
    it is one of the latest is checked. The last of the others validates; equal times keep the order of the file.
    """
    users, items = (in_order_of_appearance(codes) for codes in (data.users, data.items))
    pairs, times = np.column_stack([users, items]), data.timestamps.astype(float)
    test = pd.read_csv(test_rating, sep="\t", header=None, names=["user", "item", "rating", "time"])
    width = items.max() + 1
    row = pd.Series(np.arange(len(pairs)), index=users * width + items).reindex(test["user"] * width + test["item"])
    if row.isna().any() or len(test) != users.max() + 1:
        raise ValueError(f"{test_rating} has {len(test)} rows, {row.isna().sum()} of them not among the ratings")
    row = row.to_numpy(int)
    earlier = times[row] < pd.Series(times).groupby(users).max()[users[row]].to_numpy()
    if earlier.any():
        raise ValueError(f"{test_rating}: line {earlier.argmax() + 1} is not the latest rating of its user")
    times[row] = np.inf
    lines = [line.split("\t") for line in test_negative.read_text(encoding="ascii").split("\n") if line]
    heads = [f"({user},{item})" for user, item in zip(test["user"], test["item"], strict=True)]
    if [line[0] for line in lines] != heads:
        raise ValueError(f"{test_negative} does not name the pairs of {test_rating} in their order")
    return cut(pairs, times), np.array([line[1:] for line in lines], np.int32)[test["user"].argsort()]


def in_order_of_appearance(codes: np.ndarray) -> np.ndarray:
    """The codes numbered from 0 as they first come."""
    return pd.factorize(codes)[0]


def cut(pairs: np.ndarray, times: np.ndarray) -> Split:
    """The last row of each user is test, the one before it validation."""
    n_users, n_items = pairs.max(axis=0) + 1
    ids = {"user_ids": np.arange(n_users), "item_ids": np.arange(n_items)}
    data = Interactions(pairs[:, 0], pairs[:, 1], timestamps=None, name="1m", **ids)
    order = np.lexsort((times, pairs[:, 0]))
    last = np.cumsum(data.user_counts) - 1
    parts = np.full(len(pairs), TRAIN)
    parts[order[last]], parts[order[last - 1]] = TEST, VALIDATION
    return Split(data, parts, "ncf")


def validation_negatives(split: Split, n: int, seed: int = 1) -> np.ndarray:
    """n items for each user, uniform over those in neither train nor validation, (n_users, n)."""
    sampler = NegativeSampler(split.train_validation.matrix())
    return sampler.sample(split.validation.users, n, np.random.default_rng(seed))


def factor_pairs(U: np.ndarray, V: np.ndarray) -> Score:
    """Dot products of user vectors (n_users, d) and item vectors (n_items, d), in blocks of users."""

    def score(users: np.ndarray, items: np.ndarray) -> np.ndarray:
        blocks = range(0, len(users), 256)
        return np.concatenate([(V[items[b : b + 256]] @ U[users[b : b + 256], :, None])[..., 0] for b in blocks])

    return score


def table_pairs(scores: np.ndarray) -> Score:
    """Scores looked up in a table (n_users, n_items), or in one row for all users, (1, n_items)."""
    return lambda users, items: scores[users[:, None] % len(scores), items]


def in_bfloat16(model: torch.nn.Module) -> torch.nn.Module:
    """The forward passes of the training with half the bits, twice as fast on processors that know how; scores stay
    in float32."""
    exact = model.forward

    def forward(users, items):
        with torch.autocast("cpu", torch.bfloat16, enabled=model.training):
            return exact(users, items).float()

    model.forward = forward
    return model


def from_scratch(architecture, train: Interactions, after: After, **setting) -> torch.nn.Module:
    """A network as fit_ncf trains it; `after` sees its scores after each epoch."""
    model = None

    def build(*shape: int) -> torch.nn.Module:
        nonlocal model
        model = architecture(*shape)
        return model if architecture is GMF else in_bfloat16(model)  # GMF has nothing to gain

    fit_ncf(build, train, validate=lambda: after(partial(pair_scores, model)), **setting)
    return model


@cache
def part(architecture, train: Interactions, setting: str) -> torch.nn.Module:
    """A GMF or an MLP, once for all that start from it; setting: JSON, epochs included."""
    epochs = iter(range(1000))  # after each epoch one more: the last epoch counts as the best
    return from_scratch(architecture, train, lambda score: next(epochs), **json.loads(setting))


def fit_pretrained(
    train: Interactions, after: After, *, gmf: dict, mlp: dict, alpha, learning_rate, seed, **options
) -> None:
    """NeuMF that starts from a GMF and an MLP, then plain SGD, as He et al. do."""
    parts = zip((GMF, MLP), (gmf, mlp), strict=True)
    model = in_bfloat16(fuse(*(part(of, train, json.dumps(own | {"seed": seed})) for of, own in parts), alpha))
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    train_ncf(model, train, optimizer, validate=lambda: after(partial(pair_scores, model)), seed=seed, **options)


def fit_mf(train: Interactions, after: After, **setting) -> None:
    fit_logistic_mf(train, **setting, threads=THREADS, after_epoch=lambda U, V: after(factor_pairs(U, V)))


def fit_item_knn(train: Interactions, after: After, *, k: int, shrinkage: float, unit_rows: bool) -> None:
    """Item-kNN of chapter 4; unit_rows: each user's row has length 1 (Deshpande & Karypis 2004), shrinkage likewise."""
    X = train.matrix().astype(np.float32)
    weights = 1 / np.sqrt(train.user_counts) if unit_rows else np.ones(train.n_users)
    similarity = neighbours.cosine_neighbours(
        sparse.diags_array(weights, dtype=np.float32) @ X, k, shrinkage * np.mean(weights**2)
    )
    after(table_pairs(X @ similarity))


FITS: dict[str, Callable[..., None]] = {
    "popularity": lambda train, after: after(table_pairs(train.item_counts[None, :])),
    "item_knn": fit_item_knn,
    "ease": lambda train, after, **setting: after(table_pairs(neighbours.fit_ease(train, **setting))),
    "ials": lambda train, after, **setting: after(factor_pairs(*fit_ials(train, **setting))),
    "bpr": lambda train, after, **setting: after(factor_pairs(*fit_bpr_numba(train, threads=THREADS, **setting))),
    "mf": fit_mf,
    "gmf": partial(from_scratch, GMF),
    "mlp": partial(from_scratch, MLP),
    "neumf": partial(from_scratch, NeuMF),
    "neumf_pretrained": fit_pretrained,
}
NETWORKS = ("gmf", "mlp", "neumf", "neumf_pretrained")  # stop early
BY_EPOCH = ("mf", *NETWORKS)  # their epochs are chosen on the validation curve
CLOSED = ("popularity", "item_knn", "ease")  # nothing random

GRIDS: dict[str, list[dict]] = {
    "popularity": [{}],
    "item_knn": grid(k=[25, 35, 50, 75, 100], shrinkage=[0.0, 10.0], unit_rows=[False, True]),
    "ease": grid(regularization=np.geomspace(100, 5000, 20).round().tolist()),
    "ials": grid(
        embedding_dim=[192], alpha=[4.5], regularization=[25.0, 35.0, 50.0, 70.0], frequency=[1.0], epochs=[12],
        seed=[0],
    ),
    "bpr": grid(
        embedding_dim=[64, 128], learning_rate=[0.02, 0.05], regularization=[0.002, 0.005, 0.01], epochs=[120],
        seed=[0],
    ),
    "mf": grid(
        embedding_dim=[192], n_negatives=[8], learning_rate=[0.004], regularization=[0.004, 0.005, 0.006, 0.007],
        epochs=[128], seed=[0],
    ) + grid(
        embedding_dim=[192], n_negatives=[8], learning_rate=[0.003], regularization=[0.005, 0.006],
        epochs=[180], seed=[0],
    ) + grid(
        embedding_dim=[192], n_negatives=[8], learning_rate=[0.002], regularization=[0.005], epochs=[256], seed=[0],
    ),
    "gmf": grid(
        factors=[64], n_negatives=[4], learning_rate=[0.001, 0.002], weight_decay=[0.0, 1e-6, 3e-6, 1e-5],
        batch_size=[1024], seed=[0],
    ),
    "mlp": [
        {"factors": 64, "n_negatives": 4, "learning_rate": rate, "weight_decay": decay, "batch_size": batch, "seed": 0}
        for rate, decay, batch in [
            (0.0005, 0.0, 1024), (0.0005, 1e-6, 1024), (0.001, 0.0, 1024), (0.001, 1e-6, 1024), (0.0005, 0.0, 256),
            (0.002, 1e-6, 1024), (0.002, 3e-6, 1024), (0.002, 1e-5, 1024), (0.003, 3e-6, 1024), (0.005, 3e-6, 1024),
            (0.005, 1e-5, 1024),
        ]
    ],
    "neumf": [
        {"factors": 64, "n_negatives": 4, "learning_rate": rate, "weight_decay": decay, "batch_size": 1024, "seed": 0}
        for rate, decay in [(0.0005, 1e-6), (0.001, 1e-6), (0.001, 3e-6), (0.002, 1e-6), (0.002, 3e-6), (0.003, 3e-6)]
    ],
    "neumf_pretrained": grid(  # of the fine-tuning; the parts have the settings chosen for them
        alpha=[0.5, 0.7], n_negatives=[4], learning_rate=[0.1, 1.0], batch_size=[1024], seed=[0],
    ),
}  # fmt: skip


def run(model: str, train: Interactions, holdout: Holdout, negatives: np.ndarray, setting: dict, search: bool) -> list:
    """Seconds of training so far and a report after each epoch, one for a model without epochs.

    Seconds are processor time over the number of threads, so that other work on the machine does not count.

    search: the training stops when it no longer helps; else it goes on, and only counts its epochs.
    """
    curve, since = [], time.process_time()

    def after(score: Score) -> float:
        nonlocal since
        seconds = (time.process_time() - since) / THREADS + (curve[-1][0] if curve else 0)
        report = evaluate_against_negatives(score, holdout, negatives)
        curve.append((seconds, replace(report, part=holdout.part)))
        since = time.process_time()
        return report.mean(METRIC) if search else len(curve)

    stop = {"epochs": MOST_EPOCHS, "patience": PATIENCE} if search and model in NETWORKS else {}
    FITS[model](train, after, **setting | stop)
    return curve


def remembered(name: str, work: Callable[[], dict]) -> dict:
    """What work() gives, from build/ncf/ when it was done before."""
    path = STATE / f"{name}.json"
    if not path.exists():
        found = work()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(json.dumps(found) + "\n", encoding="utf-8")
        os.replace(path.with_suffix(".tmp"), path)
    return json.loads(path.read_text(encoding="utf-8"))


def digest(*what) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def choose(model: str, split: Split, negatives: np.ndarray) -> tuple[dict, dict]:
    """The setting with the highest METRIC on the validation items, and how it was found."""

    def trial(setting: dict) -> dict:
        started = time.perf_counter()
        curve = run(model, split.train, split.validation, negatives, setting, search=True)
        values = [report.mean(METRIC) for _, report in curve]
        best = int(np.argmax(values))
        if model in BY_EPOCH:
            setting = setting | {"epochs": best + 1}
        found = {"setting": setting, **{name: round(curve[best][1].mean(name), 5) for name in ("hit_rate", "ndcg")}}
        print(model, found, f"{time.perf_counter() - started:.0f} s", flush=True)
        return found | {"seconds": round(time.perf_counter() - started, 1)}

    def once(setting: dict) -> dict:
        return remembered(f"{model}-{digest(split.fingerprint, setting)}", partial(trial, setting))

    setting, selection = search(with_parts(model, GRIDS[model], split), once, METRIC)
    seconds = sum(found.pop("seconds") for found in selection["grid"])  # of earlier runs, too
    return setting, selection | {"split": "one validation item a user, 99 negatives", "seconds": round(seconds, 1)}


def measure(model: str, split: Split, negatives: np.ndarray, seeds: int) -> None:
    """Choose on validation, fit again with it, measure on test, record; epochs that were not chosen are seen too."""
    setting, selection = choose(model, split, validation_negatives(split, negatives.shape[1]))
    chosen = setting.get("epochs", 1) if model in BY_EPOCH else 1

    def fit(seed: int) -> dict:
        now = setting | ({"seed": seed} if "seed" in setting else {})
        longer = {"epochs": chosen + max(3, chosen // 4)} if model in NETWORKS else {}
        curve = run(model, split.train_validation, split.test, negatives, now | longer, search=False)
        seconds, report = curve[chosen - 1]
        best = int(np.argmax([each.mean(METRIC) for _, each in curve]))
        means = report.means | {
            "seconds": round(seconds, 1),
            "best_test_epoch": best + 1,
            "best_test_epoch_ndcg": curve[best][1].mean("ndcg"),
            "best_test_epoch_hit_rate": curve[best][1].mean("hit_rate"),
        }
        print(model, now, means, flush=True)
        return {"means": means, "columns": report.columns.tolist(), "scoring": report.seconds}

    key = digest(split.fingerprint, setting)
    n_seeds = 1 if model in CLOSED else seeds
    found = {str(seed): remembered(f"fit-{model}-{key}-{seed}", partial(fit, seed)) for seed in range(n_seeds)}
    first = found["0"]
    report = Report(
        split.test.users,
        np.array(first["columns"]),
        AGAINST,
        10,
        {"positive_among_negatives": first["means"]["positive_among_negatives"]},
        split.protocol,
        "test",
        split.fingerprint,
        first["scoring"],
    )
    leaderboard.record(
        model,
        report,
        split,
        hyperparameters=setting,
        n_parameters=n_parameters(model, split.data, setting),
        train_seconds=first["means"]["seconds"],
        selection=selection,
        seeds={seed: each["means"] for seed, each in found.items()},
        chapter="08_neumf",
        command="python benchmarks/ncf.py",
    )


def full_ranking(model: str, split: Split) -> None:
    """Fit with the recorded setting and rank the test item among all items the user never met; recorded apart."""
    recorded = leaderboard.result(model, "ncf", "1m")
    scores: list[Score] = []

    def after(score: Score) -> float:
        scores[:] = [score]
        return next(epochs)

    epochs, started = iter(range(1000)), time.process_time()
    FITS[model](split.train_validation, after, **recorded["hyperparameters"])
    seconds, everything = (time.process_time() - started) / THREADS, np.arange(split.data.n_items)
    report = evaluate(lambda users: scores[0](users, np.tile(everything, (len(users), 1))), split.test)
    leaderboard.record(
        model,
        report,
        split,
        hyperparameters=recorded["hyperparameters"],
        n_parameters=recorded["n_parameters"],
        train_seconds=seconds,
        selection=recorded["selection"],
        seeds={"0": report.means},
        chapter="14_leaderboard",
        command="python benchmarks/ncf.py full",
    )
    print(f"{model:17s} NDCG@10 {report:ndcg}, {seconds:.0f} s", flush=True)


def tables(split: Split, negatives: np.ndarray) -> None:
    """NeuMF by predictive factors and MLP by depth, one seed, into results/tables/ncf.json.

    Settings are those chosen for 64 factors; the epochs are chosen on the validation items, which none of these fits
    trains on.
    """
    validation = validation_negatives(split, negatives.shape[1])

    def chosen(model: str) -> dict:
        return leaderboard.result(model, "ncf", "1m")["hyperparameters"]

    def one(model: str, factors: int, depth: int) -> dict:
        setting = chosen(model)
        if model == "neumf_pretrained":
            for name, own in (("gmf", 0), ("mlp", depth)):
                epochs = remembered_row(name, factors, own)["epochs"]
                setting[name] = setting[name] | {"factors": factors, "epochs": epochs}
        else:
            setting["factors"] = factors
        fit = partial(from_scratch, partial(MLP, depth=depth)) if model == "mlp" else FITS[model]
        curve, started = [], time.perf_counter()

        def after(score: Score) -> float:
            held = split.validation, split.test
            curve.append(
                [evaluate_against_negatives(score, *each) for each in zip(held, (validation, negatives), strict=True)]
            )
            return curve[-1][0].mean(METRIC)

        fit(split.train, after, **setting | {"epochs": MOST_EPOCHS, "patience": PATIENCE})
        best, most = (int(np.argmax([reports[part].mean(METRIC) for reports in curve])) for part in (0, 1))
        found = {"model": model, "factors": factors, "depth": depth, "epochs": best + 1, "seed": setting["seed"]}
        for name in ("hit_rate", "ndcg"):
            found |= {name: curve[best][1].mean(name), f"best_test_epoch_{name}": curve[most][1].mean(name)}
        found |= {"seconds": round(time.perf_counter() - started, 1)}
        print(found, flush=True)
        return found

    def remembered_row(model: str, factors: int, depth: int) -> dict:
        key = digest(split.fingerprint, chosen(model), factors, depth)
        return remembered(f"table-{model}-{key}", partial(one, model, factors, depth))

    rows = [remembered_row("mlp", factors, depth) for factors in (8, 16, 32, 64) for depth in range(4)]
    rows += [
        remembered_row(model, factors, 3) for model in ("neumf", "neumf_pretrained") for factors in (8, 16, 32, 64)
    ]
    store("tables/ncf", rows)


class Examples(torch.utils.data.Dataset):
    """Labelled pairs one by one, as tutorials write them: a positive, then negatives found by trial."""

    def __init__(self, train: Interactions, n_negatives: int) -> None:
        self.train, self.n, self.rng = train, 1 + n_negatives, np.random.default_rng(0)
        self.known = set(zip(train.users.tolist(), train.items.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.train) * self.n

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        row, draw = divmod(index, self.n)
        user, item = int(self.train.users[row]), int(self.train.items[row])
        while draw and (user, item) in self.known:
            item = int(self.rng.integers(self.train.n_items))
        return user, item, float(draw == 0)


def speed() -> None:
    """Examples a second in training, and users a second in the evaluation, of one NeuMF in three ways; one thread."""
    import cornac

    whole = simulated(6_040, 3_706, 1_000_000)
    train = whole.select(np.arange(len(whole)) < 60_000)
    examples, batch, factors = 5 * len(train), 1024, 64

    def started() -> tuple[NeuMF, torch.optim.Optimizer]:
        model = NeuMF(train.n_users, train.n_items, factors)
        return model, torch.optim.Adam(model.parameters(), 0.001, fused=True)

    def ours() -> None:
        model, optimizer = started()
        train_ncf(model, train, optimizer, n_negatives=4, batch_size=batch, epochs=1)

    def with_loader() -> None:
        model, optimizer = started()
        loader = torch.utils.data.DataLoader(Examples(train, 4), batch_size=5 * batch, shuffle=True)
        for users, items, labels in loader:
            optimizer.zero_grad()
            logits = model(users, items)
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float()).backward()
            optimizer.step()

    def of_cornac() -> None:
        rows = (train.users, train.items, np.ones(len(train)))
        codes = (dict(enumerate(range(n))) for n in (train.n_users, train.n_items))
        known = cornac.data.Dataset(train.n_users, train.n_items, *codes, rows)
        layers = (4 * factors, 4 * factors, 2 * factors, factors)
        cornac.models.NeuMF(
            num_factors=factors, layers=layers, num_epochs=1, batch_size=batch, num_neg=4, backend="pytorch",
            verbose=False, seed=0,
        ).fit(known)  # fmt: skip

    seconds = median_seconds(dict(zip(("here", "DataLoader", "cornac"), (ours, with_loader, of_cornac))), repeats=3)
    rates = {f"NeuMF examples, {name}": examples / value / 1e6 for name, value in seconds.items()}
    first = next(iter(rates))
    rows = [row(name, rate, "million/s", rates, None if name == first else first) for name, rate in rates.items()]
    model, _ = started()
    users, items = np.arange(6_040), np.random.default_rng(0).integers(0, 3_706, (6_040, 100))
    taken = median_seconds({"": lambda: pair_scores(model.eval(), users, items)}, repeats=3)[""]
    rows.append(row("NeuMF, users judged in the 1 + 99 protocol", len(users) / taken, "users/s", {}))
    write("ncf", rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, default=None, help="folder or ncf_ml_1m.npz")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("models", nargs="*", help=f"some of {', '.join(FITS)}, full, tables, speed; all without")
    given = arguments.parse_args()
    models = given.models or [*FITS, "full", "tables", "speed"]
    if "speed" in models:  # needs no data
        models.remove("speed")
        speed()
    if models:
        split, negatives = paper(given.data)
        print(split, flush=True)
    if "full" in models:
        models.remove("full")
        for model in [name for name in FITS if name in models] or FITS:
            full_ranking(model, replace(split, protocol="leave-one-out"))
        models = [] if given.models else models
    for model in models:
        if model == "tables":
            tables(split, negatives)
        else:
            measure(model, split, negatives, given.seeds)


if __name__ == "__main__":
    main()
