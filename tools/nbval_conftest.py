"""Copied as conftest.py beside the chapters while nbval runs them: a cell whose kernel died fails within a second.

Left alone, nbval waits for the time-out of the cell.
"""

import time
from queue import Empty

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


RunningKernel.await_reply = await_reply_of_the_living
