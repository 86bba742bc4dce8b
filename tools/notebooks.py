"""The chapters: what each must look like (`check`), running them afresh in place (`run`), a new one (`new`).

    python tools/notebooks.py new 17_sequences
    python tools/notebooks.py check [notebooks/02_evaluation.ipynb ...]
    python tools/notebooks.py run [02_evaluation ...] [--jobs 2]
"""

import argparse
import ast
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import repository

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
TEMPLATE = ROOT / "tools" / "template.ipynb"
BIBLIOGRAPHY = ROOT / "book" / "references.bib"
ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS",
     "NUMBA_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"],
    "1",
)

LONG_CHAPTERS = {"02", "07", "09", "10", "13", "14", "15", "16"}
# (cells, words, lines of code): least and most; then for the long chapters.
MEASURE = {"cells": (50, 100), "words": (2000, 3500), "lines of code": (150, 300)}
LONG_MEASURE = {"cells": (50, 130), "words": (2000, 5000), "lines of code": (150, 450)}
MEDIAN_LINES, MOST_LINES = 6, 40
MOST_BYTES, MOST_IMAGE_BYTES = 1_000_000, 100_000
LEAST_COMPARED = 5

NAME = re.compile(r"\d\d_[a-z][a-z_]*")
TITLE = '# @title {} {{display-mode: "form"}}\n'  # of a folded cell, as Colab reads it
# A measured number: a decimal, a percentage, or a count before times, ×, or a unit of time or memory.
TYPED_NUMBER = re.compile(
    r"(?<![\w.])\d*\.\d+(?![\w.])"
    r"|\d\s?%"
    r"|\b\d[\d.,]*\s?(?:×|(?:times|x faster|s|ms|min|minutes?|seconds?|MB|GB)\b)"
)
# Where numbers are free: code, math, link targets, HTML tags, and the labels of exercises.
FREE = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)|<[^>]+>|\b(?:Exercise|Solution|Chapter|Section) \d+\.\d+",
    re.S,
)
MYST = re.compile(r"^\s*:::|^\s*```\{|\{[a-z:]+\}`|^\([\w-]+\)=\s*$", re.M)
MAGIC = re.compile(r"^\s*(?:(?:%%?|!\s*)[a-z].*|.*\bget_ipython\(.*)$", re.M)
MACHINE_PATH = re.compile(
    rf"{re.escape(str(ROOT))}\b|(?<![\w.:/])/(?:home|root|tmp|Users|private|opt|mnt|var)/\w[^\s\"'<>]*|\b[A-Z]:\\\\?Users\b"
)
CITATION = re.compile(r"(?:doi\.org/|arxiv\.org/(?:abs|pdf)/)([^\s)>\]]+)", re.I)

Findings = Iterator[tuple[int | None, str]]  # (index of the cell or None for the whole file, what to do)


