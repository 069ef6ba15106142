"""Runs a job as a pod. KubernetesPodOperator builds the pod and knows the cluster; the waiting and the end are ours.

What is ours, and why: KubernetesPodOperator finds its pod by labels, takes its result from a sidecar, and may call a
task good whose pod is gone. Here the pod's name is the work's (a second one is refused by the API server, 409), the
result lies in the store under the pod's uid with its sha256, and without it there is no success, however the pod ended.

A worker that dies loses nothing: the next try meets the same name, and takes up the pod that runs, or the result of
one that ended. A worker that is told to stop leaves the pod alone, since spot nodes are stopped all day; a person who
marks or clears the waiting task ends the pod (the trigger's `on_kill`), and its deadline ends it in any case.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, cast

from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s
from kubernetes.config import ConfigException
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from evergreen.errors import JobRefused, translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.links import MlflowLink, ReportLink
from evergreen.pages import build_page_url, find_page
from evergreen.run_context import build_job_request
from evergreen.triggers.pod import PodTrigger
from include.cluster import pods
from include.cluster.api_server import Cluster
from include.cluster.spec import ClusterManifest, JobsSpec
from include.kernel.errors import Conflict, EvergreenError, RequestInvalid, StorageUnavailable
from include.kernel.job import ATTEMPT_VARIABLE, REQUEST_VARIABLE, JobRequest, JobResult

ENVIRONMENT_NAME = "evergreen-jobs"  # the ConfigMap of all jobs, and the Secret of the same name
SECRET_ANNOTATION = "evergreen/secret"  # names the Secret of one pod
STORE_PATH = "/store"
JOB_UID = 10001
CREATE_ATTEMPTS = 5  # at a name that others hold: each lost one means that a pod was there, and is gone
DELETE_TIMEOUT_S = 90.0  # a pod has 30 seconds to end after it was asked to


class PodJobOperator(KubernetesPodOperator):
    """Returns the job's result as a dictionary. Exit 65, and what only a person can mend, fail at once.

    `options` are those of `describe_pod`.
    """

    template_fields: Sequence[str] = (*KubernetesPodOperator.template_fields, "job_params")
    operator_extra_links = (MlflowLink(), ReportLink())
    ui_color = "#dcefe3"

    def __init__(
        self, *, job: str, job_params: dict[str, Any] | None = None, params_from: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.job = job
        self.job_params = job_params or {}
        self.params_from = tuple(params_from)
        self.request: JobRequest | None = None

    # --- the pod --------------------------------------------------------------------------------------------------

    def prepare(self, context: Context) -> JobRequest:
        """What is asked, and the name of the pod that does it; the same in every try, before and after the waiting."""
        handed_on = {name: context["params"].get(name) for name in self.params_from}
        self.request = build_job_request(context, self.job, {**self.job_params, **handed_on})
        self.name = pods.build_pod_name(self.request, getattr(context.get("ti"), "map_index", -1))
        return self.request

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """As KubernetesPodOperator builds it, without its sidecar, and with the request."""
        self.do_xcom_push, push = False, self.do_xcom_push
        try:
            pod = super().build_pod_request_obj(context, dry_run=dry_run)
        finally:
            self.do_xcom_push = push
        return self._add_request(pod) if self.request else pod

    def _add_request(self, pod: k8s.V1Pod) -> k8s.V1Pod:
        request = cast("JobRequest", self.request)
        base = next(container for container in pod.spec.containers if container.name == pods.BASE)
        uid = k8s.V1EnvVarSource(field_ref=k8s.V1ObjectFieldSelector(field_path="metadata.uid"))
        base.env = [
            *(container for container in base.env or [] if container.name not in (REQUEST_VARIABLE, ATTEMPT_VARIABLE)),
            k8s.V1EnvVar(name=REQUEST_VARIABLE, value=request.model_dump_json()),
            k8s.V1EnvVar(name=ATTEMPT_VARIABLE, value_from=uid),
        ]
        if ConnectionsHook().read_connection_variables():
            secret = f"{pod.metadata.name}-{secrets.token_hex(3)}"  # not that of an earlier pod, which is being deleted
            base.env_from = [*(base.env_from or []), _build_secret_source(secret)]
            pod.metadata.annotations = {**(pod.metadata.annotations or {}), SECRET_ANNOTATION: secret}
        pod.metadata.labels |= {pods.REQUEST: pods.hash_request(request)}
        return pod

    # --- the cluster ----------------------------------------------------------------------------------------------

    @cached_property
    def cluster(self) -> Cluster:
        """Raises `RequestInvalid` when nobody says where the cluster is."""
        try:
            return Cluster(cast("KubernetesHook", self.hook).api_client, ConnectionsHook().manifest.cluster)
        except ConfigException as error:
            raise RequestInvalid(
                f"No Kubernetes cluster is named ({error}); create the Airflow Connection {self.kubernetes_conn_id}, "
                "or run Airflow in a pod with a service account."
            ) from error

    def _build_path(self, kind: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def _find_job_pod(self) -> dict[str, Any] | None:
        return self.cluster.get(self._build_path("pods", str(self.name)))

    # --- the run --------------------------------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        self.prepare(context)
        with translate_errors():
            self._sweep()
            pod = self._adopt_pod() or self._create_pod(context)
            self._create_secret(pod)
        trigger = PodTrigger(str(self.name), str(self.namespace), str(pod["metadata"]["uid"]), self._describe_cluster())
        self.defer(trigger=trigger, method_name="collect")

    def _describe_cluster(self) -> dict[str, Any]:
        """What the triggerer needs to reach the same cluster."""
        self.convert_config_file_to_dict()  # type: ignore[no-untyped-call]
        extras = dict(getattr(self.hook, "conn_extras", {}))
        connection = {"conn_id": self.kubernetes_conn_id, "in_cluster": self.in_cluster}
        has_config = any(extras.get(name) for name in ("in_cluster", "kube_config", "kube_config_path"))
        config = None if has_config else self._config_dict
        return {
            **connection,
            "cluster_context": self.cluster_context,
            "config_dict": config,
            "connection_extras": extras,
        }

    def _adopt_pod(self) -> dict[str, Any] | None:
        """A pod of this name that an earlier try left, if it does what is asked and nobody has judged it."""
        pod = self._find_job_pod()
        if pod is None:
            return None
        if pods.is_ours(pod, pods.hash_request(cast("JobRequest", self.request))):
            self.log.info("pod %s of an earlier try is taken up (%s)", self.name, pod["status"].get("phase"))
            return pod
        self._remove(pod)
        return None

    def _create_pod(self, context: Context) -> dict[str, Any]:
        body = ApiClient().sanitize_for_serialization(self.build_pod_request_obj(context))
        body["metadata"]["ownerReferences"] = [self._find_owner()]
        for _ in range(CREATE_ATTEMPTS):
            if created := self.cluster.create(self._build_path("pods"), body) or self._adopt_pod():
                return created
        raise Conflict(f"Pod {self.namespace}/{self.name} comes and goes; look who else creates it, then retry.")

    def _find_owner(self) -> dict[str, Any]:
        """The ConfigMap of all jobs: who removes the installation removes its pods."""
        owner = self.cluster.get(self._build_path("configmaps", ENVIRONMENT_NAME))
        if owner is None:
            raise RequestInvalid(
                f"There is no ConfigMap {ENVIRONMENT_NAME} in namespace {self.namespace}; apply an "
                "overlay of k8s/ there, "
                "or correct jobs.namespace."
            )
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": ENVIRONMENT_NAME, "uid": owner["metadata"]["uid"]}

    def _create_secret(self, pod: dict[str, Any]) -> None:
        """What Connections say, as a Secret that lives as long as the pod.

        The pod comes first and waits for it: a kill between the two leaves no Secret without an owner.
        """
        variables, pod_metadata = ConnectionsHook().read_connection_variables(), pod["metadata"]
        secret = (pod_metadata.get("annotations") or {}).get(SECRET_ANNOTATION)
        if not (variables and secret):
            return
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod_metadata["name"], "uid": pod_metadata["uid"]}
        labels = {pods.PART_OF: "evergreen"}
        metadata = {"name": secret, "ownerReferences": [owner], "labels": labels}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": variables, "immutable": True}
        self.cluster.create(self._build_path("secrets"), body)

    def _remove(self, pod: dict[str, Any]) -> None:
        """Deletes this very pod, and waits until its name is free. Raises `Conflict` when it stays."""
        self.cluster.delete(self._build_path("pods", pod["metadata"]["name"]), pod["metadata"]["uid"])
        waiting = Retrying(
            stop=stop_after_delay(DELETE_TIMEOUT_S),
            wait=wait_fixed(0.5),
            retry=retry_if_result(bool),
            retry_error_callback=lambda _: True,
        )
        if waiting(self._has_pod, pod["metadata"]["uid"]):
            raise Conflict(
                f"Pod {pods.format_pod(pod)} of an earlier try does not end; delete it with "
                "`kubectl delete pod --force`, then retry."
            )

    def _has_pod(self, uid: str) -> bool:
        pod = self._find_job_pod()
        return pod is not None and pod["metadata"]["uid"] == uid

    def _sweep(self) -> None:
        """Pods of this pipeline that nobody needs any more."""
        spec = ConnectionsHook().manifest
        selector = f"{pods.PART_OF}=evergreen,{pods.JOB},{pods.PIPELINE}={spec.name}"
        for pod in self.cluster.list(self._build_path("pods"), labelSelector=selector):
            if pods.is_left_over(pod, datetime.now(UTC), timedelta(hours=spec.jobs.keep_hours)):
                self.log.info("pod %s is old, and deleted", pod["metadata"]["name"])
                self.cluster.delete(self._build_path("pods", pod["metadata"]["name"]), pod["metadata"]["uid"])

    # --- the end --------------------------------------------------------------------------------------------------

    def collect(self, context: Context, event: dict[str, Any]) -> Any:
        """After the waiting: the result, or why there is none."""
        request = self.prepare(context)
        with translate_errors():
            pod = self._find_job_pod()
            if pod is None or pod["metadata"]["uid"] != event["uid"]:
                return self._finish(self._read_result(request, event["uid"], None), None)
            self._show_log(pod)
            judgement = pods.judge(pod, ConnectionsHook().manifest.jobs, event["waited"], self._find_last_event(pod))
            if judgement.state == "failed":
                raise self._build_failure(pod, judgement)
            return self._finish(self._read_result(request, event["uid"], pod), pod)

    def _read_result(self, request: JobRequest, uid: str, pod: dict[str, Any] | None) -> JobResult:
        result = (
            ConnectionsHook()
            .open_job_results()
            .read(request, uid, pods.read_receipt(pod).get("sha256") if pod else None)
        )
        if result is None:
            how = "ended well but" if pod else "vanished (it was deleted or preempted, or its node died) and"
            raise StorageUnavailable(
                f"Pod {self.namespace}/{self.name} {how} left no result in the store; look whether it and Airflow use "
                "the same EVERGREEN_SNAPSHOTS; the task is retried by itself."
            )
        return result

    def _finish(self, result: JobResult, pod: dict[str, Any] | None) -> dict[str, Any]:
        if "url" in result.outputs:
            self.mlflow_url = result.outputs["url"]
        self._link(result.outputs)
        if pod:
            self.cluster.delete(self._build_path("pods", pod["metadata"]["name"]), pod["metadata"]["uid"])
        self.log.info("%s", result.summary)
        return result.model_dump(mode="json")

    def _build_failure(self, pod: dict[str, Any], judgement: pods.Judgement) -> AirflowException:
        """Takes note of the end, so that the next try makes a pod of its own; what never ran is no use to anybody."""
        self._link(pods.read_receipt(pod))
        if judgement.stuck:
            self.cluster.delete(self._build_path("pods", pod["metadata"]["name"]), pod["metadata"]["uid"])
        else:
            self.cluster.patch(
                self._build_path("pods", pod["metadata"]["name"]), {"metadata": {"labels": {pods.JUDGED: "true"}}}
            )
        kind = pods.read_receipt(pod).get("kind")
        return JobRefused(judgement.why, kind) if judgement.permanent else AirflowException(judgement.why)

    def _link(self, outputs: dict[str, Any]) -> None:
        if page := find_page(outputs):
            self.report_url = build_page_url(page)
            self.log.info("report: %s", self.report_url)

    def _show_log(self, pod: dict[str, Any]) -> None:
        """For people; nothing is decided by it, so a log that was lost, or whose node is gone, changes nothing."""
        if pod["status"].get("phase") == "Pending":
            return
        try:
            text = self.cluster.read_text(
                self._build_path("pods", f"{pod['metadata']['name']}/log"), container=pods.BASE
            )
        except EvergreenError as error:
            text = f"The log cannot be had: {error}"
        for line in text.splitlines():
            self.log.info("%s", line)

    def _find_last_event(self, pod: dict[str, Any]) -> str:
        """The last warning about a pod that did not start."""
        if pod["status"].get("phase") != "Pending":
            return ""
        about = f"involvedObject.uid={pod['metadata']['uid']},type=Warning"
        events = self.cluster.list(self._build_path("events"), fieldSelector=about)
        return str(events[-1].get("message", "")) if events else ""

    def on_kill(self) -> None:
        """Nothing: a worker that is told to stop is no reason to lose hours of training; see the module's words."""


