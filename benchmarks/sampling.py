"""Speed and memory of the negative samplers: python benchmarks/sampling.py writes results/speed/sampling.json.

One run, CPU seconds, medians, at the shape of MovieLens 1M (6,040 x 3,706, about a million simulated interactions),
against a Python loop over rows that rejects with a set; then the peak memory at 200,000 x 87,000 with 32 million
positives.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from evaluation import measured_memory, median_seconds, peak_rss, row, simulated, write
from scipy import sparse

from recsys_utils.sampling import NegativeSampler

ROWS, NEGATIVES = 1_000_000, 4
LOOP_ROWS = 20_000


def loop(seen: list[set[int]], n_items: int, users: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """What many notebooks do: one row at a time, one draw at a time."""
    out = np.empty((len(users), n), np.int32)
    for place, user in enumerate(users):
        for column in range(n):
            item = int(rng.integers(n_items))
            while item in seen[user]:
                item = int(rng.integers(n_items))
            out[place, column] = item
    return out


def speed() -> list[dict]:
    data = simulated(6_040, 3_706, 1_000_000)
    positives = data.matrix()
    rng = np.random.default_rng(0)
    users = data.users[rng.integers(0, len(data), ROWS)]
    seen = [set(positives.indices[a:b].tolist()) for a, b in zip(positives.indptr, positives.indptr[1:], strict=False)]
    uniform, popular = NegativeSampler(positives), NegativeSampler(positives, alpha=0.75)
    loop_name = "Python loop over rows, uniform"
    jobs = {
        loop_name: lambda: loop(seen, data.n_items, users[:LOOP_ROWS], NEGATIVES, rng),
        "NegativeSampler, uniform": lambda: uniform.sample(users, NEGATIVES, rng),
        "NegativeSampler, popularity^0.75": lambda: popular.sample(users, NEGATIVES, rng),
    }
    seconds = median_seconds(jobs)
    rates = {n: (LOOP_ROWS if n == loop_name else ROWS) * NEGATIVES / s / 1e6 for n, s in seconds.items()}
    return [row(n, rate, "million/s", rates, None if n == loop_name else loop_name) for n, rate in rates.items()]


def memory(n_users: int, n_items: int, per_user: int) -> dict[str, float]:
    """MB of this process at its peak, before and after the sampler, with its rate where positives are searched for."""
    rng = np.random.default_rng(0)
    gaps = rng.integers(1, n_items // per_user, (n_users, per_user), dtype=np.int16)  # so that items are distinct
    indices = np.cumsum(gaps, axis=1, dtype=np.int32)
    del gaps
    indptr = np.arange(0, n_users * per_user + 1, per_user, dtype=np.int32)
    parts = (np.ones(n_users * per_user, np.bool_), indices.ravel(), indptr)
    positives = sparse.csr_matrix(parts, shape=(n_users, n_items))
    before = peak_rss()
    sampler = NegativeSampler(positives, alpha=0.75)
    users = rng.integers(0, n_users, 250_000)
    seconds = median_seconds({"search": lambda: sampler.sample(users, NEGATIVES, rng)}, repeats=3)["search"]
    return {"data": before, "process": peak_rss(), "rate": len(users) * NEGATIVES / seconds / 1e6}


def main() -> None:
    rows = speed()
    found = measured_memory(__file__, 200_000, 87_000, 160)
    shape = "200,000 x 87,000"
    rows.append(row(f"NegativeSampler, popularity^0.75, {shape}", found["rate"], "million/s", {}))
    rows.append(row(f"whole process before the sampler, {shape}", found["data"], "MB", {}))
    rows.append(row(f"whole process with it, {shape}", found["process"], "MB", {}))
    write("sampling", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        print(json.dumps(memory(*map(int, sys.argv[2:]))))
    else:
        main()
