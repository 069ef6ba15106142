"""What a pod's state means, for states that are hard to bring about."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.cluster import pods
from include.cluster.spec import JobsSpec
from include.kernel.job import Intent, JobRequest, build_result_key, render_receipt, seal_result, unseal_result

SPEC = JobsSpec.model_validate(
    {"image": "job:1", "namespace": "ml", "resources": {"default": {"cpu": "1", "memory": "2Gi"}}}
)
REQUEST = JobRequest(job="train", run_key="a" * 16, as_of=date(2026, 8, 1), intent=Intent.LIVE)


def pod(**status):
    labels = {pods.JOB: "train", pods.REQUEST: pods.hash_request(REQUEST)}
    meta = {"name": "p", "namespace": "ml", "labels": labels, "creationTimestamp": "2026-08-01T00:00:00Z"}
    return {"metadata": meta, "spec": {"containers": [{"name": "base", "image": "job:1"}]}, "status": status}


def base(**state):
    return {"containerStatuses": [{"name": "base", "state": state}]}


def judged(waited_s: float = 0.0, **status):
    return pods.judge(pod(**status), SPEC, waited_s)


def test_a_pod_that_was_just_made_has_no_status_and_is_waited_for():
    assert judged() == pods.WAITING


def test_a_running_pod_is_waited_for_however_long_it_takes():
    assert judged(1e9, phase="Running", **base(running={})).state == "waiting"


def test_a_container_that_ended_well_has_ended_though_the_pods_phase_lags_behind():
    assert judged(phase="Running", **base(terminated={"exitCode": 0})).state == "succeeded"


def test_a_container_that_failed_has_ended_though_the_pods_phase_lags_behind():
    assert judged(phase="Running", **base(terminated={"exitCode": 65})).permanent


def test_a_pod_whose_state_a_node_took_along_is_tried_again():
    found = judged(phase="Failed")
    assert (found.state, found.permanent) == ("failed", False)
    assert "ended without a word of how" in found.why


@pytest.mark.parametrize(("waited", "state"), [(0, "waiting"), (179, "waiting"), (180, "failed")])
def test_a_registry_has_its_minutes(waited, state):
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    assert judged(waited, phase="Pending", **base(waiting=waiting)).state == state


@pytest.mark.parametrize(("waited", "state"), [(599, "waiting"), (600, "failed")])
def test_a_scheduler_has_its_minutes(waited, state):
    assert judged(waited, phase="Pending").state == state


def test_a_sidecar_of_the_cluster_that_runs_on_keeps_nobody_waiting():
    both = [
        {"name": "istio-proxy", "state": {"running": {}}},
        {"name": "base", "state": {"terminated": {"exitCode": 0}}},
    ]
    assert judged(phase="Running", containerStatuses=both).state == "succeeded"


def test_two_requests_of_one_run_are_told_apart():
    assert pods.is_ours(pod(), pods.hash_request(REQUEST))
    assert not pods.is_ours(pod(), pods.hash_request(REQUEST.model_copy(update={"params": {"a": 1}})))


@pytest.mark.parametrize("mark", ["deletionTimestamp", "judged"])
def test_a_pod_that_goes_or_was_judged_is_not_taken_up(mark):
    found = pod()
    if mark == "judged":
        found["metadata"]["labels"][pods.JUDGED] = "true"
    else:
        found["metadata"][mark] = "2026-08-01T00:00:00Z"
    assert not pods.is_ours(found, pods.hash_request(REQUEST))


def test_what_runs_is_never_swept():
    later, keep = datetime(2026, 9, 1, tzinfo=UTC), timedelta(hours=48)
    assert pods.is_left_over(pod(phase="Failed"), later, keep)
    assert not pods.is_left_over(pod(phase="Running"), later, keep)
    assert not pods.is_left_over(pod(phase="Failed"), datetime(2026, 8, 2, tzinfo=UTC), keep)


@given(st.text())
def test_any_message_of_a_container_is_no_receipt_unless_it_is_one(text):
    assert isinstance(pods.read_receipt(pod(phase="Failed", **base(terminated={"exitCode": 1, "message": text}))), dict)


@given(st.text())
def test_a_result_comes_out_of_its_seal_as_it_went_in(text):
    assert unseal_result(seal_result(text))[0] == text


@given(st.binary(max_size=60), st.integers(0, 200))
def test_a_result_that_was_damaged_is_not_taken_for_one(noise, at):
    sealed = seal_result('{"verdict": "yes"}')
    damaged = sealed[:at] + noise + sealed[at + len(noise) + 1 :]
    with suppress(ValueError):
        assert unseal_result(damaged)[0] == '{"verdict": "yes"}'


def test_a_receipt_fits_into_a_termination_message_whatever_the_error_says():
    told = render_receipt(json.dumps({"error": "\U0001f525" * 5000, "kind": "DataRefused", "data_docs": None}))
    assert len(told.encode()) <= 4096
    assert json.loads(told)["kind"] == "DataRefused"


def test_no_attempt_writes_where_another_one_does():
    assert build_result_key(REQUEST, "uid-1") != build_result_key(REQUEST, "uid-2")
