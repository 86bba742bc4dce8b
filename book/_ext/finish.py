"""The last touch on every page: chapters to download as scripts, and what the theme leaves undone for screen readers.

Sphinx and its theme write some markup that fails accessibility rules, and images without sizes. The finished pages are
mended here, in one place, rather than in copies of the theme's templates and translators.
"""

import re
import struct
from pathlib import Path
from urllib.parse import unquote

import jupytext
import nbformat
from sphinx.application import Sphinx

MENDS = [
    # A header cell without words announces nothing: the corner of a table is an ordinary cell.
    (re.compile(r"<th\b([^>]*)>((?:\s|&nbsp;|&#160;|<p>\s*</p>)*)</th>"), r"<td\1>\2</td>"),
    # The role of bibliography entries was withdrawn from the standard; a list holds list items.
    (re.compile(r'role="doc-biblioentry"'), 'role="listitem"'),
    # One label serves all folded cells, but not all of them are solutions.
    (re.compile(r"Show the solution(</p>\s*<p[^>]*>)Hide the solution((?:(?!</?pre).)*<pre>(?:<[^>]+>)*# @title Check)",
                re.S), r"Show the check\1Hide the check\2"),
    # The label would be read in place of the words "Show the solution".
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # Source files are for keeping, not for showing in the window.
    (re.compile(r'(<a href="[^"]*\b_sources/[^"]+")(?! download)'), r"\1 download"),
]
PIP = re.compile(r"^(\s*)%pip (.*)$", re.M)
IMAGE = re.compile(r'<img\b(?![^>]*\bwidth=)[^>]*?\bsrc="([^"]+)"[^>]*?(?=/?>)')


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG in pixels, from its first bytes; None for any other file."""
    with path.open("rb") as file:
        head = file.read(24)
    return struct.unpack(">II", head[16:24]) if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 24 else None


def mend(html: str, folder: Path) -> str:
    """The page with its faults mended; `folder` is where it lies, images are looked up from there."""
    for pattern, replacement in MENDS:
        html = pattern.sub(replacement, html)

    def sized(match: re.Match) -> str:
        path = folder / unquote(match[1])
        size = png_size(path) if path.is_file() else None
        return f'{match[0].rstrip()} width="{size[0]}" height="{size[1]}" ' if size else match[0]

    return IMAGE.sub(sized, html)


def as_script(notebook: Path) -> str:
    """The chapter as a Python script in the percent format. The installation in Colab stays valid Python.

    jupytext would comment that line out and leave its `if` without a body.
    """
    chapter = nbformat.read(notebook, as_version=4)
    for cell in chapter.cells:
        if cell.cell_type == "code":
            cell.source = PIP.sub(r"\1get_ipython().run_line_magic('pip', '\2')", cell.source)
    chapter.metadata = nbformat.from_dict({"jupytext": {"notebook_metadata_filter": "-all"}})  # no header
    return f"# Run with: ipython {notebook.stem}.py\n\n{jupytext.writes(chapter, fmt='py:percent')}"


def add_script(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Write a chapter's script beside its notebook, and a button for it among the downloads."""
    if context.get("page_source_suffix") != ".ipynb":
        return
    script = Path(app.outdir, "_sources", f"{pagename}.py")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(as_script(Path(app.srcdir, f"{pagename}.ipynb")), encoding="utf-8")
    group = next(group for group in context["header_buttons"] if group["label"] == "download-buttons")
    group["buttons"].insert(1, {
        "type": "link", "url": f"{context['pathto']('_sources', 1)}/{pagename}.py", "text": ".py",
        "tooltip": "Download as a script, to be run with ipython", "icon": "fas fa-file",
        "label": "download-script-button",
    })


def mend_pages(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            before = path.read_text(encoding="utf-8")
            if (after := mend(before, path.parent)) != before:
                path.write_text(after, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", add_script, priority=900)  # after the theme has laid out its buttons
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
