"""The exported modules are what the chapters say, and each imports alone; every way to break that is found."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import export
from good_chapter import code, notebook

MODELS = sorted(path.stem for path in (export.ROOT / "recsys_utils" / "models").glob("[!_]*.py"))


def test_every_exported_module_is_current():
    assert export.stale() == []


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_module_imports_alone(name: str, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(export.ROOT)!r}); import recsys_utils.models.{name}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def check_module(name: str, text: str, chapters: dict[str, str]) -> None:
    """A module builds on modules of its own or earlier chapters only, and on one framework."""
    imported = set(re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.M))
    for names in re.findall(r"^from recsys_utils\.models import (.+)$", text, re.M):
        imported |= {f"recsys_utils.models.{other.strip()}" for other in names.split(",")}
    for other in imported & {f"recsys_utils.models.{other}" for other in chapters}:
        later = chapters[other.rpartition(".")[2]] > chapters[name]
        assert not later, f"{name} of chapter {chapters[name]} imports {other} of a later one"
    frameworks = {"torch" if module.startswith("torch") else "keras" for module in imported
                  if module.partition(".")[0] in {"torch", "keras", "tensorflow"}}
    assert len(frameworks) < 2, f"{name} imports {sorted(frameworks)}: one framework a module"


SOURCES = {name: (export.ROOT / "recsys_utils" / "models" / f"{name}.py").read_text("utf-8") for name in MODELS}
CHAPTERS = {name: re.match(r"# Exported from notebooks/(\d\d)_", text)[1] for name, text in SOURCES.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_module_builds_on_earlier_chapters_and_one_framework(name: str):
    check_module(name, SOURCES[name], CHAPTERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\nfrom keras import ops\n", "one framework a module"),
        ("from recsys_utils.models.late import f\n", "imports recsys_utils.models.late of a later one"),
        ("from recsys_utils.models import early, late\n", "imports recsys_utils.models.late of a later one"),
    ],
)
def test_canary_a_module_that_breaks_these_rules(text: str, message: str):
    with pytest.raises(AssertionError, match=message):
        check_module("early", text, {"early": "03", "late": "05"})


@pytest.fixture
def project(tmp_path) -> Path:
    """A project of one chapter that exports one module, in two cells."""
    (tmp_path / "recsys_utils" / "models").mkdir(parents=True)
    (tmp_path / "recsys_utils" / "models" / "__init__.py").touch()
    (tmp_path / "notebooks").mkdir()
    chapter(
        tmp_path,
        "04_neighbours",
        "#@export models/ease.py\nimport math",
        "x = 1",
        "#@export models/ease.py\ndef f():\n    return math.pi",
    )
    return tmp_path


def chapter(project: Path, name: str, *sources: str) -> None:
    content = notebook(*map(code, sources))
    (project / "notebooks" / f"{name}.ipynb").write_text(json.dumps(content), "utf-8")


def test_cells_are_copied_in_order(project):
    assert export.write(project) == ["wrote recsys_utils/models/ease.py"]
    text = (project / "recsys_utils" / "models" / "ease.py").read_text("utf-8")
    assert text.startswith('# Exported from notebooks/04_neighbours.ipynb; edit there.\n"""')
    assert text.endswith("import math\n\n\ndef f():\n    return math.pi\n")
    assert export.stale(project) == []
    assert export.write(project) == []


def test_a_module_not_written_yet_is_stale(project):
    assert export.stale(project) == ["recsys_utils/models/ease.py is missing: run `make export`"]


def test_a_module_edited_by_hand_is_stale(project):
    export.write(project)
    path = project / "recsys_utils" / "models" / "ease.py"
    path.write_text(path.read_text("utf-8").replace("math.pi", "math.e"), "utf-8")
    assert "recsys_utils/models/ease.py is not what its chapter exports" in export.stale(project)[0]


def test_a_chapter_edited_since_makes_the_module_stale(project):
    export.write(project)
    chapter(project, "04_neighbours", "#@export models/ease.py\nimport cmath")
    assert "recsys_utils/models/ease.py is not what its chapter exports" in export.stale(project)[0]


def test_a_module_without_a_chapter_is_stale_and_removed(project):
    export.write(project)
    (project / "notebooks" / "04_neighbours.ipynb").unlink()
    assert "recsys_utils/models/ease.py is exported by no chapter" in export.stale(project)[0]
    assert export.write(project) == ["removed recsys_utils/models/ease.py"]


@pytest.mark.parametrize(
    "target", ["metrics.py", "../x.py", "models/../metrics.py", "models/x/y.py", "models/X.py", ""]
)
def test_a_target_outside_models_is_an_error(project, target: str):
    chapter(project, "05_embeddings", f"#@export {target}\nx = 1")
    with pytest.raises(ValueError, match=r"05_embeddings\.ipynb, cell 1: cannot export to"):
        export.modules(project)


def test_two_chapters_may_not_write_one_module(project):
    chapter(project, "05_embeddings", "#@export models/ease.py\nx = 1")
    with pytest.raises(ValueError, match=r"models/ease\.py is already written by 04_neighbours\.ipynb"):
        export.modules(project)


def test_the_command_fails_and_names_the_module(project, monkeypatch, capsys):
    monkeypatch.setattr(export, "ROOT", project)
    monkeypatch.setattr(export.stale, "__defaults__", (project,))
    monkeypatch.setattr(sys, "argv", ["export.py", "--check"])
    assert export.main() == 1
    assert "recsys_utils/models/ease.py" in capsys.readouterr().out
