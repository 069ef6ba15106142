"""What the proof on a cluster applies there, and takes away again: the parts of the dev overlay that need no database.

The overlay is taken as it is rendered, under another namespace, with the images and the storage of the settings and
small requests, so that one node of two cores has room. Beside it stand two pods of the proof's own: one writes the
shared disks on behalf of a machine that cannot mount them, and in a namespace of clients one makes load.

A cluster without a default storage class gets directories of one node as volumes; whatever is to write there runs as
10001, and a hostPath follows no fsGroup, so a pod of a third namespace opens the directories first, and removes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from include.manifest import DEFAULT_PATH
from include.model.blessing.blessing import render_public_pem
from tests import blessed, credit
from tests.proofs.prove_k8s_manifests import OVERLAYS, rendered

Object = dict[str, Any]
PODS = Path(__file__).resolve().parents[1] / "cluster" / "pods"
PORT = 8080
NOBODY = 10001
BY_HAND = "evergreen-by-hand"
KINDS = (
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "PersistentVolumeClaim",
    "NetworkPolicy",
    "Service",
    "Deployment",
    "PodDisruptionBudget",
)
OF_DATASTORES = ("mlflow", "postgres", "s3")
PLURALS = {"NetworkPolicy": "networkpolicies"}
SMALL = {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"memory": "1Gi"}}


class ClusterSettings(BaseSettings):
    """Read from K8S_SERVER_IMAGE, K8S_JOB_IMAGE and so on; the last four are told by the proof to its tests."""

    model_config = SettingsConfigDict(env_prefix="K8S_", frozen=True)

    server_image: str = Field("localhost/evergreen-server:latest", description="stage `server` of the Dockerfile")
    job_image: str = Field("localhost/evergreen-job:latest", description="stage `job`")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "Never"
    storage_class: str = Field("", description="empty: the default one, and without it directories of a node")
    prefix: str = Field("evergreen-test", description="of the namespaces, which are deleted at the end")
    job_cpu: str = Field("500m", description="request and limit of one job")
    patience_s: float = Field(300, description="until a pod of the proof is ready")
    namespace: str = ""
    proxy: str = Field("", description="kubectl proxy: the API server with the rights of KUBECONFIG")
    airflow_config: str = Field("", description="a kubeconfig with the rights of evergreen-airflow alone")
    reach: Literal["api", "node"] = Field("api", description="pods are asked through the API server, or directly")

    @property
    def clients(self) -> str:
        return f"{self.namespace}-clients"

    @property
    def by_root(self) -> str:
        return f"{self.namespace}-by-root"

    @property
    def directory(self) -> str:
        """Of a node; it holds one for each run, and stays."""
        return f"/var/lib/{self.prefix}"


def collection(each: Object) -> str:
    """The path of the API under which objects of this kind and namespace lie."""
    version, kind = each["apiVersion"], each["kind"]
    group = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    namespace = each["metadata"].get("namespace")
    plural = PLURALS.get(kind, f"{kind.lower()}s")
    return f"{group}/namespaces/{namespace}/{plural}" if namespace else f"{group}/{plural}"


def objects(settings: ClusterSettings, node: str | None) -> list[Object]:
    """In the order in which they can be made. `node`: whose directories are the volumes; None: claims find theirs."""
    parts = [each for each in rendered(OVERLAYS / "dev") if each["kind"] in KINDS and not _of_datastore(each)]
    for each in parts:
        _moved(each, settings, node is not None)
    return [
        _namespace(settings.namespace, "restricted"),
        _namespace(settings.clients, "restricted", {"evergreen/clients": "true"}),
        *([] if node is None else [_volume(settings, claim, node) for claim in ("store", "serving")]),
        *sorted(parts, key=lambda each: KINDS.index(each["kind"])),
        *_by_hand(settings),
        _door(settings),
        disk_pod(settings),
    ]


def _of_datastore(each: Object) -> bool:
    name = each["metadata"]["name"]
    return name in OF_DATASTORES or name == "datastores"


def _moved(each: Object, settings: ClusterSettings, by_hand: bool) -> None:
    each["metadata"]["namespace"] = settings.namespace
    for subject in each.get("subjects", ()):
        subject["namespace"] = settings.namespace
    if each["kind"] == "Deployment":
        container = each["spec"]["template"]["spec"]["containers"][0]
        container |= {"image": settings.server_image, "imagePullPolicy": settings.pull_policy, "resources": SMALL}
        each["spec"]["replicas"] = 0
    if each["kind"] == "PersistentVolumeClaim":
        each["spec"]["resources"]["requests"]["storage"] = "1Gi"
        chosen = BY_HAND if by_hand else settings.storage_class
        each["spec"].pop("storageClassName", None)
        each["spec"] |= {"storageClassName": chosen} if chosen else {}


def _namespace(name: str, level: str, labels: dict[str, str] | None = None) -> Object:
    said = {"pod-security.kubernetes.io/enforce": level, **(labels or {})}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": said}}


def _volume(settings: ClusterSettings, claim: str, node: str) -> Object:
    at = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec = {
        "storageClassName": BY_HAND,
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": settings.namespace, "name": claim},
        "hostPath": {"path": f"{settings.directory}/{settings.namespace}/{claim}", "type": "Directory"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [at]}]}},
    }
    name = f"{settings.namespace}-{claim}"
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def _by_hand(settings: ClusterSettings) -> Iterator[Object]:
    """What the overlay says a person makes."""
    made = {
        "evergreen-trusted-keys": {"trusted.pem": render_public_pem(blessed.KEY)},
        "evergreen-manifest": {"pipeline.yaml": DEFAULT_PATH.read_text()},
    }
    for name, data in made.items():
        meta = {"name": name, "namespace": settings.namespace}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def _door(settings: ClusterSettings) -> Object:
    """The disk of the proof may be asked; slots and jobs keep the rules of the overlay."""
    spec = {"podSelector": {"matchLabels": {"evergreen/proof": "disk"}}, "policyTypes": ["Ingress"], "ingress": [{}]}
    meta = {"name": "proof", "namespace": settings.namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


# --- pods of the proof's own -----------------------------------------------------------------------------------------


def disk_pod(settings: ClusterSettings) -> Object:
    environment = {"ROOMS": "/serving:/store", "PORT": str(PORT)}
    pod = _pod(settings, settings.namespace, "disk", (PODS / "disk.py").read_text(), environment)
    claims = [(name, {"persistentVolumeClaim": {"claimName": name}}) for name in ("serving", "store")]
    return _mounting(pod, claims)


def load_pod(settings: ClusterSettings, target: str) -> Object:
    environment = {"TARGET": target, "ROWS": json.dumps(credit.rows()[:50]), "PORT": str(PORT)}
    return _pod(settings, settings.clients, "load", (PODS / "load.py").read_text(), environment)


def root_pod(settings: ClusterSettings, node: str, name: str, code: str) -> Object:
    """Opens or removes the directories of a node, which no pod of `restricted` could."""
    pod = _pod(settings, settings.by_root, name, code, {"ROOM": f"/node/{settings.namespace}"})
    pod["spec"]["securityContext"] = {}
    pod["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0}
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return _mounting(pod, [("node", {"hostPath": {"path": settings.directory, "type": "DirectoryOrCreate"}})])


OPEN_UP = """
import os
for name in ("store", "serving"):
    place = os.path.join(os.environ["ROOM"], name)
    os.makedirs(place, exist_ok=True)
    os.chmod(place, 0o777)
"""
CLEAR_AWAY = """
import os, shutil
shutil.rmtree(os.environ["ROOM"], ignore_errors=True)
"""


def by_root(settings: ClusterSettings) -> Object:
    return _namespace(settings.by_root, "privileged")


def _pod(settings: ClusterSettings, namespace: str, name: str, code: str, environment: dict[str, str]) -> Object:
    """A pod that runs one Python source in the image of the server; `restricted` has nothing against it."""
    rights = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "main",
        "image": settings.server_image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-u", "-c", code],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": rights,
        "ports": [{"name": "http", "containerPort": PORT}],
    }
    whole = {"runAsNonRoot": True, "runAsUser": NOBODY, "fsGroup": NOBODY, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "containers": [container],
        "securityContext": whole,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
    }
    meta = {"name": name, "namespace": namespace, "labels": {"evergreen/proof": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _mounting(pod: Object, volumes: list[tuple[str, Object]]) -> Object:
    pod["spec"]["volumes"] = [{"name": name, **source} for name, source in volumes]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": n, "mountPath": f"/{n}"} for n, _ in volumes]
    return pod
