"""PodJobOperator on a real cluster: a real job, its result by file, and each way in which a pod ends badly.

The worker's two parts and the triggerer's run here, with the rights of evergreen-airflow; the pods run there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from evergreen.triggers.pod import PodTrigger
from include.data.wiring import open_snapshot_store
from tests.ground import wait_for
from tests.plugins.test_job_pod_faults import Attempt, woken
from tests.proofs.k8s_installation import disk_pod

SECONDS = 400  # for one pod, on a node that was never asked for this image


@pytest.fixture
def finish(disk, tmp_path) -> Callable[[Attempt, PodTrigger], dict[str, Any]]:
    """As a worker that mounts the store: what the pod left there is there when the result is looked for."""

    def finished(attempt: Attempt, trigger: PodTrigger) -> dict[str, Any]:
        event = woken(trigger, SECONDS)
        disk.fetch("store/results", tmp_path / "store" / "results")
        return attempt.task().collect(attempt.context, event)

    return finished


@pytest.fixture(autouse=True)
def no_pod_stays(reached):
    yield
    for pod in reached.api.list(reached.path("pods"), labelSelector="evergreen/job"):
        reached.end(pod)
    wait_for(lambda: not reached.api.list(reached.path("pods"), labelSelector="evergreen/job"))


def pod_of(reached, trigger: PodTrigger) -> dict[str, Any]:
    return reached.must(reached.path("pods", trigger.name))


def test_a_real_job_runs_in_the_pod_and_its_result_comes_back_by_its_digest(
    reached, job_manifest, finish, disk, tmp_path
):
    job_manifest()
    attempt = Attempt(run_id="good")
    trigger = attempt.start()
    result = finish(attempt, trigger)
    assert (result["job"], result["verdict"]) == ("ingest", "yes")
    wait_for(lambda: reached.api.get(reached.path("pods", trigger.name)) is None)
    disk.fetch("store", tmp_path / "store")
    assert open_snapshot_store().find_newest_day().isoformat() == "2026-08-01"


def test_a_second_try_takes_up_the_pod_and_the_api_server_refuses_another_of_its_name(reached, job_manifest, finish):
    job_manifest()
    attempt = Attempt(run_id="twice")
    first, second = attempt.start(), attempt.start()
    assert first.uid == second.uid
    body = disk_pod(reached.settings)
    body["metadata"] = {"name": first.name, "namespace": reached.namespace}
    again = reached.http.post(f"{reached.settings.proxy}{reached.path('pods')}", json=body)
    assert (again.status_code, "already exists" in again.json()["message"]) == (409, True)
    assert finish(attempt, second)["verdict"] == "yes"


def test_a_result_that_is_not_what_the_pod_said_is_no_success(reached, job_manifest, disk, tmp_path):
    job_manifest()
    attempt = Attempt(run_id="damaged")
    trigger = attempt.start()
    event = woken(trigger, SECONDS)
    disk.fetch("store/results", tmp_path / "store" / "results")
    [left] = (tmp_path / "store" / "results").rglob(f"*{trigger.uid}*.json")
    good = left.read_bytes()
    left.chmod(0o600)
    left.write_bytes(good.replace(b"2026-08-01", b"2026-08-02"))
    with pytest.raises(AirflowException, match="is damaged"):
        attempt.task().collect(attempt.context, event)
    left.write_bytes(good)
    assert attempt.task().collect(attempt.context, event)["verdict"] == "yes"


def test_a_pod_that_is_killed_is_no_success_and_the_next_try_makes_another(reached, job_manifest, finish):
    job_manifest()
    attempt = Attempt(run_id="killed")
    trigger = attempt.start()
    wait_for(lambda: pod_of(reached, trigger)["status"]["phase"] == "Running", SECONDS)
    reached.end(pod_of(reached, trigger))
    with pytest.raises(AirflowException, match=r"vanished .* left no result") as caught:
        finish(attempt, trigger)
    assert not isinstance(caught.value, AirflowFailException)
    second = attempt.start()
    assert second.uid != trigger.uid
    assert finish(attempt, second)["verdict"] == "yes"


def test_a_job_that_refuses_its_input_exits_65_and_is_not_tried_again(reached, job_manifest, finish):
    job_manifest()
    attempt = Attempt(run_id="refused", params={"day": "yesterday"})
    trigger = attempt.start()
    with pytest.raises(AirflowFailException, match=r"^ingest needs params\.day as an ISO date"):
        finish(attempt, trigger)
    [status] = pod_of(reached, trigger)["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 65


def test_a_job_whose_registry_is_away_exits_75_and_is_tried_again(reached, job_manifest, finish):
    job_manifest()
    attempt = Attempt(job="monitor", run_id="away", params={})
    trigger = attempt.start()
    with pytest.raises(AirflowException, match=r"MLflow at http://mlflow:5000 does not answer") as caught:
        finish(attempt, trigger)
    assert not isinstance(caught.value, AirflowFailException)
    [status] = pod_of(reached, trigger)["status"]["containerStatuses"]
    assert status["state"]["terminated"]["exitCode"] == 75


def test_a_job_that_needs_more_memory_than_it_has_is_told_so(job_manifest, finish):
    job_manifest(memory="48Mi")
    attempt = Attempt(run_id="hungry")
    trigger = attempt.start()
    with pytest.raises(AirflowFailException, match=r"killed for want of memory: its pod .* had 48Mi; raise jobs\."):
        finish(attempt, trigger)


def test_a_request_no_node_can_meet_is_told_with_the_schedulers_words(job_manifest, finish):
    job_manifest(cpu="900", **{"jobs.start_minutes": 1})
    attempt = Attempt(run_id="greedy")
    trigger = attempt.start()
    with pytest.raises(AirflowException, match=r"No node took pod .*Insufficient cpu.*; lower jobs\.resources\.ingest"):
        finish(attempt, trigger)


def test_an_image_nobody_has_is_told_by_its_name(job_manifest, finish):
    job_manifest(**{"jobs.image": "localhost/nobody-has-this:1", "jobs.image_pull_policy": "Never"})
    attempt = Attempt(run_id="no-image")
    trigger = attempt.start()
    with pytest.raises(AirflowFailException, match=r"image localhost/nobody-has-this:1 of job ingest cannot be had"):
        finish(attempt, trigger)


def test_a_person_who_marks_the_task_ends_its_pod(reached, job_manifest):
    job_manifest()
    trigger = Attempt(run_id="marked").start()
    asyncio.run(trigger.on_kill())
    wait_for(lambda: reached.api.get(reached.path("pods", trigger.name)) is None)


def test_connections_reach_the_job_as_a_secret_that_ends_with_its_pod(reached, job_manifest, monkeypatch):
    job_manifest()
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_S3", "aws://KEY:hush-hush@")
    trigger = Attempt(run_id="secret").start()
    pod = pod_of(reached, trigger)
    name = pod["metadata"]["annotations"]["evergreen/secret"]
    assert reached.must(reached.path("secrets", name))["metadata"]["ownerReferences"][0]["uid"] == trigger.uid
    assert "hush-hush" not in json.dumps(pod)
    reached.end(pod)
    wait_for(lambda: reached.api.get(reached.path("secrets", name)) is None)
