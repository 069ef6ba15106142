"""The same DAGs on a real cluster: the contract suite of the serving target, jobs as pods, releases under load, rights.

    export KUBECONFIG=~/.kube/config K8S_SERVER_IMAGE=... K8S_JOB_IMAGE=...
    make test-k8s                               # ARGS="-k rights": a part of it

It installs the dev overlay in namespaces of its own (restricted), runs tests/contract/test_serving_target.py and
tests/cluster against them, and takes all of it away. Requests go through the API server, so pods need not be reachable
from here; load is made inside. The settings stand in tests/proofs/k8s_installation.py. Without KUBECONFIG it says so in
one sentence, and nothing is counted.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from include.kernel.errors import EvergreenError
from tests.ground import wait_for
from tests.proofs import k8s_installation as installation
from tests.proofs.k8s_installation import ClusterSettings, Object, collection
from tests.proofs.prove_k8s_manifests import kubectl
from tests.real_cluster import Reached

SUITES = ("tests/contract/test_serving_target.py", "tests/cluster")
TOKEN_S = 4 * 3600  # a cluster may give less; the suites take half an hour
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NO_CLUSTER = "There is no cluster: KUBECONFIG is not set. Nothing was run, and nothing counts as shown."


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def proxied() -> Iterator[str]:
    """kubectl proxy on a free port: whatever way KUBECONFIG proves who one is, here it is plain HTTP."""
    process = subprocess.Popen([kubectl(), "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
        if not found:
            raise SystemExit("kubectl proxy did not start; look whether KUBECONFIG names a file.")
        yield f"http://{found[0]}"
    finally:
        process.terminate()
        process.wait()


# --- the installation ------------------------------------------------------------------------------------------------


def make(reached: Reached, each: Object) -> None:
    if reached.api.create(collection(each), each) is None:
        raise SystemExit(f"{each['kind']} {each['metadata']['name']} is there already; set another K8S_PREFIX.")


def node_for_volumes(reached: Reached) -> str | None:
    """None where claims find a volume by themselves; otherwise the name of a node that takes pods."""
    classes = reached.api.list("/apis/storage.k8s.io/v1/storageclasses")
    defaults = [c for c in classes if (c["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"]
    if reached.settings.storage_class or defaults:
        return None
    nodes = [node for node in reached.api.list("/api/v1/nodes") if not node["spec"].get("taints")]
    if not nodes:
        raise SystemExit("No node takes pods without a toleration; take the taint away, or set K8S_STORAGE_CLASS.")
    return str(nodes[0]["metadata"]["labels"]["kubernetes.io/hostname"])


def run_to_its_end(reached: Reached, pod: Object) -> None:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    wait_for(lambda: reached.api.get(reached.path("serviceaccounts", "default", namespace=namespace)))
    make(reached, pod)
    wait_for_phase(reached, namespace, name, "Succeeded")


def wait_for_phase(reached: Reached, namespace: str, name: str, phase: str) -> None:
    """Ends with the pod's own words when it does not come that far."""
    path = reached.path("pods", name, namespace=namespace)

    def has_come() -> bool:
        status = reached.must(path).get("status", {})
        if status.get("phase") == "Failed":
            raise SystemExit(f"Pod {namespace}/{name} failed: {reached.api.read_text(f'{path}/log')[-600:]}")
        return bool(status.get("phase") == phase)

    try:
        wait_for(has_come, reached.settings.patience_s)
    except AssertionError:
        status = json.dumps(reached.must(path).get("status", {}))
        raise SystemExit(
            f"Pod {namespace}/{name} did not become {phase} in {reached.settings.patience_s:g} s; look at its image, "
            f"K8S_PULL_POLICY and K8S_STORAGE_CLASS: {status[:900]}"
        ) from None


@contextmanager
def installed(reached: Reached) -> Iterator[None]:
    """Everything, and nothing of it afterwards; a second proof on the same cluster has namespaces of its own."""
    settings, node = reached.settings, node_for_volumes(reached)
    made = installation.objects(settings, node)
    try:
        if node:
            make(reached, installation.by_root(settings))
            run_to_its_end(reached, installation.root_pod(settings, node, "open-up", installation.OPEN_UP))
        for each in made:
            make(reached, each)
        wait_for_phase(reached, settings.namespace, "disk", "Running")
        say(f"installed {len(made)} objects in {settings.namespace}, volumes on {node or 'a storage class'}")
        yield
    finally:
        taken_away(reached, node)


