"""The chapters at other versions, and the install cell beside what Colab has; both can go wrong."""

import json
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import check
import colab
import matrix
import notebooks
from core_checks import check_results

REPORT = {
    "machine": "Linux x86_64, 2 cores",
    "python": "3.11.7",
    "held": {},
    "environments": {
        name: {
            "versions": {"numpy": version},
            "chapters": {"01_good": {"passed": True, "checks": 3, "seconds": 9.5, "problems": []}},
        }
        for name, version in (("floors", "1.26"), ("newest", "2.4.6"))
    },
    "colab": {"seconds": 40.0, "installed": {"faiss-cpu": "1.15.1"}, "replaced": []},
}


def copy(content: dict) -> dict:
    return json.loads(json.dumps(content))


# --- the install cell in Colab -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> str:
    return str(check.build_wheel(tmp_path_factory.mktemp("wheel") / "dist"))


def what_colab_lacks() -> dict[str, str]:
    """Metadata, from this environment, of what the package needs and Colab does not have."""
    there, found = colab.preinstalled(), {}
    waiting = [requirement for name, requirement in matrix.requirements(["all"]).items() if name not in there]
    while waiting:
        requirement = waiting.pop()
        name = colab.canonical(requirement.name)
        if name in there or name in found:
            continue
        package = metadata.distribution(name)
        found[name] = package.read_text("METADATA")
        for line in package.requires or []:
            needed = Requirement(line)
            extras = requirement.extras | {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return found


def dry_run(folder: Path, packages: dict[str, str], wheel: str, *options: str) -> dict[str, str]:
    """What pip would install, without an index, where `packages` are installed: versions by name."""
    python = colab.stand_in(folder / "colab", packages)
    return colab.install(python, f"{wheel}[all]", "--dry-run", "--no-index", "--isolated", *options)[1]


def test_colab_keeps_what_it_has(tmp_path, wheel):
    """Colab's versions fit the floors, and what the rest needs: beside them, only the package itself is installed."""
    there = colab.preinstalled()
    lacking = what_colab_lacks()
    assert not lacking.keys() & matrix.requirements(["torch", "tensorflow"]).keys()  # the base and the heavy are there
    installed = dry_run(tmp_path, there | lacking, wheel)
    assert installed.keys() == {"recsys-utils"}
    assert colab.replaced(there, installed) == []


def test_a_version_that_would_be_replaced_is_found(tmp_path, wheel):
    with zipfile.ZipFile(tmp_path / "numpy-1.26.0-py3-none-any.whl", "w") as newer:
        for name, text in (("METADATA", "Metadata-Version: 2.1\nName: numpy\nVersion: 1.26.0\n"), ("RECORD", ""),
                           ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")):
            newer.writestr(f"numpy-1.26.0.dist-info/{name}", text)
    packages = colab.preinstalled() | what_colab_lacks() | {"numpy": "1.25.0"}
    installed = dry_run(tmp_path, packages, wheel, f"--find-links={tmp_path}")
    assert colab.replaced(packages, installed) == ["numpy 1.25.0 → 1.26.0"]


def test_a_version_below_a_floor_is_found(tmp_path, wheel):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        dry_run(tmp_path, colab.preinstalled() | what_colab_lacks() | {"scipy": "1.10.1"}, wheel)
    assert "No matching distribution found for scipy" in caught.value.stderr


@pytest.mark.parametrize(("seconds", "installed", "status", "said"), [
    (30.0, {"new-to-colab": "1.15.1", "recsys-utils": "9"}, 0, "installed 2 packages in 30 s"),
    (60.0, {}, 1, "the install cell takes 60 s, 60 are allowed"),
    (30.0, {"numpy": "9.9"}, 1, f"the install cell replaces numpy {metadata.version('numpy')} → 9.9"),
])
def test_the_weekly_run_in_colab_complains(monkeypatch, capsys, seconds, installed, status, said):
    monkeypatch.setattr(sys, "argv", ["colab.py"])
    monkeypatch.setattr(colab, "install", lambda python, package: (seconds, installed))
    assert colab.main() == status
    shown = capsys.readouterr().out
    assert said in shown
    assert "tools/colab.txt says torch 2.11.0+cu128, here is" in shown


def test_the_weekly_workflow_runs_both():
    jobs = yaml.safe_load((check.ROOT / ".github/workflows/weekly.yml").read_text("utf-8"))["jobs"]
    runs = {name: [step.get("run", "").strip() for step in job["steps"]] for name, job in jobs.items()}
    assert "python tools/colab.py" in runs["colab"]
    assert "make matrix" in runs["matrix"]


# --- the chapters at other versions --------------------------------------------------------------------------------


def test_every_requirement_has_a_floor():
    lowest = matrix.floors(matrix.requirements(["all"]))
    assert {"numpy", "torch", "tensorflow", "faiss-cpu", "fastapi", "psycopg"} <= lowest.keys()
    assert "recsys-utils" not in lowest
    assert matrix.requirements([]).keys() < matrix.requirements(["torch"]).keys() < lowest.keys()
    for text in ("numpy", "numpy==2.0", "numpy<3"):
        with pytest.raises(ValueError, match="has no floor: write numpy>=VERSION"):
            matrix.floors({"numpy": Requirement(text)})


def test_what_a_chapter_installs_stands_in_its_setup_cell():
    assert matrix.extras_of(notebooks.NOTEBOOKS / "01_interactions.ipynb") == ""
    assert matrix.extras_of(notebooks.NOTEBOOKS / "05_embeddings.ipynb") == "[all]"


def test_versions_are_those_of_the_environment(tmp_path):
    python = colab.stand_in(tmp_path / "env", {"numpy": "1.26.0", "Scikit_Learn": "1.4"})
    assert matrix.versions(python, ["numpy", "scikit-learn", "torch"]) == {"numpy": "1.26.0", "scikit-learn": "1.4"}


@pytest.mark.parametrize(("cells", "rows"), [([], []), (["Cell 3 failed"], []), ([], ["ndcg is .2"])])
def test_a_chapter_passes_when_its_cells_and_its_rows_do(monkeypatch, cells, rows):
    called = []
    outcome = check.Outcome(7, cells, [])
    monkeypatch.setattr(check, "run_chapters", lambda *words, **named: called.append(words) or outcome)
    monkeypatch.setattr(check, "compare_results", lambda fresh, committed, names: check.Outcome(len(names), rows, []))
    row = matrix.run_chapter(Path("03_x.ipynb"), Path("python"))
    assert row == {"passed": not cells + rows, "checks": 8, "seconds": row["seconds"], "problems": cells + rows}
    assert called[0][:2] == ([Path("03_x.ipynb")], Path("python"))


def test_chapters_of_an_earlier_run_stay_when_they_ran_at_the_same_versions():
    new = copy(REPORT)
    for environment in new["environments"].values():
        environment["chapters"] = {"02_new": {}}
        environment["versions"]["torch"] = "2.4"  # of a chapter that needs more
    merged = matrix.merge(copy(REPORT), copy(new))["environments"]["floors"]
    assert list(merged["chapters"]) == ["01_good", "02_new"]
    assert merged["versions"] == {"numpy": "1.26", "torch": "2.4"}
    for change in (lambda old: old["environments"]["floors"]["versions"].update(numpy="1.27"),
                   lambda old: old.update(python="3.12.0"), lambda old: old.update(machine="another"),
                   lambda old: old.clear()):
        old = copy(REPORT)
        change(old)
        assert list(matrix.merge(old, copy(new))["environments"]["floors"]["chapters"]) == ["02_new"]


def run(monkeypatch, tmp_path, *arguments: str, **results) -> tuple[int, dict]:
    """matrix.main() without its environments; results: fields of each chapter's row, or of the install cell."""
    row = REPORT["environments"]["floors"]["chapters"]["01_good"]
    pins = []
    monkeypatch.setattr(sys, "argv", ["matrix.py", *arguments])
    monkeypatch.setattr(check, "build_wheel", lambda folder: Path("x.whl"))
    monkeypatch.setattr(matrix, "REPORT", tmp_path / "matrix.json")
    monkeypatch.setattr(matrix, "build", lambda folder, wheel, held: pins.append((wheel, held)))
    monkeypatch.setattr(matrix, "versions", lambda python, names: dict.fromkeys(names, "1"))
    monkeypatch.setattr(matrix, "run_chapter", lambda path, python: row | results.get("chapter", {}))
    monkeypatch.setattr(matrix, "install_cell", lambda: REPORT["colab"] | results.get("colab", {}))
    status = matrix.main()
    return status, json.loads((tmp_path / "matrix.json").read_text("utf-8")) | {"pins": pins}


def test_the_run_reports_what_it_did(monkeypatch, tmp_path):
    status, report = run(monkeypatch, tmp_path, "01_interactions", "--hold", "numpy==2.0.2")
    check_results(tmp_path)
    (floors, newest) = report["pins"]
    assert (status, floors[0], newest) == (0, "x.whl", ("x.whl", {"numpy": "2.0.2"}))
    assert floors[1] == matrix.floors(matrix.requirements([])) | {"numpy": "2.0.2"}
    assert [list(each["chapters"]) for each in report["environments"].values()] == [["01_interactions"]] * 2
    (floors, _) = run(monkeypatch, tmp_path, "01_interactions", "05_embeddings")[1]["pins"]
    assert floors[0] == "x.whl[all]"
    assert "torch" in floors[1]


@pytest.mark.parametrize("results", [
    {"chapter": {"passed": False, "problems": ["no"]}},
    {"colab": {"replaced": ["numpy 1 → 2"]}},
    {"colab": {"seconds": 60.0}},
], ids=["a chapter", "a replaced version", "a slow installation"])
def test_a_failure_is_the_exit_status(monkeypatch, tmp_path, results):
    assert run(monkeypatch, tmp_path, "01_interactions", **results)[0] == 1


def test_an_unknown_chapter_is_an_error(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "99_none")
    assert "there is no chapter 99_none; there are 01_interactions" in capsys.readouterr().err


# --- results/matrix.json -------------------------------------------------------------------------------------------


# Known failures of the committed run, by environment and chapter: what the lines have in common, and the reason.
KNOWN: dict[tuple[str, str], tuple[str, str]] = {}


def faults_of_run(report: dict, known: dict[tuple[str, str], tuple[str, str]]) -> list[str]:
    """What keeps a committed run from saying that floors, newest versions and Colab are fine, as far as is known."""
    found = []
    for name, environment in report["environments"].items():
        for chapter, row in environment["chapters"].items():
            common, _ = known.get((name, chapter), ("", ""))
            if row["passed"] and common:
                found.append(f"{name}, {chapter}: passed, so take it off the list of known failures")
            found += [f"{name}, {chapter}: {line}" for line in row["problems"] if not common or common not in line]
    if report["colab"]["replaced"] or report["colab"]["seconds"] >= colab.MOST_SECONDS:
        found.append(f"Colab: {report['colab']}")
    for name, floor in matrix.floors(matrix.requirements(["all"])).items():
        ran = report["environments"]["floors"]["versions"].get(name)
        if ran is not None and name not in report["held"] and not Requirement(f"x=={floor}").specifier.contains(ran):
            found.append(f"floors: {name} {floor} in pyproject.toml, {ran} in the run: `make matrix`")
    return found


def test_the_committed_run_is_clean_and_of_these_floors():
    assert faults_of_run(json.loads((check.ROOT / "results" / "matrix.json").read_text("utf-8")), KNOWN) == []


BROKEN = {
    "a failure": (lambda report: row_of(report).update(passed=False, problems=["cell 3"]), "floors, 01_good"),
    "another floor": (lambda report: report["environments"]["floors"]["versions"].update(numpy="1.25"),
                      "numpy 1.26 in"),
    "a slow cell": (lambda report: report["colab"].update(seconds=61.0), "Colab"),
    "a replaced version": (lambda report: report["colab"].update(replaced=["numpy 1 → 2"]), "Colab"),
}
MALFORMED = {
    "no machine": (lambda report: report.pop("machine"), "matrix.json: "),
    "one environment": (lambda report: report["environments"].pop("newest"), r"matrix.json: \['floors'\]"),
    "no versions": (lambda report: report["environments"]["newest"].update(versions={}), "newest states no versions"),
    "no chapters": (lambda report: report["environments"]["newest"].update(chapters={}), "newest ran no chapter"),
    "no seconds": (lambda report: row_of(report).pop("seconds"), "01_good has"),
    "a pass with problems": (lambda report: row_of(report).update(problems=["x"]), r"passed is True with \['x'\]"),
    "a pass of nothing": (lambda report: row_of(report).update(checks=0), "passed without a check"),
    "no list": (lambda report: report["colab"].update(replaced="no"), "colab replaced is 'no'"),
}


def row_of(report: dict) -> dict:
    return report["environments"]["floors"]["chapters"]["01_good"]


@pytest.mark.parametrize("why", BROKEN)
def test_a_run_that_is_not_clean_is_found(why: str):
    change, message = BROKEN[why]
    report = copy(REPORT)
    assert faults_of_run(report, {}) == []
    change(report)
    assert message in str(faults_of_run(report, {}))


def test_known_failures_are_those_and_no_others():
    report, known = copy(REPORT), {("floors", "01_good"): ("item_knn", "ties")}
    assert "take it off the list" in str(faults_of_run(report, known))
    row_of(report).update(passed=False, problems=["demo/item_knn: ndcg is .3"])
    assert faults_of_run(report, known) == []
    row_of(report)["problems"].append("demo/ease: ndcg is .3")
    assert faults_of_run(report, known) == ["floors, 01_good: demo/ease: ndcg is .3"]


@pytest.mark.parametrize("why", MALFORMED)
def test_a_malformed_run_is_found(tmp_path, why: str):
    change, message = MALFORMED[why]
    report = copy(REPORT)
    (tmp_path / "matrix.json").write_text(json.dumps(report))
    check_results(tmp_path)
    change(report)
    (tmp_path / "matrix.json").write_text(json.dumps(report))
    with pytest.raises(AssertionError, match=message):
        check_results(tmp_path)
