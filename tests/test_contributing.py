"""The page for contributors: short, one source, and every command and file it names is there."""

import re
from pathlib import Path

import pytest

import check

ROOT = check.ROOT
PAGES = ["CONTRIBUTING.md", "README.md", "book/running.md"]
MOST_WORDS = 330  # what a window of 900 px shows of the section, at the width of the site
PATH = re.compile(r"(?:notebooks|tools|book|tests|results|benchmarks|recsys_utils|data)/[\w./-]*")
# By the commands that the pages show.
MADE = {"notebooks/17_sequences.ipynb", "book/_build/html/index.html", "book/_build/pdf/"}


def code_of(page: str) -> list[str]:
    """What a Markdown page writes as code: spans, and the lines of its shell blocks."""
    blocks = re.findall(r"```(?:bash|powershell)?\n(.*?)```", page, re.S)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.S))
    return [line.split("  #")[0] for block in blocks for line in block.splitlines()] + spans


def faults(page: str, root: Path = ROOT) -> list[str]:
    """Commands and files that the page names and the project does not have."""
    targets = re.findall(r"^([a-z]+):", (root / "Makefile").read_text("utf-8"), re.M)
    found = []
    for text in code_of(page):
        if (make := re.match(r"make (?:\w+=\S+ )*([a-z]+)", text)) and make[1] not in targets:
            found.append(f"{text}: make has no target {make[1]}")
        for path in PATH.findall(text):
            if "<" not in text and path not in MADE and not (root / path.rstrip(".")).exists():
                found.append(f"{text}: {path} is not there")
    return found


def one_screen(page: str) -> list[str]:
    """Faults of the section that says on one screen how a chapter is made: its length, and what it leaves out."""
    section = re.search(r"^## A chapter in one screen\n(.*?)^## ", page, re.M | re.S)
    if section is None:
        return ["there is no section `A chapter in one screen`"]
    words = len(section[1].split())
    missing = [step for step in ("write", "export", "execute", "record", "test") if f"| **{step}** |" not in section[1]]
    return [f"{words} words, {MOST_WORDS} are allowed"] * (words > MOST_WORDS) + [f"no row {step}" for step in missing]


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_files_are_there(name: str):
    assert faults((ROOT / name).read_text("utf-8")) == []


def test_a_chapter_is_explained_on_one_screen():
    assert one_screen((ROOT / "CONTRIBUTING.md").read_text("utf-8")) == []


def test_the_site_includes_the_page_and_copies_nothing():
    assert (ROOT / "book" / "contributing.md").read_text("utf-8") == "```{include} ../CONTRIBUTING.md\n```\n"


@pytest.mark.parametrize(("text", "message"), [
    ("`make coffee`", "make has no target coffee"),
    ("```bash\nmake PYTHON=python3.12 coffee   # hot\n```", "make has no target coffee"),
    ("`python tools/gone.py`", "tools/gone.py is not there"),
])
def test_what_is_not_there_is_found(text: str, message: str):
    assert message in str(faults(text))
    assert faults("`make book`, `tools/check.py`, and ```bash\nmake test  # results/x\n```") == []


def test_a_long_or_incomplete_section_is_found():
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert one_screen(page.replace("## When", "word " * MOST_WORDS + "\n## When", 1))
    assert one_screen(page.replace("| **record** |", "| |")) == ["no row record"]
    assert one_screen("# Contributing\n") == ["there is no section `A chapter in one screen`"]
