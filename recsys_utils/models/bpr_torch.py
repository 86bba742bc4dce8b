# Exported from notebooks/07_bpr.ipynb; edit there.
"""Written in chapter 07, where it is explained line by line."""

from collections.abc import Callable

import pandas as pd
import torch

from recsys_utils.interactions import Interactions
from recsys_utils.models.dot_product_torch import DotProduct, ndcg_at_10
from recsys_utils.models.losses_torch import bpr_loss
from recsys_utils.sampling import NegativeSampler
from recsys_utils.splits import Holdout
from recsys_utils.training import check_settings, fit


def fit_ranking(
    train: Interactions, loss: Callable, negatives: Callable, *, embedding_dim: int,
    learning_rate: float, weight_decay: float, batch_size: int, epochs: int,
    validation: Holdout | None = None, patience: int | None = None, seed: int = 0,
) -> tuple[DotProduct, pd.DataFrame]:
    """A DotProduct trained by Adam on positives against negatives, and its history.

    loss: of positive scores (B,) and negative scores (B, n), a scalar. negatives: called once an
    epoch as negatives(model, rng), gives item codes, n for each row of train: (len(train), n).
    weight_decay: L2 penalty of torch's Adam. batch_size: in positives. validation: measured by
    NDCG@10 after every epoch; the model ends with its best epoch, and training stops after
    `patience` epochs without a better one. History: epoch, loss, seconds and validation.
    """
    torch.manual_seed(seed)
    model = DotProduct(train.n_users, train.n_items, embedding_dim)
    history = fit(
        model, lambda model, u, i, j: loss(model(u, i), model(u[:, None], j)),
        lambda rng: (train.users, train.items, negatives(model, rng)),
        torch.optim.Adam(model.parameters(), learning_rate, weight_decay=weight_decay, fused=True),
        epochs=epochs, batch_size=batch_size, seed=seed, patience=patience,
        validate=None if validation is None else lambda: ndcg_at_10(model, validation),
    )  # fmt: skip
    return model, history


def fit_bpr(train: Interactions, *, n_negatives: int, alpha: float,
            **options) -> tuple[DotProduct, pd.DataFrame]:  # fmt: skip
    """BPR (Rendle et al. 2009): fit_ranking with the pairwise loss, and its model and history.

    n_negatives: for each row of train, drawn afresh every epoch among what the user has not met,
    uniformly (alpha=0) or in proportion to popularity^alpha. options: those of fit_ranking. Raises
    ValueError for n_negatives < 1.
    """
    check_settings(interactions=len(train), n_negatives=n_negatives)
    sampler = NegativeSampler(train.matrix(), alpha)
    return fit_ranking(
        train, bpr_loss, lambda model, rng: sampler.sample(train.users, n_negatives, rng), **options
    )
