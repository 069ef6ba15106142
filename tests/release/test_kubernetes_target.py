"""The Kubernetes target and the API server's moods: conflicts, overload, lost answers, refusals, and kills in between.

Rows 6 to 8 of the fault matrix, over HTTP with the real client. That it serves is shown by tests/contract.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.cluster.spec import ClusterSpec
from include.kernel.errors import AccessRefused, Conflict, ManifestInvalid, RequestInvalid, ServiceUnavailable
from include.kernel.words.colours import COLOURS, Colour
from include.kernel.words.verdicts import Verdict
from include.manifest import read_manifest
from include.release.core.rollout import DesiredState, Release, ReleasePlan, Route
from include.release.targets.kubernetes import routes, traffic
from include.release.targets.kubernetes.target import KubernetesTarget
from include.release.wiring import open_repair, open_target
from include.retraining.wiring import open_wait_conditions
from tests import kube_api, kube_nodes
from tests.kube_api import LOST, RESET, Fault, KubeApi
from tests.kube_nodes import CORE, DEPLOYMENTS, NAMESPACE, SLICES
from tests.served_cluster import SPEC, target_of

SERVICE = f"{CORE}/services/predictions"
ROOT = Path(__file__).resolve().parents[2]
VIRTUAL = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/virtualservices"
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
    from include.model.artifact import compute_digest

    place = tmp_path / "made"
    place.mkdir()
    (place / "artifact.json").write_text(json.dumps({"golden": []}))
    compute_digest(place)
    return place


@pytest.fixture
def release(artifact) -> Callable[[str], Release]:
    from include.model.artifact import compute_digest

    return lambda version: Release(version, compute_digest(artifact))


@pytest.fixture
def wish(target, release) -> Callable[..., DesiredState]:
    return lambda version, by="a run", kind="deploy": target.request_release(release(version), by, "to see", kind)


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
def live(api, target, wish, artifact) -> Callable[..., DesiredState]:
    """Stages a version and switches to it."""

    def go(version: str, colour: Colour = "blue", **more: Any) -> DesiredState:
        wanted = wish(version, **more)
        target.install_release(colour, wanted, artifact)
        run_pods(api, colour)
        switch(api, target, colour, wanted)
        return wanted

    return go


def switch(api: KubeApi, target: KubernetesTarget, colour: Colour, wanted: DesiredState) -> None:
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


def switch_without(api: KubeApi, target: KubernetesTarget, wanted: DesiredState, leaving: str) -> None:
    """As the endpoints controller does it, which takes out at once what is being deleted."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(0.02):
            follow_service(api)
            path = f"{SLICES}/predictions-1"
            left = [each for each in api.read(path)["endpoints"] if each["targetRef"]["name"] != leaving]
            api.change(path, lambda each, left=left: each.update(endpoints=left))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        target.switch("green", wanted)
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
        target.install_release("blue", wanted, artifact)
        api.change(f"{DEPLOYMENTS}/slot-blue", lambda each: each["spec"].update(replicas=7))
        target.install_release("blue", wanted, artifact)
        assert api.read(f"{DEPLOYMENTS}/slot-blue")["spec"]["replicas"] == 7

    def test_a_slot_is_ready_when_no_pod_of_an_earlier_release_is_left(self, api, target, live, wish, artifact):
        live("1")
        live("2", "green", by="b")
        third = wish("3", by="c")
        target.install_release("blue", third, artifact)
        assert not target.observe().blue.ready  # its pod still serves version 1
        run_pods(api, "blue")
        assert target.observe().blue.ready

    def test_an_evicted_pod_of_an_earlier_release_keeps_nothing_from_being_ready(self, api, target, live):
        live("1")
        labels = {"app.kubernetes.io/name": "slot", "evergreen/slot": "blue"}
        api.create(f"{CORE}/pods", {"metadata": {"name": "evicted", "labels": labels}, "status": {"phase": "Failed"}})
        assert target.observe().blue.ready

    def test_a_pod_that_is_on_its_way_out_is_not_waited_for_by_a_switch(self, api, target, live):
        live("1")
        labels = {"app.kubernetes.io/name": "slot", "evergreen/slot": "green"}
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        meta = {"name": "leaving", "labels": labels, "deletionTimestamp": "2026-01-01T00:00:00Z"}
        wanted = target.request_release(Release("2", target.read_desired_state().release.digest), "b", "", "deploy")
        target.install_release("green", wanted, target.find_artifact(wanted.release.digest))
        run_pods(api, "green")
        api.create(f"{CORE}/pods", {"metadata": meta, "spec": {}, "status": ready})
        switch_without(api, target, wanted, "leaving")
        assert selector(api) == "green"

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
            target.record_verdict(wanted.generation, "accepted", Verdict.PASSED, "")
        assert target.read_verdicts(1) == {} and target.read_verdicts(60) != {}

    def test_a_record_that_was_lost_does_not_let_a_generation_come_again(self, api, target, wish):
        wish("1")
        target.record_verdict(wish("2", by="b").generation, "accepted", Verdict.PASSED, "")
        api.change(SERVICE, lambda each: each["metadata"].pop("annotations"))
        assert wish("3").generation == 3


