"""How much does it buy to choose the epoch on test? Several seeds of three models, for chapter 15.

    python benchmarks/fooled.py

For each seed: the epoch with the highest NDCG@10 on validation, trained on train alone; then the whole curve on test,
trained on train and validation, read at that epoch and at its highest point. Writes results/tables/fooled.json.
"""

from __future__ import annotations

import torch
from evaluation import store_part

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_house
from recsys_utils.evaluation import evaluate
from recsys_utils.models import laboratory
from recsys_utils.models.neumf_torch import NeuMF, fit_ncf
from recsys_utils.models.two_tower_torch import fit_two_tower

SPLIT = splits.temporal_per_user(load_house())


def bpr_curve(holdout, seed: int) -> dict[int, float]:
    """NDCG@10 by number of passes, as the chapter looks at it."""
    scorers = ((epochs, laboratory.bpr(holdout.seen, epochs, seed)) for epochs in laboratory.LOOKS)
    return {epochs: evaluate(scorer, holdout).mean("ndcg") for epochs, scorer in scorers}


def curve(fit, epochs: int):
    """NDCG@10 by epoch of a model that is watched while it trains."""

    def measured(holdout, seed: int) -> dict[int, float]:
        history = fit(holdout.seen, seed=seed, epochs=epochs, validation=holdout)[1]
        return dict(zip(history["epoch"].tolist(), history["validation"].tolist(), strict=True))

    return measured


def recorded(model: str) -> dict:
    """The setting of the house table without what is varied here."""
    setting = leaderboard.result(model)["hyperparameters"]
    return {name: value for name, value in setting.items() if name not in ("epochs", "seed")}


CURVES = {
    "BPR": (bpr_curve, range(5)),
    "two towers": (
        curve(lambda train, **rest: fit_two_tower(train, **recorded("two_tower"), **rest), 15), range(3)
    ),
    "NeuMF": (curve(lambda train, **rest: fit_ncf(NeuMF, train, **recorded("neumf"), **rest), 15), range(3)),
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for model, (measured, seeds) in CURVES.items():
        for seed in seeds:
            validation, test = measured(SPLIT.validation, seed), measured(SPLIT.test, seed)
            chosen, best = max(validation, key=validation.get), max(test, key=test.get)
            rows.append({
                "part": "selection", "model": model, "seed": seed, "epochs": chosen, "best": best,
                "ndcg": round(test[chosen], 5), "ndcg_best": round(test[best], 5),
                "gain": round(test[best] - test[chosen], 5),
            })  # fmt: skip
            print(rows[-1], flush=True)
    store_part("fooled", "selection", rows)


if __name__ == "__main__":
    main()
