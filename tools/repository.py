"""The public address of the repository: written once, in pyproject.toml; every other copy is rewritten by this tool.

    python tools/repository.py                                         # show it
    python tools/repository.py https://github.com/OWNER/NAME [--branch main] [--tag v0.1.0]
"""

import argparse
import re
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
HOST = "https://github.com/"
ADDRESS = re.compile(rf"{HOST}[\w-]+/[\w.-]+")


class Repository(NamedTuple):
    """Address (`https://github.com/owner/name`), branch that links point to, tag that Colab installs."""

    url: str
    branch: str
    tag: str

    @property
    def slug(self) -> str:
        return self.url.removeprefix(HOST)

    def colab(self, name: str) -> str:
        """Address that opens the chapter `name` in Colab."""
        return f"https://colab.research.google.com/github/{self.slug}/blob/{self.branch}/notebooks/{name}.ipynb"

    @property
    def setup(self) -> str:
        """The first lines of every chapter's first code cell: install the package, on Colab only."""
        return self.setup_with("")

    def setup_with(self, extras: str) -> str:
        """The same for a chapter that needs extras of the package: "" or "[all]"."""
        package = f"recsys-utils{extras} @ {self.url}/archive/refs/tags/{self.tag}.tar.gz"
        return f'import sys\n\nif "google.colab" in sys.modules:\n    %pip install -q "{package}"\n'


def read(root: Path = ROOT) -> Repository:
    """The address that `root`/pyproject.toml states."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    return Repository(project["project"]["urls"]["Repository"], **project["tool"]["book"])


def texts(root: Path = ROOT) -> dict[Path, str]:
    """Every text file of the project (tracked, or new and not ignored), by path."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
        paths = {root / name for name in listing if name}
    else:  # an unpacked source archive
        built = {".venv", "build", "dist", "_build"}
        paths = {path for path in root.rglob("*") if not built & set(path.relative_to(root).parts)}
    found = {}
    for path in sorted(paths):
        if path.is_file() and path.suffix not in {".png", ".npz"} and "data/ml-" not in path.as_posix():
            found[path] = path.read_bytes().decode("utf-8", errors="surrogateescape")
    return found


def rewrite(new: Repository, root: Path = ROOT) -> list[Path]:
    """Replace the old address, branch and tag in every file below `root`; returns the files that changed."""
    old = read(root)
    changed = []
    for path, text in texts(root).items():
        after = text.replace(old.slug, new.slug)
        for kinds, before, now in (
            ("blob|edit|tree", old.branch, new.branch),
            ("archive/refs/tags|releases/tag|tree|blob", old.tag, new.tag),
        ):
            link = rf"({re.escape(new.slug)}/(?:{kinds})/){re.escape(before)}\b"
            after = re.sub(link, rf"\g<1>{now}", after)
        if path.name in {"_config.yml", "pyproject.toml"}:
            after = re.sub(r"^(\s*branch\s*[:=]\s*\"?)[^\s\"]+", rf"\g<1>{new.branch}", after, flags=re.M)
        if path.name == "pyproject.toml":
            after = re.sub(r'^tag = ".*"', f'tag = "{new.tag}"', after, flags=re.M)
        if after != text:
            path.write_bytes(after.encode("utf-8", errors="surrogateescape"))
            changed.append(path)
    return changed


def strays(root: Path = ROOT) -> list[str]:
    """Copies of another address than the one in pyproject.toml, as `file:line: what stands there`."""
    here = read(root)
    name = re.escape(here.slug.split("/")[1])
    copies = re.compile(
        r"colab\.research\.google\.com/github/(?P<colab>[\w.-]+/[\w.-]+/blob/[^/\s]+)"
        rf"|recsys-utils @ {HOST}(?P<archive>[^\s\"\\]+)"
        rf"|(?:github\.com|github\.io)[:/](?P<owner>[\w-]+/{name})\b"
    )
    expected = {
        "colab": f"{here.slug}/blob/{here.branch}",
        "archive": f"{here.slug}/archive/refs/tags/{here.tag}.tar.gz",
        "owner": here.slug,
    }
    return [
        f"{path.relative_to(root)}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for path, text in texts(root).items()
        if "tests" not in path.relative_to(root).parts
        for match in copies.finditer(text)
        if "{" not in match[0] and match[match.lastgroup] != expected[match.lastgroup]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="new address, https://github.com/OWNER/NAME")
    parser.add_argument("--branch")
    parser.add_argument("--tag")
    arguments = parser.parse_args()
    old = read()
    url = (arguments.url or old.url).rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(url):
        parser.error(f"{url!r} is not of the form {HOST}OWNER/NAME, the only host Colab opens notebooks from")
    new = Repository(url, arguments.branch or old.branch, arguments.tag or old.tag)
    print(f"{new.url}, branch {new.branch}, tag {new.tag}")
    if new != old:
        for path in rewrite(new):
            print("rewrote", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
