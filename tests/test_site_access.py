"""The site for every reader: axe-core over all pages in both themes, keyboard, focus, contrast; weight and first paint.

Each page is opened once, from disk, and everything is measured on that visit. Nothing is excepted: what the theme fails
is mended in book/_ext/finish.py and book/_static/book.css.
"""

import gzip
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

from conftest import page_files
from recsys_utils import plots
from recsys_utils.leaderboard import MODELS

PAGE_BYTES = 1_500_000  # of a page's own: its HTML, its figures, its data
SHARED_GZIP_BYTES = 1_400_000  # what most pages share, compressed: 1.33 MB as measured, a twentieth of slack
FIRST_PAINT_SECONDS = 1.0
TRIES = 4  # of the first paint, on a machine that runs other tests at the same time
WINDOW = {"width": 1400, "height": 900}
MENTION = 160  # characters of an element that a fault shows

MATHS = "async () => { if (window.MathJax?.startup?.promise) await MathJax.startup.promise }"
FIRST_PAINT = """() => new Promise(done => {
    const look = () => {
        const paint = performance.getEntriesByName('first-contentful-paint')[0];
        paint ? done(paint.startTime / 1000) : setTimeout(look, 10);
    };
    look();
})"""
UNSIZED = """() => [...document.images].filter(i => !(i.getAttribute('width') > 0 && i.getAttribute('height') > 0))
    .map(i => i.outerHTML)"""

# Opens what is folded, and takes out of code the spans that repeat another one: same classes on the way up, so the same
# look in either theme. A chapter has thousands. The longest is kept: a single character is not judged.
THIN_OUT = """() => {
    document.querySelectorAll('details').forEach(fold => fold.open = true);
    const seen = new Set(), length = span => span.textContent.trim().length;
    const spans = [...document.querySelectorAll('pre span')].filter(
        span => !span.children.length && span.attributes.length === 1 && span.className);
    const twins = spans.sort((one, other) => length(other) - length(one)).filter(span => {
        const chain = [];
        for (let box = span; box && !box.matches('article'); box = box.parentElement) chain.push(box.className);
        const key = chain.join(' < ');
        return seen.has(key) || !seen.add(key);
    });
    for (const twin of twins) twin.replaceWith(twin.textContent);
}"""
# Marks words whose contrast was looked at before, here or on an earlier page: same colour, size and weight, on the same
# stack of backgrounds. To look at one pair of colours a thousand times takes minutes.
MARK_TWINS = """known => {
    const seen = new Set(known);
    for (const e of document.body.querySelectorAll('*')) {
        const words = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
        if (!words) continue;
        const style = getComputedStyle(e);
        let key = [style.color, style.fontSize, style.fontWeight, style.textDecorationLine, style.textShadow].join();
        for (let box = e; box; box = box.parentElement) {
            const under = getComputedStyle(box);
            key += [under.backgroundColor, under.backgroundImage, under.opacity, under.filter, under.position].join();
        }
        e.toggleAttribute('data-twin', seen.has(key));
        if (words.length > 1) seen.add(key);
    }
    return [...seen];
}"""
SKIP_TWINS = "() => axe.configure({rules: [{id: 'color-contrast', selector: '*:not([data-twin])'}]})"
AXE = """async options => (await axe.run(document, {resultTypes: ['violations'], preload: false, ...options}))
    .violations.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.html}`))"""
ONLY_COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}

ABLE = """
    const able = [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')].filter(
        e => e.tabIndex >= 0 && !e.disabled && e.checkVisibility({visibilityProperty: true})
             && e.getBoundingClientRect().width && !e.closest('[inert]'));
"""
# Whatever can be reached by keyboard shows that it has been reached.
FOCUS = """() => {
    const still = document.createElement('style');
    still.textContent = '* { transition: none !important }';
    document.head.append(still);
    const look = e => {
        const s = getComputedStyle(e);
        return [s.outlineStyle === 'none' ? '' : s.outlineWidth + s.outlineColor, s.boxShadow, s.borderColor].join();
    };
    ABLE
    document.activeElement.blur();
    const before = able.map(look);
    return able.flatMap((e, order) => {
        e.focus({focusVisible: true, preventScroll: true});
        if (document.activeElement !== e) return [`cannot be focused: ${e.outerHTML}`];
        return look(e) === before[order] ? [`no visible focus: ${e.outerHTML}`] : [];
    });
}""".replace("ABLE", ABLE)
# A walk by Tab through the page: start notes what should be met, end says what was not.
WALK_START = """() => {
    ABLE
    document.activeElement.blur();
    scrollTo(0, 0);
    window.walk = {able, met: new Set()};
    document.addEventListener('focusin', event => walk.met.add(event.target), true);
    return able.length;
}""".replace("ABLE", ABLE)
WALK_END = "() => walk.able.filter(e => !walk.met.has(e) && e.isConnected && e.checkVisibility()).map(e => e.outerHTML)"


