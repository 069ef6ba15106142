"""Mapped tasks as Airflow runs them: the searches of a training, and the days of the monitor.

As in test_loop, by `dag.test()`, and of each DAG the mapped task and the job behind it only.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from include.data.wiring import open_snapshot_store
from include.manifest import read_manifest
from include.monitoring.wiring import open_report_store
from include.registry.wiring import open_registry
from tests.job_world import FIRST, LAST, go_live, publish

ROOT = Path(__file__).resolve().parents[2]
SEARCHED = {"trials": 4, "space": {"logistic": {"C": {"low": 0.01, "high": 10.0, "log": True}}}}


@pytest.fixture
def play(small, mlflow_url, airflow_database, monkeypatch):
    """Runs two tasks of a DAG; gives their task instances."""
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", mlflow_url)
    small(
        name="credit-fan-out",
        **{"train.candidates": {"logistic": {"C": 1.0}}, "train.tuning": SEARCHED},
        fan_out={"tuning": 2, "profiles": 2},
    )
    bag = DagBag(str(ROOT / "dags"))
    assert bag.import_errors == {}

    def played(dag_id, *task_ids, **conf):
        part = bag.dags[dag_id].partial_subset(task_ids, include_upstream=False)
        part.deadline = None  # see test_loop
        return part.test(run_conf=conf).get_task_instances()

    return played


def ended(tasks):
    return sorted((task.task_id, task.map_index, str(task.state)) for task in tasks)


@pytest.mark.timeout(600)  # six tasks with a process each, one after the other
def test_mapped_tasks_make_the_pieces_that_the_job_behind_them_finds(play):
    for number in range(4):
        publish(open_snapshot_store(), read_manifest(), FIRST + timedelta(days=number))
    objects, told = open_snapshot_store().objects, {}

    tasks = play("train", "tune", "train", as_of=str(LAST))
    assert ended(tasks) == [("train", -1, "success"), ("tune", 0, "success"), ("tune", 1, "success")]
    assert len(objects.list_keys("pieces/tuning/")) == 2
    for task in tasks:
        told[task.task_id, task.map_index] = task.xcom_pull(task_ids=task.task_id, map_indexes=task.map_index)
    assert [told["tune", index]["outputs"]["trials"] for index in (0, 1)] == [2, 2]
    assert {task.rendered_map_index for task in tasks if task.task_id == "tune"} == {"1 of 2", "2 of 2"}

    go_live(open_registry(read_manifest().name), told["train", -1]["outputs"]["run_id"])
    tasks = play("monitor", "profile", "measure", as_of=str(LAST))
    assert ended(tasks) == [("measure", -1, "success"), ("profile", 0, "success"), ("profile", 1, "success")]
    assert len(objects.list_keys("pieces/profiles/")) == 4
    assert [report.rows > 0 for report in open_report_store().read_reports()] == [True]
