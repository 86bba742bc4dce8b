"""Links to other sites: the weekly check tries again, goes red, and every exception has a reason and a link it is for.

No test asks another host: a small book links to a server on this machine. Links inside the site are in test_site.py.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import check
from conftest import page_files
from loopback import serving

CONFIG = check.ROOT / "book" / "_config.yml"
WORKFLOW = check.ROOT / ".github" / "workflows" / "weekly.yml"
SETTINGS = {
    key: value for key, value in yaml.safe_load(CONFIG.read_text("utf-8"))["sphinx"]["config"].items()
    if key.startswith("linkcheck_")
}


def linkcheck(folder: Path, address: str) -> tuple[int, str]:
    """Exit status and output of the weekly check, with our settings, over a page with one link."""
    book = folder / "book"
    book.mkdir()
    config = {"title": "canary", "execute": {"execute_notebooks": "off"}, "sphinx": {"config": SETTINGS}}
    (book / "_config.yml").write_text(yaml.safe_dump(config), "utf-8")
    (book / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n", "utf-8")
    (book / "intro.md").write_text(f"# Canary\n\n[a link]({address})\n", "utf-8")
    steps = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]["links"]["steps"]
    words = next(step["run"] for step in steps if "linkcheck" in step.get("run", "")).split()
    assert words[:2] == [".venv/bin/jupyter-book", "build"]
    done = subprocess.run([Path(sys.executable).with_name("jupyter-book"), *words[1:]], cwd=folder,
                          capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("script", "passes"), [
    (["ok"], True),
    (["501", "503", "501", "ok"], True),  # HEAD is not answered here, so each try is two requests
    (["404"], False),
])
def test_the_weekly_check_tries_again_and_goes_red(tmp_path, script, passes):
    with serving(b"<html></html>", script) as server:
        status, output = linkcheck(tmp_path, f"{server.url}page")
        assert server.requests
    assert (status == 0) == passes, output[-2000:]


def test_every_ignored_address_has_a_reason_and_a_link(site):
    lines = CONFIG.read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == "linkcheck_ignore:")
    text = "".join(path.read_text("utf-8") for path in page_files(site))
    addresses = set(re.findall(r'href="(https?://[^"]+)"', text))
    assert SETTINGS["linkcheck_retries"] >= 2
    for order, pattern in enumerate(SETTINGS["linkcheck_ignore"]):
        reason, entry = lines[start + 1 + 2 * order : start + 3 + 2 * order]
        assert pattern in entry
        assert re.match(r"\s+# \w.{30,}\.$", reason), f"{pattern}: no reason in the line above it"
        assert any(re.match(pattern, address) for address in addresses), f"{pattern}: no page has such a link"
        assert "*" not in pattern
