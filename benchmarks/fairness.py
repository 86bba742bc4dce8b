"""Who is served well on MovieLens 100K: recorded models by the gender and age that users stated.

    python benchmarks/fairness.py

Reads the per-user values of results/100k/within-item/ and the user table of the data set, which is fetched once and
may not be redistributed; writes means of groups of users to results/tables/fairness.json, nothing about a person.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from evaluation import store

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_movielens
from recsys_utils.models.beyond_accuracy import gap, group_means

MODELS = ("popularity", "item_knn", "neumf", "bpr", "ials", "ease")
AGES = {0: "under 25", 25: "25 to 34", 35: "35 to 44", 45: "45 and over"}
STRATA = 10  # groups of users with about equally many hidden films


def rows_of(model: str, split: splits.Split) -> list[dict]:
    """Group means and gaps of one model; raises ValueError when its result is of another split."""
    report = leaderboard.load(model, "within-item", "100k")
    if report.fingerprint != split.fingerprint:
        raise ValueError(f"{model} was measured on split {report.fingerprint}, this is {split.fingerprint}")
    people, values = split.data.user_table.iloc[report.users], report.values("ndcg")
    women, old = (people["gender"] == "F").to_numpy(), np.searchsorted([*AGES], people["age"], side="right") - 1
    hidden = pd.Series(split.test.truth.user_counts[report.users]).rank(method="first")
    strata = np.ceil(hidden / len(hidden) * STRATA).to_numpy()
    shares = {"women": women, "men": ~women} | {name: old == place for place, name in enumerate(AGES.values())}
    rows = []
    for name, group in shares.items():
        means = group_means(values, group).loc[True]
        found = {"ndcg": means["mean"], "low": means["low"], "high": means["high"]}
        rows.append({"model": model, "kind": "group", "name": name, "users": int(means["users"])} | found)
    extremes = np.isin(old, (0, len(AGES) - 1))
    everybody = np.ones(len(women), bool)
    for name, inside, first in (("men - women", everybody, ~women), ("young - old", extremes, old == 0)):
        for how, layers in (("", None), (", alike", strata[inside])):
            found = dict(zip(("ndcg", "low", "high"), gap(values[inside], first[inside], layers), strict=True))
            rows.append({"model": model, "kind": "gap", "name": name + how, "users": int(inside.sum())} | found)
    return rows


def main() -> None:
    split = splits.random_within_item(load_movielens("100k"))
    store("tables/fairness", [row for model in MODELS for row in rows_of(model, split)])


if __name__ == "__main__":
    main()
