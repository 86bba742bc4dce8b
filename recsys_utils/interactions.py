"""Interactions: the one type for "who met what, when"."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import sparse


@dataclass(frozen=True, eq=False)
class Interactions:
    """A table of (user, item) events whose axes have names and sizes.

    users, items: shape (n,), 0-based codes, stored as int32. user_ids, item_ids: the external id of each code, shapes
    (n_users,) and (n_items,); ids are unique. ratings: shape (n,), stored as float32, or None. timestamps: shape (n,),
    seconds since 1970-01-01 UTC, stored as int64, or None. user_table, item_table: feature tables whose row c describes
    code c; a table indexed by id is aligned to the codes here, so nobody joins by position. name: the edition.
    Raises ValueError when lengths, codes, ids or tables do not fit together.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    user_table: pd.DataFrame | None = None
    item_table: pd.DataFrame | None = None
    name: str = "unnamed"

    def __post_init__(self) -> None:
        for axis, dtype in {
            "users": np.int32,
            "items": np.int32,
            "ratings": np.float32,
            "timestamps": np.int64,
        }.items():
            if getattr(self, axis) is not None:
                self._set(axis, _column(getattr(self, axis), dtype, axis, len(self.users)))
        for axis in ("user", "item"):
            ids = np.asarray(getattr(self, f"{axis}_ids"))
            codes = getattr(self, f"{axis}s")
            if ids.ndim != 1:
                raise ValueError(f"{axis}_ids has shape {ids.shape}; expected one id a code, shape (n_{axis}s,)")
            if len(pd.unique(ids)) != len(ids):
                duplicate = pd.Series(ids)[pd.Series(ids).duplicated()].iloc[0]
                raise ValueError(f"{axis}_ids holds {duplicate} twice; each code needs an id of its own")
            if len(codes) and (codes.min() < 0 or codes.max() >= len(ids)):
                wrong = codes.min() if codes.min() < 0 else codes.max()
                raise ValueError(
                    f"{axis} code {wrong} is outside 0..{len(ids) - 1}; codes are 0-based positions in {axis}_ids "
                    f"(Interactions.from_frame makes them from any ids)"
                )
            self._set(f"{axis}_ids", ids)
            table = getattr(self, f"{axis}_table")
            if table is not None:
                self._set(f"{axis}_table", _align(table, ids, axis))

    def _set(self, field: str, value) -> None:
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value = value.view()
            value.flags.writeable = False
        object.__setattr__(self, field, value)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        user: str = "user_id",
        item: str = "item_id",
        rating: str | None = None,
        timestamp: str | None = None,
        user_table: pd.DataFrame | None = None,
        item_table: pd.DataFrame | None = None,
        name: str = "unnamed",
    ) -> Interactions:
        """Interactions from a long table, one row an event; tables are indexed by external id.

        Ids are numbered in sorted order, those of a given table included, so an item nobody met keeps a code.
        Raises ValueError for a missing column or a missing id.
        """
        for column in filter(None, (user, item, rating, timestamp)):
            if column not in frame:
                raise ValueError(f"column {column!r} is missing; the table has {list(frame.columns)}")
            if frame[column].isna().any():
                row = int(np.flatnonzero(frame[column].isna())[0])
                raise ValueError(f"column {column!r} is empty in row {row}; drop or fill such rows first, and say so")
        user_ids, users = _codes(frame[user], user_table)
        item_ids, items = _codes(frame[item], item_table)
        return cls(
            users=users,
            items=items,
            user_ids=user_ids,
            item_ids=item_ids,
            ratings=None if rating is None else frame[rating].to_numpy(),
            timestamps=None if timestamp is None else frame[timestamp].to_numpy(),
            user_table=user_table,
            item_table=item_table,
            name=name,
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def density(self) -> float:
        """Share of the (user, item) cells that are filled, counting a repeated pair once."""
        return self.matrix().nnz / max(self.n_users * self.n_items, 1)

    @cached_property
    def user_counts(self) -> np.ndarray:
        """Rows of each user, shape (n_users,)."""
        return np.bincount(self.users, minlength=self.n_users)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """Rows of each item, shape (n_items,)."""
        return np.bincount(self.items, minlength=self.n_items)

    @cached_property
    def data_sha256(self) -> str:
        """Hash of ids, codes, ratings and time stamps in row order: equal for equal data on any machine."""
        digest = hashlib.sha256(f"{self.n_users},{self.n_items},{len(self)}".encode())
        digest.update("\n".join(map(str, [*self.user_ids.tolist(), *self.item_ids.tolist()])).encode())
        for column in (self.users, self.items, self.ratings, self.timestamps):
            if column is not None:
                digest.update(np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def matrix(self, values: str = "binary") -> sparse.csr_matrix:
        """The interactions as a sparse matrix of shape (n_users, n_items), float32.

        values: "binary" (1 where the pair occurs), "counts" (how often) or "ratings" (a pair may occur only once).
        """
        if values not in ("binary", "counts", "ratings"):
            raise ValueError(f"values={values!r}; expected 'binary', 'counts' or 'ratings'")
        if values == "ratings" and self.ratings is None:
            raise ValueError("these interactions have no ratings; use values='binary'")
        cells = np.ones(len(self), np.float32) if values != "ratings" else self.ratings
        matrix = sparse.csr_matrix((cells, (self.users, self.items)), shape=(self.n_users, self.n_items))
        if values == "ratings" and matrix.nnz != len(self):
            raise ValueError("a (user, item) pair occurs twice, so its rating is ambiguous; keep one row a pair first")
        if values == "binary":
            matrix.data[:] = 1
        return matrix

    def select(self, rows: np.ndarray) -> Interactions:
        """The given rows (mask of shape (n,) or row numbers), on the same users, items and tables."""
        cut = {c: None if getattr(self, c) is None else getattr(self, c)[rows] for c in ("ratings", "timestamps")}
        return replace(self, users=self.users[rows], items=self.items[rows], **cut)

    def keep_items(self, min_ratings: int) -> Interactions:
        """Only items with at least min_ratings rows; items are coded afresh, all users keep their codes."""
        kept = self.item_counts >= min_ratings
        new_code = np.cumsum(kept) - 1
        rows = self.select(kept[self.items])
        table = None if self.item_table is None else self.item_table[kept]
        return replace(rows, items=new_code[rows.items], item_ids=self.item_ids[kept], item_table=table, name=self.name)

    def frame(self) -> pd.DataFrame:
        """A long table with external ids, one row an event, in the original order."""
        columns = {"user_id": self.user_ids[self.users], "item_id": self.item_ids[self.items]}
        if self.ratings is not None:
            columns["rating"] = self.ratings
        if self.timestamps is not None:
            columns["timestamp"] = self.timestamps
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, str]:
        """Counts, density and date range, as text for a table."""
        facts = {
            "interactions": f"{len(self):,}",
            "users": f"{self.n_users:,}",
            "items": f"{self.n_items:,}",
            "density": f"{self.density:.2%}",
        }
        if self.timestamps is not None and len(self):
            first, last = pd.to_datetime([self.timestamps.min(), self.timestamps.max()], unit="s")
            facts["dates"] = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
        return facts

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self.summary().items())
        return f"Interactions({self.name}: {facts})"

    def _repr_html_(self) -> str:
        series = pd.Series(self.summary(), name=f"Interactions: {self.name}")
        return series.to_frame().to_html(escape=True)


