"""Which measured numbers moved between a git revision and the working tree, chapter by chapter, as Markdown.

    python tools/diff.py                       # against HEAD
    python tools/diff.py origin/main           # against a branch, tag or commit
    python tools/diff.py OLD NEW --most 60000  # between two revisions, cut to so many characters: for a pull request

Read are results/ and the findings printed in notebooks/; per-user values are not, their means stand in the results.
The exit status says whether the report could be made, not what is in it. Needs Python and git, no package.
"""

import argparse
import difflib
import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import check

ROOT = check.ROOT
READ = re.compile(r"results/.*\.json|notebooks/[^/]*\.ipynb")
TIMING = re.compile(r"seconds|minutes|_s$|_ms(_|$)|^speed$")  # numbers of the machine as much as of the code
TIMING_FACTOR = 1.5  # two runs on a machine that others use differ by this much
LEGEND = (
    "*inside*, *outside*: of the old 95% interval. *noise*: no further than a fresh run may lie (four standard "
    "deviations over seeds, at least .001, at most a tenth of the value). *timing*: the machine has a part in it; "
    "listed when it moved by a factor of more than 1.5."
)


class Move(NamedTuple):
    """One number that changed; `verdict` says what to make of it."""

    where: str
    what: str
    old: float
    new: float
    interval: tuple[float, float] | None
    verdict: str


class Section:
    """What changed in one chapter."""

    def __init__(self) -> None:
        self.moves: list[Move] = []
        self.settings: dict[str, list[str]] = defaultdict(list)  # what changed: the rows it changed in
        self.added: list[str] = []
        self.removed: list[str] = []
        self.findings: list[str] = []


# --- reading -------------------------------------------------------------------------------------------------------


def git(*words: str) -> str:
    """Output of a git command in the project; exits with a sentence when git is missing or there is no checkout."""
    if shutil.which("git") is None:
        sys.exit("git is not installed: the report compares with a revision that git keeps")
    if not (ROOT / ".git").exists():
        sys.exit(f"{ROOT} is no git checkout: clone the repository to compare with one of its revisions")
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8", errors="replace").stdout


def commit_of(revision: str) -> str:
    """Full hash of a branch, tag or commit; exits with a sentence when there is none of that name."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}").strip()
    except subprocess.CalledProcessError:
        sys.exit(f"unknown revision {revision!r}: give a branch, tag or commit that git knows here, such as "
                 "`make diff REV=origin/main` (after `git fetch`)")


def revision_files(commit: str) -> dict[str, str]:
    """Text of each file that is compared, by path, as the commit has it; links are left out."""
    listing = git("ls-tree", "-r", "-z", commit, "--", "results", "notebooks").split("\0")
    entries = [(line.split("\t")[0].split(), line.split("\t", 1)[1]) for line in listing if line]
    wanted = [(fields[2], path) for fields, path in entries if fields[0].startswith("100") and READ.fullmatch(path)]
    return {path: git("cat-file", "blob", blob) for blob, path in wanted}


def tree_files() -> dict[str, str]:
    """The same of the working tree."""
    paths = [*(ROOT / "results").rglob("*.json"), *(ROOT / "notebooks").glob("*.ipynb")]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sorted(paths)}


def findings(notebook: dict) -> list[str]:
    """The sentences that the cells of a chapter printed with finding()."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    texts = ["".join(output.get("data", {}).get("text/plain", "")) for output in outputs]
    return [" ".join(text.removeprefix("Finding:").split()) for text in texts if text.startswith("Finding:")]


# --- comparing -----------------------------------------------------------------------------------------------------


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(old: object, new: object) -> bool:
    """Equal, or numbers that differ by rounding alone."""
    return old == new or (number(old) and number(new) and math.isclose(old, new, rel_tol=1e-6, abs_tol=1e-9))


def judge(what: str, old: float, new: float, interval: tuple[float, float] | None, spread: float | None) -> str:
    """What to make of a number that moved. spread: how far fresh runs of it may lie apart, None when not known."""
    if TIMING.search(what):
        return "timing"
    if interval and not interval[0] <= new <= interval[1]:
        return "outside"
    if spread is not None and abs(new - old) <= spread:
        return "noise"
    return "inside" if interval else "no interval" if spread is None else "beyond noise"


