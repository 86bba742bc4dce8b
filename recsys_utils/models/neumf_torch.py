# Exported from notebooks/08_neumf.ipynb; edit there.
"""Written in chapter 08, where it is explained line by line."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from recsys_utils.evaluation import Scorer, evaluate
from recsys_utils.interactions import Interactions
from recsys_utils.models.losses_torch import bce_loss
from recsys_utils.sampling import NegativeSampler
from recsys_utils.splits import Holdout
from recsys_utils.training import check_settings, fit


def embedding(n: int, dim: int) -> nn.Embedding:
    """n rows of normal numbers with standard deviation .01 (He et al. 2017)."""
    table = nn.Embedding(n, dim)
    nn.init.normal_(table.weight, std=0.01)
    return table


class Pairs(nn.Module):
    """Two tables of embeddings, and a prediction layer over the features that a subclass makes."""

    def __init__(self, n_users, n_items, dim):
        super().__init__()
        self.user_embedding, self.item_embedding = embedding(n_users, dim), embedding(n_items, dim)

    def forward(self, users, items):
        """Scores (logits) of pairs; codes of shapes that broadcast: (B, 1) and (B, n), for instance."""
        return self.prediction(self.features(users, items))[..., 0]


class GMF(Pairs):
    """Generalised matrix factorisation (He et al. 2017, eq. 9): a dot product with weighted terms.

    factors: length of the embeddings.
    """

    def __init__(self, n_users, n_items, factors):
        super().__init__(n_users, n_items, factors)
        self.prediction = nn.Linear(factors, 1)

    def features(self, users, items):
        """What the prediction layer sees, (..., factors)."""
        return self.user_embedding(users) * self.item_embedding(items)


class MLP(Pairs):
    """A tower over the two embeddings side by side (He et al. 2017, eq. 10).

    factors: width f of the last layer. Each of the `depth` layers is twice as wide as the next, the
    two embeddings together are as wide as the first: 4f → 4f → 2f → f for three layers. Raises
    ValueError when that leaves embeddings of unequal length.
    """

    def __init__(self, n_users, n_items, factors, depth=3):
        sizes = [factors * 2 ** max(depth - 1, 0), *(factors * 2**step for step in reversed(range(depth)))]
        if sizes[0] % 2:
            raise ValueError(f"factors={factors} at depth={depth}; expected an even number")
        super().__init__(n_users, n_items, sizes[0] // 2)
        self.hidden = nn.ModuleList(nn.Linear(sizes[k], sizes[k + 1]) for k in range(depth))
        self.prediction = nn.Linear(factors, 1)

    def features(self, users, items):
        """What the prediction layer sees, (..., factors)."""
        p, q = self.user_embedding(users), self.item_embedding(items)
        if not self.hidden:
            return torch.cat(torch.broadcast_tensors(p, q), dim=-1)
        first, *rest = self.hidden
        left, right = first.weight.chunk(2, dim=1)  # W [p; q] = W_left p + W_right q
        z = F.relu(F.linear(p, left, first.bias) + F.linear(q, right))
        for layer in rest:
            z = F.relu(layer(z))
        return z


class NeuMF(nn.Module):
    """GMF and MLP side by side under one prediction layer (He et al. 2017, eq. 12)."""

    def __init__(self, n_users, n_items, factors, depth=3):
        super().__init__()
        self.gmf, self.mlp = GMF(n_users, n_items, factors), MLP(n_users, n_items, factors, depth)
        self.prediction = nn.Linear(2 * factors, 1)
        del self.gmf.prediction, self.mlp.prediction  # the fused layer takes their place

    def forward(self, users, items):
        """Scores (logits) of pairs; codes of shapes that broadcast."""
        return self.prediction(torch.cat([m.features(users, items) for m in (self.gmf, self.mlp)], dim=-1))[..., 0]


@torch.no_grad()
def pair_scores(model: nn.Module, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Logits of users (B,) with the items of their row, (B, n), or with the same items, (1, n); in blocks."""
    users, items = torch.as_tensor(users), torch.as_tensor(items)
    rows = max(1, 16_384 // items.shape[1])
    blocks = zip(users.split(rows), items.split(rows) if len(items) > 1 else [items] * len(users))
    return torch.cat([model(u[:, None], i) for u, i in blocks]).numpy()


def ncf_scorer(model: nn.Module, n_items: int) -> Scorer:
    """Scores of all items by any model of (users, items)."""
    return lambda users: pair_scores(model, users, np.arange(n_items)[None])


def train_ncf(model: nn.Module, train: Interactions, optimizer: torch.optim.Optimizer, *, n_negatives: int,
              validation: Holdout | None = None, **options) -> pd.DataFrame:  # fmt: skip
    """Train any model of (users, items) on the logistic loss; its history, as training.fit gives it.

    n_negatives: for each row of train, uniform, drawn afresh every epoch. validation: NDCG@10 of the
    full ranking after every epoch; the model ends with its best epoch. options: epochs, batch_size
    (in positives), patience and seed of training.fit, or another validate.
    """
    check_settings(interactions=len(train), n_negatives=n_negatives)
    sampler = NegativeSampler(train.matrix())

    def loss(model, users, items):  # items: (B, 1 + n_negatives), the positive first
        return bce_loss(*model(users[:, None], items).split([1, n_negatives], dim=1))

    if validation is not None:
        options["validate"] = lambda: evaluate(ncf_scorer(model, train.n_items), validation).mean("ndcg")
    return fit(model, loss, lambda rng: (train.users, np.column_stack(
        [train.items, sampler.sample(train.users, n_negatives, rng)])), optimizer, **options)


def fit_ncf(architecture: Callable[..., nn.Module], train: Interactions, *, factors: int, learning_rate: float,
            weight_decay: float, seed: int = 0, **options) -> tuple[nn.Module, pd.DataFrame]:  # fmt: skip
    """GMF, MLP or NeuMF from scratch, by Adam: the model and its history.

    architecture: called with n_users, n_items and factors. weight_decay: L2 penalty of torch's Adam, on
    everything. options: n_negatives, batch_size, epochs,
    validation and patience of train_ncf. Raises ValueError for settings that cannot be used.
    """
    torch.manual_seed(seed)
    model = architecture(train.n_users, train.n_items, factors)
    adam = torch.optim.Adam(model.parameters(), learning_rate, weight_decay=weight_decay, fused=True)
    return model, train_ncf(model, train, adam, seed=seed, **options)


def fuse(gmf: GMF, mlp: MLP, alpha: float = 0.5) -> NeuMF:
    """A NeuMF that starts from two trained models (He et al. 2017, eq. 13): its logits are α times
    those of the GMF plus 1 - α times those of the MLP."""
    n_users, factors = gmf.user_embedding.weight.shape
    model = NeuMF(n_users, len(gmf.item_embedding.weight), factors, depth=len(mlp.hidden))
    for part, trained in ((model.gmf, gmf), (model.mlp, mlp)):
        part.load_state_dict(trained.state_dict(), strict=False)  # all but the prediction layer
    g, m = gmf.prediction, mlp.prediction
    with torch.no_grad():
        model.prediction.weight.copy_(torch.cat([alpha * g.weight, (1 - alpha) * m.weight], dim=1))
        model.prediction.bias.copy_(alpha * g.bias + (1 - alpha) * m.bias)
    return model


def fine_tune(train: Interactions, gmf: GMF, mlp: MLP, *, alpha: float, learning_rate: float,
              **options) -> tuple[NeuMF, pd.DataFrame]:  # fmt: skip
    """Two trained models fused, then trained on by plain SGD (He et al. 2017, section 3.4.1).

    options: those of train_ncf.
    """
    model = fuse(gmf, mlp, alpha)
    return model, train_ncf(model, train, torch.optim.SGD(model.parameters(), learning_rate), **options)


def fit_pretrained(train: Interactions, *, gmf: dict, mlp: dict, alpha: float, seed: int = 0,
                   **options) -> tuple[NeuMF, pd.DataFrame]:  # fmt: skip
    """A GMF and an MLP by Adam, then fine_tune: the NeuMF and the history of that last part.

    gmf, mlp: settings of fit_ncf, epochs included, with equal factors. alpha: weight of the GMF at the
    start, from 0 to 1. options: of fine_tune. Raises ValueError for another alpha, and for factors
    that differ.
    """
    if not 0 <= alpha <= 1 or gmf["factors"] != mlp["factors"]:
        raise ValueError(f"alpha={alpha}, factors={gmf['factors']}, {mlp['factors']}; expected 0 to 1, and equal ones")
    parts = (fit_ncf(part, train, **setting | {"seed": seed})[0] for part, setting in ((GMF, gmf), (MLP, mlp)))
    return fine_tune(train, *parts, alpha=alpha, seed=seed, **options)
