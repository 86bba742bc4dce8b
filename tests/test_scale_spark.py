"""Spark against the single machine: the same split, factors and lists; and errors that say what to do.

Needs Java; without it these tests are skipped, and with REQUIRE_ALL=1 they fail.
"""

import os
import stat
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from core_checks import world
from recsys_utils import Interactions, splits
from recsys_utils.datasets import load_house
from recsys_utils.evaluation import dense_scorer, recommend
from recsys_utils.models.mf import half_step
from recsys_utils.scale import spark


@pytest.fixture(scope="module")
def session():
    try:
        running = spark.session("local[2]")
    except spark.SparkError as error:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(f"Spark cannot start: {error}")
    yield running
    spark.stop(running)


@pytest.fixture(scope="module")
def data():
    return world(n_users=60, n_items=50, n=900)


@pytest.fixture(scope="module")
def table(session, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spark") / "pairs"
    return spark.read_interactions(session, spark.write_interactions(data, folder, 3)).cache()


@pytest.fixture(scope="module")
def fitted(table):
    from recsys_utils.models.spark_als import fit_spark_als

    train = table.where("row % 5 > 0").cache()
    return train, *fit_spark_als(train, embedding_dim=4, alpha=5.0, regularization=0.2, epochs=2)


def parts(frame) -> np.ndarray:
    return frame.select("row", "part").toPandas().sort_values("row")["part"].to_numpy()


def test_what_was_written_is_read(table, data):
    frame = table.toPandas().sort_values("row")
    for name, values in (("user", data.users), ("item", data.items), ("timestamp", data.timestamps)):
        np.testing.assert_array_equal(frame[name], values)


@pytest.mark.parametrize("pieces", [1, 2, 31])
def test_the_split_is_that_of_one_machine_row_by_row_however_the_rows_arrive(table, data, pieces):
    from recsys_utils.models.spark_als import house_parts

    arrived = table.orderBy("item", "user").repartition(pieces)
    np.testing.assert_array_equal(parts(house_parts(arrived)), splits.temporal_per_user(data).parts)
    np.testing.assert_array_equal(
        parts(house_parts(arrived, test=0.3, validation=0.2)), splits.temporal_per_user(data, 0.3, 0.2).parts
    )


def test_the_house_split_is_that_of_one_machine(session, tmp_path):
    from recsys_utils.models.spark_als import house_parts

    house = load_house()
    table = spark.read_interactions(session, spark.write_interactions(house, tmp_path / "house", 4))
    np.testing.assert_array_equal(parts(house_parts(table)), splits.temporal_per_user(house).parts)


def test_canary_without_the_column_of_rows_the_split_is_another(session, data, tmp_path):
    from recsys_utils.models.spark_als import house_parts

    ties = replace(data, timestamps=data.timestamps // 200)
    table = spark.read_interactions(session, spark.write_interactions(ties, tmp_path / "ties", 2))
    arrived = table.orderBy("row", ascending=False).repartition(5)
    wanted = splits.temporal_per_user(ties).parts
    np.testing.assert_array_equal(parts(house_parts(arrived)), wanted)
    assert (parts(house_parts(arrived, order=("timestamp",))) != wanted).any()


def test_user_factors_solve_the_systems_of_chapter_6(fitted, data):
    from recsys_utils.models.spark_als import as_matrix

    _, user_factors, item_factors = fitted
    U, V = as_matrix(user_factors, data.n_users), as_matrix(item_factors, data.n_items).astype(float)
    X = data.select(np.arange(len(data)) % 5 > 0).matrix().astype(float)
    ours = half_step(4 * X, 5 * X, V, 0.2 * X.getnnz(axis=1), gram=V.T @ V)
    np.testing.assert_allclose(U, ours, atol=1e-5)
    other = half_step(5 * X, 6 * X, V, 0.2 * X.getnnz(axis=1), gram=V.T @ V)  # canary: alpha taken as MLlib's
    assert np.abs(U - other).max() > 1e-3


@pytest.mark.parametrize("pieces", [1, 60])
def test_lists_are_those_of_the_harness_also_with_empty_partitions(fitted, data, pieces):
    from recsys_utils.models.spark_als import as_matrix, top_k

    train, user_factors, item_factors = fitted
    U, V = as_matrix(user_factors, data.n_users), as_matrix(item_factors, data.n_items)
    lists = top_k(user_factors.repartition(pieces), V, train, k=10).toPandas()
    assert sorted(lists["user"]) == sorted(user_factors.toPandas()["id"])
    kept = data.select(np.arange(len(data)) % 5 > 0)
    wanted = recommend(dense_scorer(U, V.T), kept.matrix(), lists["user"].to_numpy())
    np.testing.assert_array_equal(np.stack(lists["items"]), wanted)


def test_places_that_nothing_is_left_for_are_marked(session, fitted):
    from recsys_utils.models.spark_als import top_k

    _, user_factors, _ = fitted
    V = np.eye(6, 4, dtype=np.float32)
    met = session.createDataFrame([(0, 0), (0, 1), (0, 2), (0, 3)], "user int, item int")
    one = top_k(user_factors.where("id = 0"), V, met, k=10).toPandas()["items"][0]
    assert sorted(one) == [-1, -1, -1, -1, 4, 5]
    assert list(one[2:]) == [-1] * 4


# --- what is refused ---------------------------------------------------------------------------------------------


def fake_java(folder, text: str):
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IEXEC)
    return folder


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('openjdk version "11.0.2" 2019-01-15', r'"11.0.2".* was found through JAVA_HOME.*needs Java 17 or newer'),
        ('java version "1.8.0_292"', r'"1.8.0_292".*needs Java 17'),
        ("no idea", "no idea was found.*needs Java 17"),
    ],
)
def test_the_wrong_java_is_named(said, words, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "jdk", said)))
    with pytest.raises(spark.SparkError, match=words):
        spark.session()


