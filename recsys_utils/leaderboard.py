"""Measured results: written once by chapters and benchmarks, read by everything else."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys_utils.evaluation import Report
from recsys_utils.splits import Split

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").exists() else None


class Model(NamedTuple):
    title: str
    chapter: str
    colour: str


MODELS = {
    "random": Model("random", "02_evaluation", "#8a8a8a"),
    "popularity": Model("popularity", "03_baselines", "#555555"),
    "genre_charts": Model("genre charts", "03_baselines", "#8c6d31"),
    "favourite_category": Model("favourite category", "04_neighbours", "#8c6d31"),
    "tfidf": Model("TF-IDF content", "03_baselines", "#808a00"),
    "covisitation": Model("co-visitation", "03_baselines", "#b8860b"),
    "user_knn": Model("user-kNN", "04_neighbours", "#2f8fce"),
    "item_knn": Model("item-kNN", "04_neighbours", "#0072b2"),
    "ease": Model("EASE", "04_neighbours", "#d55e00"),
    "dot_product": Model("dot product, logistic", "05_embeddings", "#a6761d"),
    "biases": Model("biases", "06_matrix_factorization", "#9a8578"),
    "mf": Model("matrix factorisation", "06_matrix_factorization", "#6a9f1f"),
    "als": Model("ALS", "06_matrix_factorization", "#3a9e7e"),
    "ials": Model("iALS", "07_bpr", "#009e73"),
    "bpr": Model("BPR", "07_bpr", "#1b6e4f"),
    "gmf": Model("GMF", "08_neumf", "#9b86d1"),
    "mlp": Model("MLP", "08_neumf", "#b07aa1"),
    "neumf": Model("NeuMF", "08_neumf", "#7b4b94"),
    "neumf_pretrained": Model("NeuMF, pre-trained", "08_neumf", "#4b2a63"),
    "two_tower_keras": Model("two towers for stars", "09_two_tower_keras", "#e0567f"),
    "two_tower": Model("two towers", "10_two_tower_pytorch", "#cc79a7"),
    "two_tower_features": Model("two towers, features", "10_two_tower_pytorch", "#8e3b69"),
    "blend": Model("blend", "14_leaderboard", "#000000"),
}
EDITIONS = ("latest-small", "latest-small-2018", "100k", "1m", "25m", "32m", "demo")
PROTOCOLS = ("house", "global-time", "leave-one-out", "within-item", "ncf", "ratings-5fold")
WITHOUT_INTERVAL = ("coverage", "positive_among_negatives")
ENDS = {"r2": (-np.inf, 1)} | dict.fromkeys(("novelty", "rmse", "mae", "positive_among_negatives"), (0, np.inf))


def results_dir() -> Path:
    """Where results are read: the checkout's results/, else the copy in the wheel."""
    return CHECKOUT / "results" if CHECKOUT else PACKAGE / "_results"


