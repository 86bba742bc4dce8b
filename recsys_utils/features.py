"""User and item feature tables for towers: named columns, row c describes code c, statistics of train alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from recsys_utils.datasets import EDITIONS
from recsys_utils.interactions import Interactions
from recsys_utils.training import check_settings

DAMPING = 5.0  # how many average ratings are added before a mean is believed
STANDARDISED, AS_IS = "mean 0, standard deviation 1", "as it is"
OF_GENRES = "genres, user's mean"  # a column to look at, of preview and predicted_and_actual
COLUMNS = {  # what a column holds, by its name or by the first word of it: unit, scaling
    "ratings": ("log(1 + number of ratings)", STANDARDISED),
    "mean rating": ("stars, damped", STANDARDISED),
    "stars": ("stars, damped mean of the user's films of the genre", STANDARDISED),
    "no": ("1: the user rated no film of the genre", AS_IS),
    "age": ("years", STANDARDISED),
    "gender": ("1: yes", AS_IS),
    "occupation": ("1: yes", AS_IS),
    "year": ("year of release", STANDARDISED),
    "year unknown": ("1: the year is not known, the median stands in", AS_IS),
    "is": ("1: the film has the genre", AS_IS),
    "word": ("TF-IDF of title and tags", AS_IS),
}


def rating_scale(train: Interactions) -> tuple[float, float]:
    """Lowest and highest rating, in stars: of the edition, else those found. Raises ValueError for ratings outside."""
    if train.ratings is None or not len(train):
        raise ValueError(f"{train.name} has {len(train)} rows and no ratings; features need rows with ratings")
    found = float(train.ratings.min()), float(train.ratings.max())
    low, high = EDITIONS[train.name].scale[:2] if train.name in EDITIONS else found
    if found[0] < low or found[1] > high:
        raise ValueError(f"ratings run from {found[0]:g} to {found[1]:g}; {train.name} has {low:g} to {high:g} stars")
    return low, high


def scale_ratings(stars: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Stars to [-1, 1], the lowest rating to -1, float32; unscale_ratings goes back."""
    return (2 * (np.asarray(stars) - scale[0]) / (scale[1] - scale[0]) - 1).astype(np.float32)


