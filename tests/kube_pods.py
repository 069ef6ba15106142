"""Runs the pods that belong to no Deployment, in small: each one a process of this machine, followed to its end.

As a kubelet does: the command with the environment that ConfigMaps, Secrets and the pod's own fields make, and what it
mounts. There are no mounts here, so a variable that names a mounted path is told the directory that stands for it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.ground import free_ports
from tests.kube_api import KubeApi, Object, Refused, container_status


@dataclass
class SinglePods:
    """Follows all pods whose label is one of `labels` until it is stopped. `mounts`: mounted path -> directory."""

    api: KubeApi
    room: Path
    mounts: Mapping[str, Path]
    labels: tuple[str, ...] = ("evergreen/proof", "evergreen/job")
    ports: dict[tuple[str, str], int] = field(default_factory=dict)  # (namespace, pod) -> its port

    def __post_init__(self) -> None:
        self._running: dict[str, tuple[str, subprocess.Popen[str]]] = {}  # path -> uid and process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        for _, process in self._running.values():
            process.kill()
            process.wait()

    def _follow(self) -> None:
        while not self._done.wait(0.05):
            for path, pod in list(self.api.objects.items()):
                ours = "/pods/" in path and {*self.labels} & {*pod["metadata"].get("labels", {})}
                if ours and path not in self._running and pod["status"].get("phase") == "Pending":
                    self._start(path, pod)
            for path, (uid, process) in list(self._running.items()):
                self._look_after(path, uid, process)

    def _look_after(self, path: str, uid: str, process: subprocess.Popen[str]) -> None:
        found = self.api.objects.get(path)
        if found is None or found["metadata"]["uid"] != uid:
            process.kill()
        if process.poll() is None:
            return
        del self._running[path]
        code = process.returncode
        told = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": self._message(uid)}
        if found and found["metadata"]["uid"] == uid:
            self._tell(path, "Succeeded" if code == 0 else "Failed", {"terminated": told})

    def _message(self, uid: str) -> str:
        return (self.room / f"{uid}.message").read_text()

    def _start(self, path: str, pod: Object) -> None:
        meta, container = pod["metadata"], pod["spec"]["containers"][0]
        [port] = free_ports(1)
        self.ports[meta["namespace"], meta["name"]] = port
        message = self.room / f"{meta['uid']}.message"
        message.touch()
        told = {**self._environment(pod, container), "EVERGREEN_JOB_RECEIPT": str(message)}
        told |= {"PORT": str(port)} if "PORT" in told else {}
        command = [sys.executable if part == "python" else part for part in container["command"]]
        with (self.room / f"{meta['uid']}.log").open("w") as log:
            process = subprocess.Popen(command, env={**os.environ, **told}, stdout=log, stderr=log, text=True)
        self._running[path] = meta["uid"], process
        self._tell(path, "Running", {"running": {}})

    def _tell(self, path: str, phase: str, state: Object) -> None:
        status = container_status(state)
        with suppress(Refused):
            self.api.change(path, lambda pod: pod.update(status={"phase": phase, "containerStatuses": [status]}))

    def _environment(self, pod: Object, container: Object) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self._from(pod["metadata"]["namespace"], source)
        for variable in container.get("env", ()):
            by_field = (variable.get("valueFrom") or {}).get("fieldRef")
            found[variable["name"]] = pod["metadata"]["uid"] if by_field else variable["value"]
        return {name: value if value.startswith("{") else self._mounted(value) for name, value in found.items()}

    def _mounted(self, value: str) -> str:
        for path, directory in self.mounts.items():
            value = re.sub(rf"(?<![\w./-]){path}(?=[/:]|$)", str(directory), value)
        return value

    def _from(self, namespace: str, source: Object) -> dict[str, str]:
        [(ref, named)] = source.items()
        plural, data = {"configMapRef": ("configmaps", "data"), "secretRef": ("secrets", "stringData")}[ref]
        found = self.api.objects.get(f"/api/v1/namespaces/{namespace}/{plural}/{named['name']}", {})
        return dict(found.get(data) or {})
