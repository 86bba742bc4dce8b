"""What the site needs beyond Jupyter Book: alt texts, readable tables, tables of results, version and commit."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.statemachine import StringList
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"[-+−±]?[\d.,:%×eE/\s()\[\]–−+±-]*|NaN|nan|None")
MARKUP = re.compile(r"[\\`*_{}\[\]<>|$#&]")  # what a text must not say to Markdown


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


class ChapterTable(SphinxDirective):
    """What a chapter says under a heading, to the end of its table: `{chapter-table} 07_bpr`, the heading below."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        path = ROOT / "notebooks" / f"{self.arguments[0]}.ipynb"
        self.env.note_dependency(str(path))
        try:
            lines = chapter_table(path, " ".join(self.content))
        except ValueError as error:
            raise self.error(str(error)) from None
        container = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(path)), self.content_offset, container)
        return [container]


def chapter_table(path: Path, heading: str) -> list[str]:
    """Lines of Markdown below `heading`, to the end of the table there; links lead where they lead in the chapter.

    Raises ValueError that names the chapter or heading that is not there, and those that are.
    """
    if not path.exists():
        raise ValueError(f"no chapter {path.stem!r}; there are {sorted(p.stem for p in path.parent.glob('*.ipynb'))}")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    parts = [part for text in texts for part in re.split(r"^#+ +(.+)$", text, flags=re.M)[1:]]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    if heading not in sections:
        raise ValueError(f"no heading {heading!r} in {path.stem}; there are {list(sections)}")
    lines = re.sub(r"\]\((?![a-z]+:|[/#])", "](/notebooks/", sections[heading]).splitlines()
    rows = [number for number, line in enumerate(lines) if line.startswith("|")]
    if not rows:
        raise ValueError(f"no table under {heading!r} in {path.stem}")
    return lines[: rows[-1] + 1]


class Measured(SphinxDirective):
    """A table of what was measured: `{measured} tables/ann.json`, and in the body, as YAML, which rows and columns."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        results, pattern = ROOT / "results", self.arguments[0]
        for path in results.glob(pattern):
            self.env.note_dependency(str(path))
        try:
            lines = measured_table(results, pattern, yaml.safe_load("\n".join(self.content)))
        except (ValueError, yaml.YAMLError) as error:
            raise self.error(f"{pattern}: {error}") from None
        container = nodes.container(classes=["measured"])
        self.state.nested_parse(StringList(lines, source=pattern), self.content_offset, container)
        return [container]


def measured_table(results: Path, pattern: str, choice: dict) -> list[str]:
    """Lines of Markdown, a caption and a table, of rows in the files below `results` that match `pattern`.

    A file holds a list of rows, or is one; keys of nested objects are joined by `_`. `choice` holds `caption` and
    `columns` (by heading, the format of a row, in Markdown), and as needed `where` (a pandas query), `rows` (`{column:
    [values]}`, in this order, or `{column: {value: label}}`, and `label` is a column), `derive` (a pandas assignment),
    `least` (`{column: other}`: for each value of `other` the row with the least in `column`), and `order` (a column,
    after `-` the largest first). Raises ValueError that names the file, row or column that is not there, and those
    that are; a column is there when all chosen rows have it.
    """
    known = {"caption", "columns", "where", "rows", "derive", "least", "order"}
    if not isinstance(choice, dict) or not {"caption", "columns"} <= choice.keys() <= known:
        raise ValueError(f"the body is {choice}; expected YAML with caption, columns, and some of {sorted(known)}")
    paths = sorted(results.glob(pattern))
    if not paths:
        folder = (results / pattern).parent
        raise ValueError(f"no such file; results/{folder.name} has {sorted(path.name for path in folder.glob('*'))}")
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    frame = pd.json_normalize([row for file in files for row in (file if isinstance(file, list) else [file])], sep="_")
    try:
        if "where" in choice:
            frame = frame.query(choice["where"])
        for column, values in choice.get("rows", {}).items():
            there = frame[column].tolist()
            if unknown := [value for value in values if value not in there]:
                raise ValueError(f"no row with {column} {unknown}; there are {sorted(set(there))}")
            frame = frame.set_index(column, drop=False).loc[list(values)].reset_index(drop=True)
            if isinstance(values, dict):
                frame = frame.assign(label=frame[column].map(values))
        if frame.empty:
            raise ValueError(f"no row with {choice['where']}")
        frame = frame.dropna(axis="columns")
        frame = frame.eval(choice["derive"]) if "derive" in choice else frame
        for column, other in choice.get("least", {}).items():
            frame = frame.sort_values(column).drop_duplicates(other)
        if order := choice.get("order"):
            frame = frame.sort_values(order.lstrip("-"), ascending=not order.startswith("-"))
        rows = frame.map(lambda value: MARKUP.sub(r"\\\g<0>", value) if isinstance(value, str) else value)
        cells = [[form.format_map(row) for form in choice["columns"].values()] for row in rows.to_dict("records")]
    except (KeyError, NameError) as error:
        raise ValueError(f"no column {error}; there are {', '.join(frame)}") from None
    numbers = [all(NUMBER.fullmatch(cell) for cell in column) for column in zip(*cells, strict=True)]
    table = [choice["columns"], ["--:" if number else ":--" for number in numbers], *cells]
    return [f"{choice['caption']} (`results/{pattern}`)", "", *(f"| {' | '.join(row)} |" for row in table)]


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
    for name, directive in {"chapter-times": ChapterTimes, "chapter-table": ChapterTable, "measured": Measured}.items():
        app.add_directive(name, directive)
    app.connect("config-inited", add_footer)
    app.add_config_value("comments_config", {}, "")  # Jupyter Book sets it for an extension this book leaves out
    # A page opened from disk may not fetch the found pages to quote from them: list their titles only.
    app.add_js_file(None, body='if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;')
    return {"parallel_read_safe": True, "parallel_write_safe": True}
