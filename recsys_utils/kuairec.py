"""KuaiRec 2.0 (Gao et al. 2022): views of short videos, a small matrix where nothing is missing, and a simulator.

Every row that is dropped or changed is counted in a report; tables are joined by key, never by position.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri

from recsys_utils import datasets
from recsys_utils.datasets import LAYOUTS, Edition, Table

SIZE = 431_964_858  # bytes of the archive
MARKER = "SIMULATED.txt"  # lies beside simulated files
N_TAGS, UNKNOWN, BEIJING = 31, "UNKNOWN", np.timedelta64(8, "h")
COLUMNS = ["user_id", "video_id", "play_duration", "video_duration", "time", "watch_ratio"]  # of a matrix, once loaded
COUNTS = ["show_cnt", "play_cnt", "complete_play_cnt", "like_cnt", "comment_cnt", "share_cnt", "download_cnt"]
ONEHOT = [f"onehot_feat{k}" for k in range(18)]
VIEWS = "user_id video_id play_duration video_duration timestamp watch_ratio"
READ = {  # the columns of each file that are read
    "big_matrix": VIEWS,
    "small_matrix": VIEWS,
    "user_features": "user_id user_active_degree is_lowactive_period is_live_streamer is_video_author follow_user_num "
    "follow_user_num_range fans_user_num fans_user_num_range friend_user_num friend_user_num_range register_days "
    f"register_days_range {' '.join(ONEHOT)}",
    "item_categories": "video_id feat",
    "item_daily_features": f"video_id date author_id upload_type video_duration play_progress {' '.join(COUNTS)}",
}
TABLES = LAYOUTS["kuairec"] = {name: Table(f"{name}.csv", ",", columns) for name, columns in READ.items()}


class _Zenodo(Edition):
    """Where KuaiRec differs from MovieLens."""

    folder, offline = "KuaiRec 2.0/data", "simulate_kuairec(folder)"
    url = "https://zenodo.org/records/18164998/files/KuaiRec.zip"
    terms = "KuaiRec 2.0: CC BY-SA 4.0. Cite Gao et al. (2022), https://doi.org/10.1145/3511808.3557220."


KUAIREC = _Zenodo("kuairec", "KuaiRec 2.0", "KuaiRec.zip", "md5:261550d472c48eff4990fb13c0e5bcf7", "kuairec", (0, 0, 0))


@dataclass(frozen=True)
class KuaiRec:
    """The tables of KuaiRec, with the ids of its files: those of the small matrix are not contiguous.

    big, small: one row a view, in the order of the file: user_id, video_id, play_duration and video_duration (ms), time
    (wall clock in Beijing, NaT: missing), watch_ratio (play_duration / video_duration, finite, not clipped).
    users: a row for each user_id; ranges are categories, onehot_feat* codes without an order, -1 where unknown.
    videos: a row for each video_id: duration (ms, NaN: missing), author_id (-1: unknown), upload_type, tag_0 to tag_30
    (0/1). daily: video_id, day, and what everybody did with the video on that day. report: table, rule, rows: what was
    found, and what was done with it. simulated: nobody watched these. fingerprint: sha256 of the rows of both matrices.
    """

    big: pd.DataFrame
    small: pd.DataFrame
    users: pd.DataFrame
    videos: pd.DataFrame
    daily: pd.DataFrame
    report: pd.DataFrame
    simulated: bool
    fingerprint: str

    @property
    def source(self) -> str:
        """What every table says of its data."""
        return "simulated KuaiRec" if self.simulated else KUAIREC.title


def load_kuairec(path: str | Path | None = None, *, columns: Sequence[str] | None = None) -> KuaiRec:
    """KuaiRec 2.0 from a folder with its files or from KuaiRec.zip; None: found or fetched as MovieLens is.

    columns: of the matrices these are kept, and the ids; None keeps all. A matrix is read once, through pyarrow: what
    was cleaned lies as parquet beside the file and is read from then on, until the file changes; where nothing can be
    written, nothing is. Raises FileNotFoundError for missing files, ValueError for what is wrong in them or in columns,
    RuntimeError when the archive cannot be had. Memory at 12.5 million rows: under 2 GB.
    """
    if strange := set(columns or ()) - set(COLUMNS):
        raise ValueError(f"columns has {sorted(strange)}; the matrices have {', '.join(COLUMNS)}")
    source, report = _find(path), []
    users, tags = read_users(source, report), read_tags(source)
    static, daily = read_daily(source, report)
    videos = static.reindex(tags.index).join(tags)
    lost, unknown = videos["author_id"].isna().sum(), videos["duration"].isna().sum()
    report.append(("item_categories", "video has no row in item_daily_features: kept, author_id is -1", lost))
    report.append(("item_categories", "video has no duration: kept, NaN", unknown))
    videos["author_id"] = videos["author_id"].fillna(-1).astype("int32")
    videos["upload_type"] = videos["upload_type"].fillna(UNKNOWN).astype("category")
    wanted = [name for name in COLUMNS if columns is None or name in {"user_id", "video_id", *columns}]
    big, big_hash = _matrix(source, "big_matrix", wanted, report)
    small, small_hash = _matrix(source, "small_matrix", wanted, report)
    shared = big[big["user_id"].isin(small["user_id"].unique())]
    both = np.isin(_pairs(shared), _pairs(small)).sum()
    report.append(("big_matrix", "the small matrix has the pair, too: kept in both", both))
    simulated = source.path.is_dir() and (source.path / MARKER).is_file()
    report = pd.DataFrame(report, columns=["table", "rule", "rows"])
    return KuaiRec(big, small, users, videos, daily, report, simulated, f"sha256:{_sha256(big_hash + small_hash)}")


def with_features(rows: pd.DataFrame, users: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """The rows, in their order, with the columns of their user and of their video, found by user_id and video_id.

    users, videos: indexed by id, any of the columns of KuaiRec.users and KuaiRec.videos. Raises ValueError for an id
    without features, pandas.errors.MergeError for an id that has them twice.
    """
    joined = rows
    for table, key in ((users, "user_id"), (videos, "video_id")):
        lost = np.setdiff1d(rows[key], table.index)
        if len(lost):
            raise ValueError(f"{key} {', '.join(map(str, lost[:5]))} ({len(lost)} in all): no features in the table")
        joined = joined.merge(table, how="left", left_on=key, right_index=True, validate="many_to_one")
    assert joined.index.equals(rows.index), f"{len(rows)} rows became {len(joined)}, or changed their order"
    return joined


def counts_before(rows: pd.DataFrame, daily: pd.DataFrame) -> pd.DataFrame:
    """What everybody did with the row's video on the day before the view: the columns of daily, float32, (n, d).

    NaN, and counts_missing, where the view has no time or the video no row on exactly that day. The day itself is never
    used: its counts hold the view. Raises ValueError when a video has two rows on a day.
    """

    def numbered(videos: pd.Series, times: pd.Series) -> np.ndarray:  # the day after has the next number
        return videos.to_numpy("int64") * 2**20 + times.to_numpy("M8[D]").astype("int64").clip(0)

    known = pd.Index(numbered(daily["video_id"], daily["day"]))
    if not known.is_unique:
        row = daily[known.duplicated()].iloc[0]
        raise ValueError(f"video {row['video_id']} has two rows on {row['day']:%Y-%m-%d}; expected one a day")
    at = np.where(rows["time"].isna(), -1, known.get_indexer(numbered(rows["video_id"], rows["time"]) - 1))
    values = daily.drop(columns=["video_id", "day"]).astype("float32").take(at).set_axis(rows.index)
    values[at < 0] = np.nan
    return values.assign(counts_missing=at < 0)


def ratio_statistics(ratios: np.ndarray, limit: float = 5) -> dict[str, float]:
    """Rows, share above limit, and mean, sd and quartiles of the ratios that are not: left out, as published."""
    kept = np.asarray(ratios, float)
    kept = kept[kept <= limit]
    quartiles = zip(("q25", "median", "q75"), np.quantile(kept, [0.25, 0.5, 0.75]), strict=True)
    above = 1 - len(kept) / len(ratios)
    return {"rows": len(ratios), "above": above, "mean": kept.mean(), "sd": kept.std(), **dict(quartiles)}


# Reading


def _find(path: str | Path | None) -> datasets.Source:
    if path is None:
        return datasets.obtain(KUAIREC)
    path = Path(path).expanduser()
    for folder in (path, path / KUAIREC.folder):
        missing = [table.file for table in TABLES.values() if not (folder / table.file).is_file()]
        if not missing:
            return datasets.Source(KUAIREC, folder, "kuairec")
        if len(missing) < len(TABLES):
            raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; unpack {KUAIREC.url} there")
    archive = path if path.is_file() else path / KUAIREC.archive
    if not archive.is_file():
        raise FileNotFoundError(f"{path} holds no file of KuaiRec; give {KUAIREC.archive} or the folder of its files")
    if (found := datasets.checksum(archive, "md5")) != KUAIREC.hash:
        size = archive.stat().st_size
        problem = f"has {size:,} bytes and {found}, expected {SIZE:,} and {KUAIREC.hash}"
        raise ValueError(f"{archive} {problem}: it {'was cut off' if size < SIZE else 'is another file'}")
    return datasets.Source(KUAIREC, archive, "kuairec")


def _fault(source: datasets.Source, name: str, problem: object) -> ValueError:
    return ValueError(f"{source.path / TABLES[name].file}: {problem}; {source.way_out}")


def _sha256(data) -> str:
    return hashlib.sha256(data).hexdigest()


def _pairs(rows: pd.DataFrame) -> np.ndarray:
    return rows["user_id"].to_numpy("int64") << 32 | rows["video_id"].to_numpy()


def _read(source: datasets.Source, name: str, keys: list[str], words: list[str], gaps: Sequence[str] = ()):
    """What is read of a side table: `words` are text, `gaps` any numbers, all else is whole; `keys` come once."""
    columns = TABLES[name].columns.split()
    dtypes = dict.fromkeys(columns, float) | dict.fromkeys(words, str)
    try:
        with source.open(TABLES[name].file) as stream:
            frame = pd.read_csv(stream, usecols=columns, dtype=dtypes)
    except ValueError as error:
        raise _fault(source, name, error) from None
    whole = [column for column in columns if column not in {*words, *gaps}]
    wrong = frame.duplicated(keys) | (frame[whole] % 1 != 0).any(axis=1)
    if wrong.any():
        row = ", ".join(f"{key} {value:.15g}" for key, value in frame.loc[wrong.idxmax(), keys].items())
        raise _fault(source, name, f"{row} comes twice, or with a number that is missing or not whole")
    return frame.astype(dict.fromkeys(whole, "int32"))


def read_users(source: datasets.Source, report: list) -> pd.DataFrame:
    """user_features.csv by user_id; what is unknown is counted in the report."""
    words = [name for name in TABLES["user_features"].columns.split() if name.endswith(("degree", "range"))]
    users = _read(source, "user_features", ["user_id"], words, ONEHOT).set_index("user_id")
    missing, unknown = users[ONEHOT].isna().to_numpy().sum(), (users["user_active_degree"] == UNKNOWN).sum()
    report.append(("user_features", "onehot_feat* is missing: kept, -1 is a class of its own", missing))
    report.append(("user_features", f"user_active_degree is {UNKNOWN}: kept, a class of its own", unknown))
    dtypes = dict.fromkeys(words, "category") | dict.fromkeys(ONEHOT, "int16")
    return users.fillna(dict.fromkeys(ONEHOT, -1)).astype(dtypes)


def read_tags(source: datasets.Source) -> pd.DataFrame:
    """The tags of item_categories.csv as 0/1 columns by video_id."""
    frame = _read(source, "item_categories", ["video_id"], ["feat"])
    flags = np.zeros((len(frame), N_TAGS), "int8")
    for row, text in zip(flags, frame["feat"], strict=True):
        try:
            row[[range(N_TAGS).index(tag) for tag in json.loads(text)]] = 1
        except (TypeError, ValueError):
            problem = f"feat {text!r} is not a list of tags from 0 to {N_TAGS - 1}"
            raise _fault(source, "item_categories", problem) from None
    return pd.DataFrame(flags, frame.set_index("video_id").index, [f"tag_{tag}" for tag in range(N_TAGS)])


def read_daily(source: datasets.Source, report: list) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What stays the same about a video, by video_id, and its counts by day, from item_daily_features.csv."""
    name, keys, gaps = "item_daily_features", ["video_id", "date"], ["video_duration", "play_progress"]
    frame = _read(source, name, keys, ["upload_type"], gaps).sort_values(keys, ignore_index=True)
    frame = frame.astype(dict.fromkeys(gaps, "float32"))
    frame["day"] = pd.to_datetime(frame["date"].astype(str), format="%Y%m%d").astype("M8[ms]")
    videos = frame.rename(columns={"video_duration": "duration"}).groupby("video_id")
    changes = (videos[["author_id", "upload_type"]].nunique() > 1).any(axis=1).sum()
    report.append((name, "rows in the file", len(frame)))
    report.append((name, "author or upload type changes: the first counts", changes))
    static = videos[["duration", "author_id", "upload_type"]].first()
    return static, frame[["video_id", "day", *COUNTS, "play_progress"]]


