# Exported from notebooks/10_two_tower_pytorch.ipynb; edit there.
"""Written in chapter 10, where it is explained line by line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from sklearn.decomposition import TruncatedSVD
from torch import nn
from torch.nn import functional as F

from recsys_utils import leaderboard, splits
from recsys_utils.datasets import load_house
from recsys_utils.interactions import Interactions
from recsys_utils.models.baselines import content_features, genre_matrix, known_tags
from recsys_utils.models.dot_product_torch import report
from recsys_utils.splits import TEST, VALIDATION, Holdout, Split
from recsys_utils.training import check_settings, fit


class Tower(nn.Module):
    """Codes to vectors: id embedding plus a linear map of feature rows, blocks of Linear, ReLU and
    LayerNorm, a last Linear, and length one (a design of Yi et al. 2019, figure 2).

    n: number of codes. hidden: sizes of the blocks; without any, id plus features is the vector.
    n_features: columns of `features`, the buffer to be filled, shape (n, n_features); with features,
    ids start at zero, and a share id_dropout of them is left out in training. normalize: length one.
    """

    def __init__(self, n, embedding_dim, hidden=(), n_features=0, id_dropout=0.0, normalize=True):
        super().__init__()
        self.id_dropout, self.normalize = id_dropout * (n_features > 0), normalize
        self.embedding = nn.Embedding(n, embedding_dim)
        nn.init.normal_(self.embedding.weight, std=0.0 if n_features else embedding_dim**-0.5)
        self.register_buffer("features", torch.zeros(n, n_features))
        self.project = nn.Linear(n_features, embedding_dim, bias=False) if n_features else None
        sizes = [embedding_dim, *hidden]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, hidden))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in hidden)
        self.last = nn.Linear(sizes[-1], embedding_dim) if hidden else None

    def encode(self, ids, features):
        """Vectors (..., d) of id rows (..., d) and feature rows (..., n_features), met before or new."""
        x = ids if self.project is None else ids + self.project(features)
        for linear, norm in zip(self.linears, self.norms):
            x = norm(F.relu(linear(x)))
        x = x if self.last is None else self.last(x)
        return F.normalize(x, dim=-1) if self.normalize else x

    def forward(self, codes):
        """Vectors (..., d) of codes (...)."""
        ids = self.embedding(codes)
        if self.training and self.id_dropout:
            ids = ids * (torch.rand(*codes.shape, 1, device=ids.device) >= self.id_dropout)
        return self.encode(ids, self.features[codes])


class TwoTower(nn.Module):
    """A tower for users, one for items; the score is their dot product divided by the temperature.

    user_width, item_width: numbers of features; options: those of Tower (hidden, id_dropout,
    normalize), the same for both.
    """

    def __init__(self, n_users, n_items, embedding_dim, temperature, user_width=0, item_width=0, **options):
        super().__init__()
        self.config = options | {"n_users": n_users, "n_items": n_items, "embedding_dim": embedding_dim}
        self.config |= {"temperature": temperature, "user_width": user_width, "item_width": item_width}
        self.temperature = temperature
        self.user = Tower(n_users, embedding_dim, n_features=user_width, **options)
        self.item = Tower(n_items, embedding_dim, n_features=item_width, **options)

    def forward(self, users, items):
        """Scores of pairs; codes of shapes that broadcast: (B,) and (B,), or (B, 1) and (B, n)."""
        return (self.user(users) * self.item(items)).sum(-1) / self.temperature

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """User and item vectors, (n_users, d) and (n_items, d); their dot products rank."""
        return user_vectors(self), item_vectors(self)


@torch.no_grad()
def all_vectors(tower: Tower) -> np.ndarray:
    """Vectors of all codes of a tower, shape (n, d), float32, as it will be used: nothing left out."""
    return tower.eval()(torch.arange(tower.embedding.num_embeddings)).numpy()


def user_vectors(model: TwoTower) -> np.ndarray:
    """Shape (n_users, d), float32, rows of length one (unless the model was built otherwise)."""
    return all_vectors(model.user)


def item_vectors(model: TwoTower) -> np.ndarray:
    """Shape (n_items, d), float32, rows of length one (unless the model was built otherwise)."""
    return all_vectors(model.item)


def train_towers(model: nn.Module, loss, examples, *, learning_rate: float,
                 validation: Holdout | None = None, **training) -> pd.DataFrame:
    """Adam on loss(model, *batch); examples and the history as in training.fit.

    validation: measured by NDCG@10 after every epoch; the model ends with its best one. training:
    batch_size, epochs, seed and patience, as in training.fit.
    """
    adam = torch.optim.Adam(model.parameters(), learning_rate, fused=True)
    return fit(model, loss, examples, adam, **training,
               validate=None if validation is None else lambda: report(model, validation).mean("ndcg"))


def triplet_loss(positive: torch.Tensor, negative: torch.Tensor, margin: float = 0.2) -> torch.Tensor:
    """max(0, margin - positive + negative): an order is right once it is right by the margin.

    positive: scores, shape (B,); negative: scores, shape (B, n). A scalar, the mean over the B n
    pairs (Schroff et al. 2015, eq. 3, with cosines for distances).
    """
    return F.relu(margin - positive[:, None] + negative).mean()


def fit_sampled(train: Interactions, loss, negatives, *, embedding_dim: int, temperature: float,
                seed: int = 0, **training) -> tuple[TwoTower, pd.DataFrame]:
    """Two id towers trained on sampled negatives; the model and its history.

    loss: of positive scores (B,) and negative scores (B, n), a scalar. negatives: called once an
    epoch as negatives(model, rng), gives item codes, (len(train), n). training: as in train_towers.
    """
    torch.manual_seed(seed)
    model = TwoTower(train.n_users, train.n_items, embedding_dim, temperature)
    return model, train_towers(
        model, lambda model, u, i, j: loss(model(u, i), model(u[:, None], j)),
        lambda rng: (train.users, train.items, negatives(model, rng)), seed=seed, **training)


def in_batch_loss(model: TwoTower, users, items, log_q, seen, more=None) -> torch.Tensor:
    """Softmax over the items of the batch, corrected for how often they are in one (Yi et al. 2019,
    eqs. 3 to 5).

    users, items: codes of B positives. more: item codes, shape (B, n), further negatives for the whole
    batch (Yang et al. 2020). log_q: log-probability with which item i gets into a place of the softmax,
    shape (n_items,), subtracted; zeros correct nothing. seen: shape (n_users, n_items), -inf where a
    user has met an item, which is then no negative of theirs (accidental hit), else 0. A scalar, the mean.
    """
    candidates = items if more is None else torch.cat([items, more.ravel()])  # (C,), row b's is the b-th
    logits = model.user(users) / model.temperature @ model.item(candidates).T  # (B, C)
    hits = seen.index_select(0, users).index_select(1, candidates).fill_diagonal_(0)
    return F.cross_entropy(logits + (hits - log_q[candidates]), torch.arange(len(users), device=users.device))


def log_frequencies(train: Interactions, strength: float = 1.0, n_uniform: int = 0) -> torch.Tensor:
    """strength times log Q: Q is the share of an item in the rows, mixed with n_uniform parts of the
    uniform share; shape (n_items,). An item without rows counts as one with one row."""
    counts = train.item_counts
    share = (np.maximum(counts, 1) / len(train) + n_uniform / np.count_nonzero(counts)) / (1 + n_uniform)
    return torch.tensor(strength * np.log(share), dtype=torch.float32)


def fit_two_tower(
    train: Interactions, *, embedding_dim: int, temperature: float, logq: float = 1.0, n_uniform: int = 0,
    user_features: np.ndarray | None = None, item_features: np.ndarray | None = None,
    hidden: tuple[int, ...] = (), id_dropout: float = 0.0, normalize: bool = True, seed: int = 0, **training,
) -> tuple[TwoTower, pd.DataFrame]:
    """Two towers trained on the corrected in-batch softmax (Yi et al. 2019); the model and its history.

    temperature: cosines are divided by it. logq: strength of the correction, 0 for none, 1 for all of
    it. n_uniform: negatives that each row adds to its batch, uniform over the items that train knows.
    user_features, item_features: rows by code, shapes (n_users, f) and (n_items, g). hidden,
    id_dropout, normalize: of both towers. training: learning_rate, batch_size, epochs, validation
    and patience, as in train_towers. Memory: 12 * n_users * n_items bytes for the
    accidental hits. Raises ValueError for settings that cannot be used, and for features of a wrong shape.
    """
    check_settings(interactions=len(train), embedding_dim=embedding_dim, n_uniform=n_uniform)
    if not temperature > 0 or not 0 <= id_dropout <= 1:
        raise ValueError(f"temperature={temperature}, id_dropout={id_dropout}; expected above 0, and 0 to 1")
    rows = [_rows(user_features, train.n_users), _rows(item_features, train.n_items)]
    torch.manual_seed(seed)
    model = TwoTower(train.n_users, train.n_items, embedding_dim, temperature, *(r.shape[1] for r in rows),
                     hidden=list(hidden), id_dropout=id_dropout, normalize=normalize)
    for tower, features in zip((model.user, model.item), rows):
        tower.features.copy_(torch.tensor(features))
    known, log_q = np.flatnonzero(train.item_counts), log_frequencies(train, logq, n_uniform)
    seen = torch.where(torch.tensor(train.matrix().toarray()) > 0, -torch.inf, 0.0)
    return model, train_towers(
        model, lambda model, users, items, more: in_batch_loss(model, users, items, log_q, seen, more),
        lambda rng: (train.users, train.items, rng.choice(known, (len(train), n_uniform))),
        seed=seed, **training)


def _rows(features: np.ndarray | None, n: int) -> np.ndarray:
    features = np.zeros((n, 0), np.float32) if features is None else np.asarray(features, np.float32)
    if features.ndim != 2 or len(features) != n or not np.isfinite(features).all():
        raise ValueError(f"features of shape {features.shape}; expected finite numbers, a row for each of {n} codes")
    return features


def hide_films(split: Split, seed: int = 0) -> tuple[Split, np.ndarray, np.ndarray]:
    """A fifth of the films goes to test and a tenth to validation, each with all its ratings; the rows
    of the other films stay where they are. The split, and the codes of these two groups of films."""
    group = (np.random.default_rng(seed).permutation(split.data.n_items) % 10)[split.data.items]
    parts = np.select([group < 2, group == 2], [TEST, VALIDATION], split.parts)
    films = [np.unique(split.data.items[rows]) for rows in (group == 2, group < 2)]
    return Split(split.data, parts, "cold-films"), *films


def only(holdout: Holdout, films: np.ndarray) -> Holdout:
    """The same holdout with the rows of these films, (m,) codes, as its truth."""
    return replace(holdout, truth=holdout.truth.select(np.isin(holdout.truth.items, films)))


def film_rows(items: pd.DataFrame) -> np.ndarray:
    """What is known of a film before anybody rates it: genre shares and year of release (standardised,
    halved; an unknown year is the mean one), shape (n_items, n_genres + 1)."""
    year = items["year"].to_numpy(float)
    return np.column_stack([genre_matrix(items), np.nan_to_num((year - np.nanmean(year)) / np.nanstd(year)) / 2])


def genre_popularity(train: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """Films by genre alone: vectors (n_users, n_genres) and (n_items, n_genres), the scores are their
    dot products. A genre counts as much as its films are rated on average (films without ratings left
    out), times how much more of it the user watches than everybody."""
    genres, counts = genre_matrix(train.item_table).to_numpy(), train.item_counts
    typical = counts @ genres / np.maximum((counts > 0) @ genres, 1e-9)  # mean ratings of a film, by genre
    return profiles(train, genres) / np.maximum(counts @ genres / len(train), 1e-9) * typical, genres


def profiles(train: Interactions, rows: np.ndarray) -> np.ndarray:
    """Mean of the rows (n_items, f) of the films each user has met, shape (n_users, f)."""
    return np.asarray(train.matrix() @ rows) / np.maximum(train.user_counts, 1)[:, None]


def content_vectors(train: Interactions, tags: pd.DataFrame | None, n_components: int) -> np.ndarray:
    """TF-IDF of titles, genres and tags known in train (chapter 3), in n_components numbers an item.

    tags: as load_tags gives them, None for none. Truncated SVD; shape (n_items, n_components).
    """
    words = content_features(train.item_table, None if tags is None else known_tags(tags, train))
    return TruncatedSVD(n_components, random_state=0).fit_transform(words).astype(np.float32)


def save(model: TwoTower, folder: Path | str) -> None:
    """Weights and features to model.safetensors, what else it takes to rebuild it to model.json."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), Path(folder, "model.safetensors"))
    Path(folder, "model.json").write_text(json.dumps(model.config, indent=1), encoding="utf-8")


def load(folder: Path | str) -> TwoTower:
    """The model that save wrote, ready for use; nothing in the files is executed."""
    model = TwoTower(**json.loads(Path(folder, "model.json").read_text(encoding="utf-8")))
    model.load_state_dict(load_file(Path(folder, "model.safetensors")))
    return model.eval()


def build_artefact(folder: Path | str) -> TwoTower:
    """Train the book's two towers (ids, recorded setting) on train and validation, save and return them."""
    train = splits.temporal_per_user(load_house()).train_validation
    model, _ = fit_two_tower(train, **leaderboard.result("two_tower")["hyperparameters"])
    save(model, folder)
    return model.eval()
