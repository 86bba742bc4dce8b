"""Importing the package is cheap, and the core stays small and free of models."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from core_checks import CORE_LIMIT, check_core_size, code_lines

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "recsys_utils"
CORE = [
    "datasets", "display", "evaluation", "interactions", "leaderboard", "metrics", "plots", "sampling", "simulators",
    "splits", "training",
]  # fmt: skip


def fresh(code):
    """What `code` prints as JSON in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(done.stdout)


def test_no_framework_is_imported():
    modules = ", ".join(f"recsys_utils.{name}" for name in CORE)
    loaded, all_loaded = fresh(
        "import sys, json, recsys_utils; loaded = sorted(sys.modules)\n"
        f"import {modules}; print(json.dumps([loaded, sorted(sys.modules)]))"
    )
    assert not {"torch", "tensorflow", "keras", "jax", "ranx", "pyspark", "recsys_utils.scale"} & set(all_loaded)
    assert not {"matplotlib", "sklearn", "IPython"} & set(loaded)  # the plain import brings none of these either


def test_import_takes_less_than_half_a_second():
    """Of CPU time, nearly all of it NumPy, SciPy and pandas: on a busy machine they alone can take as long."""
    code = """if True:
        import time
        started = time.process_time()
        import numpy, pandas, scipy.sparse
        libraries = time.process_time()
        import recsys_utils
        print([libraries - started, time.process_time() - libraries])
    """
    for _ in range(3):
        libraries, own = fresh(code)
        if own + libraries < 0.5:
            break
    assert own < 0.1, f"the package adds {own:.2f} s"
    assert own + libraries < 1.5  # 0.5 s where nothing else runs


def test_the_core_imports_no_model():
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = (getattr(node, "module", None) or "") if names else ""
            imported = [module, *names, *(f"{module}.{name}" for name in names)]
            wrong = [name for name in imported if name.startswith(("recsys_utils.models", "tools"))]
            assert not wrong, f"{path.name} imports {wrong[-1]}"


def test_the_core_stays_small():
    check_core_size(PACKAGE)


def test_canary_a_core_that_grew_is_caught(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "big.py").write_text("x = 1\n" * 5000)
    (tmp_path / "a.py").write_text('"""Doc."""\n\n# comment\n' + "x = 1\n" * (CORE_LIMIT - 1))
    check_core_size(tmp_path)
    (tmp_path / "b.py").write_text("x = 1\n")
    with pytest.raises(AssertionError, match=f"the core has {CORE_LIMIT} lines of code; the limit is {CORE_LIMIT}"):
        check_core_size(tmp_path)


def test_code_lines():
    source = '"""Module.\n\nDoc."""\n\nx = """a\nb"""  # text is code\n\n\n'
    source += 'def f(\n    a,\n):\n    """Doc."""\n    # why\n    return a\n'
    assert code_lines(source) == 2 + 3 + 1
