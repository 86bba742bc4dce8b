"""The whole book as one PDF, from the pages of the site.

    python tools/pdf.py     # build the site, print it to book/_build/pdf/from-embeddings-to-endpoints.pdf, check that

The articles of all pages go into one page of HTML, in the order of the table of contents; Chromium prints it under the
site's own style sheet for paper (book/_static/print.css). Sphinx's single-page builder is not used: in one page the
chapters' equal headings ("Exercises") would share one anchor, and links would lead to the wrong chapter.
"""

import posixpath
import re
import shutil
import sys
import time
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

import check

TITLE = "From Embeddings to Endpoints"
PDF = check.ROOT / "book" / "_build" / "pdf" / "from-embeddings-to-endpoints.pdf"
BROWSER_OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync"]
SINGLE = "whole-book.html"  # lies in the site's folder while it is printed
PAPER_WIDTH = 658  # pixels between the margins of print.css: (210 - 2 x 18) mm, 96 to the inch

Parts = list[tuple[str, list[str]]]  # caption, names of pages


def toc_parts() -> Parts:
    """The parts of the book with their pages; the first page is a part without a caption."""
    toc = yaml.safe_load((check.ROOT / "book" / "_toc.yml").read_text("utf-8"))
    return [("", [toc["root"]])] + [
        (part["caption"], [entry["file"] for entry in part["chapters"]]) for part in toc["parts"]
    ]


# --- one page of HTML ----------------------------------------------------------------------------------------------


def anchor(name: str, fragment: str = "") -> str:
    """The id that a page, or an anchor in it, has in the single page."""
    return name.replace("/", "-") + (f"--{fragment}" if fragment else "")


def take_article(soup: BeautifulSoup, name: str, names: Iterable[str]) -> Tag:
    """The article of a page: ids made unique in the book, links led to the other articles, all folds open."""
    article, folder = soup.select_one("article.bd-article"), posixpath.dirname(name)
    for element in article.select(".headerlink, script"):
        element.decompose()
    for element in article.select("pre :is(.n, .o, .p, .w)"):
        element.unwrap()  # plain words of code: each would be an element of the PDF's own structure, four fifths of it
    for element in article.find_all("noscript"):  # what stands for a thing that moves
        element.unwrap()
    for element in article.find_all(id=True):
        element["id"] = anchor(name, element["id"])
    for element in article.find_all("details"):
        element["open"] = ""
    for element in article.select("summary .expanded"):
        element.decompose()
    for element in article.select("summary .collapsed"):
        element.string = element.get_text().removeprefix("Show the ").capitalize()  # paper neither shows nor hides
    for element in article.find_all("img", src=True):
        if not urlsplit(element["src"]).scheme:
            element["src"] = posixpath.normpath(posixpath.join(folder, element["src"]))
    for element in article.find_all("a", href=True):
        parts = urlsplit(element["href"])
        if parts.scheme or parts.netloc:
            continue
        target = posixpath.normpath(posixpath.join(folder, unquote(parts.path))) if parts.path else f"{name}.html"
        if target.removesuffix(".html") in names:
            element["href"] = "#" + anchor(target.removesuffix(".html"), unquote(parts.fragment))
        else:
            element.unwrap()  # what is not in the book cannot be led to: the words stay
    article["class"], article["id"] = ["bd-article", "chapter"], anchor(name)
    return article


def single_page(site: Path, parts: Parts) -> tuple[str, list[str]]:
    """The HTML of the whole book, to lie in the folder of the site, and the titles of its pages."""
    names = [name for _, pages in parts for name in pages]
    soups = {name: BeautifulSoup((site / f"{name}.html").read_text("utf-8"), "html.parser") for name in names}
    front = soups[names[0]]
    head = dict.fromkeys(str(link) for link in front.find_all("link", rel="stylesheet"))
    head |= dict.fromkeys(
        str(script) for soup in soups.values() for script in soup.find_all("script")
        if "mathjax" in f"{script.get('src')} {script.string}".lower()
    )
    colophon = next((p.find_parent("div") for p in front.find_all("p") if p.get_text().startswith("Version ")), "")
    articles = {name: take_article(soup, name, names) for name, soup in soups.items()}
    titles = {name: " ".join(body.find("h1").get_text().split()) for name, body in articles.items()}
    contents = "".join(
        (f'<li class="part">{escape(caption)}</li>' if caption else "") + "".join(
            f'<li><a href="#{anchor(name)}">{escape(titles[name])}</a> <span data-page="{anchor(name)}"></span></li>'
            for name in pages
        ) for caption, pages in parts
    )
    return f"""<!doctype html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{TITLE}</title>
{"".join(head).replace('"../', '"')}</head>
<body class="whole-book"><main class="bd-content">
<div class="cover"><img src="_static/mark.svg" alt=""><p class="title">{TITLE}</p>
<p>Neural recommender systems, run and verified</p><div class="edition">{colophon}</div></div>
<nav class="bd-article contents" aria-label="Contents"><h1>Contents</h1><ul>{contents}</ul></nav>
{"".join(map(str, articles.values()))}
</main></body></html>""", list(titles.values())


# --- printing ------------------------------------------------------------------------------------------------------

