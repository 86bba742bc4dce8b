"""The chapters keep the contract; and each rule of the contract can be broken."""

import json
import re
import sys
import time
from pathlib import Path

import pytest

import check
import notebooks
import repository
from good_chapter import NAME, code, good_chapter, notebook, save, text

CHAPTERS = sorted(notebooks.NOTEBOOKS.glob("*.ipynb"))


def test_there_are_chapters():
    assert CHAPTERS, "notebooks/ is empty"
    numbers = [int(path.name[:2]) for path in CHAPTERS]
    intro = (notebooks.ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*)", intro, flags=re.MULTILINE)
    planned = [int(number) for number, line in rows if "*(planned)*" in line]
    assert [int(number) for number, _ in rows] == sorted(numbers + planned) == list(range(1, len(rows) + 1))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_keeps_the_contract(path: Path):
    assert notebooks.problems(path) == []


def test_a_good_chapter_has_no_problems(tmp_path):
    assert notebooks.problems(save(good_chapter(), tmp_path), tmp_path / "references.bib") == []


def test_a_chapter_may_install_the_frameworks(tmp_path):
    content = good_chapter()
    replace(1, "recsys-utils @ ", "recsys-utils[all] @ ")(content)
    assert notebooks.problems(save(content, tmp_path), tmp_path / "references.bib") == []


def put(index: int, **changes):
    """A mutation: update the cell at `index`."""
    return lambda content: content["cells"][index].update(changes)


def replace(index: int, old: str, new: str):
    """A mutation: replace text in the source of the cell at `index`."""

    def mutate(content):
        cell = content["cells"][index]
        assert old in cell["source"]
        cell["source"] = cell["source"].replace(old, new)

    return mutate


def output(index: int, **fields):
    return lambda content: content["cells"][index]["outputs"].append(fields)


def figure(data: dict, metadata: dict | None = None):
    return output(7, output_type="display_data", data=data, metadata=metadata or {})


def prose(words: str):
    return replace(2, "The next cell", words + " The next cell")


def drop(*indices: int):
    def mutate(content):
        content["cells"] = [cell for index, cell in enumerate(content["cells"]) if index not in indices]

    return mutate


