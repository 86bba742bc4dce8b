"""The endpoint of chapter 13 under load: latency, saturation, memory, a swap, and ten thousand hostile requests.

    python benchmarks/serving.py [--seconds 60] [--rate 500] [--stores memory postgres] [load saturation memory ...]

One server process with one worker, on loopback, and the load generator (recsys_utils.serving.load) in a process of its
own: two cores in all, with PostgreSQL a third process. Answers are looked at. A run in which the generator itself was
late is void and repeated, three times at most. Each part replaces its own rows of results/speed/serving.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
from evaluation import results_folder, row, write

from recsys_utils.serving import artefacts
from recsys_utils.serving.load import Request, open_loop, recommend_requests, summary
from recsys_utils.serving.server import serve

PARTS = ("load", "saturation", "memory", "swap", "fuzz")
STORES = ("memory", "postgres")
P99 = 20.0  # ms, what a saturated server exceeds
STEP, STEP_SECONDS = 1.25, 8.0  # of the rate ladder
SWAP_RATE = 200
FUZZ_REQUESTS, FUZZ_ROUNDS, FUZZ_EXAMPLES, FUZZ_SECONDS = 10_000, 40, 200, 120
WORKLOAD = 2_000  # requests, drawn once, sent in turn


def measured(url: str, rate: float, seconds: float, requests: list[Request], **options) -> dict[str, float]:
    """The summary of a run that is not void; RuntimeError after three void ones."""
    for attempt in range(3):
        frame = open_loop(url, rate, seconds, requests, seed=attempt, **options)
        found = summary(frame)
        print(f"  {rate:7.0f}/s", {name: round(value, 2) for name, value in found.items()}, flush=True)
        for error, times in frame["error"].value_counts().items():
            if error:
                print(f"  {times} times: {error}")
        if not found["void"]:
            return found
    raise RuntimeError(f"the generator was late by {found['delay_p99']:.1f} ms at {rate}/s; is the machine quiet?")


def load(root: Path, requests: list[Request], store: str, seconds: float, rate: float) -> list[dict]:
    """Latency at a steady rate; a database gets four fifths of it, again and again, until it keeps up."""
    with serve(root, store=store) as url:
        open_loop(url, 100, 3, requests)  # warm
        while store != "memory" and summary(open_loop(url, rate, 5, requests))["p99"] > 5 * P99:
            rate *= 0.8
        found = measured(url, rate, seconds, requests, versions=["1"])
    units = {"requests": "requests", "p50": "ms", "p99": "ms", "longest": "ms", "errors": "requests", "delay_p99": "ms"}
    titles = {"delay_p99": "p99 delay of the generator itself"}
    rows = [row(f"rate, {store}", rate, "requests/s", {}), row(f"duration, {store}", seconds, "s", {})]
    return rows + [row(f"{titles.get(name, name)}, {store}", found[name], unit, {}) for name, unit in units.items()]


def saturation(root: Path, requests: list[Request], store: str, seconds: float) -> list[dict]:
    """The highest rate of a ladder with every answer right and p99 below P99."""
    best, rate = 0.0, 100.0
    with serve(root, store=store) as url:
        open_loop(url, 100, 3, requests)
        while rate < 20_000:
            found = summary(open_loop(url, rate, min(seconds, STEP_SECONDS), requests, versions=["1"]))
            print(f"  {rate:7.0f}/s", {name: round(value, 2) for name, value in found.items()}, flush=True)
            if found["void"] or found["errors"] or found["p99"] > P99:
                break
            best, rate = found["per_second"], rate * STEP
    return [row(f"throughput with p99 under {P99:.0f} ms, {store}", best, "requests/s", {})]


def memory(root: Path, requests: list[Request], store: str) -> list[dict]:
    """Memory of the server, and of the database beside it, after some load."""
    before = set(psutil.pids())
    with serve(root, store=store) as url:
        open_loop(url, 100, 5, requests)
        server, database = 0.0, 0.0
        for process in [psutil.Process(pid) for pid in psutil.pids() if pid not in before]:
            with suppress(psutil.Error):
                if process.name().startswith("postgres"):
                    database += own_memory(process)
                elif "recsys_utils.serving" in process.cmdline():
                    server += own_memory(process)
    rows = [row(f"memory of the server, {store}", server, "MB", {})]
    return rows + [row("memory of PostgreSQL", database, "MB", {})] * (store == "postgres")


def own_memory(process: psutil.Process) -> float:
    """MB of a process; what it shares with others is divided among them, where the system can tell (PSS)."""
    return getattr(process.memory_full_info(), "pss", process.memory_info().rss) / 1e6


def swap(root: Path, requests: list[Request], store: str, seconds: float) -> list[dict]:
    """Versions are exchanged again and again under load: nothing may fail, nothing may wait for long."""
    seconds = max(seconds, 10.0)

    def exchange() -> None:
        for version in ("2", "1", "2"):
            time.sleep(seconds / 4)
            artefacts.activate(root, version)

    with serve(root, store=store) as url:
        open_loop(url, 100, 3, requests)
        frame = open_loop(url, SWAP_RATE, seconds, requests, versions=["1", "2"], during=exchange)
    found, in_time = summary(frame), frame.sort_values("planned")["version"]
    changes = int((in_time != in_time.shift()).sum() - 1)
    print(f"  {changes} changes of version", {name: round(value, 2) for name, value in found.items()})
    if found["void"] or set(in_time) != {"1", "2"}:
        raise RuntimeError(f"void: {found['void']}, versions {sorted(set(in_time))}; expected both, on a quiet machine")
    artefacts.activate(root, "1")
    what = f"three swaps at {SWAP_RATE} requests/s, {store}"
    rows = [row(f"failed, {what}", found["errors"], "requests", {})]
    rows += [row(f"{name}, {what}", found[name], "ms", {}) for name in ("p99", "longest")]
    return rows


def answered(url: str) -> pd.Series:
    """Requests that the server has counted, by status."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if "_seconds_count{" in line]
    status = [line.split('status="')[1].split('"')[0] for line in lines]
    return pd.Series([float(line.rsplit(" ", 1)[1]) for line in lines], status, dtype=float).groupby(level=0).sum()


def fuzz(root: Path, n: int) -> list[dict]:
    """schemathesis over HTTP until the server has counted n requests; what the server answered, by its own count."""
    failures = 0
    with serve(root, store="memory") as url, tempfile.TemporaryDirectory() as folder:
        for seed in range(FUZZ_ROUNDS):
            command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--seed", str(seed)]
            command += ["--max-examples", str(FUZZ_EXAMPLES), "--phases", "examples,coverage,fuzzing"]
            command += ["--continue-on-failure"]
            try:
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=FUZZ_SECONDS)
                failures += done.returncode != 0
                if done.returncode:
                    print(done.stdout[-6000:], done.stderr[-2000:])
            except subprocess.TimeoutExpired:  # now and then it finds no new example, and goes on looking
                print(f"  seed {seed}: given up after {FUZZ_SECONDS} s", flush=True)
            counts = answered(url)
            print(f"  seed {seed}:", counts.astype(int).to_dict(), flush=True)
            if counts.sum() >= n:
                break
    server_errors = counts[counts.index.str.startswith("5")].sum()
    return [
        row("requests by schemathesis", counts.sum(), "requests", {}),
        row("of them answered 5xx", server_errors, "requests", {}),
        row("runs of schemathesis with a failed check", failures, "runs", {}),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the steady load; shorter runs shorten the rest")
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--requests", type=int, default=FUZZ_REQUESTS, help="of fuzz")
    asked = parser.parse_args()
    path = results_folder() / "speed" / "serving.json"
    rows = {cells["name"]: cells for cells in (json.loads(path.read_text("utf-8")) if path.exists() else [])}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        artefact = artefacts.house_artefact(root)
        artefacts.write(replace(artefact, version="2"), root)
        requests = recommend_requests(artefact, WORKLOAD)
        for part in asked.parts or PARTS:
            for store in asked.stores if part != "fuzz" else ["memory"]:
                print(f"{part}, {store}", flush=True)
                match part:
                    case "load":
                        found = load(root, requests, store, asked.seconds, asked.rate)
                    case "saturation":
                        found = saturation(root, requests, store, asked.seconds)
                    case "memory":
                        found = memory(root, requests, store)
                    case "swap":
                        found = swap(root, requests, store, asked.seconds)
                    case "fuzz":
                        found = fuzz(root, asked.requests)
                rows |= {cells["name"]: cells for cells in found}
                write("serving", list(rows.values()))


if __name__ == "__main__":
    main()
