"""How training grows, and Spark on the house data and on twenty million rows: results/speed/scale.json.

    python benchmarks/scale.py [growth] [house] [spark] [ddp]

growth: one epoch (EASE: the whole fit) of four models with their recorded settings on the enlarged house
training data, 1 to 16 times as large, two draws a size; CPU seconds of one thread, peak memory of the process. A size
whose arrays would not fit into memory is left out. house: MLlib's ALS under the house protocol, twenty settings chosen
among on validation, then test, beside the book's iALS. spark: twenty million rows from writing Parquet to a list for
every user. ddp: the two towers of chapter 10 by one and by two processes. Each part replaces its own rows.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # see recsys_utils/scale/ddp.py

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import psutil
from evaluation import peak_rss, results_folder, row, write

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_house
from recsys_utils.evaluation import compare, dense_scorer, evaluate
from recsys_utils.interactions import Interactions
from recsys_utils.models.growth import enlarge

FACTORS, DRAWS = (1, 2, 4, 8, 16), (0, 1)
MEMORY = 16e9  # bytes: a laptop's
ROWS, COPIES = (224, 16), 8  # copies of users and of items; Parquet files


def one_epoch(model: str, train: Interactions) -> Callable[[], object]:
    """The fit of one epoch, with its imports and what is compiled already done."""
    settings = leaderboard.result(model)["hyperparameters"]
    if model == "ease":
        from recsys_utils.models.neighbours import ease

        return lambda: ease(train.matrix(), **settings)
    settings = settings | {"epochs": 1}
    if model == "ials":
        from recsys_utils.models.ials import fit_ials

        return lambda: fit_ials(train, **settings)
    if model == "bpr":
        from recsys_utils.models.bpr_torch import fit_bpr

        return lambda: fit_bpr(train, **settings)
    from recsys_utils.models.two_tower_torch import fit_two_tower

    return lambda: fit_two_tower(train, **settings)


def needed(model: str, train: Interactions) -> float:
    """Bytes of the arrays that grow with the product of two counts, as the docstrings of the fits state them."""
    return {"ease": 40 * train.n_items**2, "two_tower": 12 * train.n_users * train.n_items}.get(model, 0)


def measured(model: str, factor: int, seed: int) -> dict[str, float] | None:
    """CPU seconds and MB at the peak, of this process; None when it would not fit."""
    house = splits.temporal_per_user(load_house()).train_validation
    one_epoch(model, house)()  # compiled, imported, warm
    train = enlarge(house, factor, factor, seed)
    if needed(model, train) > MEMORY:
        return None
    fit = one_epoch(model, train)
    started = time.process_time()
    fit()
    return {"seconds": time.process_time() - started, "memory": peak_rss()}


def growth() -> list[dict]:
    rows = []
    for model, factor, seed in product(("ease", "ials", "bpr", "two_tower"), FACTORS, DRAWS):
        command = [sys.executable, __file__, "--one", model, str(factor), str(seed)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(model, factor, seed, found, flush=True)
        if found is not None:
            name = f"growth, {model}, {factor}, draw {seed}"
            rows.append(row(f"{name}: seconds", found["seconds"], "s", {}))
            rows.append(row(f"{name}: memory", found["memory"], "MB", {}))
    return rows


def house() -> list[dict]:
    """Twenty settings of MLlib's ALS by validation NDCG@10; the best one on test, and against the recorded iALS."""
    from recsys_utils.models import spark_als
    from recsys_utils.scale import spark

    data = load_house()
    split, session = splits.temporal_per_user(data), spark.session()

    def report(pairs: Interactions, holdout: splits.Holdout, **settings):
        with tempfile.TemporaryDirectory() as folder:
            table = spark.read_interactions(session, spark.write_interactions(pairs, Path(folder, "pairs"), 2)).cache()
            U, V = (spark_als.as_matrix(factors, n) for factors, n in
                    zip(spark_als.fit_spark_als(table, **settings), (data.n_users, data.n_items)))
            table.unpersist()
        return evaluate(dense_scorer(U, V.T), holdout)

    trials = []
    for alpha, regularization, dim in product((1.5, 2.0, 3.0, 5.0, 8.0), (0.1, 0.3), (32, 64)):
        settings = {"embedding_dim": dim, "alpha": alpha, "regularization": regularization, "epochs": 15}
        trials.append((report(split.train, split.validation, **settings).mean("ndcg"), settings))
        print(trials[-1], flush=True)
    best = max(trials, key=lambda trial: trial[0])[1]
    started = time.perf_counter()
    ours, theirs = report(split.train_validation, split.test, **best), leaderboard.load("ials")
    versus = compare(ours, theirs)
    rows = [row(f"MLlib ALS, house, {name}", value, "", {}) for name, value in best.items()]
    rows.append(row("MLlib ALS, house, trials on validation", len(trials), "settings", {}))
    rows.append(row("MLlib ALS, house, fit and evaluation", time.perf_counter() - started, "s", {}))
    for name, value in zip(("mean", "low", "high"), ours.interval("ndcg")):
        rows.append(row(f"MLlib ALS, house, NDCG@10 {name}", value, "", {}))
    for name, value in zip(("mean", "low", "high"), versus.differences["ndcg"]):
        rows.append(row(f"MLlib ALS minus iALS, house, NDCG@10 {name}", value, "", {}))
    return rows


