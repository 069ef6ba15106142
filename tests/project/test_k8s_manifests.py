"""The overlays of k8s/ are without a fault, and each fault that is looked for is found when it is put in."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from include import manifest as manifests
from tests.proofs import prove_k8s_manifests as checks

Objects = list[dict[str, Any]]
OVERLAYS = sorted(path for path in checks.OVERLAYS.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def rendered() -> Objects:
    return checks.rendered(checks.OVERLAYS / "prod")


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_an_overlay_has_no_fault(overlay) -> None:
    assert checks.problems(checks.rendered(overlay)) == []


def test_a_mesh_in_place_of_a_gateway_has_no_fault(tmp_path) -> None:
    """No overlay takes Istio, so one is made here; the object that is made once is not in it."""
    base, istio = (os.path.relpath(checks.ROOT / "k8s" / part, tmp_path) for part in ("base", "components/istio"))
    content = {"resources": [base], "components": [istio], "namespace": "evergreen"}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))
    objects = checks.rendered(tmp_path)
    assert checks.problems(objects) == [] and one(objects, "RoleBinding", "evergreen-istio")
    made_once = yaml.safe_load((checks.ROOT / "k8s/istio/virtualservice.yaml").read_text())
    assert made_once["metadata"]["name"] in one(objects, "Role", "evergreen-istio")["rules"][0]["resourceNames"]


def one(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    return next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))


def container(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "Deployment", "slot-blue")["spec"]["template"]["spec"]["containers"][0]
    return found


FAULTS: list[tuple[str, Callable[[Objects], Any], str]] = [
    ("a typo", lambda o: container(o).update(imagePulPolicy="Never"), "imagePulPolicy"),
    ("root", lambda o: container(o)["securityContext"].pop("readOnlyRootFilesystem"), "may do more than it needs"),
    ("no limit", lambda o: container(o)["resources"].pop("limits"), "knows no limit"),
    ("no probe", lambda o: container(o).pop("readinessProbe"), "nobody probes"),
    ("a lost ConfigMap", lambda o: o.remove(one(o, "ConfigMap", "evergreen-server")), "which nobody makes"),
    ("a lost claim", lambda o: o.remove(one(o, "PersistentVolumeClaim", "serving")), "which nobody makes"),
    (
        "a wrong port",
        lambda o: one(o, "Service", "slot-blue")["spec"]["ports"][0].update(targetPort="web"),
        "no port web",
    ),
    (
        "another's account",
        lambda o: one(o, "RoleBinding", "evergreen-jobs")["subjects"][0].update(namespace="other"),
        "binds ServiceAccount evergreen-airflow other, which is not there",
    ),
    (
        "a selector in the file",
        lambda o: one(o, "Service", "predictions")["spec"].update(selector={"evergreen/slot": "blue"}),
        "applying it again would overwrite selector",
    ),
    (
        "an open door",
        lambda o: o.remove(one(o, "NetworkPolicy", "default-deny")),
        "nothing denies all traffic by default",
    ),
    (
        "a lax namespace",
        lambda o: one(o, "Namespace", "evergreen")["metadata"]["labels"].update(
            {"pod-security.kubernetes.io/enforce": "baseline"}
        ),
        "does not enforce restricted",
    ),
    (
        "a stray",
        lambda o: one(o, "ConfigMap", "mlflow")["metadata"].update(namespace="elsewhere"),
        "lies in namespace elsewhere",
    ),
]


@pytest.mark.parametrize(("fault", "said"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS])
def test_a_fault_that_is_put_in_is_found(rendered, fault, said) -> None:
    objects = copy.deepcopy(rendered)
    fault(objects)
    assert any(said in problem for problem in checks.problems(objects))


def test_airflow_may_do_no_more_than_its_operators_ask_for(rendered) -> None:
    """Every verb on a Secret but `create`, every wildcard and every right beyond the namespace would be too much."""
    rules = [rule for each in rendered if each["kind"] == "Role" for rule in each["rules"]]
    assert not [each for each in rendered if each["kind"].startswith("ClusterRole")]
    assert not [rule for rule in rules if "*" in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}]
    assert {verb for rule in rules if "secrets" in rule["resources"] for verb in rule["verbs"]} == {"create"}
    assert not [rule for rule in rules if "pods/exec" in rule["resources"]]


def test_what_the_manifest_names_is_what_the_base_makes(rendered) -> None:
    jobs = manifests.load().jobs
    assert one(rendered, "ServiceAccount", jobs.service_account)
    assert one(rendered, "Namespace", jobs.namespace)