# Tables and formulas wider than the paper are made smaller; what then still sticks out is named.
FIT = """() => {
    const right = document.querySelector('.chapter').getBoundingClientRect().right + 1;
    const wide = [...document.querySelectorAll('.chapter :is(table, mjx-container[display="true"])')].map(e => {
        const box = (e.querySelector('mjx-math') ?? e).getBoundingClientRect();
        return [e, (right - box.left) / box.width];
    });
    for (const [e, share] of wide) if (share < 1) e.style.zoom = Math.max(0.55, share);
    return [...document.querySelectorAll('.chapter *')]
        .filter(e => e.getBoundingClientRect().right > right && !e.closest('mjx-assistive-mml, .visually-hidden'))
        .map(e => `${e.closest('.chapter').id}: ${e.tagName.toLowerCase()}.${e.className} `
                  + `"${e.textContent.trim().slice(0, 60)}" sticks out of the paper`);
}"""
TYPESET = """async () => {
    await Promise.all([...document.images].map(i => i.decode().catch(() => {})));
    if (window.MathJax) await MathJax.startup.promise;
    await document.fonts.ready;
    return [...document.querySelectorAll('span.math, div.math')].filter(m => !m.querySelector('mjx-container'))
        .map(m => `formula is not typeset: ${m.textContent}`)
        .concat([...document.querySelectorAll('a[href^="#"]')]
            .filter(a => !document.getElementById(decodeURIComponent(a.hash.slice(1))))
            .map(a => `link to ${decodeURIComponent(a.hash)}, which is nowhere`))
        .concat([...document.images].filter(i => !i.naturalWidth).map(i => `image does not load: ${i.src}`));
}"""
NUMBER_CONTENTS = """pages => {
    for (const e of document.querySelectorAll('[data-page]')) e.textContent = pages[e.dataset.page];
}"""


def print_page(browser, source: Path, target: Path) -> list[str]:
    """Print a page of HTML to a PDF, twice: the second time with page numbers in its contents. Returns the faults."""
    from pypdf import PdfReader

    faults = []
    page = browser.new_page(viewport={"width": PAPER_WIDTH, "height": 980}, color_scheme="light")
    page.route(re.compile("^(?!file:|data:|blob:)"), lambda route: (
        faults.append(f"request to another host: {route.request.url}"), route.abort()))
    page.goto(source.as_uri(), wait_until="load", timeout=120_000)
    page.emulate_media(media="print")
    faults += page.evaluate(TYPESET) + page.evaluate(FIT)
    settings = {"path": target, "prefer_css_page_size": True, "print_background": True, "outline": True, "tagged": True}
    page.pdf(**settings)
    reader = PdfReader(target)
    page.evaluate(NUMBER_CONTENTS, {
        name.lstrip("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    })
    page.pdf(**settings)
    page.close()
    return faults


def faults_in(pdf: Path, titles: Iterable[str], images: int) -> list[str]:
    """What is wrong with a printed book: titles not in its text, dead links, fonts left out, figures cut in two."""
    from pypdf import PdfReader

    reader = PdfReader(pdf)
    text = " ".join(" ".join(page.extract_text() for page in reader.pages).split())
    faults = [f"the title {title!r} is not in the text" for title in titles if title not in text]
    places, drawn = reader.named_destinations, 0
    for number, page in enumerate(reader.pages, start=1):
        for note in page.get("/Annots") or []:
            link = note.get_object()
            target = link.get("/Dest") or (link.get("/A") or {}).get("/D")
            if isinstance(target, str) and target not in places:
                faults.append(f"page {number}: link to {target}, which is nowhere")
        resources = page["/Resources"].get_object()
        for font in (resources.get("/Font") or {}).values():
            font = font.get_object()
            inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
            described = inner.get("/FontDescriptor", {})
            if font["/Subtype"] != "/Type3" and not {"/FontFile", "/FontFile2", "/FontFile3"} & set(described):
                faults.append(f"page {number}: the font {font.get('/BaseFont')} is not embedded")
        pictures = {
            name for name, part in (resources.get("/XObject") or {}).items()
            if part.get_object()["/Subtype"] == "/Image"
        }
        contents = page.get_contents()
        used = re.findall(rb"(/\S+)\s+Do\b", contents.get_data()) if contents is not None else []
        drawn += sum(name.decode() in pictures for name in used)
    if drawn != images:
        faults.append(f"{images} figures are drawn {drawn} times: some are cut in two, or missing")
    return faults


def write(browser, site: Path, parts: Parts, target: Path) -> list[str]:
    """Print those parts of a built site as one book; returns the faults."""
    html, titles = single_page(site, parts)
    source = site / SINGLE
    source.write_text(html, "utf-8")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        faults = print_page(browser, source, target)
    finally:
        source.unlink()
    return faults + faults_in(target, titles, len(re.findall(r'<img\b[^>]*\.png"', html)))


def main() -> int:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("printing the book needs Chromium: neither chromium nor google-chrome is on the path")
    if check.book():
        return 1
    start = time.time()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_OPTIONS)
        faults = write(browser, check.ROOT / "book" / "_build" / "html", toc_parts(), PDF)
        browser.close()
    print(*faults, sep="\n", file=sys.stderr)
    print(f"the book is printed: {PDF}, {PDF.stat().st_size / 1e6:.1f} MB, in {time.time() - start:.0f} seconds")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