def _column(values, dtype: type, name: str, length: int) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 1 or len(values) != length:
        raise ValueError(f"{name} has shape {values.shape}; expected ({length},), one value an interaction")
    try:
        with np.errstate(invalid="ignore"):  # nan and what is too large are named below
            column = values.astype(dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} does not hold numbers ({error}); expected {np.dtype(dtype)} values") from None
    if dtype != np.float32 and len(values) and not np.array_equal(column, values):
        row = int(np.flatnonzero(column != values)[0])
        raise ValueError(f"{name}[{row}] is {values[row]}, which {np.dtype(dtype)} cannot hold; expected whole numbers")
    if dtype == np.float32 and not np.isfinite(column).all():
        row = int(np.flatnonzero(~np.isfinite(column))[0])
        raise ValueError(f"{name}[{row}] is {values[row]}; expected a finite number")
    return column


def _align(table: pd.DataFrame, ids: np.ndarray, axis: str) -> pd.DataFrame:
    if table.index.has_duplicates:
        raise ValueError(
            f"{axis}_table describes {table.index[table.index.duplicated()][0]} twice; expected one row an id"
        )
    missing = pd.Index(ids).difference(table.index)
    if len(missing):
        raise ValueError(
            f"{axis}_table has no row for {len(missing)} of {len(ids)} ids, {missing[0]} first; index it by {axis} id "
            f"(table.set_index('{axis}_id')) and give every id a row"
        )
    return table.loc[ids]


def _codes(column: pd.Series, table: pd.DataFrame | None) -> tuple[np.ndarray, np.ndarray]:
    known = [column.unique()] if table is None else [column.unique(), table.index]
    try:
        ids = np.unique(np.concatenate([np.asarray(ids) for ids in known]))
    except TypeError:
        kinds = sorted({type(one).__name__ for ids in known for one in ids})
        raise ValueError(f"column {column.name!r} and its table mix ids of types {kinds}; use one type") from None
    return ids, np.searchsorted(ids, column.to_numpy())
