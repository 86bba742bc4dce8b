"""The install cell in Colab: it must leave what Colab has as it is, and take less than a minute.

    python tools/colab.py    # in Colab's own image (weekly): install the package as the cell does, complain, exit 1

What Colab has stands in tools/colab.txt. `stand_in` makes an environment that holds those versions in name only: pip
decides there what it would install, as it would in Colab, without a gigabyte of TensorFlow.
"""

import json
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from check import CHAPTER_EXTRAS, ROOT

PREINSTALLED = ROOT / "tools" / "colab.txt"
MOST_SECONDS = 60
OWN = "recsys-utils"


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def preinstalled() -> dict[str, str]:
    """Version by name of what Colab has, as far as the package and what it needs are concerned."""
    lines = PREINSTALLED.read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def stand_in(folder: Path, packages: Mapping[str, str]) -> Path:
    """Interpreter of a new environment in which pip sees `packages`: by name, a version or a METADATA file's text."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    for name, known in packages.items():
        in_name_only = f"Metadata-Version: 2.1\nName: {name}\nVersion: {known}\n"
        text = known if known.startswith("Metadata-Version:") else in_name_only
        version = next(line.split(": ")[1] for line in text.splitlines() if line.startswith("Version: "))
        info = site / f"{canonical(name).replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(text, "utf-8")
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").touch()
    return python


def install(python: Path | str, package: str, *options: str) -> tuple[float, dict[str, str]]:
    """Seconds that `pip install package` takes, and the version of each package it installs, by name.

    Raises subprocess.CalledProcessError, with pip's words in `stderr`, when pip finds no solution.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--report", report, package]
        start = time.perf_counter()
        subprocess.run([*command, *options], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        chosen = [entry["metadata"] for entry in json.loads(report.read_text("utf-8"))["install"]]
    return seconds, {canonical(package["name"]): package["version"] for package in chosen}


def replaced(before: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """`name old → new` for each package that was there before."""
    return [f"{name} {before[name]} → {version}" for name, version in sorted(installed.items())
            if name in before and name != OWN]


def main() -> int:
    if sys.argv[1:]:
        sys.exit(__doc__)
    before = {canonical(package.name): package.version for package in metadata.distributions()}
    seconds, installed = install(sys.executable, f"{ROOT}{CHAPTER_EXTRAS}")
    print(f"installed {len(installed)} packages in {seconds:.0f} s: {installed}")
    for name, version in preinstalled().items():
        if before.get(name) != version:
            print(f"{PREINSTALLED.relative_to(ROOT)} says {name} {version}, here is {before.get(name)}: correct it")
    problems = [f"the install cell replaces {change}" for change in replaced(before, installed)]
    if seconds >= MOST_SECONDS:
        problems.append(f"the install cell takes {seconds:.0f} s, {MOST_SECONDS} are allowed")
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
