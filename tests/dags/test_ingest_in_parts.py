"""The ingest DAG on one machine and on several: the tasks it has, and the pods they become."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.kernel import work_units
from include.kernel.job import REQUEST_VARIABLE, JobRequest
from tests.dags.conftest import ROOT
from tests.plugins.conftest import context


@pytest.fixture
def parsed(small):
    def parse(tasks: int, **changes: Any) -> Any:
        from airflow.dag_processing.dagbag import DagBag

        small(**{"fan_out.validation": tasks, **changes})
        bag = DagBag(str(ROOT / "dags" / "ingest.py"))
        assert bag.import_errors == {}
        return bag.dags["ingest"]

    return parse


def test_on_one_machine_no_task_stands_before_ingest(parsed):
    dag = parsed(1)
    assert dag.task_ids == ["ingest", "announce"]
    assert dag.get_task("ingest").upstream_task_ids == set()


def test_on_several_as_many_tasks_stand_before_it_and_none_of_them_can_hold_it_up(parsed):
    dag = parsed(3)
    part = dag.get_task("validate_part")
    assert part.is_mapped
    assert dag.get_task("ingest").upstream_task_ids == {"validate_part"}
    assert dag.get_task("ingest").trigger_rule == "all_done"
    day = dag.get_task("ingest").job_params["day"]
    assert [each["day"] for each in part.expand_input.value["job_params"]] == [day] * 3


def test_each_pod_has_a_name_of_its_own_and_reads_its_shard(parsed):
    part = parsed(3, target="kubernetes", **{"jobs.resources": RESOURCES}).get_task("validate_part")
    pods = []
    for index, params in enumerate(part.expand_input.value["job_params"]):
        task = part.unmap({"job_params": {**params, "day": "2026-08-02"}})
        task.prepare({**context(params={"scenario": None}), "ti": SimpleNamespace(map_index=index)})
        pods.append(task.build_pod_request_obj(dry_run=True))
    assert len({pod.metadata.name for pod in pods}) == 3
    assert all(pod.metadata.name.startswith("evergreen-validate-") for pod in pods)
    bases = [next(each for each in pod.spec.containers if each.name == "base") for pod in pods]
    sent = [next(each.value for each in base.env if each.name == REQUEST_VARIABLE) for base in bases]
    asked = [JobRequest.model_validate_json(each) for each in sent]
    assert [work_units.read_shard(request) for request in asked] == work_units.list_shards(3)
    assert {request.params["day"] for request in asked} == {"2026-08-02"}
    assert {base.resources.requests["memory"] for base in bases} == {"7Gi"}


RESOURCES = {"default": {"cpu": "1", "memory": "2Gi"}, "validate": {"cpu": "2", "memory": "7Gi"}}
