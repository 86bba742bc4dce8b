"""Data sets: the embedded edition, every way a download can fail, and every way a file can be wrong."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from loopback import serving
from recsys_utils import datasets
from recsys_utils.datasets import EDITIONS, load_house, load_movielens, load_tags

CHECKOUT = Path(__file__).resolve().parent.parent

CSV = {
    "ratings.csv": b"userId,movieId,rating,timestamp\n7,3,4.5,1260759144\n7,1,0.5,1260759179\n9,3,5.0,1260759182\n",
    "movies.csv": (
        "movieId,title,genres\n"
        '3,"City of Lost Children, The (Cité des enfants perdus, La) (1995)",Adventure|Sci-Fi\n'
        "1,Fawlty Towers (1975-1979),Comedy\n"
        "12,<script>alert(1)</script>,(no genres listed)\n"
        '13,"""Great Performances"" Cats (1998)",Musical|IMAX|Children\n'
    ).encode(),
    "tags.csv": b'userId,movieId,tag,timestamp\n7,12,NA,1260759144\n9,3,"odd, ""very""",1260759145\n',
}
DAT = {
    "ratings.dat": b"2::10::5::978300760\n1::11::3::978302109\n1::10::1::978301968\n",
    "movies.dat": ("10::Misérables, Les (1995)::Drama|Musical\n11::Toy Story (1995)::Animation|Children's\n").encode(
        "latin-1"
    ),
    "users.dat": b"1::F::1::10::48067\n2::M::56::16::02460-1234\n3::M::25::15::55117\n",
}
FLAGS_UNKNOWN, FLAGS_COMEDY, FLAGS_DRAMA = ("|".join("1" if i == j else "0" for i in range(19)) for j in (0, 5, 8))
U = {
    "u.data": b"2\t3\t5\t881250949\n1\t1\t3\t891717742\n1\t3\t1\t878887116\n",
    "u.item": (
        f"1|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{FLAGS_COMEDY}\n"
        f"2|unknown||||{FLAGS_UNKNOWN}\n"
        f"3|Misérables, Les (1995) (V)|01-Jan-1995|||{FLAGS_DRAMA}\n"
    ).encode("latin-1"),
    "u.user": b"1|24|M|technician|85711\n2|53|F|other|T8H1N\n",
}
WHEEL = {
    "ml-100k.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + U["u.data"],
    "ml-100k.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tKolya\t1996\tComedy\n2\tunkonwn\tunkonwn\tunknown\n3\tMisérables, Les (1995)\tV\tDrama\n"
    ).encode(),
    "ml-100k.user": (
        b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        b"1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\tT8H1N\n"
    ),
}
TINY = {  # edition: (folder in the archive, files, rows of ratings, films and tags)
    "latest-small-2018": ("ml-latest-small", CSV, (3, 4, 2)),
    "32m": ("ml-32m", CSV, (3, 4, 2)),
    "1m": ("ml-1m", DAT, (3, 2, 0)),
    "100k": ("ml-100k", U, (3, 3, 0)),
}


def zipped(folder: str, files: dict[str, bytes]) -> bytes:
    """An archive whose bytes depend on its contents alone: every member has the same date."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"README": b"terms", **files}.items():
            member = zipfile.ZipInfo(f"{folder}/{name}", (2000, 1, 1, 0, 0, 0))
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Generated editions of a few rows, an empty cache, short time-outs, and no host at all until a test names one."""
    for name, (folder, files, rows) in TINY.items():
        monkeypatch.setitem(EDITIONS, name, replace(EDITIONS[name], hash=sha256(zipped(folder, files)), rows=rows))
    monkeypatch.setattr(datasets, "_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(datasets, "HOST", "http://127.0.0.1:1/")
    monkeypatch.setattr(datasets, "TIMEOUT", (5, 1))
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)
    return tmp_path / "cache"


def unpacked(tmp_path: Path, monkeypatch, edition: str, changes: dict[str, bytes]) -> None:
    """The files of a tiny edition, some changed, in a folder of the reader's own."""
    folder = tmp_path / "own" / f"ml-{edition}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (TINY[edition][1] | changes).items():
        (folder / name).write_bytes(content)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "own"))


def with_line(content: bytes, number: int, line: bytes) -> bytes:
    lines = content.split(b"\n")
    lines[number - 1] = line
    return b"\n".join(lines)


# The embedded edition