COMPARED, MEASURED, TAKEAWAYS, QUESTION, STARTER, CHECK, SOLUTION, REFERENCES = 65, 78, 80, 81, 82, 83, 84, 93
BROKEN = {
    "run out of order": (put(3, execution_count=7), "cell 4: execution count 7, expected 2"),
    "never run": (put(3, execution_count=None), "cell 4: execution count None"),
    "an empty cell": (put(3, source=""), "cell 4: the code cell is empty"),
    "an error": (output(3, output_type="error", ename="KeyError", evalue="", traceback=[]), "ended in KeyError"),
    "a warning": (output(3, output_type="stream", name="stderr", text="FutureWarning"), "wrote to stderr: 'FutureWarn"),
    "a widget": (figure({"application/vnd.jupyter.widget-view+json": {}}), "cell 8: shows a widget"),
    "widget state": (lambda content: content["metadata"].update(widgets={}), r"not trimmed \(\['widgets'\]\)"),
    "a version": (lambda content: content["metadata"]["language_info"].update(version="3.11"), "not trimmed"),
    "cell metadata": (put(3, metadata={"collapsed": True}), "cell 4: metadata of the cell is not trimmed"),
    "an id twice": (put(3, id="cell-2"), "cell 4: cell id 'cell-2' is missing or not unique"),
    "skipped": (put(3, metadata={"tags": ["nbval-skip"]}), "cell 4: the tag nbval-skip is not allowed"),
    "may raise": (put(3, metadata={"tags": ["raises-exception"]}), "cell 4: the tag raises-exception is not allowed"),
    "hidden": (put(13, metadata={"tags": ["hide-cell"]}), "cell 14: only checks and solutions are hidden"),
    "compared too little": (put(COMPARED, metadata={}), "4 cells have the tag nbval-check-output, at least 5"),
    "no title": (replace(0, "# 4. The", "4. The"), "cell 1: the first cell must be Markdown and begin with the title"),
    "two promises": (replace(0, "- do something;\n", ""), "cell 1: the first cell must say in three bullets"),
    "another Colab link": (replace(0, "/blob/", "/blob/x/"), "cell 1: the first cell must link to https://colab"),
    "no setup": (replace(1, "google.colab", "colab"), "cell 2: the setup cell must begin with"),
    "a bare package name": (replace(1, "recsys-utils @ ", ""), "cell 2: the setup cell must begin with"),
    "an unknown extra": (replace(1, "recsys-utils @ ", "recsys-utils[everything] @ "), "cell 2: the setup cell must"),
    "no seed": (replace(1, "training.seed_everything(0)", ""), "the setup cell must call seed_everything"),
    "another chapter": (replace(1, '"04_neigh', '"03_neigh'), "the setup cell must call display.chapter"),
    "a magic": (put(3, source="%time print(6)"), "cell 4: '%time print.6.': a chapter uses no magics"),
    "a cell magic": (put(3, source="%%capture\nprint(6)"), "cell 4: '%%capture': a chapter uses no magics"),
    "not Python": (put(SOLUTION, source="%time answer = 3"), "cell 85: .%time answer"),
    "a shell": (put(3, source="!pip install x"), "cell 4: '!pip install x': a chapter uses no magics"),
    "pip again": (replace(1, "training.seed", "%pip install x\ntraining.seed"), "cell 2: '%pip install x'"),
    "a directive": (prose(":::{note}\nhello\n:::\n\n"), "cell 3: .* is MyST"),
    "a fenced directive": (prose("\n```{note}\nhello\n```\n\n"), "cell 3: .* is MyST"),
    "a role": (prose("{term}`embedding`"), "cell 3: .* is MyST"),
    "a decimal": (prose("NDCG is .141 here."), "cell 3: the typed number '.141'"),
    "a percentage": (prose("It wins by 12%."), "cell 3: the typed number '2%'"),
    "a factor": (prose("It is 50 times faster."), "cell 3: the typed number '50 times'"),
    "a factor with a sign": (prose("It is 50× faster."), "cell 3: the typed number '50×'"),
    "seconds": (prose("It takes 3 s."), "cell 3: the typed number '3 s'"),
    "memory": (prose("It takes 300 MB."), "cell 3: the typed number '300 MB'"),
    "an image from elsewhere": (prose("![dot](https://example.org/dot.png)"), "must not come from another host"),
    "a path in code": (put(3, source='open("/home/me/x")'), "cell 4: '/home/me/x' is a path of one machine"),
    "a path in an output": (output(3, output_type="stream", name="stdout", text="in /tmp/x1"), "cell 4: '/tmp/x1'"),
    "the checkout": (put(3, source=f'open("{notebooks.ROOT}")'), "cell 4: .* is a path of one machine"),
    "a figure without alt text": (figure({"image/png": "AAAA"}), "cell 8: the figure has no alt text"),
    "an empty alt text": (
        figure({"image/png": "AAAA"}, {"image/png": {"alt": " "}}),
        "cell 8: the figure has no alt text",
    ),
    "a large figure": (figure({"image/png": "A" * 140_000}), "cell 8: the figure has 105,000 bytes"),
    "a vector figure": (figure({"image/svg+xml": "<svg/>"}), "cell 8: the figure is image/svg"),
    "an HTML image": (figure({"text/html": "<img src='x.png'>"}), "cell 8: the output holds an <img> without alt text"),
    "a large file": (output(3, output_type="stream", name="stdout", text="x" * 1_000_000), "the file has 1,0"),
    "too few cells": (drop(*range(20, 68)), "43 cells, expected 50 to 100"),
    "too few words": (drop(*range(2, 42, 2)), r"1\d\d\d words, expected 2000 to 3500"),
    "too many words": (prose("word " * 2000), r"\d+ words, expected 2000 to 3500"),
    "too little code": (drop(*range(3, 23, 2)), "lines of code, expected 150 to 300"),
    "too much code": (put(3, source="\n".join(["x = 1"] * 200)), "lines of code, expected 150 to 300"),
    "a long cell": (put(3, source="\n".join(["x = 1"] * 41)), "cell 4: 41 lines of code, at most 40"),
    "long cells": (
        lambda content: [put(index, source="x = 1\n" * 7)(content) for index in range(3, 79, 2)],
        "the median code cell has 7 lines",
    ),
    "two exercises": (drop(89, 90, 91, 92), "2 exercises with a solution, expected 3 to 5"),
    "a solution's title": (replace(SOLUTION, "Solution 4.1", "Solution 4.2"), "cell 85: the cell must begin with"),
    "a solution in sight": (put(SOLUTION, metadata={}), "cell 85: the solution needs the tag hide-cell"),
    "a solution without assert": (
        replace(SOLUTION, "assert check", "check"),
        "cell 85: the solution must end in an assert that calls check_4_1",
    ),
    "a solution with another check": (
        replace(SOLUTION, "check_4_1", "check_4_2"),
        "cell 85: the solution must end in an assert that calls check_4_1",
    ),
    "no check": (drop(CHECK), "cell 84: before the solution a folded cell must set check_4_1"),
    "a check's title": (replace(CHECK, "Check 4.1", "Check 4.2"), "cell 84: the cell must begin with .*Check 4.1"),
    "a check in sight": (put(CHECK, metadata={}), "cell 84: the check needs the tag hide-cell"),
    "a check that is not called": (replace(CHECK, "check_4_1(answer);", ""), "cell 85: before the solution a folded"),
    "a check of one's own": (replace(CHECK, "checker(right", "dict(right"), "cell 85: before the solution a folded"),
    "a check that answers": (
        replace(CHECK, "right = ", "answer = right = "),
        r"cell 84: the check sets \['answer'\], which belong to the reader",
    ),
    "no question": (replace(QUESTION, "Exercise 4.1", "Question"), "cell 85: no Markdown cell .* asks Exercise 4.1"),
    "no starter": (put(STARTER, metadata={}), "cell 85: the solution has no starter"),
    "another name": (put(STARTER, source="mine = ..."), r"cell 85: the solution sets none .*\['mine'\]"),
    "no table": (put(MEASURED, source="## The end"), "the section `## What we measured` is missing"),
    "two take-aways": (replace(TAKEAWAYS, "\n- What surprised you.", ""), "cell 81: 2 take-aways, expected 3 to 6"),
    "no references": (put(REFERENCES, source="## The end"), "the section `## References` is missing"),
    "a reference of its own": (
        replace(REFERENCES, "10.1145/2827872", "10.1145/99"),
        "cell 94: 10.1145/99 is not in references",
    ),
    "references without links": (replace(REFERENCES, "https://doi.org/", ""), "the references hold no DOI"),
    "a citation of its own": (prose("See [x](https://doi.org/10.1/2)."), "cell 94: 10.1/2 is not in references"),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_chapter_is_found(why: str, tmp_path):
    mutate, message = BROKEN[why]
    content = good_chapter()
    mutate(content)
    found = notebooks.problems(save(content, tmp_path), tmp_path / "references.bib")
    assert any(re.search(message, line) for line in found), found
    assert all(line.startswith(f"{NAME}.ipynb") for line in found)


def test_numbers_are_free_where_they_measure_nothing(tmp_path):
    content = good_chapter()
    prose("In `x = 0.5`, $\\alpha = 0.75$, [here](https://example.org/1.5), Exercise 4.1, top 10 of 2016.")(content)
    assert notebooks.problems(save(content, tmp_path), tmp_path / "references.bib") == []


def test_a_chapter_is_named_after_its_number(tmp_path):
    assert "is called like" in notebooks.problems(save(good_chapter(), tmp_path, "neighbours"))[0]


def test_docstrings_of_exported_cells_are_not_counted():
    cell = code('#@export models/x.py\ndef f():\n    """One.\n\n    Two.\n    """\n    return 1')
    assert notebooks.counted_lines(cell) == 3
    assert notebooks.counted_lines(code(cell["source"].replace("#@export", "# export"))) == 6


def test_a_chapter_says_what_it_took_when_it_was_measured_last(tmp_path):
    old, other = "This chapter takes 9.9 minutes and 9.9 GB on a two-core machine\n", "This chapter is long\n"
    path = save(notebook(code("one", printed=old), code("two", printed=other)), tmp_path, "02_evaluation")
    notebooks.say_what_it_took(path)
    one, two = ("".join(cell["outputs"][0]["text"]) for cell in json.loads(path.read_text("utf-8"))["cells"])
    took = json.loads((notebooks.ROOT / "results" / "chapters.json").read_text("utf-8"))["02_evaluation"]
    assert f"takes {took['minutes']:.1f} minutes and {took['memory_gb']:.1f} GB" in one
    assert two == other


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_says_what_the_page_of_times_says(path: Path):
    took = json.loads((notebooks.ROOT / "results" / "chapters.json").read_text("utf-8"))[path.stem]
    assert f"This chapter takes {took['minutes']:.1f} minutes and {took['memory_gb']:.1f} GB" in path.read_text("utf-8")


def test_a_new_chapter_is_the_template(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks").mkdir()

    def call(name: str) -> int:
        monkeypatch.setattr(sys, "argv", ["notebooks.py", "new", name])
        return notebooks.main()

    assert call("17_sequences") == 0
    written = tmp_path / "notebooks" / "17_sequences.ipynb"
    found = notebooks.problems(written)  # an example of everything, and too short for a chapter
    assert [re.sub(r"\d+ ", "", line, count=1) for line in found] == [
        f"17_sequences.ipynb: {what}" for what in
        ("cells, expected 50 to 100", "words, expected 2000 to 3500", "lines of code, expected 150 to 300")
    ]
    assert "99" not in "".join(notebooks.source(cell) for cell in json.loads(written.read_text("utf-8"))["cells"])
    for name, message in (("17_sequences", "is there already"), ("sequences", "is no name of a chapter")):
        with pytest.raises(SystemExit):
            call(name)
        assert message in capsys.readouterr().err


def test_the_template_runs_and_records(tmp_path):
    content = json.loads(notebooks.TEMPLATE.read_text("utf-8").replace("your_model", "popularity"))
    setup = content["cells"][1]
    setup["source"] = f"import sys\nsys.path.insert(0, {str(notebooks.ROOT)!r})\n" + notebooks.source(setup)
    path = save(content, tmp_path, "99_template")
    outcome = check.run_chapters([path], sys.executable, tmp_path / "results", jobs=1)
    assert outcome.problems == []
    assert outcome.passed == sum(map(notebooks.is_code, content["cells"])) + 3  # the probes of the exercises
    assert [file.stem for file in tmp_path.glob("results/latest-small/house/*.json")] == ["popularity"]


# --- the links to Colab ----------------------------------------------------------------------------------------------


def dead_badges(root: Path) -> list[str]:
    """Links to Colab, in any text of the project, that name a notebook which is not there."""
    link = re.compile(r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/[^/\s]+/(notebooks/\w+\.ipynb)")
    return [
        f"{path.relative_to(root)}: {name}" for path, text in repository.texts(root).items()
        if "tests" not in path.relative_to(root).parts and path.name != notebooks.TEMPLATE.name
        for name in sorted(set(link.findall(text))) if not (root / name).is_file()
    ]


def test_every_badge_opens_a_chapter():
    assert dead_badges(notebooks.ROOT) == []


def test_a_badge_that_opens_nothing_is_found(tmp_path):
    here = repository.read()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_here.ipynb").write_text(f"[Open in Colab]({here.colab('01_here')})")
    (tmp_path / "README.md").write_text(f"[2]({here.colab('02_gone')})")
    assert dead_badges(tmp_path) == ["README.md: notebooks/02_gone.ipynb"]


# --- running: nbval as `make test` calls it, on chapters that are broken ---------------------------------------------

KILLED, WRONG, SKIPPED, SLOW, EASY = "02_killed", "03_wrong", "04_skipped", "05_slow", "06_easy"
SOLVED = '# @title Solution 6.1 {display-mode: "form"}\nanswer = 3\nexpected = 1 + 2\nassert '
RUNS = {
    "01_good": notebook(
        text("# Good"),
        code("import os\nprint(os.listdir('.').count('results'))", "nbval-check-output", printed="0\n"),
        code("answer = ...", "exercise"),
        code(SOLVED + "answer == expected", "hide-cell"),
    ),
    KILLED: notebook(code("import os\nos._exit(1)"), code("print(1)")),
    WRONG: notebook(code("print(7)", "nbval-check-output", printed="6\n")),
    SKIPPED: notebook(code("print(6)", "nbval-skip"), code("print(6)")),
    SLOW: notebook(code("import time\ntime.sleep(60)")),
    EASY: notebook(code("answer = ...", "exercise"), code(SOLVED + "expected == 3", "hide-cell")),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> check.Outcome:
    folder = tmp_path_factory.mktemp("chapters")
    paths = [save(content, folder, name) for name, content in RUNS.items()]
    return check.run_chapters(paths, sys.executable, folder / "results", cell_seconds=6)


def about(ran, name: str) -> str:
    return "\n".join(line for line in ran.problems if name in line)


def test_a_good_chapter_runs(ran):
    assert about(ran, "01_good") == ""
    assert ran.passed >= 4  # three cells and the probe of the exercise


def test_a_killed_kernel_is_found_at_once(ran):
    assert "the kernel died while it ran this cell" in about(ran, KILLED)
    assert "Timeout" not in about(ran, KILLED)  # which is what nbval says when it has waited in vain


def test_a_kernel_that_does_not_come_up_is_started_again_but_not_for_ever():
    from nbval_conftest import patient  # here: it changes nbval, which no other test uses in this process

    fates = iter([RuntimeError("one"), RuntimeError("two"), "a kernel", *map(RuntimeError, ("one", "two", "three"))])

    def start(name: str) -> str:
        fate = next(fates)
        if isinstance(fate, Exception):
            raise fate
        return f"{fate} called {name}"

    assert patient(start)("python3") == "a kernel called python3"
    with pytest.raises(RuntimeError, match="three"):
        patient(start)("python3")


def test_a_wrong_output_is_found(ran):
    assert "Cell 0" in about(ran, WRONG)


def test_a_skipped_cell_is_found(ran):
    assert "1 cells ran, the notebook has 2" in about(ran, SKIPPED)
    assert len(ran.skipped) == 1


def test_a_cell_that_hangs_is_found(ran):
    assert "Timeout" in about(ran, SLOW)


def test_an_exercise_whose_starter_already_passes_is_found(ran):
    assert "the starter cell already passes: # @title Solution 6.1" in about(ran, EASY)


def test_the_time_for_all_chapters_is_bounded(tmp_path):
    path = save(RUNS[SLOW], tmp_path, SLOW)
    start = time.monotonic()
    outcome = check.run_chapters([path], sys.executable, tmp_path / "results", seconds=2)
    assert outcome.problems == ["still running after 0 minutes: killed"]
    assert time.monotonic() - start < 30


def test_run_writes_back_what_ran_and_reports_what_did_not(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    good = save(notebook(text("# Good"), code("print(6)", "nbval-check-output")), tmp_path / "notebooks", "01_good")
    bad = save(notebook(code("1 / 0")), tmp_path / "notebooks", "02_bad")
    before = bad.read_text("utf-8")
    assert notebooks.run([good, bad], jobs=2) == 1
    lines = capsys.readouterr().out
    assert "02_bad" in lines
    assert "ZeroDivisionError" in lines
    assert bad.read_text("utf-8") == before
    assert '"6\\n"' in good.read_text("utf-8")
    assert '"cells": 2' in (tmp_path / "results" / "chapters.json").read_text("utf-8")
