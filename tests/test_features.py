"""Feature tables: known values, aligned by code, from train alone; clear errors; scaling there and back."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from core_checks import world
from recsys_utils import features, splits
from recsys_utils.datasets import load_house
from recsys_utils.interactions import Interactions

GENRES = [("Drama",), ("Comedy", "Drama"), ("Comedy",), (), ("War",)]


def tiny(ratings=(5.0, 3.0, 1.0, 4.0), name="tiny"):
    """Three users, the last without ratings; five films, the fourth and fifth never rated."""
    films = pd.DataFrame({"title": list("abcde"), "year": [1990.0, 2000.0, np.nan, 2010.0, 1980.0], "genres": GENRES})
    return Interactions(
        [0, 0, 0, 1], [0, 1, 2, 0], np.array([7, 8, 9]), np.arange(5), ratings=ratings, item_table=films, name=name
    )


def big():
    data = world(60, 40, 900)
    genres = [GENRES[item % 5] for item in range(40)]
    films = pd.DataFrame({"title": [f"film {i}" for i in range(40)], "year": 1950.0 + np.arange(40), "genres": genres})
    return replace(data, item_table=films.set_axis(data.item_ids))


def test_user_features_by_hand():
    table, k = features.user_features(tiny()), features.DAMPING
    overall = 13 / 4
    first = (9 + k * overall) / (3 + k)
    assert table.index.tolist() == [7, 8, 9]
    assert table.shape == (3, 2 + 2 * 3)
    assert np.isclose(table.loc[7, "mean rating"], first)
    assert np.isclose(table.loc[7, "ratings"], np.log(4))
    assert np.isclose(table.loc[7, "stars Drama"], (5 + 3 + k * first) / (2 + k))
    assert table.loc[7, "stars War"] == table.loc[7, "mean rating"]
    assert table.filter(like="no ").loc[[7, 8]].to_numpy().tolist() == [[0, 0, 1], [1, 0, 1]]


def test_nobody_and_nothing_get_a_row():
    users, items = features.user_features(tiny()), features.item_features(tiny())
    assert users.loc[9, "ratings"] == 0
    assert (users.filter(like="no ").loc[9] == 1).all()
    assert np.allclose(users.filter(regex="mean|stars").loc[9], 13 / 4)
    assert items.loc[4, "ratings"] == 0
    assert np.isclose(items.loc[4, "mean rating"], 13 / 4)
    assert not np.isnan(users).any(axis=None)
    assert not np.isnan(items).any(axis=None)


def test_item_features_by_hand():
    table, k = features.item_features(tiny()), features.DAMPING
    assert table.columns.tolist()[:4] == ["ratings", "mean rating", "year", "year unknown"]
    assert np.isclose(table.loc[0, "mean rating"], (9 + k * 13 / 4) / (2 + k))
    assert table.loc[2, "year"] == 1995
    assert table["year unknown"].tolist() == [0, 0, 1, 0, 0]
    assert table[["is Comedy", "is Drama", "is War"]].loc[1].tolist() == [1, 1, 0]


def test_words_of_titles_and_tags():
    data = big()
    table = features.item_features(data, ["robot"] * 6 + [""] * 34)
    assert {"word robot", "word film"} <= set(table)
    assert (table["word robot"] > 0).tolist() == [True] * 6 + [False] * 34
    with pytest.raises(ValueError, match="has 3 texts; expected one for each of 40 items"):
        features.item_features(data, ["robot"] * 3)


def test_rows_are_those_of_the_codes():
    """The same people under other codes have the same features."""
    data, order = big(), np.random.default_rng(1).permutation(60)
    again = replace(data, users=np.argsort(order)[data.users], user_ids=data.user_ids[order])
    ours, theirs = features.user_features(data), features.user_features(again)
    pd.testing.assert_frame_equal(ours.loc[theirs.index], theirs)


def tables_of(data):
    return features.user_features(data), features.item_features(data)


def moved(fit, data=None):
    """Whether features change when the ratings of the test part do: they must not."""
    data = data or big()
    split = splits.random_per_user(data)
    stars = data.ratings.copy()
    stars[split.parts == splits.TEST] = 5.5 - stars[split.parts == splits.TEST]
    before, after = fit(split), fit(splits.Split(replace(data, ratings=stars), split.parts, split.protocol))
    return [not np.array_equal(one, other) for one, other in zip(before, after, strict=True)]


@pytest.mark.parametrize("data", [big, load_house])
def test_features_know_nothing_of_test(data):
    assert moved(lambda split: tables_of(split.train_validation), data()) == [False, False]
    assert moved(lambda split: tables_of(split.data), data()) == [True, True]  # canary: fitted on everything
    assert moved(lambda split: features.row_features(split.train), data()) == [False, False]
    assert moved(lambda split: [features.new_user({"Drama": 4.0}, split.train)], data()) == [False]

    def scaler(split):
        table = features.user_features(split.train)
        return [features.fit_scaler(table, split.train.user_counts).transform(table)]

    assert moved(scaler, data()) == [False]


def test_a_row_does_not_see_itself():
    data = big()
    users, items = features.row_features(data, folds=4, seed=3)
    assert users.shape == (900, 8)
    assert items.shape == (900, 7)
    assert users.dtype == np.float32
    for row in (0, 17, 899):
        stars = data.ratings.copy()
        stars[row] = 5.5 - stars[row]
        other = features.row_features(replace(data, ratings=stars), folds=4, seed=3)
        assert np.array_equal(users[row], other[0][row])
        assert np.array_equal(items[row], other[1][row])
        assert not np.array_equal(users, other[0])  # the neighbours do see it
    own = features.row_features(data, folds=1)
    assert np.array_equal(own[0], features.user_features(data).to_numpy(np.float32)[data.users])


def test_new_user():
    data = tiny()
    row, known = features.new_user({"Drama": 5.0, "War": 1.0}, data), features.user_features(data)
    assert row.columns.tolist() == known.columns.tolist()
    assert row.shape == (1, 8)
    mean = (6 + features.DAMPING * 13 / 4) / (2 + features.DAMPING)
    assert row["stars Drama"][0] == 5
    assert row["no Drama"][0] == 0
    assert np.isclose(row["stars Comedy"][0], mean)
    assert row["no Comedy"][0] == 1
    nobody = features.new_user({}, data)
    assert np.allclose(nobody.filter(like="stars"), 13 / 4)
    assert (nobody.filter(like="no ") == 1).all(axis=None)


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        ({"Sci-fi": 4.0}, r"unknown genre 'Sci-fi'; tiny has Comedy, Drama, War"),
        ({"Drama": 6.0}, r"6.0 stars for Drama; expected a number from 1 to 5"),
        ({"Drama": float("nan")}, r"nan stars for Drama; expected a number from 1 to 5"),
    ],
)
def test_preferences_that_cannot_be(preferences, message):
    with pytest.raises(ValueError, match=message):
        features.new_user(preferences, tiny())


def test_tables_that_cannot_be():
    with pytest.raises(ValueError, match=r"ratings run from 1 to 6; latest-small has 0\.5 to 5 stars"):
        features.user_features(tiny((6.0, 3.0, 1.0, 4.0), name="latest-small"))
    with pytest.raises(ValueError, match="tiny has 4 rows and no ratings"):
        features.item_features(tiny(None))
    with pytest.raises(ValueError, match=r"ratings\[1\] is nan"):
        tiny((5.0, np.nan, 1.0, 4.0))
    with pytest.raises(ValueError, match="no item_table with a genres column"):
        features.user_features(world())


def test_people():
    people = pd.DataFrame(
        {"age": [20, 30, 40], "gender": list("FMF"), "occupation": ["doctor", "writer", "doctor"], "zip": list("abc")}
    ).set_axis([7, 8, 9])
    data = replace(tiny(), user_table=people)
    table = features.user_features(data)
    assert table["age"].tolist() == [20, 30, 40]
    assert table["gender F"].tolist() == [1, 0, 1]
    assert table["occupation writer"].tolist() == [0, 1, 0]
    assert "zip" not in table
    assert features.new_user({"War": 2.0}, data)["age"][0] == 30
    assert features.describe(table).loc["age"].tolist() == ["years", features.STANDARDISED]


def test_scaler():
    data = big()
    table = features.user_features(data)
    scaler = features.fit_scaler(table, data.user_counts)
    rows = scaler.transform(table).iloc[data.users]
    standard = (features.describe(table)["scaling"] == features.STANDARDISED).to_numpy()
    assert np.allclose(rows.loc[:, standard].mean(), 0)
    assert np.allclose(rows.loc[:, standard].std(ddof=0), 1)
    assert np.array_equal(rows.loc[:, ~standard], table.loc[:, ~standard].iloc[data.users])
    with pytest.raises(ValueError, match=r"nobody has described the columns \['height'\]"):
        features.describe(pd.DataFrame({"height": [1.0]}))


def test_ratings_there_and_back():
    stars, scale = np.array([0.5, 2.75, 5.0]), (0.5, 5.0)
    assert features.scale_ratings(stars, scale).tolist() == [-1, 0, 1]
    assert np.allclose(features.unscale_ratings(features.scale_ratings(stars, scale), scale), stars)


def test_tables_to_look_at():
    data = big()
    users, items = tables_of(data)
    shown = features.preview(data.select([3, 1]), users, items)
    assert shown["user"].tolist() == data.user_ids[data.users[[3, 1]]].tolist()
    assert "Drama" in shown.to_string()
    assert shown["film's ratings"].tolist() == data.item_counts[data.items[[3, 1]]].tolist()
    assert shown["user's ratings"].tolist() == data.user_counts[data.users[[3, 1]]].tolist()
    names = shown.columns.tolist()
    assert names.index("user's mean") < names.index("title") < names.index("film's mean") < names.index("target")
    rows = data.select(data.users == 0)
    films = features.predicted_and_actual(rows, rows.ratings + 1, users, items)
    assert films["actual"].is_monotonic_decreasing
    assert np.allclose(films["error"], 1)
    means = dict(zip(data.item_table["title"], items["mean rating"], strict=True))
    assert films["film's mean"].tolist() == [means[title] for title in films["title"]]


def test_similar():
    data, vectors = big(), np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0][:, :3]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = features.similar(data, vectors, "film 5", k=3)
    cosine = vectors @ vectors[5]
    assert np.allclose(found["cosine"], np.sort(cosine)[::-1][1:4])
    assert "film 5" not in found["title"].tolist()
    with pytest.raises(ValueError, match="no film of demo is called 'film 41'"):
        features.similar(data, vectors, "film 41")
