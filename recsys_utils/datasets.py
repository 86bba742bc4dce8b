"""Real data sets: what is embedded, what is fetched once, and the checks every file passes on its way in.

Archives are read in place: nothing is unpacked or unpickled, and no row is dropped without an error that says so.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from recsys_utils.interactions import Interactions

HOST = "https://files.grouplens.org/datasets/movielens/"
TIMEOUT = (10, 30)  # seconds to connect, seconds without a byte
BLOCK = 2**24  # bytes of a ratings file parsed at a time
BEGINNING = 788_918_400  # 1995-01-01: MovieLens is not older, so an earlier time stamp is a damaged one
GENRES = (  # in the order of the flags in u.item
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True)
class Edition:
    """One published edition of MovieLens.

    archive: file name on the official host; hash: "sha256:…" or "md5:…" of it. layout: a key of LAYOUTS. rows: how many
    ratings, films and tags there are. scale: lowest and highest rating and the step between ratings, in stars.
    redistribution: whether GroupLens allows it. members: sha256 of each file of the embedded edition.
    """

    name: str
    title: str
    archive: str
    hash: str
    layout: str
    rows: tuple[int, int, int]
    scale: tuple[float, float, float] = (0.5, 5, 0.5)
    redistribution: bool = False
    members: dict[str, str] = field(default_factory=dict)
    offline = "load_movielens('latest-small')"  # what works without a network

    @property
    def folder(self) -> str:
        """Name of a folder with the archive, or with its files unpacked."""
        return f"ml-{self.name}"

    @property
    def url(self) -> str:
        """Where the official archive is published."""
        return HOST + self.archive

    @property
    def terms(self) -> str:
        """Terms of use and citation, in short."""
        share = "Redistribution is allowed under the same terms" if self.redistribution else "Do not redistribute it"
        return (
            f"{self.title} by GroupLens: for non-commercial research, with acknowledgement. {share}; full terms at "
            f"https://grouplens.org/datasets/movielens/. Cite Harper and Konstan (2015), "
            f"https://doi.org/10.1145/2827872."
        )


_ALL = (
    Edition(
        "latest-small", "MovieLens latest-small (October 2016)", "", "", "csv", (100_004, 9_125, 1_296),
        redistribution=True,
        members={
            "ratings.csv": "b4239649fbf90ebf405c56c3ae1d929d9e7c86fc1a3a80cbef1c884df593ef73",
            "movies.csv": "43d1736d3c688eb5b7856473c36d86a1c345676cab256c91720c1f6984d263b5",
            "tags.csv": "ba8789ec2e7894bcb29a1762b2f9fb34bad7f288be6b4d8388e86af2138d430e",
            "links.csv": "43a1bd034acb25dc59149eee2999f5e6817113e334853fbe6e36998972b10706",
            "README.txt": "59be481ddf3fab0f9f7cf2f73e0db4d0920a413a313c911b62bd01ee8816ea2f",
        },
    ),
    Edition(
        "latest-small-2018", "MovieLens latest-small (September 2018)", "ml-latest-small.zip",
        "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        "csv", (100_836, 9_742, 3_683), redistribution=True,
    ),
    Edition(
        "100k", "MovieLens 100K", "ml-100k.zip",
        "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        "100k", (100_000, 1_682, 0), (1, 5, 1),
    ),
    Edition(
        "1m", "MovieLens 1M", "ml-1m.zip", "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        "1m", (1_000_209, 3_883, 0), (1, 5, 1),
    ),
    Edition(
        "25m", "MovieLens 25M", "ml-25m.zip", "sha256:8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        "csv", (25_000_095, 62_423, 1_093_360),
    ),
    Edition(
        "32m", "MovieLens 32M", "ml-32m.zip", "md5:d472be332d4daa821edc399621853b57",
        "csv", (32_000_204, 87_585, 2_000_072), redistribution=True,
    ),
)  # fmt: skip
EDITIONS: dict[str, Edition] = {edition.name: edition for edition in _ALL}

# All of MovieLens 100K, in a layout of its own, lies inside this wheel: pip reaches it where the official host fails.
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_HASH = "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"


@dataclass(frozen=True)
class Table:
    """One file of a layout: its columns in order, what separates them, and the header line, if it has one."""

    file: str
    separator: str
    columns: str
    header: str = ""
    encoding: str = "utf-8"


_EVENT = "user_id item_id rating timestamp"
LAYOUTS = {
    "csv": {
        "ratings": Table("ratings.csv", ",", _EVENT, "userId,movieId,rating,timestamp"),
        "items": Table("movies.csv", ",", "item_id title genres", "movieId,title,genres"),
        "tags": Table("tags.csv", ",", "user_id item_id tag timestamp", "userId,movieId,tag,timestamp"),
    },
    "1m": {
        "ratings": Table("ratings.dat", "::", _EVENT, encoding="latin-1"),
        "items": Table("movies.dat", "::", "item_id title genres", encoding="latin-1"),
        "users": Table("users.dat", "::", "user_id gender age occupation zip", encoding="latin-1"),
    },
    "100k": {
        "ratings": Table("u.data", "\t", _EVENT, encoding="latin-1"),
        "items": Table("u.item", "|", " ".join(["item_id title date video url", *GENRES]), encoding="latin-1"),
        "users": Table("u.user", "|", "user_id age gender occupation zip", encoding="latin-1"),
    },
    "wheel": {
        "ratings": Table("ml-100k.inter", "\t", _EVENT, "user_id:token\titem_id:token\trating:float\ttimestamp:float"),
        "items": Table(
            "ml-100k.item", "\t", "item_id title year genres",
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
        ),
        "users": Table(
            "ml-100k.user", "\t", "user_id age gender occupation zip",
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
        ),
    },
}  # fmt: skip


def load_movielens(edition: str = "latest-small", *, min_item_ratings: int = 1) -> Interactions:
    """One edition of MovieLens (Harper & Konstan 2015), checked line by line: a key of EDITIONS.

    "latest-small" is embedded; the others are looked for in the folder that RECSYS_DATA_DIR names, then in the cache,
    then fetched once (terms of use are printed then). Rows keep the order of the file; codes follow ascending ids.
    item_table: title (without the year), year (NaN: unknown), genres (a tuple). user_table, 100k and 1m only: age
    (years), gender, occupation, zip. min_item_ratings: keep films with at least so many ratings; 1 keeps every film of
    the film file, rated or not. Raises ValueError with file and line for anything wrong in the files, and RuntimeError
    when an edition cannot be had. Memory: under 3 GB for "32m".
    """
    source = _locate(edition)
    data = _read_ratings(source, _read_items(source), _read_users(source))
    return data if min_item_ratings <= 1 else data.keep_items(min_item_ratings)


def load_house(edition: str = "latest-small") -> Interactions:
    """The house data set: the embedded latest-small edition, films with at least five ratings in the file.

    Another edition gets the same rule. Raises as load_movielens does.
    """
    return load_movielens(edition, min_item_ratings=5)


def load_tags(edition: str = "latest-small") -> pd.DataFrame:
    """The free-text tags of an edition, one row an event: user_id, item_id, tag (str), timestamp (seconds, UTC).

    Rows keep the order of the file. Raises as load_movielens does, and ValueError for an edition without tags.
    """
    with_tags = [each.name for each in EDITIONS.values() if each.rows[2]]
    if edition in EDITIONS and edition not in with_tags:
        raise ValueError(f"edition {edition!r} has no tags; those with tags are {', '.join(with_tags)}")
    source = _locate(edition)
    table, known = source.tables["tags"], {"item_id": _read_items(source).index}
    columns: dict[str, list] = {name: [] for name in table.columns.split()}
    for number, row in _rows(source, table):
        if problem := _problem(row, source.edition, known):
            raise source.fault(table, number, problem)
        for name, text in row.items():
            columns[name].append(text if name == "tag" else int(text))
    _check_count(source, table, len(columns["tag"]), source.edition.rows[2])
    return pd.DataFrame(columns)


# Where the files are


@dataclass(frozen=True)
class Source:
    """Where an edition was found, an archive or a folder, and in which layout."""

    edition: Edition
    path: Path
    layout: str

    @property
    def tables(self) -> dict[str, Table]:
        return LAYOUTS[self.layout]

    @property
    def way_out(self) -> str:
        if self.edition.members:
            return "restore it: reinstall recsys-utils, or check out data/ again without changing line ends"
        return f"put the official files in place ({self.edition.url})"

    def fault(self, table: Table, number: int, problem: str) -> ValueError:
        return ValueError(f"{self.path / table.file}, line {number}: {problem}; {self.way_out}")

    @contextmanager
    def open(self, file: str) -> Iterator[BinaryIO]:
        if self.path.is_dir():
            with open(self.path / file, "rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(self.path) as archive:
                member = next(name for name in archive.namelist() if name.split("/")[-1] == file)
                with archive.open(member) as stream:
                    yield stream


def _locate(name: str) -> Source:
    if name not in EDITIONS:
        raise ValueError(f"edition {name!r} is unknown; expected one of {', '.join(EDITIONS)}")
    edition = EDITIONS[name]
    return _embedded(edition) if edition.members else obtain(edition)


def obtain(edition: Edition) -> Source:
    """An edition from the folder that RECSYS_DATA_DIR names, else from the cache, else fetched into it.

    Raises ValueError for a wrong archive in that folder, RuntimeError when there is no way.
    """
    tried: list[str] = []
    cache = _cache_folder()
    wished = os.environ.get("RECSYS_DATA_DIR")
    source = _search(edition, Path(wished).expanduser(), tried, strict=True) if wished else None
    return source or _search(edition, cache, tried, strict=False) or _fetch(edition, cache, tried)


def _embedded(edition: Edition) -> Source:
    """The copy inside the wheel, or else the one in the checkout, after its files were hashed."""
    here = Path(__file__).resolve().parent
    folders = (here / "_data" / edition.folder, here.parent / "data" / edition.folder)
    source = Source(edition, next((each for each in folders if each.is_dir()), folders[0]), edition.layout)
    for file, expected in edition.members.items():
        if not (source.path / file).is_file():
            raise FileNotFoundError(f"{source.path / file} is missing; {source.way_out}")
        found = checksum(source.path / file, "sha256")
        if found != f"sha256:{expected}":
            raise ValueError(f"{source.path / file} has {found}, expected sha256:{expected}; {source.way_out}")
    return source


def _cache_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("recsys_utils"))


def _search(edition: Edition, root: Path, tried: list[str], strict: bool) -> Source | None:
    """The edition below root: archive, or wheel, or unpacked folder. A wrong archive is an error, or else noted."""
    archives = [(root / edition.folder / edition.archive, edition.hash, edition.layout)]
    archives += [(root / edition.archive, edition.hash, edition.layout)]
    archives += [(root / WHEEL, WHEEL_HASH, "wheel")] if edition.layout == "100k" else []
    for path, expected, layout in archives:
        if path.is_file():
            found = checksum(path, expected.split(":")[0])
            if found == expected:
                return Source(edition, path, layout)
            problem = f"{path} has {found}, expected {expected}: it is damaged or another edition"
            if strict:
                raise ValueError(f"{problem}; replace it with {edition.url}, or delete it to have it fetched")
            tried.append(problem)
    tables = LAYOUTS[edition.layout].values()
    missing = [table.file for table in tables if not (root / edition.folder / table.file).is_file()]
    if not missing:
        return Source(edition, root / edition.folder, edition.layout)
    tried.append(f"{root}: no {edition.archive}, and no folder {edition.folder} with {', '.join(missing)}")
    return None


def _fetch(edition: Edition, cache: Path, tried: list[str]) -> Source:
    """Into the cache from the official host, else, for 100k, by pip; a file gets its name when its hash is right."""
    ways = [(_download, edition.url, edition.layout)]
    ways += [(_download_wheel, f"pip download of {WHEEL}", "wheel")] if edition.layout == "100k" else []
    for get, what, layout in ways:
        try:
            source = Source(edition, get(edition, cache), layout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:  # errors of requests are OSErrors
            tried.append(f"{what}: {type(error).__name__}: {error}")
        else:
            print(edition.terms)
            return source
    steps = "\n".join(f"  {n}. {step}" for n, step in enumerate(tried, 1))
    raise RuntimeError(
        f"{edition.title} could not be loaded. Tried:\n{steps}\n"
        f"To put it there by hand, save {edition.url} as {cache / edition.archive}, or into a folder of your own that "
        f"the environment variable RECSYS_DATA_DIR names. {edition.offline} works offline."
    )


def _download(edition: Edition, cache: Path) -> Path:
    import pooch

    host = edition.url.removesuffix(edition.archive)
    fetcher = pooch.create(cache, base_url=host, registry={edition.archive: edition.hash}, retry_if_failed=2)
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT, chunk_size=2**16, progressbar=sys.stderr.isatty())
    return Path(fetcher.fetch(edition.archive, downloader=downloader))


def _download_wheel(edition: Edition, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder]
        command.append("==".join(WHEEL.split("-")[:2]))
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        wheel = Path(folder) / WHEEL
        if run.returncode or not wheel.is_file():
            raise OSError(run.stderr.strip()[-500:] or f"pip ended with status {run.returncode} and no such file")
        found = checksum(wheel, "sha256")
        if found != WHEEL_HASH:
            raise ValueError(f"the file has {found}, expected {WHEEL_HASH}")
        return wheel.replace(cache / WHEEL)


def checksum(path: Path, algorithm: str) -> str:
    """algorithm:hexadecimal digest of a file, as registries of downloads write it."""
    with open(path, "rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


# What is in the files


def _read_items(source: Source) -> pd.DataFrame:
    """Films by ascending id: title, year, genres."""
    table = source.tables["items"]
    films: dict[int, tuple] = {}
    for number, row in _rows(source, table):
        item, title = _whole(row["item_id"]), row["title"].strip()
        if source.layout == "wheel":  # it splits "Title (1995)", and misspells the one film that has no name
            title = "unknown" if row["year"] == "unkonwn" else f"{title} ({row['year']})"
        if source.layout == "100k":
            genres = [genre for genre in GENRES if row[genre] != "0"]
        else:
            split = " " if source.layout == "wheel" else "|"
            genres = row["genres"].replace("(no genres listed)", "unknown").split(split)
        strange = set(genres) - {*GENRES, "Children", "IMAX"}
        if item in films or not 0 < item < 2**31:
            raise source.fault(table, number, f"item_id {row['item_id']!r} is not a positive whole number of its own")
        if strange or not title:
            raise source.fault(table, number, f"film {item}, {title!r}, has the genres {genres}; was the line cut?")
        films[item] = (*_split_year(title), tuple(genre for genre in genres if genre != "unknown"))
    _check_count(source, table, len(films), source.edition.rows[1])
    frame = pd.DataFrame.from_dict(films, orient="index", columns=["title", "year", "genres"])
    return frame.rename_axis("item_id").sort_index()


def _split_year(title: str) -> tuple[str, float]:
    """("Heat", 1995.0) of "Heat (1995)"; of a series, "(1975-1979)", the first year; without a year, NaN."""
    match = re.fullmatch(r"(.+?)\s*\((\d{4})(?:[-\u2013]\s*(?:\d{4})?)?\)(?:\s*\(V\))?", title)
    return (match[1], float(match[2])) if match else (title, float("nan"))


def _read_users(source: Source) -> pd.DataFrame | None:
    """Users by ascending id: age, gender, occupation, zip; None where the edition has no such file."""
    users: dict[int, tuple] = {}
    if "users" not in source.tables:
        return None
    for number, row in _rows(source, source.tables["users"]):
        user, age = _whole(row["user_id"]), _whole(row["age"])
        if user in users or not 0 < user < 2**31 or age < 0:
            problem = f"user_id {row['user_id']!r} or age {row['age']!r} is not a whole number, or the user came before"
            raise source.fault(source.tables["users"], number, problem)
        users[user] = (age, row["gender"], row["occupation"], row["zip"])
    frame = pd.DataFrame.from_dict(users, orient="index", columns=["age", "gender", "occupation", "zip"])
    return frame.rename_axis("user_id").sort_index()


def _read_ratings(source: Source, item_table: pd.DataFrame, user_table: pd.DataFrame | None) -> Interactions:
    table, edition = source.tables["ratings"], source.edition
    known = {"item_id": item_table.index} | ({} if user_table is None else {"user_id": user_table.index})
    dtypes = {"users": np.int32, "items": np.int32, "ratings": np.float32, "timestamps": np.int64}
    whole = {name: np.empty(edition.rows[0], dtype) for name, dtype in dtypes.items()}
    n_rows = 0
    for block in _blocks(source, table):
        columns = _parse(block, table, edition, known)
        if columns is None:
            raise _first_fault(source, table, known, n_rows)
        rows = slice(n_rows, n_rows := n_rows + len(columns[0]))
        for array, column in zip(whole.values(), columns, strict=True):
            array[rows] = column[: len(array[rows])]  # what is too much is counted below
    _check_count(source, table, n_rows, edition.rows[0])
    user_ids = np.unique(whole["users"]) if user_table is None else user_table.index.to_numpy(np.int32)
    whole["users"] = np.searchsorted(user_ids, whole["users"]).astype(np.int32)
    data = Interactions(
        **whole, user_ids=user_ids.astype(np.int64), item_ids=item_table.index.to_numpy(),
        user_table=user_table, item_table=item_table, name=edition.name,
    )  # fmt: skip
    _check_pairs(source, table, data)
    return data


def _blocks(source: Source, table: Table) -> Iterator[bytes]:
    """Whole lines of a file after its header, about BLOCK bytes at a time."""
    next(_rows(source, table), None)  # header and first line are as they should be, or this raises
    with source.open(table.file) as stream:
        if table.header:
            stream.readline()
        while block := stream.read(BLOCK) + stream.readline():
            yield block


def _parse(block: bytes, table: Table, edition: Edition, known: dict[str, pd.Index]) -> list[np.ndarray] | None:
    """User ids, item codes, ratings and time stamps of a block of lines; None when one of them is wrong."""
    separator = table.separator.encode()
    n_lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if block.count(separator) != 3 * n_lines:  # pandas lets a line that is too long slip through, not one too short
        return None
    names = table.columns.split()
    dtypes = dict(zip(names, (np.int64, np.int64, np.float64, np.int64), strict=True))
    try:
        frame = pd.read_csv(
            io.BytesIO(block.replace(separator, b"\t")), sep="\t", header=None, names=names, dtype=dtypes,
            index_col=False, quoting=csv.QUOTE_NONE, skip_blank_lines=False,
        )  # fmt: skip
    except (ValueError, OverflowError):
        return None
    users, items, ratings, timestamps = (frame[name].to_numpy() for name in names)
    low, high, step = edition.scale
    sound = (
        len(frame) == n_lines
        and users.min() > 0
        and users.max() < 2**31
        and ("user_id" not in known or (known["user_id"].get_indexer(users) >= 0).all())
        and ((ratings >= low) & (ratings <= high)).all()
        and (ratings % step == 0).all()
        and timestamps.min() >= BEGINNING
    )
    codes = known["item_id"].get_indexer(items)
    if not sound or codes.min() < 0:
        return None
    return [users, codes, ratings, timestamps]


def _first_fault(source: Source, table: Table, known: dict[str, pd.Index], n_good: int) -> ValueError:
    """The slow, clear reading of what the fast one refused: the first wrong line after n_good right ones."""
    for position, (number, row) in enumerate(_rows(source, table)):
        if position >= n_good and (problem := _problem(row, source.edition, known)):
            return source.fault(table, number, problem)
    return source.fault(table, n_good + 1, "a number from here on is in quotes or otherwise not plain")


def _problem(row: dict[str, str], edition: Edition, known: dict[str, pd.Index]) -> str:
    """What is wrong with a line of ratings or tags, or nothing."""
    for column, file in {"user_id": "users", "item_id": "films"}.items():
        number = _whole(row[column])
        if not 0 < number < 2**31:
            return f"{column} {row[column]!r} is not a positive whole number below 2147483648"
        if column in known and number not in known[column]:
            return f"{column} {number} is not in the file of {file}"
    low, high, step = edition.scale
    if "rating" in row and not _on_scale(row["rating"], low, high, step):
        return f"rating {row['rating']!r} is not one of {low:g} to {high:g} in steps of {step:g}"
    if _whole(row["timestamp"]) < BEGINNING:
        return f"timestamp {row['timestamp']!r} is not in whole seconds since 1970, or before 1995; was the line cut?"
    return ""


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1


def _on_scale(text: str, low: float, high: float, step: float) -> bool:
    try:
        return low <= float(text) <= high and float(text) % step == 0
    except ValueError:
        return False


def _check_count(source: Source, table: Table, found: int, expected: int) -> None:
    if found != expected:
        why = "it was cut off" if found < expected else "it is another edition, or was added to"
        last = found + bool(table.header)
        raise source.fault(table, last, f"the file ends after {found:,} rows, expected {expected:,}: {why}")


def _check_pairs(source: Source, table: Table, data: Interactions) -> None:
    pairs = data.users.astype(np.int64) * data.n_items + data.items
    if (pairs[1:] > pairs[:-1]).all():  # in order of user and film, as in most editions: no need to sort
        return
    ordered = np.sort(pairs)
    if (ordered[1:] == ordered[:-1]).any():
        second = int(pd.Series(pairs).duplicated().to_numpy().argmax())
        first = int((pairs == pairs[second]).argmax()) + 1 + bool(table.header)
        user, item = data.user_ids[data.users[second]], data.item_ids[data.items[second]]
        problem = f"user {user} rates film {item} a second time, first on line {first}; expected one rating a pair"
        raise source.fault(table, second + 1 + bool(table.header), problem)


def _rows(source: Source, table: Table) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, text by column) of each line; raises ValueError at the first that has no such form."""
    names = table.columns.split()
    separator = table.separator.replace("::", "\t")
    quoting = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
    with source.open(table.file) as stream:
        reader = csv.reader(_lines(source, table, stream), delimiter=separator, quoting=quoting, strict=True)
        try:
            for fields in reader:
                if len(fields) != len(names):
                    problem = f"{len(fields)} fields in {separator.join(fields)[:80]!r}, expected {len(names)}"
                    raise source.fault(table, reader.line_num + bool(table.header), f"{problem} ({', '.join(names)})")
                yield reader.line_num + bool(table.header), dict(zip(names, fields, strict=True))
        except csv.Error as error:
            raise source.fault(table, reader.line_num + bool(table.header), f"{error}; was the line cut?") from None


def _lines(source: Source, table: Table, stream: BinaryIO) -> Iterator[str]:
    """Decoded lines after the header, which is checked."""
    number = 0
    for number, line in enumerate(stream, 1):
        line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        try:
            text = line.decode(table.encoding)
        except UnicodeDecodeError as error:
            wrong = line[error.start : error.end]
            raise source.fault(table, number, f"the bytes {wrong!r} are not {table.encoding}") from None
        if table.encoding == "latin-1" and not line.isascii() and _is_utf8(line):
            raise source.fault(table, number, f"{line[:80]!r} is in utf-8, expected latin-1: the file was converted")
        if number == 1 and table.header:
            if text.rstrip("\r\n") != table.header:
                raise source.fault(table, 1, f"the columns are {text.strip()[:80]!r}, expected {table.header!r}")
        else:
            yield text.replace("::", "\t") if table.separator == "::" else text
    if number == 0:
        raise source.fault(table, 1, f"the file is empty, expected {table.columns}")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