def test_latest_small_is_the_october_2016_edition():
    data = load_movielens()
    assert (len(data), data.n_users, data.n_items, data.name) == (100_004, 671, 9_125, "latest-small")
    assert data.item_table.loc[1].tolist() == [
        "Toy Story", 1995.0, ("Adventure", "Animation", "Children", "Comedy", "Fantasy"),
    ]  # fmt: skip
    assert data.item_table["year"].isna().sum() == 4
    assert (data.item_counts == 0).sum() == 59  # films of the film file that nobody rated keep a code
    first = data.frame().iloc[0]
    assert first.tolist() == [1, 31, 2.5, 1_260_759_144]
    assert set(np.unique(data.ratings)) == {0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5}
    assert (np.diff(data.item_ids) > 0).all()


def test_the_house_has_items_with_five_ratings():
    house = load_house()
    assert (len(house), house.n_users, house.n_items, house.name) == (90_072, 671, 3_496, "latest-small")
    assert house.item_counts.min() == 5
    assert house.data_sha256 == load_movielens(min_item_ratings=5).data_sha256


def test_embedded_tags():
    tags = load_tags()
    assert tags.shape == (1_296, 4)
    assert tags.iloc[0].tolist() == [15, 339, "sandra 'boring' bullock", 1_138_537_770]
    assert tags["tag"].map(type).eq(str).all()


def test_an_embedded_file_that_changed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "recsys_utils" / "datasets.py"))
    with pytest.raises(FileNotFoundError, match=r"_data.ml-latest-small.ratings\.csv is missing; restore it"):
        load_movielens()
    folder = tmp_path / "data" / "ml-latest-small"
    folder.mkdir(parents=True)
    for name in EDITIONS["latest-small"].members:
        (folder / name).write_bytes((CHECKOUT / "data" / "ml-latest-small" / name).read_bytes())
    assert len(load_movielens()) == 100_004
    (folder / "links.csv").write_bytes((folder / "links.csv").read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(ValueError, match=r"links\.csv has sha256:\w+, expected sha256:43a1bd.*line ends"):
        load_movielens()


def test_the_import_is_light():
    code = "import recsys_utils.datasets, sys; print([m for m in ('pooch', 'requests', 'torch') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_unknown_editions_and_editions_without_tags_say_what_there_is():
    with pytest.raises(ValueError, match="'20m' is unknown; expected one of latest-small, latest-small-2018, 100k"):
        load_movielens("20m")
    with pytest.raises(ValueError, match="'20m' is unknown"):
        load_tags("20m")
    with pytest.raises(ValueError, match="'1m' has no tags; those with tags are latest-small, latest-small-2018, 25m"):
        load_tags("1m")


# Layouts


def test_csv_layout(cache, tmp_path, monkeypatch):
    unpacked(tmp_path, monkeypatch, "32m", {})
    data = load_movielens("32m")
    assert data.frame().to_numpy().tolist() == [
        [7, 3, 4.5, 1260759144], [7, 1, 0.5, 1260759179], [9, 3, 5.0, 1260759182],
    ]  # fmt: skip
    assert data.item_ids.tolist() == [1, 3, 12, 13]
    assert data.item_table["title"].tolist() == [
        "Fawlty Towers", "City of Lost Children, The (Cité des enfants perdus, La)", "<script>alert(1)</script>",
        '"Great Performances" Cats',
    ]  # fmt: skip
    assert data.item_table["year"].fillna(0).tolist() == [1975, 1995, 0, 1998]
    genres = [("Comedy",), ("Adventure", "Sci-Fi"), (), ("Musical", "IMAX", "Children")]
    assert data.item_table["genres"].tolist() == genres
    assert data.user_table is None
    assert load_movielens("32m", min_item_ratings=2).item_ids.tolist() == [3]
    assert load_tags("32m").to_numpy().tolist() == [[7, 12, "NA", 1260759144], [9, 3, 'odd, "very"', 1260759145]]


def test_1m_layout(cache, tmp_path, monkeypatch):
    unpacked(tmp_path, monkeypatch, "1m", {})
    data = load_movielens("1m")
    assert data.frame().to_numpy().tolist() == [[2, 10, 5, 978300760], [1, 11, 3, 978302109], [1, 10, 1, 978301968]]
    assert data.user_table.loc[2].to_dict() == {"age": 56, "gender": "M", "occupation": "16", "zip": "02460-1234"}
    assert data.user_counts.tolist() == [2, 1, 0]
    assert data.item_table.loc[10].tolist() == ["Misérables, Les", 1995.0, ("Drama", "Musical")]


def test_100k_layouts_of_the_archive_and_of_the_wheel_are_equal(cache, tmp_path, monkeypatch):
    unpacked(tmp_path, monkeypatch, "100k", {})
    official = load_movielens("100k")
    wheel = zipped("recbole/dataset_example/ml-100k", WHEEL)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / datasets.WHEEL).write_bytes(wheel)
    monkeypatch.setattr(datasets, "WHEEL_HASH", sha256(wheel))
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "wheels"))
    other = load_movielens("100k")
    assert official.data_sha256 == other.data_sha256
    assert official.item_table.equals(other.item_table)
    assert official.user_table.equals(other.user_table)
    assert official.item_table["title"].tolist() == ["Kolya", "unknown", "Misérables, Les"]
    assert official.item_table["genres"].tolist() == [("Comedy",), (), ("Drama",)]
    assert official.user_table.loc[2].tolist() == [53, "F", "other", "T8H1N"]