class Visit(NamedTuple):
    """What one page showed: faults by kind, seconds to the first paint, and the files it asked for."""

    access: list[str]
    unsized: list[str]
    first_paint: float
    files: frozenset[Path]


def axe_script() -> str:
    from axe_playwright_python.base import AXE_SCRIPT

    return AXE_SCRIPT


def short(where: str, what: str) -> str:
    return f"{where}: {' '.join(what.split())[:MENTION]}"


def until_theme(page, theme: str) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.wait_for_function("theme => (document.documentElement.dataset.theme ?? theme) === theme", arg=theme)


def walk_by_keyboard(page) -> list[str]:
    """What a reader who only presses Tab does not reach."""
    for _ in range(page.evaluate(WALK_START) + 3):
        page.keyboard.press("Tab")
    return [f"not reached by Tab: {element}" for element in page.evaluate(WALK_END)]


def first_paint(browser, path: Path) -> float:
    """Seconds to the first contentful paint of a page in a fresh context: nothing is cached."""
    context = browser.new_context(viewport=WINDOW)
    page = context.new_page()
    page.goto(path.as_uri())
    seconds = page.evaluate(FIRST_PAINT)
    context.close()
    return seconds


def visit(browser, path: Path, known: list[str], walk: bool) -> Visit:
    """Open a page once and look at it from all sides; `known` gathers the looks whose contrast was judged."""
    files, access = set(), []
    context = browser.new_context(viewport=WINDOW, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.on("request", lambda request: files.add(Path(unquote(urlsplit(request.url).path)))
            if request.url.startswith("file:") else None)
    page.goto(path.as_uri(), wait_until="load")
    seconds = page.evaluate(FIRST_PAINT)
    page.evaluate(MATHS)
    unsized = [short(path.name, f"image without width and height: {image}") for image in page.evaluate(UNSIZED)]
    page.evaluate(THIN_OUT)
    page.evaluate(axe_script())
    page.evaluate(SKIP_TWINS)
    for theme, options in (("light", {}), ("dark", ONLY_COLOURS)):
        until_theme(page, theme)
        known[:] = page.evaluate(MARK_TWINS, known)
        access += [short(f"{path.name}, {theme}", fault) for fault in page.evaluate(AXE, options)]
    access += [short(path.name, fault) for fault in (walk_by_keyboard(page) if walk else []) + page.evaluate(FOCUS)]
    context.close()
    return Visit(access, unsized, seconds, frozenset(files))


def common_files(visits: dict[str, Visit]) -> set[Path]:
    """The files that more than half of the pages ask for: the theme, and what typesets formulas."""
    asked = [file for seen in visits.values() for file in seen.files]
    return {file for file in asked if asked.count(file) > len(visits) / 2}


def too_heavy(visits: dict[str, Visit]) -> list[str]:
    """Pages whose own files are over the limit."""
    common = common_files(visits)
    own = {name: sum(file.stat().st_size for file in seen.files - common) for name, seen in visits.items()}
    return [f"{name}: {size} bytes of its own; at most {PAGE_BYTES}" for name, size in own.items() if size > PAGE_BYTES]


def compressed(files: set[Path]) -> int:
    return sum(len(gzip.compress(file.read_bytes())) for file in files)


def ratio(colour: str, other: str = "#ffffff") -> float:
    """Contrast of two colours as WCAG 2.2 defines it, from 1 to 21."""
    from matplotlib.colors import to_rgb

    light = sorted(
        sum(w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for w, c in zip((0.2126, 0.7152, 0.0722), to_rgb(name)))
        for name in (colour, other)
    )
    return (light[1] + 0.05) / (light[0] + 0.05)


@pytest.fixture(scope="module")
def visits(site, browser) -> dict[str, Visit]:
    """All pages of the site, whatever they are. One chapter is walked by keyboard: the others are built alike."""
    known, result = [], {}
    chapters = sorted((site / "notebooks").glob("*.html"))
    for path in page_files(site):
        if path.name != "index.html":  # leads on to the first page at once
            walk = path not in chapters[1:]
            result[path.relative_to(site).as_posix()] = visit(browser, path, known, walk)
    return result


def test_no_page_has_an_accessibility_fault_in_either_theme(visits):
    assert [fault for seen in visits.values() for fault in seen.access] == []


def test_every_image_has_a_size(visits):
    assert [fault for seen in visits.values() for fault in seen.unsized] == []


def test_no_page_is_heavy(visits):
    assert too_heavy(visits) == []


def test_what_pages_share_does_not_grow(visits):
    common = common_files(visits)
    assert any(file.name.startswith("tex-chtml") for file in common)
    size = compressed(common)
    assert 0.8 * SHARED_GZIP_BYTES < size < SHARED_GZIP_BYTES, f"{size} bytes in {len(common)} files"


def test_pages_paint_within_a_second(site, browser, visits):
    slow = {}
    for name, seen in visits.items():
        seconds, tries = seen.first_paint, 1
        while seconds > FIRST_PAINT_SECONDS and tries < TRIES:
            time.sleep(0.5)
            seconds, tries = min(seconds, first_paint(browser, site / name)), tries + 1
        if seconds > FIRST_PAINT_SECONDS:
            slow[name] = seconds
    assert slow == {}


def test_skip_link_folds_and_menus_work_by_keyboard(site, browser):
    page = browser.new_page(viewport=WINDOW, reduced_motion="reduce")
    page.goto((site / "notebooks/01_interactions.html").as_uri())
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.textContent.trim()") != "Skip to main content":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")
    fold = page.locator("article details").first
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.evaluate("fold => fold.open")
    menu = page.locator(".dropdown-download-buttons")
    menu.locator("button.dropdown-toggle").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('href')").endswith("01_interactions.ipynb")
    page.keyboard.press("Escape")
    assert not menu.locator("ul").is_visible()
    page.close()


