"""The Kubernetes target as reconciliation needs it: it may look where nothing can be read, and mend the records.

Apart from the target that releases use, as LocalRepair is. Whatever is written is written with the resourceVersion that
was read, so a release that writes first wins. What a process manager does on one machine, the cluster does by itself:
pods that ended are started again. What is left to mend is what no controller knows: annotations that were lost, a
selector that was moved by hand, a slot that was scaled to nothing.

Instead of a proxy, the spec of the object that is the route says where requests go; its annotation says where they
should. There is no proxy to start. A route whose annotation is lost is told by that spec, and by the wish, whether what
serves is still on trial.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.cluster.api_server import Object
from include.kernel.errors import Conflict, RecordDamaged
from include.release.core.reconcile import Said
from include.release.core.rollout import COLOURS, Colour, Evidence, Observed, Release, Route, Slot, Verdict, Wanted
from include.release.targets.base import RepairableTarget
from include.release.targets.damage import noting
from include.release.targets.kubernetes import routes
from include.release.targets.kubernetes.records import RELEASE, template_notes
from include.release.targets.kubernetes.target import KubernetesTarget
from include.release.targets.kubernetes.traffic import LET_GO


class KubernetesRepair(KubernetesTarget, RepairableTarget):
    """`patience_s` is how long a slot may take until it has loaded what its Deployment names."""

    patience_s = 60.0

    # --- looking ---------------------------------------------------------------------------------------------------

    def records(self) -> tuple[Observed, Wanted | None, Evidence, frozenset[str]]:
        """What can be read, and the names of the records that cannot."""
        damaged: set[str] = set()
        record, route, wanted = self._record(), Route(), None
        with noting("route", damaged):
            route = routes.route(record)
        with noting("wanted", damaged):
            wanted = routes.wanted(record)
        slots = dict.fromkeys(COLOURS, Slot())
        for colour in COLOURS:
            with noting(colour, damaged):
                slots[colour] = self._slot(colour)
        evidence = self.evidence(wanted.generation, route.trial) if wanted else Evidence()
        return Observed(route, slots["blue"], slots["green"]), wanted, evidence, frozenset(damaged)

    def said(self, colour: Colour) -> Said | None:
        """None when no pod of the slot answers."""
        told = self._told(colour)
        if not told or "state" not in told:
            return None
        release = Release(str(told["version"]), str(told["digest"])) if told.get("version") else None
        return Said(str(told["state"]), release, str(told.get("why") or ""))

    def proxied(self) -> tuple[Route | None, bool]:
        """The route by which requests really go, if they go to a slot, and whether it is the recorded one."""
        record = self._record()
        live = routes.followed(record)
        try:
            recorded = routes.route(record)
        except RecordDamaged:
            return self._told_by_the_spec(record, live), False
        if recorded.live is None and live:
            return self._told_by_the_spec(record, live), False
        return (recorded if live and live == recorded.live else None), routes.follows(record)

    def _told_by_the_spec(self, record: Object, live: Colour | None) -> Route | None:
        if live is None:
            return None
        wanted = None
        with suppress(RecordDamaged):
            wanted = routes.wanted(record)
        generation = self._newest_known(wanted)
        return Route(live, generation=generation, trial=generation if self._is_on_trial(wanted, live) else 0)

    def _is_on_trial(self, wanted: Wanted | None, live: Colour) -> bool:
        if wanted is None or wanted.kind == "rollback":
            return False
        evidence = self.evidence(wanted.generation)
        is_undecided = evidence.accepted is Verdict.PASSED and evidence.soaked is Verdict.PENDING
        return is_undecided and self._slot(live).release == wanted.release

    def _newest_known(self, wanted: Wanted | None) -> int:
        judged = [int(key.split(".")[0]) for key in self._notes()]
        return wanted.generation if wanted else max([0, *judged])

    def paper(self, colour: Colour) -> str | None:
        """The signed envelope that allows what a slot's Deployment names; None where it lies no more."""
        text = template_notes(self._deployment(colour)).get(RELEASE) or "{}"
        return self._read_paper(json.loads(text).get("blessing"))

    # --- mending ---------------------------------------------------------------------------------------------------

    def restore_wish(self, seen: Observed) -> None:
        """Wants what serves, with a generation that never was."""
        record = self._as(seen)
        with suppress(RecordDamaged):
            if routes.wanted(record) is not None:
                raise Conflict("Somebody has wanted something meanwhile; nothing was changed.")
        live = seen.route.live
        if live is None or seen.live.release is None:
            raise Conflict("Nothing serves, so there is nothing to want; deploy a version.")
        paper = json.loads(template_notes(self._deployment(live))[RELEASE]).get("blessing")
        generation = max(seen.route.generation, self._newest_known(None)) + 1
        wish = Wanted(seen.live.release, generation, "reconcile", "the record was lost", "deploy", paper)
        self._write(routes.with_wish(routes.without_wish(record), wish))

    def restore_route(self, route: Route) -> None:
        record = self._record()
        with suppress(RecordDamaged):
            if routes.route(record).live:
                raise Conflict("Somebody has written a route meanwhile; nothing was changed.")
        self._write(routes.with_route(routes.without_route(record), route))
        self._await_route()

    def apply_route(self) -> None:
        """Makes the spec what the annotation says, after somebody moved it by hand."""
        record = self._record()
        self._write(routes.with_route(record, routes.route(record)))
        self._await_route()

    def restore_slot(self, colour: Colour, release: Release | None, envelope: str | None, seen: Observed) -> None:
        """Names `release` in the slot's Deployment, as it was allowed; without one the slot is emptied."""
        if release is None:
            return self._empty(colour, seen)
        content = {**asdict(release), "generation": seen.route.generation, "blessing": self._kept(envelope)}

        def name(deployment: Object) -> None:
            template_notes(deployment)[RELEASE] = json.dumps(content)
            self._run_some(deployment)

        self._change(colour, name, seen)
        return self._await_slot(colour, release)

    def _empty(self, colour: Colour, seen: Observed) -> None:
        def empty(deployment: Object) -> None:
            if self._as(seen) and seen.route.live == colour:
                raise Conflict(f"Slot {colour} carries live traffic; look again before you touch it.")
            template_notes(deployment).pop(RELEASE, None)
            deployment["spec"]["replicas"] = 0

        self._change(colour, empty, seen)
        self._await_slot(colour, None)

    def reload(self, colour: Colour) -> None:
        """Replaces its pods one by one; the new ones hold what the Deployment names."""

        def renew(deployment: Object) -> None:
            template_notes(deployment)[LET_GO] = repr(time.time())
            self._run_some(deployment)

        self._change(colour, renew)
        self._await_slot(colour, self._slot(colour).release)

    def start_slot(self, colour: Colour) -> None:
        """Gives a slot that was scaled to nothing its pods; whatever else ended is started by the cluster."""
        self._change(colour, self._run_some)
        self._await_slot(colour, self._slot(colour).release)

    def start_proxy(self) -> None:
        """Nothing: a Service has no process, and a Gateway is looked after by those who installed it."""

    def _run_some(self, deployment: Object) -> None:
        """Pods for a slot that holds something; one that was emptied stays so."""
        if template_notes(deployment).get(RELEASE):
            deployment["spec"]["replicas"] = max(self._spec.replicas, int(deployment["spec"].get("replicas", 1)))

    def _change(self, colour: Colour, change: Callable[[Object], Any], seen: Observed | None = None) -> None:
        deployment = self._deployment(colour)
        if seen:
            self._as(seen)
        change(deployment)
        self._write(deployment)

    def _write(self, body: Object) -> None:
        if not self._stored(body):
            raise Conflict("Somebody else has written meanwhile; nothing was changed, and the next look sees more.")

    def _as(self, seen: Observed) -> Object:
        """The record, if its route is still the one that was seen."""
        record = self._record()
        if routes.route(record) != seen.route:
            raise Conflict("The route has changed meanwhile; nothing was changed.")
        return record

    def _await_slot(self, colour: Colour, release: Release | None) -> None:
        """Until its pods hold it, or none is left; gives up in silence, since the next look will tell."""
        attempts = Retrying(
            stop=stop_after_delay(self.patience_s), wait=wait_fixed(0.2), retry=retry_if_result(lambda is_so: not is_so)
        )

        def has_come() -> bool:
            slot = self._slot(colour)
            return slot.ready and slot.release == release if release else not self._pods(colour)

        with suppress(RetryError):
            attempts(has_come)
