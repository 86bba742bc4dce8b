"""What a model leaves behind to be served: one folder a version, checked on its way out and on its way in.

    root/CURRENT                the version that is served: one line of text
    root/VERSION/manifest.json  format, counts, dimension, size and sha256 of the files below, recall canary
    root/VERSION/…              vectors.safetensors, items.parquet, history.parquet, weights.safetensors

A version is written once, beside its final place, and gets its name when it is whole, so that a reader finds all of it
or nothing. Nothing is unpickled. The hashes guard against damage, not against somebody who may write to the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from recsys_utils.interactions import Interactions
from recsys_utils.retrieval import FlatIndex, replace_file, write_file

FORMAT = 1
COLUMNS = ["item_id", "title", "genres", "year", "count"]
TENSORS = {
    "vectors": {"item_vectors": "float32", "user_vectors": "float32", "user_ids": "int64"},
    "weights": {"indptr": "int64", "indices": "int32", "data": "float32"},
}
FILES = {"vectors.safetensors", "items.parquet", "history.parquet", "weights.safetensors"}
LARGEST = 1e9  # of the numbers in a vector: inner products then stay far from the end of float32
N_CANARIES = 32
WAY_OUT = "write the version again under another name, or serve an earlier one"


class ArtefactError(ValueError):
    """An artefact that must not be served; the message names the file or value and the way out."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """Everything a service needs to answer; user and item codes are row numbers.

    version: 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first. items: row c describes item
    code c: item_id (int64), title, genres (a list of str), year (float, NaN: unknown), count (its entries in history).
    item_vectors (n_items, d), user_vectors (n_users, d): float32, their inner products rank. user_ids: (n_users,),
    int64. history: (n_users, n_items), float32, the rating of what a user has met. weights: (n_items, n_items),
    float32: the score of item i is the sum of weights[j, i] over what a user has met. ages: (history.nnz,), int32, for
    each entry of history, in its order, how many items its user met after it: 0 for the latest, so that re-ranking can
    let what was met last count most. Arrays are not to be written to. Raises ArtefactError when the parts do not fit
    together.
    """

    version: str
    items: pd.DataFrame
    item_vectors: np.ndarray
    user_ids: np.ndarray
    user_vectors: np.ndarray
    history: sparse.csr_matrix
    weights: sparse.csr_matrix
    ages: np.ndarray

    def __post_init__(self) -> None:
        _check_name(self.version)
        if list(self.items) != COLUMNS:
            raise ArtefactError(f"items has columns {list(self.items)}; expected {COLUMNS}")
        n_items, n_users = len(self.items), len(self.user_ids)
        columns = ("item_id", "int64"), ("year", "float64"), ("count", "int64")
        for name, array, dtype, shape in (
            ("item_vectors", self.item_vectors, "float32", (n_items, None)),
            ("user_vectors", self.user_vectors, "float32", (n_users, *self.item_vectors.shape[1:])),
            ("user_ids", self.user_ids, "int64", (n_users,)),
            ("history", self.history, "float32", (n_users, n_items)),
            ("weights", self.weights, "float32", (n_items, n_items)),
            ("ages", self.ages, "int32", (self.history.nnz,)),
            *((f"items.{name}", self.items[name], dtype, (n_items,)) for name, dtype in columns),
        ):
            _check_shape(name, array, dtype, shape)
        for name in ("item_vectors", "user_vectors"):
            bad = ~(np.abs(getattr(self, name)) <= LARGEST).all(axis=1)
            if bad.any():
                raise ArtefactError(
                    f"{name}: row {bad.argmax()} holds NaN, infinity or a number beyond {LARGEST:g} ({bad.sum()} such "
                    f"rows); train again, or leave these rows out"
                )
        for name, ids in (("user_ids", pd.Index(self.user_ids)), ("items.item_id", pd.Index(self.items["item_id"]))):
            if ids.has_duplicates:
                raise ArtefactError(f"{name} holds {ids[ids.duplicated()][0]} twice; expected an id for each vector")
        _check_sparse("history", self.history)
        _check_sparse("weights", self.weights)
        if (self.history.data <= 0).any():
            raise ArtefactError(f"history holds the rating {self.history.data.min()}; expected ratings above 0")
        counts, met = self.items["count"].to_numpy(), np.bincount(self.history.indices, minlength=n_items)
        if not np.array_equal(counts, met):
            code = np.flatnonzero(counts != met)[0]
            raise ArtefactError(f"items.count of code {code} is {counts[code]}, but history holds {met[code]} ratings")
        users = np.repeat(np.arange(n_users), np.diff(self.history.indptr))
        in_order = self.ages[np.lexsort((self.ages, users))]
        if not np.array_equal(in_order, np.arange(len(users)) - self.history.indptr[users]):
            raise ArtefactError("ages does not fit history; expected 0 to n - 1, each once, for a user who met n items")

    @property
    def n_items(self) -> int:
        return len(self.item_vectors)

    @property
    def n_users(self) -> int:
        return len(self.user_vectors)

    @property
    def dimension(self) -> int:
        """d, numbers in a vector."""
        return self.item_vectors.shape[1]

    @cached_property
    def codes(self) -> dict[int, int]:
        """Item code of each external item id."""
        return {item_id: code for code, item_id in enumerate(self.items["item_id"].tolist())}

    @cached_property
    def user_codes(self) -> dict[int, int]:
        """User code of each external user id."""
        return {user_id: code for code, user_id in enumerate(self.user_ids.tolist())}

    @cached_property
    def canary(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users spread over all codes (q,), and for the vector of each the exact ten best items and their scores,
        (q, 10), nothing left out: what another index or store is checked against."""
        users = np.unique(np.linspace(0, self.n_users - 1, N_CANARIES).astype(int))
        index = FlatIndex(self.dimension)
        index.add(self.item_vectors)
        return users, *index.search(self.user_vectors[users], min(10, self.n_items))


