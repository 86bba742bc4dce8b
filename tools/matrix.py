"""The chapters at the oldest and at the newest versions that pyproject.toml allows, and the install cell in Colab.

    python tools/matrix.py                                             # every chapter: gigabytes, most of an hour
    python tools/matrix.py 01_interactions 02_evaluation               # some
    python tools/matrix.py --hold torch==2.13.0                        # of torch, not the CUDA builds but this version

Each chapter runs as in `make test`: in an empty folder, from the built wheel alone, with the rows it records compared
with results/. Writes results/matrix.json: versions, chapters, seconds; chapters that ran at other versions go from it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import check
import colab
import notebooks
import repository

REPORT = check.ROOT / "results" / "matrix.json"
TOOLS = ["nbval", "pytest", "pytest-xdist"]
CELL_SECONDS, CHAPTER_SECONDS = 300, 1200  # a hosted machine is slower than the one of `make test`


def requirements(extras: Iterable[str], root: Path = check.ROOT) -> dict[str, Requirement]:
    """What the package and its extras ask for, by name; an extra that names other extras stands for theirs."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    waiting = [*project["dependencies"], f"{colab.OWN}[{','.join(extras)}]"]
    found: dict[str, Requirement] = {}
    while waiting:
        requirement = Requirement(waiting.pop(0))
        if colab.canonical(requirement.name) == colab.OWN:
            waiting += [line for extra in requirement.extras for line in project["optional-dependencies"][extra]]
        else:
            found.setdefault(colab.canonical(requirement.name), requirement)
    return dict(sorted(found.items()))


def floors(wanted: dict[str, Requirement]) -> dict[str, str]:
    """The lowest version allowed of each; raises ValueError for a requirement without a floor."""
    lowest = {}
    for name, requirement in wanted.items():
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"{requirement} in pyproject.toml has no floor: write {name}>=VERSION")
        lowest[name] = bounds[0]
    return lowest


def extras_of(path: Path) -> str:
    """What the setup cell of a chapter installs besides the package: "" or "[all]"."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    setup = next(notebooks.source(cell) for cell in cells if notebooks.is_code(cell))
    return check.CHAPTER_EXTRAS if setup.startswith(repository.read().setup_with(check.CHAPTER_EXTRAS)) else ""


def build(folder: Path, wheel: str, pins: dict[str, str]) -> Path:
    """Interpreter of a new environment: the wheel (with extras), what runs notebooks, and `pins` held."""
    venv.create(folder, with_pip=True)
    held = folder / "pins.txt"
    held.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), "utf-8")
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", held, wheel, *TOOLS]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return python


def versions(python: Path, names: Iterable[str]) -> dict[str, str]:
    """Version of each of the packages that is installed for the interpreter."""
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    there = {colab.canonical(package.name): package.version for package in metadata.distributions(path=[str(site)])}
    return {name: there[name] for name in names if name in there}


def run_chapter(path: Path, python: Path) -> dict:
    """Whether every cell ran and every row came out near the committed one; how many checks, how long, what failed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        outcome = check.run_chapters([path], python, Path(folder), CELL_SECONDS, CHAPTER_SECONDS, jobs=1)
        seconds = time.perf_counter() - start
        rows = check.compare_results(Path(folder), check.ROOT / "results", [path.stem])
    problems = outcome.problems + rows.problems
    return {"passed": not problems, "checks": outcome.passed + rows.passed, "seconds": round(seconds, 1),
            "problems": problems}


def merge(old: dict, new: dict) -> dict:
    """The new report with the chapters of the old one that ran on the same kind of machine at versions that agree."""
    for name, environment in new["environments"].items():
        before = old.get("environments", {}).get(name, {})
        same = all(old.get(field) == new[field] for field in ("machine", "python"))
        if same and all(before["versions"].get(package, version) == version
                        for package, version in environment["versions"].items()):
            environment["versions"] = dict(sorted((before["versions"] | environment["versions"]).items()))
            environment["chapters"] = dict(sorted((before["chapters"] | environment["chapters"]).items()))
    return new


def install_cell() -> dict:
    """What the install cell of a chapter with everything adds to Colab, what it replaces, and the seconds it takes."""
    with tempfile.TemporaryDirectory() as folder:
        python = colab.stand_in(Path(folder) / "colab", colab.preinstalled())
        seconds, installed = colab.install(python, f"{check.ROOT}{check.CHAPTER_EXTRAS}")
    return {"seconds": round(seconds, 1), "installed": dict(sorted(installed.items())),
            "replaced": colab.replaced(colab.preinstalled(), installed)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="chapters, such as 02_evaluation; all of them by default")
    parser.add_argument("--hold", action="append", default=[], metavar="NAME==VERSION", help="the same in both runs")
    arguments = parser.parse_args()
    chapters = {path.stem: path for path in sorted(notebooks.NOTEBOOKS.glob("*.ipynb"))}
    if strangers := set(arguments.names) - chapters.keys():
        parser.error(f"there is no chapter {', '.join(sorted(strangers))}; there are {', '.join(chapters)}")
    paths = [path for name, path in chapters.items() if name in (arguments.names or chapters)]
    held = dict(line.split("==") for line in arguments.hold)
    wheel = check.build_wheel(check.BUILD / "matrix-wheel")
    extras = max(map(extras_of, paths))
    wanted = requirements(["all"] if extras else [])
    report: dict = {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "held": held,
        "environments": {},
    }
    for name, pins in (("floors", floors(wanted) | held), ("newest", held)):
        with tempfile.TemporaryDirectory() as folder:
            try:
                python = build(Path(folder), f"{wheel}{extras}", pins)
            except subprocess.CalledProcessError as error:
                sys.exit(f"{name}: pip finds no environment: {error.stderr.strip()[-2000:]}")
            report["environments"][name] = {"versions": versions(python, wanted), "chapters": {}}
            for path in paths:
                row = report["environments"][name]["chapters"][path.stem] = run_chapter(path, python)
                verdict = "passed" if row["passed"] else "FAILED"
                print(f"{name:7s} {path.stem:26s} {verdict} in {row['seconds']:.0f} s", flush=True)
                print("".join(f"    {line}\n" for line in row["problems"]), end="", flush=True)
    report["colab"] = install_cell()
    print(f"install cell in Colab: {report['colab']}")
    report = merge(json.loads(REPORT.read_text("utf-8")) if REPORT.exists() else {}, report)
    REPORT.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    failed = [row for environment in report["environments"].values() for row in environment["chapters"].values()
              if not row["passed"]]
    slow = report["colab"]["seconds"] >= colab.MOST_SECONDS
    return int(bool(failed or report["colab"]["replaced"] or slow))


if __name__ == "__main__":
    sys.exit(main())
