"""Speed and memory of the harness: python benchmarks/evaluation.py writes results/speed/evaluation.json.

One run, one thread, CPU seconds, medians: evaluate() against the bare matrix product and argpartition, its metrics
against ranx fed with the same rankings, and the bootstrap, all at the shape of MovieLens 1M (6,040 x 3,706, about a
million simulated interactions); then the peak memory at the shape of MovieLens 20M (140,000 x 27,000, twenty million
interactions).
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # CPU time is work, not waiting
os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import re
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recsys_utils import Interactions, splits
from recsys_utils.evaluation import BATCH_CELLS, Scorer, evaluate, evaluate_rankings, recommend
from recsys_utils.splits import Holdout

ROOT = Path(__file__).resolve().parents[1]
K = 10
RANX_METRICS = [f"{name}@{K}" for name in ("ndcg", "recall", "precision", "hit_rate", "mrr", "map")]


def simulated(n_users: int, n_items: int, n: int, seed: int = 0) -> Interactions:
    """About n distinct pairs with a long tail of items, time stamps at random."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(20, n_items + 20)
    items = rng.choice(n_items, int(1.25 * n), p=popularity / popularity.sum())
    pairs = rng.permutation(np.unique(rng.integers(0, n_users, len(items)) * n_items + items))[:n]
    return Interactions(
        pairs // n_items,
        pairs % n_items,
        user_ids=np.arange(n_users),
        item_ids=np.arange(n_items),
        timestamps=rng.integers(0, 10**9, len(pairs)),
        name="simulated",
    )


def factor_scorer(n_users: int, n_items: int, dim: int = 64, seed: int = 1) -> Scorer:
    rng = np.random.default_rng(seed)
    users = rng.normal(size=(n_users, dim)).astype(np.float32)
    items = rng.normal(size=(dim, n_items)).astype(np.float32)
    return lambda codes: users[codes] @ items


