"""Splits: which interactions train a model, which choose its settings, which judge it once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from recsys_utils.interactions import Interactions

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Holdout:
    """What one evaluation needs: the interactions a model has seen and the ones it has to find.

    seen: what the model was fitted on, masked in rankings. truth: the held-out rows, same users and items.
    part: "validation" or "test". protocol and fingerprint: those of the split.
    """

    seen: Interactions
    truth: Interactions
    part: str
    protocol: str
    fingerprint: str

    @cached_property
    def seen_matrix(self) -> sparse.csr_matrix:
        return self.seen.matrix()

    @cached_property
    def truth_matrix(self) -> sparse.csr_matrix:
        return self.truth.matrix()

    @cached_property
    def users(self) -> np.ndarray:
        """Codes of the users with at least one held-out item, ascending."""
        return np.flatnonzero(self.truth.user_counts)


@dataclass(frozen=True, eq=False)
class Split:
    """A three-way cut of interactions: parts[row] is 0 (train), 1 (validation) or 2 (test).

    Fit on `train` and choose on `validation`; then fit on `train_validation` and measure once on `test`.
    Raises ValueError when a part is empty or a (user, item) pair lies in two parts.
    """

    data: Interactions
    parts: np.ndarray
    protocol: str

    def __post_init__(self) -> None:
        given = np.asarray(self.parts)
        if given.shape != (len(self.data),) or not np.isin(given, (TRAIN, VALIDATION, TEST)).all():
            raise ValueError(f"parts has shape {given.shape}; expected {len(self.data)} values of 0, 1 or 2, one a row")
        parts = given.astype(np.int8)  # a copy that nobody can change after the fingerprint was taken
        parts.flags.writeable = False
        object.__setattr__(self, "parts", parts)
        for part, name in enumerate(("train", "validation", "test")):
            if not (parts == part).any():
                raise ValueError(f"the {name} part of the split is empty; give it a larger share or use more data")
        pairs = self.data.users.astype(np.int64) * self.data.n_items + self.data.items
        both = np.intersect1d(pairs[parts == TEST], pairs[parts != TEST])
        both = both if len(both) else np.intersect1d(pairs[parts == VALIDATION], pairs[parts == TRAIN])
        if len(both):
            user, item = divmod(int(both[0]), self.data.n_items)
            raise ValueError(
                f"user {self.data.user_ids[user]} and item {self.data.item_ids[item]} are in two parts; "
                f"a model would be tested on what it trained on. Keep one row a pair, or put all its rows in one part"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the data and of every row's part; it goes into each recorded result."""
        return hashlib.sha256(self.data.data_sha256.encode() + self.parts.tobytes()).hexdigest()[:16]

    @cached_property
    def train(self) -> Interactions:
        return self.data.select(self.parts == TRAIN)

    @cached_property
    def train_validation(self) -> Interactions:
        return self.data.select(self.parts != TEST)

    @cached_property
    def validation(self) -> Holdout:
        truth = self.data.select(self.parts == VALIDATION)
        return Holdout(self.train, truth, "validation", self.protocol, self.fingerprint)

    @cached_property
    def test(self) -> Holdout:
        truth = self.data.select(self.parts == TEST)
        return Holdout(self.train_validation, truth, "test", self.protocol, self.fingerprint)

    def __repr__(self) -> str:
        counts = np.bincount(self.parts, minlength=3)
        return "Split({}: train {:,}, validation {:,}, test {:,} rows)".format(self.protocol, *counts)


def temporal_per_user(data: Interactions, test: float = 0.2, validation: float = 0.1) -> Split:
    """The house protocol: each user's last `test` share in time is test, the `validation` share before it validation.

    Of a user's n rows in time order, row j (from 0) is test when j/n >= 1 - test, validation when
    1 - test - validation <= j/n < 1 - test. Equal time stamps keep the order of the file.
    """
    rank, size = _rank_in_group(data.users, _times(data))
    return Split(data, _cut(rank / size, test, validation), "house")


def random_per_user(data: Interactions, test: float = 0.2, validation: float = 0.1, seed: int = 0) -> Split:
    """Each user's rows in random order, then cut as in temporal_per_user: past and future are mixed."""
    rank, size = _rank_in_group(data.users, np.random.default_rng(seed).permutation(len(data)))
    return Split(data, _cut(rank / size, test, validation), "random-per-user")


def random_within_item(data: Interactions, test: float = 0.25, validation: float = 0.1875, seed: int = 0) -> Split:
    """Each item's rows in random order; the last `test` share is test, as the recommenders benchmark cuts ml-100k.

    The default takes validation as a quarter of what remains. Popularity is the same in every part by construction.
    """
    rank, size = _rank_in_group(data.items, np.random.default_rng(seed).permutation(len(data)))
    return Split(data, _cut(rank / size, test, validation), "within-item")


def leave_last_out(data: Interactions) -> Split:
    """Each user's last row in time is test, the one before it validation; ties keep the order of the file.

    Users with fewer than three rows stay in train.
    """
    rank, size = _rank_in_group(data.users, _times(data))
    last = np.where(size >= 3, size - rank, 3)
    return Split(data, np.select([last == 1, last == 2], [TEST, VALIDATION], TRAIN), "leave-one-out")


def global_temporal(data: Interactions, test: float = 0.2, validation: float = 0.1) -> Split:
    """One date for everybody: rows at or after it are test, those before an earlier date train.

    The dates are the time stamps at the given shares of all rows; equal time stamps are never torn apart, so the parts
    can be slightly larger than asked. Users and items without a past exist, as they do in life.
    """
    _check_shares(test, validation)
    times = _times(data)
    if not len(data):
        raise ValueError(f"{data.name} holds no interactions; nothing to split")
    ordered = np.sort(times)
    first_test = ordered[round((1 - test) * len(ordered))]
    first_validation = ordered[round((1 - test - validation) * len(ordered))]
    return Split(
        data, np.select([times >= first_test, times >= first_validation], [TEST, VALIDATION], TRAIN), "global-time"
    )


def _times(data: Interactions) -> np.ndarray:
    if data.timestamps is None:
        raise ValueError(f"{data.name} has no time stamps, so it cannot be split by time; use random_per_user")
    return data.timestamps


def _rank_in_group(groups: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position of each row within its group by ascending key (stable), and the group's size; both of shape (n,)."""
    order = np.lexsort((key, groups))
    counts = np.bincount(groups)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - starts[groups[order]]
    return rank, counts[groups]


def _check_shares(test: float, validation: float) -> None:
    if not (0 < test < 1 and 0 < validation < 1 and test + validation < 1):
        raise ValueError(f"test={test} and validation={validation}: both must lie in (0, 1) and leave a share to train")


def _cut(position: np.ndarray, test: float, validation: float) -> np.ndarray:
    _check_shares(test, validation)
    first_test, first_validation = 1 - test - 1e-9, 1 - test - validation - 1e-9  # 1 - .2 - .1 is not quite .7
    return np.select([position >= first_test, position >= first_validation], [TEST, VALIDATION], TRAIN)
