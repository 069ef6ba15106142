"""The manifest's sections about Kubernetes: what a job's pod may use, and how the API server is asked."""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from include.kernel.job import JOBS
from include.kernel.spec import BaseManifest, Count, Section


class Resources(Section):
    cpu: str
    memory: str
    extra: dict[str, str] = Field({}, description="further resources by their name, such as nvidia.com/gpu: '1'")


class Toleration(Section):
    """As Kubernetes spells it: a taint of a node that a pod does not mind."""

    key: str
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="none: every effect"
    )


class Placement(Section):
    """Which image a job's pod runs, and on which nodes."""

    image: str | None = Field(None, description="instead of jobs.image")
    node_selector: dict[str, str] = Field({}, description="labels a node must have")
    tolerations: tuple[Toleration, ...] = Field((), description="taints of nodes that do not keep the pod away")
    priority_class: str | None = Field(None, description="PriorityClass of the pod")
    secrets: tuple[str, ...] = Field((), description="Secrets whose keys become variables of the job, by their names")
    timeout_minutes: Count | None = Field(None, description="instead of jobs.timeout_minutes")


class JobsSpec(Section):
    """What a job may use. Everything but the time and the tries concerns pods alone."""

    image: str
    namespace: str
    timeout_minutes: Count = Field(60, description="minutes after which a job is killed")
    late_minutes: Count = Field(
        180, description="minutes after it was queued at which people are told that a run has not ended"
    )
    resources: dict[str, Resources] = Field(description="job name (or default) -> requests and limits")
    per_job: dict[str, Placement] = Field({}, description="job name (or default) -> image, nodes, secrets, time")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="Never: images are put onto the nodes by hand"
    )
    image_pull_secrets: tuple[str, ...] = Field((), description="Secrets that open the registry")
    service_account: str = Field("evergreen-job", description="account of the pods; it may do nothing")
    store_claim: str | None = Field(
        None, description="PersistentVolumeClaim mounted at /store; none where EVERGREEN_SNAPSHOTS is a bucket"
    )
    start_minutes: Count = Field(10, description="minutes a pod may wait for a node and for its start")
    pull_minutes: Count = Field(3, description="minutes after which an image that cannot be pulled is given up")
    keep_hours: Count = Field(48, description="hours a pod that failed stays to be looked at")

    def find_resources(self, job: str) -> Resources:
        return self.resources.get(job, self.resources["default"])

    def find_placement(self, job: str) -> Placement:
        """What a job says of its own; what it leaves out is said by `default`."""
        general, own = self.per_job.get("default", Placement()), self.per_job.get(job, Placement())
        return general.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})

    def find_timeout_minutes(self, job: str) -> int:
        return self.find_placement(job).timeout_minutes or self.timeout_minutes

    @model_validator(mode="after")
    def _check_resources(self) -> JobsSpec:
        if "default" not in self.resources:
            raise ValueError("resources needs a 'default' entry")
        for name in sorted({*self.resources} - {*JOBS, "default"}):
            near = difflib.get_close_matches(name, JOBS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(JOBS)}"
            raise ValueError(f"resources names {name!r}, which is no job; {hint}")
        return self


class ClusterSpec(Section):
    """The Kubernetes API server: how patiently it is asked."""

    attempts: Count = Field(6, description="tries of one request, the first one counted")
    timeout_s: Annotated[float, Field(gt=0)] = Field(10.0, description="seconds until a connection, and an answer")
    longest_wait_s: Annotated[float, Field(gt=0)] = Field(
        15.0, description="seconds between two tries at most, also where the server asks for more (Retry-After)"
    )
    watch_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds one watch lasts; then the pod is read anew, so no lost event can go unnoticed"
    )
    replicas: Count = Field(2, description="pods of a slot, so that one may die")
    gateway: str | None = Field(None, description="HTTPRoute that is the route; none: the selector of a Service is")
    virtual_service: str | None = Field(None, description="Istio's VirtualService that is the route, in its place")

    @property
    def can_split(self) -> bool:
        """Whether the route has weights and mirrors."""
        return bool(self.gateway or self.virtual_service)

    @model_validator(mode="after")
    def _check_single_route(self) -> ClusterSpec:
        if self.gateway and self.virtual_service:
            raise ValueError("gateway and virtual_service name two routes, and one object must be the record; keep one")
        return self


class ClusterManifest(BaseManifest):
    """The manifest as far as Kubernetes is concerned."""

    jobs: JobsSpec
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)
