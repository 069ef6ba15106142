"""A day of five files, ingested by the real DAG with three mapped tasks and with none: one snapshot.

The DAG runs by `dag.test()`: each task as the task runner would run it, its job as a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from include.data.wiring import open_snapshot_store
from include.manifest import DEFAULT_PATH, Manifest, load
from tests.delivered import read_day

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2026, 8, 1)
FILES = 5


@pytest.fixture
def play(small: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow_database: None):
    """Runs the DAG with so many tasks, in a store of its own."""
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "http://127.0.0.1:9")  # every job is told; these never ask it

    def played(tasks: int) -> Any:
        monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / f"store-{tasks}"))
        source = {"kind": "files", "path": f"{tmp_path}/in/{{day}}/*.csv"}
        small(source=source, **{"fan_out.validation": tasks, "contract.max_quarantined": 0.05})
        bag = DagBag(str(ROOT / "dags"))
        assert bag.import_errors == {}
        dag = bag.dags["ingest"]
        dag.deadline = None  # Airflow 3.3's dag.test() stores no deadline, and fails when it looks for it
        return dag.test(run_conf={"day": str(DAY), "as_of": "2026-08-02"})

    return played


def deliver(place: Path) -> None:
    """Some hundred rows in five files; a row of the second and one of the last are bad."""
    rows = read_day(load(DEFAULT_PATH), DAY)
    rows.loc[[30, 100], "Age"] = 17
    place.mkdir(parents=True)
    size = -(-len(rows) // FILES)
    for number in range(FILES):
        rows.iloc[number * size : (number + 1) * size].to_csv(place / f"{number}.csv", index=False)


def states(run: Any) -> dict[tuple[str, int], str]:
    return {(task.task_id, task.map_index): str(task.state) for task in run.get_task_instances()}


def published() -> tuple[str, list[tuple[str, str]]]:
    [snapshot] = open_snapshot_store().list_snapshots()
    return snapshot.id, [(file.name, file.md5) for file in snapshot.files]


@pytest.mark.timeout(300)
def test_three_mapped_tasks_and_none_publish_the_same_day(play, tmp_path):
    deliver(tmp_path / "in" / str(DAY))
    run = play(3)
    parts = {("validate_part", index): "success" for index in range(3)}
    assert states(run) == {**parts, ("ingest", -1): "success", ("announce", -1): "success"}
    tasks = [task for task in run.get_task_instances() if task.task_id == "validate_part"]
    told = [task.xcom_pull(task_ids="validate_part", map_indexes=task.map_index) for task in tasks]
    assert sorted(each["outputs"]["parts"] for each in told) == [1, 2, 2]
    shared = published()
    assert states(play(1)) == {("ingest", -1): "success", ("announce", -1): "success"}
    assert published() == shared
