"""The loop once around: days in, a model out, and its version on an answer through the proxy.

The DAGs run by `dag.test()`, which runs each task as the task runner would and needs no scheduler. It knows no asset
schedules, so what an event carries is read from the task that sends it and handed over as conf.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from include.data.wiring import open_snapshot_store
from include.kernel.wiring import open_ledger
from include.manifest import Manifest, read_manifest
from include.model.blessing.blessing import compute_envelope_digest, parse_public_keys, verify
from include.registry.wiring import open_registry
from tests import credit

ROOT = Path(__file__).resolve().parents[2]
FIRST = date(2026, 8, 1)
DAYS = 2  # of three large ones: one to train on, one to judge by
Play = Callable[..., Any]


@pytest.fixture
def world(
    serving: Any, mlflow_url: str, small: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """What a task of the embedded stack sees, with a store of its own and the rows dealt into large days."""
    for name, value in serving.stack.build_env().items():
        if name.startswith(("EVERGREEN_", "AIRFLOW_CONN_BLESSING_")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", mlflow_url)
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))
    small(name="credit-loop", **{"source.days": 3, "train.window_days": DAYS})
    return serving


@pytest.fixture
def play(world: Any, airflow_database: None) -> Play:
    """Runs a DAG with this conf; gives its run."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"))
    assert bag.import_errors == {}

    def played(dag_id: str, **conf: Any) -> Any:
        bag.dags[dag_id].deadline = None  # Airflow 3.3's dag.test() stores no deadline, and fails when it looks for it
        return bag.dags[dag_id].test(run_conf=conf)

    return played


def states(run: Any) -> dict[str, str]:
    return {task.task_id: str(task.state) for task in run.get_task_instances()}


def returned(run: Any, task_id: str) -> Any:
    """What the task returned, which for those that send an event is what it carries."""
    [task] = [task for task in run.get_task_instances() if task.task_id == task_id]
    return task.xcom_pull(task_ids=task_id)


def served_as_blessed(world: Any, registry: Any, signed: str) -> str:
    """The slot names the very blessing that the registry holds, and the run its model card; the model's digest."""
    blessing = verify(signed, parse_public_keys(world.stack.settings.trusted_keys.read_text()), registry.name, "1")
    assert world.describe()["blessing"] == compute_envelope_digest(signed)
    with registry.open_client() as client:
        assert "card/model_card.html" in [file.path for file in client.list_artifacts(blessing.run_id, "card")]
    return blessing.digest


def scored_as_served(play: Any, world: Any, digest: str) -> None:
    """What the score DAG writes is what the server answers."""
    run = play("score", day=str(FIRST), until=str(FIRST + timedelta(days=DAYS)))
    assert states(run) == {"pin": "success", "score": "success", "announce": "success"}
    told = returned(run, "announce")
    assert (told["version"], told["digest"], len(told["uris"])) == ("1", digest, DAYS)
    rows = open_snapshot_store().read_rows(open_snapshot_store().list_snapshots()[:1])
    inputs = rows[[column.name for column in credit.columns()]].head(50).replace({np.nan: None})
    served, _ = world.scores(inputs.to_dict("records"))
    scores = pl.read_parquet(f"{told['uris'][0]}/*.parquet")["score"]
    assert np.allclose(scores[:50], served, rtol=0, atol=1e-9)


@pytest.mark.timeout(600)  # seven tasks with a process each, one after the other
def test_days_in_a_model_out_and_its_version_on_an_answer(play, world):
    for number in range(DAYS):
        day = FIRST + timedelta(days=number)
        run = play("ingest", day=str(day), as_of=str(day + timedelta(days=1)))
        assert states(run) == {"ingest": "success", "announce": "success"}
        assert returned(run, "announce")["intent"] == "live"
    assert [snapshot.day.day for snapshot in open_snapshot_store().list_snapshots()] == [1, 2]

    run = play("train", as_of=str(FIRST + timedelta(days=DAYS)), reason="the loop's test")
    done = dict.fromkeys(("train", "evaluate", "gate", "bless"), "success")
    assert states(run) == {**done, "approve": "skipped"}  # it passed, so nobody was asked

    assert world.ask().status_code == 503
    run = play("deploy", version=returned(run, "bless")["version"])
    assert set(states(run).values()) == {"success"}

    assert world.ask(credit.rows()[7]).json()["version"] == "1"
    registry = open_registry(read_manifest().name, os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"])
    assert registry.find_champion() == "1"
    signed = registry.fetch_blessing("1")
    digest = served_as_blessed(world, registry, signed)
    scored_as_served(play, world, digest)
    registry.bless("1", signed.replace("a", "b"))
    assert states(play("deploy", version="1", why="the tag was altered"))["want"] == "failed"
    assert world.target.read_desired_state().generation == 1

    assert [entry.what for entry in open_ledger().read_entries()] == [
        "model.trained",
        "gate.passed",
        "model.blessed",
        "deploy.wanted",
        "release.soaking",
        "release.done",
        "release.live",
        "deploy.refused",
    ]
