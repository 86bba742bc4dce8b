"""Interactions: codes, ids and tables fit together, or an error says what does not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_checks import world
from recsys_utils import Interactions

IDS = {"user_ids": np.arange(3), "item_ids": np.arange(4)}
FRAME = pd.DataFrame(
    {"user_id": ["b", "a", "b"], "item_id": [30, 10, 20], "rating": [1, 2.5, 3], "timestamp": [7, 8, 9]}
)


def test_columns_are_compact_and_read_only():
    data = Interactions([0, 2], [1, 3], ratings=[4, 0.5], timestamps=[1, 2], **IDS)
    assert (data.users.dtype, data.items.dtype, data.ratings.dtype, data.timestamps.dtype) == (
        np.int32,
        np.int32,
        np.float32,
        np.int64,
    )
    with pytest.raises(ValueError, match="read-only"):
        data.users[0] = 1
    with pytest.raises(AttributeError):
        data.users = data.items
    assert (len(data), data.n_users, data.n_items) == (2, 3, 4)
    assert data.user_counts.tolist() == [1, 0, 1]
    assert data.item_counts.tolist() == [0, 1, 0, 1]


def test_the_array_of_the_caller_stays_writable():
    users = np.array([0, 1], np.int32)
    Interactions(users, [0, 1], **IDS)
    users[0] = 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"users": [0, 1, 2]}, r"items has shape \(2,\); expected \(3,\)"),
        ({"users": [[0, 1]], "items": [[0, 1]]}, r"users has shape \(1, 2\)"),
        ({"users": [0, -1]}, "user code -1 is outside 0..2"),
        ({"items": [0, 4]}, "item code 4 is outside 0..3"),
        ({"users": [0, 2**33]}, r"users\[1\] is 8589934592, which int32 cannot hold"),
        ({"users": [0, np.nan]}, r"users\[1\] is nan"),
        ({"users": [0, 0.5]}, r"users\[1\] is 0.5"),
        ({"users": ["a", "b"]}, "users does not hold numbers"),
        ({"timestamps": [1, np.nan]}, r"timestamps\[1\] is nan"),
        ({"timestamps": pd.to_datetime(["2020-01-01", "2020-01-02"])}, r"timestamps\[0\] is 2020-01-01"),
        ({"ratings": [1, np.inf]}, r"ratings\[1\] is inf; expected a finite number"),
        ({"ratings": [1, None]}, r"ratings\[1\] is None"),
        ({"ratings": [1]}, r"ratings has shape \(1,\)"),
        ({"user_ids": [5, 5, 6]}, "user_ids holds 5 twice"),
        ({"item_ids": [[1, 2, 3, 4]]}, r"item_ids has shape \(1, 4\)"),
        (
            {"item_table": pd.DataFrame({"title": ["x"] * 3}, index=range(3))},
            "item_table has no row for 1 of",
        ),
        ({"item_table": pd.DataFrame({"title": ["x"] * 5}, index=[0, 1, 2, 3, 3])}, "item_table describes 3 twice"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_columns_are_named(columns, message):
    with pytest.raises(ValueError, match=message):
        Interactions(**{"users": [0, 1], "items": [0, 1], **IDS, **columns})


def test_tables_are_aligned_by_id_not_by_position():
    table = pd.DataFrame({"title": ["three", "one", "two", "spare"]}, index=[30, 10, 20, 40])
    data = Interactions([0], [2], user_ids=["u"], item_ids=[10, 20, 30], item_table=table)
    assert data.item_table["title"].tolist() == ["one", "two", "three"]


@pytest.mark.parametrize("dtype", ["object", "string", "category"])
def test_from_frame_numbers_ids_in_sorted_order(dtype):
    data = Interactions.from_frame(FRAME.astype({"user_id": dtype}), rating="rating", timestamp="timestamp", name="x")
    assert data.user_ids.tolist() == ["a", "b"]
    assert data.item_ids.tolist() == [10, 20, 30]
    pd.testing.assert_frame_equal(data.frame(), FRAME, check_dtype=False)


def test_from_frame_keeps_items_that_only_the_table_knows():
    table = pd.DataFrame({"title": list("wxyz")}, index=[40, 30, 20, 10])
    data = Interactions.from_frame(FRAME, item_table=table)
    assert data.item_ids.tolist() == [10, 20, 30, 40]
    assert data.item_counts.tolist() == [1, 1, 1, 0]
    assert data.item_table["title"].tolist() == list("zyxw")


@pytest.mark.parametrize(
    ("frame", "columns", "message"),
    [
        (FRAME.drop(columns="item_id"), {}, "column 'item_id' is missing; the table has"),
        (FRAME.assign(rating=[1, np.nan, 2]), {"rating": "rating"}, "column 'rating' is empty in row 1"),
        (FRAME.assign(user_id=["a", None, "b"]), {}, "column 'user_id' is empty in row 1"),
        (FRAME.assign(user_id=["a", 1, "b"]), {}, r"mix ids of types \['int', 'str'\]"),
        (FRAME, {"item_table": pd.DataFrame({"t": [1]}, index=["10"])}, r"mix ids of types \['int64', 'str'\]"),
    ],
)
def test_from_frame_errors(frame, columns, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_frame(frame, **columns)


def test_empty_interactions_are_allowed():
    data = Interactions.from_frame(FRAME.iloc[:0])
    assert (len(data), data.n_users, data.density) == (0, 0, 0)
    assert "interactions 0" in repr(Interactions([], [], timestamps=[], **IDS))


def test_matrix():
    data = Interactions([0, 0, 1, 0], [1, 1, 2, 3], ratings=[3, 4, 5, 1], **IDS)
    assert data.matrix().toarray().tolist() == [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert data.matrix("counts")[0, 1] == 2
    assert data.density == 3 / 12
    with pytest.raises(ValueError, match="pair occurs twice"):
        data.matrix("ratings")
    assert data.select([1, 2]).matrix("ratings").toarray()[[0, 1], [1, 2]].tolist() == [4, 5]
    with pytest.raises(ValueError, match="expected 'binary', 'counts' or 'ratings'"):
        data.matrix("stars")
    with pytest.raises(ValueError, match="no ratings"):
        Interactions([0], [0], **IDS).matrix("ratings")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 100), st.integers(1, 40))
def test_keep_items_keeps_rows_ids_and_titles_together(seed, least):
    data = world(20, 15, 120, seed)
    data = Interactions.from_frame(
        data.frame(),
        rating="rating",
        timestamp="timestamp",
        item_table=pd.DataFrame({"title": [f"t {i}" for i in data.item_ids]}, index=data.item_ids),
    )
    kept = data.keep_items(least)
    frame = data.frame()
    expected = frame[frame.groupby("item_id")["user_id"].transform("size") >= least].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.frame(), expected, check_dtype=False)
    assert kept.n_users == data.n_users
    assert [f"t {i}" for i in kept.item_ids] == kept.item_table["title"].tolist()


def test_hash_changes_with_every_column():
    data = world()
    frame = data.frame()
    changed = [
        frame.assign(rating=frame["rating"].where(frame.index != 5, 0.25)),
        frame.assign(timestamp=frame["timestamp"] + (frame.index == 5)),
        frame.iloc[::-1],
        frame.iloc[1:],
    ]
    hashes = [Interactions.from_frame(f, rating="rating", timestamp="timestamp").data_sha256 for f in [frame, *changed]]
    hashes.append(Interactions.from_frame(frame, rating="rating").data_sha256)
    assert len(set(hashes)) == 6
    assert Interactions.from_frame(frame, rating="rating", timestamp="timestamp").data_sha256 == hashes[0]


def test_html_is_escaped():
    data = Interactions([0], [0], timestamps=[0], name="<script>alert(1)</script>", **IDS)
    assert "<script>" not in data._repr_html_()
    assert "1970-01-01" in data._repr_html_()
