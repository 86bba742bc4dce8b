"""The load generator: it counts from the plan, so a server that stalls cannot hide; it looks at every answer."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recsys_utils.serving.load import (
    VOID_MS,
    Request,
    closed_loop,
    open_loop,
    problem,
    recommend_requests,
    summary,
)

STALL = 0.5  # seconds: a tenth of what the open loop sends in five times that, and one request of the closed loop
ANSWER = {"version": "1", "items": [{"item_id": n} for n in range(3)]}


def answer(**changes) -> bytes:
    return json.dumps(ANSWER | changes).encode()


@contextmanager
def server(
    reply: Callable[[int, float], tuple[int, bytes] | None], stall_at: float = 1e9, keep_alive: bool = True
) -> Iterator[str]:
    """A tiny HTTP server in a thread: reply(n, seconds) gives status and body of request n, None cuts the connection.

    From stall_at seconds after the first request it answers nobody for STALL seconds. Without keep_alive it closes
    every connection after its first answer, and does not say so.
    """
    loop, started, count = asyncio.new_event_loop(), threading.Event(), iter(range(10**6))
    times: list[float] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            length = 0
            while (line := await reader.readline()) not in (b"\r\n", b""):
                length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else length
            await reader.readexactly(length)
            times.append(loop.time())
            now = times[-1] - times[0]
            if stall_at <= now < stall_at + STALL:
                await asyncio.sleep(stall_at + STALL - now)
            found = reply(next(count), now)
            if found is None:
                break
            status, body = found
            assert head.startswith((b"GET", b"POST"))
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            if not keep_alive:
                break
        writer.close()

    async def run() -> None:
        nonlocal address
        listening = await asyncio.start_server(talk, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        listening.close()

    address, stop = "", asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    started.wait(5)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)


def right(n: int, now: float) -> tuple[int, bytes]:
    return 200, answer()


def test_a_stall_shows_in_the_open_loop_and_hides_in_the_closed_one():
    asked = [Request("/x", k=3)]
    with server(right, stall_at=0.5) as url:
        open_run = summary(open_loop(url, 100, 2.0, asked))
    with server(right, stall_at=0.5) as url:
        closed_run = summary(closed_loop(url, 1, 2.0, asked))
    assert open_run["errors"] == closed_run["errors"] == 0
    assert open_run["p99"] > 300  # some fifty of two hundred requests wait, half of the stall on average
    assert closed_run["p99"] < 100 < 300 < closed_run["longest"]  # one request waits, and nobody else is sent


def test_latency_counts_from_the_plan():
    """Canary: with one connection everything queues in the generator; time from the sending would look fine."""
    with server(right, stall_at=0.3) as url:
        frame = open_loop(url, 100, 1.5, [Request("/x", k=3)], connections=1)
    since_sent = frame["latency"] - 1000 * (frame["sent"] - frame["planned"])
    assert summary(frame)["p99"] > 300 > 100 > since_sent.quantile(0.98)
    assert not frame["error"].any()


def test_something_can_be_done_to_the_server_meanwhile():
    began, version = [], ["1"]

    def change() -> None:
        began.append(True)
        time.sleep(0.3)
        version[0] = "2"

    with server(lambda n, now: (200, answer(version=version[0]))) as url:
        frame = open_loop(url, 100, 1, [Request("/x", k=3)], versions=["1", "2"], during=change)
    in_time = frame.sort_values("sent")["version"]
    assert began == [True]
    assert in_time.value_counts().min() > 10
    assert in_time.is_monotonic_increasing
    with server(right) as url, pytest.raises(KeyError, match="ours"):
        open_loop(url, 10, 0.1, [Request("/x", k=3)], during=lambda: {}["ours"])


def test_the_plan_is_kept_and_repeats():
    with server(right) as url:
        first, again = (open_loop(url, 200, 0.5, [Request("/x", k=3), Request("/y", body="{}")]) for _ in range(2))
    assert len(first) == 100
    assert (first["planned"] == again["planned"]).all()
    assert first["planned"].is_monotonic_increasing
    assert 0.3 < first["planned"].iloc[-1] < 0.8
    assert (first["delay"] >= 0).all()
    assert (first["latency"] >= first["delay"]).all()
    assert set(first["version"]) == {"1", ""}  # the second kind is not looked at


def test_a_generator_that_is_late_itself_says_so():
    late = pd.DataFrame({"planned": np.linspace(0, 1, 200), "delay": 0.1, "latency": 2.0, "error": ""})
    assert not summary(late)["void"]
    late.loc[:1, "delay"] = 3 * VOID_MS
    assert not summary(late)["void"]  # one in a hundred
    late.loc[:9, "delay"] = 3 * VOID_MS
    assert summary(late)["void"]
    with server(right) as url:
        assert summary(open_loop(url, 100_000, 0.03, [Request("/x", k=3)]))["void"]  # more than anybody can send


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"items": ANSWER["items"][:2]}, "2 items, expected 3"),
        ({"items": [*ANSWER["items"][:2], {"item_id": 0}]}, "an item twice"),
        ({"items": [*ANSWER["items"][:2], {"item_id": 77}]}, "an item that the user has met"),
        ({"version": "3"}, "version '3'"),
        ({"items": None}, "not an answer: TypeError"),
        ({"items": [{"id": 1}]}, "not an answer: KeyError"),
    ],
)
def test_answers_are_looked_at(changes, wrong):
    asked = Request("/recommend/1?k=3", k=3, seen=(77,))
    assert problem(asked, 200, answer(**changes), ["1", "2"])[1].startswith(wrong)
    assert bool(problem(asked, 200, answer(**changes), ["1", "2"])[1]) == bool(wrong)


def test_other_answers_are_errors():
    asked = Request("/x", k=3)
    assert problem(asked, 503, answer()) == ("", "status 503")
    assert problem(asked, 200, b"<html>")[1].startswith("not an answer: JSONDecodeError")
    assert problem(asked, 0, b"no answer: TimeoutError") == ("", "no answer: TimeoutError")
    assert problem(Request("/x"), 200, b"anything") == ("", "")
    assert problem(asked, 200, answer()) == ("1", "")


def test_what_goes_wrong_on_the_way_is_counted():
    deeds = {0: (503, b"busy"), 1: None, 2: (200, answer(version="9")), 3: (200, b"")}
    with server(lambda n, now: deeds.get(n, (200, answer()))) as url:
        frame = open_loop(url, 50, 0.4, [Request("/x", k=3)], versions=["1"])
    found = sorted(error.split(":")[0] for error in frame["error"] if error)
    assert found == ["no answer", "not an answer", "status 503", "version '9'"]
    assert summary(frame)["errors"] == 4
    assert (frame["status"] == 0).sum() == 1


def test_a_connection_that_was_closed_meanwhile_is_no_error():
    with server(right, keep_alive=False) as url:
        frame = open_loop(url, 20, 0.3, [Request("/x", k=3)], seed=138)  # a plan without two at the same time
    assert len(frame) == 6
    assert not frame["error"].any()


def test_no_answer_in_time_and_nobody_there():
    with server(right, stall_at=0.0) as url:
        frame = open_loop(url, 100, 0.1, [Request("/x", k=3)], timeout=0.2)
    assert (frame["error"] == "no answer: TimeoutError").all()
    assert frame["latency"].between(150, 450).all()
    frame = open_loop("http://127.0.0.1:1", 100, 0.1, [Request("/x")])  # nobody listens on port 1
    assert frame["error"].str.startswith("no answer: ").all()
    assert summary(frame)["errors"] == 10


def test_requests_of_an_artefact():
    class Two:
        items, user_ids = pd.DataFrame({"item_id": [5, 6, 7]}), np.array([10, 20])
        history = sparse.csr_matrix(np.array([[1.0, 0, 2], [0, 3, 0]], np.float32))

    asked = recommend_requests(Two, 50, k=2)
    assert set(asked) == {
        Request("/recommend/10?k=2", k=2, seen=(5, 7)),
        Request("/recommend/20?k=2", k=2, seen=(6,)),
    }
    assert asked == recommend_requests(Two, 50, k=2)


def test_bad_input():
    asked = [Request("/x")]
    with pytest.raises(ValueError, match=r"rate=0, seconds=1; expected at least one request"):
        open_loop("http://127.0.0.1:1", 0, 1, asked)
    with pytest.raises(ValueError, match="requests is empty"):
        open_loop("http://127.0.0.1:1", 10, 1, [])
    with pytest.raises(ValueError, match="expected an address like"):
        open_loop("127.0.0.1:8000", 10, 1, asked)
    with pytest.raises(ValueError, match="clients=0"):
        closed_loop("http://127.0.0.1:1", 0, 1, asked)