def build(
    version: str,
    train: Interactions,
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    weights: np.ndarray,
    n_weights: int = 100,
) -> Artefact:
    """An artefact of what was trained on `train`, whose codes, item table and ratings it takes over.

    user_vectors, item_vectors: rows by code, (n_users, d) and (n_items, d). weights: item-to-item, (n_items, n_items),
    as models.neighbours.ease gives them; the n_weights largest of each column, by absolute value, are kept. Ids must be
    whole numbers. Raises ArtefactError for parts that do not fit together.
    """
    weights = np.asarray(weights)
    if weights.shape != (train.n_items, train.n_items) or not np.isfinite(weights).all():
        raise ArtefactError(
            f"weights of shape {weights.shape}; expected finite numbers, shape {(train.n_items, train.n_items)}"
        )
    if isinstance(n_weights, bool) or not isinstance(n_weights, int | np.integer) or n_weights < 1:
        raise ArtefactError(f"n_weights={n_weights!r}; expected a whole number of at least 1")
    if train.item_table is None or train.ratings is None:
        raise ArtefactError("the interactions have no item_table or no ratings; expected both (load_house has them)")
    table = train.item_table
    genres = [list(cell) for cell in table["genres"]]
    columns = (train.item_ids, table["title"].to_numpy(), genres, table["year"].to_numpy(float), train.item_counts)
    items = pd.DataFrame(dict(zip(COLUMNS, columns)))
    history = train.matrix("ratings")
    history.sort_indices()
    times = np.zeros(len(train)) if train.timestamps is None else train.timestamps  # then the order of rows decides
    order = np.lexsort((times, train.users))  # by user, the latest last, ties in the order of rows
    ages = np.empty(len(train), np.int32)
    ages[order] = np.cumsum(train.user_counts)[train.users[order]] - 1 - np.arange(len(train))
    ages = ages[np.lexsort((train.items, train.users))]  # in the order of history
    vectors = [np.ascontiguousarray(each, np.float32) for each in (item_vectors, user_vectors)]
    return Artefact(version, items, vectors[0], train.user_ids, vectors[1], history, _largest(weights, n_weights), ages)