@pytest.mark.parametrize("edition", ["32m", "1m", "100k"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.removesuffix(b"\n"),
        lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
    ],
    ids=["crlf", "bom", "no final newline", "all three"],
)
def test_harmless_differences_between_files_are_accepted(cache, tmp_path, monkeypatch, edition, change):
    unpacked(tmp_path, monkeypatch, edition, {})
    plain = load_movielens(edition)
    unpacked(tmp_path, monkeypatch, edition, {name: change(content) for name, content in TINY[edition][1].items()})
    data = load_movielens(edition)
    assert data.data_sha256 == plain.data_sha256
    assert data.item_table.equals(plain.item_table)


# Faults in the files

LINES = [  # edition, file, line number, the line, what the error says
    ("32m", "ratings.csv", 1, b"userId,movieId,rating", "the columns are 'userId,movieId,rating', expected 'userId"),
    ("32m", "ratings.csv", 1, b"userId,rating,movieId,timestamp", "the columns are"),
    ("32m", "ratings.csv", 3, b"7,3,2.0,1260759179", "user 7 rates film 3 a second time, first on line 2"),
    ("32m", "ratings.csv", 3, b"7,1,5.5,1260759179", "rating '5.5' is not one of 0.5 to 5 in steps of 0.5"),
    ("32m", "ratings.csv", 3, b"7,1,0.0,1260759179", "rating '0.0' is not one of"),
    ("32m", "ratings.csv", 3, b"7,1,3.3,1260759179", "rating '3.3' is not one of"),
    ("32m", "ratings.csv", 3, b"7,1,nan,1260759179", "rating 'nan' is not one of"),
    ("32m", "ratings.csv", 3, b"7,1,inf,1260759179", "rating 'inf' is not one of"),
    ("32m", "ratings.csv", 3, b"7,1,good,1260759179", "rating 'good' is not one of"),
    ("32m", "ratings.csv", 3, b"7,1,0.5,yesterday", "timestamp 'yesterday' is not in whole seconds since 1970"),
    ("32m", "ratings.csv", 3, b"7,1,0.5,1260759179.5", "timestamp '1260759179.5' is not in whole"),
    ("32m", "ratings.csv", 3, b"7,1,0.5,-1260759179", "timestamp '-1260759179' is not in whole"),
    ("32m", "ratings.csv", 3, b"7,1,0.5,99999999999999999999", "timestamp '99999999999999999999' is not in whole"),
    ("32m", "ratings.csv", 4, b"9,3,5.0,126075918", "timestamp '126075918' .* was the line cut"),
    ("32m", "ratings.csv", 3, b"7,2,0.5,1260759179", "item_id 2 is not in the file of films"),
    ("32m", "ratings.csv", 3, b"x,1,0.5,1260759179", "user_id 'x' is not a positive whole number"),
    ("32m", "ratings.csv", 3, b"0,1,0.5,1260759179", "user_id '0' is not a positive whole number"),
    ("32m", "ratings.csv", 3, b"4294967296,1,0.5,1260759179", "user_id '4294967296' is not a positive whole number"),
    ("32m", "ratings.csv", 3, b"7,1,0.5", "3 fields in '7,1,0.5', expected 4"),
    ("32m", "ratings.csv", 3, b"7,1,0.5,1260759179,8", "5 fields in '7,1,0.5,1260759179,8', expected 4"),
    ("32m", "ratings.csv", 3, b"", "0 fields in '', expected 4"),
    ("32m", "ratings.csv", 3, b"7,1,0.5,1260\xe9", r"the bytes b'\\xe9' are not utf-8"),
    ("32m", "movies.csv", 1, b"id,title,genres", "the columns are 'id,title,genres', expected 'movieId,title,genres'"),
    ("32m", "movies.csv", 3, "1,Le Dîner (1998),Comedy".encode("latin-1"), r"the bytes b'\\xee' are not utf-8"),
    ("32m", "movies.csv", 3, b"3,Heat (1995),Action", "item_id '3' is not a positive whole number of its own"),
    ("32m", "movies.csv", 3, b"one,Heat (1995),Action", "item_id 'one' is not a positive whole number of its own"),
    ("32m", "movies.csv", 3, b"1,Heat (1995),Act", r"film 1, 'Heat \(1995\)', has the genres \['Act'\]; was the line"),
    ("32m", "movies.csv", 3, b"1,,Action", "film 1, '', has the genres"),
    ("32m", "movies.csv", 5, b'13,"""Great Performa', "unexpected end of data; was the line cut"),
    ("1m", "ratings.dat", 2, b"1::11::3.5::978302109", "rating '3.5' is not one of 1 to 5 in steps of 1"),
    ("1m", "ratings.dat", 2, b"4::11::3::978302109", "user_id 4 is not in the file of users"),
    ("1m", "ratings.dat", 2, b"1::12::3::978302109", "item_id 12 is not in the file of films"),
    ("1m", "ratings.dat", 3, b"2::10::1::978301968", "user 2 rates film 10 a second time, first on line 1"),
    ("1m", "ratings.dat", 1, b"1::11::3", "3 fields"),
    ("1m", "ratings.dat", 2, b"1::11::3", "3 fields"),
    ("1m", "movies.dat", 1, "10::Misérables, Les (1995)::Drama".encode(), "is in utf-8, expected latin-1"),
    ("1m", "movies.dat", 2, b"11:Toy Story (1995):Comedy", "1 fields in '11:Toy Story"),
    ("1m", "users.dat", 2, b"1::M::56::16::02460", "user_id '1' or age '56' is not a whole number, or the user came"),
    ("1m", "users.dat", 2, b"2::M::old::16::02460", "age 'old' is not a whole number"),
    ("100k", "u.data", 3, b"1\t3\t6\t878887116", "rating '6' is not one of 1 to 5"),
    ("100k", "u.item", 2, b"2|unknown||||1|0", "7 fields"),
    ("100k", "u.user", 2, b"two|53|F|other|94043", "user_id 'two'"),
]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("block", [2**24, 8], ids=["one block", "blocks of a line"])
@pytest.mark.parametrize(("edition", "file", "number", "line", "says"), LINES)
def test_a_wrong_line_is_named(cache, tmp_path, monkeypatch, block, edition, file, number, line, says):
    monkeypatch.setattr(datasets, "BLOCK", block)
    unpacked(tmp_path, monkeypatch, edition, {file: with_line(TINY[edition][1][file], number, line)})
    with pytest.raises(ValueError, match=rf"{file}, line {number}: .*{says}") as caught:
        load_movielens(edition)
    assert f"put the official files in place (http://127.0.0.1:1/ml-{edition}.zip)" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "line", "says"),
    [
        (1, b"userId,movieId,tag", "the columns are"),
        (2, b"7,12,NA,-1", "timestamp '-1'"),
        (2, b"7,14,NA,1260759144", "item_id 14 is not in the file of films"),
        (2, b"7,12,1260759144", "3 fields"),
    ],
)
def test_a_wrong_line_of_tags_is_named(cache, tmp_path, monkeypatch, number, line, says):
    unpacked(tmp_path, monkeypatch, "32m", {"tags.csv": with_line(CSV["tags.csv"], number, line)})
    with pytest.raises(ValueError, match=rf"tags\.csv, line {number}: .*{says}"):
        load_tags("32m")


