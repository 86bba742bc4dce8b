"""Fresh results lie near the committed ones, and no committed result is made by hand; both can be broken."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import check

KEY = "latest-small/house/ease"


def test_no_committed_result_is_made_by_hand():
    assert check.inspect_results(check.ROOT / "results") == []


@pytest.fixture
def folders(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """(fresh, committed), equal: one row of chapter 04, one of a benchmark; and a project that has both scripts."""
    for script in ("notebooks/04_neighbours.ipynb", "benchmarks/published.py"):
        (tmp_path / script).parent.mkdir(exist_ok=True)
        (tmp_path / script).touch()
    monkeypatch.setattr(check, "ROOT", tmp_path)
    fresh, committed = tmp_path / "fresh", tmp_path / "results"
    for folder in (fresh, committed):
        row(folder, KEY)
    row(committed, "100k/within-item/ease", command="benchmarks/published.py")
    (committed / "chapters.json").write_text("{}")
    (committed / "speed").mkdir()
    (committed / "speed" / "sampling.json").write_text("[]")
    return fresh, committed


def row(folder: Path, key: str, ndcg: float = 0.14, **changes) -> None:
    """Write one result and its per-user values, which have the mean `ndcg`."""
    path = folder / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    edition, protocol, model = key.split("/")
    content = {
        "model": model,
        "edition": edition,
        "protocol": protocol,
        "chapter": "04_neighbours",
        "k": 10,
        "data_sha256": "d",
        "split_fingerprint": "s",
        "command": "notebooks/04_neighbours.ipynb",
        "metrics": {"ndcg": {"mean": ndcg, "low": ndcg - 0.01, "high": ndcg + 0.01}, "coverage": {"mean": 0.2}},
        "seeds": {str(seed): {"ndcg": ndcg + 0.0001 * seed} for seed in range(5)},
    }
    path.write_text(json.dumps(content | changes))
    columns = np.array([[ndcg - 0.05], [ndcg + 0.05]], dtype=np.float32)
    np.savez_compressed(path.with_suffix(".npz"), users=np.arange(2), columns=columns, names=np.array(["ndcg"]))


def compared(folders) -> str:
    return "\n".join(check.compare_results(*folders, ["04_neighbours"]).problems)


def edit(folder: Path, change) -> None:
    path = folder / f"{KEY}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_equal_results_pass(folders):
    assert check.compare_results(*folders, ["04_neighbours"]) == check.Outcome(1, [], [])
    assert check.inspect_results(folders[1]) == []


def test_a_missing_row_is_found(folders):
    (folders[0] / f"{KEY}.json").unlink()
    assert f"{KEY}: notebooks/04_neighbours.ipynb claims this row but did not record it" in compared(folders)


def test_an_extra_row_is_found(folders):
    row(folders[0], "demo/leave-one-out/ease")
    assert "demo/leave-one-out/ease: recorded by notebooks/04_neighbours.ipynb but not in results/" in compared(folders)


@pytest.mark.parametrize(("change", "found"), [(0.0009, False), (-0.0009, False), (0.0011, True), (-0.0011, True)])
def test_a_mean_may_move_by_a_thousandth(folders, change: float, found: bool):
    row(folders[0], KEY, ndcg=0.14 + change)
    assert ("ndcg is" in compared(folders)) == found


def test_a_noisy_mean_may_move_by_four_standard_deviations(folders):
    seeds = {str(seed): {"ndcg": 0.14 + 0.001 * seed} for seed in range(5)}  # standard deviation .00158
    row(folders[1], KEY, seeds=seeds)
    row(folders[0], KEY, ndcg=0.146)
    assert compared(folders) == ""
    row(folders[0], KEY, ndcg=0.147)
    assert "ndcg is 0.147000, committed 0.140000, more than 0.006325 apart" in compared(folders)


def test_no_mean_may_move_by_more_than_a_tenth(folders):
    seeds = {str(seed): {"ndcg": 0.1 * seed} for seed in range(5)}
    row(folders[1], KEY, seeds=seeds)
    row(folders[0], KEY, ndcg=0.155)
    assert "more than 0.014000 apart" in compared(folders)


def test_not_a_number_is_found(folders):
    edit(folders[0], lambda content: content["metrics"]["ndcg"].update(mean=float("nan")))
    assert "ndcg is nan" in compared(folders)


def test_another_metric_is_found(folders):
    edit(folders[0], lambda content: content["metrics"].pop("coverage"))
    assert "metrics ['ndcg'], committed ['coverage', 'ndcg']" in compared(folders)


@pytest.mark.parametrize("field", ["data_sha256", "split_fingerprint", "k", "command"])
def test_another_experiment_is_found(folders, field: str):
    edit(folders[0], lambda content: content.update({field: "other"}))
    assert f"{field} is 'other'" in compared(folders)


BY_HAND = {
    "a better mean": (
        lambda content: content["metrics"]["ndcg"].update(mean=0.149),
        "its per-user values give 0.140000",
    ),
    "an interval elsewhere": (
        lambda content: content["metrics"]["ndcg"].update(low=0.141),
        "lies outside its interval",
    ),
    "no interval": (lambda content: content["metrics"]["ndcg"].pop("low"), "has no interval"),
    "a metric left out": (lambda content: content["metrics"].pop("ndcg"), "ndcg is None, its per-user values give"),
    "an unknown script": (
        lambda content: content.update(command="benchmarks/secret.py"),
        "names no chapter or benchmark",
    ),
    "another place": (
        lambda content: content.update(protocol="global-time"),
        "says it is latest-small/global-time/ease",
    ),
}


@pytest.mark.parametrize("why", BY_HAND)
def test_a_result_made_by_hand_is_found(folders, why: str):
    change, message = BY_HAND[why]
    edit(folders[1], change)
    assert any(message in line for line in check.inspect_results(folders[1])), check.inspect_results(folders[1])


def test_a_result_without_per_user_values_is_found(folders):
    (folders[1] / f"{KEY}.npz").unlink()
    assert check.inspect_results(folders[1]) == [f"{KEY}: no per-user values beside it (ease.npz)"]


def test_a_changed_working_tree_is_found(monkeypatch):
    states = iter([" M results/x.json\n"])
    monkeypatch.setattr(check, "working_tree", lambda: next(states))
    assert "the run changed the working tree" in check.unchanged("").problems[0]


def test_a_step_that_fails_is_a_failure(tmp_path):
    assert check.one_command("ruff", ["false"]).problems == ["ruff failed (1)"]
    assert "wrote no report" in check.from_junit(tmp_path / "none.xml", 2, 1)[0].problems[0]


@pytest.mark.parametrize("status", [0, 5])
def test_a_run_without_tests_is_a_failure(tmp_path, status: int):
    (tmp_path / "junit.xml").write_text("<testsuites><testsuite/></testsuites>")
    assert check.from_junit(tmp_path / "junit.xml", status, 1)[0].problems


def test_a_skipped_test_is_a_failure_when_all_is_required(tmp_path):
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n\ndef test_skips():\n    pytest.skip('no chromium found')\n"
    )
    command = [check.sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path, f"--rootdir={tmp_path}"]
    for required, status in (("", 0), ("1", 1)):
        report = tmp_path / f"junit{required}.xml"
        environment = {**os.environ, "REQUIRE_ALL": required, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        ended = check.call([*command, f"--junitxml={report}"], 60, env=environment, stdout=check.subprocess.DEVNULL)
        assert ended == status
        outcome = check.from_junit(report, ended, 60)[0]
        assert (len(outcome.problems), len(outcome.skipped)) == ((1, 0) if required else (0, 1))
        assert "no chromium found" in str(outcome)
