"""The serving target on a real cluster as the contract suite takes it: the same handle as for nodes in small.

Everything is asked through the API server (its proxy leads to Services and pods), so it makes no difference where this
runs. Releases are made with the rights of evergreen-airflow alone; what a test does as a person or as an outage, with
those of KUBECONFIG. What Airflow would write to a disk it mounts is brought there by the proof's own pod.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import httpx
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import new_client_from_config

from include.cluster.api_server import Cluster, Object
from include.cluster.spec import ClusterSpec
from include.kernel.words.colours import COLOURS, Colour
from include.model.integrity.artifact_integrity import copy_verified
from include.release.core.rollout import DesiredState
from include.release.targets.kubernetes.routes import SLOT_LABEL
from include.release.targets.kubernetes.target import KubernetesTarget
from include.release.targets.kubernetes.traffic import FENCE_ANNOTATION
from include.release.targets.local.traffic import LocalAddresses
from tests.ground import wait_for
from tests.proofs.k8s_installation import PORT, ClusterSettings, load_pod
from tests.served_cluster import ClusterServing

SPEC = ClusterSpec(replicas=1)


class Reached:
    """A real cluster as a person with every right sees it, and its pods and Services over HTTP."""

    def __init__(self, settings: ClusterSettings) -> None:
        self.settings, self.namespace = settings, settings.namespace
        self.api = Cluster(ApiClient(Configuration(host=settings.proxy)), SPEC)
        fresh = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(trust_env=False, timeout=30, limits=fresh)

    def path(self, plural: str, name: str = "", group: str = "/api/v1", namespace: str = "") -> str:
        return f"{group}/namespaces/{namespace or self.namespace}/{plural}" + (f"/{name}" if name else "")

    def must(self, path: str) -> Object:
        found = self.api.get(path)
        assert found is not None, f"{path} is not there"
        return found

    def service(self, name: str) -> str:
        """Where a Service is asked from here."""
        if self.settings.reach == "node":
            return f"http://{self.must(self.path('services', name))['spec']['clusterIP']}"
        return f"{self.settings.proxy}{self.path('services', f'http:{name}:http')}/proxy"

    def pod(self, name: str, namespace: str = "") -> str:
        if self.settings.reach == "node":
            found = self.must(self.path("pods", name, namespace=namespace))
            return f"http://{found['status']['podIP']}:{PORT}"
        return f"{self.settings.proxy}{self.path('pods', f'http:{name}:{PORT}', namespace=namespace)}/proxy"

    def slots(self, colour: str | None = None) -> list[Object]:
        chosen = f",{SLOT_LABEL}={colour}" if colour else ""
        return self.api.list(self.path("pods"), labelSelector=f"app.kubernetes.io/name=slot{chosen}")

    def end(self, pod: Object, at_once: bool = True) -> None:
        """As a node that dies takes a pod along, or as a drained one asks it to go."""
        meta = pod["metadata"]
        url = f"{self.settings.proxy}{self.path('pods', meta['name'], namespace=meta['namespace'])}"
        answer = self.http.request("DELETE", url, json={"gracePeriodSeconds": 0} if at_once else None)
        assert answer.status_code in (200, 202, 404), answer.text


class Disk:
    """The volumes that Airflow would mount, by the pod that does."""

    def __init__(self, reached: Reached) -> None:
        self._reached = reached

    def bring(self, source: Path, to: str) -> None:
        """A file or a directory into the directory `to`, such as serving/artifacts."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(source, arcname=source.name)
        self._asked("PUT", to, packed.getvalue())

    def fetch(self, of: str, into: Path) -> None:
        shutil.rmtree(into, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(self._asked("GET", of))) as archive:
            archive.extractall(into, filter="data")

    def clear(self, room: str) -> None:
        self._asked("DELETE", room)

    def _asked(self, verb: str, path: str, body: bytes | None = None) -> bytes:
        answer = self._reached.http.request(verb, f"{self._reached.pod('disk')}/{path}", content=body)
        assert answer.status_code == 200, f"{verb} {path}: {answer.status_code} {answer.text[:300]}"
        return answer.content


class BringingTarget(KubernetesTarget):
    """The target itself; what it writes to its disk is brought to the cluster before any object names it."""

    disk: Disk
    reached: Reached

    def install_release(self, colour: Colour, desired: DesiredState, artifact: Path) -> None:
        copied = copy_verified(artifact, self._root / "artifacts", desired.release.digest)
        self.disk.bring(copied, "serving/artifacts")
        super().install_release(colour, desired, artifact)

    def _keep_envelope(self, envelope: str | None) -> str | None:
        paper = super()._keep_envelope(envelope)
        if paper:
            self.disk.bring(self._root / "blessings" / f"{paper}.json", "serving/blessings")
        return paper

    def _has_arrived(self) -> bool:
        """The API server, by which a test asks, follows the older list of endpoints, and a moment later."""
        if not super()._has_arrived():
            return False
        told = self.reached.api.get(self.reached.path("endpoints", "predictions"))
        subsets = (told or {}).get("subsets") or ()
        names = {each["targetRef"]["name"] for one in subsets for each in one.get("addresses") or ()}
        return told is None or names == self._list_endpoints()


