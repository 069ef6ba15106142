"""The DAG files load, keep the house's policy, and are cheap to load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dags").glob("**/*.py"))
IDS = {"ingest", "train", "deploy", "monitor", "watch", "retrain", "rollback", "score"}
HEAVY = (
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "mlflow",
    "torch",
    "evidently",
    "great_expectations",
    "shap",
    "kubernetes",
)
OURS = ("assets", "dag_defaults", "operators", "sensors")


def test_every_dag_file_loads_and_there_are_eight_dags(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) == IDS


def test_a_dag_file_holds_the_dag_of_its_name(bag):
    assert {dag_id: Path(dag.fileloc).stem for dag_id, dag in bag.dags.items()} == {name: name for name in IDS}


@pytest.mark.parametrize("dag_id", sorted(IDS))
class TestPolicy:
    def test_it_says_what_it_is_for(self, bag, dag_id):
        doc = bag.dags[dag_id].doc_md
        assert doc.strip().startswith("### ")
        assert len(doc.split()) >= 20

    def test_it_is_tagged_with_the_house_and_the_model(self, bag, dag_id):
        assert {"evergreen", "credit-risk"} < set(bag.dags[dag_id].tags)

    def test_its_owner_can_be_written_to(self, bag, dag_id):
        dag = bag.dags[dag_id]
        assert set(dag.owner_links) == {dag.owner} == {task.owner for task in dag.tasks}
        assert all(link.startswith("mailto:") for link in dag.owner_links.values())

    def test_history_is_asked_for_and_never_catches_up_by_itself(self, bag, dag_id):
        assert bag.dags[dag_id].catchup is False

    def test_few_runs_are_active_at_a_time(self, bag, dag_id):
        assert 1 <= bag.dags[dag_id].max_active_runs <= 4

    def test_every_task_retries_what_is_temporary_with_growing_pauses(self, bag, dag_id):
        for task in bag.dags[dag_id].tasks:
            assert task.retries >= 1, task.task_id
            assert task.retry_exponential_backoff, task.task_id

    def test_every_task_stands_for_an_operator_that_says_what_it_does(self, bag, dag_id):
        for task in bag.dags[dag_id].tasks:
            assert task.doc_md or type(task).__doc__ or sys.modules[type(task).__module__].__doc__, task.task_id

    def test_every_field_of_its_form_has_a_title_and_an_explanation_and_may_stay_empty(self, bag, dag_id):
        dag = bag.dags[dag_id]
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.schema["title"] and param.description, name
            assert "null" in param.schema["type"] and dag.params[name] is None, name


def test_a_job_has_an_end_even_when_it_hangs(bag):
    jobs = [task for dag in bag.dags.values() for task in dag.tasks if hasattr(task, "job")]
    assert {task.job for task in jobs} == {"ingest", "train", "evaluate", "monitor", "backtest", "score"}
    assert all(task.execution_timeout for task in jobs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dag_file_fits_on_a_screen(path):
    assert len(path.read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dag_file_imports_airflow_the_house_and_the_manifest_only(path):
    assert [name for name in imported(path) if not allowed(name)] == []


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(name: str) -> bool:
    first, *rest = name.split(".")
    if first in sys.stdlib_module_names or name == "include.manifest.read_manifest":
        return True
    if first == "evergreen":
        return rest[0] in OURS
    return name.startswith(("airflow.sdk.", "airflow.timetables."))


@pytest.mark.parametrize(
    "name",
    ["airflow.models.DAG", "evergreen.hooks.connections.ConnectionsHook", "include.training.jobs.train", "pandas"],
)
def test_the_rule_about_imports_would_notice(name):
    assert not allowed(name)


def test_loading_every_dag_file_loads_nothing_heavy():
    """In an interpreter of its own, since this one has loaded everything by now."""
    code = f"""
import runpy, sys
for path in {[str(path) for path in FILES]!r}:
    runpy.run_path(path)
print("heavy:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1].split() == ["heavy:"]


def test_no_form_shows_the_word_null(bag) -> None:
    for dag in bag.dags.values():
        for name in dag.params:
            schema = dag.params.get_param(name).schema
            assert None not in schema.get("enum", []) or schema["values_display"]["null"], (dag.dag_id, name)


def test_the_cleared_runs_of_every_dag_with_a_deadline_are_watched(bag) -> None:
    assert set(bag.dags["monitor"].get_task("reconcile").watched) == {d for d, dag in bag.dags.items() if dag.deadline}