def test_no_java_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(spark.SparkError, match=r"no Java was found through JAVA_HOME.*install it"):
        spark.session()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(spark.SparkError, match=r"no Java was found through the PATH.*install it"):
        spark.session()


@pytest.mark.parametrize("version", ['"17.0.15"', '"21"', '"1.17.0"', '"25-ea"'])
def test_a_java_that_will_do(version, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "jdk", f"openjdk version {version} 2025")))
    assert spark.java_version() >= 17


@pytest.mark.parametrize("partitions", [0, 901])
def test_more_partitions_than_rows_are_refused(data, tmp_path, partitions):
    with pytest.raises(ValueError, match=f"partitions={partitions}; expected 1 to 900"):
        spark.write_interactions(data, tmp_path / "x", partitions)
    assert list(tmp_path.iterdir()) == []


def test_data_without_times_and_folders_that_exist_are_refused(data, tmp_path):
    clicks = Interactions([0], [0], user_ids=[0], item_ids=[0], name="clicks")
    with pytest.raises(ValueError, match="clicks has no time stamps"):
        spark.write_interactions(clicks, tmp_path / "x", 1)
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="is there already"):
        spark.write_interactions(data, tmp_path / "there", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_write_that_fails_leaves_nothing(data, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        spark.write_interactions(data, tmp_path / "x", 2)
    assert list(tmp_path.iterdir()) == []


WITH_NULLS = {"user": "Int32", "item": "Int32", "timestamp": "Int64", "row": "Int64"}
BROKEN = {
    "a null id": (
        lambda part: part.astype(WITH_NULLS).mask(part["row"] == part["row"].max()),
        "part-00001.parquet has missing values, by column: {'user': 1, 'item': 1",
    ),
    "another type": (lambda part: part.astype({"user": "int64"}), r"'user': 'int64'.*expected .*'user': 'int32'"),
    "a missing column": (lambda part: part.drop(columns="row"), r"part-00001.parquet has the columns .*expected"),
    "a further column": (lambda part: part.assign(rating=3.5), r"'rating': 'double'.*expected"),
}


@pytest.mark.parametrize("why", BROKEN)
def test_files_of_another_kind_are_named(session, data, tmp_path, why):
    change, words = BROKEN[why]
    folder = spark.write_interactions(data, tmp_path / "pairs", 3)
    part = folder / "part-00001.parquet"
    change(pd.read_parquet(part)).to_parquet(part, index=False)
    with pytest.raises(ValueError, match=words):
        spark.read_interactions(session, folder)


def test_an_empty_folder_and_a_cut_file_are_said(session, data, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no Parquet files"):
        spark.read_interactions(session, tmp_path)
    folder = spark.write_interactions(data, tmp_path / "pairs", 2)
    part = folder / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"part-00001.parquet is cut"):
        spark.read_interactions(session, folder)


def test_a_worker_that_dies_leaves_nothing_behind(session, table, tmp_path):
    def dies(batches):
        for batch in batches:
            os._exit(1)
            yield batch

    with pytest.raises(spark.SparkError, match=r"a job failed, nothing was written to .*lists"):
        spark.save(table.mapInPandas(dies, table.schema), tmp_path / "lists")
    assert list(tmp_path.iterdir()) == []
    saved = spark.save(table, tmp_path / "lists")  # the session goes on
    assert session.read.parquet(str(saved)).count() == table.count()
    with pytest.raises(FileExistsError):
        spark.save(table, tmp_path / "lists")


def test_replaced_rows_change_the_table(data, tmp_path):
    """Canary: what is written is the data, not something like it."""
    other = replace(data, users=data.users[::-1].copy())
    one, two = (pd.read_parquet(spark.write_interactions(part, tmp_path / name, 1)) for part, name in
                ((data, "one"), (other, "two")))
    assert not one.equals(two)
