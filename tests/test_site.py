"""The site as readers meet it: built with warnings as errors, links followed, pages opened from disk in a real browser.

The functions that look for faults return them as sentences; `tests/canaries/pages` holds a page for each kind of fault.
"""

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import bs4
import pytest
import yaml

from conftest import build, page_files
from recsys_utils import __version__

ROOT = Path(__file__).resolve().parents[1]
CANARIES = ROOT / "tests" / "canaries" / "pages"
EXTRA_PAGES = {"index.html", "genindex.html", "search.html"}  # Sphinx adds them
SMALL, LARGE = 390, 1400


def toc_pages(source: Path) -> set[str]:
    """Names of the pages that the table of contents promises."""
    toc = yaml.safe_load((source / "book/_toc.yml").read_text(encoding="utf-8"))
    files = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    return {f"{name}.html" for name in files}


@lru_cache(maxsize=64)
def parse(page: Path) -> bs4.BeautifulSoup:
    return bs4.BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def dead_links(pages: list[Path]) -> list[str]:
    """Internal links, images, scripts and style sheets that lead nowhere, and assets on other hosts."""
    faults = []
    for page in pages:
        for element in parse(page).find_all(["a", "img", "script", "link"]):
            address = element.get("href") or element.get("src")
            if not address:
                continue
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if element.name != "a" and parts.scheme != "data" and "canonical" not in element.get("rel", []):
                    faults.append(f"{page.name}: {element.name} from another host: {address}")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file():
                faults.append(f"{page.name}: {element.name} leads nowhere: {address}")
            elif parts.fragment and target.suffix == ".html" and not parse(target).find(id=unquote(parts.fragment)):
                faults.append(f"{page.name}: no such anchor: {address}")
    return faults


def images_without_alt(pages: list[Path]) -> list[str]:
    """Images without an alt text, or with the file name that docutils writes when there is none."""
    faults = []
    for page in pages:
        for image in parse(page).find_all("img"):
            alt = image.get("alt", "").strip()
            link = image.find_parent("a")
            if image.get("alt") == "" and link is not None and link.get_text(strip=True):
                continue  # beside the words of its own link: nothing to say
            if not alt or alt.endswith((".png", ".svg", ".jpg", ".jpeg", ".gif")):
                faults.append(f"{page.name}: image without alt text: {image.get('src')}")
    return faults


# Elements that stick out of the window, unless something around them scrolls or clips them.
STICKING_OUT = """() => [...document.querySelectorAll('.bd-article *')].filter(element => {
    if (element.getBoundingClientRect().right <= innerWidth + 1) return false;
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement) {
        if (getComputedStyle(box).overflowX !== 'visible') return false;
    }
    return element.closest('mjx-assistive-mml, .visually-hidden') === null;
}).map(element => element.tagName.toLowerCase() + '.' + element.className)"""


LOOK = """() => ({
    theme: document.documentElement.dataset.theme ?? 'none',
    width: document.scrollingElement.scrollWidth,
    window: innerWidth,
    out: (STICKING_OUT)(),
    broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.getAttribute('src')),
    raw: [...document.querySelectorAll('span.math, div.math')].filter(m => !m.querySelector('mjx-container')).length,
})""".replace("STICKING_OUT", STICKING_OUT)

# The page follows the reader's preference a moment after it changes.
UNTIL_THEME = """theme => new Promise(done => {
    const end = Date.now() + 1000;
    const look = () => (document.documentElement.dataset.theme ?? theme) === theme || Date.now() > end
        ? done() : setTimeout(look, 10);
    look();
})"""


def faults_of_look(page, where: str, theme: str) -> list[str]:
    """What is wrong with the page as it stands in the window: width, images, formulas, theme."""
    look = page.evaluate(LOOK)
    faults = [f"{where}: sticks out of the window: {element}" for element in look["out"]]
    faults += [f"{where}: image does not load: {source}" for source in look["broken"]]
    if look["width"] > look["window"]:
        faults.append(f"{where}: scrolls sideways: {look['width']} px wide, the window has {look['window']}")
    if look["raw"]:
        faults.append(f"{where}: {look['raw']} formulas are not typeset")
    if look["theme"] not in (theme, "none"):
        faults.append(f"{where}: shown in the theme {look['theme']}")
    return faults