def taken_away(reached: Reached, node: str | None) -> None:
    """Namespaces go with what is in them; directories once no pod writes there any more."""
    settings = reached.settings
    for name in (settings.clients, settings.namespace):
        _delete(reached, f"/api/v1/namespaces/{name}")
    if node is None:
        return
    with suppress(AssertionError, SystemExit, EvergreenError, httpx.HTTPError):
        wait_for(lambda: reached.api.get(f"/api/v1/namespaces/{settings.namespace}") is None, settings.patience_s)
        run_to_its_end(reached, installation.root_pod(settings, node, "clear-away", installation.CLEAR_AWAY))
    for claim in ("store", "serving"):
        _delete(reached, f"/api/v1/persistentvolumes/{settings.namespace}-{claim}")
    _delete(reached, f"/api/v1/namespaces/{settings.by_root}")


def _delete(reached: Reached, path: str) -> None:
    with suppress(EvergreenError):
        if found := reached.api.get(path):
            reached.api.delete(path, found["metadata"]["uid"])


def airflow_config(reached: Reached, room: Path) -> Path:
    """A kubeconfig of the same cluster for evergreen-airflow, so that every call of ours is made with its rights."""
    shown = subprocess.run(
        [kubectl(), "config", "view", "--raw", "--minify", "--flatten", "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": TOKEN_S}}
    given = reached.api.create(reached.path("serviceaccounts", "evergreen-airflow/token"), asked)
    assert given is not None
    found = json.loads(shown.stdout)
    found["users"] = [{"name": "airflow", "user": {"token": given["status"]["token"]}}]
    for each in found["contexts"]:
        each["context"] |= {"user": "airflow", "namespace": reached.namespace}
    path = room / "airflow.kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(found))
    return path


def reach_of(reached: Reached) -> str:
    """Through the API server where that gets to pods; else directly, as from the node itself."""
    for reach in ("api", "node"):
        tried = Reached(reached.settings.model_copy(update={"reach": reach}))
        with suppress(AssertionError):
            wait_for(lambda seen=tried: seen.http.get(f"{seen.pod('disk')}/serving").status_code == 200, 60)  # type: ignore[misc]
            return reach
    raise SystemExit("Neither the API server nor this machine reaches a pod; run this on a node, or look at the CNI.")


# --- the tests -------------------------------------------------------------------------------------------------------


def tested(settings: ClusterSettings, room: Path, more: list[str]) -> dict[str, Any]:
    """Runs the suites and counts what passed, by the file of each test."""
    told = {f"K8S_{name.upper()}": str(value) for name, value in settings.model_dump().items()}
    report = room / "report.xml"
    command = [sys.executable, "-W", "ignore", "-m", "pytest", *SUITES, "-v", "--tb=short", "-p", "no:cacheprovider"]
    ended = subprocess.run([*command, f"--junitxml={report}", *more], env={**os.environ, **told}, check=False)
    cases = list(xml.parse(report).getroot().iter("testcase")) if report.exists() else []
    bad = [case for case in cases if {child.tag for child in case} & {"failure", "error"}]
    passed = [case for case in cases if not {child.tag for child in case} & {"failure", "error", "skipped"}]
    by_file: dict[str, int] = {}
    for case in passed:
        name = next((part for part in case.get("classname", "").split(".") if part.startswith("test_")), "others")
        by_file[name] = by_file.get(name, 0) + 1
    ok = ended.returncode == 0 and bool(passed)
    return {"ok": ok, "counted": len(passed), "failed": [case.get("name") for case in bad], **by_file}


def proved(more: list[str]) -> dict[str, Any]:
    with proxied() as proxy, tempfile.TemporaryDirectory() as made:
        settings = ClusterSettings()
        named = {"proxy": proxy, "namespace": f"{settings.prefix}-{secrets.token_hex(3)}"}
        settings = settings.model_copy(update=named)
        reached = Reached(settings)
        with installed(reached):
            known = {"airflow_config": str(airflow_config(reached, Path(made))), "reach": reach_of(reached)}
            return tested(settings.model_copy(update=known), Path(made), more)


def main(more: list[str]) -> int:
    if not os.environ.get("KUBECONFIG"):
        say(NO_CLUSTER)
        say(json.dumps({"ok": True, "counted": 0}))
        return 0
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
    try:
        found = proved(more)
    except (EvergreenError, SystemExit, httpx.HTTPError, subprocess.CalledProcessError) as error:
        say(" ".join(f"{error} {getattr(error, 'stderr', None) or ''}".split()))
        found = {"ok": False, "counted": 0}
    say(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
