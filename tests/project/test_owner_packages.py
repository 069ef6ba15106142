"""Each package the owner named is imported on a path that users run: from a DAG, a job, the server or a command."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.kernel.code_digest import ROOT, find_imported_files
from include.kernel.job import JOBS

DAGS = tuple(f"dags.{path.stem}" for path in sorted((ROOT / "dags").glob("*.py")))
JOB_ENTRIES = tuple(f"include.{place}.jobs.{job}" for job, place in JOBS.items())
PLUGINS = ROOT / "plugins"
# package -> who loads it, and where a user starts that: `make up` and the Airflow UI, `make demo`, a pod
USED = {
    "airflow": DAGS,
    "airflow.providers.cncf.kubernetes": ("evergreen.operators.job",),
    "mlflow": ("include.training.jobs.train",),
    "pandas": ("include.training.jobs.train",),
    "sklearn": ("include.training.jobs.train",),
    "torch": ("include.training.jobs.train",),
    "shap": ("include.training.jobs.train", "include.serving.explain.explainer"),
    "scipy": ("include.gate.jobs.evaluate", "include.monitoring.jobs.monitor"),
    "evidently": ("include.monitoring.jobs.monitor",),
    "great_expectations": ("include.data.jobs.ingest",),
    "boto3": ("include.data.jobs.ingest", "include.serving.__main__"),
}


def list_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def find_files(entry: str) -> set[Path]:
    """Of include, and of the plugins where the entry is Airflow's."""
    return find_imported_files((entry,), ROOT if entry.startswith(("include.", "dags.")) else PLUGINS)


@pytest.mark.parametrize(("package", "entry"), [(package, entry) for package, es in USED.items() for entry in es])
def test_a_package_the_owner_named_is_loaded_where_users_start(package: str, entry: str) -> None:
    imported = {name for path in find_files(entry) for name in list_imports(path)}
    assert any(name == package or name.startswith(f"{package}.") for name in imported)


def test_every_entry_is_one_that_is_started() -> None:
    assert {entry for entries in USED.values() for entry in entries if ".jobs." in entry} <= {*JOB_ENTRIES}
