"""What a check says of an answer: right, a known mistake, or what can be seen from outside."""

import re

import numpy as np
import pytest

from recsys_utils.exercises import checker

HALF, PERCENT, REST = "Divide by two.", "A share, not a percentage.", "These are the others."
SHARE = {HALF: 0.5, PERCENT: 25, REST: 0.75}
CASES = {
    "number": (0.25, SHARE, 0.25 + 1e-8),
    "NumPy number": (np.float32(0.25), SHARE, 0.25),
    "count": (np.int64(3), {HALF: 6, PERCENT: 300, REST: 7}, 3.0),
    "zero": (0, {HALF: 1, PERCENT: 2, REST: 3}, 0.0),
    "string": ("EASE (1995)", {HALF: "EASE", PERCENT: "", REST: "BPR"}, "EASE (1995)"),
    "set": ({"user_bias"}, {HALF: set(), PERCENT: {"item_bias"}, REST: "user_bias"}, {"user_bias"}),
    "list of strings": (["a", "b"], {HALF: ["b", "a"], PERCENT: ["a"], REST: []}, ("a", "b")),
    "truth values": ([True, False], {HALF: [False, True], PERCENT: [True, True], REST: True}, np.array([True, False])),
    "array": (np.eye(2), {HALF: np.eye(2) / 2, PERCENT: np.eye(3), REST: 1 - np.eye(2)}, np.eye(2) - 1e-8),
}


@pytest.mark.parametrize("kind", CASES)
def test_right_answers_and_known_mistakes_are_told_apart(kind, capsys):
    right, typical, also_right = CASES[kind]
    check = checker(right, typical)
    for answer in (right, also_right):
        assert check(answer) is True
        assert capsys.readouterr().out == "Right.\n"
    for hint, answer in typical.items():
        assert check(answer) is False
        assert capsys.readouterr().out == f"{hint}\n"


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        ("number", ..., "No answer yet"),
        ("array", ..., "No answer yet"),
        ("number", 0.3, "0.3 is too large"),
        ("number", -1, "-1 is too small"),
        ("number", None, "None is no float of shape"),
        ("number", "0.25", "'0.25' is no float of shape"),
        ("number", len, "is no float of shape"),
        ("number", [0.25], r"\[0.25\] is no float of shape \(\)"),
        ("string", 7, "7 is no str of shape"),
        ("string", "NDCG", "'NDCG' has the right form, but what is in it differs"),
        ("set", {"other"}, "has the right form, but what is in it differs"),
        ("array", np.zeros((2, 3)), r"is no ndarray of shape \(2, 2\)"),
        ("array", np.full((2, 2), np.nan), "has the right form, but what is in it differs"),
    ],
)
def test_other_answers_get_what_can_be_said_without_telling(kind, answer, words, capsys):
    right, typical, _ = CASES[kind]
    assert checker(right, typical)(answer) is False
    said = capsys.readouterr().out
    assert said.startswith(("Not yet: ", "No answer yet: "))
    assert re.search(words, said), said


def test_tolerance_is_relative_to_the_largest_number():
    check = checker(np.array([100.0, 0.0]), {HALF: [0, 0], PERCENT: [50, 0], REST: [0, 100]}, rtol=0.01)
    assert check([99.1, 0.9])
    assert not check([98.9, 0.0])


@pytest.mark.parametrize(
    ("typical", "words"),
    [
        ({HALF: 0.5, PERCENT: 25}, "2 typical mistakes, expected at least three"),
        ({HALF: 0.5, PERCENT: 25, REST: 0.25}, f"twice.*Right.*{REST}"),
        ({HALF: 0.5, PERCENT: 25, REST: 0.5 + 1e-9}, f"twice.*{HALF}.*{REST}"),
        ({HALF: 0.5, PERCENT: 25, REST: ...}, f"twice.*{REST}.*No answer yet"),
    ],
)
def test_a_check_that_cannot_tell_is_refused(typical, words):
    with pytest.raises(ValueError, match=words):
        checker(0.25, typical)
