"""A job spread over mapped tasks, as processes and as pods."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from evergreen.operators.job import make_mapped_job
from include.kernel import work_units
from include.kernel.job import REQUEST_VARIABLE, JobRequest
from include.manifest import read_manifest
from tests.plugins.conftest import context


def mapped(shards: int = 3):
    with DAG("a_dag"):
        return make_mapped_job(
            read_manifest(),
            "spread",
            job="train",
            shards=shards,
            params_from=["columns"],
            job_params={"day": "{{ ds }}"},
        )


def tasks(mapped):
    """The tasks Airflow makes of it, in the order of their map index."""
    return [mapped.unmap({"job_params": each}) for each in mapped.expand_input.value["job_params"]]


def test_there_are_as_many_tasks_as_shards_and_each_is_told_which_it_is(small):
    small()
    whole = mapped()
    assert [task.job_params for task in tasks(whole)] == [
        {"day": "{{ ds }}", "shard": index, "shards": 3} for index in range(3)
    ]
    assert {type(task).__name__ for task in tasks(whole)} == {"LocalJobOperator"}


@pytest.mark.parametrize("target", ["local", "kubernetes"])
def test_each_has_an_end_and_hands_on_the_form(small, target):
    small(target=target, **{"jobs.timeout_minutes": 7})
    for task in tasks(mapped()):
        assert (task.execution_timeout.total_seconds(), task.params_from) == (420, ("columns",))


def test_each_pod_has_a_name_of_its_own_and_carries_its_shard(small):
    small(target="kubernetes")
    pods = []
    for index, task in enumerate(tasks(mapped())):
        task.prepare({**context(params={"columns": ["Age"]}), "ti": SimpleNamespace(map_index=index)})
        pods.append(task.build_pod_request_obj(dry_run=True))
    names = [pod.metadata.name for pod in pods]
    assert [name.rsplit("-", 1)[1] for name in names] == ["0", "1", "2"]
    assert len({name.rsplit("-", 1)[0] for name in names}) == 1 and max(map(len, names)) <= 63
    sent = [next(v.value for c in pod.spec.containers for v in c.env if v.name == REQUEST_VARIABLE) for pod in pods]
    requests = [JobRequest.model_validate_json(each) for each in sent]
    assert [work_units.read_shard(request) for request in requests] == work_units.list_shards(3)
    assert {request.params["columns"][0] for request in requests} == {"Age"}
    assert len({request.run_key for request in requests}) == 1
    assert len({pod.metadata.labels["evergreen/request"] for pod in pods}) == 3
