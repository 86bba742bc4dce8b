"""The cheat sheets: their numbers are those of results/, their formulas those of a chapter, and unknown names fail."""

import json
import re
import shutil
import sys
from pathlib import Path

import bs4
import pytest
import yaml

from conftest import build
from notebooks import FREE, TYPED_NUMBER
from test_site import ROOT

sys.path.insert(0, str(ROOT / "book/_ext"))
try:
    from book_extension import chapter_table, measured_table
finally:
    sys.path.pop(0)

SHEETS = sorted((ROOT / "book").glob("cheat_*.md"))
CANARY = """# Canary

[A link, as one out of a chapter is written](/notebooks/../book/cheat_losses.md)

```{measured} speed/nothing.json
caption: No such file.
columns: {name: "{name}"}
```

```{measured} speed/sampling.json
caption: No such column.
columns: {name: "{title}"}
```

```{measured} speed/sampling.json
caption: No such row.
rows: {name: [NegativeSampler, hard]}
columns: {name: "{name}"}
```

```{chapter-table} 07_bpr
A cheat sheet of everything
```
"""


def change(rows: list | dict) -> list | dict:
    """The same results with every fraction halved (but recall, a threshold): a page that shows them has read them."""
    if isinstance(rows, dict):
        return {key: value if key == "recall" else change(value) for key, value in rows.items()}
    if isinstance(rows, list):
        return [change(value) for value in rows]
    return rows / 2 if isinstance(rows, float) else rows


