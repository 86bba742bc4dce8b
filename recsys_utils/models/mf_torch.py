# Exported from notebooks/06_matrix_factorization.ipynb; edit there.
"""Written in chapter 06, where it is explained line by line."""

import torch

from recsys_utils.interactions import Interactions
from recsys_utils.models.dot_product_torch import DotProduct as DotProductTorch
from recsys_utils.models.mf import rating_mean
from recsys_utils.training import fit


def rating_loss_torch(model, users, items, ratings, regularization: float) -> torch.Tensor:
    """Mean over a batch of (r - r̂)² + λ (|p_u|² + |q_i|² + b_u² + b_i²), a scalar in stars² (Koren et
    al. 2009, eq. 5); the global bias goes free. users, items, ratings: (B,).
    """
    rows = [table(users) for table in (model.user_embedding, model.user_bias)]  # (B, d) and (B, 1)
    rows += [table(items) for table in (model.item_embedding, model.item_bias)]
    size = sum((row**2).sum(dim=-1) for row in rows)
    return ((ratings - model(users, items)) ** 2 + regularization * size).mean()


def fit_mf_torch(train: Interactions, *, embedding_dim: int, learning_rate: float, regularization: float,
                 epochs: int, batch_size: int, seed: int = 0):
    """Biased matrix factorisation by Adam on batches: the model and a row an epoch: epoch, loss (stars²,
    penalty included), seconds. Raises ValueError without ratings.
    """
    mean, columns = rating_mean(train), (train.users, train.items, train.ratings)
    torch.manual_seed(seed)
    model = DotProductTorch(train.n_users, train.n_items, embedding_dim, mean=mean)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    return model, fit(model, lambda *batch: rating_loss_torch(*batch, regularization), lambda rng: columns,
                      optimizer, epochs=epochs, batch_size=batch_size, seed=seed)