def _build_secret_source(name: str, optional: bool = False) -> k8s.V1EnvFromSource:
    return k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name=name, optional=optional or None))


def describe_pod(job: str, manifest: ClusterManifest) -> dict[str, Any]:
    """The options of the operator that the manifest decides."""
    spec = manifest.jobs
    placement = spec.find_placement(job)
    amount = spec.find_resources(job)
    resources = {"cpu": amount.cpu, "memory": amount.memory, **amount.extra}
    return {
        "name": f"evergreen-{job}",
        "random_name_suffix": False,  # the name is the lock
        "namespace": spec.namespace,
        "image": placement.image or spec.image,
        "image_pull_policy": spec.image_pull_policy,
        "image_pull_secrets": [k8s.V1LocalObjectReference(name=name) for name in spec.image_pull_secrets],
        "cmds": ["python", "-m", "include.jobs"],
        "container_resources": k8s.V1ResourceRequirements(requests=resources, limits=resources),
        "node_selector": placement.node_selector,
        "tolerations": [
            k8s.V1Toleration(**toleration.model_dump(exclude_none=True)) for toleration in placement.tolerations
        ],
        "priority_class_name": placement.priority_class,
        "env_from": [
            k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name=ENVIRONMENT_NAME)),
            _build_secret_source(ENVIRONMENT_NAME, optional=True),
            *map(_build_secret_source, placement.secrets),
        ],
        "labels": {pods.PART_OF: "evergreen", pods.JOB: job, pods.PIPELINE: manifest.name},
        **_build_security_options(spec),
        "active_deadline_seconds": spec.find_timeout_minutes(job) * 60,  # it ends though nobody is there to end it
        "termination_message_policy": "FallbackToLogsOnError",
        "deferrable": True,  # a worker slot is too dear to wait in; there is no other way here
        "do_xcom_push": True,  # the result; there is no sidecar
        "log_pod_spec_on_failure": False,  # it would print the environment into the task log
    }


def _build_security_options(spec: JobsSpec) -> dict[str, Any]:
    """What Pod Security `restricted` asks for, with room to write where a job must."""
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=spec.store_claim) if spec.store_claim else None
    store = {"persistent_volume_claim": claim} if claim else {"empty_dir": k8s.V1EmptyDirVolumeSource()}
    return {
        "service_account_name": spec.service_account,
        "automount_service_account_token": False,
        "security_context": k8s.V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=JOB_UID,
            fs_group=JOB_UID,
            fs_group_change_policy="OnRootMismatch",  # a large store is not walked through by every pod
            seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
        ),
        "container_security_context": k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        "volumes": [
            k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource()),
            k8s.V1Volume(name="store", **store),
        ],
        "volume_mounts": [
            k8s.V1VolumeMount(name="tmp", mount_path="/tmp"),
            k8s.V1VolumeMount(name="store", mount_path=STORE_PATH),
        ],
        "env_vars": [k8s.V1EnvVar(name="HOME", value="/tmp")],
    }
