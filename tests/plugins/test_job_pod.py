"""The pod a job becomes under the kubernetes target, built without a cluster."""

from __future__ import annotations

import json

import pytest

from evergreen.operators.job import make_job_task
from evergreen.operators.job_pod import PodJobOperator
from evergreen.run_context import build_job_request
from include.kernel.job import ATTEMPT_VARIABLE, REQUEST_VARIABLE, JobRequest
from include.manifest import read_manifest
from tests.plugins.conftest import context

JOBS = ("ingest", "train", "evaluate", "monitor", "backtest", "score", "validate", "tune", "profile")


@pytest.fixture
def manifest(small):
    resources = {"default": {"cpu": "1", "memory": "2Gi"}, "train": {"cpu": "3", "memory": "5Gi"}}
    return small(
        target="kubernetes",
        **{"jobs.image": "registry/job:7", "jobs.namespace": "credit", "jobs.resources": resources},
    )


def pod_of(job: str, **params):
    """As `execute` would build it, but for the cluster."""
    task = make_job_task(read_manifest(), job, job=job, job_params=params)
    assert isinstance(task, PodJobOperator)
    task.prepare(context())
    return task.build_pod_request_obj(dry_run=True)


def base(pod):
    return next(container for container in pod.spec.containers if container.name == "base")