class TestFence:
    """Whatever a run was about to write when it was stopped: a newer request that is live meanwhile is not touched."""

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
        newer: list[DesiredState] = []

        def take_over() -> None:
            newer.append(wish("2", by="newer", kind="rollback"))
            target.switch("green", newer[0])

        api.meanwhile("PUT", moment, take_over)
        writes = {
            "stage": lambda: target.install_release("green", stale, artifact),
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
        assert target.read_desired_state() == wanted

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
            hurried.request_release(release("1"), "a run", "", "deploy")

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
            target.read_evidence(1)

    def test_a_kill_between_the_switch_and_letting_go_is_mended_by_the_next_look(self, api, target, live, wish):
        live("1")
        wanted = wish("2", by="b")
        target.install_release("green", wanted, target.find_artifact(wanted.release.digest))
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
    def on_trial(self, api, gateway, release, artifact) -> DesiredState:
        """Version 1 is live in blue, version 2 staged in green."""
        accepted = {"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": None}]}
        api.change(f"{ROUTES}/predictions", lambda each: each.update(status={"parents": [accepted]}))
        for version, colour in (("1", "blue"), ("2", "green")):
            wanted = gateway.request_release(release(version), version, "", "deploy", plan=ReleasePlan(weights=(25,)))
            gateway.install_release(colour, wanted, artifact)
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
            bare.read_desired_state()

    def test_a_route_moved_by_hand_is_seen_and_defaults_of_the_api_server_are_none(self, api, gateway, on_trial):
        gateway.split(on_trial, share=25, mirror=True)
        whole = api.read(f"{ROUTES}/predictions") | {"kind": "HTTPRoute"}
        for backend in whole["spec"]["rules"][0]["backendRefs"]:
            backend |= {"group": "", "kind": "Service"}
        assert (routes.find_live_slot(whole), routes.is_in_sync(whole)) == ("blue", True)
        whole["spec"]["rules"][0]["backendRefs"][1]["weight"] = 80
        assert (routes.find_live_slot(whole), routes.is_in_sync(whole)) == ("green", False)

    @pytest.mark.parametrize("changes", [{"release.strategy": "canary"}, {"release.shadow": {"enabled": True}}])
    def test_a_manifest_that_asks_for_it_without_a_gateway_is_refused_with_the_reason(self, small, changes):
        with pytest.raises(
            ManifestInvalid, match="which the Service of target kubernetes cannot give; install the Gat"
        ):
            small(target="kubernetes", **changes)
        small(target="kubernetes", cluster={"gateway": "predictions", "replicas": 1}, **changes)
        small(target="kubernetes", cluster={"virtual_service": "predictions", "replicas": 1}, **changes)