class PeakOfTree(threading.Thread):
    """Memory of this process and all it started, at its highest, in bytes, looked at ten times a second."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.over = 0, threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.over.wait(0.1):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)


def spark_large() -> list[dict]:
    """Twenty million rows: Parquet, house split, ALS, ten films for every user, written."""
    from recsys_utils.models import spark_als
    from recsys_utils.scale import spark

    watch = PeakOfTree()
    watch.start()
    data = enlarge(load_house(), *ROWS)
    steps, clock = {}, time.perf_counter()

    def done(step: str) -> None:
        nonlocal clock
        steps[step] = time.perf_counter() - clock
        clock = time.perf_counter()
        print(step, round(steps[step], 1), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        n_users, n_items, n = data.n_users, data.n_items, len(data)
        source = spark.write_interactions(data, Path(folder, "interactions"), COPIES)
        del data
        done("writing Parquet")
        session = spark.session(memory="4g", partitions=COPIES)
        table = spark.read_interactions(session, source)
        done("session, schema and missing values")
        parts = session.read.parquet(str(spark.save(spark_als.house_parts(table), Path(folder, "parts"))))
        train = parts.where("part < 2")
        done("house split")
        U, V = spark_als.fit_spark_als(train, embedding_dim=16, alpha=5.0, regularization=0.1, epochs=5)
        items = spark_als.as_matrix(V, n_items)
        done("ALS, 16 numbers, 5 iterations")
        lists = spark.save(spark_als.top_k(U, items, train), Path(folder, "lists"))
        count = session.read.parquet(str(lists)).count()
        done("ten films for every user")
        assert count == n_users
    watch.over.set()
    watch.join()
    rows = [row("20 million: rows", n, "rows", {}), row("20 million: users", n_users, "users", {}),
            row("20 million: items", n_items, "items", {})]
    rows += [row(f"20 million: {step}", seconds, "s", {}) for step, seconds in steps.items()]
    rows.append(row("20 million: everything", sum(steps.values()), "s", {}))
    return [*rows, row("20 million: memory of all processes at the peak", watch.peak / 1e6, "MB", {})]


def ddp() -> list[dict]:
    """Seconds of an epoch of the two towers by one and by two processes, from the whole run less that of no epoch."""
    from recsys_utils.scale import spark

    data = splits.temporal_per_user(load_house()).train_validation
    settings = leaderboard.result("two_tower")["hyperparameters"]
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as folder:
        source = spark.write_interactions(data, Path(folder, "rows"), 2)
        for ranks in (1, 2):
            seconds = {}
            for epochs in (1, settings["epochs"]):
                command = [
                    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
                    "-m", "recsys_utils.scale.ddp", "--train", str(source), "--out", f"{folder}/{ranks}-{epochs}",
                    "--users", str(data.n_users), "--items", str(data.n_items),
                    "--settings", json.dumps(settings | {"epochs": epochs}), "--every", "1000000",
                ]
                started = time.perf_counter()
                subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
                seconds[epochs] = time.perf_counter() - started
            name = f"two towers, an epoch, {ranks} process{'es' * (ranks > 1)}"
            values[name] = (seconds[settings["epochs"]] - seconds[1]) / (settings["epochs"] - 1)
            rows.append(row(name, values[name], "s", values, None if ranks == 1 else next(iter(values))))
    return rows


# What measures a part, and how the names of its rows begin.
PARTS = {"growth": (growth, "growth"), "house": (house, "MLlib"), "spark": (spark_large, "20 million"),
         "ddp": (ddp, "two towers")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "FACTOR", "DRAW"), help="a single run, in this process")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.one[0], int(given.one[1]), int(given.one[2]))))
        return
    path = results_folder() / "speed" / "scale.json"
    for part in given.parts or PARTS:
        kept = json.loads(path.read_text("utf-8")) if path.exists() else []
        measure, beginning = PARTS[part]
        write("scale", [cells for cells in kept if not cells["name"].startswith(beginning)] + measure())


if __name__ == "__main__":
    main()
