"""A job as a pod, against an API server over HTTP that misbehaves by a script: real operator, real clients, real jobs.

The numbers in names and comments are those of the known wounds of KubernetesPodOperator that a test shows closed:
its reattachment deletes the pod it should take up (apache/airflow#21900), finds another run's pod (#71743), calls a
task good whose pod is gone (#73117, #72821), waits for a sidecar for ever (#37298), loses or doubles logs (#33498),
meets more than one pod of one name (#10544, #52885), and ends in an exception when a pod is preempted (#59626).
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from evergreen.operators.job import make_job_task
from evergreen.operators.job_pod import PodJobOperator
from evergreen.triggers.pod import PodTrigger
from include.data.wiring import open_job_results, open_snapshot_store
from include.kernel.job import JobResult
from include.manifest import read_manifest
from tests import kube_api
from tests.ground import wait_for
from tests.kube_api import LOST, RESET, Fault, KubeApi, Kubelet
from tests.plugins.conftest import context

PODS = "/api/v1/namespaces/evergreen/pods"
NAMESPACE = "/api/v1/namespaces/evergreen"


def point_at(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the Connection, as in production."""
    extra = {"kube_config_path": str(kube_api.kubeconfig(tmp_path / "kubeconfig", url))}
    connection = json.dumps({"conn_type": "kubernetes", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", connection)


@pytest.fixture
def api(tmp_path, monkeypatch) -> Iterator[KubeApi]:
    with kube_api.serving() as served:
        point_at(served.url, tmp_path, monkeypatch)
        labels = {"data": {"EVERGREEN_STORE": str(tmp_path / "store"), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}}
        served.create(f"{NAMESPACE}/configmaps", {"metadata": {"name": "evergreen-jobs"}, **labels})
        yield served


QUICK = {"attempts": 4, "longest_wait_s": 0.2, "watch_s": 2.0}


@pytest.fixture(autouse=True)
def manifest(small):
    return small(target="kubernetes", cluster={**QUICK, "timeout_s": 30.0})


@pytest.fixture
def kubelet(api, tmp_path) -> Kubelet:
    return Kubelet(api, tmp_path, PODS)


@dataclass
class Ti:
    """As much of a task instance as KubernetesPodOperator looks at."""

    dag_id: str = "a_dag"
    task_id: str = "t"
    run_id: str = "a_run"
    map_index: int = -1
    try_number: int = 1


@dataclass
class Attempt:
    """One try of one task: a new operator each time, as Airflow makes them."""

    job: str = "ingest"
    params: dict[str, Any] = field(default_factory=lambda: {"day": "2026-08-01"})
    run_id: str = "a_run"
    map_index: int = -1

    @property
    def context(self) -> Any:
        found = context(run_id=self.run_id)
        return found | {"ti": Ti(run_id=self.run_id, map_index=self.map_index), "run_id": self.run_id, "dag": None}

    def task(self) -> PodJobOperator:
        task = make_job_task(read_manifest(), "t", job=self.job, job_params=self.params)
        assert isinstance(task, PodJobOperator)
        return task

    def start(self) -> PodTrigger:
        """The worker's first part; what it hands to the triggerer, as that one gets it."""
        with pytest.raises(TaskDeferred) as deferred:
            self.task().execute(self.context)
        assert deferred.value.method_name == "collect"
        _, arguments = deferred.value.trigger.serialize()
        return PodTrigger(**json.loads(json.dumps(arguments)))

    def finish(self, trigger: PodTrigger, seconds: float = 150) -> dict[str, Any]:
        """The triggerer's part, and the worker's second one."""
        return self.task().collect(self.context, woken(trigger, seconds))


def woken(trigger: PodTrigger, seconds: float = 150) -> dict[str, Any]:
    async def first() -> Any:
        async for event in trigger.run():
            return event.payload

    return asyncio.run(asyncio.wait_for(first(), seconds))


def only_pod(api: KubeApi) -> dict[str, Any]:
    [pod] = api.of("pods")
    return pod


def leave(pod: dict[str, Any], summary: str = "done") -> str:
    """What a job in this pod leaves in the store; its sha256."""
    request = Attempt().task().prepare(Attempt().context)
    result = JobResult(job=request.job, run_key=request.run_key, summary=summary)
    return open_job_results().save(request, pod["metadata"]["uid"], result.model_dump_json())


class TestGoodEnds:
    def test_a_real_job_runs_in_the_pod_and_its_result_comes_back(self, api, kubelet):
        attempt = Attempt()
        trigger = attempt.start()
        kubelet.run(trigger.name)
        result = attempt.finish(trigger)
        assert (result["job"], result["verdict"]) == ("ingest", "yes")
        assert open_snapshot_store().find_newest_day().isoformat() == "2026-08-01"
        assert api.of("pods") == []

    def test_the_triggerer_is_woken_by_the_pods_end_and_not_by_the_clock(self, api, kubelet, small):
        small(target="kubernetes", cluster={"watch_s": 300})
        trigger = Attempt().start()
        end = threading.Timer(0.5, kubelet.end, [trigger.name, 0])
        end.start()
        assert woken(trigger)["uid"] == trigger.uid

    def test_a_result_is_there_though_the_pod_vanished_after_it(self, api):
        """Kept: a preempted node (#59626) takes the pod along, and not the work."""
        trigger = Attempt().start()
        leave(only_pod(api))
        api.delete(f"{PODS}/{trigger.name}")
        assert Attempt().finish(trigger)["summary"] == "done"

    def test_connections_reach_the_job_as_a_secret_that_ends_with_the_pod(self, api, kubelet, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_S3", "aws://KEY:hush-hush@")
        trigger = Attempt().start()
        [secret] = api.of("secrets")
        assert secret["stringData"]["AWS_SECRET_ACCESS_KEY"] == "hush-hush"
        assert "hush-hush" not in json.dumps(only_pod(api))
        api.delete(f"{PODS}/{trigger.name}")
        assert api.of("secrets") == []

    def test_removing_the_installation_removes_its_pods(self, api):
        Attempt().start()
        api.delete(f"{NAMESPACE}/configmaps/evergreen-jobs")
        assert api.of("pods") == []


class TestNoSilentSuccess:
    def test_a_pod_that_vanished_without_a_result_is_no_success(self, api):
        """#73117: the task was marked successful, with no result."""
        trigger = Attempt().start()
        api.delete(f"{PODS}/{trigger.name}")
        with pytest.raises(AirflowException, match=r"vanished .* and left no result") as caught:
            Attempt().finish(trigger)
        assert not isinstance(caught.value, AirflowFailException)

    def test_a_pod_that_ended_well_without_a_result_is_no_success(self, api, kubelet):
        """#72821: the pod was at its end before the task deferred, and its result was dropped."""
        trigger = Attempt().start()
        kubelet.end(trigger.name, 0)
        with pytest.raises(AirflowException, match="ended well but left no result in the store"):
            Attempt().finish(trigger)

    def test_a_result_that_is_not_what_the_pod_says_it_left_is_no_success(self, api, kubelet):
        trigger = Attempt().start()
        leave(only_pod(api))
        kubelet.end(trigger.name, 0, json.dumps({"sha256": "0" * 64}))
        with pytest.raises(AirflowException, match="is damaged"):
            Attempt().finish(trigger)

    def test_the_result_of_an_earlier_pod_of_the_same_work_is_not_taken_for_this_ones(self, api, kubelet):
        first = Attempt().start()
        leave(only_pod(api))
        kubelet.end(first.name, 0)
        Attempt().finish(first)
        second = Attempt().start()  # somebody cleared the task
        api.delete(f"{PODS}/{second.name}")
        with pytest.raises(AirflowException, match="left no result"):
            Attempt().finish(second)


class TestOnePodForOnePieceOfWork:
    def test_a_worker_that_died_after_the_creation_finds_its_pod_again(self, api, kubelet):
        """#10544, #52885: two pods, and a training that happened twice."""
        first, second = Attempt().start(), Attempt().start()
        assert first.uid == second.uid == only_pod(api)["metadata"]["uid"]

    def test_a_pod_that_ended_while_nobody_looked_is_not_run_again(self, api, kubelet):
        first = Attempt().start()
        leave(only_pod(api), "once")
        kubelet.end(first.name, 0)
        second = Attempt().start()
        assert (second.uid, Attempt().finish(second)["summary"]) == (first.uid, "once")

    def test_another_run_of_the_same_task_gets_a_pod_of_its_own(self, api):
        """#71743: a retry was attached to the pod of another run."""
        names = {Attempt(run_id=run).start().name for run in ("one", "two")}
        assert len(names) == len(api.of("pods")) == 2

    def test_each_of_a_mapped_tasks_instances_has_a_pod(self, api):
        assert len({Attempt(map_index=number).start().name for number in range(3)}) == len(api.of("pods")) == 3

    def test_ten_workers_at_once_make_one_pod(self, api):
        uids: list[str] = []
        workers = [threading.Thread(target=lambda: uids.append(Attempt().start().uid)) for _ in range(10)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert (len(uids), len({*uids}), len(api.of("pods"))) == (10, 1, 1)

    def test_a_pod_that_was_asked_for_something_else_makes_way(self, api):
        first = Attempt().start()
        second = Attempt(params={"day": "2026-08-02"}).start()
        assert (first.name, only_pod(api)["metadata"]["uid"]) == (second.name, second.uid)
        assert first.uid != second.uid

    def test_a_pod_that_is_being_deleted_is_waited_for(self, api):
        first = Attempt().start()
        path = f"{PODS}/{first.name}"
        api.lingering.add(path)
        api.delete(path)
        second: list[PodTrigger] = []
        worker = threading.Thread(target=lambda: second.append(Attempt().start()))
        worker.start()
        wait_for(lambda: api.asked.count(("DELETE", path)) == 1)
        assert not second
        api.lingering.clear()
        api.delete(path)
        worker.join(120)
        assert second[0].uid != first.uid

    def test_a_failed_pod_that_was_judged_makes_way_for_the_next_try(self, api, kubelet):
        """#12111: a broken pod was used again."""
        first = Attempt().start()
        kubelet.end(first.name, 75, json.dumps({"error": "MLflow does not answer; start it."}))
        with pytest.raises(AirflowException, match="MLflow does not answer"):
            Attempt().finish(first)
        assert only_pod(api)["metadata"]["uid"] == first.uid  # to be looked at
        assert Attempt().start().uid != first.uid

    def test_a_worker_that_is_told_to_stop_leaves_the_pod_alone(self, api):
        """#21900: a spot node was taken away, and hours of training deleted."""
        task = Attempt().task()
        with pytest.raises(TaskDeferred):
            task.execute(Attempt().context)
        task.on_kill()
        assert len(api.of("pods")) == 1

    def test_a_person_who_marks_the_task_ends_its_pod_and_no_other_one(self, api):
        """#62398: the pod of a task that was marked failed ran on."""
        trigger = Attempt().start()
        stranger = PodTrigger(trigger.name, trigger.namespace, "another-uid", trigger.cluster)
        asyncio.run(stranger.on_kill())
        assert len(api.of("pods")) == 1
        asyncio.run(trigger.on_kill())
        assert api.of("pods") == []

    def test_old_failed_pods_are_swept_and_those_of_other_pipelines_stay(self, api, kubelet):
        trigger = Attempt(run_id="long ago").start()
        kubelet.end(trigger.name, 65)
        old = {"creationTimestamp": "2020-01-01T00:00:00Z"}
        api.change(f"{PODS}/{trigger.name}", lambda pod: pod["metadata"].update(old))
        labels = only_pod(api)["metadata"]["labels"] | {"evergreen/pipeline": "churn"}
        api.create(PODS, {"metadata": {"name": "churns", "labels": labels}, "spec": {}})
        api.change(f"{PODS}/churns", lambda pod: pod["metadata"].update(old))
        fresh = Attempt().start()
        assert {pod["metadata"]["name"] for pod in api.of("pods")} == {"churns", fresh.name}


BAD_ENDS: list[tuple[str, Callable[[Kubelet, str], None], str, bool]] = [
    (
        "exit 65",
        lambda kubelet, name: kubelet.end(name, 65, json.dumps({"error": "Day 3 has no rows; deliver it."})),
        r"^Day 3 has no rows; deliver it\.$",
        True,
    ),
    (
        "exit 75",
        lambda kubelet, name: kubelet.end(name, 75, json.dumps({"error": "The disk is full; make room."})),
        r"^The disk is full; make room\.$",
        False,
    ),
    (
        "a crash without a word",
        lambda kubelet, name: kubelet.end(name, 1, "Traceback (most recent call last)"),
        "Job ingest ended with code 1 in pod evergreen/.* and left no result",
        False,
    ),
    (
        "OOMKilled",
        lambda kubelet, name: kubelet.end(name, 137, reason="OOMKilled"),
        r"killed for want of memory: its pod .* had 2Gi; raise jobs\.resources\.ingest\.memory",
        True,
    ),
    (
        "evicted",
        lambda kubelet, name: kubelet.tell(
            name, phase="Failed", reason="Evicted", message="The node was low on resource: memory."
        ),
        r"was ended by its node, Evicted: The node was low on resource: memory; the task is retried",
        False,
    ),
    (
        "evicted for its files",
        lambda kubelet, name: kubelet.tell(
            name, phase="Failed", reason="Evicted", message="Pod ephemeral local storage usage exceeds the total limit."
        ),
        r"was evicted, .* raise jobs\.resources\.ingest\.extra\.ephemeral-storage",
        False,
    ),
    (
        "preempted",
        lambda kubelet, name: kubelet.end(
            name,
            143,
            conditions=[
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": "for a greater",
                }
            ],
        ),
        "was ended by its node, PreemptionByScheduler: for a greater; the task is retried",
        False,
    ),
    (
        "too long",
        lambda kubelet, name: kubelet.tell(name, phase="Failed", reason="DeadlineExceeded"),
        "took longer than 60 minutes; raise jobs.timeout_minutes",
        False,
    ),
    (
        "an image that is not on the node",
        lambda kubelet, name: kubelet.waits(name, "ErrImageNeverPull", "is not present"),
        r"image evergreen-job:latest of job ingest cannot be had \(ErrImageNeverPull: is not present\); correct jobs",
        True,
    ),
]


class TestBadEnds:
    @pytest.mark.parametrize(
        ("happens", "sentence", "permanent"), [end[1:] for end in BAD_ENDS], ids=[end[0] for end in BAD_ENDS]
    )
    def test_each_is_one_sentence_with_its_fix_and_says_whether_to_try_again(
        self, api, kubelet, happens, sentence, permanent
    ):
        trigger = Attempt().start()
        happens(kubelet, trigger.name)
        with pytest.raises(AirflowException, match=sentence) as caught:
            Attempt().finish(trigger)
        assert isinstance(caught.value, AirflowFailException) is permanent
        assert "\n" not in str(caught.value)

    def test_an_image_that_cannot_be_pulled_is_given_up_after_its_minutes(self, api, kubelet):
        trigger = Attempt().start()
        kubelet.waits(trigger.name, "ImagePullBackOff", "registry said: not found.")
        with pytest.raises(AirflowException, match=r"cannot be had \(ImagePullBackOff: registry said: not found\)"):
            Attempt().task().collect(Attempt().context, {"uid": trigger.uid, "waited": 180.0})
        assert api.of("pods") == []  # it never ran: there is nothing to look at, and it held its share of the quota

    def test_a_pod_no_node_takes_is_given_up_after_its_minutes(self, api, kubelet):
        trigger = Attempt().start()
        said = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes: Insufficient cpu.",
        }
        kubelet.tell(trigger.name, phase="Pending", conditions=[said])
        with pytest.raises(
            AirflowException, match=r"No node took .* \(0/3 nodes: Insufficient cpu\); lower jobs\.resources"
        ):
            Attempt().task().collect(Attempt().context, {"uid": trigger.uid, "waited": 600.0})

    def test_what_keeps_a_pod_from_starting_is_told_from_its_events(self, api, kubelet):
        trigger = Attempt().start()
        about = {"involvedObject": {"uid": trigger.uid}, "type": "Warning", "message": 'secret "x" not found'}
        api.create(f"{NAMESPACE}/events", {"metadata": {"name": "e"}, **about})
        with pytest.raises(AirflowException, match=r'did not start within 10 minutes \(secret "x" not found\)'):
            Attempt().task().collect(Attempt().context, {"uid": trigger.uid, "waited": 600.0})

    def test_a_refused_day_has_its_button_though_the_task_failed(self, api, kubelet):
        trigger = Attempt().start()
        kubelet.end(trigger.name, 65, json.dumps({"error": "refused", "data_docs": "validations/a.html"}))
        task = Attempt().task()
        with pytest.raises(AirflowFailException, match="refused"):
            task.collect(Attempt().context, woken(trigger))
        assert task.report_url.endswith("/data_docs/site/validations/a.html")

    def test_a_real_job_that_refuses_its_input_is_not_tried_again(self, api, kubelet):
        attempt = Attempt(params={"day": "yesterday"})
        trigger = attempt.start()
        kubelet.run(trigger.name)
        with pytest.raises(AirflowFailException, match=r"^ingest needs params\.day as an ISO date"):
            attempt.finish(trigger)

    @pytest.mark.parametrize(
        "fault", [Fault(404, "log rotated"), Fault(400, "container is waiting"), Fault(500)], ids=str
    )
    def test_a_log_that_is_gone_changes_nothing(self, api, kubelet, fault):
        """#33498: tasks hung when a log was rotated. A kubelet that is away says 500, one that never ran 400."""
        trigger = Attempt().start()
        leave(only_pod(api))
        kubelet.end(trigger.name, 0)
        api.script("GET", "/log$", *[fault] * QUICK["attempts"])
        assert Attempt().finish(trigger)["summary"] == "done"


class TestTheApiServersMoods:
    """Rows 6 to 9 of the fault matrix: conflicts, 429 and 5xx, effects whose answer was lost, watches that break."""

    @pytest.mark.parametrize("fault", [Fault(429, retry_after="1"), Fault(500), Fault(503), RESET, Fault(504)], ids=str)
    def test_what_is_soon_over_is_tried_again(self, api, fault):
        api.script("POST", "/pods$", fault, fault)
        Attempt().start()
        assert api.asked.count(("POST", PODS)) == 3
        assert len(api.of("pods")) == 1

    @pytest.mark.parametrize("fault", [Fault(429, retry_after="3600"), Fault(500), Fault(503), RESET], ids=str)
    def test_what_is_not_over_soon_is_one_sentence_after_as_many_tries_as_the_manifest_says(self, api, fault):
        api.script("POST", "/pods$", *[fault] * 10)
        with pytest.raises(AirflowException, match=f"The Kubernetes API at {api.url} ") as caught:
            Attempt().task().execute(Attempt().context)
        assert not isinstance(caught.value, AirflowFailException)
        assert api.asked.count(("POST", PODS)) == 4

    @pytest.mark.parametrize("lost", [LOST, Fault(500, effect=True), Fault(silent_s=2, effect=True)], ids=str)
    def test_a_creation_whose_answer_was_lost_makes_no_second_pod(self, api, lost, small):
        small(target="kubernetes", cluster={**QUICK, "timeout_s": 1.0})
        api.script("POST", "/pods$", lost)
        trigger = Attempt().start()
        assert only_pod(api)["metadata"]["uid"] == trigger.uid

    def test_a_deletion_whose_answer_was_lost_is_no_error(self, api, kubelet):
        trigger = Attempt().start()
        leave(only_pod(api))
        kubelet.end(trigger.name, 0)
        api.script("DELETE", trigger.name, LOST)
        assert Attempt().finish(trigger)["summary"] == "done"

    @pytest.mark.parametrize("fault", [Fault(410), Fault(403), Fault(500), RESET], ids=str)
    def test_a_watch_that_breaks_misses_nothing(self, api, kubelet, fault):
        trigger = Attempt().start()
        api.script("WATCH", "/pods", fault)
        threading.Timer(0.3, kubelet.end, [trigger.name, 0]).start()
        assert woken(trigger)["uid"] == trigger.uid

    def test_a_watch_whose_version_expired_is_begun_anew(self, api, kubelet):
        trigger = Attempt().start()
        watching = threading.Thread(
            target=lambda: wait_for(lambda: len([a for a in api.asked if a == ("GET", PODS)]) > 1)
        )
        watching.start()
        ended = threading.Thread(target=lambda: (watching.join(), api.expire(), kubelet.end(trigger.name, 0)))
        ended.start()
        assert woken(trigger)["uid"] == trigger.uid
        ended.join()

    @pytest.mark.parametrize("fault", [Fault(429, retry_after="1"), Fault(500), RESET, Fault(silent_s=3)], ids=str)
    def test_the_triggerer_goes_on_looking_whatever_a_look_meets(self, api, kubelet, fault, small):
        small(target="kubernetes", cluster={**QUICK, "timeout_s": 1.0})
        trigger = Attempt().start()
        api.script("GET", f"{trigger.name}$", *[fault] * 2)
        kubelet.end(trigger.name, 0)
        assert woken(trigger)["uid"] == trigger.uid

    REFUSALS = (
        (Fault(403, 'pods is forbidden: User "airflow" cannot create'), "bind the role of k8s/base", True),
        (
            Fault(403, 'violates PodSecurity "restricted:latest"'),
            "correct the pod, or the namespace's Pod Security",
            True,
        ),
        (Fault(403, "exceeded quota: team, requested: cpu=1"), "wait for other pods to end, or raise", False),
        (Fault(422, "spec.containers[0].resources: Invalid value"), "correct it in the manifest", True),
        (Fault(404, 'namespaces "evergreen" not found'), "apply the manifests of k8s/ first", True),
        (Fault(401, "Unauthorized"), "bind the role", True),
    )

    @pytest.mark.parametrize(("fault", "fix", "permanent"), REFUSALS, ids=[str(each[0].message) for each in REFUSALS])
    def test_a_refusal_is_one_sentence_with_its_fix(self, api, fault, fix, permanent):
        api.script("POST", "/pods$", *[fault] * 10)
        with pytest.raises(AirflowException, match=re.escape(fix)) as caught:
            Attempt().task().execute(Attempt().context)
        assert isinstance(caught.value, AirflowFailException) is permanent
        assert api.of("pods") == []

    def test_a_namespace_without_the_installation_is_told_so(self, api):
        api.delete(f"{NAMESPACE}/configmaps/evergreen-jobs")
        with pytest.raises(AirflowFailException, match="There is no ConfigMap evergreen-jobs in namespace evergreen"):
            Attempt().task().execute(Attempt().context)

    def test_a_cluster_that_is_not_there_is_told_by_its_address(self, tmp_path, monkeypatch, api):
        point_at("http://127.0.0.1:9", tmp_path, monkeypatch)
        with pytest.raises(AirflowException, match=r"The Kubernetes API at http://127\.0\.0\.1:9 does not answer"):
            Attempt().task().execute(Attempt().context)
