"""The Kubernetes target and the API server's moods: conflicts, overload, lost answers, refusals, and kills in between.

Rows 6 to 8 of the fault matrix, over HTTP with the real client. That it serves is shown by tests/contract.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from include.adapters import factory
from include.adapters.serving_kubernetes import KubernetesTarget
from include.core.errors import AccessRefused, Conflict, ManifestInvalid, RequestInvalid, ServiceUnavailable
from include.core.manifest import ClusterSpec
from include.core.rollout import COLOURS, Colour, Plan, Release, Route, Verdict, Wanted
from tests import kube_api, kube_nodes
from tests.kube_api import LOST, RESET, Fault, KubeApi
from tests.kube_nodes import CORE, DEPLOYMENTS, NAMESPACE, SLICES
from tests.served_cluster import SPEC, target_of

SERVICE = f"{CORE}/services/predictions"
ROUTES = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes"
NOWHERE: dict[Colour, str] = dict.fromkeys(COLOURS, "http://127.0.0.1:9")


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with kube_api.serving() as served:
        kube_nodes.install(served)
        yield served


@pytest.fixture
def target(api, tmp_path) -> KubernetesTarget:
    return target_of(api, tmp_path, NOWHERE, NOWHERE["blue"])


@pytest.fixture
def artifact(tmp_path) -> Path:
    from include.model.artifact import digest

    place = tmp_path / "made"
    place.mkdir()
    (place / "artifact.json").write_text(json.dumps({"golden": []}))
    digest(place)
    return place


@pytest.fixture
def release(artifact) -> Callable[[str], Release]:
    from include.model.artifact import digest

    return lambda version: Release(version, digest(artifact))


@pytest.fixture
def wish(target, release) -> Callable[..., Wanted]:
    return lambda version, by="a run", kind="deploy": target.want(release(version), by, "to see", kind)


def selector(api: KubeApi) -> str | None:
    return (api.read(SERVICE)["spec"].get("selector") or {}).get("evergreen/slot")


def holds(api: KubeApi, colour: str) -> str | None:
    annotations = api.read(f"{DEPLOYMENTS}/slot-{colour}")["spec"]["template"]["metadata"].get("annotations", {})
    text = annotations.get("evergreen/release")
    return json.loads(text)["version"] if text else None


def run_pods(api: KubeApi, colour: str) -> None:
    """As controller, kubelet and endpoints would leave things: one ready pod of what the Deployment says."""
    template = api.read(f"{DEPLOYMENTS}/slot-{colour}")["spec"]["template"]
    name = f"slot-{colour}-{len(api.asked)}"
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    for pod in [pod for pod in api.of("pods") if pod["metadata"]["labels"]["evergreen/slot"] == colour]:
        api.delete(f"{CORE}/pods/{pod['metadata']['name']}")
    api.create(f"{CORE}/pods", {"metadata": {"name": name, **template["metadata"]}, "spec": {}, "status": ready})


def follow_service(api: KubeApi) -> None:
    names = [
        p["metadata"]["name"] for p in api.of("pods") if p["metadata"]["labels"]["evergreen/slot"] == selector(api)
    ]
    endpoints = [{"targetRef": {"name": name}, "conditions": {"ready": True}} for name in names]
    api.change(f"{SLICES}/predictions-1", lambda each: each.update(endpoints=endpoints))


@pytest.fixture
def live(api, target, wish, artifact) -> Callable[..., Wanted]:
    """Stages a version and switches to it."""

    def go(version: str, colour: Colour = "blue", **more: Any) -> Wanted:
        wanted = wish(version, **more)
        target.stage(colour, wanted, artifact)
        run_pods(api, colour)
        switch(api, target, colour, wanted)
        return wanted

    return go


def switch(api: KubeApi, target: KubernetesTarget, colour: Colour, wanted: Wanted) -> None:
    done = threading.Event()

    def controllers() -> None:
        while not done.wait(0.02):
            follow_service(api)

    thread = threading.Thread(target=controllers)
    thread.start()
    try:
        target.switch(colour, wanted)
    finally:
        done.set()
        thread.join()


class TestRecord:
    def test_the_wish_the_route_and_the_selector_are_one_object_under_one_version(self, api, target, live):
        live("1")
        service = api.read(SERVICE)
        assert service["spec"]["selector"] == {"app.kubernetes.io/name": "slot", "evergreen/slot": "blue"}
        assert {*service["metadata"]["annotations"]} >= {"evergreen/wanted", "evergreen/route"}
        assert target.observe().route == Route("blue", None, 1, trial=1)

    def test_an_empty_slot_that_gets_a_release_has_its_replicas_and_one_that_was_scaled_up_keeps_them(
        self, api, target, wish, artifact
    ):
        wanted = wish("1")
        target.stage("blue", wanted, artifact)
        api.change(f"{DEPLOYMENTS}/slot-blue", lambda each: each["spec"].update(replicas=7))
        target.stage("blue", wanted, artifact)
        assert api.read(f"{DEPLOYMENTS}/slot-blue")["spec"]["replicas"] == 7

    def test_a_slot_is_ready_when_no_pod_of_an_earlier_release_is_left(self, api, target, live, wish, artifact):
        live("1")
        live("2", "green", by="b")
        third = wish("3", by="c")
        target.stage("blue", third, artifact)
        assert not target.observe().blue.ready  # its pod still serves version 1
        run_pods(api, "blue")
        assert target.observe().blue.ready

    def test_the_pods_that_lost_the_traffic_are_replaced_and_hold_the_same_release(self, api, target, live):
        live("1")
        live("2", "green", by="b")
        template = api.read(f"{DEPLOYMENTS}/slot-blue")["spec"]["template"]["metadata"]["annotations"]
        assert (template["evergreen/let-go"], holds(api, "blue")) == ("2", "1")
        assert api.read(f"{DEPLOYMENTS}/slot-blue")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert target.observe().blue.ready

    def test_verdicts_of_long_ago_are_forgotten_and_those_of_now_are_not(self, api, target, wish):
        for number in range(60):
            wanted = wish(str(number), by=str(number))
            target.record(wanted.generation, "accepted", Verdict.PASSED, "")
        assert target.verdicts(1) == {} and target.verdicts(60) != {}

    def test_a_record_that_was_lost_does_not_let_a_generation_come_again(self, api, target, wish):
        wish("1")
        target.record(wish("2", by="b").generation, "accepted", Verdict.PASSED, "")
        api.change(SERVICE, lambda each: each["metadata"].pop("annotations"))
        assert wish("3").generation == 3


class TestFence:
    """Whatever a run was about to write when it was stopped: a newer wish that went live meanwhile is not touched."""

    MOMENTS = (
        *(
            pytest.param(write, SERVICE, id=f"{write} at the route")
            for write in ("stage", "discard", "switch", "isolate")
        ),
        *(
            pytest.param(write, f"{DEPLOYMENTS}/slot-green", id=f"{write} at the slot")
            for write in ("stage", "discard")
        ),
        pytest.param("switch", f"{DEPLOYMENTS}/slot-green", id="switch at the slot"),
        pytest.param("revert", f"{DEPLOYMENTS}/slot-green", id="revert at the slot"),
        pytest.param("revert", SERVICE, id="revert at the route"),
    )

    @pytest.mark.parametrize(("write", "moment"), MOMENTS)
    def test_a_run_that_comes_too_late_changes_nothing(self, api, target, live, wish, artifact, write, moment):
        live("1")
        live("2", "green", by="b")
        back = live("1", "blue", by="c")  # version 2 is in green, and idle
        stale = wish("2" if write == "switch" else "3", by="stale")
        newer: list[Wanted] = []

        def take_over() -> None:
            newer.append(wish("2", by="newer", kind="rollback"))
            target.switch("green", newer[0])

        api.meanwhile("PUT", moment, take_over)
        writes = {
            "stage": lambda: target.stage("green", stale, artifact),
            "discard": lambda: target.discard("green", stale),
            "switch": lambda: target.switch("green", stale),
            "isolate": lambda: target.isolate(stale),
            "revert": lambda: target.revert("green", stale),
        }
        with controllers(api), pytest.raises(Conflict, match="no longer wanted"):
            writes[write]()
        assert back.generation < newer[0].generation == target.observe().route.generation
        assert (selector(api), holds(api, "green"), holds(api, "blue")) == ("green", "2", "1")

    def test_at_no_time_do_two_slots_have_the_traffic(self, api, target, live, wish):
        live("1")
        live("2", "green", by="b")
        seen: list[Any] = []
        with controllers(api, lambda: seen.append(selector(api))):
            for number in range(4):
                colour: Colour = "blue" if number % 2 == 0 else "green"
                target.switch(colour, wish("1" if colour == "blue" else "2", by=str(number), kind="rollback"))
        assert [each for each, _ in itertools.groupby(seen)][-4:] == ["blue", "green", "blue", "green"][-4:]

    def test_nobody_empties_the_live_slot(self, target, live, artifact):
        wanted = live("1")
        with pytest.raises(Conflict, match="Slot blue carries live traffic"):
            target.discard("blue", wanted)

    def test_a_slot_that_holds_something_else_is_not_switched_to(self, target, live, wish):
        live("1")
        with pytest.raises(Conflict, match="slot-green does not hold version 2"):
            target.switch("green", wish("2", by="b"))


class controllers:
    """Endpoints follow the selector while the block lasts."""

    def __init__(self, api: KubeApi, look: Callable[[], Any] = lambda: None) -> None:
        self._api, self._look, self._done = api, look, threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def _follow(self) -> None:
        while not self._done.wait(0.005):
            follow_service(self._api)
            self._look()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()


class TestMoods:
    @pytest.mark.parametrize(
        "fault", [Fault(409), Fault(429, retry_after="1"), Fault(500), Fault(503), RESET, LOST], ids=str
    )
    @pytest.mark.parametrize("path", [SERVICE, f"{DEPLOYMENTS}/slot-blue"], ids=["route", "slot"])
    def test_what_is_soon_over_is_tried_again_and_done_once(self, api, target, live, path, fault):
        api.script("PUT", f"{path}$", fault, fault)
        wanted = live("1")
        assert (wanted.generation, selector(api), holds(api, "blue")) == (1, "blue", "1")
        assert target.wanted() == wanted

    @pytest.mark.parametrize("fault", [Fault(429), Fault(500), Fault(504), RESET], ids=str)
    def test_what_is_not_over_soon_is_one_sentence(self, api, target, wish, fault):
        api.script("PUT", f"{SERVICE}$", *[fault] * 20)
        with pytest.raises(ServiceUnavailable, match=f"The Kubernetes API at {api.url} "):
            wish("1")
        assert api.asked.count(("PUT", SERVICE)) == SPEC.attempts

    def test_an_object_that_others_write_all_the_time_is_given_up_with_a_sentence(self, api, wish):
        api.script("PUT", f"{SERVICE}$", *[Fault(409)] * 20)
        with pytest.raises(Conflict, match="Somebody else writes what is wanted of evergreen all the time"):
            wish("1")
        assert api.asked.count(("PUT", SERVICE)) == SPEC.attempts

    def test_a_server_that_says_nothing_is_not_waited_for_for_ever(self, api, tmp_path, release):
        quick = ClusterSpec(attempts=2, timeout_s=0.5, longest_wait_s=0.1)
        hurried = target_of(api, tmp_path, NOWHERE, NOWHERE["blue"], quick)
        api.script("GET", f"{SERVICE}$", Fault(silent_s=3), Fault(silent_s=3))
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            hurried.want(release("1"), "a run", "", "deploy")

    @pytest.mark.parametrize("path", [SERVICE, f"{DEPLOYMENTS}/slot-blue"], ids=["route", "slot"])
    def test_a_right_that_is_missing_is_one_sentence_and_no_retry(self, api, target, live, path):
        api.script("PUT", f"{path}$", *[Fault(403, "cannot update resource")] * 20)
        with pytest.raises(AccessRefused, match=r"cannot update resource\); bind the role of k8s/base to this account"):
            live("1")
        assert selector(api) is None

    @pytest.mark.parametrize("path", [SERVICE, f"{CORE}/configmaps/evergreen-evidence", f"{DEPLOYMENTS}/slot-green"])
    def test_what_was_never_installed_is_named(self, api, target, path):
        api.delete(path)
        with pytest.raises(RequestInvalid, match=r"in namespace evergreen; apply an overlay of k8s/ there"):
            target.observe()
            target.evidence(1)

    def test_a_kill_between_the_switch_and_letting_go_is_mended_by_the_next_look(self, api, target, live, wish):
        live("1")
        wanted = wish("2", by="b")
        target.stage("green", wanted, target.has_artifact(wanted.release.digest))
        run_pods(api, "green")
        api.script("PUT", f"{DEPLOYMENTS}/slot-blue$", *[Fault(500)] * SPEC.attempts)
        with controllers(api), pytest.raises(ServiceUnavailable):
            target.switch("green", wanted)
        assert selector(api) == "green"
        assert "evergreen/let-go" in api.read(SERVICE)["metadata"]["annotations"]
        target.observe()
        assert "evergreen/let-go" not in api.read(SERVICE)["metadata"]["annotations"]
        template = api.read(f"{DEPLOYMENTS}/slot-blue")["spec"]["template"]["metadata"]["annotations"]
        assert template["evergreen/let-go"] == "2"


class TestGateway:
    SPLITTING = ClusterSpec(**{**SPEC.model_dump(), "gateway": "predictions"})

    @pytest.fixture
    def gateway(self, api, tmp_path) -> KubernetesTarget:
        api.create(ROUTES, {"kind": "HTTPRoute", "metadata": {"name": "predictions"}, "spec": {}})
        return target_of(api, tmp_path, NOWHERE, NOWHERE["blue"], self.SPLITTING)

    def rule(self, api: KubeApi) -> dict[str, Any]:
        [rule] = api.read(f"{ROUTES}/predictions")["spec"]["rules"]
        return rule

    @pytest.fixture
    def on_trial(self, api, gateway, release, artifact) -> Wanted:
        """Version 1 is live in blue, version 2 staged in green."""
        accepted = {"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": None}]}
        api.change(f"{ROUTES}/predictions", lambda each: each.update(status={"parents": [accepted]}))
        for version, colour in (("1", "blue"), ("2", "green")):
            wanted = gateway.want(release(version), version, "", "deploy", plan=Plan(weights=(25,)))
            gateway.stage(colour, wanted, artifact)
            if version == "1":
                gateway.switch(colour, wanted)
        return wanted

    def test_a_share_is_a_weight(self, api, gateway, on_trial):
        gateway.split(on_trial, share=25)
        assert [(each["name"], each["weight"]) for each in self.rule(api)["backendRefs"]] == [
            ("slot-blue", 75),
            ("slot-green", 25),
        ]
        assert gateway.observe().route == Route("blue", None, 2, share=25, trial=1)

    def test_a_mirror_is_a_filter_and_no_backend(self, api, gateway, on_trial):
        gateway.split(on_trial, mirror=True)
        assert [each["name"] for each in self.rule(api)["backendRefs"]] == ["slot-blue"]
        [mirror] = [each for each in self.rule(api)["filters"] if each["type"] == "RequestMirror"]
        assert mirror["requestMirror"]["backendRef"]["name"] == "slot-green"
        gateway.withdraw(on_trial)
        assert not [each for each in self.rule(api)["filters"] if each["type"] == "RequestMirror"]

    def test_without_it_a_split_is_refused_with_the_way_out(self, target, live, wish):
        live("1")
        with pytest.raises(RequestInvalid, match="A Service has no weights and no mirrors; install the Gateway API"):
            target.split(wish("2", by="b"), share=25)

    def test_without_its_definitions_the_sentence_says_what_to_install(self, api, tmp_path):
        bare = target_of(api, tmp_path, NOWHERE, NOWHERE["blue"], self.SPLITTING)
        with pytest.raises(RequestInvalid, match="apply the Gateway API and k8s/components/gateway there"):
            bare.wanted()

    @pytest.mark.parametrize("changes", [{"release.strategy": "canary"}, {"release.shadow": {"enabled": True}}])
    def test_a_manifest_that_asks_for_it_without_a_gateway_is_refused_with_the_reason(self, small, changes):
        with pytest.raises(
            ManifestInvalid, match="which the Service of target kubernetes cannot give; install the Gat"
        ):
            small(target="kubernetes", **changes)
        small(target="kubernetes", cluster={"gateway": "predictions", "replicas": 1}, **changes)


def test_the_manifest_chooses_the_target(small, api, tmp_path, monkeypatch):
    small(target="kubernetes")
    monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(tmp_path / "kubeconfig", api.url)))
    chosen = factory.target()
    assert isinstance(chosen, KubernetesTarget)
    assert chosen.wanted() is None


def test_without_a_cluster_the_target_says_how_to_name_one(small, tmp_path, monkeypatch):
    small(target="kubernetes")
    monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(RequestInvalid, match=r"No Kubernetes cluster is named .* set KUBECONFIG"):
        factory.target()
