"""The endpoint: a FastAPI application around a Service, with limits, request ids, metrics and a log of JSON lines."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path as File
from typing import Annotated

import prometheus_client as prometheus
from fastapi import Body, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from recsys_utils.serving.artefacts import ArtefactError
from recsys_utils.serving.service import Answer, NotReadyError, Service, UnknownItemError
from recsys_utils.serving.stores import StoreError

logger = logging.getLogger("recsys_utils.serving")
MAX_K, MAX_RATINGS, MAX_GENRES = 100, 500, 20
MAX_ID = 2**53 - 1  # every reader of JSON keeps whole numbers up to here exact
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)  # seconds
PROBES = ("/healthz", "/readyz", "/metrics")  # answered however busy the service is
NO_ROUTE = "(none)"  # in metrics and log: turned away before a route was found
NEW_USERS = {
    "ratings": {"value": {"ratings": [{"item_id": 1, "rating": 5}, {"item_id": 3114, "rating": 4.5}]}},
    "genres": {"value": {"genres": ["Animation", "Children"]}},
}

Id = Annotated[int, Path(ge=0, le=MAX_ID, examples=[1])]
K = Annotated[int, Query(ge=1, le=MAX_K, description="how many films")]
Genre = Annotated[str, Field(max_length=64)]


class Problem(BaseModel):
    """What a client learns of an error; the log knows more under the same request id."""

    detail: str
    request_id: str


class Strict(BaseModel, extra="forbid", strict=True):
    """No field that is not known, no text for a number."""


def _whole(value):
    """JSON has one kind of number: 354.0 is the integer 354."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Rating(Strict):
    item_id: Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(_whole)]
    rating: float = Field(ge=0.5, le=5, description="stars")


class NewUser(Strict, json_schema_extra={"oneOf": [{"required": ["ratings"]}, {"required": ["genres"]}]}):
    """Somebody without a vector: ratings, the latest last, or names of genres. Of two ratings of a film the later one
    counts; what this version does not know is left out and listed in the answer."""

    ratings: list[Rating] = Field(default_factory=list, min_length=1, max_length=MAX_RATINGS)
    genres: list[Genre] = Field(default_factory=list, min_length=1, max_length=MAX_GENRES)

    @model_validator(mode="after")
    def _one_of_them(self) -> NewUser:
        if bool(self.ratings) == bool(self.genres):
            raise ValueError("expected ratings or genres, one of them")
        return self


