# Exported from notebooks/15_how_to_be_fooled.ipynb; edit there.
"""Written in chapter 15, where it is explained line by line."""

from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse, stats

from recsys_utils import leaderboard, metrics, splits
from recsys_utils.datasets import load_house, load_movielens
from recsys_utils.evaluation import Report, Scorer, compare, dense_scorer, evaluate, membership, recommend
from recsys_utils.interactions import Interactions
from recsys_utils.models import baselines, bpr_numba, ials, mf, mf_numba, neighbours
from recsys_utils.sampling import NegativeSampler
from recsys_utils.splits import Holdout

PLACES = 100  # length of the lists; a metric cuts them at its own k


class Lists(NamedTuple):
    """Ranked lists as a metric sees them; list r belongs to the user with code users[r].

    users: (R,). hits: (R, PLACES), True where a place holds a relevant item. n_relevant: how many
    items the list could have found, (R,). n_candidates: how many items competed for it, (R,).
    """

    users: np.ndarray
    hits: np.ndarray
    n_relevant: np.ndarray
    n_candidates: np.ndarray


def fit_ease_fast(
    train: Interactions, regularization: float, history: Interactions | None = None
) -> np.ndarray:
    """Scores of EASE (chapter 4), inverted on the side of the users: (n_users, n_items).

    history: whose rows the weights are applied to, None for train itself.
    """
    X = train.matrix().toarray().astype(float)
    H = X if history is None else history.matrix().toarray().astype(float)
    W = np.linalg.solve(X @ X.T + regularization * np.eye(len(X)), X)  # (n_users, n_items)
    diagonal = 1 - (X * W).sum(axis=0)  # λ times the diagonal of the inverse, (n_items,)
    return (H - (H - (H @ X.T) @ W) / diagonal).astype(np.float32)


def setting(model: str) -> dict:
    """The hyper-parameters recorded for the house protocol, chosen on validation."""
    return leaderboard.result(model)["hyperparameters"] | ({"epochs": 5} if model == "ials" else {})


@cache
def fit_panel(holdout: Holdout, films: Interactions | None = None) -> dict[str, Scorer]:
    """Five models: histories from what may be seen, and so is what is known about films.

    films: other rows to learn about films from.
    """
    films, H, s = films or holdout.seen, holdout.seen.matrix().astype(float), setting("ials")
    (_, V), (P, Q) = ials.fit_ials(films, **s), mf_numba.fit_mf(films, **setting("mf"))[0]
    weight = (s["alpha"] - 1) * H.getnnz(axis=1) + H.shape[1]  # the users' half step of chapter 7
    penalty = s["regularization"] * (weight / weight.mean()) ** s["frequency"]
    U = mf.half_step((s["alpha"] - 1) * H, s["alpha"] * H, V, penalty, gram=V.T @ V)
    similarity = neighbours.cosine_neighbours(films.matrix(), **setting("item_knn"))
    return {
        "popularity": baselines.fit_popularity(films, **setting("popularity")),
        "item_knn": dense_scorer(H.astype(np.float32) @ similarity),
        "ease": dense_scorer(fit_ease_fast(films, **setting("ease"), history=holdout.seen)),
        "ials": dense_scorer(U, V.T),
        "mf": dense_scorer(P, Q.T),
    }


def last_fifth(data: Interactions) -> Holdout:
    return splits.temporal_per_user(data).test


def every_rating(holdout: Holdout) -> Holdout:
    return holdout


def lists_of(items: np.ndarray, holdout: Holdout, n_candidates: np.ndarray) -> Lists:
    """Lists of ranked item codes, (U, PLACES), one a user."""
    users, truth = holdout.users, holdout.truth_matrix
    return Lists(users, membership(truth, users, items), truth.getnnz(axis=1)[users], n_candidates)


def unseen(scorer: Scorer, holdout: Holdout) -> Lists:
    seen, users = holdout.seen_matrix, holdout.users
    items = recommend(scorer, seen, users, PLACES)
    return lists_of(items, holdout, seen.shape[1] - seen.getnnz(axis=1)[users])


