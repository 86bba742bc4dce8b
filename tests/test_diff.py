"""The change report: what moved between a revision and the working tree; and the workflow that posts it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import check
import diff
from good_chapter import code, notebook

EASE = "results/latest-small/house/ease.json"
SWEEP = "results/tables/sweep.json"
ROW = {
    "model": "ease",
    "chapter": "04_neighbours",
    "edition": "latest-small",
    "metrics": {"ndcg": {"mean": 0.14, "low": 0.13, "high": 0.15}, "coverage": {"mean": 0.2}},
    "seeds": {"0": {"ndcg": 0.1400}, "1": {"ndcg": 0.1402}},
    "hyperparameters": {"regularization": 82.0},
    "selection": {"trials": 20, "grid": [{"ndcg": 0.1}]},
    "train_seconds": 1.0,
    "versions": {"numpy": "2.4.6"},
}
TABLE = [
    {"part": "sweep", "name": "a", "depth": depth, "seconds": 5.0, "ndcg": 0.1 + depth / 100, "low": 0.09, "high": 0.15,
     "loss": [3.0, 2.0], "rmse": 0.8, "rmse_low": 0.7, "rmse_high": 0.9}
    for depth in range(3)
]


def finding(sentence: str) -> dict:
    data = {"text/plain": f"Finding: {sentence}", "text/html": f"<p>{sentence}</p>"}
    cell = code("display.finding('…', True)")
    return {**cell, "outputs": [{"output_type": "display_data", "data": data, "metadata": {}}]}


FILES = {
    EASE: ROW,
    SWEEP: TABLE,
    "results/speed/fit.json": [{"name": "EASE", "value": 2.0, "unit": "s", "ratio_to": None}],
    "results/chapters.json": {"04_neighbours": {"minutes": 0.73, "memory_gb": 1.2, "cells": 81}},
    "results/published.json": [{"model": "EASE", "metric": "NDCG@10", "value": 0.4, "source": "A"}],
    "notebooks/04_neighbours.ipynb": notebook(finding("EASE gains 1.2."), finding("All else is equal.")),
    "notebooks/05_more.ipynb": notebook(code('leaderboard.table("sweep")')),
}


def run_git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *names, *words], check=True, capture_output=True, text=True).stdout


def write(folder: Path, files: dict) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(content), "utf-8")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A repository of one commit."""
    write(tmp_path, FILES)
    run_git(tmp_path, "init", "--quiet", "--initial-branch=main")
    run_git(tmp_path, "add", ".")
    run_git(tmp_path, "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(diff, "ROOT", tmp_path)
    return tmp_path


def edit(project: Path, path: str, change) -> None:
    content = json.loads((project / path).read_text("utf-8"))
    change(content)
    write(project, {path: content})


def made(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["diff.py", *arguments])
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    diff.main()
    return capsys.readouterr().out


def mean(value: float, metric: str = "ndcg"):
    return EASE, lambda row: row["metrics"][metric].update(mean=value)


def first(**changes):
    return SWEEP, lambda rows: rows[0].update(changes)


# What is changed, and what the report then says, in the section of which chapter.
MOVED = {
    "outside": (*mean(0.151), "04",
                r"`ndcg` +\| +0.14 +\| 0.151 +\| \+0.011 \(\+7.9%\) \| \[0.13, 0.15\] +\| \*\*outside\*\*"),
    "below": (*mean(0.129), "04", r"-0.011 \(-7.9%\) \| \[0.13, 0.15\] +\| \*\*outside\*\*"),
    "inside": (*mean(0.145), "04", r"0.145 .*\| inside "),
    "noise": (*mean(0.1405), "04", r"0.1405 .*\| noise "),
    "no interval": (*mean(0.25, "coverage"), "04", r"`coverage` .*\| beyond noise"),
    "a setting": (EASE, lambda row: row["hyperparameters"].update(regularization=50.0), "04",
                  r"`hyperparameters.regularization`: `82.0` → `50.0` \(`latest-small/house/ease`\)"),
    "a grid": (EASE, lambda row: row["selection"]["grid"].append({}), "04", r"`selection.grid`: 1 → 2 entries"),
    "seeds": (EASE, lambda row: row["seeds"].pop("1"), "04", "means by seed: 2 → 1 seeds"),
    "an interval": (EASE, lambda row: row["metrics"]["ndcg"].update(low=0.12), "04",
                    r"interval of `ndcg`: \[0.13, 0.15\] → \[0.12, 0.15\]"),
    "a metric": (EASE, lambda row: row["metrics"].update(mrr={"mean": 0.3}), "04", "`mrr` is new"),
    "a metric less": (EASE, lambda row: row["metrics"].pop("coverage"), "04", "`coverage` is gone"),
    "a slow fit": (EASE, lambda row: row.update(train_seconds=2.0), "04", r"`train_seconds` .*\+100.0%.*timing"),
    "a fit": (EASE, lambda row: row.update(train_seconds=1.2), "04", "1 timing moved by a smaller factor"),
    "a version": (EASE, lambda row: row["versions"].update(numpy="3"), "04", "`versions.numpy`: `2.4.6` → `3`"),
    "a finding": ("notebooks/04_neighbours.ipynb",
                  lambda chapter: chapter["cells"].__setitem__(0, finding("EASE gains 1.3.")), "04",
                  r"```diff\n- EASE gains 1.2.\n\+ EASE gains 1.3.\n```"),
    "a sweep": (*first(ndcg=0.2), "05", r"`tables/sweep: sweep, a` \| `ndcg` .* 0.2 .*\[0.09, 0.15\] .*outside"),
    "a named interval": (*first(rmse=0.85), "05", r"`rmse` .*\[0.7, 0.9\] \| inside"),
    "a curve": (*first(loss=[3.0, 1.5]), "05", r"`loss`: 2 → 2 values, up to 0.5 apart"),
    "a whole number": (*first(depth=7), "05", r"`depth` .* 7 .*no interval"),
    "a row less": (SWEEP, lambda rows: rows.pop(1), "05", r"Removed:\n\n- `tables/sweep: sweep, a`\n"),
    "a row more": (SWEEP, lambda rows: rows.insert(0, {"part": "sweep", "name": "b", "ndcg": 0.1}), "05",
                   r"Added:\n\n- `tables/sweep: sweep, b`\n"),
    "a speed": ("results/speed/fit.json", lambda rows: rows[0].update(value=4.0), "benchmarks",
                r"`speed/fit: EASE, s` \| `speed` .* 4 \| .*timing"),
    "a published figure": ("results/published.json", lambda rows: rows[0].update(value=0.41), "published figures",
                           r"`value` .* 0.41 .*no interval"),
    "minutes": ("results/chapters.json", lambda rows: rows["04_neighbours"].update(minutes=0.8), "Chapter times",
                r"`04_neighbours` \| 1.2 → 1.2 +\| +0.73 \| +0.8 \| \+0.07 \(\+9.6%\)"),
}


@pytest.mark.parametrize("why", MOVED)
def test_a_change_is_reported(project, why: str, capsys, monkeypatch):
    path, change, chapter, expected = MOVED[why]
    edit(project, path, change)
    text = made(capsys, monkeypatch)
    (section,) = re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", text, re.M)  # one section, and the right one
    assert chapter in section[0]
    assert re.search(expected, text), text


def test_nothing_moved(project, capsys, monkeypatch):
    assert "No measured number and no finding changed." in made(capsys, monkeypatch)
    edit(project, *mean(0.14 + 1e-12))  # the last digit of a float is no news
    assert "No measured number and no finding changed." in made(capsys, monkeypatch)


def test_rows_and_chapters_come_and_go(project, capsys, monkeypatch):
    (project / EASE).rename(project / EASE.replace("ease", "item_knn"))
    (project / SWEEP).unlink()
    (project / "notebooks/05_more.ipynb").rename(project / "notebooks/06_other.ipynb")
    text = made(capsys, monkeypatch)
    assert "Added:\n\n- `latest-small/house/item_knn`\n\nRemoved:\n\n- `latest-small/house/ease`\n" in text
    assert "- `tables/sweep, 3 rows`" in text
    assert "Added:\n\n- `the chapter, with 0 findings`" in text


def test_the_summary_counts(project, capsys, monkeypatch):
    edit(project, *mean(0.151))
    edit(project, *first(rmse=0.85))
    text = made(capsys, monkeypatch)
    assert "2 measured numbers moved: **1 outside the old 95% interval**, 1 inside the interval." in text


def test_any_revision_and_two_of_them(project, capsys, monkeypatch):
    run_git(project, "tag", "old")
    edit(project, *mean(0.151))
    run_git(project, "commit", "--quiet", "-am", "two")
    assert "No measured number" in made(capsys, monkeypatch)
    assert "**outside**" in made(capsys, monkeypatch, "old")
    edit(project, *mean(0.12))
    between = made(capsys, monkeypatch, "old", "HEAD")
    assert "0.151" in between
    assert "0.12" not in between


@pytest.mark.parametrize("revision", ["nowhere", "--help", "HEAD:results", ""])
def test_an_unknown_revision_is_an_error(project, revision: str):
    with pytest.raises(SystemExit, match=r"unknown revision .*git fetch"):
        diff.commit_of(revision)


def test_without_git_or_checkout(project, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="git is not installed"):
        diff.commit_of("HEAD")
    monkeypatch.undo()
    monkeypatch.setattr(diff, "ROOT", project / "results")
    with pytest.raises(SystemExit, match="is no git checkout"):
        diff.commit_of("HEAD")


@pytest.mark.parametrize(("text", "message"), [
    ("{", "ease.json is not JSON"),
    ('{"chapter": "04"}', r"ease.json does not hold what its place promises \(KeyError: 'metrics'\)"),
])
def test_a_broken_file_is_named(project, text: str, message: str, capsys, monkeypatch):
    (project / EASE).write_text(text)
    with pytest.raises(SystemExit, match=message):
        made(capsys, monkeypatch)


def test_what_files_hold_stays_text(project, capsys, monkeypatch):
    edit(project, EASE, lambda row: row.update(edition="`@all` | <b>\n# x"))
    edit(project, "notebooks/04_neighbours.ipynb",
         lambda chapter: chapter["cells"].__setitem__(0, finding("@all\n```\n<script>")))
    text = made(capsys, monkeypatch)
    assert "`'@all' \\| <b> # x`" in text
    assert "\n+ @all ``` <script>\n```\n" in text


def test_a_link_is_not_followed(project, capsys, monkeypatch):
    (project / "secret.json").write_text('{"chapter": "04", "edition": "secret"}')
    (project / EASE).unlink()
    (project / EASE).symlink_to(project / "secret.json")
    run_git(project, "add", ".")
    run_git(project, "commit", "--quiet", "-m", "link")
    text = made(capsys, monkeypatch, "HEAD~1", "HEAD")
    assert "Removed:\n\n- `latest-small/house/ease`" in text
    assert "secret" not in text


def test_a_long_report_is_cut_at_a_line_and_its_fence_closed():
    text = "# A\n\n```diff\n" + "- gone\n" * 500 + "```\n"
    short = diff.cut(text, 1000)
    assert len(short) < 1000
    assert "- gone\n```\n\n**The report is cut here:**" in short
    assert diff.cut(text, 10_000) == text


def test_make_diff_reports_and_succeeds():
    if not (check.ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    command = ["make", "-s", "diff", f"PYTHON={sys.executable}"]
    shown = subprocess.run(command, cwd=check.ROOT, capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("# Measured numbers: `HEAD ")


# --- the workflow --------------------------------------------------------------------------------------------------

WORKFLOW = check.ROOT / ".github/workflows/numbers.yml"


def faults_of_workflow(content: dict) -> list[str]:
    """What would let code of a pull request use the right to write that the job has."""
    faults = []
    if content["permissions"] != {"contents": "read", "pull-requests": "write"}:
        faults.append(f"permissions are {content['permissions']}")
    for job in content["jobs"].values():
        for step in job["steps"]:
            if "uses" in step and not re.fullmatch(r"actions/checkout@[0-9a-f]{40}", step["uses"]):
                faults.append(f"{step['uses']} is not pinned to a commit")
            if {"ref", "repository"} & step.get("with", {}).keys():
                faults.append("checks out something else than the base branch")
            if "${{" in step.get("run", ""):
                faults.append("pastes an expression into a script")
            if re.search(r"git (checkout|switch|merge\b(?!-base)|pull|worktree)|pip |make ", step.get("run", "")):
                faults.append("runs what the pull request holds")
    return faults


BROKEN = {
    "more rights": (lambda w: w["permissions"].update(contents="write"), "permissions are"),
    "a moving tag": (lambda w: w["jobs"]["report"]["steps"][0].update(uses="actions/checkout@v4"), "not pinned"),
    "the proposal's code": (lambda w: w["jobs"]["report"]["steps"][0]["with"].update(ref="x"), "checks out something"),
    "an expression": (lambda w: w["jobs"]["report"]["steps"][1].update(run="echo ${{ github.head_ref }}"), "pastes"),
    "a checkout": (lambda w: w["jobs"]["report"]["steps"][1].update(run="git checkout FETCH_HEAD"), "runs what"),
}


def test_the_workflow_gives_no_right_away():
    assert faults_of_workflow(yaml.safe_load(WORKFLOW.read_text("utf-8"))) == []


@pytest.mark.parametrize("why", BROKEN)
def test_a_workflow_that_does_is_found(why: str):
    change, message = BROKEN[why]
    content = yaml.safe_load(WORKFLOW.read_text("utf-8"))
    change(content)
    assert message in str(faults_of_workflow(content))


def test_the_workflow_posts_what_the_pull_request_changes(project):
    """Its own scripts, run on a clone: the proposal's numbers, by the base branch's program, one comment replaced."""
    shutil.copytree(check.ROOT / "tools", project / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    run_git(project, "add", ".")
    run_git(project, "commit", "--quiet", "-m", "tools")
    run_git(project, "checkout", "--quiet", "-b", "proposal")
    edit(project, *mean(0.151))
    (project / "tools" / "diff.py").write_text("print('code of the proposal')")
    run_git(project, "commit", "--quiet", "-am", "better")
    proposed = run_git(project, "rev-parse", "HEAD").strip()
    run_git(project, "update-ref", "refs/pull/7/head", proposed)
    run_git(project, "checkout", "--quiet", "main")
    edit(project, "results/published.json", list.clear)  # main went on meanwhile: not the proposal's doing
    run_git(project, "commit", "--quiet", "-am", "elsewhere")
    clone = project / "clone"
    run_git(project, "clone", "--quiet", "--single-branch", "--branch=main", project, clone)
    (project / "bin").mkdir()
    (project / "bin" / "gh").write_text('#!/bin/sh\necho "$@" > "$GITHUB_STEP_SUMMARY.gh"\n')
    (project / "bin" / "gh").chmod(0o755)
    (project / "bin" / "python3").symlink_to(sys.executable)
    environment = {"PATH": f"{project / 'bin'}:{os.environ['PATH']}", "NUMBER": "7", "PROPOSED": proposed,
                   "GITHUB_STEP_SUMMARY": str(project / "summary"), "GITHUB_REPOSITORY": "a/b", "HOME": str(project)}
    for step in yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]["report"]["steps"][1:]:
        subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=clone, env=environment, check=True)
    text = (clone / "report.md").read_text("utf-8")
    assert "1 measured number moved: **1 outside the old 95% interval**." in text
    assert "published" not in text
    assert (project / "summary").read_text("utf-8") == text
    posted = (project / "summary.gh").read_text().strip()
    assert posted == "pr comment 7 --repo a/b --edit-last --create-if-none --body-file report.md"
