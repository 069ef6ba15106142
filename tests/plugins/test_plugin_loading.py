"""Airflow's plugin loader executes files and registers them under their bare names; ours must not get in the way.

In an interpreter of its own: what is asked is which modules were replaced by loading plugins, and this one has long
loaded them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"

LOAD = """
import json, sys
from airflow import plugins_manager

plugins_manager.ensure_plugins_loaded()
plugins, errors = plugins_manager._get_plugins()
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.copy().items()}
print(json.dumps({"plugins": [plugin.name for plugin in plugins], "errors": errors, "files": files}))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    place = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS), "EVERGREEN_MLFLOW_URL": "http://127.0.0.1:5000"}
    found = subprocess.run([sys.executable, "-c", LOAD], env=os.environ | place, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def ours(loaded) -> set[str]:
    """Every loaded module whose file lies in our plugins folder."""
    return {name for name, file in loaded["files"].items() if file and Path(file).is_relative_to(PLUGINS)}


def test_ours_is_loaded_without_an_error(loaded):
    assert "evergreen" in loaded["plugins"]
    assert loaded["errors"] == {}


def test_the_loader_executes_one_file_of_ours_and_no_other_under_its_bare_name(loaded):
    bare = {name for name in ours(loaded) if not name.startswith("evergreen")}
    assert bare == set()
    assert "evergreen_plugin" in ours(loaded)


def test_no_file_of_ours_stands_where_a_library_should(loaded):
    stems = {path.stem for path in (PLUGINS / "evergreen").rglob("*.py")} - {"__init__"}
    assert {"errors", "assets", "job", "registry"} <= stems
    taken = {name for name in stems & set(loaded["files"]) if Path(loaded["files"][name]).is_relative_to(PLUGINS)}
    assert taken == set()


def test_the_standard_librarys_json_is_still_the_standard_librarys(loaded):
    assert loaded["files"]["json"] == json.__file__


def test_without_the_ignore_file_the_loader_would_execute_the_whole_package(tmp_path):
    """The guard is needed: this is what happens to a plugins folder that has none."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "mlflow.py").write_text("")
    place = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", LOAD], env=os.environ | place, capture_output=True, text=True)
    files = json.loads(found.stdout.splitlines()[-1])["files"]
    assert files["mlflow"] == str(tmp_path / "package" / "mlflow.py")
