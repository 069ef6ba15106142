"""What a job's pod is called, and what its state means: what is decided when a job runs on Kubernetes, without it.

A pod is named by the work it does, so the API server itself refuses a second one for the same work. Whether it
succeeded is decided by the result it left; here is decided only when waiting is over, and what to tell a person whose
pod failed. Pods are plain dictionaries, as the API server writes them in JSON.

Every failure is one sentence with its fix, and says whether another try may help: no, where only a person can change
something (memory, the image's name), yes where the cluster may have changed by then (a node died, a registry was down).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from include.cluster.spec import JobsSpec
from include.kernel.errors import Permanent
from include.kernel.job import JobRequest

Pod = Mapping[str, Any]
BASE = "base"
PART_OF = "app.kubernetes.io/part-of"
JOB = "evergreen/job"
PIPELINE = "evergreen/pipeline"
REQUEST = "evergreen/request"
JUDGED = "evergreen/judged"
INVALID_IMAGE_REASONS = ("InvalidImageName", "ErrImageNeverPull")
PULL_FAILURE_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "RegistryUnavailable",
    "ImageInspectError",
    "SignatureValidationFailed",
)


@dataclass(frozen=True)
class Judgement:
    """How far a pod has come. `permanent`: another try of the same work would fail the same way."""

    state: Literal["waiting", "succeeded", "failed"]
    why: str = ""
    permanent: bool = False
    stuck: bool = False  # failed without having run: nothing in it is worth looking at


WAITING = Judgement("waiting")


def build_pod_name(request: JobRequest, map_index: int = -1) -> str:
    """One name for one piece of work, at most 63 characters."""
    part = f"-{map_index}" if map_index >= 0 else ""
    return f"evergreen-{request.job}-{request.run_key}{part}"[:63]


def hash_request(request: JobRequest) -> str:
    """Tells two requests of one run apart; the first 16 hex digits of a sha256."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()[:16]


def is_ours(pod: Pod, mark: str) -> bool:
    """Whether the pod does, or has done, what is asked, and nobody has taken note of its end."""
    labels = pod["metadata"].get("labels") or {}
    return labels.get(REQUEST) == mark and JUDGED not in labels and "deletionTimestamp" not in pod["metadata"]


def judge(pod: Pod, spec: JobsSpec, waited_s: float, events: str = "") -> Judgement:
    """`waited_s`: seconds the caller has seen it not running; `events`: what the cluster last said about it."""
    job = pod["metadata"]["labels"][JOB]
    phase = pod["status"].get("phase", "Pending")
    if phase == "Succeeded" or (phase == "Running" and _read_exit_code(pod) == 0):
        return Judgement("succeeded")
    if phase == "Failed" or _find_termination(pod):
        return _judge_failure(pod, job, spec)
    if phase == "Pending":
        return _judge_pending(pod, job, spec, waited_s, events)
    return WAITING


def read_receipt(pod: Pod) -> dict[str, Any]:
    """The receipt in the pod's termination message; empty where the job left none."""
    try:
        content = json.loads(_find_termination(pod).get("message") or "")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def is_left_over(pod: Pod, now: datetime, keep: timedelta) -> bool:
    """Whether nobody needs it any more. One that runs is ended by its own deadline."""
    born = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return pod["status"].get("phase") != "Running" and now - born > keep


def format_pod(pod: Pod) -> str:
    return f"{pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"


def _list_container_statuses(pod: Pod) -> Iterator[Mapping[str, Any]]:
    yield from pod["status"].get("containerStatuses") or ()
    yield from pod["status"].get("initContainerStatuses") or ()


def _find_termination(pod: Pod) -> Mapping[str, Any]:
    """How the job's container ended; empty while it runs, and where the pod's end took all traces of it."""
    found = (each for each in _list_container_statuses(pod) if each["name"] == BASE)
    return next((each["state"].get("terminated") or {} for each in found if each.get("state")), {})


def _read_exit_code(pod: Pod) -> int | None:
    code = _find_termination(pod).get("exitCode")
    return None if code is None else int(code)


