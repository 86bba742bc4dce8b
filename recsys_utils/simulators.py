"""Data made up on purpose: a small world with something to learn, and one with nothing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys_utils.interactions import Interactions

WORDS = {
    "space": "orbit rocket galaxy alien planet star comet crew",
    "crime": "detective murder heist alibi police clue suspect trial",
    "romance": "wedding letter kiss summer heart dance promise Paris",
    "nature": "forest river wolf mountain ocean whale winter island",
    "music": "guitar band concert singer piano stage tour record",
}
PLAIN_WORDS = ["night", "story", "friend", "city", "journey", "secret", "family", "return"]


class Demo(NamedTuple):
    """A simulated world. interactions: ratings with time stamps; item_table holds title, genres, description.
    sessions: one row a click (session_id, user_id, item_id, timestamp), in order of time within a session.
    favourite: category number of each user, shape (n_users,); category: of each item, shape (n_items,).
    """

    interactions: Interactions
    sessions: pd.DataFrame
    favourite: np.ndarray
    category: np.ndarray


def simulate_demo(n_users: int = 30, items_per_category: int = 10, loyalty: float = 0.7, seed: int = 0) -> Demo:
    """Users with a favourite category who click in sessions and rate what they clicked.

    A session is about the user's favourite category with probability `loyalty`, else about any; nine clicks in ten stay
    in the category of the session, and within a category some items are clicked more than others. Ratings are whole
    stars, higher inside the favourite. Item texts are made of category words, so whoever reads them reads the category.
    """
    if not 0 <= loyalty <= 1 or n_users < 2 or items_per_category < 2:
        raise ValueError(
            f"loyalty={loyalty}, n_users={n_users}, items_per_category={items_per_category}; "
            f"expected a share in [0, 1] and at least two of each"
        )
    rng = np.random.default_rng(seed)
    names = list(WORDS)
    n_sessions, n_clicks = 4, 5
    shape = (n_users, n_sessions, n_clicks)
    favourite = np.arange(n_users) % len(names)
    about = np.where(rng.random(shape[:2]) < loyalty, favourite[:, None], rng.integers(0, len(names), shape[:2]))
    clicked = np.where(rng.random(shape) < 0.9, about[:, :, None], rng.integers(0, len(names), shape))
    weights = 1 / np.arange(1, items_per_category + 1)
    place = rng.choice(items_per_category, shape, p=weights / weights.sum())
    category = np.repeat(np.arange(len(names)), items_per_category)
    days = np.sort(rng.choice(300, (n_users, n_sessions)), axis=1) + np.arange(n_sessions)
    times = 1_700_000_000 + 86_400 * days[:, :, None] + 60 * np.arange(n_clicks) + 0 * place
    user, session, _ = (axis.ravel() for axis in np.indices(shape))
    clicks = pd.DataFrame(
        {
            "session_id": user * n_sessions + session + 1,
            "user_id": user + 1,
            "item_id": (clicked * items_per_category + place).ravel() + 1,
            "timestamp": times.ravel(),
        }
    )
    ratings = clicks.drop_duplicates(["user_id", "item_id"]).drop(columns="session_id")
    liked = category[ratings["item_id"] - 1] == favourite[ratings["user_id"] - 1]
    stars = np.where(liked, 4.2, 2.8) + rng.normal(0, 0.7, len(ratings))
    ratings = ratings.assign(rating=np.clip(np.rint(stars), 1, 5)).sort_values("timestamp", kind="stable")
    data = Interactions.from_frame(
        ratings, rating="rating", timestamp="timestamp", item_table=_item_table(category, rng), name="demo"
    )
    return Demo(data, clicks, favourite, category)


def simulate_uniform(n_users: int = 300, n_items: int = 200, n_interactions: int = 6000, seed: int = 0) -> Interactions:
    """Distinct (user, item) pairs drawn uniformly at random: nothing about one tells anything about another."""
    if n_interactions > n_users * n_items:
        raise ValueError(f"n_interactions={n_interactions}, but there are only {n_users * n_items} pairs")
    rng = np.random.default_rng(seed)
    pairs = rng.choice(n_users * n_items, n_interactions, replace=False)
    ids = {"user_ids": np.arange(1, n_users + 1), "item_ids": np.arange(1, n_items + 1)}
    times = 1_700_000_000 + np.arange(n_interactions)
    return Interactions(pairs // n_items, pairs % n_items, timestamps=times, name="uniform", **ids)


def _item_table(category: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    names = list(WORDS)
    texts = [
        " ".join([*rng.choice(WORDS[names[c]].split(), 3, replace=False), *rng.choice(PLAIN_WORDS, 2, replace=False)])
        for c in category
    ]
    item_ids = pd.Index(np.arange(1, len(category) + 1), name="item_id")
    titles = [f"Film {number:02d}" for number in item_ids]
    return pd.DataFrame(
        {"title": titles, "genres": [(names[c],) for c in category], "description": texts}, index=item_ids
    )
