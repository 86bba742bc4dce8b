"""Copy the chapters' `#@export models/x.py` cells into recsys_utils/models/x.py, where later chapters import them.

    python tools/export.py            # write the modules
    python tools/export.py --check    # exit 1 and name each module that is not what the chapters say
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"#\s*@export\b[ \t]*(?P<target>[^\n]*)\n?")
TARGET = re.compile(r"models/[a-z][a-z0-9_]*\.py")


def modules(root: Path = ROOT) -> dict[str, str]:
    """Text of each exported module by its path below recsys_utils.

    Raises ValueError for a target outside models/ and for a module that two chapters write.
    """
    chapters: dict[str, Path] = {}
    bodies: dict[str, list[str]] = {}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"], start=1):
            source = "".join(cell["source"])
            mark = MARK.match(source)
            if cell["cell_type"] != "code" or mark is None:
                continue
            target = mark["target"].strip()
            if not TARGET.fullmatch(target):
                raise ValueError(
                    f"{path.name}, cell {number}: cannot export to {target!r}; "
                    "the first line must read '#@export models/name.py' with a lower-case name"
                )
            if chapters.setdefault(target, path) != path:
                raise ValueError(
                    f"{path.name}, cell {number}: {target} is already written by {chapters[target].name}; "
                    "a module has one chapter, so import it from there or choose another name"
                )
            bodies.setdefault(target, []).append(source[mark.end():].strip())
    return {
        target: (
            f"# Exported from notebooks/{chapters[target].name}; edit there.\n"
            f'"""Written in chapter {chapters[target].stem[:2]}, where it is explained line by line."""\n\n'
            + "\n\n\n".join(body) + "\n"
        )
        for target, body in bodies.items()
    }


def stale(root: Path = ROOT) -> list[str]:
    """One message for each module below recsys_utils/models that differs from the chapters."""
    wanted = modules(root)
    folder = root / "recsys_utils"
    found = []
    for target, text in wanted.items():
        if not (folder / target).exists():
            found.append(f"recsys_utils/{target} is missing: run `make export`")
        elif (folder / target).read_text("utf-8") != text:
            found.append(f"recsys_utils/{target} is not what its chapter exports: edit the chapter, run `make export`")
    for path in sorted((folder / "models").glob("*.py")):
        if path.name != "__init__.py" and f"models/{path.name}" not in wanted:
            found.append(f"recsys_utils/models/{path.name} is exported by no chapter: remove it or add its cell")
    return found


def write(root: Path = ROOT) -> list[str]:
    """Write every module that is not current and remove those without a chapter; returns what was done."""
    wanted = modules(root)
    done = []
    for path in sorted((root / "recsys_utils" / "models").glob("*.py")):
        if path.name != "__init__.py" and f"models/{path.name}" not in wanted:
            path.unlink()
            done.append(f"removed recsys_utils/models/{path.name}")
    for target, text in wanted.items():
        path = root / "recsys_utils" / target
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            done.append(f"wrote recsys_utils/{target}")
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a module is not current")
    arguments = parser.parse_args()
    try:
        lines = stale() if arguments.check else write()
    except ValueError as error:
        sys.exit(str(error))
    print("\n".join(lines) if lines else "every exported module is current")
    return int(arguments.check and bool(lines))


if __name__ == "__main__":
    sys.exit(main())
