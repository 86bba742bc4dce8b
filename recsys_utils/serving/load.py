"""A load generator that can be believed: requests leave at planned times, and latency counts from the plan.

It runs in a process of its own, so that it neither slows the caller nor is slowed by it, and it looks at every answer:
status, number of items, nothing twice, nothing the user has met, a known version.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from recsys_utils.serving.artefacts import Artefact

VOID_MS = 5.0  # a run is void when the generator itself left later than this with more than one request in a hundred
CONNECTIONS = 256  # open at once; who comes later waits for one, and the wait counts


class Request(NamedTuple):
    """What to send, and what is right about the answer.

    body: JSON text, sent by POST; None: GET. k: items that the answer must have, None: they are not looked at. seen:
    item ids that must not be among them.
    """

    path: str
    body: str | None = None
    k: int | None = None
    seen: tuple[int, ...] = ()


def recommend_requests(artefact: Artefact, n: int, k: int = 10, seed: int = 0) -> list[Request]:
    """n requests GET /recommend/{user} of users drawn at random, each with the item ids that its user has met."""
    ids, history = artefact.items["item_id"].to_numpy(), artefact.history
    users = np.random.default_rng(seed).integers(0, len(artefact.user_ids), n)
    met = [ids[history.indices[history.indptr[u] : history.indptr[u + 1]]].tolist() for u in users]
    return [
        Request(f"/recommend/{artefact.user_ids[u]}?k={k}", k=k, seen=tuple(m)) for u, m in zip(users, met, strict=True)
    ]


def open_loop(
    url: str,
    rate: float,
    seconds: float,
    requests: Sequence[Request],
    *,
    versions: Sequence[str] = (),
    connections: int = CONNECTIONS,
    timeout: float = 5.0,
    during: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> pd.DataFrame:
    """Send rate * seconds requests at planned times, whatever comes back; one row a request, in the order of the plan.

    The plan is drawn before the first one leaves: a Poisson process of `rate` requests a second, the open system of
    Schroeder et al. (2006). requests: sent in turn, over and over. versions: what answers may say, empty: anything.
    connections: open at once, kept alive. timeout: seconds from the departure until an answer counts as missing.
    during: called in this process when the first request leaves, to do something to the server meanwhile.
    Columns: planned (s from the start), delay (ms by which the generator itself was late), sent (s), latency (ms from
    the plan to the last byte), status (0: no answer), version, error ("" for a right answer). See `summary`.
    Raises ValueError for a rate, a time or requests that cannot be used.
    """
    n = round(rate * seconds)
    if not n >= 1:
        raise ValueError(f"rate={rate}, seconds={seconds}; expected at least one request")
    plan = np.random.default_rng(seed).exponential(1 / rate, n).cumsum()
    return _run(url, requests, versions, timeout, seconds, during, plan=plan.tolist(), connections=connections)


def closed_loop(
    url: str,
    clients: int,
    seconds: float,
    requests: Sequence[Request],
    *,
    versions: Sequence[str] = (),
    timeout: float = 5.0,
    during: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """The other kind, to compare: each client sends its next request when it has the answer to the last one.

    Rows as in open_loop; there is no plan, so planned is the time of sending, and a slow server gets fewer requests.
    """
    if not (clients >= 1 and seconds > 0):
        raise ValueError(f"clients={clients}, seconds={seconds}; expected at least one client and some time")
    return _run(url, requests, versions, timeout, seconds, during, plan=None, connections=clients)


def summary(frame: pd.DataFrame) -> dict[str, float]:
    """Numbers of one run: requests, right answers per_second, p50, p99 and longest latency (ms), errors, delay_p99 (ms)
    and void.

    void: the generator was late itself, so the run says nothing about the server; quieten the machine, run it again.
    """
    latency, delay = frame["latency"], float(frame["delay"].quantile(0.99))
    return {
        "requests": len(frame),
        "per_second": float((frame["error"] == "").sum() / (frame["planned"] + latency / 1000).max()),
        "p50": float(latency.quantile(0.5)),
        "p99": float(latency.quantile(0.99)),
        "longest": float(latency.max()),
        "errors": int((frame["error"] != "").sum()),
        "delay_p99": delay,
        "void": delay > VOID_MS,
    }


def problem(request: Request, status: int, body: bytes, versions: Sequence[str] = ()) -> tuple[str, str]:
    """(version that the answer names, what is wrong with the answer or "")."""
    if status != 200:
        return "", f"status {status}" if status else body.decode()
    if request.k is None:
        return "", ""
    try:
        answer = json.loads(body)
        version, ids = str(answer["version"]), [item["item_id"] for item in answer["items"]]
    except (ValueError, KeyError, TypeError) as error:
        return "", f"not an answer: {error!r}"
    wrong = {
        f"{len(ids)} items, expected {request.k}": len(ids) != request.k,
        "an item twice": len(set(ids)) < len(ids),
        "an item that the user has met": not set(ids).isdisjoint(request.seen),
        f"version {version!r}": bool(versions) and version not in versions,
    }
    return version, next((what for what, holds in wrong.items() if holds), "")


def _run(url: str, requests: Sequence[Request], versions: Sequence[str], timeout: float, seconds: float, during, **job):
    address = urlsplit(url)
    if address.scheme != "http" or not address.hostname or not address.port:
        raise ValueError(f"url={url!r}; expected an address like http://127.0.0.1:8000")
    if not requests:
        raise ValueError("requests is empty; expected what to send, see recommend_requests")
    job |= {"host": address.hostname, "port": address.port, "timeout": timeout, "seconds": seconds}
    job |= {"requests": [list(request) for request in requests], "versions": list(versions)}
    command = [sys.executable, "-m", "recsys_utils.serving.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
            if child.stdout.readline():  # it begins
                during()
            columns, _ = child.communicate(timeout=seconds + 10 * timeout + 60)
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise RuntimeError(f"the load generator ended with status {child.returncode}; it said why on stderr")
    return pd.DataFrame(json.loads(columns)).sort_values("planned", kind="stable", ignore_index=True)


# --- the process that sends


class _Sender:
    """Connections that are kept alive, and what came back over them."""

    def __init__(self, job: dict) -> None:
        self.job, self.free, self.rows = job, [], []
        self.requests = [Request(*fields) for fields in job["requests"]]
        self.messages = [self._message(request) for request in self.requests]
        self.room = asyncio.Semaphore(job["connections"])
        self.start = time.perf_counter()

    def _message(self, request: Request) -> bytes:
        body = (request.body or "").encode()
        lines = [f"{'GET' if request.body is None else 'POST'} {request.path} HTTP/1.1", f"Host: {self.job['host']}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
        return "\r\n".join([*lines, "", ""]).encode() + body

    def now(self) -> float:
        return time.perf_counter() - self.start

    async def send(self, number: int, planned: float) -> None:
        """One request, from the plan to a row."""
        number, woke = number % len(self.requests), self.now()
        async with self.room:
            sent = self.now()
            status, body = await self._exchange(self.messages[number])
        self.rows.append((number, planned, woke, sent, self.now(), status, body))

    async def _exchange(self, message: bytes) -> tuple[int, bytes]:
        """Status and body; 0 and the reason when there is no answer. What failed is not used again."""
        writer = None
        try:
            async with asyncio.timeout(self.job["timeout"]):
                reader, writer = await self._connection()
                writer.write(message)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError, IndexError, ValueError) as error:  # EOFError: cut off
            if writer is not None:
                writer.close()
            return 0, f"no answer: {type(error).__name__}".encode()
        if b"connection: close" in head:
            writer.close()
        else:
            self.free.append((reader, writer))
        return int(head.split(None, 2)[1]), body

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.free:
            reader, writer = self.free.pop()
            if not reader.at_eof():  # the server closes what has been idle for a while
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.job["host"], self.job["port"])

    async def open(self) -> None:
        """Every request at its time."""
        async with asyncio.TaskGroup() as running:
            for number, planned in enumerate(self.job["plan"]):
                if (wait := planned - self.now()) > 0:
                    await asyncio.sleep(wait)
                running.create_task(self.send(number, planned))

    async def closed(self) -> None:
        """Every client one request after the other."""
        numbers = iter(range(10**9))

        async def client() -> None:
            while self.now() < self.job["seconds"]:
                await self.send(next(numbers), self.now())

        async with asyncio.TaskGroup() as running:
            for _ in range(self.job["connections"]):
                running.create_task(client())

    def columns(self) -> dict[str, list]:
        """What open_loop gives back; answers are looked at now, when nothing waits for us."""
        rows = sorted(self.rows, key=lambda row: row[1])
        number, planned, woke, sent, done, status, body = map(list, zip(*rows, strict=True))
        plan = np.array(planned)
        found = [problem(self.requests[n], s, b, self.job["versions"]) for n, s, b in zip(number, status, body)]
        return {
            "planned": planned,
            "delay": (1000 * (np.array(woke) - plan)).tolist(),
            "sent": sent,
            "latency": (1000 * (np.array(done) - plan)).tolist(),
            "status": status,
            "version": [version for version, _ in found],
            "error": [error for _, error in found],
        }


async def _main(job: dict) -> dict[str, list]:
    sender = _Sender(job)
    print("begins", flush=True)
    await (sender.closed() if job["plan"] is None else sender.open())
    for _, writer in sender.free:
        writer.close()
    return sender.columns()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.stdin.readline())))))
