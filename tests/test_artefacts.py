"""Artefacts: what is stored comes back; what is damaged, forged or half written is refused; a writer may be killed."""

import builtins
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy import sparse

import served
from recsys_utils.serving import artefacts
from recsys_utils.serving.artefacts import ArtefactError, activate, build, load, versions, write

TESTS = Path(__file__).parent
ONE, TWO = served.artefact("1"), served.artefact("2", seed=1, n_items=40)


@pytest.fixture
def root(tmp_path):
    """Version 1, written and served."""
    write(ONE, tmp_path / "root")
    activate(tmp_path / "root", "1")
    return tmp_path / "root"


# Building


def test_codes_ratings_and_counts_are_those_of_the_interactions():
    train = served.interactions()
    users, items, weights = served.parts(train)
    made = build("1", train, users.astype(float), items, weights, n_weights=3)
    assert (made.n_users, made.n_items, made.dimension) == (30, 50, 8)
    assert np.array_equal(made.history.toarray(), train.matrix("ratings").toarray())
    assert made.items["item_id"].tolist() == train.item_ids.tolist()
    assert made.items["count"].tolist() == train.item_counts.tolist()
    assert made.items["genres"].tolist() == [list(cell) for cell in train.item_table["genres"]]
    assert made.codes[train.item_ids[7]] == 7
    assert made.user_codes[train.user_ids[4]] == 4
    assert made.user_vectors.dtype == np.float32


def test_only_the_largest_weights_of_a_column_are_kept():
    train = served.interactions(n_items=700, n=3000)  # more than one block of columns
    users, items, weights = served.parts(train)
    np.fill_diagonal(weights, 0)
    kept = build("1", train, users, items, weights, n_weights=4).weights
    expected = np.zeros_like(weights)
    for column in range(700):
        rows = np.argsort(-np.abs(weights[:, column]))[:4]
        expected[rows, column] = weights[rows, column]
    assert np.array_equal(kept.toarray(), expected.astype(np.float32))
    assert build("1", train, users, items, weights, n_weights=9999).weights.nnz == 700 * 699  # zeros are not stored


def test_ages_count_what_came_later():
    train = served.interactions()
    ages = sparse.csr_matrix((ONE.ages + 1, ONE.history.indices, ONE.history.indptr), ONE.history.shape).toarray() - 1
    for user in range(train.n_users):
        rows = np.flatnonzero(train.users == user)
        in_time = sorted(rows, key=lambda row: (train.timestamps[row], row))
        assert [ages[user, train.items[row]] for row in in_time] == list(range(len(rows)))[::-1]
    timeless = replace(train, timestamps=None)
    made = build("1", timeless, *served.parts(timeless))
    last = [timeless.items[timeless.users == user][-1] for user in range(train.n_users)]
    assert made.history.indices[made.ages == 0].tolist() == last


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weights": np.zeros((3, 50))}, r"weights of shape \(3, 50\); expected finite numbers, shape \(50, 50\)"),
        ({"weights": np.full((50, 50), np.nan)}, "expected finite numbers"),
        ({"n_weights": 0}, "n_weights=0; expected a whole number of at least 1"),
        ({"n_weights": 2.5}, "n_weights=2.5; expected a whole number"),
        ({"item_vectors": np.ones((49, 8))}, r"item_vectors of shape \(49, 8\) .* expected \(50, None\)"),
        ({"user_vectors": np.ones((30, 7))}, r"user_vectors of shape \(30, 7\) and type float32; expected \(30, 8\)"),
        ({"user_vectors": np.ones(30)}, r"user_vectors of shape \(30,\)"),
        ({"item_vectors": np.ones((50, 0))}, r"item_vectors of shape \(50, 0\)"),
        ({"item_vectors": np.full((50, 8), np.inf)}, "item_vectors: row 0 holds NaN, infinity or .*50 such rows"),
        ({"version": "../1"}, "version '../1' is no name; expected 1 to 64 letters"),
        ({"train": replace(served.interactions(), item_table=None)}, "no item_table or no ratings"),
        ({"train": replace(served.interactions(), ratings=None)}, "no item_table or no ratings"),
        ({"train": replace(served.interactions(), ratings=np.zeros(400))}, "the rating 0.0; expected ratings above 0"),
        ({"train": replace(served.interactions(), user_ids=np.arange(30) / 2)}, "user_ids .* float64; .* int64"),
    ],
)
def test_parts_that_do_not_fit(change, says):
    train = served.interactions()
    given = dict(zip(("user_vectors", "item_vectors", "weights"), served.parts(train)))
    with pytest.raises(ArtefactError, match=says):
        build(**({"version": "1", "train": train} | given | change))


