"""What the target on Kubernetes knows, in the objects of one namespace.

    Service predictions (or HTTPRoute,   annotations hold the route in full, and the release request
        or Istio's VirtualService)
    Deployment slot-blue, slot-green     the template's annotation evergreen/release is what a slot holds
    ConfigMap evergreen-evidence         verdicts and progress by generation

A write whose answer was lost is repeated and finds itself done. Nothing here is watched: each look reads anew, so an
expired watch cannot hide a slot that became ready.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import httpx

from include.cluster.api_server import Cluster, Object
from include.cluster.spec import ClusterSpec
from include.kernel.errors import Conflict, RecordDamaged, RequestInvalid
from include.kernel.words.colours import Colour
from include.kernel.words.verdicts import SOAKED, Verdict
from include.release.core.release_record import build_evidence, is_same_request
from include.release.core.rollout import BLUE_GREEN, DesiredState, Evidence, Release, ReleasePlan, Route
from include.release.targets.artifact_disk import ArtifactDisk
from include.release.targets.base import DesiredStateStore, EvidenceStore
from include.release.targets.kubernetes import routes

RELEASE_ANNOTATION = "evergreen/release"
EVIDENCE_CONFIG_MAP = "evergreen-evidence"
MAX_GENERATIONS = 50  # generations whose verdicts stay; a ConfigMap holds a mebibyte


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

    # --- the release request ------------------------------------------------------------------------------------

    def read_desired_state(self) -> DesiredState | None:
        return routes.read_desired_state(self._read_record())

    def request_release(
        self,
        release: Release,
        by: str,
        why: str,
        kind: Literal["deploy", "rollback"],
        expected: int | None = None,
        blessing: str | None = None,
        plan: ReleasePlan = BLUE_GREEN,
    ) -> DesiredState:
        blessing_digest = self._keep_envelope(blessing)
        for record in self._iterate_attempts("what is wanted"):
            current = routes.read_desired_state(record)
            if current and is_same_request(current, self.read_evidence(current.generation), release, kind, by):
                return current
            generation = self._find_newest_generation(current, record)
            if expected is not None and expected != generation:
                raise Conflict(f"Generation {expected} was expected but {generation} is wanted; look again and retry.")
            desired = DesiredState(release, generation + 1, by, why, kind, blessing_digest, plan)
            if self._try_replace(routes.stamp_written(routes.write_desired_state(record, desired), time.time())):
                self._forget(desired.generation - MAX_GENERATIONS)
                return desired
        raise AssertionError("unreachable")

    def _find_newest_generation(self, current: DesiredState | None, record: Object) -> int:
        """Also of what a lost record had wanted: a generation that came again would find the verdicts of the first."""
        judged_generations = [int(key.split(".")[0]) for key in self._read_notes()] if current is None else []
        return current.generation if current else max([routes.read_route(record).generation, *judged_generations])

    def measure_idle_s(self, generation: int) -> float:
        recorded_at = float(self._read_notes().get(f"{generation}.at", 0.0))
        return time.time() - max(recorded_at, routes.read_written_at(self._read_record()))

    # --- verdicts -------------------------------------------------------------------------------------------------

    def read_evidence(self, generation: int, trial: int = 0) -> Evidence:
        notes = self._read_notes()
        return build_evidence(
            _parse_verdicts(notes, generation), _parse_verdicts(notes, trial) if trial else {SOAKED: Verdict.PASSED}
        )

    def read_verdicts(self, generation: int) -> dict[str, dict[str, Any]]:
        return _parse_notes(self._read_notes(), f"{generation}.verdict.")

    def record_verdict(
        self, generation: int, part: str, verdict: Verdict, why: str, report: dict[str, Any] | None = None
    ) -> None:
        content = {"verdict": verdict.value, "why": why} | ({"report": report} if report is not None else {})
        self._write_note(generation, f"verdict.{part}", content)

    def read_progress(self, generation: int, part: str) -> dict[str, Any]:
        return dict(json.loads(self._read_notes().get(f"{generation}.progress.{part}", "{}")))

    def record_progress(self, generation: int, part: str, progress: dict[str, Any]) -> None:
        self._write_note(generation, f"progress.{part}", progress)

    def _read_notes(self) -> dict[str, str]:
        return dict(
            self._require_object(self._cluster.get(self._build_evidence_path()), "ConfigMap", EVIDENCE_CONFIG_MAP).get(
                "data"
            )
            or {}
        )

    def _write_note(self, generation: int, part: str, content: dict[str, Any]) -> None:
        notes = {f"{generation}.{part}": json.dumps(content), f"{generation}.at": repr(time.time())}
        self._require_object(
            self._cluster.patch(self._build_evidence_path(), {"data": notes}), "ConfigMap", EVIDENCE_CONFIG_MAP
        )

    def _forget(self, oldest: int) -> None:
        old = [key for key in self._read_notes() if int(key.split(".")[0]) < oldest]
        if old:
            self._cluster.patch(self._build_evidence_path(), {"data": dict.fromkeys(old)})

    def _build_evidence_path(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps/{EVIDENCE_CONFIG_MAP}"

    # --- the objects ----------------------------------------------------------------------------------------------

    def _read_record(self) -> Object:
        kind, name = routes.choose_route_object(self._spec)
        return {"kind": kind, **self._require_object(self._cluster.get(self._build_path(kind, name)), kind, name)}

    def _read_deployment(self, colour: Colour) -> Object:
        name = f"slot-{colour}"
        deployment = self._require_object(self._cluster.get(self._build_path("Deployment", name)), "Deployment", name)
        return {"kind": "Deployment", **deployment}

    def _list_pods(self, colour: Colour) -> list[Object]:
        """Those that run or will; what was evicted stays in the list until somebody collects it, and answers nobody."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        pods = self._cluster.list(path, labelSelector=f"app.kubernetes.io/name=slot,{routes.SLOT_LABEL}={colour}")
        return [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def _iterate_attempts(self, what: str) -> Iterator[Object]:
        """The record, read anew for every try at it."""
        for _ in range(self._spec.attempts):
            yield self._read_record()
        raise Conflict(f"Somebody else writes {what} of {self._namespace} all the time; look who does, then retry.")

    def _try_replace(self, body: Object) -> bool:
        """False when somebody else wrote first."""
        try:
            self._cluster.replace(self._build_object_path(body), body)
        except Conflict:
            return False
        return True

    @staticmethod
    def _check_fence(record: Object, desired: DesiredState, spared: Colour | None) -> Route:
        current, route = routes.read_desired_state(record), routes.read_route(record)
        if current is None or current.generation != desired.generation:
            raise Conflict(f"Generation {desired.generation} is no longer wanted; nothing was changed.")
        if spared and route.live == spared:
            raise Conflict(f"Slot {spared} carries live traffic; look again before you touch it.")
        return route

    def _require_object(self, body: Object | None, kind: str, name: str) -> Object:
        if body is None:
            component = routes.REQUIRED_COMPONENTS.get(kind, "an overlay of k8s/")
            raise RequestInvalid(f"There is no {kind} {name} in namespace {self._namespace}; apply {component} there.")
        return body

    def _build_object_path(self, body: Object) -> str:
        return self._build_path(body["kind"], body["metadata"]["name"])

    def _build_path(self, kind: str, name: str) -> str:
        return routes.API_PATHS[kind].format(self._namespace) + name


def get_template_annotations(deployment: Object) -> dict[str, str]:
    """The annotations that the pods of a slot are made with; what is put into them is put into the Deployment."""
    annotations: dict[str, str] = deployment["spec"]["template"]["metadata"].setdefault("annotations", {})
    return annotations


def read_staged(deployment: Object) -> Release | None:
    """Raises `RecordDamaged` for what no release of ours wrote."""
    text = get_template_annotations(deployment).get(RELEASE_ANNOTATION)
    if not text:
        return None
    try:
        content = json.loads(text)
        return Release(content["version"], content["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordDamaged(
            f"The annotation {RELEASE_ANNOTATION} of Deployment {deployment['metadata']['name']} cannot be read "
            f"({type(error).__name__}), so nothing is moved; the next run of monitor writes it anew."
        ) from error


def _parse_notes(notes: dict[str, str], prefix: str) -> dict[str, dict[str, Any]]:
    keys = sorted(key for key in notes if key.startswith(prefix))
    return {key.removeprefix(prefix): json.loads(notes[key]) for key in keys}


def _parse_verdicts(notes: dict[str, str], generation: int) -> dict[str, Verdict]:
    contents = _parse_notes(notes, f"{generation}.verdict.")
    return {part: Verdict(content["verdict"]) for part, content in contents.items()}
