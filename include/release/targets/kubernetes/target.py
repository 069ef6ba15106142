"""The serving target on Kubernetes: two Deployments, and one object that says which of them is live.

    Service predictions (or HTTPRoute,   its selector is the route; annotations hold the route in full, and the wish
        or Istio's VirtualService)
    Deployment slot-blue, slot-green     the template's annotation evergreen/release is what a slot holds
    ConfigMap evergreen-evidence         verdicts and progress by generation
    <serving>/artifacts, blessings       a disk that Airflow writes and slots read: verified copies

Wish and route are one object, so one resourceVersion fences all: a route write that read an older wish is refused by
the API server (409), read again and then found superseded, and at no time do two slots have traffic. A slot is another
object; therefore a switch first leaves a mark on its Deployment, which makes every write that was begun before it lose.

A write whose answer was lost is repeated and finds itself done. Nothing here is watched: each look reads anew, so an
expired watch cannot hide a slot that became ready. What a Service cannot do is fail over to the standby when the live
slot dies; replicas do that here (`cluster.replicas`), and the standby is for the way back.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.cluster.api_server import Cluster, Object
from include.cluster.spec import ClusterSpec
from include.kernel.errors import Conflict, RecordDamaged, RequestInvalid, ServiceUnavailable
from include.kernel.files import write_atomic
from include.kernel.words.verdicts import SOAKED
from include.model.blessing.blessing import envelope_digest
from include.model.integrity.artifact_integrity import copy_verified
from include.release.core.release_record import alone, evidence_of, is_same_wish, switched
from include.release.core.rollout import (
    BLUE_GREEN,
    COLOURS,
    Colour,
    Evidence,
    Observed,
    Plan,
    Release,
    Route,
    Slot,
    Verdict,
    Wanted,
)
from include.release.targets import slot_client, slot_counters
from include.release.targets.base import ServingTarget
from include.release.targets.kubernetes import routes
from include.release.targets.slot_counters import Counted
from include.serving.words.headers import GENERATION
from include.serving.words.recent import RecentAnswers, RecentQuestion
from include.serving.words.slot_files import ARTIFACTS, artifact_path, blessing_path

RELEASE = "evergreen/release"
LET_GO = "evergreen/let-go"
FENCE = "evergreen/fence"  # the generation that last meant to send traffic here
EVIDENCE = "evergreen-evidence"
ROUTE_TIMEOUT_S = 30.0
REMEMBERED = 50  # generations whose verdicts stay; a ConfigMap holds a mebibyte
log = logging.getLogger(__name__)


class KubernetesTarget(ServingTarget):
    """`slots` are the addresses of their Services, `predictions` is what clients ask: a Service or a Gateway."""

    def __init__(
        self,
        cluster: Cluster,
        spec: ClusterSpec,
        namespace: str,
        root: Path,
        slots: Mapping[Colour, str],
        predictions: str,
        token: str | None = None,
    ) -> None:
        self._cluster = cluster
        self._spec = spec
        self._namespace = namespace
        self._root = root
        self._slots = slots
        self._predictions = predictions
        fresh = httpx.Limits(max_keepalive_connections=0)  # each request may meet another pod, and the newest route
        self._http = httpx.Client(
            timeout=5.0, limits=fresh, headers={"authorization": f"Bearer {token}"} if token else {}
        )

    # --- the wish -------------------------------------------------------------------------------------------------

    def wanted(self) -> Wanted | None:
        return routes.wanted(self._record())

    def want(
        self,
        release: Release,
        by: str,
        why: str,
        kind: Literal["deploy", "rollback"],
        expected: int | None = None,
        blessing: str | None = None,
        plan: Plan = BLUE_GREEN,
    ) -> Wanted:
        """As LocalTarget.want; raises `Conflict` unless `expected` is the stored generation."""
        paper = self._kept(blessing)
        for record in self._once_more("what is wanted"):
            known = routes.wanted(record)
            if known and is_same_wish(known, self.evidence(known.generation), release, kind, by):
                return known
            generation = self._newest_generation(known, record)
            if expected is not None and expected != generation:
                raise Conflict(f"Generation {expected} was expected but {generation} is wanted; look again and retry.")
            wish = Wanted(release, generation + 1, by, why, kind, paper, plan)
            if self._stored(routes.written(routes.with_wish(record, wish), time.time())):
                self._forget(wish.generation - REMEMBERED)
                return wish
        raise AssertionError("unreachable")

    def _newest_generation(self, known: Wanted | None, record: Object) -> int:
        """Also of what a lost record had wanted: a generation that came again would find the verdicts of the first."""
        judged = [int(key.split(".")[0]) for key in self._notes()] if known is None else []
        return known.generation if known else max([routes.route(record).generation, *judged])

    def _kept(self, envelope: str | None) -> str | None:
        if envelope is None:
            return None
        paper = envelope_digest(envelope)
        write_atomic(blessing_path(self._root, paper), envelope)
        return paper

    def quiet_s(self, generation: int) -> float:
        """Seconds since a run last wrote anything for this generation, by the clocks of those who wrote."""
        noted = float(self._notes().get(f"{generation}.at", 0.0))
        return time.time() - max(noted, routes.written_at(self._record()))

    # --- what is there --------------------------------------------------------------------------------------------

    def observe(self) -> Observed:
        """Also finishes what a switch that was killed had begun."""
        self._let_go(record := self._record())
        return Observed(routes.route(record), *(self._slot(colour) for colour in COLOURS))

    def _slot(self, colour: Colour) -> Slot:
        """Ready when enough pods are, and none of an earlier release is left to answer in their place."""
        deployment = self._deployment(colour)
        staged = _staged(deployment)
        if staged is None:
            return Slot()
        pods = self._pods(colour)
        enough = sum(map(_is_ready, pods)) >= int(deployment["spec"].get("replicas", 1))
        return Slot(staged, ready=enough and all(_holds(pod, deployment) for pod in pods))

    def why_not_ready(self, colour: Colour) -> str:
        """The pod's own sentence, or the slot's, about why it is not ready."""
        for pod in self._pods(colour):
            for status in pod["status"].get("containerStatuses") or ():
                if waiting := status.get("state", {}).get("waiting"):
                    return (
                        f"pod {pod['metadata']['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
                    )
        answer = self._told(colour)
        return str(answer.get("why") or answer.get("state") or "it does not say why") if answer else "no pod answers"

    def refusal(self, colour: Colour, release: Release) -> str | None:
        """Why the slot will never serve this release, once it has tried; None while it may still become ready."""
        answer = self._told(colour) or {}
        tried = Release(str(answer.get("version")), str(answer.get("digest")))
        return str(answer["why"]) if answer.get("state") == "broken" and tried == release else None

    def _told(self, colour: Colour) -> dict[str, Any] | None:
        try:
            return dict(self._http.get(f"{self._slots[colour]}/model").json())
        except (httpx.HTTPError, ValueError):
            return None

    # --- verdicts -------------------------------------------------------------------------------------------------

    def evidence(self, generation: int, trial: int = 0) -> Evidence:
        """The verdicts of a generation, and of the one on trial; a `trial` of 0 needs no verdict."""
        notes = self._notes()
        return evidence_of(_found(notes, generation), _found(notes, trial) if trial else {SOAKED: Verdict.PASSED})

    def verdicts(self, generation: int) -> dict[str, dict[str, Any]]:
        """Part (accepted, shadowed, canary-1, approved, soaked, recovered) -> {verdict, why}, and its report."""
        return _told_of(self._notes(), f"{generation}.verdict.")

    def record(
        self, generation: int, part: str, verdict: Verdict, why: str, report: dict[str, Any] | None = None
    ) -> None:
        told = {"verdict": verdict.value, "why": why} | ({"report": report} if report is not None else {})
        self._note(generation, f"verdict.{part}", told)

    def progress(self, generation: int, part: str) -> dict[str, Any]:
        """What the looks at a part have noted so far; empty before the first."""
        return dict(json.loads(self._notes().get(f"{generation}.progress.{part}", "{}")))

    def note(self, generation: int, part: str, progress: dict[str, Any]) -> None:
        self._note(generation, f"progress.{part}", progress)

    def _notes(self) -> dict[str, str]:
        return dict(self._must(self._cluster.get(self._evidence_path()), "ConfigMap", EVIDENCE).get("data") or {})

    def _note(self, generation: int, part: str, content: dict[str, Any]) -> None:
        said = {f"{generation}.{part}": json.dumps(content), f"{generation}.at": repr(time.time())}
        self._must(self._cluster.patch(self._evidence_path(), {"data": said}), "ConfigMap", EVIDENCE)

    def _forget(self, before: int) -> None:
        old = [key for key in self._notes() if int(key.split(".")[0]) < before]
        if old:
            self._cluster.patch(self._evidence_path(), {"data": dict.fromkeys(old)})

    def _evidence_path(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps/{EVIDENCE}"

    # --- the steps ------------------------------------------------------------------------------------------------

    def has_artifact(self, digest: str) -> Path | None:
        path = artifact_path(self._root, digest)
        return path if path.is_dir() else None

    def golden(self, digest: str) -> list[dict[str, Any]]:
        """The golden rows (row, probability) of a staged artifact."""
        return list(json.loads((artifact_path(self._root, digest) / "artifact.json").read_text())["golden"])

    def stage(self, colour: Colour, wanted: Wanted, artifact: Path) -> None:
        """Takes the slot out of the standby role, then puts the release into it; its pods are replaced."""
        copy_verified(artifact, self._root / ARTIFACTS, wanted.release.digest)
        self._route_to(wanted, alone, spared=colour)
        content = {**asdict(wanted.release), "generation": wanted.generation, "blessing": wanted.blessing}

        def put(deployment: Object) -> None:
            template_notes(deployment)[RELEASE] = json.dumps(content)
            deployment["spec"]["strategy"] = {"type": "Recreate"}  # no traffic comes here; the old release goes first
            deployment["spec"]["replicas"] = max(self._spec.replicas, int(deployment["spec"].get("replicas", 1)))

        self._edit_slot(colour, wanted, put)

    def nudge(self, colour: Colour) -> None:
        """Nothing: whatever does not run as its Deployment says is started by Kubernetes."""

    def isolate(self, wanted: Wanted) -> None:
        """Takes the idle slot out of the standby role: what is being judged is nobody's way back."""
        self._route_to(wanted, alone)

    def split(self, wanted: Wanted, share: int = 0, mirror: bool = False, sticky: bool = False) -> None:
        """Gives the idle slot a share of the requests (per cent), or copies of all; needs the Gateway API."""

        def new(route: Route, wish: Wanted) -> Route:
            return replace(alone(route, wish), share=share, mirror=mirror, sticky=sticky)

        self._route_to(wanted, new)
        self._await_route()

    def switch(self, colour: Colour, wanted: Wanted) -> None:
        """Sends all traffic to `colour` and waits until the endpoints say so."""
        self._edit_slot(colour, wanted, lambda deployment: _mark(deployment, wanted, wanted.release), may_be_live=True)
        self._route_to(wanted, lambda route, wish: switched(route, colour, wish))
        self._await_route()
        self._let_go(self._record())

    def revert(self, colour: Colour, wanted: Wanted) -> None:
        """Sends all traffic back to the standby; what failed its trial is nobody's way back."""
        self._edit_slot(colour, wanted, lambda deployment: _mark(deployment, wanted), may_be_live=True)
        self._route_to(wanted, lambda route, wish: Route(colour, generation=wish.generation))
        self._await_route()
        self._let_go(self._record())

    def discard(self, colour: Colour, wanted: Wanted) -> None:
        """Empties the slot of a release that was turned down; no pod of it stays."""
        self._route_to(wanted, alone, spared=colour)

        def empty(deployment: Object) -> None:
            template_notes(deployment).pop(RELEASE, None)
            deployment["spec"]["replicas"] = 0

        self._edit_slot(colour, wanted, empty)

    # --- how ------------------------------------------------------------------------------------------------------

    def _route_to(self, wanted: Wanted, new: Callable[[Route, Wanted], Route], spared: Colour | None = None) -> None:
        """Writes a route for this wish, unless a newer one is stored, or `spared` carries the traffic."""
        for record in self._once_more("the route"):
            before = self._fenced(record, wanted, spared)
            after = new(before, wanted)
            if after == before or self._stored(routes.written(routes.with_route(record, after), time.time())):
                return

    def _edit_slot(
        self, colour: Colour, wanted: Wanted, change: Callable[[Object], None], may_be_live: bool = False
    ) -> None:
        """Changes a slot's Deployment, unless a newer wish is stored or has meant to send traffic to it since.

        The Deployment is read before the fence is looked at: who passes the fence later changes it, and so wins.
        """
        for attempt in range(self._spec.attempts):
            deployment = self._deployment(colour)
            self._fenced(self._record(), wanted, None if may_be_live else colour)
            change(deployment)
            if self._stored(deployment):
                return
            log.info("slot %s was written by somebody else, try %d", colour, attempt + 1)
        raise Conflict(f"Deployment slot-{colour} is written by others all the time; look who does, then retry.")

    def _let_go(self, record: Object) -> None:
        """Replaces the pods that had the traffic, one by one: a connection a client keeps open would go on asking them.

        The new ones hold the same release, so the way back stays warm. The route's write said what is to be let go of,
        and it is struck out when that is done: a kill in between is mended by the next look.
        """
        colour = routes.to_let_go(record)
        if colour is None:
            return
        deployment, generation = self._deployment(colour), str(routes.route(record).generation)
        if template_notes(deployment).get(LET_GO) != generation and _staged(deployment):
            template_notes(deployment)[LET_GO] = generation
            if not self._stored(deployment):
                return  # the next look does it
        self._stored(routes.let_go(record))

    def _once_more(self, what: str) -> Iterator[Object]:
        """The record, read anew for every try at it."""
        for _ in range(self._spec.attempts):
            yield self._record()
        raise Conflict(f"Somebody else writes {what} of {self._namespace} all the time; look who does, then retry.")

    def _stored(self, body: Object) -> bool:
        """False when somebody else wrote first."""
        try:
            self._cluster.replace(self._path_of(body), body)
        except Conflict:
            return False
        return True

    @staticmethod
    def _fenced(record: Object, wanted: Wanted, spared: Colour | None) -> Route:
        now, route = routes.wanted(record), routes.route(record)
        if now is None or now.generation != wanted.generation:
            raise Conflict(f"Generation {wanted.generation} is no longer wanted; nothing was changed.")
        if spared and route.live == spared:
            raise Conflict(f"Slot {spared} carries live traffic; look again before you touch it.")
        return route

    def _record(self) -> Object:
        kind, name = routes.chosen(self._spec)
        return {"kind": kind, **self._must(self._cluster.get(self._path(kind, name)), kind, name)}

    def _deployment(self, colour: Colour) -> Object:
        name = f"slot-{colour}"
        found = self._must(self._cluster.get(self._path("Deployment", name)), "Deployment", name)
        return {"kind": "Deployment", **found}

    def _must(self, found: Object | None, kind: str, name: str) -> Object:
        if found is None:
            part = routes.PARTS.get(kind, "an overlay of k8s/")
            raise RequestInvalid(f"There is no {kind} {name} in namespace {self._namespace}; apply {part} there.")
        return found

    def _path_of(self, body: Object) -> str:
        return self._path(body["kind"], body["metadata"]["name"])

    def _path(self, kind: str, name: str) -> str:
        return routes.PATHS[kind].format(self._namespace) + name

    def _pods(self, colour: Colour) -> list[Object]:
        """Those that run or will; what was evicted stays in the list until somebody collects it, and answers nobody."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        found = self._cluster.list(path, labelSelector=f"app.kubernetes.io/name=slot,{routes.SLOT}={colour}")
        return [pod for pod in found if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def _await_route(self) -> None:
        """Raises `ServiceUnavailable` when the change does not arrive; the record stays as it is."""
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.1), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(self._has_arrived)
        except RetryError as error:
            raise ServiceUnavailable(
                f"The route of {self._namespace} has not arrived within {ROUTE_TIMEOUT_S:g} s: the endpoints of "
                "predictions are not those of the live slot; look at its pods, the step is repeated by itself."
            ) from error

    def _has_arrived(self) -> bool:
        record = self._record()
        live = routes.route(record).live
        if record["kind"] == "HTTPRoute":
            return _is_accepted(record)
        if record["kind"] == "VirtualService":
            return live is None or self._answers_by(routes.route(record).generation)
        return live is None or self._endpoints() == {p["metadata"]["name"] for p in self._pods(live) if _is_asked(p)}

    def _answers_by(self, generation: int) -> bool:
        """Istio says nowhere reliably how far a rule has come; the answers do, by the header it sets."""
        try:
            answer = self._http.get(f"{self._predictions}/health")
        except httpx.HTTPError:
            return False
        return bool(answer.headers.get(GENERATION) == str(generation))

    def _endpoints(self) -> set[str]:
        """The pods that new connections to `predictions` are sent to."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        slices = self._cluster.list(path, labelSelector=f"kubernetes.io/service-name={routes.NAME}")
        found = (each for one in slices for each in one.get("endpoints") or () if each["conditions"].get("ready"))
        return {each["targetRef"]["name"] for each in found}

    # --- asking the slots -----------------------------------------------------------------------------------------

    def counted(self, colour: Colour) -> Counted | None:
        """What the pods of a slot have answered together; None when one of them cannot be asked."""
        staged = _staged(self._deployment(colour))
        pods = [pod for pod in self._pods(colour) if _is_ready(pod)]
        if staged is None or not pods:
            return None
        at = f"/api/v1/namespaces/{self._namespace}/pods"
        texts = [self._cluster.text(f"{at}/{pod['metadata']['name']}:8000/proxy/metrics") for pod in pods]
        return slot_counters.together([slot_counters.counted(text, staged.version) for text in texts])

    def recent(self, colour: Colour, question: RecentQuestion) -> RecentAnswers | None:
        """What a slot answered last; a slot of one replica, or the answers would be some of them."""
        return slot_client.recent(self._http, self._slots[colour], colour, question)

    def ask(self, colour: Colour | None, rows: list[dict[str, Any]]) -> httpx.Response:
        """Predictions for `rows`, from one slot, or as a client gets them when `colour` is None."""
        base = self._slots[colour] if colour else self._predictions
        return slot_client.ask(self._http, base, rows, as_client=colour is None)


