"""What can be shown on a real cluster without an image: rights, the fences of a release, and pods that cannot start.

    kind create cluster                      # or any cluster, with the right to make a namespace
    export KUBECONFIG=~/.kube/config
    make test-k8s

Everything happens in a namespace of its own, which enforces Pod Security `restricted` and is deleted at the end.
Without KUBECONFIG it says so, and nothing is counted as shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from include.adapters import cluster as clusters
from include.adapters.cluster import Cluster
from include.adapters.serving_kubernetes import KubernetesTarget
from include.core import pods
from include.core.errors import Conflict
from include.core.job import Intent, JobRequest
from include.core.manifest import ClusterSpec, JobsSpec
from include.core.rollout import Release, Verdict
from tests.proofs.prove_k8s_manifests import OVERLAYS, kubectl, rendered

NAMESPACE = f"evergreen-test-{os.getpid()}"
AIRFLOW = f"system:serviceaccount:{NAMESPACE}:evergreen-airflow"
PARTS = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget")
MAY = (
    ("create", "pods"),
    ("watch", "pods"),
    ("delete", "pods"),
    ("create", "secrets"),
    ("update", "services/predictions"),
    ("update", "deployments.apps/slot-blue"),
    ("patch", "configmaps/evergreen-evidence"),
    ("list", "endpointslices.discovery.k8s.io"),
)
MAY_NOT = (
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "deployments.apps"),
    ("update", "deployments.apps/mlflow"),
    ("update", "services/mlflow"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("create", "pods/exec"),
    ("list", "nodes"),
)
SPEC = ClusterSpec(replicas=1)


def run(*arguments: str, given: str | None = None, check: bool = True) -> str:
    done = subprocess.run([kubectl(), *arguments], input=given, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise SystemExit(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def installed() -> None:
    """The parts of the dev overlay that need no image, under another name and without replicas."""
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    meta = {"name": NAMESPACE, "labels": level}
    run("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}))
    chosen = [each for each in rendered(OVERLAYS / "dev") if each["kind"] in PARTS]
    for each in chosen:
        each["metadata"]["namespace"] = NAMESPACE
        for subject in each.get("subjects", ()):
            subject["namespace"] = NAMESPACE
        if each["kind"] == "Deployment":
            each["spec"]["replicas"] = 0
    run("apply", "-f", "-", given=yaml.safe_dump_all(chosen))


def wrong_rights() -> list[str]:
    """What the account of Airflow may or may not do, against our word."""
    found = []
    for expected, asked in (("yes", MAY), ("no", MAY_NOT)):
        for verb, what in asked:
            said = run("auth", "can-i", verb, what, f"--as={AIRFLOW}", "-n", NAMESPACE, check=False).splitlines()
            if (said or [""])[-1].split(" ")[0] != expected:
                found.append(f"{verb} {what}: {' '.join(said)}, not {expected}")
    return found


def one_of_six_wins(target: KubernetesTarget) -> bool:
    won: list[int] = []

    def want(number: int) -> None:
        try:
            target.want(Release(str(number), "d" * 64), f"run {number}", "", "deploy", expected=0)
            won.append(number)
        except Conflict:
            pass

    writers = [threading.Thread(target=want, args=[number]) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return len(won) == 1


def old_wish_is_refused(target: KubernetesTarget) -> bool:
    old = target.wanted()
    assert old is not None
    target.want(Release("newer", "e" * 64), "another run", "", "deploy")
    before = target.observe()
    for write in (lambda: target.isolate(old), lambda: target.discard("blue", old), lambda: target.switch("blue", old)):
        try:
            write()
            return False
        except Conflict:
            pass
    return target.observe() == before


def verdict_is_kept(target: KubernetesTarget) -> bool:
    target.record(7, "accepted", Verdict.FAILED, "answered 422")
    return target.evidence(7).accepted is Verdict.FAILED


def pod_that_cannot_start(api: Cluster, name: str, more: dict[str, Any], patience_s: float) -> str:
    """The sentence about a pod of ours, made of the pod that the operator builds; a second one is refused."""
    spec = JobsSpec.model_validate(
        {"image": "localhost/nobody-has-this:1", "namespace": NAMESPACE, "resources": {"default": AMOUNT}}
        | {"image_pull_policy": "Never", "start_minutes": 1}
    )
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    body = {"apiVersion": "v1", "kind": "Pod", **_pod(name, spec)}
    body["spec"] |= more
    made = api.create(path, body)
    assert made is not None and api.create(path, body) is None, "a second pod of one name was not refused"
    began = time.monotonic()
    while (judged := pods.judge(_seen(api, path, name), spec, time.monotonic() - began)).state == "waiting":
        if time.monotonic() - began > patience_s:
            return "nothing was said in time"
        time.sleep(0.5)
    api.delete(f"{path}/{name}", made["metadata"]["uid"])
    return judged.why


AMOUNT = {"cpu": "50m", "memory": "64Mi"}


def _seen(api: Cluster, path: str, name: str) -> dict[str, Any]:
    found = api.get(f"{path}/{name}")
    assert found is not None, f"pod {name} is gone"
    return found


def _pod(name: str, spec: JobsSpec) -> dict[str, Any]:
    """As PodJobOperator would build it for this request."""
    from kubernetes.client import ApiClient

    from evergreen.operators.job_pod import PodJobOperator

    task = PodJobOperator(
        task_id="t", job="ingest", namespace=spec.namespace, image=spec.image, image_pull_policy="Never"
    )
    task.request = JobRequest(job="ingest", run_key=name, as_of=date(2026, 8, 1), intent=Intent.REHEARSAL)
    task.name = name
    built: dict[str, Any] = ApiClient().sanitize_for_serialization(task.build_pod_request_obj(dry_run=True))
    return built


def main() -> int:
    if not os.environ.get("KUBECONFIG"):
        print("There is no cluster: KUBECONFIG is not set. Nothing was run, and nothing counts as shown.")
        return 0
    api = clusters.connect(SPEC)
    installed()
    try:
        return _told(api)
    finally:
        run("delete", "namespace", NAMESPACE, "--wait=false", check=False)


def _told(api: Cluster) -> int:
    nowhere = {"blue": "http://127.0.0.1:9", "green": "http://127.0.0.1:9"}
    with tempfile.TemporaryDirectory() as room:
        target = KubernetesTarget(api, SPEC, NAMESPACE, Path(room), nowhere, nowhere["blue"])  # type: ignore[arg-type]
        nobody = {"nodeSelector": {"evergreen/nobody": "here"}}
        checks: dict[str, Callable[[], bool]] = {
            "rights": lambda: wrong_rights() == [],
            "one of six wishes wins": lambda: one_of_six_wins(target),
            "an old wish is refused": lambda: old_wish_is_refused(target),
            "a verdict is kept": lambda: verdict_is_kept(target),
            "an image nobody has": lambda: "cannot be had" in pod_that_cannot_start(api, "no-image", {}, 120),
            "a node nobody has": lambda: "No node took" in pod_that_cannot_start(api, "no-node", nobody, 180),
        }
        found = {}
        for name, check in checks.items():
            found[name] = check()
            print(f"{name}: {'ok' if found[name] else 'WRONG'}", flush=True)
    print("; ".join(wrong_rights()))
    print(json.dumps({"ok": all(found.values()), **found}))
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
