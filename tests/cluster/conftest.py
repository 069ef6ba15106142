"""What only a real cluster can show. `make test-k8s` installs there; otherwise nothing here is collected."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard

from include.manifest import Manifest
from tests.contract.conftest import one_is_live, release, rollout, staged, wish
from tests.proofs.k8s_installation import ClusterSettings
from tests.real_cluster import ClusterLoad, Disk, Reached, RealServing, on_cluster

__all__ = ["one_is_live", "release", "rollout", "staged", "wish"]
collect_ignore_glob = [] if os.environ.get("K8S_NAMESPACE") else ["test_*.py"]


@pytest.fixture(scope="session")
def settings() -> ClusterSettings:
    return ClusterSettings()


@pytest.fixture(scope="session")
def reached(settings: ClusterSettings) -> Reached:
    return Reached(settings)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[RealServing]:
    """Two pods a slot, as a cluster has them."""
    with on_cluster(tmp_path, replicas=2) as served:
        yield served


@pytest.fixture
def make_load(reached: Reached) -> Iterator[Callable[[], ClusterLoad]]:
    made: list[ClusterLoad] = []

    def begin() -> ClusterLoad:
        made.append(ClusterLoad(reached))
        return made[-1]

    yield begin
    for load in made:
        reached.end(load.pod)


@pytest.fixture
def disk(reached: Reached) -> Disk:
    return Disk(reached)


@pytest.fixture
def job_manifest(
    small: Callable[..., Manifest], settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Manifest]:
    """The manifest by which a worker outside of the cluster makes pods there, with the rights of evergreen-airflow."""
    extra = {"kube_config_path": settings.airflow_config}
    connection = json.dumps({"conn_type": "kubernetes", "extra": extra})
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", connection)

    def put(memory: str = "1536Mi", cpu: str = "", **changes: Any) -> Manifest:
        amount = {"cpu": cpu or settings.job_cpu, "memory": memory}
        jobs = {
            "jobs.image": settings.job_image,
            "jobs.image_pull_policy": settings.pull_policy,
            "jobs.namespace": settings.namespace,
            "jobs.store_claim": "store",
            "jobs.resources": {"default": amount},
            "jobs.start_minutes": 5,
        }
        return small(target="kubernetes", **{**jobs, **changes})

    return put


@pytest.fixture(autouse=True)
def executable_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow refuses `execute` outside its task runner; this is its own switch for tests."""
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
