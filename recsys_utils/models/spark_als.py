# Exported from notebooks/16_scaling_out.ipynb; edit there.
"""Written in chapter 16, where it is explained line by line."""

import numpy as np
import pandas as pd
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recsys_utils.splits import TEST, TRAIN, VALIDATION


def house_parts(table: DataFrame, test=0.2, validation=0.1, order=("timestamp", "row")) -> DataFrame:
    """The table with a column `part`: 0 train, 1 validation, 2 test, as splits.temporal_per_user cuts.

    table: columns user, timestamp and row, the place in the file, which decides between equal times.
    """
    user = Window.partitionBy("user")
    position = (F.row_number().over(user.orderBy(*order)) - 1) / F.count("*").over(user)
    first_test, first_validation = 1 - test - 1e-9, 1 - test - validation - 1e-9  # a rounded 0.8 is 0.8
    part = F.when(position >= first_test, TEST).when(position >= first_validation, VALIDATION)
    return table.withColumn("part", part.otherwise(TRAIN))


def fit_spark_als(pairs: DataFrame, *, embedding_dim: int, alpha: float, regularization: float, epochs: int,
                  seed: int = 0) -> tuple[DataFrame, DataFrame]:
    """Implicit ALS by MLlib: factors of users and of items, columns id and features; scores are dot
    products.

    pairs: columns user and item. alpha: weight of an observed pair, as in chapter 7. regularization:
    times the number of a row's pairs.
    """
    als = ALS(rank=embedding_dim, maxIter=epochs, regParam=regularization, alpha=alpha - 1, seed=seed,
              implicitPrefs=True, userCol="user", itemCol="item", ratingCol="met")
    model = als.fit(pairs.withColumn("met", F.lit(1.0)))
    return model.userFactors, model.itemFactors


def as_matrix(factors: DataFrame, n: int) -> np.ndarray:
    """Factors, columns id and features, as one matrix (n, d), float32; zeros for ids that have none."""
    frame = factors.toPandas()
    matrix = np.zeros((n, len(frame["features"].iloc[0])), np.float32)
    matrix[frame["id"]] = np.stack(frame["features"])
    return matrix


def top_k(user_factors: DataFrame, V: np.ndarray, met: DataFrame, k: int = 10) -> DataFrame:
    """The k best items of every user with factors: columns user and items, best first, -1 for none left.

    V: item factors, (n_items, d), sent to every worker once. met: columns user and item, to be left out.
    A worker holds about four arrays of n_items × spark.sql.execution.arrow.maxRecordsPerBatch numbers.
    """
    sent = user_factors.sparkSession.sparkContext.broadcast(V)
    lists = met.groupBy("user").agg(F.collect_list("item").alias("met"))
    users = user_factors.withColumnRenamed("id", "user").join(lists, "user", "left")

    def rank(batches):
        for batch in batches:
            scores = np.stack(batch["features"]) @ sent.value.T
            for row, seen in enumerate(batch["met"]):
                scores[row, [] if seen is None else seen] = -np.inf
            best = np.argpartition(-scores, min(k, scores.shape[1] - 1), axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            best = np.take_along_axis(best, order, 1)
            best[np.isneginf(np.take_along_axis(scores, best, 1))] = -1
            yield pd.DataFrame({"user": batch["user"], "items": list(best)})

    return users.mapInPandas(rank, "user int, items array<int>")
