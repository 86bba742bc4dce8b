"""One harness for every model: scores in, a report with intervals over users out.

A scorer is any function from user codes, shape (B,), to scores, shape (B, n_items), higher is better.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils import metrics
from recsys_utils.retrieval import check_whole
from recsys_utils.splits import Holdout

Scorer = Callable[[np.ndarray], np.ndarray]

RANKING = ("ndcg", "recall", "precision", "hit_rate", "mrr", "map", "map_relevant", "novelty")
FULL_ORDER = ("auc", "map_full")
RATING = ("rmse", "mae", "r2")
AGAINST = ("ndcg", "hit_rate", "mrr")  # of one held-out item among negatives
BOOTSTRAP = 1000
BATCH_CELLS = 2_000_000  # scores held at once: about 16 MB in float64


@dataclass(frozen=True, eq=False)
class Report:
    """What one evaluation measured.

    users: codes, shape (U,). columns: per-user sums, shape (U, C); a ranking metric is its own column, the rating
    metrics share the columns metrics.RATING_SUMS. names: the metrics. catalogue: numbers without interval (coverage).
    fingerprint, protocol, part: of the split. seconds: wall time of scoring and ranking. items: the lists that were
    measured, item codes of shape (U, k), -1 for an empty place; None where there were none.
    """

    users: np.ndarray
    columns: np.ndarray
    names: tuple[str, ...]
    k: int | None
    catalogue: dict[str, float]
    protocol: str
    part: str
    fingerprint: str
    seconds: float = 0.0
    items: np.ndarray | None = None

    def values(self, name: str) -> np.ndarray:
        """Per-user values of a ranking metric, shape (U,)."""
        if name not in self.names or name in RATING:
            raise KeyError(
                f"no per-user values of {name!r}; this report has {[n for n in self.names if n not in RATING]}"
            )
        return self.columns[:, self.names.index(name)]

    def _pooled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics under the given user weights, shape (R, U) → {name: (R,)}; users without a value are left out."""
        if self.names == RATING:
            sums = weights @ self.columns
            return {name: getattr(metrics, name)(sums) for name in RATING}
        known = ~np.isnan(self.columns)
        totals, users = weights @ np.where(known, self.columns, 0), weights @ known.astype(float)
        means = np.divide(totals, users, out=np.full_like(totals, np.nan), where=users > 0)
        return {name: means[:, column] for column, name in enumerate(self.names)}

    @cached_property
    def means(self) -> dict[str, float]:
        pooled = {name: float(value[0]) for name, value in self._pooled(np.ones((1, len(self.users)))).items()}
        return pooled | self.catalogue

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95% percentile bootstrap over users, 1,000 resamples, seed 0."""
        return {name: _interval(draws) for name, draws in _bootstrap(self).items()}

    def mean(self, name: str) -> float:
        if name not in self.means:
            raise KeyError(f"no metric {name!r}; this report has {sorted(self.means)}")
        return self.means[name]

    def low(self, name: str) -> float:
        return self.intervals[name][0]

    def high(self, name: str) -> float:
        return self.intervals[name][1]

    def interval(self, name: str) -> tuple[float, float, float]:
        """Mean, low and high, as plots.intervals wants them."""
        return self.mean(name), self.low(name), self.high(name)

    def __format__(self, name: str) -> str:
        if not name:
            return repr(self)
        if name in self.catalogue:
            return f"{self.mean(name):.3f}"
        return f"{self.mean(name):.3f} [{self.low(name):.3f}, {self.high(name):.3f}]"

    def frame(self) -> pd.DataFrame:
        """Mean and 95% interval of each metric, one row a metric."""
        rows = {name: (self.means[name], *self.intervals.get(name, (np.nan, np.nan))) for name in self.means}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"])

    def __repr__(self) -> str:
        first = ", ".join(f"{name} {self:{name}}" for name in self.names[:2])
        return f"Report({self.protocol} {self.part}, {len(self.users):,} users, k={self.k}: {first})"

    def _repr_html_(self) -> str:
        table = self.frame().round(3).astype(object).where(lambda cells: cells.notna(), "")
        return f"<p>{self.protocol}, {self.part}: {len(self.users):,} users, k = {self.k}</p>" + table.to_html()


@dataclass(frozen=True, eq=False)
class Comparison:
    """Paired difference report - other: means and 95% bootstrap intervals with the same resampled users in both."""

    report: Report
    other: Report
    differences: dict[str, tuple[float, float, float]]  # mean, low, high

    def mean(self, name: str) -> float:
        return self.differences[name][0]

    def low(self, name: str) -> float:
        return self.differences[name][1]

    def high(self, name: str) -> float:
        return self.differences[name][2]

    def __format__(self, name: str) -> str:
        return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*self.differences[name])


def compare(report: Report, other: Report) -> Comparison:
    """Paired bootstrap of two reports on the same users, split and k. Raises ValueError when they do not match."""
    for name in ("fingerprint", "part", "k", "names"):
        if getattr(report, name) != getattr(other, name):
            raise ValueError(
                f"{name} differs: {getattr(report, name)!r} against {getattr(other, name)!r}; "
                f"only reports of the same split, part, k and metrics can be compared user by user"
            )
    if not np.array_equal(report.users, other.users):
        raise ValueError("the two reports measured different users; evaluate both on the same ones")
    ours, theirs = _bootstrap(report), _bootstrap(other)
    differences = {n: (report.mean(n) - other.mean(n), *_interval(ours[n] - theirs[n])) for n in report.names}
    return Comparison(report, other, differences)


def evaluate(
    scorer: Scorer,
    holdout: Holdout,
    k: int = 10,
    *,
    candidates: np.ndarray | None = None,
    mask_seen: bool = True,
    users: np.ndarray | None = None,
    full_order: tuple[str, ...] = (),
    seed: int = 0,
) -> Report:
    """Rank the whole catalogue for every user with held-out items, seen items left out, and measure the top k.

    candidates: item codes that may be ranked, None for all. users: codes, None for all with held-out items.
    full_order: metrics that need the whole order: "auc", "map_full". Users are streamed in batches, so memory does not
    grow with their number. Equal scores are ordered by a permutation seeded by (seed, user).
    Raises ValueError for scores of a wrong shape or that are nan. A score of -inf means "not a candidate"; a list with
    fewer than k candidates is padded with -1 and scored as if the empty places were misses.
    """
    started = time.perf_counter()
    check_whole("k", k)
    unknown = set(full_order) - set(FULL_ORDER)
    if unknown:
        raise ValueError(f"full_order={full_order!r}; expected some of {FULL_ORDER}")
    users = _checked_users(users, holdout)
    n_items = holdout.seen.n_items
    excluded = None
    if candidates is not None:
        candidates = np.asarray(candidates)
        whole = candidates.size and np.issubdtype(candidates.dtype, np.integer)
        if not whole or candidates.min() < 0 or candidates.max() >= n_items:
            raise ValueError(
                f"candidates holds {candidates.dtype} values {candidates[:3]}…; expected item codes in 0..{n_items - 1}"
                f" (np.flatnonzero makes them from a mask)"
            )
        excluded = np.setdiff1d(np.arange(n_items), candidates)
    ranked, extra = [], []
    batch = max(1, BATCH_CELLS // n_items)
    for start in range(0, len(users), batch):
        rows = users[start : start + batch]
        scores = _scores(scorer, rows, n_items)
        if mask_seen:
            _mask(scores, holdout.seen_matrix[rows])
        if excluded is not None:
            scores[:, excluded] = -np.inf
        ranked.append(top_k(scores, k, rows, seed))
        if full_order:
            extra.append(_full_order(scores, rows, holdout, full_order, seed))
    return evaluate_rankings(
        np.concatenate(ranked) if ranked else np.empty((0, k), np.int64),
        holdout,
        users=users,
        seconds=time.perf_counter() - started,
        more={name: np.concatenate([block[name] for block in extra]) for name in full_order},
    )


def evaluate_rankings(
    items: np.ndarray,
    holdout: Holdout,
    *,
    users: np.ndarray | None = None,
    seconds: float = 0.0,
    more: dict[str, np.ndarray] | None = None,
) -> Report:
    """Every ranking metric from ranked item codes, shape (U, k), best first; -1 marks an empty place.

    users: codes of the rows, shape (U,), None for all users with held-out items in ascending order.
    more: further per-user values, shape (U,) each. Raises ValueError for unknown or repeated items in a list.
    """
    users = _checked_users(users, holdout)
    items = np.asarray(items)
    if items.ndim != 2 or len(items) != len(users) or not np.issubdtype(items.dtype, np.integer):
        raise ValueError(
            f"items has shape {items.shape} and type {items.dtype}; expected item codes of shape ({len(users)}, k), "
            f"one list a user with held-out items"
        )
    n_items = holdout.seen.n_items
    if items.size and (items.min() < -1 or items.max() >= n_items):
        raise ValueError(
            f"item codes run from {items.min()} to {items.max()}; expected 0..{n_items - 1}, or -1 for none"
        )
    ordered = np.sort(items, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        row = int(twice.argmax())
        raise ValueError(f"the list of user code {users[row]} holds an item twice: {items[row].tolist()}")
    truth = holdout.truth_matrix
    hits = membership(truth, users, items)
    n_relevant = np.diff(truth.indptr)[users]
    values = {
        "ndcg": metrics.ndcg(hits, n_relevant),
        "recall": metrics.recall(hits, n_relevant),
        "precision": metrics.precision(hits, n_relevant),
        "hit_rate": metrics.hit_rate(hits, n_relevant),
        "mrr": metrics.mrr(hits, n_relevant),
        "map": metrics.average_precision(hits, n_relevant),
        "map_relevant": metrics.average_precision(hits, n_relevant, denominator="relevant"),
        "novelty": metrics.novelty(items, holdout.seen_matrix.getnnz(axis=0), holdout.seen.n_users),
    } | (more or {})
    return Report(
        users=users,
        columns=np.stack(list(values.values()), axis=1),
        names=tuple(values),
        k=items.shape[1],
        catalogue={"coverage": metrics.coverage(items, n_items)},
        protocol=holdout.protocol,
        part=holdout.part,
        fingerprint=holdout.fingerprint,
        seconds=seconds,
        items=items,
    )


def evaluate_ratings(predictions: np.ndarray, holdout: Holdout) -> Report:
    """RMSE, MAE and R² of predicted ratings, pooled over ratings; intervals resample users.

    predictions: shape (n,), in stars, one for each row of holdout.truth, in its order.
    """
    truth = holdout.truth
    if truth.ratings is None:
        raise ValueError(f"{truth.name} has no ratings to predict; use evaluate for rankings")
    sums = metrics.rating_sums(truth.users, truth.ratings, predictions, truth.n_users)[holdout.users]
    return Report(holdout.users, sums, RATING, None, {}, holdout.protocol, holdout.part, holdout.fingerprint)


def evaluate_with_sampled_negatives(
    scorer: Scorer, holdout: Holdout, k: int = 10, n_negatives: int = 99, seed: int = 0
) -> Report:
    """Rank each held-out item among n_negatives sampled unseen items only: the shortcut of many papers.

    The values are not comparable with those of evaluate, nor with another number of negatives, and can reverse
    the order of models (Krichene & Rendle 2020). A user with several held-out items counts as their mean; ties are
    broken at random. Negatives are uniform over the items the user has neither seen nor held out.
    """
    from recsys_utils.sampling import NegativeSampler

    check_whole("k", k)
    if n_negatives < 1:
        raise ValueError(f"n_negatives={n_negatives}; expected at least 1, or every model is perfect")
    rng = np.random.default_rng(seed)
    sampler = NegativeSampler(holdout.seen_matrix + holdout.truth_matrix)
    truth = holdout.truth_matrix
    values = []
    batch = max(1, BATCH_CELLS // holdout.seen.n_items)
    for start in range(0, len(holdout.users), batch):
        rows = holdout.users[start : start + batch]
        scores = _scores(scorer, rows, holdout.seen.n_items)
        local = np.repeat(np.arange(len(rows)), np.diff(truth.indptr)[rows])
        positives = truth[rows].indices
        negatives = sampler.sample(rows[local], n_negatives, rng)  # (P, n_negatives)
        per_positive = _against(scores[local, positives], scores[local[:, None], negatives], k, rng)
        sums = np.stack([np.bincount(local, column, len(rows)) for column in per_positive.T], axis=1)
        values.append(sums / np.bincount(local, minlength=len(rows))[:, None])
    columns, part = np.concatenate(values), f"{holdout.part}, {n_negatives} sampled negatives"
    return Report(holdout.users, columns, AGAINST, k, {}, holdout.protocol, part, holdout.fingerprint)


def evaluate_against_negatives(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    holdout: Holdout,
    negatives: np.ndarray,
    k: int = 10,
    seed: int = 0,
) -> Report:
    """Rank the one held-out item of each user among negatives somebody has fixed, shape (U, n): He et al. (2017).

    score: user codes (B,) and item codes (B, n) → scores (B, n). A negative that is the held-out item itself does not
    compete; how many users have one is reported as positive_among_negatives. Ties are broken at random.
    Not comparable with evaluate, as evaluate_with_sampled_negatives says. Raises ValueError for users with several
    held-out items, negatives of another shape, unknown codes, and scores that are nan or of a wrong shape.
    """
    started = time.perf_counter()
    check_whole("k", k)
    users, positives, negatives = holdout.users, holdout.truth_matrix.indices, np.asarray(negatives)
    if len(positives) != len(users):
        raise ValueError(f"{len(users)} users have {len(positives)} held-out items; expected one a user")
    whole = negatives.ndim == 2 and negatives.size and np.issubdtype(negatives.dtype, np.integer)
    if not whole or len(negatives) != len(users) or negatives.min() < 0 or negatives.max() >= holdout.seen.n_items:
        raise ValueError(
            f"negatives has shape {negatives.shape} and type {negatives.dtype}; expected item codes below "
            f"{holdout.seen.n_items}, one row for each of {len(users)} users with a held-out item"
        )
    scores = np.asarray(score(users, np.column_stack([positives, negatives])))
    if scores.shape != (len(users), 1 + negatives.shape[1]) or np.isnan(scores).any():
        raise ValueError(f"score returned shape {scores.shape}, or nan; expected one number a candidate")
    itself = negatives == positives[:, None]
    theirs = np.where(itself, -np.inf, scores[:, 1:])
    columns = _against(scores[:, 0], theirs, k, np.random.default_rng(seed))
    part, seconds = f"{holdout.part}, {negatives.shape[1]} given negatives", time.perf_counter() - started
    among = {"positive_among_negatives": float(itself.any(axis=1).sum())}
    return Report(users, columns, AGAINST, k, among, holdout.protocol, part, holdout.fingerprint, seconds)


def _against(mine: np.ndarray, theirs: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """AGAINST of positives with scores (P,) among negatives with scores (P, n), ties at random: shape (P, 3)."""
    mine = mine[:, None]
    rank = (theirs > mine).sum(axis=1) + rng.integers(0, (theirs == mine).sum(axis=1) + 1)
    hit = rank < k
    return np.stack([hit / np.log2(rank + 2), hit, hit / (rank + 1)], axis=1)


def recommend(scorer: Scorer, seen: sparse.csr_matrix, users: np.ndarray, k: int = 10, seed: int = 0) -> np.ndarray:
    """Item codes of the k best items each user has not seen, best first, shape (B, k); -1 where candidates run out.

    seen: stored entries are left out, shape (n_users, n_items). users: codes, shape (B,). Ties as in evaluate.
    """
    scores = _scores(scorer, users, seen.shape[1])
    _mask(scores, seen[users])
    return top_k(scores, k, users, seed)


def dense_scorer(matrix: np.ndarray | sparse.spmatrix, weights: np.ndarray | None = None) -> Scorer:
    """A scorer from stored scores, shape (n_users, n_items); or from features (n_users, d) and weights (d, n_items)."""
    matrix = matrix.tocsr() if sparse.issparse(matrix) else np.asarray(matrix)

    def score(users: np.ndarray) -> np.ndarray:
        block = matrix[users] if weights is None else matrix[users] @ weights
        return block.toarray() if sparse.issparse(block) else block

    return score


def top_k(scores: np.ndarray, k: int, users: np.ndarray, seed: int = 0) -> np.ndarray:
    """Item codes of the k highest scores of each row, best first, shape (B, k); -1 where candidates run out.

    scores: shape (B, n_items), -inf marks what is not a candidate. Ties, those at the boundary of the top k included,
    are ordered by a permutation of the items seeded by (seed, user), so neither item ids nor batches decide.
    """
    n_rows, n_items = scores.shape
    width = min(k, n_items)
    spare = min(width + 1, n_items)  # one place more shows whether the last one is contested
    top = np.argpartition(scores, n_items - spare, axis=1)[:, n_items - spare :]
    top, values = _in_order(scores, top, users, seed)
    contested = (values[:, width - 1] == values[:, -1]) & (values[:, -1] > -np.inf) & (spare > width)
    tied, step = np.flatnonzero(contested), max(1, BATCH_CELLS // n_items)
    for rows in (tied[start : start + step] for start in range(0, len(tied), step)):
        block, boundary = scores[rows], values[rows, width - 1][:, None]
        lottery = -_priority(seed, users[rows][:, None], np.arange(n_items)[None, :])  # in (-1, 0], as sorted below
        lottery[block > boundary] = 1.0
        lottery[block < boundary] = -2.0
        winners = np.argpartition(lottery, n_items - width, axis=1)[:, n_items - width :]
        top[rows, :width], values[rows, :width] = _in_order(block, winners, users[rows], seed)
    ranked = np.full((n_rows, k), -1, np.int64)
    ranked[:, :width] = np.where(values == -np.inf, -1, top)[:, :width]
    return ranked


def _in_order(scores: np.ndarray, items: np.ndarray, users: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Items of each row by falling score, ties by lottery, and their scores; items: shape (B, w)."""
    values = np.take_along_axis(scores, items, axis=1)
    order = np.lexsort((_priority(seed, users[:, None], items), -values), axis=1)
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(values, order, axis=1)