def source(cell: dict) -> str:
    return "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def parsed(text: str) -> ast.Module:
    """The syntax tree of a cell; an empty one for what is not Python, which other rules report."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def is_code(cell: dict) -> bool:
    return cell["cell_type"] == "code"


def is_check(cell: dict) -> bool:
    return is_code(cell) and source(cell).startswith("# @title Check")


def is_solution(cell: dict) -> bool:
    return is_code(cell) and source(cell).startswith("# @title Solution")


def is_folded(cell: dict) -> bool:
    return is_check(cell) or is_solution(cell)


def markdown(cells: list[dict]) -> Iterator[tuple[int, str]]:
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            yield index, source(cell)


def section(cells: list[dict], title: str) -> tuple[int, str] | None:
    """First cell and Markdown text of the section `## title`, up to the next heading of that level; None if absent."""
    first, lines = None, []
    for index, text in markdown(cells):
        for line in text.splitlines():
            if re.match(r"##? ", line):
                if first is not None:
                    return first, "\n".join(lines)
                if line.strip() == f"## {title}":
                    first = index
            elif first is not None:
                lines.append(line)
    return None if first is None else (first, "\n".join(lines))


def bullets(text: str) -> int:
    return len(re.findall(r"^[-*] ", text, re.M))


# --- the rules -----------------------------------------------------------------------------------------------------


def execution(cells: list[dict]) -> Findings:
    """Run once from top to bottom, no errors, nothing on stderr, no widgets."""
    code = [(index, cell) for index, cell in enumerate(cells) if is_code(cell)]
    for expected, (index, cell) in enumerate(code, start=1):
        if cell["execution_count"] != expected:
            yield index, f"execution count {cell['execution_count']}, expected {expected}: run `make notebooks`"
            break  # the counts after it are wrong too
    for index, cell in code:
        if not source(cell).strip():
            yield index, "the code cell is empty: remove it"
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                yield index, f"ended in {output['ename']}: mend the cell, run `make notebooks`"
            if output.get("name") == "stderr":
                yield index, f"wrote to stderr: {''.join(output['text'])[:80]!r}; mend the cause of the warning"
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                yield index, "shows a widget, which no page can render: print text or show a figure"


def trimmed(notebook: dict) -> dict:
    """Metadata that a chapter keeps: kernel and language names, tags of cells, alt texts of images."""
    spec = notebook["metadata"].get("kernelspec", {})
    notebook["metadata"] = {
        "kernelspec": {key: spec.get(key, value) for key, value in
                       {"display_name": "Python 3", "language": "python", "name": "python3"}.items()},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        cell["metadata"] = {"tags": tags(cell)} if tags(cell) else {}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                image = output["metadata"].get("image/png")
                output["metadata"] = {"image/png": {"alt": image["alt"]}} if image and "alt" in image else {}
    return notebook


def metadata(notebook: dict) -> Findings:
    """No more metadata than a chapter needs, cell ids that are there and differ."""
    clean = trimmed(json.loads(json.dumps(notebook)))
    if notebook["metadata"] != clean["metadata"]:
        surplus = sorted(set(notebook["metadata"]) - set(clean["metadata"])) or "kernelspec or language_info"
        yield None, f"metadata of the notebook is not trimmed ({surplus}): run `make notebooks`"
    seen: set[str] = set()
    for index, (cell, wanted) in enumerate(zip(notebook["cells"], clean["cells"])):
        if cell["metadata"] != wanted["metadata"]:
            yield index, f"metadata of the cell is not trimmed ({sorted(cell['metadata'])}): keep tags only"
        if cell.get("id") is None or cell["id"] in seen:
            yield index, f"cell id {cell.get('id')!r} is missing or not unique: give the cell another id"
        seen.add(cell.get("id"))
        for tag in {"nbval-skip", "raises-exception"} & set(tags(cell)):
            yield index, f"the tag {tag} is not allowed: every cell runs and succeeds"
        if "hide-cell" in tags(cell) and not is_folded(cell):
            yield index, "only checks and solutions are hidden: remove the tag hide-cell"
    compared = sum("nbval-check-output" in tags(cell) for cell in notebook["cells"])
    if compared < LEAST_COMPARED:
        yield None, f"{compared} cells have the tag nbval-check-output, at least {LEAST_COMPARED} are needed"


def opening(name: str, cells: list[dict]) -> Findings:
    """Title, three bullets and the Colab link; then the setup cell."""
    here = repository.read()
    first = source(cells[0])
    if cells[0]["cell_type"] != "markdown" or not re.match(r"# \S", first):
        yield 0, "the first cell must be Markdown and begin with the title, `# …`"
    if bullets(first) < 3:
        yield 0, "the first cell must say in three bullets what the reader will be able to do"
    if f"]({here.colab(name)})" not in first:
        yield 0, f"the first cell must link to {here.colab(name)}: see `make url`"
    setup = next((index for index, cell in enumerate(cells) if is_code(cell)), None)
    if setup is None:
        yield None, "there is no code cell"
        return
    forms = (here.setup, here.setup_with("[all]"))
    if not source(cells[setup]).startswith(forms):
        yield setup, f"the setup cell must begin with\n{here.setup}"
    for call in ("seed_everything(0)", "plots.use_style()", f'display.chapter("{name}")'):
        if call not in source(cells[setup]):
            yield setup, f"the setup cell must call {call}"
    for index, cell in enumerate(cells):
        text = source(cell)
        for form in forms if index == setup else ():
            text = text.removeprefix(form)
        if is_code(cell) and (magic := MAGIC.search(text)):
            yield index, f"{magic[0].strip()!r}: a chapter uses no magics besides the setup cell's %pip; write Python"


def prose(cells: list[dict]) -> Findings:
    """CommonMark only, no measured numbers typed by hand, no paths of somebody's machine."""
    references = section(cells, "References")
    for index, text in markdown(cells):
        if directive := MYST.search(text):
            yield index, f"{directive[0].strip()!r} is MyST, which Colab and GitHub show as raw text: use CommonMark"
        if image := re.search(r"!\[\s*\]|!\[[^\]]*\]\(https?:", text):
            yield index, f"{image[0]!r}: an image needs alt text and must not come from another host"
        if references and index >= references[0]:
            continue
        for number in TYPED_NUMBER.finditer(FREE.sub(" ", text)):
            yield index, f"the typed number {number[0]!r}: let a code cell measure and print it with finding()"
    for index, cell in enumerate(cells):
        texts = [source(cell)]
        for output in cell.get("outputs", []):
            data = {"text": output.get("text", ""), **output.get("data", {})}
            texts += ["".join(value) for kind, value in data.items() if kind.startswith("text")]
        if path := MACHINE_PATH.search("\n".join(texts)):
            yield index, f"{path[0]!r} is a path of one machine: do not write or print it"