def compare_cells(
    where: str, old: dict[str, dict], new: dict[str, dict], section: Section,
    spread: Callable[[str], float | None] = lambda what: None,
) -> None:
    """Compare numbers by name, each as {"mean": …} with "low" and "high" where there is an interval."""
    for what in [*old, *(name for name in new if name not in old)]:
        before, now = old.get(what), new.get(what)
        if before is None or now is None:
            section.settings[f"{code(what)} is {'new' if before is None else 'gone'}"].append(where)
            continue
        interval = (before["low"], before["high"]) if {"low", "high"} <= before.keys() else None
        if not same(before["mean"], now["mean"]):
            verdict = judge(what, before["mean"], now["mean"], interval, spread(what))
            section.moves.append(Move(where, what, before["mean"], now["mean"], interval, verdict))
        elif not all(same(before.get(end), now.get(end)) for end in ("low", "high")):
            ends = " → ".join(f"[{cell.get('low', math.nan):.4g}, {cell.get('high', math.nan):.4g}]"
                              for cell in (before, now))
            section.settings[f"interval of {code(what)}: {ends}"].append(where)


def compare_settings(where: str, old: dict, new: dict, section: Section, name: str = "") -> None:
    """Note each field that changed, one level into dictionaries."""
    for field in [*old, *(field for field in new if field not in old)]:
        before, now = old.get(field), new.get(field)
        if same(before, now):
            continue
        if isinstance(before, dict) and isinstance(now, dict) and not name:
            compare_settings(where, before, now, section, f"{field}.")
        elif isinstance(before, list) and isinstance(now, list):
            section.settings[f"{code(name + field)}: {len(before)} → {len(now)} entries, not the same"].append(where)
        else:
            section.settings[f"{code(name + field)}: {code(before)} → {code(now)}"].append(where)


MEASURED = {"metrics", "seeds", "train_seconds", "score_ms_per_user"}


def compare_results(where: str, old: dict, new: dict, section: Section) -> None:
    """One model, as leaderboard.record writes it."""
    compare_cells(where, old["metrics"], new["metrics"], section, lambda what: check.tolerance(old, what))
    times = [{name: {"mean": row[name]} for name in ("train_seconds", "score_ms_per_user") if name in row}
             for row in (old, new)]
    compare_cells(where, *times, section)
    seeds = [row.get("seeds", {}) for row in (old, new)]
    if seeds[0] != seeds[1]:
        section.settings[f"means by seed: {len(seeds[0])} → {len(seeds[1])} seeds, not the same"].append(where)
    compare_settings(where, *({field: value for field, value in row.items() if field not in MEASURED}
                              for row in (old, new)), section)


def cells_of(row: dict) -> dict[str, dict]:
    """The numbers of a row of a table; `x_low`, `x_high` are the interval of x, `low`, `high` of the one before."""
    cells, last = {}, ""
    for column, value in row.items():
        base, _, end = column.rpartition("_") if "_" in column else ("", "", column)
        if end in ("low", "high") and (base or last) in cells:
            cells[base or last][end] = value
        elif number(value):
            cells[column], last = {"mean": value}, column
    return cells


def pairs(old: list[dict], new: list[dict]) -> Iterator[tuple[dict | None, dict | None]]:
    """Rows of two tables side by side: equal ones, then those with equal words and whole numbers, then equal words."""

    def words(row: dict, kinds: type | tuple) -> str:
        return json.dumps({column: value for column, value in row.items() if isinstance(value, kinds)}, sort_keys=True)

    old, new = list(old), list(new)
    for key in (lambda row: words(row, object), lambda row: words(row, (str, int)), lambda row: words(row, str)):
        waiting: dict[str, list[dict]] = defaultdict(list)
        for row in new:
            waiting[key(row)].append(row)
        left = []
        for row in old:
            if waiting[key(row)]:
                yield row, waiting[key(row)].pop(0)
            else:
                left.append(row)
        old, new = left, [row for row in new if any(row is other for other in waiting[key(row)])]
    yield from ((row, None) for row in old)
    yield from ((None, row) for row in new)


def label(row: dict) -> str:
    return ", ".join(str(value) for value in row.values() if isinstance(value, str) and len(value) < 60)


def compare_tables(where: str, old: list[dict], new: list[dict], section: Section) -> None:
    """Rows of a sweep, of a speed benchmark, or of the published figures."""
    if not old or not new:
        (section.added if new else section.removed).append(f"{where}, {plural(len(old or new), 'row')}")
        return
    for before, now in pairs(old, new):
        if before is None or now is None:
            (section.added if before is None else section.removed).append(f"{where}: {label(now or before)}")
            continue
        place = f"{where}: {label(before)}"
        numbers = [cells_of(row) for row in (before, now)]
        if where.startswith("speed/"):
            numbers = [{"speed": cells["value"]} for cells in numbers]
        compare_cells(place, *numbers, section)
        for column, value in before.items():
            after = now.get(column)
            if isinstance(value, list) and isinstance(after, list) and value != after:
                apart = [abs(a - b) for a, b in zip(value, after) if number(a) and number(b)]
                if len(value) != len(after) or max(apart, default=1) > 1e-6:
                    change = f"{len(value)} → {len(after)} values, up to {max(apart, default=0):.2g} apart"
                    section.settings[f"{code(column)}: {change}"].append(place)
            elif not number(value) and not isinstance(value, list) and value != after:
                section.settings[f"{code(column)}: {code(value)} → {code(after)}"].append(place)


