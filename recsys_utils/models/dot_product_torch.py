# Exported from notebooks/05_embeddings.ipynb; edit there.
"""Written in chapter 05, where it is explained line by line."""

import numpy as np
import pandas as pd
import torch
from torch import nn

from recsys_utils.evaluation import Report, dense_scorer, evaluate
from recsys_utils.interactions import Interactions
from recsys_utils.sampling import NegativeSampler
from recsys_utils.splits import Holdout
from recsys_utils.training import check_settings, fit


class DotProduct(nn.Module):
    """Dot product of a user and an item embedding, plus three biases (Koren et al. 2009, eq. 4).

    Embeddings start as normal draws of standard deviation `scale`, the biases of users and items at
    0, the global bias at `mean`.
    """

    def __init__(self, n_users, n_items, embedding_dim, scale=0.1, mean=0.0):
        super().__init__()
        self.user_embedding = nn.Embedding(n_users, embedding_dim)
        self.item_embedding = nn.Embedding(n_items, embedding_dim)
        self.user_bias, self.item_bias = nn.Embedding(n_users, 1), nn.Embedding(n_items, 1)
        self.global_bias = nn.Parameter(torch.tensor(float(mean)))
        for table, std in zip(self.children(), (scale, scale, 0.0, 0.0)):
            nn.init.normal_(table.weight, std=std)

    def forward(self, users, items):
        """Scores of pairs; codes of shapes that broadcast: (B,) and (B,), or (B, 1) and (B, n)."""
        product = (self.user_embedding(users) * self.item_embedding(items)).sum(-1)
        return product + self.user_bias(users)[..., 0] + self.item_bias(items)[..., 0] + self.global_bias

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item vectors, (n_users, d + 2) and (n_items, d + 2); their dot products are the
        scores."""
        mean, P, Q, b, c = (parameter.detach().cpu().numpy() for parameter in self.parameters())
        return np.hstack([P, b + mean, np.ones_like(b)]), np.hstack([Q, np.ones_like(c), c])


def labelled_pairs(sampler: NegativeSampler, train: Interactions, n_negatives: int, rng):
    """Every row of train as a pair labelled 1, and n_negatives sampled pairs for it labelled 0.

    Returns users, items (int32) and labels (float32), each of shape (len(train) * (1 + n_negatives),).
    """
    items = np.column_stack([train.items, sampler.sample(train.users, n_negatives, rng)])
    labels = np.tile(np.float32([1] + [0] * n_negatives), len(train))
    return np.repeat(train.users, 1 + n_negatives), items.ravel(), labels


def logistic_loss(model: nn.Module, users, items, labels) -> torch.Tensor:
    """Mean of -log σ(score) over pairs labelled 1 and of -log σ(-score) over those labelled 0."""
    return nn.functional.binary_cross_entropy_with_logits(model(users, items), labels)


def report(model, holdout: Holdout) -> Report:
    """What evaluate says of any model with vectors()."""
    users, items = model.vectors()
    return evaluate(dense_scorer(users, items.T), holdout)


def ndcg_at_10(model, holdout: Holdout) -> float:
    """NDCG@10 of any model with vectors()."""
    return report(model, holdout).mean("ndcg")


def fit_dot_product(
    train: Interactions, *, embedding_dim: int, n_negatives: int, learning_rate: float,
    weight_decay: float, batch_size: int, epochs: int, validation: Holdout | None = None,
    patience: int | None = None, seed: int = 0,
) -> tuple[DotProduct, pd.DataFrame]:
    """Train DotProduct by Adam on the logistic loss, rated items against sampled unrated ones.

    n_negatives: for each row of train, drawn afresh every epoch. weight_decay: L2 penalty of torch's
    Adam. batch_size: in labelled pairs. validation: measured by NDCG@10 after every epoch; the model
    ends with its best epoch, and training stops after `patience` epochs without a better one.
    Returns the model and its history: epoch, loss, seconds and validation. Raises ValueError for
    settings that cannot be used, and without interactions.
    """
    check_settings(interactions=len(train), embedding_dim=embedding_dim, n_negatives=n_negatives)
    torch.manual_seed(seed)
    model = DotProduct(train.n_users, train.n_items, embedding_dim)
    sampler, options = NegativeSampler(train.matrix()), {"lr": learning_rate, "weight_decay": weight_decay}
    history = fit(
        model, logistic_loss, lambda rng: labelled_pairs(sampler, train, n_negatives, rng),
        torch.optim.Adam(model.parameters(), fused=True, **options), epochs=epochs, batch_size=batch_size,
        validate=None if validation is None else lambda: ndcg_at_10(model, validation),
        patience=patience, seed=seed)
    return model, history
