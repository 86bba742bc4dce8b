"""What the site needs beyond Jupyter Book: alt texts, readable tables, chapter times, version and commit."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from docutils.statemachine import StringList
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"[-+−±]?[\d.,:%×eE/\s()\[\]–−+±-]*|NaN|nan|None")


def render_image_with_alt(render_image):
    """Wrap myst-nb's `render_image`: the alt text in an output's metadata becomes the alt text of the image."""

    def render(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
        images = render_image(self, data)
        alt = data.output_metadata.get(data.mime_type, {}).get("alt")
        for image in images if alt else []:
            image["alt"] = alt
        return images

    return render


def mark_text_columns(html: str) -> str:
    """Give the cells of columns that hold words the class `text`: the style sheet aligns them left, numbers right."""
    soup = BeautifulSoup(html, "html.parser")
    for table in soup.find_all("table"):
        head, body = ([row.find_all(["th", "td"]) for row in table.select(f"{part} tr")] for part in ("thead", "tbody"))
        if len({len(row) for row in body}) != 1:  # merged cells: no columns to speak of
            continue
        for column, cells in enumerate(zip(*body, strict=True)):
            words = [cell.get_text(strip=True) for cell in cells]
            if any(word and not NUMBER.fullmatch(word) for word in words):
                for cell in [*cells, *(row[column] for row in head if len(row) == len(body[0]))]:
                    cell["class"] = [*cell.get("class", []), "text"]
    return str(soup)


def render_html_with_text_columns(render_text_html):
    """Wrap myst-nb's `render_text_html`: tables pass through `mark_text_columns`."""

    def render(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
        html = mark_text_columns(data.string) if "<table" in data.string else data.string
        return render_text_html(self, replace(data, content=html))

    return render


class ChapterTimes(SphinxDirective):
    """The table of measured minutes, memory and cells: `results/chapters.json` joined with the chapters of the site."""

    def run(self) -> list[nodes.Node]:
        path = ROOT / "results" / "chapters.json"
        self.env.note_dependency(str(path))
        measured = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        lines = ["| chapter | minutes | peak memory (GB) | cells |", "|:--|--:|--:|--:|"]
        total = 0.0
        for docname in sorted(name for name in self.env.found_docs if name.startswith("notebooks/")):
            row = measured.get(docname.removeprefix("notebooks/"))
            link = f"| [](/{docname}.ipynb) "
            if row is None:
                lines.append(link + "| not measured | | |")
            else:
                total += row["minutes"]
                lines.append(link + f"| {row['minutes']:.1f} | {row['memory_gb']:.1f} | {row['cells']} |")
        lines.append(f"| **all chapters, one after the other** | **{total:.1f}** | | |")
        container = nodes.container(classes=["chapter-times"])
        self.state.nested_parse(StringList(lines, source=str(path)), self.content_offset, container)
        return [container]


def version_and_commit() -> tuple[str, str]:
    """Version from `recsys_utils/__init__.py`; short commit of the checkout, `""` outside of one."""
    source = (ROOT / "recsys_utils" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "([^"]+)"', source)[1]
    if not (ROOT / ".git").exists():  # an unpacked archive, perhaps inside somebody else's checkout
        return version, ""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    return version, commit


def add_footer(app: Sphinx, config: Config) -> None:
    """Write version, commit, the link for errata and the licences into the footer of every page."""
    options = config.html_theme_options
    repository, branch = options["repository_url"], options["repository_branch"]
    version, commit = version_and_commit()
    built = f"Version {version}"
    if commit:
        built += f', commit <a href="{repository}/commit/{commit}">{commit}</a>'
    options["extra_footer"] = (
        f'<p>{built} · <a href="{repository}/issues">Errata: see the known ones or report one</a></p>'
        f'<p>Code under the <a href="{repository}/blob/{branch}/LICENSE">MIT licence</a>, '
        f'text under <a href="{repository}/blob/{branch}/LICENSE-TEXT">CC BY 4.0</a>; '
        f'MovieLens data: <a href="{repository}/blob/{branch}/data/README.md">GroupLens\'s, non-commercial</a>.</p>'
    )
    config.version = config.release = version


def setup(app: Sphinx) -> dict[str, bool]:
    # myst-nb chooses its renderer by the entry point of an installed package; two wrapped methods are less than that.
    NbElementRenderer.render_image = render_image_with_alt(NbElementRenderer.render_image)
    NbElementRenderer.render_text_html = render_html_with_text_columns(NbElementRenderer.render_text_html)
    app.add_directive("chapter-times", ChapterTimes)
    app.connect("config-inited", add_footer)
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it for an extension this book leaves out
    # A page opened from disk may not fetch the found pages to quote from them: list their titles only.
    app.add_js_file(None, body='if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;')
    return {"parallel_read_safe": True, "parallel_write_safe": True}