class Sidecar:
    """As much of Istio as a client sees: every answer carries what the stored rule sets, or the rule's own refusal."""

    def __init__(self, api: KubeApi) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (_Answering,), {"api": api}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Answering(BaseHTTPRequestHandler):
    api: KubeApi

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        [rule] = self.api.read(f"{VIRTUAL}/predictions")["spec"]["http"]
        self.send_response(rule.get("directResponse", {}).get("status", 200))
        for name, value in rule.get("headers", {}).get("response", {}).get("set", {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


class TestIstio:
    """The same port on a VirtualService, made as k8s/istio says."""

    MESHED = ClusterSpec(**{**SPEC.model_dump(), "virtual_service": "predictions"})

    @pytest.fixture
    def meshed(self, api, tmp_path) -> Iterator[KubernetesTarget]:
        api.create(VIRTUAL, yaml.safe_load((ROOT / "k8s/istio/virtualservice.yaml").read_text()))
        sidecar = Sidecar(api)
        yield target_of(api, tmp_path, NOWHERE, sidecar.url, self.MESHED)
        sidecar.close()

    def rule(self, api: KubeApi) -> dict[str, Any]:
        [rule] = api.read(f"{VIRTUAL}/predictions")["spec"]["http"]
        return rule

    def weights(self, api: KubeApi) -> dict[str, int]:
        return {each["destination"]["host"]: each["weight"] for each in self.rule(api)["route"]}

    @pytest.fixture
    def on_trial(self, meshed, release, artifact) -> DesiredState:
        """Version 1 is live in blue, version 2 staged in green."""
        for version, colour in (("1", "blue"), ("2", "green")):
            wanted = meshed.request_release(release(version), version, "", "deploy", plan=ReleasePlan(weights=(25,)))
            meshed.install_release(colour, wanted, artifact)
            if version == "1":
                meshed.switch(colour, wanted)
        return wanted

    def test_before_the_first_release_nobody_answers_and_staging_changes_nothing(self, api, meshed, release, artifact):
        meshed.install_release("blue", meshed.request_release(release("1"), "a run", "", "deploy"), artifact)
        assert self.rule(api) == {"directResponse": {"status": 503}}

    def test_a_share_is_a_weight_and_a_switch_leaves_one_destination(self, api, meshed, on_trial):
        meshed.split(on_trial, share=25)
        assert self.weights(api) == {"slot-blue": 75, "slot-green": 25}
        assert meshed.observe().route == Route("blue", None, 2, share=25, trial=1)
        meshed.switch("green", on_trial)
        assert self.weights(api) == {"slot-green": 100}
        assert meshed.observe().route == Route("green", "blue", 2, trial=2)

    def test_a_mirror_is_all_requests_and_no_destination(self, api, meshed, on_trial):
        meshed.split(on_trial, mirror=True)
        assert self.weights(api) == {"slot-blue": 100}
        assert self.rule(api)["mirror"] == {"host": "slot-green", "port": {"number": 80}}
        assert self.rule(api)["mirrorPercentage"] == {"value": 100.0}
        meshed.withdraw(on_trial)
        assert "mirror" not in self.rule(api)

    def test_a_switch_returns_when_the_answers_say_so(self, api, meshed, on_trial, monkeypatch):
        """Istio tells nowhere how far a rule has come."""
        monkeypatch.setattr(traffic, "ROUTE_TIMEOUT_S", 0.5)
        path = f"{VIRTUAL}/predictions"
        meshed._predictions = NOWHERE["blue"]
        with pytest.raises(ServiceUnavailable, match="has not arrived"):
            meshed.switch("green", on_trial)
        assert self.weights(api) == {"slot-green": 100} and api.read(path)["metadata"]["annotations"]

    def test_a_late_run_is_refused_as_on_any_other_route(self, meshed, on_trial, release):
        meshed.request_release(release("3"), "another run", "", "deploy")
        with pytest.raises(Conflict, match="no longer wanted"):
            meshed.split(on_trial, share=50)

    def test_a_rule_moved_by_hand_is_seen(self, api, meshed, on_trial):
        meshed.split(on_trial, share=25)
        record = api.read(f"{VIRTUAL}/predictions") | {"kind": "VirtualService"}
        assert (routes.find_live_slot(record), routes.is_in_sync(record)) == ("blue", True)
        record["spec"]["http"][0]["mirror"] = {"host": "slot-green"}
        assert routes.is_in_sync(record) is False

    def test_without_istio_the_sentence_says_what_to_install(self, api, tmp_path):
        bare = target_of(api, tmp_path, NOWHERE, NOWHERE["blue"], self.MESHED)
        with pytest.raises(
            RequestInvalid, match=r"no VirtualService predictions .* apply Istio and k8s/components/istio"
        ):
            bare.read_desired_state()

    def test_callers_are_not_dealt_by_key(self, meshed, on_trial):
        with pytest.raises(RequestInvalid, match="No route of target kubernetes deals callers by a key"):
            meshed.split(on_trial, share=50, sticky=True)

    def test_a_manifest_with_two_routes_is_refused(self, small):
        both = {"gateway": "predictions", "virtual_service": "predictions"}
        with pytest.raises(ManifestInvalid, match="gateway and virtual_service name two routes"):
            small(target="kubernetes", cluster=both)


def test_the_manifest_chooses_the_target(small, api, tmp_path, monkeypatch):
    small(target="kubernetes")
    monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(tmp_path / "kubeconfig", api.url)))
    chosen = open_target(read_manifest())
    assert isinstance(chosen, KubernetesTarget)
    assert chosen.read_desired_state() is None


def test_a_release_under_way_on_a_cluster_keeps_the_policy_from_asking_for_another(
    small, api, tmp_path, monkeypatch, target, release
):
    small(target="kubernetes")
    monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(tmp_path / "kubeconfig", api.url)))
    conditions = open_wait_conditions(read_manifest())
    assert conditions._is_releasing() is False
    wanted = target.request_release(release("1"), "a run", "", "deploy")
    assert conditions._is_releasing() is True
    target.record_verdict(wanted.generation, "accepted", Verdict.FAILED, "answered 422")
    assert conditions._is_releasing() is False


def test_the_cluster_is_looked_after_by_the_same_manifest(small, api, tmp_path, monkeypatch):
    small(target="kubernetes")
    monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(kube_api.kubeconfig(tmp_path / "kubeconfig", api.url)))
    kept = open_repair(read_manifest())
    assert (type(kept).__name__, kept.read_records()[1], kept.read_effective_route()) == (
        "KubernetesRepair",
        None,
        (None, True),
    )


def test_without_a_cluster_the_target_says_how_to_name_one(small, tmp_path, monkeypatch):
    small(target="kubernetes")
    monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(RequestInvalid, match=r"No Kubernetes cluster is named .* set KUBECONFIG"):
        open_target(read_manifest())
