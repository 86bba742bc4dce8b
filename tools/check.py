"""Everything that `make test` runs, step by step, and the site of `make book`.

    python tools/check.py          # ruff, tests, every cell of every chapter, fresh results against the committed ones
    python tools/check.py book     # build the site from the committed outputs

Each step is a function that returns an Outcome; tests/ calls the same functions on things that are broken.
"""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import notebooks

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
STARTED = float(os.environ.get("STARTED", time.time()))

SITE_OPTIONS = ["--path-output", "book", "--config", "book/_config.yml", "--toc", "book/_toc.yml"]
TESTS_SECONDS = 15 * 60
CHAPTERS_SECONDS = 14 * 60
CELL_SECONDS = 120
CHAPTER_EXTRAS = "[all]"


class Outcome(NamedTuple):
    """How a step ended: numbers of checks, and one line for each failure."""

    passed: int
    problems: list[str]
    skipped: list[str]


def call(command: list, seconds: float, **options) -> int | None:
    """Exit status of a command; after `seconds` it is killed with all its children, and the status is None."""
    words = [str(part) for part in command]
    process = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL, **options)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def one_command(what: str, command: list, seconds: float = 300) -> Outcome:
    status = call(command, seconds, cwd=ROOT)
    return Outcome(int(status == 0), [f"{what} failed ({status})"] if status else [], [])


def from_junit(report: Path, status: int | None, seconds: float) -> tuple[Outcome, dict[str, int]]:
    """Outcome of a pytest run from its junit file, and the number of cases that ran, by file name."""
    if status is None:
        return Outcome(0, [f"still running after {seconds / 60:.0f} minutes: killed"], []), {}
    if not report.exists():
        return Outcome(0, [f"pytest ended with status {status} and wrote no report"], []), {}
    passed, problems, skipped, ran = 0, [], [], {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')} {case.get('name')}".strip()
        bad = next((child for child in case if child.tag in {"failure", "error"}), None)
        skip = case.find("skipped")
        if bad is not None:
            message = bad.get("message") or ""
            if not message or "full report in element text" in message:
                message = bad.text or ""
            message = " ".join(re.sub(r"(#x1B|\x1b)\[[\d;]*m", "", message).split())
            problems.append(f"{name}: {message if len(message) < 600 else message[:200] + ' … ' + message[-400:]}")
        elif skip is not None:
            skipped.append(f"{name}: {skip.get('message')}")
        else:
            passed += 1
        if skip is None:
            file = str(case.get("classname"))
            ran[file] = ran.get(file, 0) + 1
    if status not in {0, 1} or (status == 1 and not problems):
        problems.append(f"pytest ended with status {status}")
    elif not passed and not skipped and not problems:
        problems.append("pytest ran no test")
    return Outcome(passed, problems, skipped), ran


# --- the steps -----------------------------------------------------------------------------------------------------


def style() -> Outcome:
    return one_command("ruff", [sys.executable, "-m", "ruff", "check", "."])


def tests() -> Outcome:
    """Unit, property, contract, site and browser tests, canaries."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        status = call(
            [sys.executable, "-m", "pytest", "tests", "-q", "-n", "2", "--dist", "loadfile", f"--junitxml={report}"],
            TESTS_SECONDS, cwd=ROOT, env={**os.environ, "RECSYS_RESULTS_DIR": folder},
        )
        return from_junit(report, status, TESTS_SECONDS)[0]


def build_wheel(folder: Path) -> Path:
    """Build the package's wheel into `folder`, from the checkout."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True, stdout=subprocess.DEVNULL,
    )
    return next(folder.glob("*.whl"))


