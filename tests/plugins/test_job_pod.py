"""The pod a job becomes under the kubernetes target, built without a cluster."""

from __future__ import annotations

import json

import pytest

from evergreen.edge import job_request
from evergreen.operators.job import job_task
from evergreen.operators.job_pod import PodJobOperator
from include.core.job import DEFAULT_RESULT_PATH, REQUEST_VARIABLE, JobRequest
from tests.plugins.conftest import context

JOBS = ("ingest", "train", "evaluate", "monitor", "score")


@pytest.fixture
def manifest(small):
    resources = {"default": {"cpu": "1", "memory": "2Gi"}, "train": {"cpu": "3", "memory": "5Gi"}}
    return small(
        target="kubernetes",
        **{"jobs.image": "registry/job:7", "jobs.namespace": "credit", "jobs.resources": resources},
    )


def pod_of(job: str, **params):
    """As `execute` would build it, but for the cluster."""
    task = job_task(job, job=job, job_params=params)
    assert isinstance(task, PodJobOperator)
    task.request = job_request(context(), job, task.job_params)
    return task.build_pod_request_obj(dry_run=True)


def base(pod):
    return next(container for container in pod.spec.containers if container.name == "base")


@pytest.mark.parametrize("job", JOBS)
class TestEveryJob:
    def test_it_runs_the_manifests_image_in_the_manifests_namespace(self, manifest, job):
        pod = pod_of(job)
        assert (pod.metadata.namespace, base(pod).image) == ("credit", "registry/job:7")
        assert pod.metadata.name.startswith(f"evergreen-{job}")
        assert pod.metadata.labels["evergreen/job"] == job

    def test_it_runs_the_same_command_as_a_process_would(self, manifest, job):
        assert base(pod_of(job)).command == ["python", "-m", "include.jobs"]

    def test_its_request_reads_back_as_the_request_that_was_sent(self, manifest, job):
        [sent] = [variable for variable in base(pod_of(job, day="2026-08-02")).env if variable.name == REQUEST_VARIABLE]
        assert JobRequest.model_validate_json(sent.value) == job_request(context(), job, {"day": "2026-08-02"})

    def test_its_resources_are_the_manifests_and_it_gets_what_it_asks_for(self, manifest, job):
        wanted = manifest.jobs.resources_of(job).model_dump()
        resources = base(pod_of(job)).resources
        assert resources.requests == resources.limits == wanted

    def test_secrets_come_by_reference_and_no_value_stands_in_the_pod(self, manifest, job, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "http://user:hush-hush@mlflow:5000")
        container = base(pod_of(job))
        assert [source.config_map_ref.name for source in container.env_from if source.config_map_ref] == [
            "evergreen-jobs"
        ]
        assert [source.secret_ref.name for source in container.env_from if source.secret_ref] == ["evergreen-jobs"]
        assert {variable.name for variable in container.env} == {REQUEST_VARIABLE}
        assert "hush-hush" not in json.dumps(pod_of(job).to_dict(), default=str)

    def test_its_result_is_fetched_from_where_the_job_writes_it(self, manifest, job):
        pod = pod_of(job)
        [mount] = [mount for mount in base(pod).volume_mounts if DEFAULT_RESULT_PATH.startswith(mount.mount_path)]
        sidecar = next(container for container in pod.spec.containers if container.name != "base")
        assert mount.name in {each.name for each in sidecar.volume_mounts}


def test_a_retry_carries_one_request_and_not_two(manifest):
    task = job_task("train", job="train")
    task.request = job_request(context(), "train", {})
    task.build_pod_request_obj(dry_run=True)
    names = [variable.name for variable in base(task.build_pod_request_obj(dry_run=True)).env]
    assert names == [REQUEST_VARIABLE]


def test_training_may_have_more_than_the_rest(manifest):
    assert base(pod_of("train")).resources.requests == {"cpu": "3", "memory": "5Gi"}
    assert base(pod_of("evaluate")).resources.requests == {"cpu": "1", "memory": "2Gi"}


def test_a_failed_pod_stays_and_its_environment_is_not_printed(manifest):
    task = job_task("train", job="train")
    assert task.on_finish_action.value == "delete_succeeded_pod"
    assert task.log_pod_spec_on_failure is False
    assert (task.deferrable, task.do_xcom_push) == (True, True)


def test_the_local_target_makes_it_a_process(small):
    small()
    assert type(job_task("train", job="train")).__name__ == "LocalJobOperator"


@pytest.mark.parametrize("target", ["local", "kubernetes"])
def test_no_job_may_hang_for_ever(small, target):
    small(target=target, **{"jobs.timeout_minutes": 7})
    assert job_task("train", job="train").execution_timeout.total_seconds() == 420