def chapter_of(place: str, notebooks: dict[str, dict]) -> str:
    """The chapter that reads a table or a speed benchmark; "benchmarks" when none does."""
    name = Path(place).stem
    for chapter, notebook in notebooks.items():
        source = "".join("".join(cell["source"]) for cell in notebook["cells"])
        if f'table("{name}")' in source or f'"{name}.json"' in source:
            return chapter
    return "benchmarks"


def compare(old: dict[str, str], new: dict[str, str]) -> tuple[dict[str, Section], dict[str, tuple[dict, dict]]]:
    """Sections by chapter, and (old, new) minutes and memory of each chapter whose times changed.

    old, new: text of each file by path. Raises ValueError that names a file which does not hold what it should.
    """
    read: list[dict[str, dict | list]] = [{}, {}]
    for files, parsed in zip((old, new), read):
        for path, text in files.items():
            try:
                parsed[path] = json.loads(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} is not JSON: {error}") from None
    before, now = read
    chapters = [{Path(path).stem: notebook for path, notebook in parsed.items() if path.startswith("notebooks/")}
                for parsed in read]
    sections: dict[str, Section] = defaultdict(Section)
    times: dict[str, tuple[dict, dict]] = {}
    for path in sorted(before.keys() | now.keys()):
        one, two = before.get(path), now.get(path)
        if same(one, two):
            continue
        place = path.removeprefix("results/").removesuffix(".json")
        try:
            match place.split("/"):
                case ["notebooks", _]:
                    compare_findings(sections[Path(path).stem], one, two)
                case ["chapters"]:
                    for chapter in sorted((one or {}).keys() | (two or {}).keys()):
                        pair = ((one or {}).get(chapter, {}), (two or {}).get(chapter, {}))
                        if pair[0] != pair[1]:
                            times[chapter] = pair
                case ["published"]:
                    compare_tables("published", one or [], two or [], sections["published figures"])
                case ["tables" | "speed", _]:
                    compare_tables(place, one or [], two or [], sections[chapter_of(place, chapters[1])])
                case [_, _, _]:
                    section = sections[str((two or one)["chapter"])]
                    if one is None or two is None:
                        (section.added if one is None else section.removed).append(place)
                    else:
                        compare_results(place, one, two, section)
        except (AttributeError, KeyError, TypeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} does not hold what its place promises ({what})") from None
    return {name: section for name, section in sorted(sections.items()) if any(vars(section).values())}, times


def compare_findings(section: Section, old: dict | None, new: dict | None) -> None:
    """Lines of a diff of what the findings of a chapter say."""
    before, now = (findings(notebook) if notebook else [] for notebook in (old, new))
    if old is None or new is None:
        kept = section.added if new else section.removed
        kept.append(f"the chapter, with {plural(len(before or now), 'finding')}")
        return
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, now, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        gone, come = [f"- {text}" for text in before[a:b]], [f"+ {text}" for text in now[c:d]]
        side_by_side = [line for pair in zip(gone, come) for line in pair] if len(gone) == len(come) else gone + come
        section.findings += side_by_side


# --- writing -------------------------------------------------------------------------------------------------------


def code(value: object) -> str:
    """Text as Markdown code: whatever it holds, it is neither markup nor a mention."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{text if len(text) <= 100 else text[:99] + '…'}`"


def figures(*values: float) -> list[str]:
    """The values with as many digits as it takes to see that they differ, four at least."""
    shown = [f"{value:.9g}" for value in values]
    for digits in (4, 6):
        short = [f"{value:.{digits}g}" for value in values]
        if len(set(short)) == len(set(shown)):
            return short
    return shown


def table(head: list[str], rows: list[list[str]], right: int) -> list[str]:
    """A Markdown table padded for the terminal; the columns from 2 on, `right` of them, are numbers."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    numeric = [2 <= column < 2 + right for column in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(cells, widths, numeric)]
        return f"| {' | '.join(padded)} |"

    rule = "".join(f"|{'-' * (w + 1)}:" if n else f"|:{'-' * (w + 1)}" for w, n in zip(widths, numeric)) + "|"
    return [line(head), rule, *map(line, rows), ""]


def relative(old: float, new: float) -> str:
    return f" ({(new - old) / abs(old):+.1%})" if old else ""


def plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def listed(move: Move) -> bool:
    """Whether the report shows the number: a timing only when it moved by more than TIMING_FACTOR."""
    if move.verdict != "timing":
        return True
    low, high = sorted((abs(move.old), abs(move.new)))
    return high > TIMING_FACTOR * low


