"""The built site, one for all tests, and a browser, one a module; with REQUIRE_ALL=1 a skipped test is a failure.

.ci/run sets REQUIRE_ALL: nothing is passed over in silence.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def build(source: Path, output: Path) -> tuple[Path, str]:
    """Build the book of a checkout; returns the folder of the pages, and the faults or an empty text."""
    options = ["--path-output", output, "--config", source / "book/_config.yml", "--toc", source / "book/_toc.yml"]
    program = Path(sys.executable).with_name("jupyter-book")
    command = [program, "build", source, *options, "-W", "-n", "--keep-going"]
    done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=300)
    return output / "_build" / "html", (done.stdout + done.stderr)[-4000:] if done.returncode else ""


def page_files(site: Path) -> list[Path]:
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    pages, faults = build(ROOT, tmp_path_factory.mktemp("book"))
    assert not faults, faults
    return pages


@pytest.fixture(scope="module", autouse=True)
def subnormal_numbers():
    """Training flushes them to zero for the whole process; hypothesis wants them."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="module")  # while it runs, so does an event loop: tests of other modules may want their own
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium found")
    import pdf

    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=pdf.BROWSER_OPTIONS)
        yield started
        started.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if os.environ.get("REQUIRE_ALL") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped although REQUIRE_ALL=1: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if os.environ.get("REQUIRE_ALL") == "1" and report.skipped:
        report.outcome, report.longrepr = "failed", f"skipped although REQUIRE_ALL=1: {report.longrepr[2]}"
    return report