def asked_for(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """The packages installed here that `requirements` ask for, through others too, by name."""
    from packaging.requirements import Requirement  # here: `make book` runs this file without it
    from packaging.utils import canonicalize_name

    waiting, found, seen = [Requirement(line) for line in requirements], {}, set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        package = found.setdefault(name, metadata.distribution(name))
        extras = {"", *requirement.extras} - {extra for known, extra in seen if known == name}
        seen |= {(name, extra) for extra in extras}
        needs = [Requirement(line) for line in package.requires or []]
        waiting += [need for need in needs for extra in extras
                    if need.marker is None or need.marker.evaluate({"extra": extra})]
    return found


def chapters_python(wheel: Path) -> Path:
    """Interpreter of an environment that holds the wheel, nbval, what they ask for, and nothing else of the project.

    What they ask for is installed here already: it is linked, not downloaded again, for it takes gigabytes.
    """
    folder, tools = BUILD / "chapters-env", ["nbval", "pytest", "pytest-xdist"]
    venv.create(folder, clear=True, with_pip=False)
    (site,) = (folder / "lib").glob("python*/site-packages")
    needed = asked_for([f"recsys-utils{CHAPTER_EXTRAS}", *tools])
    for file in (file for name, package in needed.items() if name != "recsys-utils" for file in package.files or []):
        source, target = file.locate(), Path(os.path.normpath(site / file))
        if target.parent == folder / "bin" or target.exists() or not Path(source).exists():
            continue  # scripts name the interpreter that they belong to
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # no links on this file system
            shutil.copy2(source, target)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--no-index", f"{wheel}{CHAPTER_EXTRAS}", *tools], check=True)
    return python


def with_probes(path: Path) -> str:
    """The notebook with one cell an exercise added at its end: the solution's assert must reject the starter."""
    notebook = json.loads(path.read_text("utf-8"))
    cells = notebook["cells"]
    for order, (starter, solution) in enumerate(notebooks.exercise_pairs(cells)):
        if starter is not None:
            probe = notebooks.starter_probe(notebooks.source(cells[starter]), notebooks.source(cells[solution]))
            cells.append({"cell_type": "code", "id": f"probe-{order}", "metadata": {}, "source": probe,
                          "execution_count": None, "outputs": []})
    return json.dumps(notebook)


def run_chapters(
    paths: Iterable[Path], python: Path | str, results: Path, cell_seconds: float = CELL_SECONDS,
    seconds: float = CHAPTERS_SECONDS, jobs: int = 2,
) -> Outcome:
    """Run every cell of the notebooks with nbval in an empty folder; what they record is written to `results`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, report = Path(temporary) / "chapters", Path(temporary) / "junit.xml"
        folder.mkdir()
        expected = {}
        for path in paths:
            text = with_probes(path)
            (folder / path.name).write_text(text, "utf-8")
            expected[path.name] = sum(cell["cell_type"] == "code" for cell in json.loads(text)["cells"])
        shutil.copy(ROOT / "tools" / "nbval_conftest.py", folder / "conftest.py")
        (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("RECSYS_", "PYTEST_"))}
        environment.pop("PYTHONPATH", None)
        environment |= notebooks.ONE_THREAD | {"RECSYS_RESULTS_DIR": str(results), "IPYTHONDIR": f"{temporary}/ipython"}
        status = call(
            [python, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env",
             f"--nbval-cell-timeout={cell_seconds}", "-n", jobs, "--dist", "loadfile", f"--junitxml={report}"],
            seconds, cwd=folder, env=environment,
        )
        outcome, ran = from_junit(report, status, seconds)
    short = [
        f"{name}: {ran.get(name, 0)} cells ran, the notebook has {count}"
        for name, count in expected.items() if status is not None and ran.get(name, 0) != count
    ]
    return outcome._replace(problems=outcome.problems + short)


def chapters(results: Path) -> Outcome:
    """Every chapter as a stranger runs it: only the built wheel installed, in an empty folder."""
    python = chapters_python(build_wheel(BUILD / "wheel"))
    with tempfile.TemporaryDirectory() as elsewhere:
        found = subprocess.run(
            [python, "-c", "import recsys_utils; print(recsys_utils.__file__)"], cwd=elsewhere, check=True,
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""},
        ).stdout
    outcome = run_chapters(sorted((ROOT / "notebooks").glob("*.ipynb")), python, results)
    if "site-packages" not in found:
        outcome.problems.append(f"the chapters imported {found.strip()}, not the wheel")
    return outcome


def result_files(folder: Path) -> dict[str, dict]:
    """The recorded models below `folder`, by `edition/protocol/model`."""
    return {
        path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text("utf-8"))
        for path in sorted(folder.glob("*/*/*.json"))
    }


def tolerance(row: dict, metric: str) -> float:
    """How far a fresh mean may lie from the committed one: max(.001, 4 sd over seeds), at most a tenth of it."""
    seeds = [means[metric] for means in row.get("seeds", {}).values() if metric in means]
    spread = statistics.stdev(seeds) if len(seeds) > 1 else 0.0
    return min(max(0.001, 4 * spread), 0.1 * abs(row["metrics"][metric]["mean"]))


def compare_results(fresh: Path, committed: Path, names: Iterable[str]) -> Outcome:
    """What the chapters `names` recorded in `fresh`, against `committed`: the same rows, and every mean near."""
    new, old = result_files(fresh), result_files(committed)
    ours = {f"notebooks/{name}.ipynb" for name in names}
    problems = [f"{key}: {row['command']} claims this row but did not record it"
                for key, row in old.items() if row["command"] in ours and key not in new]
    problems += [f"{key}: recorded by {new[key]['command']} but not in results/: run `make notebooks`"
                 for key in new if key not in old]
    for key in sorted(new.keys() & old.keys()):
        for field in ("data_sha256", "split_fingerprint", "k", "command"):
            if new[key][field] != old[key][field]:
                problems.append(f"{key}: {field} is {new[key][field]!r}, committed {old[key][field]!r}")
        if new[key]["metrics"].keys() != old[key]["metrics"].keys():
            problems.append(f"{key}: metrics {sorted(new[key]['metrics'])}, committed {sorted(old[key]['metrics'])}")
            continue
        for metric, committed_value in old[key]["metrics"].items():
            now, before = new[key]["metrics"][metric]["mean"], committed_value["mean"]
            if not abs(now - before) <= tolerance(old[key], metric) + 1e-12:
                problems.append(f"{key}: {metric} is {now:.6f}, committed {before:.6f}, "
                                f"more than {tolerance(old[key], metric):.6f} apart")
    return Outcome(len(new.keys() & old.keys() - {line.split(":")[0] for line in problems}), problems, [])


def inspect_results(committed: Path) -> list[str]:
    """What looks made by hand: a row without per-user values, or whose means, command or place do not agree with it."""
    import numpy as np  # here: `make book` runs this file without NumPy

    from recsys_utils.evaluation import Report

    problems = []
    for key, row in result_files(committed).items():
        edition, protocol, model = key.split("/")
        if (row["edition"], row["protocol"], row["model"]) != (edition, protocol, model):
            problems.append(f"{key}: says it is {row['edition']}/{row['protocol']}/{row['model']}")
        script = re.search(r"(?:notebooks|benchmarks)/\w+\.(?:ipynb|py)", row["command"])
        if script is None or not (ROOT / script[0]).exists():
            problems.append(f"{key}: command {row['command']!r} names no chapter or benchmark of this project")
        values = committed / f"{key}.npz"
        if not values.exists():
            problems.append(f"{key}: no per-user values beside it ({values.name})")
            continue
        with np.load(values, allow_pickle=False) as stored:
            columns, names = stored["columns"].astype(float), tuple(stored["names"].tolist())
            report = Report(stored["users"], columns, names, row["k"], {}, protocol, "test", row["split_fingerprint"])
        for metric, mean in report.means.items():
            stated = row["metrics"].get(metric, {})
            if not abs(stated.get("mean", np.nan) - mean) <= 1e-4 * max(1, abs(mean)):
                problems.append(f"{key}: {metric} is {stated.get('mean')}, its per-user values give {mean:.6f}")
            elif not {"low", "high"} <= stated.keys():
                problems.append(f"{key}: {metric} has no interval")
            elif not stated["low"] <= stated["mean"] <= stated["high"]:
                problems.append(f"{key}: {metric} lies outside its interval")
    return problems


def working_tree() -> str | None:
    """What git sees as changed or new, contents of tracked changes included; None outside a checkout."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return None
    return "".join(
        subprocess.run(["git", "-C", str(ROOT), *command], check=True, capture_output=True, text=True).stdout
        for command in (["status", "--porcelain"], ["diff", "--no-ext-diff", "--binary"])
    )


def unchanged(before: str | None) -> Outcome:
    if before is None:
        return Outcome(0, [], ["working tree: this is no git checkout"])
    if (after := working_tree()) != before:
        return Outcome(0, ["the run changed the working tree:\n" + after.split("diff --git")[0]], [])
    return Outcome(1, [], [])


def book() -> int:
    """Build the site into book/_build/html, say where it is and how long it took."""
    status = call([Path(sys.executable).with_name("jupyter-book"), "build", ".", *SITE_OPTIONS,
                   "-W", "-n", "--all", "--keep-going", "-q"], 600, cwd=ROOT)
    if status != 0:
        print(f"jupyter-book ended with status {status}", file=sys.stderr)
        return 1
    print(f"open {ROOT / 'book' / '_build' / 'html' / 'index.html'}")
    print(f"make book took {(time.time() - STARTED) / 60:.1f} minutes")
    return 0


def main() -> int:
    if sys.argv[1:] == ["book"]:
        return book()
    if sys.argv[1:]:
        sys.exit(__doc__)
    before = working_tree()
    print(f"the environment took {(time.time() - STARTED) / 60:.1f} minutes", flush=True)
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        fresh, committed = Path(folder), ROOT / "results"
        names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
        steps: dict[str, Callable[[], Outcome]] = {
            "ruff": style,
            "tests": tests,
            "chapters": lambda: chapters(fresh),
            "results": lambda: compare_results(fresh, committed, names),
            "working tree": lambda: unchanged(before),
        }
        for name, step in steps.items():
            print(f"\n== {name}", flush=True)
            start = time.time()
            try:
                outcomes[name] = step()
            except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
                outcomes[name] = Outcome(0, [f"{type(error).__name__}: {error}"], [])
            print(f"{name}: {(time.time() - start) / 60:.1f} minutes", flush=True)
    print("\n== summary")
    for name, outcome in outcomes.items():
        print(f"{name:14s} {outcome.passed} passed, {len(outcome.problems)} failed, {len(outcome.skipped)} skipped")
        for line in outcome.problems:
            print(f"  FAILED {line}")
        for line in outcome.skipped:
            print(f"  skipped {line}")
    passed, failed, skipped = (sum(len(part) if isinstance(part, list) else part for part in column)
                               for column in zip(*outcomes.values()))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    without = any("chromium" in line for outcome in outcomes.values() for line in outcome.skipped)
    print(f"make test took {(time.time() - STARTED) / 60:.1f} minutes"
          + ("; browser tests were skipped: no chromium found" if without else ""))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