def template_notes(deployment: Object) -> dict[str, str]:
    """The annotations that the pods of a slot are made with; what is put into them is put into the Deployment."""
    annotations: dict[str, str] = deployment["spec"]["template"]["metadata"].setdefault("annotations", {})
    return annotations


def _staged(deployment: Object) -> Release | None:
    """Raises `RecordDamaged` for what no release of ours wrote."""
    text = template_notes(deployment).get(RELEASE)
    if not text:
        return None
    try:
        content = json.loads(text)
        return Release(content["version"], content["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordDamaged(
            f"The annotation {RELEASE} of Deployment {deployment['metadata']['name']} cannot be read "
            f"({type(error).__name__}), so nothing is moved; the next run of monitor writes it anew."
        ) from error


def _mark(deployment: Object, wanted: Wanted, holding: Release | None = None) -> None:
    """Changes the Deployment, but not its pods, so that writes begun before lose; from now on pods go one by one."""
    if holding and _staged(deployment) != holding:
        raise Conflict(f"{deployment['metadata']['name']} does not hold version {holding.version}; look again.")
    deployment["metadata"].setdefault("annotations", {})[FENCE] = str(wanted.generation)
    deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def _holds(pod: Object, deployment: Object) -> bool:
    """Whether the pod was made for what the Deployment says now."""
    own = (pod["metadata"].get("annotations") or {}).get(RELEASE)
    return own == template_notes(deployment).get(RELEASE)


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _is_asked(pod: Object) -> bool:
    """Ready, and not on its way out: a pod that ends says it is ready until it no longer is."""
    return _is_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def _is_accepted(record: Object) -> bool:
    """Whether the Gateway has taken over this very version of the HTTPRoute."""
    now = record["metadata"].get("generation")
    seen = [c for parent in record.get("status", {}).get("parents", ()) for c in parent.get("conditions", ())]
    accepted = [c for c in seen if c["type"] == "Accepted"]
    return bool(accepted) and all(c["status"] == "True" and c.get("observedGeneration") == now for c in accepted)


def _told_of(notes: dict[str, str], prefix: str) -> dict[str, dict[str, Any]]:
    found = sorted(key for key in notes if key.startswith(prefix))
    return {key.removeprefix(prefix): json.loads(notes[key]) for key in found}


def _found(notes: dict[str, str], generation: int) -> dict[str, Verdict]:
    told = _told_of(notes, f"{generation}.verdict.")
    return {part: Verdict(content["verdict"]) for part, content in told.items()}
