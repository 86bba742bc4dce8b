"""A catalogue of a million items: recall, latency, bytes and build time of every index of chapter 12.

    python benchmarks/ann.py                 # writes results/tables/ann.json; over an hour
    python benchmarks/ann.py IVF "IVF-PQ"    # these kinds again, the rows of the others stay

The items and the queries are grown from the book's own two towers, in 64 dimensions. All indexes are built before
the first one is measured, one thread each: building is counted in processor time, searching by the clock, so let
nothing else run once it says that all are built. Kinds of index that are not installed have no rows.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import importlib.util
import json
import time

import numpy as np
from ann_indexes import KINDS, measure, timed_build
from evaluation import results_folder, store

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_house
from recsys_utils.models import ann
from recsys_utils.models.two_tower_torch import fit_two_tower
from recsys_utils.retrieval import FlatIndex

SIZES = (1_000, 10_000, 100_000, 1_000_000)
N_QUERIES, K, DIMENSION = 1_000, 10, 64


def towers() -> tuple[np.ndarray, np.ndarray]:
    """User and item vectors of the recorded two towers, refitted with 64 dimensions."""
    train = splits.temporal_per_user(load_house()).train_validation
    setting = leaderboard.result("two_tower")["hyperparameters"] | {"embedding_dim": DIMENSION}
    return fit_two_tower(train, **setting)[0].vectors()


def exact_rows(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    index = FlatIndex(vectors.shape[1])
    index.add(vectors)
    return index.search(queries, K)[0]


def catalogue(vectors: np.ndarray) -> dict:
    """One row: what describe_vectors says of a catalogue; the smallest is not grown."""
    facts = ann.describe_vectors(vectors)
    lists = {name: facts[name].tolist() for name in ("shares", "energy")}
    return {"part": "catalogue", "name": f"{len(vectors):,} items", "n": len(vectors)} | facts | lists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="number of items")
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], help="all that are installed, unless said")
    options = parser.parse_args()
    users, items = towers()
    queries = ann.grow(users, N_QUERIES, seed=1)
    catalogues = {n: ann.grow(items, n, seed=0) for n in SIZES if n <= options.largest}
    kinds = options.kinds or [name for name, kind in KINDS.items() if importlib.util.find_spec(kind.package)]
    built = {}
    for n, vectors in catalogues.items():
        for name in kinds:
            built[n, name] = timed_build(name, vectors)
            print(f"{time.strftime('%H:%M:%S')} {name}, {n:,} items: built in {built[n, name][1]:.1f} s", flush=True)
    print("all are built", flush=True)
    rows = [catalogue(vectors) for vectors in (items, *catalogues.values())]
    path = results_folder() / "tables" / "ann.json"
    if options.kinds and path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        rows += [row for row in old if row["part"] == "search" and row["name"] not in kinds]
    for n, vectors in catalogues.items():
        exact = exact_rows(vectors, queries)
        for name in kinds:
            for row in measure(name, vectors, queries, exact, built=built[n, name]):
                rows.append({"part": "search", "name": row.pop("index")} | row)
                print(rows[-1], flush=True)
    places = {name: place for place, name in enumerate(KINDS)}
    store("tables/ann", sorted(rows, key=lambda row: (row["part"], row["n"], places.get(row["name"], 0))))


if __name__ == "__main__":
    main()