def record(
    model: str,
    report: Report,
    split: Split,
    *,
    hyperparameters: dict | None = None,
    n_parameters: int = 0,
    train_seconds: float = 0.0,
    selection: dict | None = None,
    seeds: dict[str, dict[str, float]] | None = None,
    chapter: str | None = None,
    command: str | None = None,
) -> Path:
    """Write one model's test report as <edition>/<protocol>/<model>.json, per-user values and lists beside it as .npz.

    chapter: the notebook that records the row, None for the model's own; command: what was run, None for that notebook.
    selection: how the hyper-parameters were chosen (metric, split, trials, grid, seconds); seeds: metric means by seed.
    Left out, both are kept from the committed result when its hyper-parameters and split are the same. Written to
    RECSYS_RESULTS_DIR, else the checkout, else a temporary folder; prints which. Raises ValueError for an unknown id.
    """
    _known("model", model, MODELS)
    edition, chapter = split.data.name, chapter or MODELS[model].chapter
    _known("edition", edition, EDITIONS)
    _known("protocol", split.protocol, PROTOCOLS)
    if report.fingerprint != split.fingerprint or report.part != "test":
        raise ValueError(
            f"the report is of {report.protocol}, part {report.part!r}; record wants the test part of this split"
        )
    hyperparameters = json.loads(json.dumps(hyperparameters or {}, default=_plain))  # as it will be read back
    if selection is None or seeds is None:
        before = _read(f"{edition}/{split.protocol}/{model}.json", {})
        same = before.get("hyperparameters") == hyperparameters and before.get("split_fingerprint") == split.fingerprint
        selection = selection or (before.get("selection") if same else None)
        seeds = seeds or (before.get("seeds") if same else None)
    row = {
        "model": model,
        "title": MODELS[model].title,
        "chapter": chapter,
        "edition": edition,
        "data_sha256": split.data.data_sha256,
        "protocol": split.protocol,
        "split_fingerprint": split.fingerprint,
        "k": report.k,
        "n_users": len(report.users),
        "metrics": {
            name: {"mean": report.mean(name)} | dict(zip(("low", "high"), report.intervals.get(name, ()), strict=False))
            for name in report.means
        },
        "seeds": seeds or {},
        "hyperparameters": hyperparameters,
        "selection": selection or {},
        "command": command or f"notebooks/{chapter}.ipynb",
        "n_parameters": int(n_parameters),
        "train_seconds": round(train_seconds, 3),
        "score_ms_per_user": round(1000 * report.seconds / len(report.users), 4),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": _versions(),
    }
    root, where = _output_dir()
    path = root / edition / split.protocol / f"{model}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row, indent=1, default=_plain) + "\n", encoding="utf-8")
    lists = {} if report.items is None else {"items": report.items.astype(np.int32)}
    np.savez_compressed(
        path.with_suffix(".npz"),
        users=report.users.astype(np.int32),
        columns=report.columns.astype(np.float32),
        names=np.array(report.names),
        **lists,
    )
    print(f"recorded {edition}/{split.protocol}/{model} in {where}")
    return path


def load(model: str, protocol: str = "house", edition: str = "latest-small") -> Report:
    """The recorded report of a model, with per-user values and its lists, for tables and paired comparisons."""
    row = result(model, protocol, edition)
    with np.load(_folder(edition, protocol) / f"{model}.npz", allow_pickle=False) as stored:
        users, columns, names = stored["users"], stored["columns"].astype(float), tuple(stored["names"].tolist())
        items = stored.get("items")
    catalogue = {name: cell["mean"] for name, cell in row["metrics"].items() if name not in names}
    seconds = row["score_ms_per_user"] * len(users) / 1000
    fingerprint = row["split_fingerprint"]
    return Report(users, columns, names, row["k"], catalogue, protocol, "test", fingerprint, seconds, items)


def result(model: str, protocol: str = "house", edition: str = "latest-small") -> dict:
    """The recorded JSON of a model: metrics, hyper-parameters, how they were chosen, times, versions."""
    _known("model", model, MODELS)
    path = _folder(edition, protocol) / f"{model}.json"
    if not path.exists():
        there = sorted(file.stem for file in path.parent.glob("*.json"))
        raise FileNotFoundError(f"no result {edition}/{protocol}/{model}; recorded there: {there}")
    return check(json.loads(path.read_text(encoding="utf-8")))


def check(row: dict) -> dict:
    """The row of a result, unless it cannot be one: every metric within its range, and inside its interval.

    Raises ValueError for a metric outside [0, 1] (an error or a count may be larger, R² smaller), one without an
    interval (coverage has none), and one outside its interval.
    """
    for name, cell in row["metrics"].items():
        keys = ("mean",) if name in WITHOUT_INTERVAL else ("low", "mean", "high")
        least, most = ENDS.get(name, (0, 1))
        if not (np.diff([least, *(cell.get(key, np.nan) for key in keys), most]) >= 0).all():
            place, wanted = f"{row['edition']}/{row['protocol']}/{row['model']}", " <= ".join(keys)
            raise ValueError(f"{place}: {name} is {cell}; expected {least} <= {wanted} <= {most}: measure it again")
    return row