def test_words_and_colours_of_figures_stand_out_from_the_paper():
    import matplotlib as mpl

    with mpl.rc_context():
        plots.use_style()
        words = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color", "axes.edgecolor")
        named = {key: mpl.rcParams[key] for key in words}
        paper = mpl.rcParams["figure.facecolor"]
    assert all(ratio(colour if colour != "auto" else "black", paper) >= 4.5 for colour in named.values()), named
    assert [name for name, model in MODELS.items() if ratio(model.colour, paper) < 3] == []


# Each canary is a page with one fault.

GOOD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>canary</title>
<style>:focus-visible { outline: 3px solid #a00 }</style></head>
<body><main><h1>One</h1><p>Words and <a href="#end">a link</a>.</p>
<pre class="k"><span class="n">x</span> <span class="n">yes</span></pre>
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="A dot" width="1" height="1">
<h2 id="end">Two</h2></main></body></html>"""


def canary(browser, folder: Path, old: str, new: str) -> Visit:
    assert old in GOOD
    path = folder / "canary.html"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    return visit(browser, path, [], walk=True)


def test_canary_without_faults_is_silent(browser, tmp_path):
    seen = canary(browser, tmp_path, "Words", "Words")
    assert seen.access == seen.unsized == []
    assert 0 < seen.first_paint < 30
    assert seen.files == {tmp_path / "canary.html"}


@pytest.mark.parametrize(("old", "new", "message"), [
    (' lang="en"', "", "light: html-has-lang"),
    ("<h2 ", "<h4 ", "light: heading-order"),
    ("<p>", '<p style="color: #bbb">', "light: color-contrast"),
    ("<style>", "<style>@media (prefers-color-scheme: dark) { p { color: #bbb } } ", "dark: color-contrast"),
    ("<style>", "<style>.n { color: #bbb } ", "light: color-contrast"),
    ("<p>", '<details><summary>More</summary><p style="color: #bbb">Folded</p></details><p>', "light: color-contrast"),
    (' alt="A dot"', "", "light: image-alt"),
    ("3px solid #a00", "none", "no visible focus"),
    ("<p>", '<p><button onfocus="this.blur()">Hot</button>', "cannot be focused"),
    ("<p>", '<p><button onkeydown="event.preventDefault()">Trap</button>', "not reached by Tab"),
])
def test_canary_of_access(browser, tmp_path, old, new, message):
    faults = canary(browser, tmp_path, old, new).access
    assert any(message in fault for fault in faults), faults


def test_canary_of_images_without_size(browser, tmp_path):
    assert "image without width and height" in canary(browser, tmp_path, ' height="1"', "").unsized[0]


def test_canary_of_weight(tmp_path):
    shared, heavy, light = (tmp_path / name for name in ("shared.js", "heavy.js", "light.js"))
    shared.write_bytes(b" " * 2 * PAGE_BYTES)
    heavy.write_bytes(b" " * (PAGE_BYTES + 1))
    light.write_bytes(b" " * PAGE_BYTES)
    asked = {"a": {shared, heavy}, "b": {shared, light}, "c": {shared, light}, "d": {shared}}
    visits = {name: Visit([], [], 0, frozenset(files)) for name, files in asked.items()}
    assert common_files(visits) == {shared}
    assert too_heavy(visits) == [f"a: {PAGE_BYTES + 1} bytes of its own; at most {PAGE_BYTES}"]
    assert compressed({shared}) < 10_000


def test_canary_of_a_slow_page(browser, tmp_path):
    busy = "<script>const end = performance.now() + 1200; while (performance.now() < end);</script></head>"
    path = tmp_path / "slow.html"
    path.write_text(GOOD.replace("</head>", busy), encoding="utf-8")
    assert first_paint(browser, path) > FIRST_PAINT_SECONDS
