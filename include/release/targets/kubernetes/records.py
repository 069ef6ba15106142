"""What the target on Kubernetes knows, in the objects of one namespace.

    Service predictions (or HTTPRoute,   annotations hold the route in full, and the wish
        or Istio's VirtualService)
    Deployment slot-blue, slot-green     the template's annotation evergreen/release is what a slot holds
    ConfigMap evergreen-evidence         verdicts and progress by generation

A write whose answer was lost is repeated and finds itself done. Nothing here is watched: each look reads anew, so an
expired watch cannot hide a slot that became ready.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import httpx

from include.cluster.api_server import Cluster, Object
from include.cluster.spec import ClusterSpec
from include.kernel.errors import Conflict, RecordDamaged, RequestInvalid
from include.kernel.words.verdicts import SOAKED
from include.release.core.release_record import evidence_of, is_same_wish
from include.release.core.rollout import BLUE_GREEN, Colour, Evidence, Plan, Release, Route, Verdict, Wanted
from include.release.targets.artifact_disk import ArtifactDisk
from include.release.targets.base import DesiredStateStore, EvidenceStore
from include.release.targets.kubernetes import routes

RELEASE = "evergreen/release"
EVIDENCE = "evergreen-evidence"
REMEMBERED = 50  # generations whose verdicts stay; a ConfigMap holds a mebibyte


class KubernetesRecords(DesiredStateStore, EvidenceStore, ArtifactDisk):
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

    def quiet_s(self, generation: int) -> float:
        noted = float(self._notes().get(f"{generation}.at", 0.0))
        return time.time() - max(noted, routes.written_at(self._record()))

    # --- verdicts -------------------------------------------------------------------------------------------------

    def evidence(self, generation: int, trial: int = 0) -> Evidence:
        notes = self._notes()
        return evidence_of(_found(notes, generation), _found(notes, trial) if trial else {SOAKED: Verdict.PASSED})

    def verdicts(self, generation: int) -> dict[str, dict[str, Any]]:
        return _told_of(self._notes(), f"{generation}.verdict.")

    def record(
        self, generation: int, part: str, verdict: Verdict, why: str, report: dict[str, Any] | None = None
    ) -> None:
        told = {"verdict": verdict.value, "why": why} | ({"report": report} if report is not None else {})
        self._note(generation, f"verdict.{part}", told)

    def progress(self, generation: int, part: str) -> dict[str, Any]:
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

    # --- the objects ----------------------------------------------------------------------------------------------

    def _record(self) -> Object:
        kind, name = routes.chosen(self._spec)
        return {"kind": kind, **self._must(self._cluster.get(self._path(kind, name)), kind, name)}

    def _deployment(self, colour: Colour) -> Object:
        name = f"slot-{colour}"
        found = self._must(self._cluster.get(self._path("Deployment", name)), "Deployment", name)
        return {"kind": "Deployment", **found}

    def _pods(self, colour: Colour) -> list[Object]:
        """Those that run or will; what was evicted stays in the list until somebody collects it, and answers nobody."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        found = self._cluster.list(path, labelSelector=f"app.kubernetes.io/name=slot,{routes.SLOT}={colour}")
        return [pod for pod in found if pod["status"].get("phase") not in ("Succeeded", "Failed")]

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

    def _must(self, found: Object | None, kind: str, name: str) -> Object:
        if found is None:
            part = routes.PARTS.get(kind, "an overlay of k8s/")
            raise RequestInvalid(f"There is no {kind} {name} in namespace {self._namespace}; apply {part} there.")
        return found

    def _path_of(self, body: Object) -> str:
        return self._path(body["kind"], body["metadata"]["name"])

    def _path(self, kind: str, name: str) -> str:
        return routes.PATHS[kind].format(self._namespace) + name


def template_notes(deployment: Object) -> dict[str, str]:
    """The annotations that the pods of a slot are made with; what is put into them is put into the Deployment."""
    annotations: dict[str, str] = deployment["spec"]["template"]["metadata"].setdefault("annotations", {})
    return annotations


def read_staged(deployment: Object) -> Release | None:
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


def _told_of(notes: dict[str, str], prefix: str) -> dict[str, dict[str, Any]]:
    found = sorted(key for key in notes if key.startswith(prefix))
    return {key.removeprefix(prefix): json.loads(notes[key]) for key in found}


def _found(notes: dict[str, str], generation: int) -> dict[str, Verdict]:
    told = _told_of(notes, f"{generation}.verdict.")
    return {part: Verdict(content["verdict"]) for part, content in told.items()}
