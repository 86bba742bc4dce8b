"""Watch time on KuaiRec at full size: what loading takes, what the tables hold, what the models of chapter 11 reach.

    python benchmarks/kuairec.py [--data PATH] [--rows N] [load | models ...]

PATH: KuaiRec.zip, or a folder with its files. Without it as many views are simulated, once, into build/kuairec
(1.6 GB), and every row says so. `load` writes results/speed/kuairec.json and the statistics of both matrices. `models`
trains on the first four fifths of the big matrix, by time, stops on the last, and measures on all of the small one;
trees and networks see N views drawn at random. Each part replaces its own rows of results/tables/kuairec.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from evaluation import ROOT, peak_rss, row, store_part, write

from recsys_utils import leaderboard
from recsys_utils.evaluation import Report, evaluate_ratings
from recsys_utils.interactions import Interactions
from recsys_utils.kuairec import KuaiRec, load_kuairec, ratio_statistics, simulate_kuairec
from recsys_utils.splits import Holdout
from recsys_utils.training import require

SIZES = {"n_users": 7_176, "n_items": 10_728, "n_small_users": 1_411, "n_small_items": 3_327, "n_rows": 12_530_806}
SIMULATED = ROOT / "build" / "kuairec"
CLIP, CLIPS = 5.0, (1.0, 2.0, 5.0, None)  # trained at CLIP, measured at CLIPS
BLOCK = 400_000  # views of the small matrix described at a time
NETWORK = {"learning_rate": 0.002, "batch_size": 2048, "epochs": 6}


def alone(job: str, path: Path) -> dict[str, float]:
    """Wall and CPU seconds and peak memory (MB) of simulating or loading, in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    simulate_kuairec(path, **SIZES) if job == "simulate" else load_kuairec(path)
    return {"s": time.perf_counter() - wall, "CPU s": time.process_time() - cpu, "MB": peak_rss()}


