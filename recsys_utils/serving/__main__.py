"""python -m recsys_utils.serving --artefacts ROOT: serve what ROOT/CURRENT names over HTTP, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack
from functools import partial

import uvicorn
from threadpoolctl import threadpool_limits

from recsys_utils.serving.app import JsonLines, create_app
from recsys_utils.serving.artefacts import ArtefactError
from recsys_utils.serving.service import Service
from recsys_utils.serving.stores import MemoryStore, PostgresStore, StoreError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recsys_utils.serving", description=__doc__.partition(": ")[2])
    parser.add_argument("--artefacts", required=True, help="folder of versions")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one; the address is the first line printed")
    parser.add_argument("--store", choices=["memory", "postgres"], default="memory")
    parser.add_argument("--database", default=os.environ.get("RECSYS_DATABASE"), help="address of a PostgreSQL with "
                        "pgvector, best given as RECSYS_DATABASE; without it a private server is started")  # fmt: skip
    parser.add_argument("--poll", type=float, default=1.0, help="seconds between two looks at CURRENT")
    parser.add_argument("--max-body", type=int, default=65_536, help="bytes of a request")
    parser.add_argument("--max-concurrent", type=int, default=256, help="requests that are answered or wait")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds for an answer")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when the standard input is closed")
    options = parser.parse_args()

    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("recsys_utils").setLevel(logging.INFO)
    try:
        door = _bound(options.host, options.port)
    except OSError as error:
        sys.exit(f"{options.host}:{options.port} cannot be used ({error.strerror}); choose another --port, 0 for any")
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again once it is done, before we are
        signal.signal(number, lambda *_: sys.exit())
    if options.stop_with_stdin:
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    with ExitStack() as stack:
        make = MemoryStore
        if options.store == "postgres":
            temporary = tempfile.TemporaryDirectory(prefix=f"pg-{os.getpid()}-", ignore_cleanup_errors=True)
            folder = None if options.database else stack.enter_context(temporary)  # one server for all versions
            make = partial(PostgresStore, url=options.database, folder=folder)
        service = Service(make)
        stack.callback(service.close)
        try:
            service.swap(options.artefacts)
        except (ArtefactError, StoreError) as error:
            sys.exit(f"nothing to serve: {error}")
        limits = {name: getattr(options, name) for name in ("poll", "max_body", "max_concurrent", "timeout")}
        server = uvicorn.Server(uvicorn.Config(
            create_app(service, options.artefacts, **limits), log_config=None, log_level="warning", access_log=False,
            server_header=False, timeout_keep_alive=30, timeout_graceful_shutdown=10,
        ))  # fmt: skip
        sys.setswitchinterval(0.0005)  # so long a request waits for a version that is built in a thread; else tenfold
        gc.freeze()  # what is there stays: a full collection would look at all of it, 25 ms
        stack.enter_context(threadpool_limits(1))  # products this small are slower in two threads
        print(f"http://{options.host}:{door.getsockname()[1]}", flush=True)
        server.run(sockets=[door])


def _bound(host: str, port: int) -> socket.socket:
    """Not yet listening. The protocol is named, or asyncio leaves Nagle's algorithm on: 40 ms for each answer."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    door = socket.socket(family, kind, protocol)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(address)
    return door


def _stop_with_stdin() -> None:
    while os.read(0, 1):  # sys.stdin would hold a lock at the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