def write(artefact: Artefact, root: Path | str) -> Path:
    """Store an artefact as root/VERSION, all of it or nothing; the folder. It is not served before `activate`.

    Raises ArtefactError where the version exists: versions are never overwritten. A writer that was killed leaves a
    hidden folder behind, which nobody reads and which may be deleted.
    """
    folder = _new_folder(root, artefact.version)
    contents = _contents(artefact)
    manifest = _facts(artefact) | {"files": {name: _file_facts(content) for name, content in contents.items()}}
    manifest["canary"] = {name: part.tolist() for name, part in zip(("users", "codes", "scores"), artefact.canary)}
    contents["manifest.json"] = json.dumps(manifest, indent=1, allow_nan=False).encode()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as hidden:
        whole = Path(hidden, folder.name)
        whole.mkdir()
        for name, content in contents.items():  # the manifest comes last
            write_file(whole / name, content)
        _sync(whole)
        try:
            os.rename(whole, folder)
        except OSError:  # somebody else was faster
            _new_folder(root, artefact.version)
            raise
    _sync(folder.parent)
    return folder


def load(root: Path | str, version: str | None = None) -> Artefact:
    """The artefact root/VERSION; without a version, the one that is served.

    Sizes, hashes, shapes, counts and the canary are checked before anything is returned. Raises ArtefactError for a
    name that is none, links, files that are missing, damaged or in another format, and parts that do not fit together.
    """
    if version is None:
        try:
            version = _read(Path(root, "CURRENT")).decode(errors="replace").strip()
        except ArtefactError as error:
            raise ArtefactError(f"{error}; activate one of {versions(root)}") from None
    _check_name(version)
    folder = Path(root, version)
    if folder.is_symlink() or not folder.is_dir():
        raise ArtefactError(f"{folder} is no folder; versions that can be loaded: {versions(root)}")
    try:
        manifest = json.loads(_read(folder / "manifest.json"))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            found = manifest.get("format") if isinstance(manifest, dict) else manifest
            raise ArtefactError(f"manifest.json has format {found!r:.80}; this code reads {FORMAT}")
        strange = {path.name for path in folder.iterdir() if path.name[0] != "."} - FILES - {"manifest.json"}
        if strange or set(manifest["files"]) != FILES:
            raise ArtefactError(f"files {[*manifest['files'], *strange]}; expected {sorted(FILES)} and no other")
        contents = {name: _read(folder / name, manifest["files"][name]) for name in sorted(FILES)}
        artefact = _restored(version, contents)
        for name, expected in _facts(artefact).items():
            if manifest.get(name) != expected:
                raise ArtefactError(f"manifest.json says {name} {manifest.get(name)!r}, the files hold {expected!r}")
        _check_canary(artefact, manifest["canary"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = error if isinstance(error, ArtefactError) else f"manifest.json cannot be read ({error!r})"
        raise ArtefactError(f"{folder}: {reason}; {WAY_OUT}") from None
    return artefact


def activate(root: Path | str, version: str) -> None:
    """Have a version served from now on, once it was loaded in full; CURRENT names the old one or the new one.

    Raises ArtefactError as load does, and then the version stays that was served.
    """
    load(root, version)
    replace_file(Path(root, "CURRENT"), f"{version}\n".encode())
    _sync(Path(root))


def versions(root: Path | str) -> list[str]:
    """Names of the versions below root that have a manifest, in the order of the alphabet; not yet checked."""
    folders = Path(root).iterdir() if Path(root).is_dir() else ()
    whole = [path.name for path in folders if (path / "manifest.json").is_file() and not path.is_symlink()]
    return sorted(name for name in whole if _is_name(name))


def house_artefact(root: Path | str, version: str = "1") -> Artefact:
    """Train the book's two towers and EASE, in their recorded settings, on train and validation of the house split;
    write and activate the artefact. About 15 seconds. Raises ArtefactError where the version exists.
    """
    from recsys_utils import leaderboard, splits
    from recsys_utils.datasets import load_house
    from recsys_utils.models.neighbours import ease
    from recsys_utils.models.two_tower_torch import build_artefact

    _new_folder(root, version)
    train = splits.temporal_per_user(load_house()).train_validation
    with tempfile.TemporaryDirectory() as model:
        vectors = build_artefact(model).vectors()
    weights = ease(train.matrix(), **leaderboard.result("ease")["hyperparameters"])
    artefact = build(version, train, *vectors, weights)
    write(artefact, root)
    activate(root, version)
    return artefact


# What every artefact satisfies


def _is_name(version: object) -> bool:
    named = isinstance(version, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", version, re.ASCII)
    return bool(named) and version.upper() != "CURRENT"


def _check_name(version: object) -> None:
    if not _is_name(version):
        raise ArtefactError(
            f"version {str(version)[:80]!r} is no name; expected 1 to 64 letters, digits, dots, dashes and "
            f"underscores, a letter or digit first, and not CURRENT"
        )


def _new_folder(root: Path | str, version: object) -> Path:
    _check_name(version)
    folder = Path(root, version)
    if os.path.lexists(folder):
        raise ArtefactError(f"{folder} exists, and a version is never overwritten; choose another name")
    return folder


def _check_shape(name: str, array, dtype: str, shape: tuple[int | None, ...]) -> None:
    """None stands for any length; none may be 0, but that of ages."""
    lengths = zip(array.shape, shape)
    fits = len(array.shape) == len(shape) and all((n or name == "ages") and m in (n, None) for n, m in lengths)
    if not fits or array.dtype != dtype:
        raise ArtefactError(
            f"{name} of shape {array.shape} and type {array.dtype}; expected {shape} of {dtype}, a row for each code"
        )


def _check_sparse(name: str, matrix: sparse.csr_matrix) -> None:
    try:
        matrix.check_format()  # row pointers that rise, columns that exist
        if not np.isfinite(matrix.data).all():
            raise ValueError("NaN or infinity in a cell")
        if matrix.format != "csr" or not matrix.has_canonical_format:
            raise ValueError("a cell twice, or columns out of order: call sum_duplicates")
    except ValueError as error:
        raise ArtefactError(f"{name} is no CSR matrix as expected: {error}") from None


def _check_canary(artefact: Artefact, stored: dict) -> None:
    """Scores are compared, not codes: where items tie, machines may order them differently."""
    users, best, scores = artefact.canary
    codes, theirs = np.asarray(stored["codes"]), np.asarray(stored["scores"], float)
    fits = stored["users"] == users.tolist() and codes.dtype.kind == "i" and codes.shape == theirs.shape == best.shape
    if fits and codes.min() >= 0 and codes.max() < artefact.n_items:
        mine = np.einsum("qd,qkd->qk", artefact.user_vectors[users], artefact.item_vectors[codes])
        if np.allclose([mine, scores], theirs, rtol=1e-4, atol=1e-5 * np.abs(scores).max()):
            return
    raise ArtefactError("the canary in manifest.json does not fit the vectors: it was made with other ones")


def _largest(weights: np.ndarray, n: int) -> sparse.csr_matrix:
    """The n largest entries by absolute value of each column."""
    n = min(n, len(weights))
    parts = []
    for start in range(0, weights.shape[1], 512):  # a block at a time: the sort needs memory
        block = weights[:, start : start + 512]
        rows = np.argpartition(-np.abs(block), n - 1, axis=0)[:n]  # (n, b)
        columns = np.broadcast_to(np.arange(block.shape[1]), rows.shape)
        cells = block[rows, columns].astype(np.float32)
        parts.append(sparse.csc_matrix((cells.ravel(), (rows.ravel(), columns.ravel())), shape=block.shape))
    kept = sparse.hstack(parts, format="csr")
    kept.eliminate_zeros()
    kept.sort_indices()
    return kept


# Files


def _facts(artefact: Artefact) -> dict:
    counts = {"users": artefact.n_users, "items": artefact.n_items}
    counts |= {"history": artefact.history.nnz, "weights": artefact.weights.nnz}
    return {"format": FORMAT, "version": artefact.version, "counts": counts, "dimension": artefact.dimension}


def _file_facts(content: bytes) -> dict:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _schemas() -> dict:
    import pyarrow as pa

    texts = pa.list_(pa.field("element", pa.string(), nullable=False))
    kinds = dict(zip(COLUMNS, (pa.int64(), pa.string(), texts, pa.float64(), pa.int64())))
    history = {"user": pa.int32(), "item": pa.int32(), "rating": pa.float32(), "age": pa.int32()}
    tables = {"items.parquet": kinds, "history.parquet": history}
    return {
        name: pa.schema([pa.field(column, kind, nullable=False) for column, kind in columns.items()])
        for name, columns in tables.items()
    }


def _contents(artefact: Artefact) -> dict[str, bytes]:
    """The files without the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save

    history = artefact.history.tocoo()
    tables = {
        "items.parquet": {name: artefact.items[name].tolist() for name in COLUMNS},
        "history.parquet": {"user": history.row, "item": history.col, "rating": history.data, "age": artefact.ages},
    }
    contents = {}
    for name, schema in _schemas().items():
        sink = pa.BufferOutputStream()
        try:
            pq.write_table(pa.table(tables[name], schema), sink)
        except (pa.ArrowException, TypeError) as error:
            raise ArtefactError(f"{name} cannot hold the artefact: {error}; see that no cell is empty") from None
        contents[name] = sink.getvalue().to_pybytes()
    for name, parts in TENSORS.items():
        source = artefact if name == "vectors" else artefact.weights
        arrays = {part: np.ascontiguousarray(getattr(source, part), dtype) for part, dtype in parts.items()}
        contents[f"{name}.safetensors"] = save(arrays)
    return contents


def _restored(version: str, contents: dict[str, bytes]) -> Artefact:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import load

    parts = {}
    for name, content in contents.items():
        try:
            if name.endswith("parquet"):
                parts[name] = pq.ParquetFile(pa.BufferReader(content)).read()
                found, expected = (
                    [str(field) for field in schema] for schema in (parts[name].schema, _schemas()[name])
                )
            else:
                parts[name] = load(content)
                found = {part: str(array.dtype) for part, array in parts[name].items()}
                expected = TENSORS[Path(name).stem]
        except (pa.ArrowException, SafetensorError, KeyError, OSError, TypeError, ValueError) as error:
            raise ArtefactError(f"{name} cannot be read ({error})") from None
        if found != expected:
            raise ArtefactError(f"{name} holds {found}; expected {expected}")
    vectors, items, weights = (parts[name] for name in ("vectors.safetensors", "items.parquet", "weights.safetensors"))
    users, codes, ratings, ages = (column.to_numpy() for column in parts["history.parquet"])
    shape = (len(vectors["user_vectors"]), len(vectors["item_vectors"]))
    try:
        history = sparse.coo_matrix((ratings, (users, codes)), shape).tocsr()
        cells = (weights["data"], weights["indices"], weights["indptr"])
        weights = sparse.csr_matrix(cells, (shape[1], shape[1]))
    except ValueError as error:
        raise ArtefactError(f"history or weights do not fit the vectors ({error})") from None
    table = items.to_pandas().assign(genres=items["genres"].to_pylist())
    return Artefact(version, table, **vectors, history=history, weights=weights, ages=ages[np.lexsort((codes, users))])


def _read(path: Path, expected: dict | None = None) -> bytes:
    """What a plain file holds; links and pipes are refused. expected: its size and hash."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            plain = stat.S_ISREG(os.fstat(handle).st_mode)
            content = file.read() if plain else b""
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror})") from None
    if not plain:
        raise ArtefactError(f"{path} is no plain file; links are not followed")
    if expected is not None and _file_facts(content) != expected:
        raise ArtefactError(f"{path} holds {_file_facts(content)}, but the manifest says {expected}: it is damaged")
    return content


def _sync(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the system can (Windows cannot)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
