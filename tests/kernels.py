"""Compiled loops broken on purpose, for the canaries of their tests."""

from __future__ import annotations

import inspect
import textwrap

import numba
import numpy as np


def broken(kernel, old: str, new: str):
    """The compiled loop with one place of its source changed, compiled as the original is."""
    source = textwrap.dedent(inspect.getsource(kernel.py_func))
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times; the canary needs a new place"
    names = {"np": np, "numba": numba}
    exec(source.replace(old, new), names)
    return names[kernel.__name__]