def create_app(
    service: Service,
    root: File | str | None = None,
    *,
    poll: float = 1.0,
    max_body: int = 65_536,
    max_concurrent: int = 256,
    timeout: float = 2.0,
) -> FastAPI:
    """The application around a Service, which the caller closes after it.

    root: artefacts, whose CURRENT is followed; None: the service is left as it is. poll: seconds between two looks; a
    version that is refused is logged and counted once, and tried again when it is activated again. max_body: bytes.
    max_concurrent: requests that are answered or wait. timeout: seconds.
    """
    registry = prometheus.CollectorRegistry()
    registry.register(_Versions(service))
    prometheus.ProcessCollector(registry=registry)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(_follow(service, File(root), poll))] if root is not None else []
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def expected(request: Request, error: Exception) -> Response:
        return _problem(request.scope, error)

    app = FastAPI(
        title="Film recommendations", version="1", lifespan=lifespan, docs_url=None, redoc_url=None,
        responses=_problems(413, 422, 500, 503, 504),
        exception_handlers={HTTPException: expected, RequestValidationError: expected},
    )  # fmt: skip
    app.add_middleware(Guard, registry=registry, max_body=max_body, max_concurrent=max_concurrent, timeout=timeout)

    async def reply(call, *arguments) -> Response:
        """In memory an answer takes less than the way to a thread and back; a database is waited for in a thread."""
        if service.in_memory:
            answer = call(*arguments)
        else:
            answer = await asyncio.get_running_loop().run_in_executor(None, call, *arguments)
        return Response(answer.model_dump_json(), media_type="application/json")

    @app.get("/recommend/{user_id}", response_model=Answer)
    async def recommend(user_id: Id, k: K = 10, exclude_seen: bool = True):
        """The best films for a user; for an unknown one the most rated, with a note that says so."""
        return await reply(service.recommend, user_id, k, exclude_seen)

    @app.post("/recommend", response_model=Answer, responses=_problems(400))
    async def recommend_new(user: Annotated[NewUser, Body(openapi_examples=NEW_USERS)], k: K = 10):
        """The best films for somebody new, from ratings or genres."""
        ratings = {rating.item_id: rating.rating for rating in user.ratings}
        return await reply(service.recommend_new, ratings, user.genres, k)

    @app.get("/similar/{item_id}", response_model=Answer, responses=_problems(404))
    async def similar(item_id: Id, k: K = 10):
        """The films nearest to one."""
        return await reply(service.similar, item_id, k)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "alive"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """An artefact is loaded: its version."""
        if service.version is None:
            raise NotReadyError("no artefact is loaded")
        return {"status": "ready", "version": service.version}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(prometheus.generate_latest(registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    return app


class Guard:
    """ASGI middleware around everything: a request id, limits, one line in the log, metrics, and no trace to a client.

    The id is that of the header X-Request-ID if it is 1 to 64 letters, digits, dots, dashes and underscores, else a
    new one. Metrics and log name the template of the route, never the path: there are user ids in it. Beyond
    max_concurrent requests at a time the answer is 503 with Retry-After, beyond max_body bytes 413, beyond timeout
    seconds 504.
    """

    def __init__(self, app, registry, max_body: int, max_concurrent: int, timeout: float):
        self.app, self.max_body, self.max_concurrent, self.timeout = app, max_body, max_concurrent, timeout
        self.seconds = prometheus.Histogram(
            "http_request_seconds", "Time to answer", ["route", "status"], buckets=BUCKETS, registry=registry
        )
        self.in_flight = prometheus.Gauge("http_requests_in_flight", "Requests not yet answered", registry=registry)
        self.running = 0

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, status, trace, started = dict(scope["headers"]), 0, {}, time.perf_counter()
        sent = headers.get(b"x-request-id", b"")
        name = sent if re.fullmatch(rb"[A-Za-z0-9._-]{1,64}", sent) else secrets.token_hex(8).encode()
        scope["request_id"] = name.decode()

        async def send_named(message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = (b"x-request-id", name), (b"x-content-type-options", b"nosniff")
                message["headers"] = [*message["headers"], *more]
            await send(message)

        self.in_flight.inc()
        try:
            if scope["path"] in PROBES:
                await self.app(scope, receive, send_named)
            else:
                await self._limited(scope, receive, send_named, headers.get(b"content-length", b"0"))
        except Exception as error:
            if not isinstance(error, HTTPException | NotReadyError | UnknownItemError):
                trace = {"trace": "".join(traceback.format_exception(error))}
            if status:  # too late for another answer: cut the connection
                raise
            await _problem(scope, error)(scope, receive, send_named)
        finally:
            self.in_flight.dec()
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            self.seconds.labels(route, status).observe(seconds)
            facts = {"request_id": scope["request_id"], "method": scope["method"], "route": route, "status": status}
            _log(logging.ERROR if trace else logging.INFO, "request", **facts, ms=round(1000 * seconds, 2), **trace)

    async def _limited(self, scope, receive, send, length: bytes) -> None:
        too_large = HTTPException(413, f"the body has more than {self.max_body} bytes")
        if self.running >= self.max_concurrent:
            raise HTTPException(503, f"{self.running} requests are being answered")
        if not length.isdigit() or int(length) > self.max_body:
            raise too_large
        received = 0

        async def receive_some():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body:  # sent in chunks: nobody said how many
                raise too_large
            return message

        self.running += 1
        try:
            async with asyncio.timeout(self.timeout) as clock:
                await asyncio.sleep(0)  # who arrived with this one is counted before the work begins
                await self.app(scope, receive_some, send)
        except TimeoutError:
            if not clock.expired():
                raise
            raise HTTPException(504, f"no answer within {self.timeout} s") from None
        finally:
            self.running -= 1


class _Versions:
    """Metrics that the service knows."""

    def __init__(self, service: Service):
        self.service = service

    def collect(self) -> Iterator:
        yield CounterMetricFamily("artefact_swaps", "Versions that replaced another", self.service.swaps)
        yield CounterMetricFamily("artefact_refused", "Versions that were turned away", self.service.refused)
        yield InfoMetricFamily("artefact", "What is served", {"version": self.service.version or ""})


async def _follow(service: Service, root: File, poll: float) -> None:
    """Serve what root/CURRENT names, for ever. What is wrong with an artefact stays wrong; all else is tried again."""
    current, tried, said = None, None, None
    while True:
        try:
            current = await asyncio.to_thread(_current, root)
            if current != tried and current[0] != service.version:
                await asyncio.to_thread(service.swap, root, current[0])
            tried = current
        except Exception as error:
            if isinstance(error, ArtefactError):
                tried = current
            if said != (said := (current, str(error))):
                _log(logging.ERROR, "refused", error=f"{type(error).__name__}: {error}", serving=service.version)
        await asyncio.sleep(poll)


def _current(root: File) -> tuple[str, int]:
    """The version that CURRENT names, and when it was written."""
    path = root / "CURRENT"
    return path.read_text(encoding="utf-8", errors="replace").strip(), path.stat().st_mtime_ns


def _problem(scope, error: Exception) -> Response:
    """What a client learns of an error."""
    status, detail, headers = 500, "the service failed; its log knows more", None
    if isinstance(error, HTTPException):
        status, detail, headers = error.status_code, error.detail, error.headers
    elif isinstance(error, RequestValidationError):
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5]]
        status, detail = 422, "; ".join(faults)[:500]  # names of fields are the client's
    elif isinstance(error, UnknownItemError):
        status, detail = 404, str(error)
    elif isinstance(error, NotReadyError | StoreError):
        status, detail = 503, str(error) if isinstance(error, NotReadyError) else "the store does not answer"
    body = Problem(detail=detail, request_id=scope["request_id"]).model_dump_json()
    headers = {"Retry-After": "1"} if status == 503 else headers
    return Response(body, status, headers, media_type="application/json")


def _problems(*statuses: int) -> dict:
    return {status: {"model": Problem, "description": HTTPStatus(status).phrase} for status in statuses}


def _log(level: int, event: str, **fields) -> None:
    logger.log(level, event, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: time (UTC), level, event, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname, "event": record.getMessage()}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line | getattr(record, "fields", {}))
