"""What readers take home: each chapter as notebook and script, the whole book as a PDF."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import check
import pdf

TITLES = ["From Embeddings to Endpoints", "1. Interactions", "Notation"]
PARTS = [("", ["book/intro"]), ("Foundations", ["notebooks/01_interactions"]), ("Before you start", ["book/notation"])]


def test_each_chapter_is_there_as_notebook_and_as_script(site):
    for notebook in sorted((check.ROOT / "notebooks").glob("*.ipynb")):
        taken = site / "_sources" / "notebooks" / notebook.name
        assert taken.read_bytes() == notebook.read_bytes()
        script = taken.with_suffix(".py").read_text("utf-8")
        cells = nbformat.read(notebook, as_version=4).cells
        assert script.startswith(f"# Run with: ipython {notebook.stem}.py\n")
        assert len(re.findall(r"^# %%", script, re.M)) == len(cells)
        assert ast.parse(script).body
        assert all(cell.source in script for cell in cells if cell.cell_type == "code" and "%pip" not in cell.source)
        assert "run_line_magic('pip', '-q " not in script.split("google.colab", 1)[0]
        assert "    get_ipython().run_line_magic('pip', 'install -q \"recsys-utils" in script


def test_a_script_runs(site, tmp_path):
    script = site / "_sources" / "notebooks" / "01_interactions.py"
    environment = os.environ | {"PYTHONPATH": str(check.ROOT), "RECSYS_RESULTS_DIR": str(tmp_path / "results"),
                                "IPYTHONDIR": str(tmp_path / "ipython"), "MPLBACKEND": "agg"}
    program = Path(sys.executable).with_name("ipython")
    done = subprocess.run([program, "--colors=NoColor", script], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count("Finding: ") > 5


@pytest.fixture(scope="module")
def printed(site, browser, tmp_path_factory) -> tuple[Path, list[str]]:
    """Three pages of the site as a book of their own; all of it is printed by `make pdf`."""
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    return target, pdf.write(browser, site, PARTS, target)


def test_the_book_is_printed_without_faults(printed, site):
    assert printed[1] == []
    assert not (site / pdf.SINGLE).exists()


def test_the_book_has_cover_contents_and_page_numbers(printed):
    from pypdf import PdfReader

    reader = PdfReader(printed[0])
    texts = [page.extract_text() for page in reader.pages]
    assert 15 < len(texts) < 60
    assert "Version " in texts[0]
    assert "Contents" in texts[1]
    starts = {name: reader.get_destination_page_number(place) for name, place in reader.named_destinations.items()}
    for title, name in zip(TITLES, ["book-intro", "notebooks-01_interactions", "book-notation"]):
        page = starts[f"/{name}"]
        assert title in texts[page]
        assert re.search(rf"{re.escape(title)}\s+{page + 1}\b", texts[1]), texts[1]
    assert all(re.search(rf"^{number}$", text, re.M) for number, text in enumerate(texts[1:], start=2))
    assert {entry["/Title"] for entry in reader.outline if isinstance(entry, dict)} >= set(TITLES)
    size = reader.pages[0].mediabox
    assert (round(size.width), round(size.height)) == (595, 842)


def test_equal_headings_of_two_pages_keep_their_own_anchors(site):
    html, titles = pdf.single_page(site, [("", ["notebooks/01_interactions", "notebooks/02_evaluation"])])
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert {"notebooks-01_interactions--exercises", "notebooks-02_evaluation--exercises"} <= set(ids)
    assert len(ids) == len(set(ids))
    assert len(titles) == 2
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


# Each canary is a page of paper with one fault.

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>canary</title><style>
@page { size: A4; margin: 20mm 18mm } body { margin: 0 } img { display: block }</style></head>
<body>
<div class="chapter" id="one"><h1>One</h1><a href="#two">on</a><p style="height: 700px">Words</p>
<img src="dot.png" alt="A dot" style="width: 300px; height: 400px"><h2 id="two">Two</h2></div></body></html>"""


def print_canary(browser, folder: Path, old: str, new: str) -> list[str]:
    from PIL import Image

    assert old in PAGE
    Image.new("RGB", (30, 40), "black").save(folder / "dot.png")
    (folder / "page.html").write_text(PAGE.replace(old, new), encoding="utf-8")
    faults = pdf.print_page(browser, folder / "page.html", folder / "page.pdf")
    return faults + pdf.faults_in(folder / "page.pdf", ["One"], 1)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("Words", "Good words", None),
    ("<h1>One</h1>", "<h1>Other</h1>", "the title 'One' is not in the text"),
    ("Words", '<pre style="width: 900px">cut off</pre>', 'one: PRE.'),
    ("height: 400px", "height: 1500px", "1 figures are drawn "),
    ("dot.png", "not_there.png", "image does not load"),
    ("Words", '<span class="math">\\(x\\)</span>', "formula is not typeset"),
    ("Words", '<img src="https://other.example/x.png" alt="x">', "request to another host"),
    ('href="#two"', 'href="#three"', "link to #three, which is nowhere"),
])
def test_canary_of_print(browser, tmp_path, old, new, message):
    faults = print_canary(browser, tmp_path, old, new)
    assert any(message.lower() in fault.lower() for fault in faults) if message else faults == [], faults


def test_canary_of_fonts(tmp_path):
    from pypdf import PdfWriter
    from pypdf.generic import DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject({NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
                             NameObject("/BaseFont"): NameObject("/Helvetica")})
    page = writer.add_blank_page(595, 842)
    fonts = DictionaryObject({NameObject("/F1"): font})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    writer.write(tmp_path / "page.pdf")
    assert pdf.faults_in(tmp_path / "page.pdf", [], 0) == ["page 1: the font /Helvetica is not embedded"]
