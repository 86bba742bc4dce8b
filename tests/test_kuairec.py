"""KuaiRec: the simulated files, every rule of the loader, every way a file can be wrong, and joins by key."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from loopback import serving
from recsys_utils import datasets, kuairec
from recsys_utils.kuairec import COUNTS, counts_before, load_kuairec, ratio_statistics, simulate_kuairec, with_features

CHECKOUT = Path(__file__).resolve().parent.parent
SIZES = {"n_users": 150, "n_items": 240, "n_small_users": 40, "n_small_items": 80}
REAL = Path(os.environ.get("RECSYS_DATA_DIR", "-")) / "kuairec-side"  # the two side tables that are small
PUBLISHED = {  # chongminggao/KuaiRec: the README, and its statistics, which leave out ratios above 5
    "big": {"mean": 0.851, "sd": 0.719, "q25": 0.311, "median": 0.716, "q75": 1.162, "density": 0.163},
    "small": {"mean": 0.855, "sd": 0.595, "q25": 0.466, "median": 0.766, "q75": 1.114, "density": 0.996},
}
MATRIX = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio"
USER = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
    "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,register_days,"
    "register_days_range," + ",".join(f"onehot_feat{k}" for k in range(18))
)
DAILY = "video_id,date,author_id,upload_type,video_duration,play_progress," + ",".join(COUNTS)
TINY = {
    "big_matrix.csv": [
        MATRIX,
        "3,7,5000,10000,2020-07-05 00:08:23.438,20200705,1593878903.438,0.5",
        "3,7,5000,10000,2020-07-05 00:08:23.438,20200705,1593878903.438,0.5",
        "3,7,5000,10000,2020-07-06 00:08:23.438,20200706,1593965303.438,0.5",
        "3,9,60000,10000,2020-07-07 00:08:23.438,20200707,1594051703.438,6.0",
        "5,9,800,0,2020-07-07 00:08:23.438,20200707,1594051703.438,inf",
        "5,9,800,1000,1970-01-01 08:00:00.000,19700101,0.0,0.8",
        "5,12,800,1000,2020-07-07 00:08:23.438,20200707,1594051703.438,inf",
        "5,12,800,1000,2020-07-07 00:08:24.438,20200707,1594051704.438,",
        "5,12,-800,1000,2020-07-07 00:08:25.438,20200707,1594051705.438,-0.8",
        "8,12,0,1000,2020-07-06 23:59:59.999,20200706,1594051199.999,0.0",
    ],
    "small_matrix.csv": [
        MATRIX,
        "5,7,9000,10000,2020-07-06 00:00:00.000,20200706.0,1593964800.0,0.9",
        "5,9,2500,10000,,,,0.25",
        "8,7,1000,10000,2020-07-07 00:00:00.000,20200707.0,1594051200.0,0.1",
        "8,12,500,1000,,,,0.5",
    ],
    "user_features.csv": [
        USER,
        '8,full_active,0,0,1,12,"(10,50]",0,0,3,"[1,5)",300,181-365,' + ",".join("0" * 18),
        '3,UNKNOWN,0,0,0,0,0,12,"[10,100)",0,0,40,31-60,1,2,3,4,,6,1,8,9,1,2,1,,,,,,',
        "5,high_active,1,0,0,700,500+,0,0,0,0,20,15-30,1,2,3,4,5,6,1,8,9,1,2,1,0,1,0,1,0,1",
    ],
    "item_categories.csv": ["video_id,feat", "12,[30]", '7,"[2, 0]"', "9,[5]", "20,[5]"],
    "item_daily_features.csv": [
        DAILY,
        "7,20200706,40,ShortImport,10000.0,0.5,40,10,4,3,2,1,0",
        "7,20200705,40,ShortImport,10000.0,0.25,20,5,2,1,0,0,0",
        "9,20200706,41,LongImport,,0.75,80,20,8,6,4,2,1",
        "9,20200705,42,LongImport,,0.5,8,2,1,0,0,0,0",
        "12,20200705,41,Kmovie,1000.0,0.5,16,4,2,1,0,0,0",
    ],
}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No data of the reader's own, an empty cache, no host."""
    monkeypatch.setattr(datasets, "_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(datasets, "TIMEOUT", (5, 1))
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(kuairec._Zenodo, "url", "http://127.0.0.1:1/KuaiRec.zip")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """At the default size: loaded, and the folder."""
    folder = simulate_kuairec(tmp_path_factory.mktemp("kuairec"))
    return load_kuairec(folder), folder


def tiny(folder: Path, changes: dict[str, list[str] | None] | None = None) -> Path:
    """A folder with ten views in it, some files changed or, None, left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (TINY | (changes or {})).items():
        (folder / name).unlink(missing_ok=True)
        if lines is not None:
            (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


def with_line(name: str, number: int, line: str) -> dict[str, list[str]]:
    """The change that puts `line` into a tiny file; its header is line 0."""
    return {name: [*TINY[name][:number], line, *TINY[name][number + 1 :]]}


def rows_of(data, table: str, rule: str) -> int:
    found = data.report[(data.report["table"] == table) & data.report["rule"].str.contains(rule)]
    assert len(found) == 1, (table, rule)
    return int(found["rows"].iloc[0])


# The simulation


def shares(data) -> dict[str, dict[str, float]]:
    """What PUBLISHED lists, of the rows in the files: copies count."""
    found = {name: ratio_statistics(getattr(data, name)["watch_ratio"]) for name in PUBLISHED}
    for name, rows in {"big": data.big, "small": data.small}.items():
        pairs = rows["user_id"].nunique() * rows["video_id"].nunique()
        found[name]["density"] = rows_of(data, f"{name}_matrix", "rows in the file") / pairs
    return found


def check_published(found: dict[str, dict[str, float]]) -> None:
    for matrix, figures in PUBLISHED.items():
        for name, value in figures.items():
            assert abs(found[matrix][name] / value - 1) < 0.1, f"{matrix} {name} {found[matrix][name]:.3f}, not {value}"


def test_the_published_statistics_are_met_within_a_tenth(simulated):
    found = shares(simulated[0])
    check_published(found)
    assert abs(found["big"]["above"] - 0.0092) < 0.002
    assert abs(found["small"]["above"] - 0.0049) < 0.002
    found["big"]["sd"] *= 1.2
    with pytest.raises(AssertionError, match=r"big sd 0\.\d+, not 0\.719"):
        check_published(found)


def test_statistics_leave_out_what_is_above_the_limit():
    found = ratio_statistics(np.array([0, 1, 2, 5, 5.1, 50]))
    expected = {"rows": 6, "above": 1 / 3, "mean": 2, "sd": np.sqrt(3.5), "q25": 0.75, "median": 1.5, "q75": 2.75}
    assert found == pytest.approx(expected)
    assert ratio_statistics(np.array([0.0, 1, 2]), limit=1)["above"] == pytest.approx(1 / 3)


def test_files_have_the_columns_and_dtypes_of_the_real_ones(simulated):
    frames = {path.stem: pd.read_csv(path) for path in simulated[1].glob("*.csv")}
    assert sorted(frames) == sorted(kuairec.TABLES)
    real = {"int64": 5, "object": 1, "float64": 2}
    assert frames["big_matrix"].dtypes.astype(str).value_counts().to_dict() == real
    assert frames["small_matrix"].dtypes.astype(str).value_counts().to_dict() == real | {"int64": 4, "float64": 3}
    assert {name: ",".join(frame) for name, frame in frames.items() if "daily" not in name} == {
        "big_matrix": MATRIX, "small_matrix": MATRIX, "user_features": USER, "item_categories": "video_id,feat",
    }  # fmt: skip
    daily = frames["item_daily_features"]
    assert daily.shape[1] == 58
    assert list(daily)[:4] == ["video_id", "date", "author_id", "video_type"]
    assert list(daily)[-4:] == ["collect_cnt", "collect_user_num", "cancel_collect_cnt", "cancel_collect_user_num"]
    holes = daily.columns[daily.isna().any()].tolist()
    assert holes == ["video_duration", "video_tag_name", *list(daily)[-4:]]
    assert (simulated[1] / "big_matrix.csv").read_text().startswith(MATRIX + "\n0,")
    assert (simulated[1] / "small_matrix.csv").read_text().count(".0,15") > 60_000  # dates are written as floats


def test_the_matrices_are_as_the_real_ones_are(simulated):
    data, _ = simulated
    big, small = data.big, data.small
    assert data.simulated
    assert data.source == "simulated KuaiRec"
    assert len(pd.merge(big, small, on=["user_id", "video_id"])) == 0
    assert rows_of(data, "big_matrix", "small matrix has the pair") == 0
    assert not small.duplicated(["user_id", "video_id"]).any()
    assert set(small["user_id"]) < set(big["user_id"])
    assert set(small["video_id"]) < set(big["video_id"])
    assert np.diff(np.unique(small["user_id"])).max() > 1
    assert np.allclose(big["watch_ratio"], big["play_duration"] / big["video_duration"])
    for rows in (big, small.dropna()):
        in_order = rows.dropna().groupby("user_id")["time"].apply(lambda times: times.is_monotonic_increasing)
        assert in_order.all()
        assert (np.diff(rows["user_id"]) >= 0).all()
    met = big.groupby("user_id").size()
    assert met[small["user_id"].unique()].median() < met.median() / 2  # most of what they saw is in the small matrix
    for rule, low, high in (("copy of", 0.06, 0.09), ("year 2000", 3e-5, 3e-4), ("not above 0", 3e-5, 3e-4)):
        assert low < rows_of(data, "big_matrix", rule) / len(big) < high
    assert 0.03 < rows_of(data, "small_matrix", "time stamp is missing") / len(small) < 0.05


def test_there_is_something_to_learn_and_something_that_leaks(simulated):
    data, _ = simulated
    big = data.big[data.big["time"].notna()]
    ratio = big["watch_ratio"].clip(upper=5)
    assert np.corrcoef(np.log(big["video_duration"]), ratio)[0, 1] < -0.05  # short videos are watched to the end

    def spread(key: pd.Series) -> float:  # of the means of groups, beyond what chance gives groups of that size
        groups = ratio.groupby(key.to_numpy()).agg(["mean", "size"]).query("size > 100")
        return groups["mean"].var() / (ratio.var() / groups["size"]).mean()

    author = big["video_id"].map(data.videos["author_id"])
    chance = pd.Series(np.random.default_rng(0).permutation(author))
    assert spread(big["user_id"]) > 5
    assert spread(author) > 5
    assert spread(chance) < 1.5
    yesterday = counts_before(big, data.daily)["play_progress"]
    today = counts_before(big.assign(time=big["time"] + pd.Timedelta(days=1)), data.daily)["play_progress"]
    known = (yesterday.notna() & today.notna()).to_numpy()
    leak, fair = (np.corrcoef(each[known], ratio[known])[0, 1] for each in (today, yesterday))
    assert leak > fair + 0.03 > 0.1


def test_a_seed_decides_everything(tmp_path):
    first, again, other = (
        simulate_kuairec(tmp_path / name, **SIZES, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    for file in first.glob("*.csv"):
        assert file.read_bytes() == (again / file.name).read_bytes()
        assert file.read_bytes() != (other / file.name).read_bytes()
    data = load_kuairec(first)
    assert data.fingerprint == load_kuairec(again).fingerprint != load_kuairec(other).fingerprint
    assert rows_of(data, "big_matrix", "rows in the file") == round(0.163 * 150 * 240)
    assert (len(data.users), len(data.videos)) == (150, 240)
    rows = load_kuairec(simulate_kuairec(tmp_path / "d", **SIZES, n_rows=700))
    assert rows_of(rows, "big_matrix", "rows in the file") == 700


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"n_users": 30}, "n_small_users is 40; expected 1 to 29: fewer than n_users"),
        ({"n_small_items": 0}, "n_small_items is 0; expected 1 to 239: fewer than n_items"),
        ({"n_rows": 149}, "n_rows is 149; expected at least one for each of 150 users"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path, sizes, says):
    with pytest.raises(ValueError, match=says):
        simulate_kuairec(tmp_path / "new", **(SIZES | sizes))
    assert not (tmp_path / "new").exists()


# The loader


def test_each_rule_counts_its_rows(tmp_path):
    data = load_kuairec(tiny(tmp_path))
    found = [row for row in data.report.to_numpy().tolist() if row[2]]
    assert [(table.split("_")[0], rule.split(":")[0], rows) for table, rule, rows in found] == [
        ("user", "onehot_feat* is missing", 7),
        ("user", "user_active_degree is UNKNOWN", 1),
        ("item", "rows in the file", 5),
        ("item", "author or upload type changes", 1),
        ("item", "video has no row in item_daily_features", 1),
        ("item", "video has no duration", 2),
        ("big", "rows in the file", 10),
        ("big", "video_duration is not above 0, there is no ratio", 1),
        ("big", "watch_ratio is missing, infinite or negative", 3),
        ("big", "copy of an earlier row, the same to the millisecond", 1),
        ("big", "time stamp is before the year 2000", 1),
        ("big", "the user saw the video before, at another time", 1),
        ("big", "watch_ratio is above 5", 1),
        ("big", "rows kept", 5),
        ("small", "rows in the file", 4),
        ("small", "time stamp is missing", 2),
        ("small", "rows kept", 4),
        ("big", "the small matrix has the pair, too", 2),
    ]
    assert data.report["rule"].str.contains(": (?:kept|dropped|the first counts)|^rows").all()
    assert not data.simulated
    assert data.source == "KuaiRec 2.0"


def test_what_is_loaded(tmp_path):
    data = load_kuairec(tiny(tmp_path))
    dtypes = ["int32"] * 4 + ["datetime64[ms]", "float32"]
    assert data.big.dtypes.astype(str).to_dict() == dict(zip(kuairec.COLUMNS, dtypes, strict=True))
    assert data.small.dtypes.equals(data.big.dtypes)
    assert data.big.index.equals(pd.RangeIndex(5))
    assert data.big[["user_id", "video_id"]].to_numpy().tolist() == [[3, 7], [3, 7], [3, 9], [5, 9], [8, 12]]
    assert data.big["time"].astype(str).tolist() == [  # what the file calls time, to the millisecond
        "2020-07-05 00:08:23.438", "2020-07-06 00:08:23.438", "2020-07-07 00:08:23.438", "NaT",
        "2020-07-06 23:59:59.999",
    ]  # fmt: skip
    assert data.small["time"].isna().tolist() == [False, True, False, True]
    assert data.users.index.tolist() == [8, 3, 5]
    assert data.users.loc[3, "onehot_feat4"] == data.users.loc[3, "onehot_feat12"] == -1
    assert data.users.loc[5, "follow_user_num_range"] == "500+"
    assert data.users["user_active_degree"].tolist() == ["full_active", "UNKNOWN", "high_active"]
    assert data.videos.index.tolist() == [12, 7, 9, 20]
    assert data.videos["author_id"].tolist() == [41, 40, 42, -1]
    assert data.videos["upload_type"].tolist() == ["Kmovie", "ShortImport", "LongImport", "UNKNOWN"]
    assert data.videos["duration"].fillna(-1).tolist() == [1000, 10000, -1, -1]
    flags = data.videos.filter(like="tag_")
    assert [tuple(np.flatnonzero(row)) for row in flags.to_numpy()] == [(30,), (0, 2), (5,), (5,)]
    assert flags.columns[30] == "tag_30"
    assert data.daily["day"].astype(str).tolist() == ["2020-07-05", "2020-07-06"] * 2 + ["2020-07-05"]
    assert data.daily["play_cnt"].tolist() == [5, 10, 2, 20, 4]
    assert data.fingerprint.startswith("sha256:")


def test_only_the_columns_that_are_used_are_kept(tmp_path):
    folder = tiny(tmp_path)
    for _ in range(2):  # from the files, then from the cache
        data = load_kuairec(folder, columns=["watch_ratio"])
        assert list(data.big) == list(data.small) == ["user_id", "video_id", "watch_ratio"]
        assert rows_of(data, "big_matrix", "copy of") == 1
    assert list(load_kuairec(folder).big) == kuairec.COLUMNS
    with pytest.raises(ValueError, match=r"columns has \['ratio'\]; the matrices have user_id, video_id, play_dur"):
        load_kuairec(folder, columns=["ratio"])


def test_the_second_time_the_matrices_come_from_parquet(tmp_path, monkeypatch):
    folder = tiny(tmp_path)
    data = load_kuairec(folder)
    with monkeypatch.context() as patch:
        patch.delattr(kuairec, "_read_matrix")
        again = load_kuairec(folder)
    for name in ("big", "small", "users", "videos", "daily", "report"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(data, name))
    assert again.fingerprint == data.fingerprint
    assert sorted(path.name for path in folder.glob("kuairec*")) == [f"kuairec_{name}.parquet" for name in
                                                                     ("big_matrix", "small_matrix")]  # fmt: skip
    tiny(folder, {"small_matrix.csv": TINY["small_matrix.csv"][:-1]})
    assert len(load_kuairec(folder).small) == 3  # the file changed
    for content in (b"", b"PAR1", (folder / "kuairec_small_matrix.parquet").read_bytes()[:-9], None):
        (folder / "kuairec_small_matrix.parquet").unlink()
        if content is not None:
            (folder / "kuairec_small_matrix.parquet").write_bytes(content)
        assert len(load_kuairec(folder).small) == 3


def test_where_nothing_can_be_written_nothing_is(tmp_path, monkeypatch):
    folder = tiny(tmp_path)

    def refuse(self, target):
        raise PermissionError(f"read-only: {target}")

    monkeypatch.setattr(Path, "replace", refuse)
    assert len(load_kuairec(folder).big) == 5
    assert sorted(path.name for path in folder.iterdir()) == sorted(TINY)


# Where it comes from


def packed(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in TINY.items():
            archive.writestr(f"KuaiRec 2.0/data/{name}", "\n".join(lines))
    return path.read_bytes()


def test_from_the_archive_and_from_folders_around_the_files(tmp_path, monkeypatch):
    content = packed(tmp_path / "own" / "KuaiRec.zip")
    monkeypatch.setattr(kuairec, "KUAIREC", replace(kuairec.KUAIREC, hash=f"md5:{hashlib.md5(content).hexdigest()}"))
    tiny(tmp_path / "unpacked" / "KuaiRec 2.0" / "data")
    expected = load_kuairec(tmp_path / "unpacked" / "KuaiRec 2.0" / "data")
    for path in ("own", "own/KuaiRec.zip", "unpacked", None):
        monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "own"))
        data = load_kuairec(path and tmp_path / path)
        assert data.fingerprint == expected.fingerprint
        pd.testing.assert_frame_equal(data.videos, expected.videos)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "unpacked"))
    assert load_kuairec().fingerprint == expected.fingerprint
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no file of KuaiRec; give KuaiRec\.zip or the folder"):
        load_kuairec(tmp_path / "nowhere")


def test_a_cut_or_wrong_archive_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "own" / "KuaiRec.zip"
    content = packed(path)
    monkeypatch.setattr(kuairec, "SIZE", len(content))
    monkeypatch.setattr(kuairec, "KUAIREC", replace(kuairec.KUAIREC, hash=f"md5:{hashlib.md5(content).hexdigest()}"))
    path.write_bytes(content[:-100])
    size = f"{len(content) - 100:,} bytes and md5:.*, expected {len(content):,} and md5"
    with pytest.raises(ValueError, match=rf"KuaiRec\.zip has {size}.*: it was cut off"):
        load_kuairec(path)
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(ValueError, match=r"KuaiRec\.zip has .*: it is another file"):
        load_kuairec(path)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(path.parent))
    with pytest.raises(ValueError, match=r"KuaiRec\.zip has md5:.*, expected md5:.*: it is damaged or another edition"):
        load_kuairec()


def test_it_is_fetched_once_and_checked(tmp_path, monkeypatch, capsys):
    content = packed(tmp_path / "there" / "KuaiRec.zip")
    monkeypatch.setattr(kuairec, "KUAIREC", replace(kuairec.KUAIREC, hash=f"md5:{hashlib.md5(content).hexdigest()}"))
    with serving(content, ["wrong", "ok"]) as host:
        monkeypatch.setattr(kuairec._Zenodo, "url", f"{host.url}KuaiRec.zip")
        assert len(load_kuairec().big) == 5
        assert "CC BY-SA 4.0" in capsys.readouterr().out
        assert len(load_kuairec().big) == 5
        assert host.requests == ["/KuaiRec.zip"] * 2
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    with serving(content, ["cut"]) as host:
        monkeypatch.setattr(kuairec._Zenodo, "url", f"{host.url}KuaiRec.zip")
        with pytest.raises(RuntimeError, match=r"KuaiRec 2\.0 could not be loaded") as caught:
            load_kuairec()
    assert "simulate_kuairec(folder) works offline" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_official_archive_is_pinned():
    assert kuairec.KUAIREC.hash == "md5:261550d472c48eff4990fb13c0e5bcf7"
    assert kuairec.SIZE == 431_964_858


# Bad input

BAD = [  # changes, what the error says
    (with_line("big_matrix.csv", 4, "3,9,60000,10000,2020-07-07 00:08:23.438,20200707,1594051703.438,often"), "often"),
    (with_line("big_matrix.csv", 4, "3,9,60000,10000"), "Expected 8 columns, got 4"),
    (with_line("big_matrix.csv", 4, ",9,60000,10000,,,,0.5"), "user_id is missing in a row"),
    (with_line("big_matrix.csv", 4, "3,9,60000,99999999999,,,,0.5"), "99999999999"),
    (with_line("big_matrix.csv", 0, MATRIX.replace("watch_ratio", "ratio")), "watch_ratio"),
    ({"big_matrix.csv": [MATRIX]}, "the file has no rows"),
    ({"big_matrix.csv": []}, "Empty CSV file"),
    (with_line("user_features.csv", 2, TINY["user_features.csv"][1]), "user_id 8 comes twice"),
    (with_line("user_features.csv", 0, USER.replace("register_days,", "days,")), "register_days"),
    (with_line("user_features.csv", 1, TINY["user_features.csv"][1].replace("8,full", "x,full")), "x"),
    (
        with_line("user_features.csv", 1, TINY["user_features.csv"][1].replace("8,full", "8.5,full")),
        "user_id 8.5 .*whole",
    ),
    (with_line("user_features.csv", 1, TINY["user_features.csv"][1].replace(",300,", ",,")), "user_id 8 .* missing"),
    ({"user_features.csv": []}, "No columns to parse"),
    (with_line("item_categories.csv", 2, "12,[2]"), "video_id 12 comes twice"),
    *[
        (with_line("item_categories.csv", 2, f'7,"{feat}"'), "feat .* is not a list of tags from 0 to 30")
        for feat in ("[2", "[31]", "[-1]", "[2.5, 1]", "['a']", "__import__('os').getcwd()", "")
    ],
    (
        with_line("item_daily_features.csv", 2, TINY["item_daily_features.csv"][1]),
        "video_id 7, date 20200706 comes twice",
    ),
    (with_line("item_daily_features.csv", 0, DAILY.replace("share_cnt", "shares")), "share_cnt"),
    (with_line("item_daily_features.csv", 1, TINY["item_daily_features.csv"][1].replace(",40,", ",x,")), "x"),
]


@pytest.mark.parametrize(("changes", "says"), BAD)
def test_what_is_wrong_in_a_file_is_named(tmp_path, changes, says):
    file = next(iter(changes))
    with pytest.raises(ValueError, match=rf"{file}: .*{says}.*; put the official files in place \(http"):
        load_kuairec(tiny(tmp_path, changes))
    assert not list(tmp_path.glob("*.parquet*")) or "matrix" not in file


@pytest.mark.parametrize("file", TINY)
def test_a_missing_file_is_named(tmp_path, file):
    with pytest.raises(FileNotFoundError, match=rf"lacks {file}; unpack http"):
        load_kuairec(tiny(tmp_path, {file: None}))


# Joins


@pytest.fixture
def data(tmp_path):
    return load_kuairec(tiny(tmp_path))


def check_join(join, rows, users, videos) -> None:
    """Every row keeps its place and gets its own features, however the tables are sorted."""
    found, table = join(rows, users, videos), users.sample(frac=1, random_state=1)
    assert found.index.equals(rows.index), "rows were lost, added or moved"
    pd.testing.assert_frame_equal(found[list(rows)], rows)
    for row, features in zip(rows.itertuples(), found.to_dict("records"), strict=True):
        own = users.loc[row.user_id].to_dict() | videos.loc[row.video_id].to_dict()
        assert all(features[name] == value or value != value for name, value in own.items()), "the features of another"
    pd.testing.assert_frame_equal(join(rows, table, videos.sample(frac=1, random_state=1)), found)


def by_position(rows, users, videos):
    return pd.concat([rows, users.iloc[rows["user_id"] % len(users)].set_axis(rows.index),
                      videos.iloc[rows["video_id"] % len(videos)].set_axis(rows.index)], axis=1)  # fmt: skip


def test_features_are_joined_by_key(data, simulated):
    check_join(with_features, data.big, data.users, data.videos)
    check_join(with_features, data.big[::-1], data.users, data.videos)
    complete = simulated[0]  # positions are right by luck while the table is complete and in order, and then are not
    rows = complete.small.sample(60, random_state=0)
    check_join(with_features, rows, complete.users, complete.videos)
    for join, users in ((by_position, complete.users), (by_position, data.users)):
        with pytest.raises(AssertionError):
            check_join(join, data.big if users is data.users else rows, users, complete.videos)
    pd.testing.assert_frame_equal(
        by_position(rows, complete.users, complete.videos), with_features(rows, complete.users, complete.videos)
    )


def test_a_join_notices_lost_and_double_keys(data):
    with pytest.raises(ValueError, match=r"user_id 3, 8 \(2 in all\): no features in the table"):
        with_features(data.big, data.users.drop([3, 8]), data.videos)
    with pytest.raises(ValueError, match=r"video_id 9 \(1 in all\): no features"):
        with_features(data.big, data.users, data.videos.drop(9))
    with pytest.raises(pd.errors.MergeError, match="not a many-to-one merge"):
        with_features(data.big, data.users, pd.concat([data.videos, data.videos.loc[[7]]]))
    subset = with_features(data.big, data.users[["register_days"]], data.videos[["tag_5"]])
    assert list(subset)[6:] == ["register_days", "tag_5"]


def check_before(join, rows, daily) -> None:
    """Only the day before speaks: what happened later may be anything, and a gap stays one."""
    found = join(rows, daily)
    assert found.index.equals(rows.index)
    day = rows["time"].dt.normalize()
    known = daily.set_index(["video_id", "day"])["play_cnt"]
    expected = [known.get((video, before), np.nan)
                for video, before in zip(rows["video_id"], day - pd.Timedelta(days=1), strict=True)]  # fmt: skip
    np.testing.assert_array_equal(found["play_cnt"], expected, "not the counts of the day before")
    assert found["counts_missing"].tolist() == np.isnan(expected).tolist()


def test_counts_are_those_of_the_day_before(data, simulated):
    found = counts_before(data.big, data.daily)
    assert list(found) == [*COUNTS, "play_progress", "counts_missing"]
    assert found["play_cnt"].fillna(-1).tolist() == [-1, 5, 20, -1, 4]
    assert found["counts_missing"].tolist() == [True, False, False, True, False]
    assert found["play_cnt"].dtype == "float32"
    for world in (data, simulated[0]):
        rows = world.big.sample(min(len(world.big), 500), random_state=0)
        check_before(counts_before, rows, world.daily)

        def same_day(rows, daily):
            return counts_before(rows.assign(time=rows["time"] + pd.Timedelta(days=1)), daily)

        with pytest.raises(AssertionError, match="not the counts of the day before"):
            check_before(same_day, rows, world.daily)
    with pytest.raises(ValueError, match="video 7 has two rows on 2020-07-06; expected one a day"):
        counts_before(data.big, pd.concat([data.daily, data.daily.iloc[[1]]]))


# The side tables of the real data, where they are, go the same way


@pytest.mark.parametrize("kind", ["simulated", *(["real"] if REAL.is_dir() else [])])
def test_side_tables(kind, simulated):
    source = datasets.Source(kuairec.KUAIREC, REAL if kind == "real" else simulated[1], "kuairec")
    n_users, n_items = (7_176, 10_728) if kind == "real" else (1_200, 2_000)
    report: list = []
    users, tags = kuairec.read_users(source, report), kuairec.read_tags(source)
    assert (users.shape, tags.shape) == ((n_users, 30), (n_items, 31))
    assert users.index.is_unique
    assert tags.index.is_unique
    assert users.isna().sum().sum() == 0
    assert 1.1 < tags.sum(axis=1).mean() < 1.25
    assert tags.sum(axis=1).between(1, 4).all()
    sizes = [users[name].max() + 1 for name in kuairec.ONEHOT]
    assert all(size <= classes for size, classes in zip(sizes, kuairec.CODES, strict=True))
    assert set(users["user_active_degree"]) <= {"full_active", "high_active", "middle_active", "UNKNOWN"}
    simulated_ranges = simulated[0].users.select_dtypes("category")
    for name in simulated_ranges:
        assert set(simulated_ranges[name]) <= set(users[name]) | {"[1w,10w)", "[5k,1w)", "middle_active"}, name
    if kind == "real":
        assert sizes == kuairec.CODES
        assert [rows for _, _, rows in report] == [650, 118]
        assert tags.sum().sum() == 12_693


# Size

PEAK = """
import sys
from recsys_utils.kuairec import load_kuairec
data = load_kuairec(sys.argv[1])
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")), len(data.big))
"""


def test_the_import_is_light():
    heavy = ("pyarrow.csv", "pyarrow.parquet", "pooch", "torch")  # pandas loads pyarrow itself where it is installed
    code = f"import recsys_utils.kuairec, sys; print([module for module in {heavy} if module in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
def test_memory_at_12_million_rows_stays_below_2_gb(tmp_path):
    peaks, rows = [], []
    for n, times in ((1, 200_000), (2, 800_000)):
        folder = simulate_kuairec(tmp_path / str(n), 400 * n, 700 * n, 80 * n, 220 * n, times)
        command = [sys.executable, "-c", PEAK, str(folder)]
        run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
        peak, kept = map(float, run.stdout.split())
        peaks.append(peak)
        rows.append(kept)
    at_full = peaks[1] + (peaks[1] - peaks[0]) / (rows[1] - rows[0]) * (12_530_806 - rows[1])
    assert at_full < 2000, f"peaks of {peaks} MB at {rows} rows mean {at_full:.0f} MB at 12.5 million"
