"""What makes a Deployment serve, in small: controller, kubelet and service proxy over the API server of `kube_api`.

A pod of a Deployment is a real model server, a process of this machine, told what its template says: environment from
ConfigMaps, its slot's file from the annotation. It is made ready by its own probe. When the template changes, pods are
replaced: the old ones first under Recreate, behind new ready ones otherwise. A Service is a port here that hands each
new connection to one of its endpoints; as in a cluster, a connection once made stays where it is.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.ground import free_ports
from tests.kube_api import KubeApi, Object, Refused

NAMESPACE = "evergreen"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"


@dataclass
class RunningPod:
    name: str
    template: Object
    port: int
    place: Path
    process: subprocess.Popen[bytes]
    ending: bool = False

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/ready", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@dataclass
class Nodes:
    """Follows the Deployments of the API server until it is stopped. `disk` is what all pods mount as /serving."""

    api: KubeApi
    room: Path
    disk: Path
    environment: dict[str, str]
    namespace: str = NAMESPACE
    pods: dict[str, list[RunningPod]] = field(default_factory=lambda: {"slot-blue": [], "slot-green": []})

    def __post_init__(self) -> None:
        self._number = itertools.count(1)
        self._done = threading.Event()
        self._core = f"/api/v1/namespaces/{self.namespace}"
        self._deployments = f"/apis/apps/v1/namespaces/{self.namespace}/deployments"
        self._slices = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        self._services = {name: _Service(self, name) for name in ("predictions", "slot-blue", "slot-green")}
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def address(self, service: str) -> str:
        return f"http://127.0.0.1:{self._services[service].port}"

    def kill(self, deployment: str) -> None:
        """SIGKILL to its processes; the kubelet starts them again."""
        for pod in list(self.pods[deployment]):
            pod.process.kill()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        for service in self._services.values():
            service.close()
        for pod in itertools.chain.from_iterable(self.pods.values()):
            pod.process.kill()
            pod.process.wait()

    # --- the loop -------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        while not self._done.wait(0.05):
            for name in self.pods:
                with suppress(Refused):  # an object went while it was looked at; the next round sees it
                    self._reconcile(name, self.api.read(f"{self._deployments}/{name}"))
            self._publish_endpoints()

    def _reconcile(self, name: str, deployment: Object) -> None:
        spec = deployment["spec"]
        count, template = spec.get("replicas", 1), spec["template"]
        for pod in self.pods[name]:
            self._look_after(pod)
        self._collect(name)
        current = [pod for pod in self.pods[name] if pod.template == template and not pod.ending]
        old = [pod for pod in self.pods[name] if pod.template != template and not pod.ending]
        if spec.get("strategy", {}).get("type") == "Recreate" or count == 0:
            for pod in old:
                self._end(pod)
            if any(pod.ending for pod in self.pods[name]):
                return
        with self.api.still():  # or a pod is started of what was taken away a moment ago
            is_wanted = self.api.read(f"{self._deployments}/{name}")["spec"] == spec
            for _ in range(count - len(current) if is_wanted else 0):
                self.pods[name].append(self._started(name, template))
        for pod in current[count:]:
            self._end(pod)
        if len(current) >= count and all(self._said_ready(pod) for pod in current):
            for pod in old:
                self._end(pod)

    def _look_after(self, pod: RunningPod) -> None:
        """A process that ended is started again, unless it was to end; what the probe says goes into the status."""
        found = self.api.objects.get(f"{self._core}/pods/{pod.name}", {})
        if not pod.ending and "deletionTimestamp" in found.get("metadata", {}):  # somebody drains it
            self._end(pod)
        if pod.process.poll() is not None and not pod.ending:
            pod.process = self._process(pod)
        ready = not pod.ending and pod.is_ready()
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
        with suppress(Refused):
            self.api.change(f"{self._core}/pods/{pod.name}", lambda each: each.update(status=status))

    def _said_ready(self, pod: RunningPod) -> bool:
        conditions = self.api.read(f"{self._core}/pods/{pod.name}")["status"].get("conditions", [])
        return any(each["status"] == "True" for each in conditions)

    def _end(self, pod: RunningPod) -> None:
        pod.ending = True
        with suppress(Refused):
            stamp = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
            self.api.change(f"{self._core}/pods/{pod.name}", lambda each: each["metadata"].update(stamp))
        pod.process.send_signal(signal.SIGTERM)

    def _collect(self, name: str) -> None:
        """Of those that ended nothing stays, and whose object somebody deleted is killed."""
        for pod in [pod for pod in self.pods[name] if f"{self._core}/pods/{pod.name}" not in self.api.objects]:
            pod.process.kill()
            pod.process.wait()
            self.pods[name].remove(pod)
        for pod in [pod for pod in self.pods[name] if pod.ending and pod.process.poll() is not None]:
            self.pods[name].remove(pod)
            with suppress(Refused):
                self.api.delete(f"{self._core}/pods/{pod.name}", at_once=True)

    def _started(self, name: str, template: Object) -> RunningPod:
        pod_name = f"{name}-{next(self._number)}"
        meta = {
            "name": pod_name,
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"].get("annotations", {}),
        }
        self.api.create(f"{self._core}/pods", {"kind": "Pod", "metadata": meta, "spec": template["spec"]})
        self.api.lingering.add(f"{self._core}/pods/{pod_name}")  # it has its time to end
        [port] = free_ports(1)
        place = self.room / pod_name
        (place / "slots").mkdir(parents=True)
        release = meta["annotations"].get("evergreen/release", "")
        for colour in ("blue", "green"):
            (place / "slots" / f"{colour}.json").write_text(release)
        for shared in ("artifacts", "blessings"):
            (self.disk / shared).mkdir(exist_ok=True)
            (place / shared).symlink_to(self.disk / shared)
        pod = RunningPod(pod_name, template, port, place, subprocess.Popen(["true"]))
        pod.process.wait()
        pod.process = self._process(pod)
        return pod

    def _process(self, pod: RunningPod) -> subprocess.Popen[bytes]:
        told = {
            "EVERGREEN_SLOT": pod.template["metadata"]["labels"]["evergreen/slot"],
            "EVERGREEN_SERVING_DIR": str(pod.place),
            "EVERGREEN_PORT": str(pod.port),
            "EVERGREEN_BIND": "127.0.0.1",
        }
        with (pod.place / "log").open("ab") as log:
            command = [sys.executable, "-W", "ignore", "-m", "include.serving"]
            return subprocess.Popen(command, env={**os.environ, **self.environment, **told}, stdout=log, stderr=log)

    # --- endpoints ------------------------------------------------------------------------------------------------

    def _publish_endpoints(self) -> None:
        """As the endpoints controller does, for the Service whose selector moves."""
        selector = self._selector()
        chosen = self.pods.get(f"slot-{selector.get('evergreen/slot')}", [])
        names = []
        for pod in chosen:
            with suppress(Refused):
                names += [pod.name] if not pod.ending and self._said_ready(pod) else []
        endpoints = [
            {"targetRef": {"kind": "Pod", "name": name}, "conditions": {"ready": True}} for name in sorted(names)
        ]
        with suppress(Refused):
            self.api.change(f"{self._slices}/predictions-1", lambda each: each.update(endpoints=endpoints))

    def _selector(self) -> dict[str, str]:
        """Its list of endpoints goes with the Service, and a new one has an address before it has a selector."""
        path, listed = f"{self._core}/services/predictions", f"{self._slices}/predictions-1"
        try:
            service = self.api.read(path)
        except Refused:
            with suppress(Refused):
                self.api.delete(listed)
            return {}
        at = f"127.0.0.1:{self._services['predictions'].port}"
        self.api.change(path, lambda each: each["spec"].setdefault("clusterIP", at))
        selector: dict[str, str] = service["spec"].get("selector") or {}
        if selector and listed not in self.api.objects:
            self.api.create(self._slices, _slice())
        return selector

    def backends(self, service: str) -> list[int]:
        """The ports new connections of this Service may go to."""
        if service != "predictions":  # publishNotReadyAddresses
            return [pod.port for pod in self.pods[service]]
        found = self.api.objects.get(f"{self._slices}/predictions-1", {})
        names = {each["targetRef"]["name"] for each in found.get("endpoints", ())}
        return [pod.port for pod in itertools.chain.from_iterable(self.pods.values()) if pod.name in names]


class _Service:
    """Hands on bytes; a connection without a backend is refused."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self._nodes, self._name = nodes, name
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=[client], daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        ports = self._nodes.backends(self._name)
        random.shuffle(ports)
        for port in ports:
            with suppress(OSError):
                server = socket.create_connection(("127.0.0.1", port), timeout=5)
                server.settimeout(None)
                threading.Thread(target=_pump, args=[server, client], daemon=True).start()
                return _pump(client, server)
        client.close()
        return None

    def close(self) -> None:
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
            each.close()


def deployment(colour: str, replicas: int = 0) -> Object:
    labels = {"app.kubernetes.io/name": "slot", "evergreen/slot": colour}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "server", "image": "server"}]}}
    spec = {"replicas": replicas, "template": template}
    return {"kind": "Deployment", "metadata": {"name": f"slot-{colour}"}, "spec": spec}


def _slice() -> Object:
    labels = {"kubernetes.io/service-name": "predictions"}
    return {"kind": "EndpointSlice", "metadata": {"name": "predictions-1", "labels": labels}}


def install(api: KubeApi) -> None:
    """As `kubectl apply -k` leaves it: no release, no selector."""
    api.create(f"{CORE}/services", {"kind": "Service", "metadata": {"name": "predictions"}, "spec": {}})
    api.create(f"{CORE}/configmaps", {"kind": "ConfigMap", "metadata": {"name": "evergreen-evidence"}})
    api.create(SLICES, _slice())
    for colour in ("blue", "green"):
        api.create(DEPLOYMENTS, deployment(colour))
