# Exported from notebooks/03_baselines.ipynb; edit there.
"""Written in chapter 03, where it is explained line by line."""

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from recsys_utils.evaluation import Scorer
from recsys_utils.interactions import Interactions

DAY = 86_400  # seconds


def popularity(train: Interactions, half_life_days: float | None = None) -> np.ndarray:
    """How often each item was met, shape (n_items,); an event counts 2^(-age / half-life).

    Ages are measured from the last event in train. None stands for no decay: the plain count,
    without time stamps. Raises ValueError for a half-life that is not positive.
    """
    if half_life_days is None:
        return train.item_counts.astype(float)
    if not half_life_days > 0:
        raise ValueError(f"half_life_days={half_life_days}; expected a positive number of days, or None")
    age = (train.timestamps.max() - train.timestamps) / DAY
    return np.bincount(train.items, 0.5 ** (age / half_life_days), train.n_items)


def same_for_all(scores: np.ndarray) -> Scorer:
    """The scorer that gives every user the same scores, shape (n_items,)."""
    return lambda users: np.broadcast_to(scores, (len(users), len(scores)))


def genre_matrix(items: pd.DataFrame) -> pd.DataFrame:
    """Share of each genre in each item, shape (n_items, n_genres); a film's genres share it
    equally.

    items: a table with a column of genre tuples. Rows sum to one, or to zero for a film without
    genres.
    """
    flags = items["genres"].str.join("|").str.get_dummies().astype(float)
    return flags.div(flags.sum(axis=1).clip(lower=1), axis=0)


def genre_charts(train: Interactions, power: float = 1.0, lift: float = 1.0) -> Scorer:
    """Popularity weighted by how much of each genre a user has watched; without history, plain
    popularity.

    power: 0 ignores the user's genres. lift: 1 divides a user's share of a genre by everybody's,
    0 does not.
    """
    genres = genre_matrix(train.item_table).to_numpy()
    counts = popularity(train)
    overall = np.maximum(counts @ genres, 1e-9) / max(len(train), 1)
    history = train.matrix()
    watched = np.diff(history.indptr)

    def score(users: np.ndarray) -> np.ndarray:
        taste = (history[users] @ genres) / np.maximum(watched[users], 1)[:, None]  # (B, n_genres)
        personal = ((taste / overall**lift) ** power @ genres.T) * counts  # (B, n_items)
        return np.where(watched[users][:, None] > 0, personal, counts)

    return score


def known_tags(tags: pd.DataFrame, train: Interactions) -> pd.Series:
    """Tag texts by item code, shape (n_items,): tags on (user, item) pairs of train, typed no
    later than that user's last event in train; others are left out.
    """
    pairs = train.frame()
    pairs["until"] = pairs.groupby("user_id")["timestamp"].transform("max")
    known = tags.merge(pairs[["user_id", "item_id", "until"]], on=["user_id", "item_id"], validate="many_to_one")
    texts = known[known["timestamp"] <= known["until"]].groupby("item_id")["tag"].agg(" ".join)
    return texts.reindex(train.item_ids, fill_value="")


def content_features(
    items: pd.DataFrame, tag_texts: pd.Series | None = None, genre_weight: float = 1.0, tag_weight: float = 1.0
) -> sparse.csr_matrix:
    """TF-IDF blocks of title (or description), genres and tags, side by side; unit rows,
    (n_items, n_words).
    """
    words = items["description"] if "description" in items else items["title"]
    genres = TfidfVectorizer(analyzer=list).fit_transform(items["genres"])
    blocks = [TfidfVectorizer().fit_transform(words), genre_weight * genres]
    if tag_texts is not None:
        blocks.append(tag_weight * TfidfVectorizer().fit_transform(tag_texts))
    return normalize(sparse.hstack(blocks).tocsr())


def content(train: Interactions, features: sparse.csr_matrix) -> Scorer:
    """Cosine of each item with the sum of the user's items; without history, popularity."""
    history, counts = train.matrix(), popularity(train)

    def score(users: np.ndarray) -> np.ndarray:
        profile = normalize(history[users] @ features)  # (B, n_words)
        cosine = (profile @ features.T).toarray()  # (B, n_items)
        return np.where(np.diff(history[users].indptr)[:, None] > 0, cosine, counts)

    return score


def sessions_of(train: Interactions, gap_hours: float = 1.0) -> np.ndarray:
    """Session number of each row, shape (n,): a new one starts with a user, or after gap_hours
    without an event.

    Rows are taken in time order, equal time stamps in the order of the file; numbers count from
    0.
    """
    order = np.lexsort((train.timestamps, train.users))
    user, seconds = train.users[order], train.timestamps[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (user[1:] != user[:-1]) | (np.diff(seconds) > gap_hours * 3600)
    session = np.empty(len(order), np.int64)
    session[order] = np.cumsum(starts) - 1
    return session


def covisits(sessions: np.ndarray, items: np.ndarray, n_items: int, damping: float = 0.0) -> np.ndarray:
    """How often two items share a session, shape (n_items, n_items), zero diagonal; row =
    context, column = candidate.

    damping: counts are divided by (sessions of the candidate)^damping; 0 favours popular
    candidates, 1 removes them.
    """
    ones, shape = np.ones(len(items), np.float32), (int(sessions.max()) + 1, n_items)
    met = sparse.csr_matrix((ones, (sessions, items)), shape=shape)
    met.data[:] = 1  # a click twice is one visit
    together = (met.T @ met).toarray()
    np.fill_diagonal(together, 0)
    return together / np.maximum(met.getnnz(axis=0), 1) ** damping


def last_item(train: Interactions) -> np.ndarray:
    """Each user's last item in time, shape (n_users,), -1 without history; ties keep the order
    of the file.
    """
    order = np.argsort(train.timestamps, kind="stable")
    last = np.full(train.n_users, -1)
    last[train.users[order]] = train.items[order]  # the last write wins
    return last


def covisitation(train: Interactions, together: np.ndarray) -> Scorer:
    """What goes with the user's last item; popularity orders the rest, and everything for a user
    without history.
    """
    last, counts = last_item(train), popularity(train)
    fallback = together[together > 0].min() * counts / (2 * max(counts.max(), 1))  # below any real count

    def score(users: np.ndarray) -> np.ndarray:
        context = np.where(last[users][:, None] >= 0, together[last[users]], 0.0)
        return context + fallback

    return score


def fit_popularity(train: Interactions, half_life_days: float | None = None) -> Scorer:
    """The same chart for everybody."""
    return same_for_all(popularity(train, half_life_days))


def fit_covisitation(train: Interactions, gap_hours: float, damping: float) -> Scorer:
    """Co-visitation from the sessions of train itself."""
    return covisitation(train, covisits(sessions_of(train, gap_hours), train.items, train.n_items, damping))


def fit_content(train: Interactions, tags: pd.DataFrame, genre_weight: float, tag_weight: float) -> Scorer:
    """TF-IDF content with the tags that are known in train."""
    features = content_features(train.item_table, known_tags(tags, train), genre_weight, tag_weight)
    return content(train, features)