@pytest.mark.parametrize("edition", ["32m", "1m", "100k"])
def test_missing_and_extra_rows_are_noticed(cache, tmp_path, monkeypatch, edition):
    files = TINY[edition][1]
    for name in list(files)[:2]:
        last = files[name].count(b"\n")
        unpacked(tmp_path, monkeypatch, edition, {name: with_line(files[name], last, b"").rstrip(b"\n")})
        with pytest.raises(ValueError, match=rf"{name}, line {last - 1}: the file ends after .*: it was cut off"):
            load_movielens(edition)
        unpacked(tmp_path, monkeypatch, edition, {name: b""})
        with pytest.raises(ValueError, match=rf"{name}, line 1: the file is empty"):
            load_movielens(edition)
    monkeypatch.setitem(EDITIONS, edition, replace(EDITIONS[edition], rows=(2, *EDITIONS[edition].rows[1:])))
    unpacked(tmp_path, monkeypatch, edition, {})
    with pytest.raises(ValueError, match="ends after 3 rows, expected 2: it is another edition, or was added to"):
        load_movielens(edition)


def test_a_line_too_long_is_noticed_wherever_it_stands(cache, tmp_path, monkeypatch):
    lines = [b"%d,%d,3.5,1260759144" % (user, item) for user in range(1, 11) for item in (1, 3)]
    monkeypatch.setitem(EDITIONS, "32m", replace(EDITIONS["32m"], rows=(20, 4, 2)))
    monkeypatch.setattr(datasets, "BLOCK", 60)
    for at in range(20):
        changed = [line + b"," if row == at else line for row, line in enumerate(lines)]
        unpacked(tmp_path, monkeypatch, "32m", {"ratings.csv": b"\n".join([CSV["ratings.csv"].split()[0], *changed])})
        with pytest.raises(ValueError, match=rf"ratings\.csv, line {at + 2}: 5 fields"):
            load_movielens("32m")