@pytest.mark.parametrize("job", JOBS)
class TestEveryJob:
    def test_it_runs_the_manifests_image_in_the_manifests_namespace(self, manifest, job):
        pod = pod_of(job)
        assert (pod.metadata.namespace, base(pod).image) == ("credit", "registry/job:7")
        assert pod.metadata.labels["evergreen/job"] == job

    def test_its_name_is_that_of_its_work_and_so_the_same_in_every_try(self, manifest, job):
        name = pod_of(job).metadata.name
        assert name == pod_of(job).metadata.name == f"evergreen-{job}-{build_job_request(context(), job, {}).run_key}"
        assert len(name) <= 63

    def test_it_may_do_nothing_that_restricted_pod_security_forbids(self, manifest, job):
        pod = pod_of(job)
        own = base(pod).security_context
        assert (pod.spec.security_context.run_as_non_root, pod.spec.security_context.seccomp_profile.type) == (
            True,
            "RuntimeDefault",
        )
        assert (own.allow_privilege_escalation, own.read_only_root_filesystem) == (False, True)
        assert own.capabilities.drop == ["ALL"]
        assert pod.spec.automount_service_account_token is False

    def test_it_ends_by_itself_though_nobody_is_there_to_end_it(self, manifest, job):
        assert pod_of(job).spec.active_deadline_seconds == manifest.jobs.find_timeout_minutes(job) * 60

    def test_it_runs_the_same_command_as_a_process_would(self, manifest, job):
        assert base(pod_of(job)).command == ["python", "-m", "include.jobs"]

    def test_its_request_reads_back_as_the_request_that_was_sent(self, manifest, job):
        [sent] = [variable for variable in base(pod_of(job, day="2026-08-02")).env if variable.name == REQUEST_VARIABLE]
        assert JobRequest.model_validate_json(sent.value) == build_job_request(context(), job, {"day": "2026-08-02"})

    def test_its_resources_are_the_manifests_and_it_gets_what_it_asks_for(self, manifest, job):
        wanted = manifest.jobs.find_resources(job)
        resources = base(pod_of(job)).resources
        assert resources.requests == resources.limits == {"cpu": wanted.cpu, "memory": wanted.memory}

    def test_secrets_come_by_reference_and_no_value_stands_in_the_pod(self, manifest, job, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", "http://user:hush-hush@mlflow:5000")
        container = base(pod_of(job))
        assert [source.config_map_ref.name for source in container.env_from if source.config_map_ref] == [
            "evergreen-jobs"
        ]
        general, own = [source.secret_ref.name for source in container.env_from if source.secret_ref]
        assert (general, own[:10]) == ("evergreen-jobs", "evergreen-")
        assert {variable.name for variable in container.env} == {REQUEST_VARIABLE, ATTEMPT_VARIABLE, "HOME"}
        assert "hush-hush" not in json.dumps(pod_of(job).to_dict(), default=str)

    def test_its_result_is_known_by_its_uid_and_no_sidecar_waits_beside_it(self, manifest, job):
        pod = pod_of(job)
        [attempt] = [variable for variable in base(pod).env if variable.name == ATTEMPT_VARIABLE]
        assert attempt.value_from.field_ref.field_path == "metadata.uid"
        assert [container.name for container in pod.spec.containers] == ["base"]


def test_a_retry_carries_one_request_and_not_two(manifest):
    task = make_job_task(read_manifest(), "train", job="train")
    task.prepare(context())
    task.build_pod_request_obj(dry_run=True)
    names = [variable.name for variable in base(task.build_pod_request_obj(dry_run=True)).env]
    assert sorted(names) == sorted(["HOME", REQUEST_VARIABLE, ATTEMPT_VARIABLE])


def test_training_may_have_more_than_the_rest(manifest):
    assert base(pod_of("train")).resources.requests == {"cpu": "3", "memory": "5Gi"}
    assert base(pod_of("evaluate")).resources.requests == {"cpu": "1", "memory": "2Gi"}


def test_the_environment_is_not_printed_and_the_result_is_pushed(manifest):
    task = make_job_task(read_manifest(), "train", job="train")
    task.prepare(context())
    task.build_pod_request_obj(dry_run=True)
    assert task.log_pod_spec_on_failure is False
    assert (task.deferrable, task.do_xcom_push) == (True, True)


def test_one_job_may_have_an_image_nodes_secrets_and_time_of_its_own(small):
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    own = {"image": "registry/torch:1", "node_selector": {"pool": "gpu"}, "tolerations": [gpu], "timeout_minutes": 300}
    amount = {"cpu": "8", "memory": "32Gi", "extra": {"nvidia.com/gpu": "1"}}
    everybody = {"node_selector": {"pool": "cpu"}, "secrets": ["lake-keys"]}
    resources = {"default": {"cpu": "1", "memory": "2Gi"}, "train": amount}
    small(target="kubernetes", **{"jobs.per_job": {"train": own, "default": everybody}, "jobs.resources": resources})
    train, score = pod_of("train"), pod_of("score")
    assert (base(train).image, base(score).image) == ("registry/torch:1", "evergreen-job:latest")
    assert (train.spec.node_selector, score.spec.node_selector) == ({"pool": "gpu"}, {"pool": "cpu"})
    assert [each.key for each in train.spec.tolerations] == ["nvidia.com/gpu"] and not score.spec.tolerations
    assert base(train).resources.limits == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert (train.spec.active_deadline_seconds, score.spec.active_deadline_seconds) == (300 * 60, 60 * 60)
    for pod in (train, score):  # what a job does not say of its own, `default` says
        assert "lake-keys" in [source.secret_ref.name for source in base(pod).env_from if source.secret_ref]


def test_the_store_is_the_claim_of_the_manifest_and_otherwise_a_room_of_the_pod(small):
    small(target="kubernetes", **{"jobs.store_claim": "store"})
    [store] = [volume for volume in pod_of("train").spec.volumes if volume.name == "store"]
    assert store.persistent_volume_claim.claim_name == "store"
    small(target="kubernetes")
    [store] = [volume for volume in pod_of("train").spec.volumes if volume.name == "store"]
    assert store.persistent_volume_claim is None and store.empty_dir is not None


def test_images_put_onto_nodes_by_hand_need_no_registry(small):
    small(target="kubernetes", **{"jobs.image": "localhost/job:1", "jobs.image_pull_policy": "Never"})
    assert (base(pod_of("train")).image, base(pod_of("train")).image_pull_policy) == ("localhost/job:1", "Never")


def test_the_local_target_makes_it_a_process(small):
    small()
    assert type(make_job_task(read_manifest(), "train", job="train")).__name__ == "LocalJobOperator"


@pytest.mark.parametrize("target", ["local", "kubernetes"])
def test_no_job_may_hang_for_ever(small, target):
    small(target=target, **{"jobs.timeout_minutes": 7})
    assert make_job_task(read_manifest(), "train", job="train").execution_timeout.total_seconds() == 420