def images(cells: list[dict]) -> Findings:
    """Figures are PNG, small, and have alt text."""
    for index, cell in enumerate(cells):
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                if kind.startswith("image/") and kind != "image/png":
                    yield index, f"the figure is {kind}: show PNG with plots.describe(fig, alt)"
                if kind == "image/png":
                    n_bytes = len("".join(data)) * 3 // 4
                    if n_bytes > MOST_IMAGE_BYTES:
                        yield index, f"the figure has {n_bytes:,} bytes, {MOST_IMAGE_BYTES:,} are allowed: draw less"
                    if not str(output["metadata"].get("image/png", {}).get("alt", "")).strip():
                        yield index, "the figure has no alt text: show it with plots.describe(fig, alt)"
                if kind == "text/html" and re.search(r"<img\b(?![^>]*\balt=)", "".join(data)):
                    yield index, "the output holds an <img> without alt text"


def counted_lines(cell: dict) -> int:
    """Lines of a code cell that are not empty; docstrings of exported cells are not counted."""
    lines = source(cell).splitlines()
    if source(cell).startswith("#@export"):
        for node in ast.walk(parsed(source(cell))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
                text = node.body[0]
                lines[text.lineno - 1:text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
    return sum(bool(line.strip()) for line in lines)


def measure(name: str, cells: list[dict]) -> dict[str, float]:
    """Cells (without checks), words, lines of code (without checks and solutions), the median and the longest cell."""
    lengths = [counted_lines(cell) for cell in cells if is_code(cell) and not is_folded(cell)] or [0]
    return {
        "cells": sum(not is_check(cell) for cell in cells),
        "words": sum(len(text.split()) for _, text in markdown(cells)),
        "lines of code": sum(lengths),
        "median": statistics.median(lengths),
        "longest": max(lengths),
    }


def size(name: str, cells: list[dict]) -> Findings:
    """Neither too short nor too long."""
    measured = measure(name, cells)
    for what, (least, most) in (LONG_MEASURE if name[:2] in LONG_CHAPTERS else MEASURE).items():
        if not least <= measured[what] <= most:
            yield None, f"{measured[what]} {what}, expected {least} to {most}"
    if measured["median"] > MEDIAN_LINES:
        yield None, f"the median code cell has {measured['median']:g} lines, at most {MEDIAN_LINES} are allowed"
    for index, cell in enumerate(cells):
        if is_code(cell) and not is_folded(cell) and counted_lines(cell) > MOST_LINES:
            yield index, f"{counted_lines(cell)} lines of code, at most {MOST_LINES} are allowed: split the cell"


def stored_names(node: ast.AST) -> set[str]:
    """Names that a statement sets or changes: `f` of `def f`, `x` of `x = …`, `x[0] = …` and of a loop around them."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    names = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name | ast.Subscript | ast.Attribute) and isinstance(inner.ctx, ast.Store):
            while not isinstance(inner, ast.Name):
                inner = getattr(inner, "value", None) or ast.Name("")
            names.add(inner.id)
    return names


def exercise_pairs(cells: list[dict]) -> list[tuple[int | None, int]]:
    """(index of the starter cell or None, index of its solution) for each exercise."""
    pairs, starter = [], None
    for index, cell in enumerate(cells):
        if is_code(cell) and "exercise" in tags(cell):
            starter = index
        if is_solution(cell):
            pairs.append((starter, index))
            starter = None
    return pairs


def starter_probe(starter: str, solution: str) -> str:
    """Code that fails unless the solution's checks reject what the starter sets.

    It runs, in a copy of the chapter's variables, the starter and then the solution without the statements that set
    the starter's names.
    """
    names = set().union(*map(stored_names, parsed(starter).body))
    kept = [ast.unparse(node) for node in parsed(solution).body if not stored_names(node) & names]
    return (
        "from IPython.utils.capture import capture_output\n"
        f"probe = {starter + chr(10) + chr(10).join(kept)!r}\n"
        "try:\n    with capture_output():\n        exec(probe, dict(globals()))\n"
        "except Exception:\n    pass  # as it should be: the starter is not an answer\n"
        f"else:\n    raise AssertionError('the starter cell already passes: ' + {solution.splitlines()[0]!r})\n"
    )


def calls(node: ast.AST, function: str) -> bool:
    """Whether a statement calls the function, anywhere in it."""
    return any(isinstance(inner, ast.Call) and ast.unparse(inner.func) == function for inner in ast.walk(node))


def exercises(name: str, cells: list[dict]) -> Findings:
    """Three to five, each with a starter cell, a folded check, and a folded solution that passes the check."""
    pairs = exercise_pairs(cells)
    if not 3 <= len(pairs) <= 5:
        yield None, f"{len(pairs)} exercises with a solution, expected 3 to 5"
    for order, (starter, index) in enumerate(pairs, start=1):
        label = f"{int(name[:2])}.{order}"
        checker = f"check_{label.replace('.', '_')}"
        check = index - 1 if is_check(cells[index - 1]) else None
        for what, at in (("Solution", index), ("Check", check)):
            title = TITLE.format(f"{what} {label}")
            if at is not None and not source(cells[at]).startswith(title):
                yield at, f"the cell must begin with `{title.strip()}`"
            if at is not None and "hide-cell" not in tags(cells[at]):
                yield at, f"the {what.lower()} needs the tag hide-cell"
        if not any(f"Exercise {label}" in before for at, before in markdown(cells) if at < index):
            yield index, f"no Markdown cell before it asks Exercise {label}"
        body = parsed(source(cells[index])).body
        if not body or not isinstance(body[-1], ast.Assert) or not calls(body[-1], checker):
            yield index, f"the solution must end in an assert that calls {checker}"
        checks = [] if check is None else parsed(source(cells[check])).body
        if not checks or not calls(checks[-1], checker) or not any(calls(node, "checker") for node in checks):
            yield index, f"before the solution a folded cell must set {checker} = checker(…) and end in a call of it"
        if starter is None:
            yield index, "the solution has no starter: put a cell with the tag exercise before it (`answer = ...`)"
            continue
        names = set().union(*map(stored_names, parsed(source(cells[starter])).body))
        if not names & set().union(*map(stored_names, body)):
            yield index, f"the solution sets none of the names that its starter sets: {sorted(names)}"
        if changed := sorted(names & set().union(*map(stored_names, checks))):
            yield check, f"the check sets {changed}, which belong to the reader"


def closing(cells: list[dict], bibliography: Path) -> Findings:
    """What we measured, take-aways, references that the bibliography has too."""
    for title in ("What we measured", "Take-aways", "References"):
        if section(cells, title) is None:
            yield None, f"the section `## {title}` is missing"
    if (takeaways := section(cells, "Take-aways")) and not 3 <= bullets(takeaways[1]) <= 6:
        yield takeaways[0], f"{bullets(takeaways[1])} take-aways, expected 3 to 6 bullets"
    if references := section(cells, "References"):
        known = bibliography.read_text("utf-8").lower() if bibliography.exists() else ""
        cited = CITATION.findall(references[1])
        if not cited:
            yield references[0], "the references hold no DOI or arXiv link"
    cited = {link.rstrip(".,;").removesuffix(".pdf") for _, text in markdown(cells) for link in CITATION.findall(text)}
    for link in sorted(cited) if references else []:
        if link.lower() not in known:
            yield references[0], f"{link} is not in {bibliography.name}: add the entry or mend the link"


def problems(path: Path, bibliography: Path = BIBLIOGRAPHY) -> list[str]:
    """What keeps the notebook from being a chapter: `file, cell n: what to do`, cells counted from 1."""
    name = path.stem
    if not NAME.fullmatch(name):
        return [f"{path.name}: a chapter is called like 02_evaluation.ipynb"]
    notebook = json.loads(path.read_text("utf-8"))
    cells = notebook["cells"]
    found = [
        *execution(cells), *metadata(notebook), *opening(name, cells), *prose(cells), *images(cells),
        *size(name, cells), *exercises(name, cells), *closing(cells, bibliography),
    ]
    if path.stat().st_size >= MOST_BYTES:
        found.append((None, f"the file has {path.stat().st_size:,} bytes, {MOST_BYTES:,} are allowed: draw less"))
    return [f"{path.name}{'' if index is None else f', cell {index + 1}'}: {message}" for index, message in found]


def from_template(name: str) -> dict:
    """The template notebook as the chapter `name`: its link, its number, the module it exports to."""
    text = TEMPLATE.read_text("utf-8").replace("99_template", name)
    text = text.replace("models/template.py", f"models/{name[3:]}.py")
    return json.loads(re.sub(r"(# |Exercise |Check |Solution |check_)99(?=[._])", rf"\g<1>{int(name[:2])}", text))


def new(name: str) -> Path:
    """Write the chapter `name` from the template; raises ValueError when it is there, or called like no chapter."""
    path = NOTEBOOKS / f"{name}.ipynb"
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a chapter: expected two digits and words, like 17_sequences")
    for there in (path, ROOT / "recsys_utils" / "models" / f"{name[3:]}.py"):
        if there.exists():
            raise ValueError(f"{there.relative_to(ROOT)} is there already: choose another name")
    path.write_text(json.dumps(from_template(name), indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


# --- running -------------------------------------------------------------------------------------------------------


async def execute(path: Path, room: asyncio.Semaphore) -> tuple[str, dict | None]:
    """Run one chapter in an empty folder and write it back; returns a line of progress and what was measured."""
    import nbclient
    import nbformat
    import psutil

    notebook = nbformat.read(path, as_version=4)
    async with room:
        with tempfile.TemporaryDirectory() as empty:
            client = nbclient.NotebookClient(
                notebook, timeout=1800, record_timing=False, resources={"metadata": {"path": empty}},
                extra_arguments=["--IPKernelApp.log_level=40"],  # the kernel's own warnings are nobody's here
            )
            start, peak = time.perf_counter(), 0
            run = asyncio.ensure_future(client.async_execute())
            while not run.done():
                await asyncio.wait([run], timeout=0.2)
                try:
                    kernel = psutil.Process(client.km.provisioner.pid)
                    tree = [kernel, *kernel.children(recursive=True)]
                    peak = max(peak, sum(process.memory_info().rss for process in tree))
                except (AttributeError, TypeError, psutil.Error):  # not started yet, or already gone
                    continue
            try:
                run.result()
            except Exception as error:  # any failure is this chapter's, not the run's
                where = sum(bool(cell.get("execution_count")) for cell in notebook.cells)
                return f"{path.stem:26s} FAILED in code cell {where}\n{error}", None
    measured = {
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "memory_gb": round(peak / 1e9, 2),
        "cells": len(notebook.cells),
    }
    nbformat.write(nbformat.from_dict(trimmed(notebook)), path)
    return f"{path.stem:26s} {' '.join(f'{what} {value}' for what, value in measured.items())}", measured


def say_what_it_took(path: Path) -> None:
    """Put what display.chapter prints now in place of what it printed in the run that was measured."""
    from contextlib import redirect_stdout
    from io import StringIO

    from recsys_utils import display

    notebook, said = json.loads(path.read_text("utf-8")), StringIO()
    with redirect_stdout(said):
        display.chapter(path.stem)
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", [])):
        if re.match(rf"This chapter takes |{path.stem}: not measured yet", "".join(output.get("text", ""))):
            output["text"] = [said.getvalue()]
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


def run(paths: list[Path], jobs: int) -> int:
    """Run the chapters, `jobs` at a time, one thread each; measured minutes and memory go to results/chapters.json."""
    os.environ.update(ONE_THREAD)
    os.environ["PYTHONPATH"] = str(ROOT)
    times = ROOT / "results" / "chapters.json"

    async def everything() -> int:
        room = asyncio.Semaphore(jobs)
        failed = 0

        async def one(path: Path) -> None:
            nonlocal failed
            line, measured = await execute(path, room)
            print(line, flush=True)
            failed += measured is None
            if measured is not None:
                chapters = json.loads(times.read_text("utf-8")) if times.exists() else {}
                chapters[path.stem] = measured
                times.parent.mkdir(exist_ok=True)
                times.write_text(json.dumps(chapters, indent=1, sort_keys=True) + "\n", "utf-8")
                say_what_it_took(path)

        await asyncio.gather(*map(one, paths))
        return failed

    return asyncio.run(everything())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("new").add_argument("name", help="two digits and words, like 17_sequences")
    commands.add_parser("check").add_argument("paths", nargs="*", type=Path)
    runner = commands.add_parser("run")
    runner.add_argument("names", nargs="*", help="chapters, such as 02_evaluation; all of them by default")
    runner.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.command == "new":
        try:
            print(f"wrote {new(arguments.name).relative_to(ROOT)}: the table of contents, book/_toc.yml, wants it too")
        except ValueError as error:
            parser.error(str(error))
        return 0
    if arguments.command == "check":
        found = [line for path in arguments.paths or sorted(NOTEBOOKS.glob("*.ipynb")) for line in problems(path)]
        print("\n".join(found) if found else "every chapter keeps the contract")
        return int(bool(found))
    chapters = sorted(NOTEBOOKS.glob("*.ipynb"))
    paths = [NOTEBOOKS / f"{Path(name).stem}.ipynb" for name in arguments.names] or chapters
    for path in paths:
        if path not in chapters:
            parser.error(f"there is no chapter {path.stem!r}; there are {[chapter.stem for chapter in chapters]}")
    return int(run(paths, arguments.jobs) > 0)


if __name__ == "__main__":
    sys.exit(main())
