"""The roles of k8s/ and what is really asked of the API server: every request is allowed, and every right is used."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from include.kernel.words.verdicts import Verdict
from include.release.core.rollout import Release
from tests import kube_api, kube_nodes
from tests.kube_api import KubeApi, Kubelet
from tests.kube_nodes import CORE, NAMESPACE
from tests.plugins.test_job_pod_faults import PODS, Attempt, leave, only_pod, point_at
from tests.proofs import prove_k8s_manifests as checks
from tests.served_cluster import target_of

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
NOWHERE = {"blue": "http://127.0.0.1:9", "green": "http://127.0.0.1:9"}
Right = tuple[str, str, str, str]  # group, resource, name, verb; the name is empty where none is asked for


@pytest.fixture(scope="module")
def granted() -> list[dict[str, Any]]:
    roles = [each for each in checks.rendered(checks.OVERLAYS / "dev") if each["kind"] == "Role"]
    return [rule for role in roles for rule in role["rules"]]


def right(verb: str, path: str) -> Right:
    """What a request needs, as Kubernetes derives it from its path."""
    found = re.match(rf"/api(?:s/(?P<group>[^/]+))?/v1/namespaces/{NAMESPACE}/(?P<rest>.*)", path)
    assert found, path
    resource, name, *sub = [*found["rest"].split("/"), "", ""][:3]
    verb = VERBS.get(verb) or ("get" if name else "list")
    return found["group"] or "", "/".join(filter(None, [resource, *sub])), name, verb


def allows(rule: dict[str, Any], needed: Right) -> bool:
    group, resource, name, verb = needed
    named = "resourceNames" not in rule or name in rule["resourceNames"]
    return group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"] and named


@pytest.fixture
def asked(small, tmp_path, monkeypatch) -> Iterator[set[Right]]:
    """A job that ends well, one that fails, and a release that goes, comes back and is turned down."""
    small(target="kubernetes", cluster={"watch_s": 2.0})
    monkeypatch.setenv("AIRFLOW_CONN_EVERGREEN_S3", "aws://KEY:SECRET@")
    with kube_api.serving() as api:
        point_at(api.url, tmp_path, monkeypatch)
        kube_nodes.install(api)
        api.create(f"{CORE}/configmaps", {"metadata": {"name": "evergreen-jobs"}, "data": {}})
        run_jobs(api, Kubelet(api, tmp_path, PODS))
        release(api, tmp_path)
        yield {right(verb, path) for verb, path in api.asked}


def run_jobs(api: KubeApi, kubelet: Kubelet) -> None:
    good = Attempt().start()
    leave(only_pod(api))
    kubelet.end(good.name, 0)
    Attempt().finish(good)
    bad = Attempt(run_id="bad").start()
    kubelet.waits(bad.name, "ErrImageNeverPull")
    with pytest.raises(Exception, match="cannot be had"):
        Attempt(run_id="bad").finish(bad)
    worse = Attempt(run_id="worse").start()
    kubelet.end(worse.name, 65)
    with pytest.raises(Exception, match="left no result"):
        Attempt(run_id="worse").finish(worse)


def release(api: KubeApi, tmp_path: Any) -> None:
    from include.model.artifact import compute_digest

    target = target_of(api, tmp_path, NOWHERE, NOWHERE["blue"])  # type: ignore[arg-type]
    place = tmp_path / "made"
    place.mkdir()
    (place / "artifact.json").write_text("{}")
    wanted = target.request_release(Release("1", compute_digest(place)), "a run", "", "deploy")
    target.install_release("blue", wanted, place)
    target.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "")
    target.observe()
    target.switch("blue", wanted)  # no pod is ready, and so are no endpoints
    target.discard("green", wanted)


def test_every_request_is_allowed_and_every_right_is_used(asked, granted) -> None:
    assert [needed for needed in sorted(asked) if not any(allows(rule, needed) for rule in granted)] == []
    used = {(verb, resource) for _, resource, _, verb in asked} | {("watch", "pods")}  # a watch is a list by its path
    given = {pair for rule in granted for pair in itertools.product(rule["verbs"], rule["resources"])}
    assert given - used == set()
