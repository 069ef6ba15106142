"""The Kubernetes target as reconciliation needs it: it may look where nothing can be read, and mend the records.

Apart from the target that releases use, as LocalRepair is. Whatever is written is written with the resourceVersion that
was read, so a release that writes first wins. What a process manager does on one machine, the cluster does by itself:
pods that ended are started again. What is left to mend is what no controller knows: annotations that were lost, a
selector that was moved by hand, a slot that was scaled to nothing.

Instead of a proxy, the spec of the object that is the route says where requests go; its annotation says where they
should. There is no proxy to start. A route whose annotation is lost is told by that spec and the request whether what
serves is still on trial.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.cluster.api_server import Object
from include.kernel.errors import Conflict, RecordDamaged
from include.kernel.words.colours import COLOURS, Colour
from include.kernel.words.verdicts import Verdict
from include.release.core.reconcile import SlotReport
from include.release.core.rollout import DesiredState, Evidence, ObservedStatus, Release, Route, Slot
from include.release.targets.base import RepairableTarget
from include.release.targets.damage import record_damage
from include.release.targets.kubernetes import routes
from include.release.targets.kubernetes.records import RELEASE_ANNOTATION, get_template_annotations
from include.release.targets.kubernetes.target import KubernetesTarget
from include.release.targets.kubernetes.traffic import DRAIN_ANNOTATION


class KubernetesRepair(KubernetesTarget, RepairableTarget):
    """`slot_timeout_s` is how long a slot may take until it has loaded what its Deployment names."""

    slot_timeout_s = 60.0

    # --- looking ---------------------------------------------------------------------------------------------------

    def read_records(self) -> tuple[ObservedStatus, DesiredState | None, Evidence, frozenset[str]]:
        """What can be read, and the names of the records that cannot."""
        damaged: set[str] = set()
        record, route, desired = self._read_record(), Route(), None
        with record_damage("route", damaged):
            route = routes.read_route(record)
        with record_damage("wanted", damaged):
            desired = routes.read_desired_state(record)
        slots = dict.fromkeys(COLOURS, Slot())
        for colour in COLOURS:
            with record_damage(colour, damaged):
                slots[colour] = self._read_slot(colour)
        evidence = self.read_evidence(desired.generation, route.trial) if desired else Evidence()
        return ObservedStatus(route, slots["blue"], slots["green"]), desired, evidence, frozenset(damaged)

    def read_slot_report(self, colour: Colour) -> SlotReport | None:
        """None when no pod of the slot answers."""
        status = self._fetch_model_status(colour)
        if not status or "state" not in status:
            return None
        release = Release(str(status["version"]), str(status["digest"])) if status.get("version") else None
        return SlotReport(str(status["state"]), release, str(status.get("why") or ""))

    def read_effective_route(self) -> tuple[Route | None, bool]:
        """The route by which requests really go, if they go to a slot, and whether it is the recorded one."""
        record = self._read_record()
        live = routes.find_live_slot(record)
        try:
            recorded = routes.read_route(record)
        except RecordDamaged:
            return self._infer_route(record, live), False
        if recorded.live is None and live:
            return self._infer_route(record, live), False
        return (recorded if live and live == recorded.live else None), routes.is_in_sync(record)

    def _infer_route(self, record: Object, live: Colour | None) -> Route | None:
        if live is None:
            return None
        desired = None
        with suppress(RecordDamaged):
            desired = routes.read_desired_state(record)
        generation = self._find_known_generation(desired)
        return Route(live, generation=generation, trial=generation if self._is_on_trial(desired, live) else 0)

    def _is_on_trial(self, desired: DesiredState | None, live: Colour) -> bool:
        if desired is None or desired.kind == "rollback":
            return False
        evidence = self.read_evidence(desired.generation)
        is_undecided = evidence.accepted is Verdict.PASSED and evidence.soaked is Verdict.PENDING
        return is_undecided and self._read_slot(live).release == desired.release

    def _find_known_generation(self, desired: DesiredState | None) -> int:
        judged_generations = [int(key.split(".")[0]) for key in self._read_notes()]
        return desired.generation if desired else max([0, *judged_generations])

    def read_envelope(self, colour: Colour) -> str | None:
        """The signed envelope that allows what a slot's Deployment names; None where it lies no more."""
        text = get_template_annotations(self._read_deployment(colour)).get(RELEASE_ANNOTATION) or "{}"
        return self._read_envelope_file(json.loads(text).get("blessing"))

    # --- mending ---------------------------------------------------------------------------------------------------

    def restore_desired_state(self, observed: ObservedStatus) -> None:
        """Wants what serves, with a generation that never was."""
        record = self._read_unchanged_record(observed)
        with suppress(RecordDamaged):
            if routes.read_desired_state(record) is not None:
                raise Conflict("Somebody has wanted something meanwhile; nothing was changed.")
        live = observed.route.live
        if live is None or observed.live.release is None:
            raise Conflict("Nothing serves, so there is nothing to want; deploy a version.")
        blessing_digest = json.loads(get_template_annotations(self._read_deployment(live))[RELEASE_ANNOTATION]).get(
            "blessing"
        )
        generation = max(observed.route.generation, self._find_known_generation(None)) + 1
        desired = DesiredState(
            observed.live.release, generation, "reconcile", "the record was lost", "deploy", blessing_digest
        )
        self._write_object(routes.write_desired_state(routes.remove_desired_state(record), desired))

    def restore_route(self, route: Route) -> None:
        record = self._read_record()
        with suppress(RecordDamaged):
            if routes.read_route(record).live:
                raise Conflict("Somebody has written a route meanwhile; nothing was changed.")
        self._write_object(routes.write_route(routes.remove_route(record), route))
        self._await_route()

    def apply_route(self) -> None:
        """Makes the spec what the annotation says, after somebody moved it by hand."""
        record = self._read_record()
        self._write_object(routes.write_route(record, routes.read_route(record)))
        self._await_route()

    def restore_slot(
        self, colour: Colour, release: Release | None, envelope: str | None, observed: ObservedStatus
    ) -> None:
        """Names `release` in the slot's Deployment, as it was allowed; without one the slot is emptied."""
        if release is None:
            return self._empty_slot(colour, observed)
        content = {
            **asdict(release),
            "generation": observed.route.generation,
            "blessing": self._keep_envelope(envelope),
        }

        def write_release(deployment: Object) -> None:
            get_template_annotations(deployment)[RELEASE_ANNOTATION] = json.dumps(content)
            self._start_pods(deployment)

        self._change_slot(colour, write_release, observed)
        return self._await_slot(colour, release)

    def _empty_slot(self, colour: Colour, observed: ObservedStatus) -> None:
        def empty(deployment: Object) -> None:
            if self._read_unchanged_record(observed) and observed.route.live == colour:
                raise Conflict(f"Slot {colour} carries live traffic; look again before you touch it.")
            get_template_annotations(deployment).pop(RELEASE_ANNOTATION, None)
            deployment["spec"]["replicas"] = 0

        self._change_slot(colour, empty, observed)
        self._await_slot(colour, None)

    def reload(self, colour: Colour) -> None:
        """Replaces its pods one by one; the new ones hold what the Deployment names."""

        def renew(deployment: Object) -> None:
            get_template_annotations(deployment)[DRAIN_ANNOTATION] = repr(time.time())
            self._start_pods(deployment)

        self._change_slot(colour, renew)
        self._await_slot(colour, self._read_slot(colour).release)

    def start_slot(self, colour: Colour) -> None:
        """Gives a slot that was scaled to nothing its pods; whatever else ended is started by the cluster."""
        self._change_slot(colour, self._start_pods)
        self._await_slot(colour, self._read_slot(colour).release)

    def start_proxy(self) -> None:
        """Nothing: a Service has no process, and a Gateway is looked after by those who installed it."""

    def _start_pods(self, deployment: Object) -> None:
        """Pods for a slot that holds something; one that was emptied stays so."""
        if get_template_annotations(deployment).get(RELEASE_ANNOTATION):
            deployment["spec"]["replicas"] = max(self._spec.replicas, int(deployment["spec"].get("replicas", 1)))

    def _change_slot(
        self, colour: Colour, change: Callable[[Object], Any], observed: ObservedStatus | None = None
    ) -> None:
        deployment = self._read_deployment(colour)
        if observed:
            self._read_unchanged_record(observed)
        change(deployment)
        self._write_object(deployment)

    def _write_object(self, body: Object) -> None:
        if not self._try_replace(body):
            raise Conflict("Somebody else has written meanwhile; nothing was changed, and the next look sees more.")

    def _read_unchanged_record(self, observed: ObservedStatus) -> Object:
        """The record, if its route is still the one that was seen."""
        record = self._read_record()
        if routes.read_route(record) != observed.route:
            raise Conflict("The route has changed meanwhile; nothing was changed.")
        return record

    def _await_slot(self, colour: Colour, release: Release | None) -> None:
        """Until its pods hold it, or none is left; gives up in silence, since the next look will tell."""
        attempts = Retrying(
            stop=stop_after_delay(self.slot_timeout_s),
            wait=wait_fixed(0.2),
            retry=retry_if_result(lambda is_so: not is_so),
        )

        def has_come() -> bool:
            slot = self._read_slot(colour)
            return slot.ready and slot.release == release if release else not self._list_pods(colour)

        with suppress(RetryError):
            attempts(has_come)
