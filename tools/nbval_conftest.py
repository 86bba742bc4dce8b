"""Copied as conftest.py beside the chapters while nbval runs them.

A cell whose kernel died fails within a second; left alone, nbval waits for the cell's time-out. A kernel that never
came up is started again: two that start at once can choose the same port, and the loser dies before its first cell.
"""

import time
from collections.abc import Callable
from queue import Empty

import nbval.kernel
from nbval.kernel import RunningKernel

await_reply = RunningKernel.await_reply


def await_reply_of_the_living(self, msg_id, timeout=None):
    deadline = time.monotonic() + float(timeout or 2000)
    while True:
        try:
            return await_reply(self, msg_id, timeout=1)
        except Empty:
            if not self.is_alive():
                raise RuntimeError("the kernel died while it ran this cell") from None
            if time.monotonic() > deadline:
                raise


def patient(start: Callable, tries: int = 3) -> Callable:
    """`start`, called again when it raises RuntimeError, `tries` times at most."""

    def again(*arguments, **options):
        for _ in range(tries - 1):
            try:
                return start(*arguments, **options)
            except RuntimeError:
                continue
        return start(*arguments, **options)

    return again


RunningKernel.await_reply = await_reply_of_the_living
nbval.kernel.start_new_kernel = patient(nbval.kernel.start_new_kernel)
