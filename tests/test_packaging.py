"""What is installed: the wheel, its data and its floors; the pinned environment; the repository's one address."""

import email
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import check
import notebooks
import recsys_utils
import repository

PROJECT = tomllib.loads((check.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINNED = {
    canonicalize_name(Requirement(line).name): Requirement(line)
    for line in (check.ROOT / "requirements.txt").read_text("utf-8").splitlines()
    if line and not line.startswith(("#", "-e"))
}


def test_the_chapters_environment_holds_what_is_declared_and_nothing_more():
    bare, full = check.asked_for(["recsys-utils"]), check.asked_for([f"recsys-utils{check.CHAPTER_EXTRAS}", "nbval"])
    assert {"numpy", "typing-extensions"} <= bare.keys() < full.keys()
    assert {"torch", "tensorflow", "h5py", "anyio", "ipykernel"} <= full.keys() - bare.keys()  # some through others
    assert not full.keys() & {"jupyterlab", "jupyter-book", "ranx", "hypothesis", "ruff", "psycopg-c"}
    with pytest.raises(check.metadata.PackageNotFoundError, match="no-such-package"):
        check.asked_for(["no-such-package"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    return zipfile.ZipFile(check.build_wheel(tmp_path_factory.mktemp("wheel") / "dist"))


def test_the_wheel_carries_the_data_and_the_results(wheel):
    for folder, place in (("data/ml-latest-small", "_data/ml-latest-small"), ("results", "_results")):
        files = [path for path in (check.ROOT / folder).rglob("*") if path.is_file()]
        assert files
        for path in files:
            inside = f"recsys_utils/{place}/{path.relative_to(check.ROOT / folder).as_posix()}"
            assert wheel.read(inside) == path.read_bytes()
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"recsys_utils", f"recsys_utils-{recsys_utils.__version__}.dist-info"}


def test_the_metadata_says_what_may_be_done_with_it(wheel):
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Version"] == recsys_utils.__version__
    assert "non-commercial" in metadata["Summary"]
    assert metadata["License-Expression"] == "MIT AND LicenseRef-MovieLens-non-commercial"
    licences = [name for name in wheel.namelist() if ".dist-info/licenses/" in name]
    assert any(name.endswith("LICENSE") for name in licences)
    assert any(name.endswith("ml-latest-small/README.txt") for name in licences)


def test_the_package_has_floors_only_and_no_framework():
    for line in [*PROJECT["dependencies"], *EXTRAS["torch"], *EXTRAS["tensorflow"], *EXTRAS["ann"]]:
        assert re.fullmatch(r"[a-z0-9-]+>=[\d.]+", line), line
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not names & {"torch", "tensorflow", "keras"}


def test_everything_declared_is_pinned_and_fits():
    extras = ["torch", "tensorflow", "site", "lab", "test"]
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]:
        wanted = Requirement(line)
        pin = PINNED[canonicalize_name(wanted.name)]
        (version,) = pin.specifier
        assert version.operator == "=="
        assert wanted.specifier.contains(version.version), f"{pin} does not satisfy {line}"


def test_jupyter_lab_of_the_environment_serves_the_chapters(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--allow-root"]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, cwd=check.ROOT, stdout=log, stderr=log, env={**os.environ, **folders})
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                page = f"http://127.0.0.1:{port}/api/contents/notebooks"
                with urllib.request.urlopen(page, timeout=10) as answer:
                    listing = answer.read().decode()
                break
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((tmp_path / "log").read_text("utf-8")[-2000:])
                time.sleep(0.5)
    finally:
        server.terminate()
        server.wait(timeout=30)
    assert "02_evaluation.ipynb" in listing


def test_requirements_are_exact_and_local_to_no_machine():
    lines = (check.ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert lines[-1] == "-e ."
    markers = r'; (sys_platform != "win32"|python_version < "3.14")'
    for line in lines[:-1]:
        assert line.startswith("#") or re.fullmatch(rf"[\w.-]+==[\w.]+({markers})?", line), line
    assert str(PINNED["torch"]) == "torch==2.13.0"


def test_importing_the_package_loads_no_framework_and_no_model():
    heavy = {"torch", "tensorflow", "keras", "pyspark", "recsys_utils.models", "recsys_utils.scale"}
    code = f"import sys, recsys_utils; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [check.sys.executable, "-c", code], cwd=check.ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_the_tag_is_the_version():
    assert repository.read().tag == f"v{recsys_utils.__version__}"


def test_there_is_no_stray_address():
    assert repository.strays() == []


@pytest.fixture
def copy(tmp_path):
    """A small project with a copy of the address in every place that has one."""
    shutil.copy(check.ROOT / "pyproject.toml", tmp_path)
    here = repository.read()
    (tmp_path / "README.md").write_text(f"See {here.url} and {here.url}/blob/{here.branch}/README.md.\n")
    (tmp_path / "_config.yml").write_text(f"repository:\n  url: {here.url}\n  branch: {here.branch}\n")
    (tmp_path / "chapter.md").write_text(f"[Colab]({here.colab('01_x')})\n{here.setup}")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "page.md").write_text("https://github.com/somebody/from-embeddings-to-endpoints")
    return tmp_path


def test_a_new_address_is_written_everywhere(copy):
    assert repository.strays(copy) == []
    new = repository.Repository("https://github.com/someone/a-book", "trunk", "v9.9.9")
    changed = repository.rewrite(new, copy)
    assert {path.name for path in changed} == {"pyproject.toml", "README.md", "_config.yml", "chapter.md"}
    assert repository.read(copy) == new
    assert repository.strays(copy) == []
    assert (copy / "README.md").read_text() == f"See {new.url} and {new.url}/blob/trunk/README.md.\n"
    assert (copy / "_config.yml").read_text() == f"repository:\n  url: {new.url}\n  branch: trunk\n"
    assert (copy / "chapter.md").read_text() == f"[Colab]({new.colab('01_x')})\n{new.setup}"


STRAYS = {
    "another owner": lambda here: here.url.replace(here.slug.split("/")[0], "somebody"),
    "another Colab branch": lambda here: here.colab("01_x").replace(f"/blob/{here.branch}/", "/blob/old/"),
    "another Colab repository": lambda here: here.colab("01_x").replace(here.slug, "somebody/else"),
    "another tag": lambda here: here.setup.replace(here.tag, "v0.0.1"),
    "another archive": lambda here: here.setup.replace(here.slug, "somebody/else"),
}


@pytest.mark.parametrize("why", STRAYS)
def test_a_stray_address_is_found(copy, why: str):
    (copy / "page.md").write_text("\n" + STRAYS[why](repository.read()))
    (found,) = repository.strays(copy)
    assert found.startswith("page.md:")


def test_the_setup_cell_does_nothing_away_from_colab():
    lines = repository.read().setup.splitlines()
    assert lines[2] == 'if "google.colab" in sys.modules:'
    assert notebooks.MAGIC.fullmatch(lines[3])