def _matrix(source: datasets.Source, name: str, wanted: list[str], report: list) -> tuple[pd.DataFrame, bytes]:
    """Columns and hash of a matrix, from the parquet made of this very file, else from the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = source.path / TABLES[name].file if source.path.is_dir() else source.path
    cache, facts = file.with_name(f"kuairec_{name}.parquet"), None
    key = [1, file.stat().st_size, file.stat().st_mtime_ns]
    with suppress(OSError, KeyError, TypeError, ValueError):  # there is none, or it is not ours, or damaged
        stored = json.loads(pq.read_schema(cache).metadata[b"recsys_utils"])
        if stored["key"] == key:
            frame = pq.read_table(cache, columns=wanted).to_pandas(split_blocks=True, self_destruct=True)
            facts = stored
    if facts is None:
        frame, facts = _read_matrix(source, name)
        table = pa.Table.from_pandas(frame, preserve_index=False)
        part = cache.with_suffix(f".{os.getpid()}")
        try:
            pq.write_table(table.replace_schema_metadata({"recsys_utils": json.dumps(facts | {"key": key})}), part)
            part.replace(cache)
        except OSError:
            with suppress(OSError):
                part.unlink()
        for column in set(frame) - set(wanted):
            del frame[column]
    report += [(name, rule, rows) for rule, rows in facts["found"].items()]
    return frame, facts["sha256"].encode()


def _read_matrix(source: datasets.Source, name: str) -> tuple[pd.DataFrame, dict]:
    """The rows of a matrix that are kept, and what was found."""
    import pyarrow as pa
    import pyarrow.csv as pc

    columns = TABLES[name].columns.split()
    types = dict.fromkeys(columns, pa.int32()) | {"timestamp": pa.float64(), "watch_ratio": pa.float32()}
    try:
        with source.open(TABLES[name].file) as stream:
            convert = pc.ConvertOptions(include_columns=columns, column_types=types)
            table = pc.read_csv(stream, convert_options=convert)
    except (pa.ArrowException, OSError) as error:
        raise _fault(source, name, error) from None
    gaps = [column for column in columns[:4] if table[column].null_count]
    if gaps or not len(table):
        raise _fault(source, name, f"{', '.join(gaps)} is missing in a row" if gaps else "the file has no rows")
    frame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    pa.default_memory_pool().release_unused()
    stamp, ratio = frame.pop("timestamp").to_numpy(), frame["watch_ratio"].to_numpy()
    known = stamp >= 946_684_800  # seconds: the year 2000
    time = np.where(known, stamp * 1000, 0).round().astype("int64").view("M8[ms]") + BEIJING
    time[~known] = np.datetime64("NaT")
    frame["time"] = time
    zero = frame["video_duration"].to_numpy() <= 0
    strange = ~zero & ~(np.isfinite(ratio) & (ratio >= 0))
    hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    copies = ~zero & ~strange & pd.Series(hashes).duplicated().to_numpy()
    keep = ~zero & ~strange & ~copies
    frame = pd.DataFrame({column: frame.pop(column).to_numpy()[keep] for column in COLUMNS}, copy=False)
    pairs = np.sort(_pairs(frame))
    found = {
        "rows in the file": keep.size,
        "video_duration is not above 0, there is no ratio: dropped": zero.sum(),
        "watch_ratio is missing, infinite or negative: dropped": strange.sum(),
        "copy of an earlier row, the same to the millisecond: dropped": copies.sum(),
        "time stamp is missing: kept, time is NaT": (np.isnan(stamp) & keep).sum(),
        "time stamp is before the year 2000: kept, time is NaT": (~known & ~np.isnan(stamp) & keep).sum(),
        "the user saw the video before, at another time: kept": (pairs[1:] == pairs[:-1]).sum(),
        "watch_ratio is above 5: kept, not clipped": (frame["watch_ratio"] > 5).sum(),
        "rows kept": len(frame),
    }
    return frame, {"found": {rule: int(rows) for rule, rows in found.items()}, "sha256": _sha256(hashes[keep])}


# Simulation

START, N_DAYS, DAY = np.datetime64("2020-07-05", "ms"), 63, np.timedelta64(1, "D")
QUANTILES = {  # share of views below a watch ratio; above 5 a Pareto tail with exponent 1.83
    "big": {
        1e-4: 0, 0.03: 0.05, 0.1: 0.12, 0.208: 0.25, 0.248: 0.311, 0.359: 0.5, 0.495: 0.716, 0.662: 1, 0.743: 1.162,
        0.84: 1.5, 0.925: 2, 0.97: 2.7, 0.9908: 5,
    },
    "small": {
        1e-4: 0, 0.02: 0.06, 0.127: 0.25, 0.249: 0.466, 0.272: 0.5, 0.498: 0.766, 0.675: 1, 0.746: 1.114, 0.86: 1.38,
        0.954: 2, 0.98: 2.5, 0.9951: 5,
    },
}  # fmt: skip
SIGNAL, BUZZ = 0.55, 0.3  # weights in a sum of variance 1; the rest is chance
CODES = [2, 8, 30, 1076, 12, 10, 3, 47, 340, 7, 5, 3, *[2] * 6]  # classes of onehot_feat0 to 17
NUMBERS = {  # mean and standard deviation of the log, and the classes of the range by their upper ends
    "follow_user_num": (3.5, 1.7, [0, 10, 50, 100, 150, 250, 500],
                        "0 (0,10] (10,50] (50,100] (100,150] (150,250] (250,500] 500+"),
    "fans_user_num": (0.3, 1.3, [0, 9, 99, 999, 4999, 9999], "0 [1,10) [10,100) [100,1k) [1k,5k) [5k,1w) [1w,10w)"),
    "friend_user_num": (-0.8, 1.5, [0, 4, 29, 59, 119, 249], "0 [1,5) [5,30) [30,60) [60,120) [120,250) 250+"),
    "register_days": (5.4, 0.75, [30, 60, 90, 180, 365, 730], "15-30 31-60 61-90 91-180 181-365 366-730 730+"),
}  # fmt: skip
UPLOADS = np.array(["ShortImport", "LongImport", "ShortCamera", "Kmovie", "PhotoCopy", UNKNOWN])
RATES = {  # of a column of item_daily_features, for each play of the day
    "show_cnt": 4, "play_cnt": 1, "play_duration": 7000, "complete_play_cnt": 0.35, "valid_play_cnt": 0.6,
    "long_time_play_cnt": 0.3, "short_time_play_cnt": 0.35, "play_progress": 0, "comment_stay_duration": 90,
    "like_cnt": 0.03, "click_like_cnt": 0.01, "double_click_cnt": 0.02, "cancel_like_cnt": 0.002, "comment_cnt": 0.005,
    "direct_comment_cnt": 0.004, "reply_comment_cnt": 0.001, "delete_comment_cnt": 2e-4, "comment_like_cnt": 0.008,
    "follow_cnt": 0.003, "cancel_follow_cnt": 2e-4, "share_cnt": 0.003, "download_cnt": 0.002, "report_cnt": 1e-4,
    "reduce_similar_cnt": 0.002, "collect_cnt": 0.002, "cancel_collect_cnt": 4e-4,
}  # fmt: skip


def simulate_kuairec(
    folder: str | Path, n_users: int = 1_200, n_items: int = 2_000, n_small_users: int = 180, n_small_items: int = 400,
    n_rows: int | None = None, seed: int = 0,
) -> Path:  # fmt: skip
    """Made-up files of KuaiRec 2.0 in `folder`, which is returned: names, columns, dtypes and quirks of the real ones.

    How far user u watches video i on day d follows a sum: the habit of u (own, active degree, followed accounts, codes
    7 and 9 of onehot_feat*), the appeal of i (author, tags, upload type, own), the taste of u (own, codes 1 and 2) for
    the tags of i, minus the log of its duration, a buzz of (i, d) that fades from day to day, and chance. The sum is
    mapped onto the published quantiles of the watch ratio, other ones for each matrix, with a Pareto tail: replays.
    Big matrix: n_rows rows (None: 16.3% of all pairs), more of them by active users; a user meets videos in proportion
    to popularity (own and of the author) times exp(sum / 2): what is seen is liked. Small matrix: its users meet all
    its videos but those of authors they blocked, which they meet nowhere; its pairs are not in the big one. Counts of a
    day are Poisson, at rates that follow popularity, age, appeal and the buzz of that same day: a leak for who joins
    them. Ids and codes have no order. Faults: rows written twice, no duration, a clock at 1970, no time, days that are
    missing, values that are unknown. Raises ValueError for sizes that do not fit.
    """
    for name, part, whole in (("users", n_small_users, n_users), ("items", n_small_items, n_items)):
        if not 0 < part < whole:
            raise ValueError(f"n_small_{name} is {part}; expected 1 to {whole - 1}: fewer than n_{name}")
    n_rows = round(0.163 * n_users * n_items) if n_rows is None else n_rows
    if n_rows < n_users:
        raise ValueError(f"n_rows is {n_rows}; expected at least one for each of {n_users} users")
    folder, rng = Path(folder), np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = f"{n_users=}, {n_items=}, {n_small_users=}, {n_small_items=}, {n_rows=}, {seed=}"
    (folder / MARKER).write_text(f"Made up by simulate_kuairec: {sizes}\n", encoding="utf-8")
    user, item = _make_users(folder, n_users, rng), _make_items(folder, n_items, rng)
    users, items = np.zeros(n_users, bool), np.zeros(n_items, bool)  # of the small matrix
    users[rng.choice(n_users, n_small_users, replace=False)] = True
    weights = item["popularity"] * np.exp(item["appeal"])
    items[rng.choice(n_items, n_small_items, replace=False, p=weights / weights.sum())] = True
    blocked = np.zeros((n_users, n_items // 2), bool)  # [u, a]: by user u, the videos of author a
    blocked[users] = rng.random((n_small_users, n_items // 2)) < 0.0038
    activity = user["activity"] * np.where(users, 0.25, 1)
    n_views = 1 + rng.multinomial(n_rows - n_users, activity / activity.sum())

    def attraction(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Without buzz and chance, and how often the users meet each video, both (B, n_items)."""
        taste = user["taste"][ids] @ item["tags"].T
        sums = 0.5 * user["habit"][ids, None] + item["appeal"] + 0.45 * taste - 0.4 * item["length"]
        return sums, item["popularity"] * np.exp(0.5 * sums)

    sums, met = attraction(rng.choice(n_users, 400, p=activity / activity.sum()))
    spread = {"big": _moments(sums, met), "small": _moments(attraction(users)[0][:, items])}
    step = max(1, 4_000_000 // n_items)
    with open(folder / "big_matrix.csv", "wb") as big, open(folder / "small_matrix.csv", "wb") as small:
        for start in range(0, n_users, step):
            ids = np.arange(start, min(start + step, n_users))
            sums, met = attraction(ids)
            closed = blocked[ids][:, item["author"]]
            tested = users[ids, None] & items & ~closed
            met = np.where(closed | tested, 0, met).cumsum(axis=1)
            met = met / met[:, -1:] + np.arange(len(ids))[:, None]
            rows = np.repeat(np.arange(len(ids)), n_views[ids])
            drawn = np.searchsorted(met.ravel(), rows + rng.random(len(rows)), "right") - rows * n_items
            views = {"small": (small, *np.nonzero(tested)), "big": (big, rows, drawn.clip(0, n_items - 1))}
            for name, (file, row, column) in views.items():
                signal = (sums[row, column] - spread[name][0]) / spread[name][1]
                _write_views(file, name, ids[row], column, signal, item, rng)
    return folder


def _moments(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Mean and standard deviation; a row counts as much as any other, whatever the sum of its weights."""
    weights = None if weights is None else weights / weights.sum(axis=1, keepdims=True)
    mean = np.average(values, weights=weights)
    return mean, np.sqrt(np.average((values - mean) ** 2, weights=weights))


def _write_csv(file, columns: dict) -> None:
    import pyarrow as pa
    import pyarrow.csv as pc

    if not file.tell():
        file.write((",".join(columns) + "\n").encode())
    pc.write_csv(pa.table(columns), file, pc.WriteOptions(include_header=False, quoting_style="none"))


def _write_views(file, name: str, users, items, signal, item: dict, rng: np.random.Generator) -> None:
    import pyarrow as pa

    n, big = len(users), name == "big"
    born, duration = item["born"][items], item["duration"][items]
    day = born + ((N_DAYS - born) * rng.random(n) ** (1.5 if big else 1)).astype(int)
    total = SIGNAL * signal + BUZZ * item["buzz"][items, day]
    total += rng.normal(scale=np.sqrt(1 - SIGNAL**2 - BUZZ**2), size=n)
    tail, (shares, ratios) = 10.0 ** -np.arange(3, 8), np.array([*QUANTILES[name].items()]).T
    ratios = np.append(ratios, (5 * (tail / (1 - shares[-1])) ** (-1 / 1.83)).clip(5, 573))
    play = np.expm1(np.interp(total, ndtri(np.append(shares, 1 - tail)), np.log1p(ratios))) * duration
    time = START + day * DAY + (rng.beta(3, 2, n) * 86_399_999).astype("m8[ms]")
    missing, order = (rng.random(n) < 0.039) & (not big), np.arange(n)
    if big:  # the faults of the log: no duration, no clock, rows written twice
        duration = np.where(rng.random(n) < 1e-4, 0, duration)
        time[rng.random(n) < 1e-4] = np.datetime64(0, "ms") + BEIJING
        order -= (rng.random(n) < 0.083) & (users == np.roll(users, 1))
    order = order[np.lexsort((time[order], missing[order], users[order]))]
    users, items, play, duration, time, missing = (
        a[order] for a in (users, items, play.round(), duration, time, missing)
    )
    dates, code = np.unique(time.astype("M8[D]"), return_inverse=True)
    dates = pa.array([str(date).replace("-", "") + ("" if big else ".0") for date in dates])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = play / duration
    _write_csv(file, {
        "user_id": users, "video_id": items, "play_duration": play.astype(int), "video_duration": duration,
        "time": pa.array(time, mask=missing), "date": dates.take(pa.array(code, mask=missing)),
        "timestamp": pa.array((time - BEIJING).astype(int) / 1000, mask=missing), "watch_ratio": ratio,
    })  # fmt: skip


def _make_users(folder: Path, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    degree = rng.choice(4, n, p=[0.85, 0.13, 0.016, 0.004])
    table = {
        "user_id": np.arange(n),
        "user_active_degree": np.array(["full_active", "high_active", UNKNOWN, "middle_active"])[degree],
    }
    for name, share in {"is_lowactive_period": 4e-4, "is_live_streamer": 0.007, "is_video_author": 0.17}.items():
        table[name] = (rng.random(n) < share).astype(int)
    for name, (mean, sd, ends, ranges) in NUMBERS.items():
        table[name] = np.exp(rng.normal(mean, sd, n)).astype(int)
        table[f"{name}_range"] = np.array(ranges.split())[np.searchsorted(ends, table[name])]
    codes = [rng.permutation(size)[(size * rng.random(n) ** 2).astype(int)] for size in CODES]
    for name, code, size in zip(ONEHOT, codes, CODES, strict=True):
        table[name] = np.where(rng.random(n) < 0.01, np.nan, code) if size in (2, 12) and name != ONEHOT[0] else code
    pd.DataFrame(table).to_csv(folder / "user_features.csv", index=False)
    habit = 0.5 * (_effects(codes[7], rng) + _effects(codes[9], rng) + rng.normal(size=n))
    habit += np.array([0.2, -0.3, -0.5, -1])[degree] + 0.2 * (np.log1p(table["follow_user_num"]) - 3.5)
    taste = _effects(codes[1], rng, N_TAGS) + _effects(codes[2], rng, N_TAGS) + rng.normal(size=(n, N_TAGS))
    activity = np.exp(rng.normal(scale=0.4, size=n)) * np.array([1.1, 0.6, 0.6, 0.4])[degree]
    return {"taste": taste.astype("float32"), "habit": habit.astype("float32"), "activity": activity}


def _effects(codes: np.ndarray, rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A standard normal effect of each code, looked up for each row: (n, *shape)."""
    return rng.normal(size=(codes.max() + 1, *shape))[codes]


def _make_items(folder: Path, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    common = rng.permutation(np.log(1 / np.arange(2, N_TAGS + 2)))
    ranked = np.argsort(-common - rng.gumbel(size=(n, N_TAGS)), axis=1)  # drawn without replacement
    n_tags = rng.choice([1, 2, 3], n, p=[0.837, 0.146, 0.017])
    feat = [row[:k].tolist() for row, k in zip(ranked, n_tags, strict=True)]
    pd.DataFrame({"video_id": np.arange(n), "feat": feat}).to_csv(folder / "item_categories.csv", index=False)
    tags = np.zeros((n, N_TAGS), "float32")
    tags[np.repeat(np.arange(n), n_tags), np.concatenate(feat)] = 1
    author, upload = (n // 2 * rng.random(n) ** 2).astype(int), rng.choice(6, n, p=[0.5, 0.2, 0.15, 0.08, 0.05, 0.02])
    appeal = _effects(author, rng) + _effects(upload, rng) + tags @ rng.normal(size=N_TAGS) + rng.normal(size=n)
    duration = (9636 * np.exp(0.333 * rng.standard_t(4, n))).clip(3000, 315_072).astype(int)
    born, buzz = rng.integers(-40, N_DAYS - 3, n).clip(0), rng.normal(size=(n, N_DAYS))
    for day in range(1, N_DAYS):
        buzz[:, day] = 0.7 * buzz[:, day - 1] + np.sqrt(1 - 0.7**2) * buzz[:, day]
    item = {
        "tags": tags / np.sqrt(n_tags, dtype="float32")[:, None], "appeal": (0.35 * appeal).astype("float32"),
        "length": (2 * np.log(duration / 9636)).astype("float32"), "duration": duration, "born": born, "buzz": buzz,
        "popularity": np.exp(0.5 * _effects(author, rng) + 0.5 * rng.normal(size=n)), "author": author,
    }  # fmt: skip
    static = pd.DataFrame({
        "author_id": rng.permutation(3 * n)[author], "video_type": "NORMAL",
        "upload_dt": (START + born * DAY).astype("M8[D]").astype(str),
        "upload_type": UPLOADS[upload], "visible_status": "public",
        "video_duration": np.where(rng.random(n) < 0.03, np.nan, duration), "video_width": 720, "video_height": 1280,
        "music_id": rng.integers(0, 10**9, n), "video_tag_id": ranked[:, 0],
        "video_tag_name": np.where(rng.random(n) < 0.09, None, "tag"),
    })  # fmt: skip
    _write_daily(folder, item, static, rng)
    return item


def _write_daily(folder: Path, item: dict, static: pd.DataFrame, rng: np.random.Generator) -> None:
    import pyarrow as pa

    n = len(static)
    here = (
        (np.arange(N_DAYS) >= item["born"][:, None]) & (rng.random((n, N_DAYS)) < 0.95) & (rng.random((n, 1)) < 0.997)
    )
    video, day = np.nonzero(here)
    mood = item["appeal"][video] + 0.7 * item["buzz"][video, day]
    plays = rng.poisson(6000 * item["popularity"][video] * np.exp(0.5 * mood - 0.03 * (day - item["born"][video])))
    dates = np.array([int(str(START + k * DAY)[:10].replace("-", "")) for k in range(N_DAYS)])
    known = pa.Table.from_pandas(static.take(video), preserve_index=False)
    columns = {"video_id": video, "date": dates[day], **dict(zip(known.column_names, known.columns, strict=True))}
    for name, rate in RATES.items():
        stem = name.removesuffix("_cnt")
        columns[name] = rng.poisson(rate * plays * np.exp(0.3 * mood * (stem != "show")))
        if stem == "play_progress":
            columns[name] = expit(0.4 * mood - 0.3 + 0.1 * rng.normal(size=len(video)))
        elif rate <= 1:  # nothing happens more often than plays
            columns[name] = plays if rate == 1 else np.minimum(columns[name], plays)
        if stem != name and not stem.startswith(("click", "double", "direct", "reply")):
            columns[f"{stem}_user_num"] = np.ceil(0.9 * columns[name]).astype(int)
        for late in (name, f"{stem}_user_num") if "collect" in stem else ():  # not counted in the first days
            columns[late] = pa.array(columns[late], mask=day < 13)
    with open(folder / "item_daily_features.csv", "wb") as file:
        _write_csv(file, columns)
