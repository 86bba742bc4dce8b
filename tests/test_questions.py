"""The questions after each part: one right answer of four, a reason for each letter, code that prints what it says."""

import contextlib
import io
import re
from collections import Counter

import pytest
import yaml

from notebooks import FREE, ROOT, TYPED_NUMBER

PAGES = sorted((ROOT / "book").glob("questions_*.md"))
LETTERS = "ABCD"
OPTION = re.compile(r"^- \*\*(\w)\.\*\* (.+(?:\n  .+)*)", re.M)
ANSWER = re.compile(r"<details>\n<summary>Answer</summary>\n\n\*\*(\w)\.\*\* (.+)\n\n</details>\n", re.S)
WRONG = re.compile(r"^- (\w): \S", re.M)
LINK = re.compile(r"\]\(\.\./(notebooks/\w+)\.ipynb#([\w-]+)\)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


def questions(page: str) -> list[str]:
    """The questions of a page, as text, answers included."""
    return re.split(r"^## ", page, flags=re.M)[1:]


def right_letter(question: str) -> str:
    return "".join(ANSWER.findall(question)[0][:1]) if ANSWER.search(question) else ""


def printed(question: str) -> str | None:
    """What the code of a question prints; None without code. Code that fails raises."""
    blocks = BLOCK.findall(question)
    if not blocks:
        return None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile("\n".join(blocks), "question", "exec"), {})
    return out.getvalue().strip()


def faults_of(question: str) -> list[str]:
    """What is wrong with a question, as sentences."""
    faults, (asked, *answer) = [], question.split("<details>")
    options = dict(OPTION.findall(asked))
    if list(options) != list(LETTERS) or len(OPTION.findall(asked)) != len(LETTERS):
        faults.append(f"options {', '.join(options)}; expected A, B, C and D, once each")
    if len(set(options.values())) < len(options):
        faults.append("two options say the same")
    if len(answer) != 1 or not ANSWER.search(question):
        return [*faults, "expected one folded answer that starts with a letter"]
    right, text = ANSWER.search(question).groups()
    wrong = [letter for letter in LETTERS if letter != right]
    if right not in options:
        faults.append(f"the answer {right} is no option")
    if WRONG.findall(text) != wrong:
        faults.append(f"reasons against {WRONG.findall(text)}; expected {wrong}")
    if not LINK.search(text):
        faults.append("no link to a section of a chapter")
    if re.match(r"\d+\. ", question) is None:
        faults.append("a heading without its number")
    if (out := printed(question)) is not None:
        given = {letter: (re.findall(r"^`([^`]+)`", words) or [None])[0] for letter, words in options.items()}
        if given.get(right) != out:
            faults.append(f"the code prints {out!r}; the right option says {given.get(right)!r}")
        if None in given.values() or len(set(given.values())) < len(given):
            faults.append("each option must begin with another output")
    return faults


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_page_has_five_sound_questions(page):
    asked = questions(page.read_text(encoding="utf-8"))
    assert [question.partition(".")[0] for question in asked] == list("12345")
    assert [f"{question.splitlines()[0]}: {fault}" for question in asked for fault in faults_of(question)] == []
    assert {right_letter(question) for question in asked} == set(LETTERS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_number_is_typed(page):
    text = page.read_text(encoding="utf-8")
    assert [number[0] for number in TYPED_NUMBER.finditer(FREE.sub(" ", text))] == []


def test_neither_the_letter_nor_the_length_gives_the_answer_away():
    asked = [question for page in PAGES for question in questions(page.read_text(encoding="utf-8"))]
    letters = Counter(map(right_letter, asked))
    assert set(letters) == set(LETTERS)
    assert max(letters.values()) - min(letters.values()) <= 1
    for extreme in (min, max):  # a reader who takes the shortest or the longest option, and has read nothing
        sizes = [{letter: len(words) for letter, words in OPTION.findall(question)} for question in asked]
        lucky = sum(extreme(size, key=size.get) == right_letter(q) for size, q in zip(sizes, asked, strict=True))
        assert lucky <= len(asked) * 0.4, f"{lucky} of {len(asked)} right options are the {extreme.__name__}imum"


def test_each_part_ends_with_its_page_and_each_chapter_is_asked_about():
    parts = yaml.safe_load((ROOT / "book/_toc.yml").read_text(encoding="utf-8"))["parts"]
    with_page = []
    for part in parts:
        files = [chapter["file"] for chapter in part["chapters"]]
        if not any(name.startswith("notebooks/") for name in files):
            continue
        *chapters, page = files
        with_page.append(page)
        asked = questions((ROOT / f"{page}.md").read_text(encoding="utf-8"))
        first = [LINK.search(question)[1] for question in asked]
        assert set(first) == set(chapters), f"{page} asks about {sorted(set(first))}"
    assert sorted(with_page) == [f"book/{page.stem}" for page in PAGES]
    intro = (ROOT / "book/intro.md").read_text(encoding="utf-8")
    assert all(f"]({page.name})" in intro for page in PAGES)


GOOD = """1. A sum

What does it print?

```python
print(1 + 1)
```

- **A.** `1`: one.
- **B.** `2`: two.
- **C.** `3`: three.
- **D.** `11`: one
  after the other.

<details>
<summary>Answer</summary>

**B.** It adds.

- A: No.
- C: No.
- D: No.

Chapter 1: [Time](../notebooks/01_interactions.ipynb#time).

</details>
"""


def test_canary_without_faults_is_silent():
    assert faults_of(GOOD) == []
    assert printed("No code.") is None


@pytest.mark.parametrize(("old", "new", "fault"), [
    ("- **C.** `3`: three.\n", "", "options A, B, D; expected A, B, C and D"),
    ("- **C.** `3`", "- **B.** `3`", "options A, B, D; expected A, B, C and D"),
    ("- **D.**", "- **E.** `5`: five.\n- **D.**", "options A, B, C, E, D; expected"),
    ("`3`: three.", "`1`: one.", "two options say the same"),
    ("`3`: three.", "`1`: three.", "each option must begin with another output"),
    ("`3`: three.", "three.", "each option must begin with another output"),
    ("**B.** It", "It", "expected one folded answer"),
    ("<details>\n", "<details open>\n", "expected one folded answer"),
    ("**B.** It", "**E.** It", "the answer E is no option"),
    ("- C: No.\n", "", "reasons against ['A', 'D']; expected ['A', 'C', 'D']"),
    ("- C: No.\n", "- B: No.\n", "reasons against ['A', 'B', 'D']; expected ['A', 'C', 'D']"),
    ("#time", "", "no link to a section"),
    ("1. A sum", "A sum", "a heading without its number"),
    ("1 + 1", "1 + 2", "the code prints '3'; the right option says '2'"),
    ("print(1 + 1)", "1 + 1", "the code prints ''; the right option says '2'"),
])  # fmt: skip
def test_canary_of_the_questions(old, new, fault):
    assert GOOD.count(old) == 1
    assert any(found.startswith(fault) for found in faults_of(GOOD.replace(old, new))), faults_of(
        GOOD.replace(old, new)
    )


def test_canary_of_code_that_fails():
    with pytest.raises(NameError):
        faults_of(GOOD.replace("1 + 1", "one + 1"))
