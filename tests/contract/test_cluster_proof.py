"""The proof for a real cluster, rehearsed in small: its installation, its handle and its pods over the same API.

The API server, nodes and kubelet are those of the tests; objects, kubectl, the proof's pods and the model servers are
the ones a real cluster would get.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest

from include.model.blessing.blessing import render_public_pem
from include.release.core.rollout import Step
from tests import blessed, kube_api
from tests.kube_nodes import Nodes
from tests.kube_pods import SinglePods
from tests.proofs import k8s_installation as installation
from tests.proofs import prove_k8s, prove_k8s_manifests
from tests.proofs.k8s_installation import ClusterSettings
from tests.real_cluster import ClusterLoad, Reached, RealServing

NAMESPACE = "evergreen-test-small"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterSettings]:
    """A proof under way: proxied, installed, with its own kubeconfig."""
    with kube_api.serving() as api:
        monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(tmp_path / "admin", api.url)))
        api.create(
            "/api/v1/nodes", {"metadata": {"name": "one", "labels": {"kubernetes.io/hostname": "one"}}, "spec": {}}
        )
        for name in (NAMESPACE, f"{NAMESPACE}-clients", f"{NAMESPACE}-by-root"):
            api.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        with prove_k8s.proxied() as proxy, _followed(api, tmp_path):
            made = ClusterSettings(namespace=NAMESPACE, proxy=proxy, patience_s=100)
            with prove_k8s.installed(Reached(made)):
                config = prove_k8s.airflow_config(Reached(made), tmp_path)
                yield made.model_copy(update={"airflow_config": str(config)})


class _followed:
    """Controllers, nodes and the two ways to reach a pod, while the block lasts."""

    def __init__(self, api: kube_api.KubeApi, room: Path) -> None:
        disks = room / "node" / NAMESPACE
        environment = {"EVERGREEN_TRUSTED_KEYS": render_public_pem(blessed.KEY), "EVERGREEN_UNBLESSED": "refuse"}
        (room / "processes").mkdir()
        self._nodes = Nodes(api, room / "processes", disks / "serving", environment, NAMESPACE)
        mounts = {"/serving": disks / "serving", "/store": disks / "store", "/node": room / "node"}
        self._pods = SinglePods(api, room / "processes", mounts)
        api.reach = self._port

    def _port(self, namespace: str, kind: str, name: str) -> int | None:
        if kind == "pods":
            return self._pods.ports.get((namespace, name))
        ports = self._nodes.backends(name)
        return ports[0] if ports else None

    def __enter__(self) -> None:
        """Both have begun."""

    def __exit__(self, *_: object) -> None:
        self._pods.stop()
        self._nodes.stop()


@pytest.fixture
def serving(settings: ClusterSettings, tmp_path: Path) -> RealServing:
    (tmp_path / "handle").mkdir()
    return RealServing(settings, tmp_path / "handle")


def test_releases_under_load_through_the_proofs_own_handle(serving, settings, release):
    assert release("1")[-1] is Step.DONE
    load = ClusterLoad(Reached(settings))
    assert release("2", by="next")[-1] is Step.DONE
    load.is_answered_by("2", more=20)
    assert release("1", by="a person", kind="rollback")[-1] is Step.DONE
    load.is_answered_by("1", more=20)
    counted = load.stopped()
    assert counted["failed"] == 0 and {*counted["by_version"]} == {"1", "2"}, counted
    serving.forget()
    assert serving.target.read_desired_state() is None and serving.ask().status_code == 503
    assert serving.is_empty("blue") and serving.is_empty("green")


def test_a_killed_pod_comes_back_and_its_requests_are_refused_until_then(serving, one_is_live):
    assert serving.describe()["blessing"] == serving.target.read_desired_state().blessing
    before = {pod["metadata"]["uid"] for pod in serving.reached.slots("blue")}
    serving.kill("slot-blue")
    prove_k8s.wait_for(lambda: serving.answers_with("1"))
    assert {pod["metadata"]["uid"] for pod in serving.reached.slots("blue")}.isdisjoint(before)


def test_every_object_of_the_proof_keeps_to_the_schemas_and_its_pods_to_restricted():
    made = ClusterSettings(namespace=NAMESPACE)
    single = [installation.disk_pod(made), installation.load_pod(made, "http://10.0.0.1")]
    by_root = [installation.by_root(made), installation.root_pod(made, "one", "open-up", installation.OPEN_UP)]
    everything = [*installation.objects(made, "one"), *installation.objects(made, None), *single, *by_root]
    for each in everything:
        kubernetes_validate.validate(copy.deepcopy(each), prove_k8s_manifests.VERSION, strict=True)
    wrapped = [_as_job(pod) for pod in single]
    assert [problem for each in wrapped for problem in prove_k8s_manifests._restricted(each, wrapped)] == []


def _as_job(pod: dict) -> dict:
    return {"kind": "Job", "metadata": pod["metadata"], "spec": {"template": pod}}


def test_without_a_cluster_the_proof_says_so_and_counts_nothing(monkeypatch, capsys):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert prove_k8s.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [prove_k8s.NO_CLUSTER, '{"ok": true, "counted": 0}']