def ndcg(lists: Lists, k: int = 10) -> np.ndarray:
    return metrics.ndcg(lists.hits[:, :k], lists.n_relevant)


def over_users(values: np.ndarray, lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """Users and the mean of each one's lists, both (U,)."""
    users, row = np.unique(lists.users, return_inverse=True)
    return users, np.bincount(row, values) / np.bincount(row)


HOUSE = {
    "data": load_house, "split": last_fifth, "truth": every_rating, "fit": fit_panel,
    "lists": unseen, "metric": ndcg, "average": over_users,
}  # fmt: skip


@cache
def hidden(data, split) -> Holdout:
    return split(data())


@cache
def fitted(data, split, fit) -> dict[str, Scorer]:
    return fit(hidden(data, split))


@cache
def measured(data, split, truth, fit, lists, metric, average) -> Report:
    holdout, columns = truth(hidden(data, split)), []
    panel = fitted(data, split, fit)
    for scorer in panel.values():
        ranked = lists(scorer, holdout)
        users, values = average(metric(ranked), ranked)
        columns.append(values)
    return Report(users, np.stack(columns, axis=1), tuple(panel), None, {}, "laboratory", "test", "")


def measure(**changes) -> Report:
    """The house protocol with some steps replaced: a report with one column a model, (U, models).

    changes: step=function, the steps of HOUSE. Raises ValueError for a step that does not exist.
    """
    if unknown := set(changes) - set(HOUSE):
        raise ValueError(f"unknown steps {sorted(unknown)}; a protocol has {', '.join(HOUSE)}")
    return measured(*(HOUSE | changes).values())


class Switch(NamedTuple):
    """One change of protocol. changes and base: steps of HOUSE replaced after, and already before.

    moves: what the number does: "up" and "down" clearly, "little" (less than .01), or "never down".
    model: whose number is followed.
    """

    changes: dict
    moves: str
    base: dict | None = None
    model: str = "ease"


SWITCHES: dict[str, Switch] = {}


class Row(NamedTuple):
    """What a switch did: the panel before and after, and the model that is followed."""

    name: str
    model: str
    before: Report
    after: Report


def run(name: str) -> Row:
    """Measure the panel on both sides of a switch."""
    changes, _, base, model = SWITCHES[name]
    base = base or {}
    return Row(name, model, measure(**base), measure(**base | changes))


def difference(row: Row) -> tuple[float, float, float] | None:
    """After minus before: mean, low and high of the paired interval; None where users differ."""
    if not np.array_equal(row.after.users, row.before.users):
        return None
    return compare(row.after, row.before).differences[row.model]


def as_stated(row: Row) -> bool:
    """Whether the followed number moved as its switch says."""
    (before, low, high), (after, *ends) = (side.interval(row.model) for side in (row.before, row.after))
    _, low, high = difference(row) or (None, ends[0] - high, ends[1] - low)
    answers = {"up": low > 0, "down": high < 0, "little": abs(after - before) < 0.01, "never down": after >= before}
    return bool(answers[SWITCHES[row.name].moves])


def order(panel: Report) -> list[str]:
    """Model ids by falling mean."""
    return sorted(panel.names, key=panel.mean, reverse=True)


@cache
def ahead(panel: Report) -> set[tuple[str, str]]:
    """Pairs (better, worse) that the paired interval separates."""
    pairs = set()
    for column, worse in enumerate(panel.names):
        versus = compare(panel, replace(panel, columns=panel.columns[:, [column] * len(panel.names)]))
        pairs |= {(better, worse) for better in panel.names if versus.low(better) > 0}
    return pairs


def reversed_pairs(row: Row) -> set[tuple[str, str]]:
    """Pairs clearly ordered before, and clearly the other way round after: (better after, worse)."""
    return {(b, a) for a, b in ahead(row.before)} & ahead(row.after)


def random_fifth(data: Interactions) -> Holdout:
    return splits.random_per_user(data).test


def last_one(data: Interactions) -> Holdout:
    return splits.leave_last_out(data).test


def one_date(data: Interactions) -> Holdout:
    return splits.global_temporal(data).test


SWITCHES["random split"] = Switch({"split": random_fifth}, "up")
SWITCHES["leave last out"] = Switch({"split": last_one}, "down")
SWITCHES["one date"] = Switch({"split": one_date}, "down")


def fit_with_fallback(holdout: Holdout) -> dict[str, Scorer]:
    """The panel; popularity decides where a model gives equal scores."""
    return {name: lambda users, scorer=scorer: np.asarray(scorer(users), float) + 1e-9 * holdout.seen.item_counts
            for name, scorer in fit_panel(holdout).items()}


SWITCHES["one date, with a fallback"] = Switch({"fit": fit_with_fallback}, "up", {"split": one_date})


def shuffled_times() -> Interactions:
    data = load_house()
    return replace(data, timestamps=np.random.default_rng(0).permutation(data.timestamps))


def file_backwards() -> Interactions:
    data = load_house()
    return data.select(np.arange(len(data))[::-1])


SWITCHES["file read backwards"] = Switch({"data": file_backwards}, "little", {"split": last_one})
SWITCHES["shuffled time stamps"] = Switch({"data": shuffled_times}, "up", {"split": last_one})


def everything(holdout: Holdout) -> Interactions:
    """What may be seen and what is hidden, in one table."""
    sides, columns = (holdout.seen, holdout.truth), ("users", "items", "ratings", "timestamps")
    return replace(holdout.seen, **{c: np.concatenate([getattr(side, c) for side in sides]) for c in columns})


def fit_leaky(holdout: Holdout) -> dict[str, Scorer]:
    return fit_panel(holdout, everything(holdout))


SWITCHES["film features from all rows"] = Switch({"fit": fit_leaky}, "up")


def rows_twice() -> Interactions:
    data = load_house()
    return data.select(np.repeat(np.arange(len(data)), 2))


def rows_at_random(data: Interactions) -> Holdout:
    """A random fifth of each user's rows, with no question asked about repeated ones."""
    draw = pd.Series(np.random.default_rng(0).random(len(data))).groupby(data.users)
    test = draw.rank(pct=True).to_numpy() > 0.8
    return Holdout(data.select(~test), data.select(test), "test", "rows-at-random", "unchecked")


SWITCHES["rows twice"] = Switch({"data": rows_twice}, "down", {"split": rows_at_random})


def with_seen(scorer: Scorer, holdout: Holdout) -> Lists:
    nothing = sparse.csr_matrix(holdout.seen_matrix.shape)
    items = recommend(scorer, nothing, holdout.users, PLACES)
    return lists_of(items, holdout, np.full(len(items), nothing.shape[1]))


SWITCHES["seen films left in"] = Switch({"lists": with_seen}, "down")
SWITCHES["rows twice, seen films left in"] = Switch(
    {"data": rows_twice}, "up", {"split": rows_at_random, "lists": with_seen})


LOOKS = range(10, 81, 10)  # passes after which somebody looks
BPR = {"embedding_dim": 32, "learning_rate": 0.05, "regularization": 0.01}


def bpr(train: Interactions, epochs: int, seed: int = 0) -> Scorer:
    U, V = bpr_numba.fit_bpr_numba(train, **BPR, epochs=epochs, seed=seed)
    return dense_scorer(U, V.T)


def best_look(holdout: Holdout, seed: int = 0) -> int:
    """The number of passes with the highest NDCG@10 on the holdout, whatever part that is."""
    return max(LOOKS, key=lambda epochs: evaluate(bpr(holdout.seen, epochs, seed), holdout).mean("ndcg"))


def fit_with_bpr(holdout: Holdout, watched: Holdout | None = None) -> dict[str, Scorer]:
    """The panel, and BPR with the number of passes that a part chose: validation, or the one given."""
    watched = watched or splits.temporal_per_user(load_house()).validation
    return fit_panel(holdout) | {"bpr": bpr(holdout.seen, best_look(watched))}


def fit_best_test_epoch(holdout: Holdout) -> dict[str, Scorer]:
    return fit_with_bpr(holdout, watched=holdout)


SWITCHES["best test epoch"] = Switch({"fit": fit_best_test_epoch}, "never down", {"fit": fit_with_bpr}, "bpr")


all_films = partial(load_movielens, "latest-small")
SWITCHES["films with few ratings kept"] = Switch({"data": all_films}, "little")


def codes_below_n_users(scorer: Scorer, holdout: Holdout) -> Lists:
    allowed = np.arange(holdout.seen.n_items) < holdout.seen.n_users
    return unseen(lambda users: np.where(allowed, scorer(users), -np.inf), holdout)


SWITCHES["candidates by number of users"] = Switch({"lists": codes_below_n_users}, "down")


def positives_win(scorer: Scorer, holdout: Holdout) -> Lists:
    truth = holdout.truth_matrix
    return unseen(lambda users: np.asarray(scorer(users), float) + 1e-9 * truth[users].toarray(), holdout)


SWITCHES["positives win ties"] = Switch({"lists": positives_win}, "little")
SWITCHES["positives win ties, one date"] = Switch({"lists": positives_win}, "up", {"split": one_date})


def alone(scorer: Scorer, holdout: Holdout, rivals: NegativeSampler | None = None, seed: int = 0) -> Lists:
    """One list for each hidden item: its place among unmet items, all of them or 99 drawn ones."""
    users, rng, met = holdout.users, np.random.default_rng(seed), holdout.seen_matrix + holdout.truth_matrix
    row, items = holdout.truth_matrix[users].nonzero()  # (R,), one a hidden item
    scores = np.array(scorer(users), float)
    own = scores[row, items]
    if rivals is not None:
        others = scores[row[:, None], rivals.sample(users[row], PLACES - 1, rng)]  # (R, 99)
        above, level = (others > own[:, None]).sum(axis=1), (others == own[:, None]).sum(axis=1)
    else:
        scores[met[users].nonzero()] = -np.inf
        ordered = np.sort(-scores, axis=1)
        above, upto = (np.array([np.searchsorted(ordered[r], -score, side) for r, score in zip(row, own)])
                       for side in ("left", "right"))
        level = upto - above
    hits = (above + rng.integers(0, level + 1))[:, None] == np.arange(PLACES)
    n_candidates = 1 + met.shape[1] - met.getnnz(axis=1)[users[row]]
    return Lists(users[row], hits, np.ones(len(row), int), n_candidates)


def alone_against_uniform(scorer: Scorer, holdout: Holdout, alpha: float = 0.0, seed: int = 0) -> Lists:
    """99 rivals an item, drawn in proportion to (how often they were met)^alpha."""
    return alone(scorer, holdout, NegativeSampler(holdout.seen_matrix + holdout.truth_matrix, alpha), seed)


alone_against_popular = partial(alone_against_uniform, alpha=1.0)
SWITCHES["99 uniform rivals"] = Switch({"lists": alone_against_uniform}, "up", {"lists": alone})
SWITCHES["99 popular rivals"] = Switch({"lists": alone_against_popular}, "up", {"lists": alone})
SWITCHES["each film alone"] = Switch({"lists": alone}, "down")


def corrected_ndcg(lists: Lists, gamma: float = 0.01, k: int = 10) -> np.ndarray:
    """An estimate of NDCG@k in the full ranking, from places among PLACES - 1 uniform rivals.

    Bias-variance trade-off of Krichene & Rendle (2020), every true rank equally likely;
    gamma weighs the variance. n is the median number of candidates.
    """
    n = int(np.median(lists.n_candidates))
    rank = np.arange(n)  # from zero
    likely = stats.binom.pmf(np.arange(PLACES), PLACES - 1, rank[:, None] / (n - 1))  # (n, PLACES)
    exact = np.where(rank < k, 1 / np.log2(rank + 2), 0)
    system = (1 - gamma) * likely.T @ likely + gamma * np.diag(likely.sum(axis=0))
    return np.linalg.solve(system, likely.T @ exact)[lists.hits.argmax(axis=1)]


SWITCHES["99 uniform rivals, corrected"] = Switch({"metric": corrected_ndcg}, "down", {"lists": alone_against_uniform})


def liked(holdout: Holdout) -> Holdout:
    return replace(holdout, truth=holdout.truth.select(holdout.truth.ratings >= 4))


def over_films(values: np.ndarray, lists: Lists) -> tuple[np.ndarray, np.ndarray]:
    """As over_users, weighted by hidden films: values whose mean, and to first order its bootstrap, are the ratio's."""
    users, means = over_users(values, lists)
    weights = np.bincount(lists.users, lists.n_relevant)[users]
    mean = np.average(means, weights=weights)
    return users, mean + (means - mean) * weights / weights.mean()


SWITCHES["only liked films"] = Switch({"truth": liked}, "down")
SWITCHES |= {f"k = {k}": Switch({"metric": partial(ndcg, k=k)}, moves)
             for k, moves in {5: "little", 20: "up", 100: "up"}.items()}
SWITCHES["average over hidden films"] = Switch({"average": over_films}, "up")


def natural_dcg(lists: Lists, k: int = 10) -> np.ndarray:
    return lists.hits[:, :k] @ (1 / np.log(np.arange(2, k + 2)))


def natural_ndcg(lists: Lists, k: int = 10) -> np.ndarray:
    """Natural logarithms above and below the line."""
    best = np.arange(PLACES) < np.minimum(lists.n_relevant, k)[:, None]
    return natural_dcg(lists, k) / natural_dcg(lists._replace(hits=best), k)


def map_achievable(lists: Lists, denominator: str = "achievable") -> np.ndarray:
    return metrics.average_precision(lists.hits[:, :10], lists.n_relevant, denominator=denominator)


map_relevant = partial(map_achievable, denominator="relevant")
SWITCHES["NDCG by natural logarithm"] = Switch({"metric": natural_ndcg}, "little")
SWITCHES["DCG called NDCG"] = Switch({"metric": natural_dcg}, "up", {"metric": natural_ndcg})
SWITCHES["MAP over all relevant"] = Switch({"metric": map_relevant}, "down", {"metric": map_achievable})


def planted(data: Interactions) -> float:
    """NDCG@10 of popularity, over all films the user has not met, mean over users.

    Hidden is each user's last fifth in time; the rest is known.
    """
    rows = data.frame().assign(user=data.users, item=data.items)
    rows = rows.sample(frac=1, random_state=0)
    place, size = rows.groupby("user").cumcount(), rows.groupby("user")["item"].transform("size")
    test = place / size >= 0.8 - 1e-9
    known = rows[~test].groupby("user")["item"].agg(list)
    counts = np.bincount(rows["item"], minlength=data.n_items)
    scores = []
    for user, truth in rows[test].groupby("user")["item"]:
        candidates = np.setdiff1d(np.arange(data.n_users), known[user])
        top = candidates[np.argsort(-counts[candidates], kind="stable")[:10]]
        gain = (np.isin(top, truth) / np.log(np.arange(2, 12))).sum()
        ideal = (1 / np.log2(np.arange(2, 2 + min(10, len(truth))))).sum()
        scores.append((gain / ideal, len(truth)))
    values, sizes = zip(*scores)
    return float(np.average(values, weights=sizes))


PLANTED = {7: "what “last” means", 11: "what the model may count", 14: "which films compete",
           16: "the discount, here and in the ideal list", 20: "who counts how much"}  # fmt: skip


def check_lines(answer: set[int]) -> str:
    """What is right, missing or accused wrongly in a reader's list of line numbers of `planted`."""
    answer, lines = set(answer), set(PLANTED)
    if answer == lines:
        return "All five. Now mend them."
    if {number + 1 for number in answer} == lines:
        return "The right lines, but counted from 0: the listing counts from 1."
    said = [f"Line {n} does what the docstring wants." for n in sorted(answer - lines)]
    if len(said) > 3:
        return f"{len(said)} of the {len(answer)} lines you accuse are innocent; what would each of them break?"
    said += [f"Look at {PLANTED[n]}." for n in sorted(lines - answer)]
    return " ".join([f"{len(answer & lines)} of 5 found.", *said])