def read(path: Path) -> list | dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Path, Path, str]:
    """A small checkout with changed results and stubs of the chapters, built: its results, its pages, the faults."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("book", "notebooks", "recsys_utils"):
        (root / name).mkdir()
    for name in ("_config.yml", "references.bib", *(sheet.name for sheet in SHEETS)):
        shutil.copy(ROOT / "book" / name, root / "book")
    for name in ("_ext", "_extra", "_static", "_templates"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    shutil.copy(ROOT / "recsys_utils/__init__.py", root / "recsys_utils")
    (root / "book/canary.md").write_text(CANARY, encoding="utf-8")
    chapters = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for chapter in chapters:
        notebook = read(chapter)
        texts = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        notebook["cells"] = texts[:1] + [
            cell for cell in texts if "## A cheat sheet of losses" in "".join(cell["source"])
        ]
        (root / "notebooks" / chapter.name).write_text(json.dumps(notebook), encoding="utf-8")
    for path in (ROOT / "results").rglob("*.json"):
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(json.dumps(change(read(path))), encoding="utf-8")
    pages = [{"file": f"book/{sheet.stem}"} for sheet in SHEETS] + [{"file": f"notebooks/{c.stem}"} for c in chapters]
    toc = {"format": "jb-book", "root": "book/canary", "parts": [{"caption": "all", "chapters": pages}]}
    (root / "book/_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    pages, faults = build(root, root / "site")
    return root / "results", pages / "book", faults


def tables(page: Path) -> list[list[list[str]]]:
    """The cells of each measured table of a page, as text."""
    soup = bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    return [
        [[cell.get_text() for cell in row.find_all("td")] for row in table.select("tbody tr")]
        for table in soup.select(".measured table")
    ]


def test_the_board_is_that_of_the_results(made):
    results, pages, _ = made
    board = [read(path) for path in (results / "latest-small/house").glob("*.json")]
    board.sort(key=lambda row: -row["metrics"]["ndcg"]["mean"])
    expected = [
        [
            row["title"],
            row["chapter"][:2],
            f"{row['metrics']['ndcg']['mean']:.3f}",
            "[{low:.3f}, {high:.3f}]".format(**row["metrics"]["ndcg"]),
            f"{row['metrics']['coverage']['mean']:.2f}",
            f"{row['train_seconds']:.2f}",
            f"{row['score_ms_per_user']:.2f}",
            f"{row['n_parameters']:,}",
        ]
        for row in board
    ]
    assert tables(pages / "cheat_models.html") == [expected]
    ndcg = {row["title"]: f"{row['metrics']['ndcg']['mean']:.3f}" for row in board}
    (losses,), (metrics,) = tables(pages / "cheat_losses.html"), tables(pages / "cheat_metrics.html")
    assert len(losses) >= 12
    assert all(row[2] == ndcg[row[1]] for row in losses)
    assert [row[1] for row in metrics] == [ndcg[title] for title in ("random", "popularity", "EASE")]


def test_the_indexes_are_those_of_the_results(made):
    results, pages, _ = made
    rows = [row for row in read(results / "tables/ann.json") if row["part"] == "search"]
    good = {}
    for row in sorted(rows, key=lambda row: -row["effort"]):
        if row["n"] == 1_000_000 and row["recall"] >= 0.95:
            good[row["name"]] = row  # the last one has the least effort
    million, flat, serving = tables(pages / "cheat_indexes.html")
    assert sorted(row[0] for row in million) == sorted(good)
    assert all(row[3:5] == [f"{good[row[0]]['p99_ms']:.2f}", f"{good[row[0]]['bytes'] / 1e6:.0f}"] for row in million)
    sizes = {f"{row['n']:,}": f"{row['p50_ms']:.2f}" for row in rows if row["name"] == "Flat"}
    assert {row[0]: row[1] for row in flat} == sizes
    values = {row["name"]: f"{row['value']:,.1f}" for row in read(results / "speed/serving.json")}
    assert len(serving) > 5
    assert all(row[1] == values[row[0]] for row in serving)


def test_the_samplers_are_those_of_the_results(made):
    results, pages, _ = made
    speed, worth = tables(pages / "cheat_samplers.html")
    rates = [row for row in read(results / "speed/sampling.json") if row["unit"] == "million/s"]
    assert speed == [[row["name"], f"{row['value']:.1f}"] for row in rates]
    losses = [row for row in read(results / "tables/two_tower.json") if row["part"] == "losses" and row["best"]]
    ndcg = {row["name"]: "{ndcg:.3f} [{low:.3f}, {high:.3f}]".format(**row) for row in losses}
    labels = re.search(r"rows:\n  name:\n((?:    .*\n)*)", (ROOT / "book/cheat_samplers.md").read_text("utf-8"))[1]
    assert [row[:2] for row in worth] == [[label, ndcg[name]] for name, label in yaml.safe_load(labels).items()]


def test_the_formulas_are_those_of_the_chapter(made):
    _, pages, _ = made
    page = bs4.BeautifulSoup((pages / "cheat_losses.html").read_text(encoding="utf-8"), "html.parser")
    rows = page.select_one("table:not(.measured table)").select("tbody tr")
    lines = [
        line for line in chapter_table(ROOT / "notebooks/07_bpr.ipynb", "A cheat sheet of losses") if line[:1] == "|"
    ]
    assert [row.td.get_text() for row in rows] == [line.split("|")[1].strip() for line in lines[2:]]
    formulas = [re.findall(r"\$(.+?)\$", line)[-1] for line in lines[2:]]
    assert [row.select(".math")[-1].get_text() for row in rows] == [rf"\({formula}\)" for formula in formulas]


def test_unknown_names_stop_the_build_and_nothing_else_does(made):
    faults = made[2]
    assert len(re.findall(r"canary\.md:\d+: ERROR", faults)) == CANARY.count("```{") == 4, faults
    assert faults.count("ERROR") + faults.count("WARNING") == 4, faults


RESULTS = ROOT / "results"
NAME = {"name": "{name}"}


@pytest.mark.parametrize(("pattern", "choice", "message"), [
    ("speed/none.json", {"columns": NAME}, "no such file; results/speed has .*'sampling.json'"),
    ("speed/sampling.json", {"columns": {"a": "{title}"}}, "no column 'title'; there are name, value, unit"),
    ("speed/sampling.json", {"columns": NAME, "order": "-speed"}, "no column 'speed'; there are name, value"),
    ("speed/sampling.json", {"columns": NAME, "where": "speed > 1"}, "no column .*'speed'.*; there are name, value"),
    ("speed/sampling.json", {"columns": NAME, "derive": "x = speed"}, "no column .*'speed'.*; there are name, value"),
    ("speed/sampling.json", {"columns": NAME, "rows": {"title": ["a"]}}, "no column 'title'; there are name, value"),
    ("speed/sampling.json", {"columns": NAME, "rows": {"name": ["hard"]}}, r"no row with name \['hard'\]; .*Nega"),
    ("speed/sampling.json", {"columns": NAME, "where": "value < 0"}, "no row with value < 0"),
    ("speed/sampling.json", {"columns": {"a": "{name:.3f}"}}, "format code 'f'"),
    ("speed/sampling.json", {"column": NAME}, "expected YAML with caption, columns"),
    ("tables/two_tower.json", {"columns": {"a": "{temperature}"}}, "no column 'temperature'; there are part, name"),
])  # fmt: skip
def test_unknown_names_are_named(pattern, choice, message):
    with pytest.raises(ValueError, match=message):
        measured_table(RESULTS, pattern, {"caption": "A canary."} | choice)


def test_unknown_chapters_and_headings_are_named():
    with pytest.raises(ValueError, match=r"no chapter '07_bpd'; there are .*'07_bpr'"):
        chapter_table(ROOT / "notebooks/07_bpd.ipynb", "A cheat sheet of losses")
    with pytest.raises(
        ValueError, match=r"no heading 'A cheat sheet' in 07_bpr; there are .*'A cheat sheet of losses'"
    ):
        chapter_table(ROOT / "notebooks/07_bpr.ipynb", "A cheat sheet")
    with pytest.raises(ValueError, match="no table under 'Take-aways' in 07_bpr"):
        chapter_table(ROOT / "notebooks/07_bpr.ipynb", "Take-aways")


def test_links_of_a_section_lead_where_they_led(tmp_path):
    row = "| [x](02_evaluation.ipynb) [y](../book/a.md) [z](https://a.example) [w](#here) |"
    text = f"## Here\n\n| a |\n|:--|\n{row}\n\nThe end.\n"
    path = tmp_path / "01_a.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": text}]}), encoding="utf-8")
    row = "| [x](/notebooks/02_evaluation.ipynb) [y](/notebooks/../book/a.md) [z](https://a.example) [w](#here) |"
    assert chapter_table(path, "Here") == ["", "", "| a |", "|:--|", row]


def test_words_of_the_results_are_no_markup(tmp_path):
    rows = [{"name": "a|b <b>*x*</b> $1 [l](u)", "value": 1.5}]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    choice = {"caption": "One.", "columns": {"what": "{name}", "how many": "{value:.2f}"}}
    *_, alignment, row = measured_table(tmp_path, "a.json", choice)
    assert alignment == "| :-- | --: |"
    assert row == r"| a\|b \<b\>\*x\*\</b\> \$1 \[l\](u) | 1.50 |"


def typed_numbers(page: str) -> list[str]:
    """Measured numbers in the prose and the captions of a sheet; thresholds and labels in its directives are free."""
    captions = re.findall(r"^caption: .*(?:\n  .*)*", page, re.M)
    return [number[0] for number in TYPED_NUMBER.finditer(FREE.sub(" ", "\n\n".join([page, *captions])))]


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.stem)
def test_sheets_are_measured_and_type_no_number(sheet):
    page = sheet.read_text(encoding="utf-8")
    assert "```{measured} " in page
    assert typed_numbers(page) == []


def test_there_is_a_sheet_for_each_decision():
    assert [sheet.stem for sheet in SHEETS] == [
        f"cheat_{n}" for n in ("indexes", "losses", "metrics", "models", "samplers")
    ]


def test_canary_of_typed_numbers():
    assert typed_numbers("It takes 3 s.") == ["3 s"]
    assert typed_numbers("```{measured} a.json\ncaption: NDCG@10 is\n  .141 here.\nwhere: recall > .95\n```") == [
        ".141"
    ]