def spoilt(matrix, **changes):
    """A CSR matrix with some of its arrays replaced behind SciPy's back."""
    copy = sparse.csr_matrix(matrix.shape, dtype=np.float32)
    for name in ("data", "indices", "indptr"):
        setattr(copy, name, changes.get(name, getattr(matrix, name)))
    return copy


def with_cell(array, where, value):
    array = array.copy()
    array[where] = value
    return array


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"items": ONE.items.drop(columns="year")}, r"items has columns \['item_id', 'title', 'genres', 'count'\]"),
        ({"items": ONE.items.iloc[:0]}, r"item_vectors of shape \(50, 8\) and type float32; expected \(0, None\)"),
        ({"items": ONE.items.assign(count=ONE.items["count"] + np.eye(50, dtype=int)[3])}, "items.count of code 3 is"),
        ({"items": ONE.items.assign(item_id=7)}, "items.item_id holds 7 twice"),
        ({"items": ONE.items.assign(item_id="x")}, "items.item_id of shape .* object; expected .* of int64"),
        ({"user_ids": with_cell(ONE.user_ids, 1, 100)}, "user_ids holds 100 twice"),
        ({"ages": ONE.ages[1:]}, "ages of shape"),
        ({"ages": with_cell(ONE.ages, 5, 399)}, "ages does not fit history"),
        ({"history": ONE.history.astype(float)}, "history of shape .* float64; expected .* float32"),
        ({"history": spoilt(ONE.history, data=ONE.history.data * np.nan)}, "history .* NaN or infinity in a cell"),
        ({"weights": spoilt(ONE.weights, indices=ONE.weights.indices * 99)}, "weights is no CSR matrix .* indices"),
        ({"weights": spoilt(ONE.weights, indices=ONE.weights.indices * 0)}, "weights .* a cell twice"),
        ({"weights": spoilt(ONE.weights, indptr=ONE.weights.indptr[::-1])}, "weights is no CSR matrix"),
        ({"weights": ONE.weights.tocsc()}, "weights is no CSR matrix"),
    ],
)
def test_no_artefact_is_made_of_spoilt_parts(change, says):
    with pytest.raises(ArtefactError, match=says):
        replace(ONE, **change)


@pytest.mark.parametrize("change", [{"title": None}, {"title": 7}, {"genres": [None]}, {"genres": 5}])
def test_texts_are_checked_when_they_are_written(tmp_path, change):
    cells = {name: [cell] * 50 for name, cell in change.items()}
    with pytest.raises(ArtefactError, match=r"items.parquet cannot hold the artefact: .*see that no cell is empty"):
        write(replace(ONE, items=ONE.items.assign(**cells)), tmp_path)
    assert list(tmp_path.iterdir()) == []


# There and back


def test_what_is_written_is_what_is_loaded(root, tmp_path):
    assert served.same(load(root), ONE)
    assert served.same(load(str(root), "1"), ONE)
    assert not served.same(load(root), replace(TWO, version="1"))
    again = write(ONE, tmp_path / "again")
    for path in (root / "1").iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), f"{path.name} differs from one write to the next"


def test_the_folder_holds_these_files_and_they_are_readable(root):
    folder = root / "1"
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *artefacts.FILES}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [manifest[name] for name in ("format", "version", "dimension")] == [1, "1", 8]
    assert manifest["counts"] == {"users": 30, "items": 50, "history": 400, "weights": 250}
    umask = os.umask(0)
    os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask  # not for its writer alone
    assert pq.read_table(folder / "items.parquet").to_pandas()["title"][3] == "<b>Film 3</b>"