# Where files come from


def test_a_folder_of_ones_own_comes_first(cache, tmp_path, monkeypatch):
    own = tmp_path / "own"
    monkeypatch.setenv("RECSYS_DATA_DIR", str(own))
    (own / "ml-latest-small-2018").mkdir(parents=True)
    (own / "ml-latest-small-2018" / "ml-latest-small.zip").write_bytes(zipped("ml-latest-small", CSV))
    (own / "ml-1m.zip").write_bytes(zipped("ml-1m", DAT))
    assert len(load_movielens("latest-small-2018")) == 3
    assert len(load_movielens("1m")) == 3
    assert not cache.exists()
    (own / "ml-1m.zip").write_bytes(zipped("ml-1m", CSV))
    wrong, right = sha256(zipped("ml-1m", CSV)), sha256(zipped("ml-1m", DAT))
    with pytest.raises(ValueError, match=rf"own.ml-1m\.zip has {wrong}, expected {right}: .* or delete it"):
        load_movielens("1m")


def test_a_good_download_is_kept_and_its_terms_are_printed_once(cache, monkeypatch, capsys):
    with serving(zipped("ml-1m", DAT), ["ok"]) as host:
        monkeypatch.setattr(datasets, "HOST", host.url)
        assert len(load_movielens("1m")) == 3
        printed = capsys.readouterr().out
        assert printed.startswith("MovieLens 1M by GroupLens: for non-commercial research")
        assert "Do not redistribute it" in printed
        assert len(load_movielens("1m")) == 3
        assert capsys.readouterr().out == ""
        assert host.requests == ["/ml-1m.zip"]
    assert [path.name for path in cache.iterdir()] == ["ml-1m.zip"]


@pytest.mark.parametrize("script", [["503", "ok"], ["cut", "ok"], ["stall", "wrong", "ok"], ["redirect"]])
def test_a_host_that_recovers_is_forgiven(cache, monkeypatch, script):
    with serving(zipped("ml-1m", DAT), script) as host:
        monkeypatch.setattr(datasets, "HOST", host.url)
        assert len(load_movielens("1m")) == 3
        assert len(host.requests) == len(script)
    assert [path.name for path in cache.iterdir()] == ["ml-1m.zip"]


