"""The DAGs with and without fan-out: one mapped task before the job, or the DAG as it is on a laptop."""

from __future__ import annotations

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions.mappedoperator import MappedOperator

from tests.dags.conftest import ROOT

SEARCHED = {"trials": 9, "space": {"boosting": {"learning_rate": {"low": 0.01, "high": 0.3}}}}
TRAIN = {"train", "evaluate", "gate", "approve", "bless"}
MONITOR = {"measure", "announce", "reconcile"}


@pytest.fixture
def dag(small):
    """A DAG under a manifest with these changes."""

    def read(name, **changes):
        small(**changes)
        bag = DagBag(str(ROOT / "dags" / f"{name}.py"))
        assert bag.import_errors == {}
        return bag.dags[name]

    return read


def test_without_fan_out_there_is_no_task_for_it(dag):
    assert set(dag("train", **{"train.tuning": SEARCHED}).task_ids) == TRAIN
    assert set(dag("train", fan_out={"tuning": 4}).task_ids) == TRAIN  # nothing is searched
    assert set(dag("monitor").task_ids) == MONITOR


@pytest.mark.parametrize("target", ["local", "kubernetes"])
@pytest.mark.parametrize(
    ("name", "task_id", "waiting", "changes"),
    [
        ("train", "tune", "train", {"train.tuning": SEARCHED, "fan_out": {"tuning": 3}}),
        ("monitor", "profile", "measure", {"fan_out": {"profiles": 3}}),
    ],
)
def test_with_fan_out_one_mapped_task_comes_before_the_job_which_waits_for_its_end_and_not_for_its_success(
    dag, target, name, task_id, waiting, changes
):
    spread = dag(name, target=target, **{"release.shadow": {"enabled": False}}, **changes)
    assert set(spread.task_ids) == (TRAIN if name == "train" else MONITOR) | {task_id}
    mapped, after = spread.get_task(task_id), spread.get_task(waiting)
    assert isinstance(mapped, MappedOperator) and after.upstream_task_ids == {task_id}
    assert after.trigger_rule == "all_done"
    each = mapped.expand_input.value["job_params"]
    assert [(params["shard"], params["shards"]) for params in each] == [(shard, 3) for shard in range(3)]
    assert mapped.partial_kwargs["job"] == task_id and mapped.execution_timeout
    assert mapped.retries >= 1 and mapped.doc_md is None  # the operator says what it does


def test_no_more_tasks_search_than_there_are_trials(dag):
    spread = dag("train", **{"train.tuning": {**SEARCHED, "trials": 2}, "fan_out": {"tuning": 8}})
    assert len(spread.get_task("tune").expand_input.value["job_params"]) == 2