def report(old_name: str, new_name: str, old: dict[str, str], new: dict[str, str]) -> str:
    """The whole report as Markdown."""
    sections, times = compare(old, new)
    moves = [move for section in sections.values() for move in section.moves]
    lines = [f"# Measured numbers: {code(old_name)} → {code(new_name)}", ""]
    if not sections and not times:
        return "\n".join([*lines, "No measured number and no finding changed.", ""])
    counts = Counter(move.verdict for move in moves)
    named = {"outside": "outside the old 95% interval", "inside": "inside the interval", "noise": "no more than noise",
             "beyond noise": "beyond noise, without an interval", "no interval": "without an interval"}
    parts = [f"**{counts[verdict]} {words}**" if verdict == "outside" else f"{counts[verdict]} {words}"
             for verdict, words in named.items() if counts[verdict]]
    lines.append(f"{plural(len(moves) - counts['timing'], 'measured number')} moved"
                 + (f": {', '.join(parts)}." if parts else "."))
    total = {name: sum(len(getattr(section, name)) for section in sections.values())
             for name in ("added", "removed", "settings", "findings")}
    far = sum(move.verdict == "timing" and listed(move) for move in moves)
    lines += [f"{plural(total['added'], 'row')} added, {total['removed']} removed; "
              f"{plural(total['settings'], 'setting')} changed; "
              f"{plural(total['findings'], 'line')} of findings differ; "
              f"{plural(counts['timing'], 'timing')} moved, {far} by a factor of more than {TIMING_FACTOR}.", ""]
    for name, section in sections.items():
        lines += [f"## {code(name)}", ""]
        rows = []
        for move in filter(listed, section.moves):
            before, now = figures(move.old, move.new)
            change = f"{move.new - move.old:+.3g}{relative(move.old, move.new)}"
            interval = "[{:.4g}, {:.4g}]".format(*move.interval) if move.interval else ""
            verdict = f"**{move.verdict}**" if move.verdict == "outside" else move.verdict
            rows.append([code(move.where), code(move.what), before, now, change, interval, verdict])
        if rows:
            lines += table(["row", "number", "old", "new", "change", "old interval", ""], rows, right=4)
        elif section.moves:
            lines += [f"{plural(len(section.moves), 'timing')} moved by a smaller factor.", ""]
        for what, places in (("Added", section.added), ("Removed", section.removed)):
            if places:
                counted = Counter(places).items()
                lines += [f"{what}:", "", *(f"- {code(place)}" + f" × {n}" * (n > 1) for place, n in counted), ""]
        if section.settings:
            lines += ["Changed besides:", ""]
            for change, places in section.settings.items():
                more = f" and {len(places) - 5} more" if len(places) > 5 else ""
                lines.append(f"- {change} ({', '.join(map(code, places[:5]))}{more})")
            lines.append("")
        if section.findings:
            lines += ["Findings:", "", "```diff", *section.findings, "```", ""]
    if times:
        rows = []
        for chapter, (before, now) in times.items():
            one, two = before.get("minutes"), now.get("minutes")
            change = f"{two - one:+.2f}{relative(one, two)}" if number(one) and number(two) else ""
            cells = [f"{row.get('minutes', '')}" for row in (before, now)]
            memory = " → ".join(f"{row.get('memory_gb', '–')}" for row in (before, now))
            rows.append([code(chapter), memory, *cells, change])
        lines += ["## Chapter times", ""]
        lines += table(["chapter", "memory, GB", "old minutes", "new minutes", "change"], rows, right=3)
    return "\n".join([*lines, LEGEND, ""])


def cut(text: str, most: int) -> str:
    """The text, or its first lines and a note when it is longer than `most` characters."""
    if len(text) <= most:
        return text
    kept = text[:most - 200].rsplit("\n", 1)[0]
    fence = "\n```" if sum(line.startswith("```") for line in kept.splitlines()) % 2 else ""
    return f"{kept}{fence}\n\n**The report is cut here:** `make diff` on this branch prints all of it.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", nargs="?", default="HEAD", help="branch, tag or commit; HEAD by default")
    parser.add_argument("new", nargs="?", help="another one; the working tree by default")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="cut the report to so many characters")
    arguments = parser.parse_args()
    commit = commit_of(arguments.old)
    old = revision_files(commit)
    new = revision_files(commit_of(arguments.new)) if arguments.new else tree_files()
    try:
        text = report(f"{arguments.old} {commit[:10]}" if commit != arguments.old else commit[:10],
                      arguments.new or "working tree", old, new)
    except ValueError as error:
        sys.exit(str(error))
    sys.stdout.reconfigure(encoding="utf-8")
    print(cut(text, arguments.most), end="")


if __name__ == "__main__":
    main()