def _judge_failure(pod: Pod, job: str, spec: JobsSpec) -> Judgement:
    reason, message = pod["status"].get("reason", ""), pod["status"].get("message", "")
    ended = _find_termination(pod)
    if reason == "DeadlineExceeded":
        minutes = spec.find_timeout_minutes(job)
        return _fail_temporarily(
            f"Job {job} took longer than {minutes} minutes; raise jobs.timeout_minutes or give it more cpu."
        )
    if ended.get("reason") == "OOMKilled":
        return _fail_permanently(
            f"Job {job} was killed for want of memory: its pod {format_pod(pod)} had "
            f"{spec.find_resources(job).memory}; raise "
            f"jobs.resources.{job}.memory in the manifest."
        )
    if reason == "Evicted" and "ephemeral" in message:
        return _fail_temporarily(
            f"Pod {format_pod(pod)} was evicted, {_cut(message)}; raise jobs.resources.{job}.extra.ephemeral-storage."
        )
    if lost := _explain_disruption(pod):
        return _fail_temporarily(
            f"Pod {format_pod(pod)} was ended by its node, {_cut(lost)}; the task is retried by itself."
        )
    return _judge_exit(pod, job)


def _explain_disruption(pod: Pod) -> str:
    """Why the cluster, and not the job, ended the pod; empty when it did not."""
    status = pod["status"]
    if status.get("reason") in ("Evicted", "Preempting", "NodeLost", "NodeShutdown", "Shutdown", "Terminated"):
        return f"{status['reason']}: {status.get('message', '')}"
    conditions = [each for each in status.get("conditions") or () if each["type"] == "DisruptionTarget"]
    return next((f"{c.get('reason')}: {c.get('message', '')}" for c in conditions if c["status"] == "True"), "")


def _judge_exit(pod: Pod, job: str) -> Judgement:
    """The job's own sentence where it left one, with the verdict of its exit code."""
    code = _read_exit_code(pod)
    how = "without a word of how" if code is None else f"with code {code}"
    sentence = read_receipt(pod).get("error") or (
        f"Job {job} ended {how} in pod {format_pod(pod)} and left no result; its last lines stand above in this log."
    )
    return Judgement("failed", str(sentence), permanent=code == Permanent.exit_code)


def _judge_pending(pod: Pod, job: str, spec: JobsSpec, waited_s: float, events: str) -> Judgement:
    waiting: Mapping[str, Any] = next(
        (each["state"]["waiting"] for each in _list_container_statuses(pod) if each.get("state", {}).get("waiting")), {}
    )
    reason, message = waiting.get("reason", ""), _cut(waiting.get("message", ""))
    image = next(c["image"] for c in pod["spec"]["containers"] if c["name"] == BASE)
    late = waited_s >= spec.pull_minutes * 60
    if reason in INVALID_IMAGE_REASONS or (reason in PULL_FAILURE_REASONS and late):
        why = f"The image {image} of job {job} cannot be had ({reason}: {message}); correct jobs.image, or give access "
        return Judgement(
            "failed", why + "by jobs.image_pull_secrets.", permanent=reason in INVALID_IMAGE_REASONS, stuck=True
        )
    if waited_s < spec.start_minutes * 60:
        return WAITING
    if unschedulable := _explain_unschedulable(pod):
        why = (
            f"No node took pod {format_pod(pod)} within {spec.start_minutes} minutes ({_cut(unschedulable)}); lower "
            f"jobs.resources.{job}, correct jobs.per_job.{job}.node_selector, or add a node."
        )
        return Judgement("failed", why, stuck=True)
    seen = f"{reason}: {message}" if reason else _cut(events) or "no reason was given"
    why = f"Pod {format_pod(pod)} did not start within {spec.start_minutes} minutes ({seen}); "
    return Judgement("failed", why + f"`kubectl describe pod {pod['metadata']['name']}` says more.", stuck=True)


def _explain_unschedulable(pod: Pod) -> str:
    conditions = [each for each in pod["status"].get("conditions") or () if each["type"] == "PodScheduled"]
    return next((str(each.get("message") or "Unschedulable") for each in conditions if each["status"] == "False"), "")


def _fail_temporarily(why: str) -> Judgement:
    return Judgement("failed", why)


def _fail_permanently(why: str) -> Judgement:
    return Judgement("failed", why, permanent=True)


def _cut(text: str, length: int = 300) -> str:
    """One line of it, without the full stop, to stand within a sentence."""
    return " ".join(text.split())[:length].rstrip(". ")