def median_seconds(jobs: dict, repeats: int = 7, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Median seconds of each job, of CPU unless said; they take turns, so that a busy machine slows all alike."""
    taken = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            started = clock()
            job()
            taken[name].append(clock() - started)
    return {name: float(np.median(seconds[1:])) for name, seconds in taken.items()}  # the first round warms up


def bare(scorer: Scorer, users: np.ndarray, n_items: int) -> None:
    """What no harness can avoid, in the same batches: the scores and the k highest of each row."""
    batch = BATCH_CELLS // n_items
    for start in range(0, len(users), batch):
        np.argpartition(scorer(users[start : start + batch]), n_items - K, axis=1)[:, -K:]


def speed() -> list[dict]:
    import ranx

    n_users, n_items = 6_040, 3_706
    holdout = splits.temporal_per_user(simulated(n_users, n_items, 1_000_000)).test
    scorer, users = factor_scorer(n_users, n_items), holdout.users
    report = evaluate(scorer, holdout, K)  # builds the sparse matrices, as the first of many evaluations does
    rankings = recommend(scorer, holdout.seen_matrix, users, K)
    truth = holdout.truth_matrix
    qrels = {str(u): {str(i): 1 for i in truth.indices[truth.indptr[u] : truth.indptr[u + 1]]} for u in users}
    run = {str(u): {str(i): K - r for r, i in enumerate(row)} for u, row in zip(users, rankings, strict=True)}

    def ranx_from_dictionaries() -> None:
        ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), RANX_METRICS, make_comparable=True)

    built = ranx.Qrels(qrels), ranx.Run(run)
    theirs = ranx.evaluate(*built, RANX_METRICS, make_comparable=True)
    ours = {f"{name}@{K}": report.mean(name) for name in ("ndcg", "recall", "precision", "hit_rate", "mrr")}
    assert all(abs(theirs[name] - value) < 1e-9 for name, value in ours.items()), (theirs, ours)

    jobs = {
        "matrix product and argpartition": lambda: bare(scorer, users, n_items),
        "evaluate": lambda: evaluate(scorer, holdout, K),
        "metrics from rankings": lambda: evaluate_rankings(rankings, holdout),
        "metrics from rankings, ranx, built beforehand": lambda: ranx.evaluate(*built, RANX_METRICS),
        "metrics from rankings, ranx, from dictionaries": ranx_from_dictionaries,
        "1,000-fold bootstrap of all metrics": lambda: evaluate_rankings(rankings, holdout).intervals,
    }
    seconds = median_seconds(jobs)
    compared = {
        "evaluate": "matrix product and argpartition",
        "metrics from rankings, ranx, built beforehand": "metrics from rankings",
        "metrics from rankings, ranx, from dictionaries": "metrics from rankings",
    }
    return [row(name, value, "s", seconds, compared.get(name)) for name, value in seconds.items()]


def row(name: str, value: float, unit: str, values: dict[str, float], other: str | None = None) -> dict:
    """One row of results/speed; ratio_to holds the value divided by that of another row."""
    ratio = None if other is None else {other: round(value / values[other], 3)}
    return {"name": name, "value": round(value, 4), "unit": unit, "ratio_to": ratio}


def memory(n_users: int, n_items: int, per_user: int) -> dict[str, float]:
    """MB at the peak: allocated by evaluate() and afterwards by the bootstrap, and the whole process with its data."""
    rng = np.random.default_rng(0)
    ids = {"user_ids": np.arange(n_users, dtype=np.int32), "item_ids": np.arange(n_items, dtype=np.int32)}

    def part(first: int, rows: int) -> Interactions:  # distinct items of each user: one in each of `rows` bands
        band = (n_items // 2) // rows
        users = np.repeat(np.arange(n_users, dtype=np.int32), rows)
        items = rng.integers(0, band, n_users * rows, dtype=np.int32)
        items += np.tile(np.arange(rows, dtype=np.int32) * np.int32(band) + np.int32(first), n_users)
        return Interactions(users, items, name="simulated", **ids)

    seen, truth = part(0, per_user), part(n_items // 2, max(per_user // 5, 1))
    holdout = Holdout(seen, truth, "test", "house", "simulated")
    scorer = factor_scorer(n_users, n_items, dim=16)
    tracemalloc.start()
    report = evaluate(scorer, holdout, K)
    assert len(report.users) == n_users
    allocated = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.reset_peak()
    assert len(report.intervals)
    return {"evaluate": allocated, "bootstrap": tracemalloc.get_traced_memory()[1] / 1e6, "process": peak_rss()}


def peak_rss() -> float:
    """MB of this process at its peak, imports and data included."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would start at what the parent held when it started this process
        return float(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measured_memory(script: str | Path, n_users: int, n_items: int, per_user: int) -> dict[str, float]:
    """memory() of a benchmark in a process of its own, so that nothing else counts; what it says on stderr is shown."""
    command = [sys.executable, str(script), "memory", str(n_users), str(n_items), str(per_user)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def write(name: str, rows: list[dict]) -> None:
    """Print the table and write it to results/speed, or below RECSYS_RESULTS_DIR."""
    for cells in rows:
        ratio = "".join(f"{value:g} x {other}" for other, value in (cells["ratio_to"] or {}).items())
        print(f"{cells['name']:52s} {cells['value']:12,.3f} {cells['unit']:12s} {ratio}")
    store(f"speed/{name}", rows)


def store(name: str, rows: list[dict]) -> None:
    """Write a list of rows to results/<name>.json, or below RECSYS_RESULTS_DIR."""
    path = results_folder() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "[\n" + ",\n".join(f" {json.dumps(row, default=float)}" for row in rows) + "\n]\n", encoding="utf-8"
    )


def store_part(name: str, part: str, rows: list[dict]) -> None:
    """Write the rows of one part of a table to results/tables, as store does; rows of other parts stay."""
    path = results_folder() / "tables" / f"{name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = [{"part": part} | each for each in rows]
    store(f"tables/{name}", [each for each in kept if each["part"] != part] + rows)


def results_folder() -> Path:
    return Path(os.environ.get("RECSYS_RESULTS_DIR") or ROOT / "results")


def main() -> None:
    rows = speed()
    peaks = measured_memory(__file__, 140_000, 27_000, 120)
    shape = "140,000 x 27,000"
    rows.append(row(f"allocated by evaluate at its peak, {shape}", peaks["evaluate"], "MB", {}))
    rows.append(row(f"allocated by the bootstrap at its peak, {shape}", peaks["bootstrap"], "MB", {}))
    rows.append(row(f"whole process with its data, {shape}", peaks["process"], "MB", {}))
    write("evaluation", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        print(json.dumps(memory(*map(int, sys.argv[2:]))))
    else:
        main()
