"""A web server on this machine that serves one file well or badly, so that every way a download can fail is tried."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STALL = 2.5  # seconds: longer than the read time-out of the tests


class Server(ThreadingHTTPServer):
    """Answers request n as script[n] says, the last for ever: ok, wrong, cut, stall, redirect or a status code."""

    daemon_threads = True

    def __init__(self, body: bytes, script: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = body
        self.script = script
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        moved = self.path.startswith("/moved/")
        deed = "ok" if moved else self.server.script[min(len(self.server.requests), len(self.server.script) - 1)]
        if not moved:
            self.server.requests.append(self.path)
        if deed.isdigit():
            self.send_error(int(deed))
            return
        if deed == "redirect":
            self.send_response(302)
            self.send_header("Location", f"/moved{self.path}")
            self.end_headers()
            return
        body = self.server.body
        if deed == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        if deed == "cut":
            return
        if deed == "stall":
            self.wfile.flush()
            time.sleep(STALL)
        try:
            self.wfile.write(body[len(body) // 2 :])
        except OSError:
            return  # the client gave up, as it should after a stall

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@contextmanager
def serving(body: bytes, script: list[str]) -> Iterator[Server]:
    """A running Server; it stops on leaving the block."""
    server = Server(body, script)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