def open_page(context, path: Path, width: int, theme: str) -> list[str]:
    """Open a page from disk in the given theme, then switch the theme under it; returns what is wrong."""
    other = "dark" if theme == "light" else "light"
    where = f"{path.name} at {width} px"
    faults = []
    page = context.new_page()
    page.on("console", lambda m: faults.append(f"{where}: console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"{where}: script error: {error}"))

    def refuse(route):
        faults.append(f"{where}: request to another host: {route.request.url}")
        route.abort()

    page.route(lambda url: not url.startswith(("file:", "data:", "blob:", "about:")), refuse)
    page.emulate_media(color_scheme=theme)
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate("async () => { if (window.MathJax?.startup?.promise) await MathJax.startup.promise }")
    faults += faults_of_look(page, f"{where}, {theme}", theme)
    page.emulate_media(color_scheme=other)
    page.evaluate(UNTIL_THEME, other)
    faults += faults_of_look(page, f"{where}, {other}", other)
    page.close()
    return faults


def open_pages(browser, paths: list[Path], width: int, theme: str) -> list[str]:
    context = browser.new_context(viewport={"width": width, "height": 900})
    faults = [fault for path in paths for fault in open_page(context, path, width, theme)]
    context.close()
    return faults


def test_site_has_every_page_of_the_table_of_contents(site):
    built = {path.relative_to(site).as_posix() for path in page_files(site)}
    assert built - EXTRA_PAGES == toc_pages(ROOT)
    assert built >= EXTRA_PAGES


def test_links_images_and_anchors(site):
    assert dead_links(page_files(site)) == []


def test_every_image_has_alt_text(site):
    assert images_without_alt(page_files(site)) == []


def test_alt_texts_are_those_of_the_notebooks(site):
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        figures = [output["metadata"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
        alts = [" ".join(figure["alt"].split()) for figure in figures]
        page = parse(site / "notebooks" / f"{notebook.stem}.html")
        assert [" ".join(image["alt"].split()) for image in page.select(".cell_output img")] == alts


def test_chapter_pages_have_their_buttons_and_every_page_its_footer(site):
    repository = yaml.safe_load((ROOT / "book/_config.yml").read_text(encoding="utf-8"))["repository"]
    slug, branch = repository["url"].removeprefix("https://github.com/"), repository["branch"]
    git = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    in_checkout = (ROOT / ".git").exists() and git.returncode == 0
    commit = f"{repository['url']}/commit/{git.stdout.strip()}" if in_checkout else ""
    for name in sorted(toc_pages(ROOT)):
        text = (site / name).read_text(encoding="utf-8")
        assert f'href="{repository["url"]}/issues"' in text
        assert f"Version {__version__}" in text
        assert commit in text
        source = name.replace(".html", ".ipynb" if name.startswith("notebooks/") else ".md")
        assert f"{repository['url']}/edit/{branch}/{source}" in text
        assert f'_sources/{source}"' in text
        if name.startswith("notebooks/"):
            assert f'_sources/{source.replace(".ipynb", ".py")}"' in text
            assert f"https://colab.research.google.com/github/{slug}/blob/{branch}/{source}" in text


def test_chapter_times_are_the_measured_ones(site):
    rows = parse(site / "book/times.html").select(".chapter-times tbody tr")
    shown = [[cell.get_text(strip=True) for cell in row.find_all("td")][1:] for row in rows]
    measured = json.loads((ROOT / "results/chapters.json").read_text(encoding="utf-8"))
    expected = [[f"{row['minutes']:.1f}", f"{row['memory_gb']:.1f}", str(row["cells"])] for row in measured.values()]
    assert sorted(shown[:-1]) == sorted(expected)


@pytest.mark.parametrize(("width", "theme"), [(LARGE, "light"), (SMALL, "dark")])
def test_pages_open_from_disk(site, browser, width, theme):
    pages = [path for path in page_files(site) if path.name != "index.html"]
    assert open_pages(browser, pages, width, theme) == []


def test_index_leads_to_the_first_page(site, browser):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/book/intro.html")
    page.close()


def test_answers_unfold_by_keyboard_and_without_scripts(site, browser):
    for theme in ("light", "dark"):
        page = browser.new_context(java_script_enabled=False, color_scheme=theme).new_page()
        for path in sorted(site.glob("book/questions_*.html")):
            page.goto(path.as_uri())
            answers = page.locator(".bd-article details")
            assert answers.count() == 5
            for n in range(5):
                summary, reason = (answers.nth(n).locator(part) for part in ("summary", "p >> nth=0"))
                assert not reason.is_visible()
                summary.focus()
                page.keyboard.press("Enter")
                assert reason.is_visible(), f"{path.name}: answer {n + 1} does not unfold"
        page.context.close()


def test_every_folded_cell_says_what_is_in_it(site):
    for path in sorted(site.glob("notebooks/*.html")):
        folds = [fold for fold in parse(path).select(".bd-article details") if fold.select_one("pre")]
        assert len(folds) >= 6, path.name
        for fold in folds:
            what = fold.select_one("pre").get_text().split()[2]  # "# @title Check 4.1 …"
            assert f"Show the {what.lower()}" in fold.summary.get_text(), f"{path.name}: {fold.summary.get_text()}"
        assert {"Check", "Solution"} == {fold.select_one("pre").get_text().split()[2] for fold in folds}


def test_search_finds_popularity(site, browser):
    faults = []
    page = browser.new_page(viewport={"width": LARGE, "height": 900})
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((site / "book/intro.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("popularity")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#search-results li a').length > 0")
    page.wait_for_function("/finished|found/.test(document.querySelector('#search-results').innerText)")
    links = page.evaluate("[...document.querySelectorAll('#search-results li a')].map(a => a.getAttribute('href'))")
    found = {urlsplit(link).path for link in links}
    page.close()
    assert "book/glossary.html" in found
    assert any(address.startswith("notebooks/") for address in found)
    assert faults == []


def test_words_stand_left_and_numbers_right():
    sys.path.insert(0, str(ROOT / "book/_ext"))
    try:
        from book_extension import mark_text_columns
    finally:
        sys.path.pop(0)
    rows = [("0", "1984", ".14 [.12, .16]"), ("1", "Alien", "-3e-5")]
    body = "".join(f"<tr><th>{index}</th><td>{title}</td><td>{ndcg}</td></tr>" for index, title, ndcg in rows)
    html = f"<table><thead><tr><th></th><th>title</th><th>NDCG</th></tr></thead><tbody>{body}</tbody></table>"
    marked = bs4.BeautifulSoup(mark_text_columns(html), "html.parser").select(".text")
    assert [cell.get_text() for cell in marked] == ["title", "1984", "Alien"]


# Each canary is a page with one fault, and a check that is made to see it.

def test_canary_without_faults_is_silent(browser):
    good = CANARIES / "good.html"
    assert dead_links([good]) == images_without_alt([good]) == []
    assert open_pages(browser, [good], SMALL, "dark") == open_pages(browser, [good], LARGE, "light") == []


@pytest.mark.parametrize(("check", "page", "message"), [
    (images_without_alt, "no_alt", "image without alt text: dot.svg"),
    (images_without_alt, "file_name_as_alt", "image without alt text: dot.svg"),
    (dead_links, "dead_link", "a leads nowhere: not_there.html"),
    (dead_links, "dead_anchor", "no such anchor: good.html#not-there"),
    (dead_links, "missing_image", "img leads nowhere: not_there.png"),
    (dead_links, "other_host", "script from another host: https://cdn.example/library.js"),
])
def test_canary_of_the_files(check, page, message):
    assert check([CANARIES / f"{page}.html"]) == [f"{page}.html: {message}"]


@pytest.mark.parametrize(("page", "message"), [
    ("other_host", "request to another host: https://cdn.example/library.js"),
    ("missing_image", "image does not load: not_there.png"),
    ("wide", "scrolls sideways: "),
    ("cut_off", "sticks out of the window: table."),
    ("console_error", "console: something went wrong"),
    ("script_error", "script error: "),
    ("raw_formula", "1 formulas are not typeset"),
    ("light_only", "shown in the theme light"),
])
def test_canary_in_the_browser(browser, page, message):
    faults = open_pages(browser, [CANARIES / f"{page}.html"], SMALL, "dark")
    assert any(fault.startswith(f"{page}.html at {SMALL} px") and f": {message}" in fault for fault in faults), faults


def test_canary_of_the_build(tmp_path):
    book = tmp_path / "book"
    book.mkdir()
    (book / "_config.yml").write_text("title: canary\nexecute: {execute_notebooks: 'off'}\n", encoding="utf-8")
    (book / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n", encoding="utf-8")
    (book / "intro.md").write_text("# Canary\n\n[](not_there.md)\n", encoding="utf-8")
    _, faults = build(tmp_path, tmp_path / "out")
    assert "not_there.md" in faults