def board(protocol: str = "house", edition: str = "latest-small", models: list[str] | None = None) -> pd.DataFrame:
    """One row a recorded model, the best first: title, metrics, seconds to train.

    Rankings are ordered by NDCG, predicted ratings by RMSE; the first metric comes with its 95% interval.
    Raises ValueError when the rows were not all measured on one split, FileNotFoundError when there is none.
    """
    models = models or [model for model in MODELS if (_folder(edition, protocol) / f"{model}.json").exists()]
    rows = [result(model, protocol, edition) for model in models]
    if not rows:
        raise FileNotFoundError(f"no results {edition}/{protocol} in {results_dir()}; record one first")
    splits = {row["split_fingerprint"]: row["model"] for row in rows}
    if len(splits) > 1:
        raise ValueError(f"results of {len(splits)} splits in {edition}/{protocol}: {splits}; measure all on one split")
    columns = {"rmse": "RMSE", "mae": "MAE", "ndcg": "NDCG", "recall": "recall", "hit_rate": "hit rate", "mrr": "MRR"}
    columns |= {"coverage": "coverage"}
    columns = {name: title for name, title in columns.items() if name in rows[0]["metrics"]}
    first, *_ = columns
    table = pd.DataFrame(
        {"model": row["title"]}
        | {title: row["metrics"][name]["mean"] for name, title in columns.items()}
        | {"fit, s": row["train_seconds"]}
        for row in rows
    )
    table.insert(2, "95% interval", ["[{low:.3f}, {high:.3f}]".format(**row["metrics"][first]) for row in rows])
    table = table.sort_values(columns[first], ascending=first == "rmse", ignore_index=True)
    table.index += 1
    return table


def published() -> pd.DataFrame:
    """Every published figure the book quotes, with its protocol, source and grade (results/published.json)."""
    return pd.DataFrame(_read("published.json", []))


def table(name: str) -> pd.DataFrame:
    """One row a run of a sweep or an ablation, as a benchmark measured it (results/tables/<name>.json)."""
    rows = _read(f"tables/{name}.json", None)
    if rows is None:
        there = sorted(file.stem for file in (results_dir() / "tables").glob("*.json"))
        raise FileNotFoundError(f"no table {name!r} in {results_dir() / 'tables'}; recorded there: {there}")
    return pd.DataFrame(rows)


def chapters() -> dict[str, dict[str, float]]:
    """Minutes and memory (GB) of each chapter, as measured on two cores (results/chapters.json)."""
    return _read("chapters.json", {})


def _folder(edition: str, protocol: str) -> Path:
    _known("edition", edition, EDITIONS)
    _known("protocol", protocol, PROTOCOLS)
    return results_dir() / edition / protocol


def _read(name: str, default):
    path = results_dir() / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _output_dir() -> tuple[Path, str]:
    named = os.environ.get("RECSYS_RESULTS_DIR")
    if named:
        return Path(named), "RECSYS_RESULTS_DIR"
    if CHECKOUT:
        return CHECKOUT / "results", "results/"
    return Path(tempfile.gettempdir()) / "recsys-results", "a temporary folder"


def _plain(value):
    """NumPy numbers and arrays as JSON knows them."""
    return np.asarray(value).tolist()


def _known(what: str, name: str, names) -> None:
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}; expected one of {', '.join(names)}")


def _versions() -> dict[str, str]:
    packages = ["numpy", "scipy", "pandas", "scikit-learn"] + [
        p for p in ("torch", "tensorflow", "keras") if p in sys.modules
    ]
    return {"python": platform.python_version()} | {package: metadata.version(package) for package in packages}
