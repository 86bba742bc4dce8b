"""The service in a process of its own, for as long as a block lasts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STOP = 15.0  # seconds for a service to end what it has begun


@contextmanager
def serve(
    artefacts: Path | str, *, port: int = 0, log: Path | str | None = None, start_timeout: float = 60.0, **options
) -> Iterator[str]:
    """Serve a folder of artefacts on this machine alone; gives the address, http://127.0.0.1:PORT.

    port 0: a free one. log: file for the log of the service. options: of `python -m recsys_utils.serving`
    (`store="postgres"`, `max_concurrent=8`, …). The process is ended with the block, whatever happens in it; it also
    ends when this one is killed. Raises RuntimeError with the end of its log where it is not ready within
    start_timeout seconds.
    """
    command = [sys.executable, "-m", "recsys_utils.serving", "--artefacts", str(artefacts), "--port", str(port)]
    environment = os.environ.copy()
    if options.get("database"):
        environment["RECSYS_DATABASE"] = options.pop("database")  # everybody can read the command lines of a machine
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    with tempfile.TemporaryFile() if log is None else open(log, "w+b") as file:
        child = subprocess.Popen(
            [*command, "--stop-with-stdin"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file
        )
        try:
            url = _ready(child, start_timeout)
            if url is None:
                file.seek(0)
                said = file.read().decode(errors="replace").strip()[-2000:]
                raise RuntimeError(f"the service is not ready after at most {start_timeout} s; its log ends: {said}")
            yield url
        finally:
            child.terminate()
            try:
                child.wait(STOP)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdin.close()
            child.stdout.close()


def _ready(child: subprocess.Popen, seconds: float) -> str | None:
    """The address that the child prints, once it answers there; None where it ends or takes too long."""
    clock = threading.Timer(seconds, child.kill)
    clock.start()
    try:
        url = child.stdout.readline().decode().strip()
        while url and child.poll() is None:
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/readyz", timeout=5):
                    return url
            except OSError:  # not yet
                time.sleep(0.02)
        return None
    finally:
        clock.cancel()
