"""MovieLens 100K, cut 75/25 at random within each item, as the recommenders benchmark cuts it; tuned on validation.

    python benchmarks/within_item.py [model ...]

Same trials and models as benchmarks/house.py. The data set is fetched once and may not be redistributed; the rows
written to results/100k/within-item/ hold metrics only.
"""

from __future__ import annotations

import sys

import torch
from house import measure

from recsys_utils import splits
from recsys_utils.datasets import load_movielens


def main() -> None:
    torch.set_num_threads(1)  # as in house.py
    split = splits.random_within_item(load_movielens("100k"))
    for model in sys.argv[1:] or ("popularity", "item_knn", "ease", "bpr", "ials", "neumf"):
        measure(model, split, "python benchmarks/within_item.py")


if __name__ == "__main__":
    main()