class RealServing(ClusterServing):
    """On the cluster of the settings, as after its installation: nothing wanted, nothing staged, no route."""

    can = frozenset[str]()

    def __init__(self, settings: ClusterSettings, room: Path, spec: ClusterSpec = SPEC) -> None:
        self.reached, self.root = Reached(settings), room / "disk"
        self.root.mkdir()
        self.disk = Disk(self.reached)
        self.forget()
        slots: dict[Colour, str] = {colour: self.reached.service(f"slot-{colour}") for colour in COLOURS}
        self.addresses = LocalAddresses(self.reached.service("predictions"), "", slots, "")
        rights = Cluster(new_client_from_config(config_file=settings.airflow_config), spec)
        self.target = BringingTarget(rights, spec, settings.namespace, self.root, slots, self.addresses.proxy)  # type: ignore[assignment]
        self.target.disk, self.target.reached = self.disk, self.reached  # type: ignore[attr-defined]
        self._client = httpx.Client(trust_env=False, timeout=15, limits=httpx.Limits(max_keepalive_connections=0))

    def ask(self, *arguments: Any, **more: Any) -> httpx.Response:
        """Of a Service that never had an endpoint the API server says 404, of one that lost them 502 or 503."""
        answer = super().ask(*arguments, **more)
        return httpx.Response(503, json={}) if answer.status_code in (404, 502) else answer

    def is_empty(self, colour: Colour) -> bool:
        return self.reached.slots(colour) == []

    def kill(self, program: str) -> None:
        """At once and without a farewell, as when a node dies; nobody can send a signal into a pod from outside."""
        for pod in self.reached.slots(program.removeprefix("slot-")):
            self.reached.end(pod)

    def stop(self, program: str) -> NoReturn:
        raise NotImplementedError("a Deployment starts its pods again")

    def forget(self) -> None:
        self._empty_slots()
        self._without_route()
        evidence = self.reached.path("configmaps", "evergreen-evidence")
        self.reached.api.patch(evidence, {"data": None})
        self.disk.clear("serving")

    def _empty_slots(self) -> None:
        bare = {"replicas": 0, "template": {"metadata": {"annotations": None}}}
        for colour in COLOURS:
            path = self.reached.path("deployments", f"slot-{colour}", "/apis/apps/v1")
            self.reached.api.patch(path, {"metadata": {"annotations": {FENCE_ANNOTATION: None}}, "spec": bare})
        wait_for(self._has_no_pods)

    def _has_no_pods(self) -> bool:
        """And will have none: its controller has seen that none is wanted."""
        seen = all(map(self._has_settled, COLOURS))
        pods = self.reached.slots()
        for pod in pods:
            self.reached.end(pod)
        return seen and not pods

    def _has_settled(self, colour: Colour) -> bool:
        found = self.reached.must(self.reached.path("deployments", f"slot-{colour}", "/apis/apps/v1"))
        status = found.get("status") or {}
        return status.get("observedGeneration") == found["metadata"].get("generation") and not status.get("replicas")

    def _without_route(self) -> None:
        """The Service anew: an old one would keep the endpoints it had when its selector was taken away."""
        reached, path = self.reached, self.reached.path("services", "predictions")
        old = reached.must(path)
        if not old["spec"].get("selector") and not old["metadata"].get("annotations", {}).get("evergreen/wanted"):
            return
        reached.api.delete(path, old["metadata"]["uid"])
        slices = reached.path("endpointslices", group="/apis/discovery.k8s.io/v1")
        chosen = "kubernetes.io/service-name=predictions"
        wait_for(lambda: not reached.api.list(slices, labelSelector=chosen))
        wait_for(lambda: reached.api.get(reached.path("endpoints", "predictions")) is None)
        labels = {"app.kubernetes.io/name": "predictions"}
        meta = {"name": "predictions", "namespace": reached.namespace, "labels": labels}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": old["spec"]["ports"]}}
        assert reached.api.create(reached.path("services"), body), "another Service predictions was made meanwhile"


class ClusterLoad:
    """Clients in a pod of another namespace, which ask the Service by its own address."""

    def __init__(self, reached: Reached) -> None:
        self._reached, self._namespace = reached, reached.settings.clients
        target = f"http://{reached.must(reached.path('services', 'predictions'))['spec']['clusterIP']}"
        pods = reached.path("pods", namespace=self._namespace)
        wait_for(lambda: reached.api.get(reached.path("serviceaccounts", "default", namespace=self._namespace)))
        made = reached.api.create(pods, load_pod(reached.settings, target))
        assert made is not None, "another run of the proof makes load in this namespace"
        self.pod = made
        wait_for(lambda: self.counted()["answered"] > 50)

    def counted(self) -> dict[str, Any]:
        answer = self._reached.http.get(f"{self._reached.pod('load', self._namespace)}/counts")
        return dict(answer.raise_for_status().json())

    def stopped(self) -> dict[str, Any]:
        answer = self._reached.http.post(f"{self._reached.pod('load', self._namespace)}/stop")
        return dict(answer.raise_for_status().json())

    def is_answered_by(self, version: str, more: int = 100) -> None:
        """Until so many more answers came, the last one of this version."""
        before = self.counted()["by_version"].get(version, 0)
        wait_for(lambda: self.counted()["by_version"].get(version, 0) > before + more)


@contextmanager
def on_cluster(room: Path, replicas: int = 1) -> Iterator[RealServing]:
    settings = ClusterSettings()
    served = RealServing(settings, room, ClusterSpec(replicas=replicas))
    try:
        yield served
    finally:
        with suppress(httpx.HTTPError):
            served.forget()
