"""Runs a job as a pod. The house's settings of KubernetesPodOperator, each changed default with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import Context
from kubernetes.client import models as k8s

from evergreen.edge import job_request
from evergreen.links import MlflowLink
from include.adapters import factory
from include.core.job import REQUEST_VARIABLE, JobRequest
from include.core.manifest import JobsSpec


class PodJobOperator(KubernetesPodOperator):
    """The job's result comes back by /airflow/xcom/return.json, as the operator's return value."""

    template_fields: Sequence[str] = (*KubernetesPodOperator.template_fields, "job_params")
    operator_extra_links = (MlflowLink(),)

    def __init__(
        self, *, job: str, job_params: dict[str, Any] | None = None, params_from: Sequence[str] = (), **options: Any
    ) -> None:
        spec = factory.manifest().jobs
        super().__init__(**{**_house(job, spec), **options})
        self.job = job
        self.job_params = job_params or {}
        self.params_from = tuple(params_from)
        self.request: JobRequest | None = None

    def execute(self, context: Context) -> Any:
        handed_on = {name: context["params"].get(name) for name in self.params_from}
        self.request = job_request(context, self.job, {**self.job_params, **handed_on})
        return super().execute(context)

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """The request is put in here, after templates are rendered and late enough for retries to rebuild it."""
        if self.request is not None:
            request = k8s.V1EnvVar(name=REQUEST_VARIABLE, value=self.request.model_dump_json())
            self.env_vars = [*(v for v in self.env_vars or [] if getattr(v, "name", None) != REQUEST_VARIABLE), request]
        return super().build_pod_request_obj(context, dry_run=dry_run)


def _house(job: str, spec: JobsSpec) -> dict[str, Any]:
    amount = spec.resources_of(job).model_dump()
    return {
        "name": f"evergreen-{job}",
        "namespace": spec.namespace,
        "image": spec.image,
        "cmds": ["python", "-m", "include.jobs"],
        "container_resources": k8s.V1ResourceRequirements(requests=amount, limits=amount),
        "env_from": [
            k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name="evergreen-jobs")),
            k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="evergreen-jobs", optional=True)),
        ],
        "labels": {"app.kubernetes.io/part-of": "evergreen", "evergreen/job": job},
        "deferrable": True,  # a worker slot is too dear to wait in
        "do_xcom_push": True,  # the result; it also keeps a finished pod reattachable
        "on_finish_action": "delete_succeeded_pod",  # a failed pod stays to be looked at
        "log_pod_spec_on_failure": False,  # it would print the environment into the task log
        "logging_interval": 30,  # deferred, nothing is logged until the end otherwise
        "startup_timeout_seconds": 600,  # pulling a job image on a new node takes minutes
    }