@pytest.mark.parametrize(
    ("deed", "says"),
    [
        ("wrong", "hash of downloaded file .* does not match the known hash"),
        ("cut", "IncompleteRead"),
        ("stall", "timed out"),
        ("503", "503 Server Error"),
        ("404", "404 Client Error"),
    ],
)
def test_a_host_that_fails_for_ever_leaves_nothing_behind(cache, monkeypatch, capsys, deed, says):
    with serving(zipped("ml-1m", DAT), [deed]) as host:
        monkeypatch.setattr(datasets, "HOST", host.url)
        with pytest.raises(RuntimeError, match=rf"2\. {host.url}ml-1m\.zip: .*{says}") as caught:
            load_movielens("1m")
        assert len(host.requests) == 3
    message = str(caught.value)
    assert f"1. {cache}: no ml-1m.zip, and no folder ml-1m with ratings.dat" in message
    assert f"save {host.url}ml-1m.zip as {cache / 'ml-1m.zip'}" in message
    assert "RECSYS_DATA_DIR" in message
    assert "load_movielens('latest-small') works offline" in message
    assert list(cache.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_damaged_file_in_the_cache_is_replaced_or_named(cache, monkeypatch):
    cache.mkdir()
    (cache / "ml-1m.zip").write_bytes(b"half a file")
    with pytest.raises(RuntimeError, match=rf"1\. {cache / 'ml-1m.zip'} has {sha256(b'half a file')}, expected sha256"):
        load_movielens("1m")
    with serving(zipped("ml-1m", DAT), ["ok"]) as host:
        monkeypatch.setattr(datasets, "HOST", host.url)
        assert len(load_movielens("1m")) == 3


def fake_pip(content: bytes | None, calls: list):
    def run(command, **options):
        calls.append(command)
        if content is None:
            return SimpleNamespace(returncode=1, stderr="ERROR: No matching distribution found")
        Path(command[command.index("--dest") + 1], datasets.WHEEL).write_bytes(content)
        return SimpleNamespace(returncode=0, stderr="")

    return run


def test_100k_comes_by_pip_when_the_host_fails(cache, monkeypatch, capsys):
    wheel, calls = zipped("recbole/dataset_example/ml-100k", WHEEL), []
    monkeypatch.setattr(datasets, "WHEEL_HASH", sha256(wheel))
    monkeypatch.setattr(subprocess, "run", fake_pip(wheel, calls))
    assert len(load_movielens("100k")) == 3
    assert capsys.readouterr().out.startswith("MovieLens 100K by GroupLens")
    assert len(load_movielens("100k")) == 3
    assert capsys.readouterr().out == ""
    assert [path.name for path in cache.iterdir()] == [datasets.WHEEL]
    assert len(calls) == 1
    assert calls[0][:5] == [sys.executable, "-m", "pip", "download", "--no-deps"]
    assert calls[0][-1] == "recbole==1.2.1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "OSError: ERROR: No matching distribution found"),
        (b"not it", "ValueError: the file has sha256:.*expected"),
    ],
)
def test_a_pip_that_fails_leaves_nothing_behind(cache, monkeypatch, content, says):
    monkeypatch.setattr(subprocess, "run", fake_pip(content, []))
    with pytest.raises(RuntimeError, match=rf"3\. pip download of {datasets.WHEEL}: {says}") as caught:
        load_movielens("100k")
    assert "2. http://127.0.0.1:1/ml-100k.zip: ConnectionError" in str(caught.value)
    assert list(cache.iterdir()) == []


# Memory

PEAK = """
import sys
from recsys_utils import datasets
from dataclasses import replace
rows = int(sys.argv[1])
datasets.EDITIONS["32m"] = replace(datasets.EDITIONS["32m"], rows=(rows, 87_585, 0))
data = datasets.load_movielens("32m")
assert len(data) == rows and data.n_items == 87_585 and data.users.dtype == "int32"
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
"""


def write_32m(folder: Path, n_users: int, per_user: int) -> int:
    """An unpacked folder in the layout of MovieLens 32M with n_users * per_user ratings; returns how many."""
    folder.mkdir(parents=True)
    films = [f"{3 * item + 1},A film with a usual title {item} (1999),Drama|Comedy\n" for item in range(87_585)]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(films))
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n")
    step = 87_585 // per_user
    template = "".join(f"U,{3 * step * row + 1},3.5,12607591{row % 90 + 10}\n" for row in range(per_user))
    with open(folder / "ratings.csv", "w") as stream:
        stream.write("userId,movieId,rating,timestamp\n")
        for user in range(1, n_users + 1):
            stream.write(template.replace("U", str(user)))
    return n_users * per_user


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
def test_memory_at_32_million_rows_stays_below_3_gb(tmp_path):
    peaks, sizes = [], []
    for n_users in (5_000, 19_000):
        sizes.append(write_32m(tmp_path / str(n_users) / "ml-32m", n_users, 160))
        run = subprocess.run(
            [sys.executable, "-c", PEAK, str(sizes[-1])],
            cwd=CHECKOUT, env=os.environ | {"RECSYS_DATA_DIR": str(tmp_path / str(n_users))},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(float(run.stdout))
    by_row = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    at_32m = peaks[1] + by_row * (32_000_204 - sizes[1])
    assert at_32m < 3000, f"peaks of {peaks} MB at {sizes} rows mean {at_32m:.0f} MB at 32 million"
