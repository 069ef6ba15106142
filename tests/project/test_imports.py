"""Imports run one way. The contracts stand in pyproject.toml; what import-linter cannot see is checked here."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = sorted((ROOT / "dags").glob("**/*.py"))
CALCULATING = {
    "include.kernel.inference.statistics",
    "include.training.core.training_rows",
    *(f"include.gate.core.{name}" for name in ("checks", "gate")),
    *(
        f"include.monitoring.core.{name}"
        for name in ("profiles", "correlations", "data_quality", "drift", "performance")
    ),
}
CORES = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("include/*/core/[!_]*.py")}
LIGHT = sorted({*CORES, "include.manifest", "include.kernel.job", "include.kernel.ledger"} - CALCULATING)
WIRINGS = sorted(
    {f"include.{path.parent.name}.wiring" for path in ROOT.glob("include/*/wiring.py")} - {"include.serving.wiring"}
)
HEAVY = (
    "airflow",
    "evidently",
    "great_expectations",
    "httpx",
    "kubernetes",
    "mlflow",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "scipy",
    "sklearn",
)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]), "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_contract_about_imports_is_kept() -> None:
    linter = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    found = run(sys.executable, "-c", linter, "--no-cache", "--no-logo")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


def loaded_by(*modules: str) -> set[str]:
    told = f"import sys, {', '.join(modules)}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    found = run(sys.executable, "-c", told)
    assert found.returncode == 0, found.stderr
    return set(found.stdout.split())


def test_the_light_part_of_core_loads_nothing_heavy() -> None:
    assert {"include.manifest", "include.release.core.rollout"} <= set(LIGHT) and len(LIGHT) > 25
    assert loaded_by(*LIGHT) == set()


def test_the_part_of_core_that_calculates_loads_nothing_but_numpy_and_scipy() -> None:
    assert loaded_by(*CALCULATING) <= {"numpy", "scipy"}


def test_what_a_dag_file_may_open_loads_nothing_heavy_before_it_is_asked_for_something() -> None:
    assert loaded_by(*WIRINGS) == set() and len(WIRINGS) > 5


def test_the_variable_that_names_the_manifest_is_read_in_one_place() -> None:
    """By edges alone, as the contracts of import-linter hold; the embedded stack sets it for its programs."""
    readers = [path for part in ("include", "plugins", "dags") for path in (ROOT / part).rglob("*.py")]
    named = {
        path
        for path in readers
        if re.search(r"(environ\.get\(|environ\[|getenv\()\s*\"EVERGREEN_MANIFEST", path.read_text())
    }
    assert named == {ROOT / "include/manifest.py"}


def imported(path: Path) -> Iterator[str]:
    """Every module a file imports, anywhere in it; `from a import b` may mean the module a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def may_stand_in_a_dag_file(module: str) -> bool:
    if any(module.startswith(heavy) for heavy in CALCULATING):
        return False
    if module.split(".")[0] in ("airflow", "evergreen") or module.split(".")[0] in sys.stdlib_module_names:
        return True
    return module.startswith(("include.manifest", "include.kernel.")) or ".core." in module


@pytest.mark.parametrize("path", DAGS, ids=lambda path: path.name)
def test_a_dag_file_imports_airflow_our_operators_the_manifest_and_light_core_only(path: Path) -> None:
    assert [module for module in imported(path) if not may_stand_in_a_dag_file(module)] == []