def membership(matrix: sparse.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whether matrix[rows[u], columns[u, r]] is stored, shape of columns; a column of -1 is never stored."""
    n_rows, n = matrix.shape
    matrix.sort_indices()
    stored = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(matrix.indptr)) * n + matrix.indices
    stored = np.append(stored, n_rows * n)  # beyond every cell, so that each search ends at a stored one
    wanted = np.where(columns < 0, -1, rows[:, None].astype(np.int64) * n + columns)
    return stored[np.searchsorted(stored, wanted)] == wanted


def _priority(seed: int, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one per (seed, user, item): the finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed % 2**64) * np.uint64(0x9E3779B97F4A7C15) + users.astype(np.uint64) * np.uint64(
            0xD1B54A32D192ED03
        )
        state = _mix(state) + items.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (_mix(state) >> np.uint64(11)) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _full_order(
    scores: np.ndarray, rows: np.ndarray, holdout: Holdout, names: tuple[str, ...], seed: int
) -> dict[str, np.ndarray]:
    relevant = holdout.truth_matrix[rows].toarray() > 0
    out = {}
    if "auc" in names:
        out["auc"] = metrics.auc(scores, relevant, scores > -np.inf)
    if "map_full" in names:
        order = np.lexsort((_priority(seed, rows[:, None], np.arange(scores.shape[1])[None, :]), -scores), axis=1)
        hits = np.take_along_axis(relevant & (scores > -np.inf), order, axis=1)
        out["map_full"] = metrics.average_precision(hits, relevant.sum(axis=1))
    return out


def _scores(scorer: Scorer, users: np.ndarray, n_items: int) -> np.ndarray:
    scores = np.array(scorer(users))  # a copy: masking must not reach into the model
    if scores.shape != (len(users), n_items):
        raise ValueError(
            f"the scorer returned shape {scores.shape} for {len(users)} users; expected ({len(users)}, {n_items})"
        )
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    with np.errstate(all="ignore"):  # inf - inf and overflow: only a hint to look closer
        suspicious = np.isnan(scores.sum())
    if suspicious and np.isnan(scores).any():
        row, item = np.argwhere(np.isnan(scores))[0]
        raise ValueError(
            f"the score of user code {users[row]} and item code {item} is nan; scores must be numbers or -inf"
        )
    return scores


def _mask(scores: np.ndarray, seen: sparse.csr_matrix) -> None:
    """Set the scores of the stored entries to -inf, in place; both of shape (B, n_items)."""
    scores[np.repeat(np.arange(len(scores)), np.diff(seen.indptr)), seen.indices] = -np.inf


def _checked_users(users: np.ndarray | None, holdout: Holdout) -> np.ndarray:
    if users is None:
        users = holdout.users
    users = np.asarray(users)
    if not users.size:
        raise ValueError("no user to evaluate: users is empty, or nobody has a held-out item")
    if users.ndim != 1 or not np.issubdtype(users.dtype, np.integer):
        raise ValueError(
            f"users has shape {users.shape} and type {users.dtype}; expected user codes of shape (U,), "
            f"some of holdout.users"
        )
    missing = users[~np.isin(users, holdout.users)]
    if len(missing):
        raise ValueError(
            f"user code {missing[0]} has no held-out item, so no metric is defined; use codes of holdout.users"
        )
    return users


def _bootstrap(report: Report, seed: int = 0) -> dict[str, np.ndarray]:
    """Metrics of BOOTSTRAP resamples of the users, {name: (BOOTSTRAP,)}; equal seeds resample equal users."""
    rng = np.random.default_rng(seed)
    n = len(report.users)
    step = max(1, BATCH_CELLS // n)
    draws: list[dict[str, np.ndarray]] = []
    for start in range(0, BOOTSTRAP, step):
        size = min(step, BOOTSTRAP - start)
        picks = rng.integers(0, n, (size, n)) + np.arange(size)[:, None] * n
        weights = np.bincount(picks.ravel(), minlength=size * n).reshape(size, n).astype(float)
        draws.append(report._pooled(weights))
    return {name: np.concatenate([draw[name] for draw in draws]) for name in draws[0]}


def _interval(draws: np.ndarray) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (np.nan, np.nan)
    return float(low), float(high)