def test_nothing_is_unpickled(root, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(pickle.dumps(1))
    assert served.same(load(root), ONE)


def test_the_canary_is_exact():
    users, codes, scores = ONE.canary
    all_scores = ONE.user_vectors.astype(float) @ ONE.item_vectors.T.astype(float)
    assert users.tolist() == list(range(30))
    assert np.array_equal(codes, np.argsort(-all_scores, axis=1)[:, :10])
    assert np.allclose(scores, -np.sort(-all_scores, axis=1)[:, :10], atol=1e-5)
    many = served.artefact(n_users=500, n_items=6, n=600)
    assert (len(many.canary[0]), many.canary[0][-1], many.canary[1].shape) == (32, 499, (32, 6))


def test_ties_and_another_machine_s_rounding_do_not_spoil_the_canary(tmp_path):
    vectors = np.ones_like(ONE.item_vectors)
    folder = write(replace(ONE, item_vectors=vectors), tmp_path)
    change_manifest(folder, lambda m: m["canary"].update(
        codes=[list(range(40, 50))] * 30, scores=(np.array(m["canary"]["scores"]) * (1 + 1e-6)).tolist()
    ))  # fmt: skip
    assert load(tmp_path, "1").n_items == 50


# Which version is served


def test_versions_and_the_one_that_is_served(root):
    write(TWO, root)
    (root / ".hidden").mkdir()
    (root / "empty").mkdir()
    os.symlink(root / "1", root / "link")
    assert versions(root) == ["1", "2"]
    assert versions(root / "nowhere") == []
    assert load(root).version == "1"
    activate(root, "2")
    assert served.same(load(root), TWO)
    assert (root / "CURRENT").read_text() == "2\n"
    assert {path.name for path in root.iterdir()} == {".hidden", "empty", "link", "1", "2", "CURRENT"}


def test_a_version_that_cannot_be_loaded_is_not_activated(root):
    damage(write(TWO, root) / "weights.safetensors")
    for version, says in (("2", "weights.safetensors holds .* damaged"), ("3", r"3 is no folder; .* \['1', '2'\]")):
        with pytest.raises(ArtefactError, match=says):
            activate(root, version)
        assert load(root).version == "1"


def test_a_version_is_never_overwritten(root):
    with pytest.raises(ArtefactError, match="1 exists, and a version is never overwritten; choose another name"):
        write(replace(TWO, version="1"), root)
    assert served.same(load(root), ONE)


def test_of_two_writers_of_one_version_one_wins(root, monkeypatch):
    rename = os.rename

    def late(old, new):
        if not Path(new).exists():  # the other writer comes in between
            monkeypatch.setattr(os, "rename", rename)
            write(TWO, root)
        rename(old, new)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(ArtefactError, match="2 exists, and a version is never overwritten"):
        write(replace(ONE, version="2"), root)
    assert served.same(load(root, "2"), TWO)
    assert [path.name for path in root.glob(".*")] == []


def test_without_a_served_version_the_error_says_what_to_do(tmp_path):
    write(ONE, tmp_path)
    with pytest.raises(ArtefactError, match=r"CURRENT cannot be read \(No such file.*\); activate one of \['1'\]"):
        load(tmp_path)
    with pytest.raises(ArtefactError, match=r"CURRENT cannot be read \(No such file.*\); activate one of \[\]"):
        load(tmp_path / "nowhere")


# What is refused


def damage(path, position=-1):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def change_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(change(manifest) or manifest))


def forge(folder, name, content):
    """Replace a file, and have the manifest say so: what somebody does who may write to the folder."""
    (folder / name).write_bytes(content)
    change_manifest(folder, lambda manifest: manifest["files"].update({name: artefacts._file_facts(content)}))


def forge_tensors(name, **changes):
    def forged(folder):
        arrays = {name: array.copy() for name, array in load_tensors((folder / name).read_bytes()).items()}
        for part, change in changes.items():
            arrays[part] = change(arrays[part])
        forge(folder, name, save_tensors({part: array for part, array in arrays.items() if array is not None}))

    return forged


def forge_table(name, change):
    def forged(folder):
        table = change(pq.ParquetFile(folder / name).read())
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        forge(folder, name, sink.getvalue().to_pybytes())

    return forged


def with_column(name, change):
    def changed(table):
        place = table.schema.get_field_index(name)
        values = change(table[name].to_pylist())
        return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return changed


def to(path, target):
    shutil.move(path, target)
    os.symlink(target, path)


def unlisted(folder):
    (folder / "model.pkl").write_bytes(pickle.dumps("owned"))