def unscale_ratings(scaled: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """[-1, 1] to stars: half the width of the scale for a unit, because [-1, 1] is two wide."""
    return scale[0] + (np.asarray(scaled, float) + 1) * (scale[1] - scale[0]) / 2


def genre_flags(train: Interactions) -> pd.DataFrame:
    """0/1 flags of all genres of the edition, shape (n_items, n_genres). Raises ValueError without a genre column."""
    if train.item_table is None or "genres" not in train.item_table:
        raise ValueError(f"{train.name} has no item_table with a genres column; give Interactions one")
    return train.item_table["genres"].str.join("|").str.get_dummies().astype(float)


def user_features(train: Interactions) -> pd.DataFrame:
    """What train says about each user, shape (n_users, 2 + 2 genres), and age, gender and occupation where known.

    A mean is damped: DAMPING ratings at the mean of everything are added to a user's, DAMPING at the user's damped mean
    to those of a genre. So a genre without ratings gets the user's own mean, and a flag; a user without ratings gets
    the mean of everything, and all flags. Raises ValueError for missing ratings or ratings outside the scale.
    """
    rating_scale(train)
    flags, shape = genre_flags(train), (train.n_users, train.n_items)
    count, mean = train.user_counts, _damped_means(train.users, train.ratings, train.n_users)
    sums = sparse.csr_matrix((train.ratings.astype(float), (train.users, train.items)), shape) @ flags.to_numpy()
    genre_count = train.matrix("counts").astype(float) @ flags.to_numpy()  # (n_users, n_genres)
    stars = (sums + DAMPING * mean[:, None]) / (genre_count + DAMPING)
    table = _user_table(np.log1p(count), mean, stars, genre_count == 0, flags.columns).set_axis(train.user_ids)
    if train.user_table is None:
        return table
    people = train.user_table[["age", "gender", "occupation"]]
    return table.join(pd.get_dummies(people, columns=["gender", "occupation"], prefix_sep=" ", dtype=float))


def item_features(train: Interactions, tag_texts: pd.Series | None = None) -> pd.DataFrame:
    """What train and the film table say about each item, shape (n_items, 4 + n_genres + n_words).

    An item without ratings gets the mean of everything; an unknown year the median year, and a flag. tag_texts: one
    text an item code, shape (n_items,), of tags known in train; given one, the words of titles and tags that five films
    share are added as TF-IDF. Raises ValueError as user_features does, and for texts that are not one an item.
    """
    rating_scale(train)
    flags, films = genre_flags(train).add_prefix("is "), train.item_table
    table = flags
    table.insert(0, "ratings", np.log1p(train.item_counts))
    table.insert(1, "mean rating", _damped_means(train.items, train.ratings, train.n_items))
    table.insert(2, "year", films["year"].fillna(films["year"].median()))
    table.insert(3, "year unknown", films["year"].isna().astype(float))
    if tag_texts is None:
        return table
    if len(tag_texts) != train.n_items:
        raise ValueError(f"tag_texts has {len(tag_texts)} texts; expected one for each of {train.n_items} items")
    vectorizer = TfidfVectorizer(min_df=5)
    weights = vectorizer.fit_transform(films["title"].to_numpy() + " " + np.asarray(tag_texts))
    names = "word " + vectorizer.get_feature_names_out().astype(object)
    return table.join(pd.DataFrame(weights.toarray(), train.item_ids, names))


def row_features(train: Interactions, folds: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """User and item features of each row of train, shapes (n, d) and (n, e), float32, from the other parts of it.

    Rows are cut into `folds` random parts; a row's statistics come from the parts it is not in, so that no rating is in
    its own features. folds=1 leaves that out: every row sees itself.
    """
    check_settings(interactions=len(train), folds=folds)
    fold = np.random.default_rng(seed).permutation(len(train)) % folds
    rest = [train.select(fold != part) for part in range(folds)] if folds > 1 else [train]
    users, items = (
        np.stack([table(part).to_numpy(np.float32) for part in rest]) for table in (user_features, item_features)
    )
    return users[fold, train.users], items[fold, train.items]


def new_user(preferences: Mapping[str, float], train: Interactions) -> pd.DataFrame:
    """The row of user_features, shape (1, d), of somebody who says {genre: stars} and has rated nothing.

    What they say counts in full; a genre they do not name gets the damped mean of what they say, and its flag. The
    number of ratings, and what train knows of people beside them, is the average user's. Raises ValueError for a genre
    that the edition does not have and for stars that are not a number on its scale.
    """
    (low, high), known = rating_scale(train), user_features(train)
    genres = genre_flags(train).columns
    for genre, stars in preferences.items():
        if genre not in genres:
            raise ValueError(f"unknown genre {genre!r}; {train.name} has {', '.join(genres)}")
        if not low <= stars <= high:  # false for nan, too
            raise ValueError(f"{stars} stars for {genre}; expected a number from {low:g} to {high:g}")
    given = pd.Series(preferences, dtype=float).reindex(genres)
    mean = (given.sum() + DAMPING * train.ratings.mean(dtype=float)) / (given.count() + DAMPING)
    row = _user_table([known["ratings"].mean()], [mean], given.fillna(mean).to_frame().T, [given.isna()], genres)
    return row.join(known[known.columns[len(row.columns) :]].mean().to_frame().T)


def fit_scaler(features: pd.DataFrame, counts: np.ndarray) -> StandardScaler:
    """A scaler whose transform standardises the columns that COLUMNS names so, and leaves the others as they are.

    counts: weight of each row, shape (n,): how many ratings of train it explains; a row without any has no influence.
    """
    scaler = StandardScaler().set_output(transform="pandas").fit(features, sample_weight=counts)
    as_is = (describe(features)["scaling"] == AS_IS).to_numpy()
    scaler.mean_[as_is], scaler.scale_[as_is] = 0.0, 1.0
    return scaler


def describe(features: pd.DataFrame) -> pd.DataFrame:
    """Unit and scaling of each column, one row a column. Raises ValueError for a column that COLUMNS does not name."""
    kinds = [name if name in COLUMNS else name.split()[0] for name in features]
    if unknown := set(kinds) - set(COLUMNS):
        raise ValueError(f"nobody has described the columns {sorted(unknown)}; expected some of {', '.join(COLUMNS)}")
    return pd.DataFrame([COLUMNS[kind] for kind in kinds], features.columns, ["unit", "scaling"])


def preview(rows: Interactions, users: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Readable examples, one line a row: user, film and target, with the columns that say most about either."""
    films, people = _films(rows, users), pd.DataFrame({"user": rows.user_ids[rows.users]})
    people = people.join(_activity(users, rows.users, "user's")).join(films.pop(OF_GENRES))
    shown = people.join(films).join(_activity(items, rows.items, "film's"))
    return shown.assign(stars=rows.ratings, target=scale_ratings(rows.ratings, rating_scale(rows)))


def predicted_and_actual(
    rows: Interactions, predictions: np.ndarray, users: pd.DataFrame, items: pd.DataFrame
) -> pd.DataFrame:
    """Each row's film and what drove its prediction, the most liked first. predictions: shape (n,), in stars."""
    films = _films(rows, users).join(_activity(items, rows.items, "film's"))
    films = films.assign(actual=rows.ratings, predicted=predictions, error=predictions - rows.ratings)
    return films.sort_values(["actual", "predicted"], ascending=False, ignore_index=True)


def similar(data: Interactions, vectors: np.ndarray, title: str, k: int = 10) -> pd.DataFrame:
    """The k films with the highest cosine to the first film of that title. vectors: unit rows, (n_items, d)."""
    item = next(iter(np.flatnonzero(data.item_table["title"] == title)), None)
    if item is None:
        raise ValueError(f"no film of {data.name} is called {title!r}; titles are written as in data.item_table")
    cosine = vectors @ vectors[item]
    nearest = np.argsort(-cosine, kind="stable")
    nearest = nearest[nearest != item][:k]
    films = data.item_table.iloc[nearest][["title", "year", "genres"]].assign(cosine=cosine[nearest])
    films = films.assign(genres=films["genres"].str.join(", "), year=films["year"].astype("Int64"))
    return films.reset_index(drop=True)


def _films(rows: Interactions, users: pd.DataFrame) -> pd.DataFrame:
    """Title and year of each row's film, and its genres with the user's damped mean of each."""
    films = rows.item_table.iloc[rows.items].reset_index(drop=True)[["title", "year", "genres"]]
    stars = users.filter(like="stars ").rename(columns=lambda name: name[6:]).iloc[rows.users].round(1)
    pairs = zip(films.pop("genres"), stars.to_dict("records"), strict=True)
    films["year"] = films["year"].astype("Int64")
    return films.assign(**{OF_GENRES: [", ".join(f"{g} {mean[g]}" for g in gs) for gs, mean in pairs]})


def _activity(table: pd.DataFrame, codes: np.ndarray, whose: str) -> pd.DataFrame:
    """Number of ratings and damped mean of each code."""
    rows = table[["ratings", "mean rating"]].iloc[codes].reset_index(drop=True)
    count = np.expm1(rows["ratings"]).round().astype(int)
    return pd.DataFrame({f"{whose} ratings": count, f"{whose} mean": rows["mean rating"]})


def _damped_means(codes: np.ndarray, ratings: np.ndarray, n: int) -> np.ndarray:
    """Mean rating of each code, shape (n,), with DAMPING more at the mean of all."""
    sums = np.bincount(codes, ratings, n) + DAMPING * ratings.mean(dtype=float)
    return sums / (np.bincount(codes, minlength=n) + DAMPING)


def _user_table(ratings, mean, stars, unknown, genres) -> pd.DataFrame:
    names = ["ratings", "mean rating", *("stars " + genres), *("no " + genres)]
    return pd.DataFrame(np.column_stack([ratings, mean, stars, unknown]).astype(float), columns=names)