def measured(job: str, path: Path) -> dict[str, float]:
    """alone() in a process of its own, so that nothing else counts."""
    command = [sys.executable, __file__, "alone", job, str(path)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def load(path: Path, n_rows: int) -> list[dict]:
    """Time and memory of the first and of the second loading, and the statistics of what was loaded."""
    for cache in path.rglob("kuairec_*_matrix.parquet") if path.is_dir() else path.parent.glob("kuairec_*.parquet"):
        cache.unlink()
    found = {"simulated": json.loads((path / "seconds.json").read_text())} if path == SIMULATED else {}
    found |= {f"loaded from {where}": measured("load", path) for where in ("csv", "parquet")}
    data = load_kuairec(path, columns=["watch_ratio"])
    big, small = (rows_in_file(data, name) / 1e6 for name in ("big", "small"))
    cells = [(f"{job}, {data.source}, {big:.1f} + {small:.1f} M rows", found[job]) for job in found]
    write("kuairec", [row(name, value, unit, {}) for name, values in cells for unit, value in values.items()])
    return [statistics(data, name) for name in ("big", "small")]


def rows_in_file(data: KuaiRec, name: str) -> int:
    return int(data.report.set_index(["table", "rule"])["rows"][f"{name}_matrix", "rows in the file"])


def statistics(data: KuaiRec, name: str) -> dict:
    """One row: the published statistics of a matrix, ratios above 5 left out; density counts all rows of the file."""
    views, in_file = getattr(data, name), rows_in_file(data, name)
    facts = {"rows_in_file": in_file, "density": in_file / views[["user_id", "video_id"]].nunique().prod()}
    return {"source": data.source, "name": f"{name} matrix", **facts, **ratio_statistics(views["watch_ratio"])}


def pairs(data: KuaiRec, views: pd.DataFrame, clip: float | None = CLIP) -> Interactions:
    """The views, with clipped ratios, on the codes of all users and videos."""
    tables = {"user_id": data.users.index, "video_id": data.videos.index}
    codes = (ids.get_indexer(views[key]) for key, ids in tables.items())
    ids = {"user_ids": data.users.index.to_numpy(), "item_ids": data.videos.index.to_numpy()}
    return Interactions(*codes, ratings=views["watch_ratio"].clip(upper=clip).to_numpy(), name=data.source, **ids)


def by_duration(views: pd.DataFrame, train: pd.DataFrame, n_bins: int = 50) -> np.ndarray:
    """The mean ratio of training views of videos about as long."""
    ends = np.unique(train["video_duration"].quantile(np.arange(1, n_bins) / n_bins))
    bins, own = (np.searchsorted(ends, each["video_duration"]) for each in (train, views))
    return (np.bincount(bins, train["watch_ratio"].clip(upper=CLIP)) / np.bincount(bins))[own]


def draw(views: pd.DataFrame, n: int) -> pd.DataFrame:
    return views.sample(min(n, len(views)), random_state=0).sort_index()


def models(path: Path, n_rows: int) -> list[dict]:
    """MAE, RMSE, R² and XAUC of the models of chapter 11 on the small matrix, at several clips."""
    require("tensorflow")
    from sklearn.ensemble import HistGradientBoostingRegressor

    from recsys_utils.models import mf, watch_time, watch_time_keras

    data = load_kuairec(path, columns=["video_duration", "time", "watch_ratio"])
    tables, cut = (data.users, data.videos, data.daily), data.big["time"].quantile(0.8)
    early, late = data.big[data.big["time"] < cut], data.big[data.big["time"] >= cut]  # neither: no time
    parts = [draw(early, n_rows), draw(late, n_rows // 5)]
    seen, truth = pairs(data, early), pairs(data, data.small)
    known = [watch_time.describe(views, *tables) for views in parts]
    encoders = watch_time.fit_encoders(known[0])
    X = [watch_time.encode(encoders, each) for each in known]
    y = [views["watch_ratio"].clip(upper=CLIP).to_numpy() for views in parts]
    fitted, seconds = {}, {}
    for name in ("gradient-boosted trees", "concat-MLP", "two towers"):
        started = time.perf_counter()
        if name == "gradient-boosted trees":
            trees = HistGradientBoostingRegressor(max_iter=200, random_state=0).fit(np.hstack(X[0]), y[0])
            fitted[name] = lambda given, trees=trees: trees.predict(np.hstack(given))
        else:
            build = watch_time_keras.concat_mlp if name == "concat-MLP" else watch_time_keras.two_towers
            model, _ = watch_time_keras.fit_watch_time(build, X[0], y[0], validation=(X[1], y[1]), **NETWORK)
            fitted[name] = lambda given, model=model: watch_time_keras.predict(model, given)
        seconds[name] = time.perf_counter() - started
    del known, X
    found = {
        "constant mean": np.full(len(truth), seen.ratings.mean(dtype=float)),
        "mean by duration": by_duration(data.small, early),
        "biases": mf.predict(*mf.fit_biases(seen, item_regularization=20, user_regularization=20), truth, (0, CLIP)),
    } | {name: [] for name in fitted}
    for start in range(0, len(truth), BLOCK):
        given = watch_time.encode(encoders, watch_time.describe(data.small.iloc[start : start + BLOCK], *tables))
        for name, predict in fitted.items():
            found[name].append(predict(given))
    rows, truths = [], {clip: pairs(data, data.small, clip) for clip in CLIPS}
    for name, predictions in found.items():
        predictions = np.hstack(predictions)
        for clip in CLIPS:
            facts = {"source": data.source, "name": name, "clip": clip, "test_rows": len(truth)}
            facts |= {"train_rows": len(y[0]) if name in fitted else len(seen)}
            facts["seconds"] = round(seconds.get(name, 0), 1)
            rows.append(facts | scores(predictions, truths[clip], data, clip))
    return rows


def scores(predictions: np.ndarray, truth: Interactions, data: KuaiRec, clip: float | None) -> dict[str, float]:
    """Metrics with intervals over users; predictions are clipped as the truth is, XAUC is that of CLIP alone."""
    from recsys_utils.models.watch_time import xauc

    holdout = Holdout(truth, truth, "test", "kuairec", data.fingerprint[-16:])
    reports = [evaluate_ratings(predictions.clip(0, clip), holdout)]
    if clip == CLIP:
        values = xauc(truth.users, truth.ratings, predictions, truth.n_users)[holdout.users, None]
        reports.append(Report(holdout.users, values, ("xauc",), None, {}, "kuairec", "test", holdout.fingerprint))
    cells = {name: report.interval(name) for report in reports for name in report.names}
    ends = ("", "_low", "_high")
    return {f"{name}{end}": value for name, three in cells.items() for end, value in zip(ends, three, strict=True)}


PARTS = {"load": load, "models": models}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SIMULATED)
    parser.add_argument("--rows", type=int, default=1_000_000, help="training rows of trees and networks")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all, unless said")
    options = parser.parse_args()
    if options.data == SIMULATED and not (SIMULATED / "seconds.json").exists():
        spent = measured("simulate", SIMULATED)
        (SIMULATED / "seconds.json").write_text(json.dumps(spent))
    for part in options.parts or PARTS:
        rows = PARTS[part](options.data, options.rows)
        store_part("kuairec", part, rows)
        print(pd.DataFrame(rows).round(4).to_string(index=False), flush=True)
    for each in leaderboard.published().query("protocol == 'kuairec'").itertuples():
        print(f"published: {each.model}, {each.metric} {each.value} ({each.source})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        print(json.dumps(alone(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()
