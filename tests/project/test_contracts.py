"""Each contract about imports notices when it is broken: once each, in a copy, by one import that it forbids."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
BREACHES = {
    "Nothing under include knows Airflow": ("include/kernel/errors.py", "import airflow"),
    "Slices stand in one order, and each imports only what stands below it": (
        "include/kernel/errors.py",
        "import include.data.spec",
    ),
    "No circle among siblings at any depth, lazy and type-only imports counted": (
        "include/data/core/contract.py",
        "def late() -> None:\n    import include.data.validation.polars_validator",
    ),
    "Cores decide and talk to nobody": ("include/release/core/rollout.py", "import httpx"),
    "Nobody but a job uses what needs numpy to decide": (
        "include/release/core/rollout.py",
        "import include.kernel.inference.statistics",
    ),
    "Edges alone read the manifest": ("include/release/service/driver.py", "import include.manifest"),
    "Edges alone open what a slice works with; below them it is passed in": (
        "include/training/fitting.py",
        "import include.data.wiring",
    ),
    "Operators wait, triggers watch, hooks reach out": (
        "plugins/evergreen/hooks/connections.py",
        "import evergreen.triggers.poll",
    ),
    "Use cases of a release drive targets, targets keep what the core decides": (
        "include/release/targets/base.py",
        "import include.release.service.driver",
    ),
    "Use cases know what a target is, and not which ones there are": (
        "include/release/service/driver.py",
        "import include.release.targets.local.target",
    ),
    "Commands ask the stack, the stack asks its configuration": (
        "include/embedded/stack/health.py",
        "import include.embedded.commands.history",
    ),
    "Airflow starts jobs and servers, and never imports them": (
        "plugins/evergreen/operators/gate.py",
        "import include.serving.app",
    ),
    "The embedded stack is one way to run Evergreen: nothing but itself depends on it": (
        "include/release/service/driver.py",
        "import include.embedded.stack",
    ),
}


def test_a_breach_is_known_of_every_contract() -> None:
    assert {contract["name"] for contract in CONTRACTS} == {*BREACHES}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for part in ("include", "plugins"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__", "*.csv"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BREACHES)
def test_a_contract_that_is_broken_is_told_by_its_name(copy: Path, name: str) -> None:
    place, forbidden = BREACHES[name]
    with (copy / place).open("a") as module:
        module.write(f"\n\n{forbidden}\n")
    linter = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "plugins")]), "COLUMNS": "200"}
    command = [sys.executable, "-c", linter, "--no-cache", "--no-logo"]
    found = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout + found.stderr
    assert f"{name} BROKEN" in found.stdout