def worst(manifest):
    """Ten items with their right scores, but the ten worst ones."""
    scores = ONE.user_vectors @ ONE.item_vectors.T
    codes = np.argsort(scores, axis=1)[:, :10]
    manifest["canary"].update(codes=codes.tolist(), scores=np.take_along_axis(scores, codes, axis=1).tolist())


def pipe(folder):
    (folder / "items.parquet").unlink()
    os.mkfifo(folder / "items.parquet")


VECTORS, WEIGHTS, ITEMS, HISTORY = "vectors.safetensors", "weights.safetensors", "items.parquet", "history.parquet"
DAMAGE = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read .No such file"),
    "an empty manifest": (lambda f: (f / "manifest.json").write_text(""), "manifest.json cannot be read .JSONDecode"),
    "a manifest cut short": (
        lambda f: os.truncate(f / "manifest.json", 900), "manifest.json cannot be read .JSONDecode"
    ),
    "a list for a manifest": (lambda f: (f / "manifest.json").write_text("[]"), r"manifest.json has format \[\]"),
    "a deep manifest": (lambda f: (f / "manifest.json").write_text("[" * 10**6), "manifest.json cannot be read"),
    "another format": (lambda f: change_manifest(f, lambda m: m | {"format": 2}), "has format 2; this code reads 1"),
    "no canary": (lambda f: change_manifest(f, lambda m: m.pop("canary") and None), "cannot be read .KeyError"),
    "no files": (lambda f: change_manifest(f, lambda m: m | {"files": None}), "cannot be read .TypeError"),
    "no hash": (lambda f: change_manifest(f, lambda m: m["files"].update({ITEMS: {}})), "but the manifest says {}"),
    "a version under another name": (
        lambda f: change_manifest(f, lambda m: m | {"version": "9"}), "says version '9', the files hold '1'"
    ),
    "another dimension": (
        lambda f: change_manifest(f, lambda m: m | {"dimension": 9}), "says dimension 9, the .* hold 8"
    ),
    "other counts": (lambda f: change_manifest(f, lambda m: m["counts"].update(items=49)), "says counts .*'items': 49"),
    "another canary": (
        lambda f: change_manifest(f, lambda m: m["canary"]["scores"][3].sort()), "the canary .* does not fit"
    ),
    "a canary of items that are not the best": (lambda f: change_manifest(f, worst), "the canary .* does not fit"),
    "a canary of one item": (
        lambda f: change_manifest(f, lambda m: m["canary"]["codes"].__setitem__(0, [m["canary"]["codes"][0][0]] * 10)),
        "the canary .* does not fit",
    ),
    "a canary of unknown items": (
        lambda f: change_manifest(f, lambda m: m["canary"]["codes"][0].__setitem__(0, 50)), "the canary .* does not fit"
    ),
    "a ragged canary": (
        lambda f: change_manifest(f, lambda m: m["canary"]["codes"][0].pop() and None), "cannot be read .ValueError"
    ),
    "a file outside": (
        lambda f: change_manifest(f, lambda m: m["files"].update({"../../secret": m["files"].pop(ITEMS)})),
        r"files \[.*'../../secret'.*\]; expected .* and no other",
    ),
    "a file that is not listed": (unlisted, "files .*'model.pkl'.*expected .* and no other"),
    "a file less": (lambda f: (f / HISTORY).unlink(), "history.parquet cannot be read .No such file"),
    "a file cut short": (
        lambda f: os.truncate(f / VECTORS, 100), "vectors.safetensors holds {'bytes': 100, .* damaged"
    ),
    "a changed byte": (lambda f: damage(f / ITEMS, 200), "items.parquet holds .* but the manifest says .* damaged"),
    "a link to a file": (lambda f: to(f / ITEMS, f.parent.parent / "x"), "items.parquet cannot be read .*links"),
    "a link for a manifest": (lambda f: to(f / "manifest.json", f.parent.parent / "x"), "manifest.json cannot be read"),
    "a link to a folder": (lambda f: to(f, f.parent.parent / "x"), "1 is no folder; versions that can be loaded"),
    "a pipe": (pipe, "items.parquet is no plain file"),
    "a folder for a file": (lambda f: ((f / ITEMS).unlink(), (f / ITEMS).mkdir()), "items.parquet"),
    "NaN": (
        forge_tensors(VECTORS, item_vectors=lambda v: with_cell(v, (2, 1), np.nan)), "item_vectors: row 2 holds NaN"
    ),
    "huge numbers": (forge_tensors(VECTORS, user_vectors=lambda v: v * np.float32(1e30)), "user_vectors: row 0 holds"),
    "double precision": (forge_tensors(VECTORS, item_vectors=lambda v: v.astype(float)), "holds .*'float64'.*expected"),
    "a wrong dimension": (
        forge_tensors(VECTORS, user_vectors=lambda v: v[:, 1:].copy()), r"user_vectors of shape \(30, 7\)"
    ),
    "no dimension": (forge_tensors(VECTORS, item_vectors=lambda v: v[:, 0].copy()), r"item_vectors of shape \(50,\)"),
    "a vector less": (forge_tensors(VECTORS, item_vectors=lambda v: v[1:].copy()), "do not fit the vectors|of shape"),
    "no vectors": (
        forge_tensors(VECTORS, user_vectors=lambda v: None), "vectors.safetensors holds .*expected .*user_vec"
    ),
    "a user twice": (forge_tensors(VECTORS, user_ids=lambda v: with_cell(v, 0, v[1])), "user_ids holds 102 twice"),
    "other vectors": (
        forge_tensors(VECTORS, item_vectors=lambda v: v[::-1].copy()), "the canary in manifest.json does not fit"
    ),
    "other users": (forge_tensors(VECTORS, user_vectors=lambda v: v[::-1].copy()), "the canary .* does not fit"),
    "no tensors": (lambda f: forge(f, WEIGHTS, b"\x80\x04N."), "weights.safetensors cannot be read"),
    "infinite weights": (forge_tensors(WEIGHTS, data=lambda v: v * np.float32(np.inf)), "weights is no CSR matrix"),
    "weights of unknown items": (
        forge_tensors(WEIGHTS, indices=lambda v: with_cell(v, 0, 2**31 - 1)), "weights is no CSR matrix|do not fit"
    ),
    "weights in disorder": (forge_tensors(WEIGHTS, indices=lambda v: v[::-1].copy()), "weights is no CSR matrix"),
    "weights without rows": (forge_tensors(WEIGHTS, indptr=lambda v: v[:-1].copy()), "history or weights do not fit"),
    "weights beyond the end": (forge_tensors(WEIGHTS, indptr=lambda v: v * 1000), "history or weights do not fit"),
    "no parquet": (lambda f: forge(f, ITEMS, b"PAR1 not PAR1"), "items.parquet cannot be read"),
    "a column less": (forge_table(ITEMS, lambda t: t.drop_columns("year")), "items.parquet holds .*expected"),
    "another type": (
        forge_table(HISTORY, lambda t: t.cast(pa.schema([f.with_type(pa.int64()) for f in t.schema]), safe=False)),
        "history.parquet holds .*int64.*expected",
    ),
    "empty cells": (
        forge_table(ITEMS, lambda t: t.cast(pa.schema([f.with_nullable(True) for f in t.schema]))), "not null"
    ),
    "an item twice": (
        forge_table(ITEMS, with_column("item_id", lambda ids: [ids[1], *ids[1:]])), "item_id holds 13 twice"
    ),
    "an item less": (
        forge_table(ITEMS, lambda t: t.slice(1)), r"item_vectors of shape \(50, 8\).* expected \(49, None\)"
    ),
    "another count": (forge_table(ITEMS, with_column("count", lambda c: [99, *c[1:]])), "items.count of code 0 is 99"),
    "a pair less": (forge_table(HISTORY, lambda t: t.slice(1)), "items.count of code|ages"),
    "a pair twice": (forge_table(HISTORY, lambda t: pa.concat_tables([t, t.slice(0, 1)])), "ages|count"),
    "an unknown user": (
        forge_table(HISTORY, with_column("user", lambda u: [30, *u[1:]])), "history or weights do not fit"
    ),
    "an unknown item": (
        forge_table(HISTORY, with_column("item", lambda i: [-1, *i[1:]])), "history or weights do not fit"
    ),
    "a rating of NaN": (forge_table(HISTORY, with_column("rating", lambda r: [np.nan, *r[1:]])), "history is no CSR"),
    "ages at random": (
        forge_table(HISTORY, with_column("age", lambda a: [a[0] + 1, *a[1:]])), "ages does not fit history"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_refused(root, what):
    break_it, says = DAMAGE[what]
    break_it(root / "1")
    with pytest.raises(ArtefactError, match=says) as refused:
        load(root)
    assert str(root / "1") in str(refused.value)
    assert "another name, or serve an earlier one" in str(refused.value) or "versions that can be" in str(refused.value)
    with pytest.raises(ArtefactError):
        activate(root, "1")


def test_a_forged_file_that_is_whole_is_not_refused(root):
    """The forging of the tests above is not what fails them."""
    forge_tensors(VECTORS)(root / "1")
    forge_tensors(WEIGHTS)(root / "1")
    forge_table(ITEMS, with_column("title", lambda titles: titles))(root / "1")
    forge_table(HISTORY, lambda table: table.take(pa.array(np.arange(len(table))[::-1])))(root / "1")
    assert served.same(load(root), ONE)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(ONE, tmp_path_factory.mktemp("bytes"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_refused_or_changes_nothing(written, data):
    path = written / data.draw(st.sampled_from([*sorted(artefacts.FILES), "manifest.json"]))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(st.integers(1, 255)) ^ content[place]
    try:
        path.write_bytes(content[:place] + bytes([new]) + content[place + 1 :])
        found = load(written.parent, "1")
    except ArtefactError:
        pass
    else:
        assert path.name == "manifest.json"  # white space, or digits of a score that do not matter
        assert served.same(found, ONE)
    finally:
        path.write_bytes(content)


NAMES = st.one_of(st.text(max_size=70), st.from_regex(r"[./\\~A-Za-z0-9_\-\x00\n]{0,70}", fullmatch=True))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(version=NAMES)
def test_names_that_are_none_reach_no_file(tmp_path, version):
    good = version[:1].isascii() and version[:1].isalnum() and len(version) < 65 and version.upper() != "CURRENT"
    good = good and all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in version)
    if good:
        assert replace(ONE, version=version).version == version
        return
    for attempt in (lambda name: replace(ONE, version=name), partial(load, tmp_path), partial(activate, tmp_path)):
        with pytest.raises(ArtefactError, match="is no name; expected 1 to 64 letters"):
            attempt(version)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["..", ".", "", "a/b", "/etc", "1\n", "a" * 65, "current", "CURRENT", 1, b"1", "é"])
def test_names_that_are_none(root, version):
    for attempt in (lambda name: replace(ONE, version=name), partial(load, root), partial(activate, root)):
        with pytest.raises(ArtefactError, match="is no name"):
            attempt(version)


@pytest.mark.parametrize(
    ("content", "says"),
    [("../elsewhere\n", "'../elsewhere' is no name"), ("", "'' is no name"), ("7\n", "7 is no folder"), ("1\n2", "no")],
)
def test_what_is_served_must_be_a_version(root, content, says):
    write(ONE, root.parent / "elsewhere")
    (root / "CURRENT").write_text(content)
    with pytest.raises(ArtefactError, match=says):
        load(root)


def test_current_is_no_link(root):
    (root.parent / "mine").write_text("1\n")
    (root / "CURRENT").unlink()
    os.symlink(root.parent / "mine", root / "CURRENT")
    with pytest.raises(ArtefactError, match=r"CURRENT cannot be read .*links\); activate one of"):
        load(root)
    activate(root, "1")  # replaces the link, not what it leads to
    assert not (root / "CURRENT").is_symlink()
    assert (root.parent / "mine").read_text() == "1\n"


# Writers that do not come to an end


class Killed(BaseException):
    pass


def check_whole(root):
    """What a reader relies on: the version that is served, and every version that is listed, can be loaded."""
    assert load(root).version in versions(root)
    for version in versions(root):
        assert served.same(load(root, version), replace(TWO if version != "1" else ONE, version=version))


def crash_everywhere(root, monkeypatch, write):
    """Write and activate version 2, ending before the n-th call that changes the disk, for every n; yields each n."""
    originals = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "mkdir")} | {"open": open}
    calls = 0

    def counted(name, last, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == last:
            raise Killed
        return originals[name](*args, **kwargs)

    for last in range(1, 100):
        calls = 0
        for name in originals:
            monkeypatch.setattr(builtins if name == "open" else os, name, partial(counted, name, last))
        try:
            write(TWO, root)
            activate(root, "2")
        except (Killed, ArtefactError):
            pass
        finally:
            monkeypatch.undo()
        yield last
        if calls < last:
            return
        shutil.rmtree(root / "2", ignore_errors=True)


def test_a_writer_that_ends_anywhere_leaves_whole_versions(root, monkeypatch):
    steps = 0
    for steps in crash_everywhere(root, monkeypatch, write):  # noqa: B007 - counted
        check_whole(root)
        assert [path.name for path in root.glob(".*")] == []  # an exception, not a kill: it tidies up
        (root / "CURRENT").write_text("1\n")
    assert steps > 9


def test_canary_a_writer_without_care_is_caught(root, monkeypatch):
    def careless(artefact, root):
        folder = root / artefact.version
        os.mkdir(folder)
        contents = artefacts._contents(artefact)
        for name in ("manifest.json", *contents):
            artefacts.write_file(folder / name, contents.get(name, b"{}"))

    caught = 0
    for _ in crash_everywhere(root, monkeypatch, careless):
        try:
            check_whole(root)
        except ArtefactError:
            caught += 1
    assert caught > 3


def test_canary_a_careless_switch_is_caught(root, monkeypatch):
    def in_place(path, content):
        path.unlink()
        artefacts.write_file(path, content)

    caught = 0
    with patch.object(artefacts, "replace_file", in_place):
        for _ in crash_everywhere(root, monkeypatch, write):
            try:
                check_whole(root)
            except ArtefactError:
                caught += 1
            (root / "CURRENT").write_text("1\n")
    assert caught


WRITER = """
import os, sys
from dataclasses import replace
import served
from recsys_utils.serving.artefacts import activate, write
made = served.artefact("2", seed=1, n_items=40)
for root in map(str.strip, sys.stdin):
    child = os.fork()  # starting Python anew would take a second each time
    if not child:
        for number in range(2, 1000):
            write(replace(made, version=str(number)), root)
            activate(root, str(number))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_kill_9_leaves_every_version_whole(root):
    """A process that writes and serves one version after the other is killed ten times, and more often until
    a kill came in the middle of writing."""
    rng, hidden, written = random.Random(0), 0, 0
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        for turn in range(50):
            if turn > 9 and hidden:
                break
            place = root.parent / f"root{turn}"
            shutil.copytree(root, place)
            print(place, file=parent.stdin, flush=True)
            child = int(parent.stdout.readline())
            time.sleep(rng.uniform(0.05, 0.4))
            os.kill(child, signal.SIGKILL)
            assert int(parent.stdout.readline()) == signal.SIGKILL
            check_whole(place)
            written += len(versions(place)) - 1
            hidden += len(list(place.glob(".*")))
            write(replace(TWO, version="after"), place)  # what a killed writer left is in nobody's way
            activate(place, "after")
            check_whole(place)
        parent.stdin.close()
    assert written > 0, "nothing was written before the kills"
    assert hidden > 0, "no kill came in the middle of writing"


# The book's own


def test_the_house_artefact(tmp_path, monkeypatch):
    from recsys_utils import splits
    from recsys_utils.datasets import load_house
    from recsys_utils.models import neighbours, two_tower_torch

    train = splits.temporal_per_user(load_house()).train_validation
    users, items, _ = served.parts(replace(train, item_ids=np.arange(train.n_items), item_table=None))
    weights = np.random.default_rng(0).normal(size=(train.n_items, train.n_items))
    regularizations = []
    monkeypatch.setattr(two_tower_torch, "build_artefact", lambda folder: type("Towers", (), {
        "vectors": lambda self: (users, items)
    })())  # fmt: skip
    monkeypatch.setattr(neighbours, "ease", lambda X, regularization: regularizations.append(regularization) or weights)
    made = artefacts.house_artefact(tmp_path)
    assert served.same(load(tmp_path), made)
    assert (made.version, made.n_users, made.n_items, made.history.nnz) == ("1", 671, train.n_items, len(train))
    assert made.weights.nnz == 100 * train.n_items
    assert len(regularizations) == 1
    with pytest.raises(ArtefactError, match="1 exists"):
        artefacts.house_artefact(tmp_path)
    assert len(regularizations) == 1  # it said so before training
