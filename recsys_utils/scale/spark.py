"""A Spark session with quiet logs, interactions as partitioned Parquet, and results that appear whole or not at all.

Needs pyspark and Java 17 or newer; importing this module needs neither.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recsys_utils.interactions import Interactions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

LEAST_JAVA = 17
SCHEMA = {"user": "int32", "item": "int32", "timestamp": "int64", "row": "int64"}


class SparkError(RuntimeError):
    """Spark cannot start, or a job of it failed; the message says why, and what to do."""


def java_version() -> int:
    """Major version of the Java that Spark will use. Raises SparkError when there is none, or one that is too old."""
    home = os.environ.get("JAVA_HOME")
    java = Path(home, "bin", "java") if home else shutil.which("java")
    where = f"JAVA_HOME={home}" if home else "the PATH"
    need = f"Spark needs Java {LEAST_JAVA} or newer: install it (on Debian: apt install openjdk-17-jre-headless)"
    try:
        words = subprocess.run([java or "java", "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError) as error:
        raise SparkError(f"no Java was found through {where}; {need}") from error
    found = re.search(r'version "(?:1\.)?(\d+)', words)
    if found is None or int(found[1]) < LEAST_JAVA:
        raise SparkError(f"{words.splitlines()[0]} was found through {where}; {need}, or set JAVA_HOME to one")
    return int(found[1])


def session(master: str = "local[2]", memory: str = "1g", partitions: int = 4, **settings: str) -> SparkSession:
    """A running Spark session: the one there is, or a new one.

    master: local[2] is two threads of this machine, spark://HOST:7077 a cluster. memory: of the driver, which is the
    whole of Spark when local. partitions: of whatever is shuffled. settings: further ones, spark.executor.memory="4g"
    for instance, by ** and a dictionary. Raises SparkError without a Java that it can use.
    """
    java_version()
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # the workers import what we import
    if master.startswith("local"):  # elsewhere executors must find the driver by its real address
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.master(master).appName("recsys_utils")
    chosen = {
        "spark.driver.memory": memory,
        "spark.sql.shuffle.partitions": str(partitions),
        "spark.default.parallelism": str(partitions),
        "spark.sql.execution.arrow.maxRecordsPerBatch": "500",  # rows that a Python worker holds; ours score all items
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "FATAL",
    } | settings
    for name, value in chosen.items():
        builder = builder.config(name, value)
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)  # the Java process inherits it: its greetings are not the reader's
        try:
            return builder.getOrCreate()
        except (PySparkException, Py4JError, OSError) as error:
            log.seek(0)
            raise SparkError(f"Spark did not start at {master}: {log.read()[-500:] or error}") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def stop(session: SparkSession) -> None:
    """End the session and the Java process behind it, which session.stop() keeps for the next one."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    session.stop()
    if gateway is not None:
        gateway.shutdown()
        SparkContext._gateway = SparkContext._jvm = None
        gateway.proc.stdin.close()  # Java ends when nobody can write to it
        gateway.proc.wait(30)


def write_interactions(data: Interactions, folder: Path | str, partitions: int) -> Path:
    """Interactions as a folder of Parquet files, one a partition, with codes, time stamps and the number of each row.

    Files of a distributed table have no order, so the order of the rows becomes a column. The folder appears whole or
    not at all. Raises ValueError for data without time stamps and for more partitions than rows, FileExistsError.
    """
    if data.timestamps is None:
        raise ValueError(f"{data.name} has no time stamps; the house split needs them")
    if not 1 <= partitions <= len(data):
        raise ValueError(f"partitions={partitions}; expected 1 to {len(data)}, the number of rows")
    columns = {"user": data.users, "item": data.items, "timestamp": data.timestamps, "row": np.arange(len(data))}
    types = {"user": np.int32, "item": np.int32, "timestamp": np.int64, "row": np.int64}
    with _appears_whole(Path(folder)) as draft:
        for number, rows in enumerate(np.array_split(np.arange(len(data)), partitions)):
            part = pd.DataFrame({name: values[rows].astype(types[name]) for name, values in columns.items()})
            part.to_parquet(draft / f"part-{number:05d}.parquet", index=False)
    return Path(folder)


@contextmanager
def _appears_whole(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one; at the end it is renamed to it, or removed if something was raised."""
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; remove it or choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield draft
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_interactions(spark: SparkSession, folder: Path | str) -> DataFrame:
    """The table that write_interactions wrote: columns user, item, timestamp and row.

    On a cluster the folder lies where all machines see it. Raises FileNotFoundError, and ValueError for files that are
    cut, have other columns or types, or hold missing values.
    """
    import pyarrow
    from pyarrow.parquet import read_schema
    from pyspark.sql import functions as F

    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no Parquet files; write_interactions writes them")
    for file in files:  # Spark takes the schema of one file for that of all, and fills the rest with nulls
        try:
            schema = read_schema(file)
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{file.name} is cut, or no Parquet file: {error}; write it again") from error
        found = {name: str(kind) for name, kind in zip(schema.names, schema.types)}
        if found != SCHEMA:
            raise ValueError(f"{file.name} has the columns {found}; expected {SCHEMA}")
    table = spark.read.parquet(*map(str, files))
    nulls = [F.sum(F.col(name).isNull().cast("int")).alias(name) for name in SCHEMA]
    for row in table.groupBy(F.input_file_name().alias("file")).agg(*nulls).orderBy("file").collect():
        if missing := {name: row[name] for name in SCHEMA if row[name]}:
            raise ValueError(f"{Path(row['file']).name} has missing values, by column: {missing}; remove these rows "
                             "where the files are made, for nobody knows whose they are")
    return table


def save(table: DataFrame, folder: Path | str) -> Path:
    """Run the jobs behind a table and write it as Parquet; the folder appears whole or not at all.

    Raises FileExistsError, and SparkError when a job fails: a worker that died, say.
    """
    with _appears_whole(Path(folder)) as draft:
        try:
            table.write.mode("overwrite").parquet(str(draft))
        except Exception as error:  # Spark raises what its Java side raised, of any kind
            lines = [line.strip() for line in str(error).splitlines()]
            telling = ("Python worker exited", "Error: ", "Caused by", "")  # the first of them that is there
            reason = next(line[line.index(words):] for words in telling for line in lines if words in line)
            raise SparkError(f"a job failed, nothing was written to {folder}: {reason[:500]}") from error
    return Path(folder)
