"""Whether a reader's answer to an exercise is right, and which mistake a wrong one looks like."""

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np


def checker(right: object, typical: Mapping[str, object], rtol: float = 1e-6) -> Callable[[object], bool]:
    """A function that prints what it thinks of an answer, and returns whether it is right.

    right: number, string, set, or array of any shape; numbers are right within rtol times the largest of them.
    typical: what people answer who made a mistake, by the hint that helps them. Raises ValueError for fewer than
    three, and for two answers that cannot be told apart.
    """
    known = {"Right.": right, **typical, "No answer yet: put it in the place of the dots.": ...}
    doubles = [pair for pair in combinations(known, 2) if _same(known[pair[0]], known[pair[1]], rtol)]
    if len(typical) < 3 or doubles:
        raise ValueError(f"{len(typical)} typical mistakes, expected at least three; the same answer twice: {doubles}")

    def check(answer: object) -> bool:
        said = next((hint for hint, value in known.items() if _same(answer, value, rtol)), None)
        print(said or _difference(answer, right))
        return said == "Right."

    return check


def _is_number(value: object) -> bool:
    return np.asarray(value).dtype.kind in "biuf"


def _same(answer: object, value: object, rtol: float) -> bool:
    if np.shape(answer) == np.shape(value) and _is_number(answer) and _is_number(value):
        return np.allclose(answer, value, rtol=0, atol=rtol * np.abs(value).max(initial=0), equal_nan=True)
    return np.array_equal(answer, value)


def _difference(answer: object, right: object) -> str:
    """What can be said about an answer that nobody foresaw, without giving the right one away."""
    if (np.shape(answer), _is_number(answer)) != (np.shape(right), _is_number(right)):
        return f"Not yet: {answer!r} is no {type(right).__name__} of shape {np.shape(right)}."
    if np.ndim(right) or not _is_number(right):
        return f"Not yet: {answer!r} has the right form, but what is in it differs."
    return f"Not yet: {answer} is too {'small' if answer < right else 'large'}."
