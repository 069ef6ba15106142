"""The local target as reconciliation needs it: it may look where nothing can be read, and mend the records themselves.

Apart from the target that releases use, so that no step of a release can reach for these. Whatever is written here is
written under the same lock, and only if what was seen is still so.
"""

import json
import xmlrpc.client
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.kernel.errors import Conflict, RecordDamaged
from include.kernel.files import write_atomic
from include.kernel.words.colours import COLOURS, Colour
from include.release.core.reconcile import SlotReport
from include.release.core.rollout import DesiredState, Evidence, ObservedStatus, Release, Route, Slot
from include.release.targets.base import RepairableTarget
from include.release.targets.damage import record_damage
from include.release.targets.local import envoy_routes
from include.release.targets.local.target import LocalTarget
from include.release.targets.local.traffic import LocalAddresses
from include.serving.words.slot_files import locate_routes_file


class LocalRepair(LocalTarget, RepairableTarget):
    """`slot_timeout_s` is how long a slot may take until it has loaded what its file names."""

    def __init__(self, root: Path, addresses: LocalAddresses, token: str | None, slot_timeout_s: float) -> None:
        super().__init__(root, addresses, token)
        self._slot_timeout_s = slot_timeout_s

    # --- looking ---------------------------------------------------------------------------------------------------

    def read_records(self) -> tuple[ObservedStatus, DesiredState | None, Evidence, frozenset[str]]:
        """What can be read, and the names of the records that cannot."""
        damaged: set[str] = set()
        route, desired = Route(), None
        with record_damage("route", damaged):
            route = self._read_route()
        with record_damage("wanted", damaged):
            desired = self.read_desired_state()
        slots = dict.fromkeys(COLOURS, Slot())
        for colour in COLOURS:
            with record_damage(colour, damaged):
                slots[colour] = self._read_slot(colour)
        evidence = self.read_evidence(desired.generation, route.trial) if desired else Evidence()
        return ObservedStatus(route, slots["blue"], slots["green"]), desired, evidence, frozenset(damaged)

    def read_slot_report(self, colour: Colour) -> SlotReport | None:
        """None when the process does not answer."""
        try:
            status = self._http.get(f"{self._addresses.slots[colour]}/model").json()
        except (httpx.HTTPError, ValueError):
            return None
        release = Release(str(status["version"]), str(status["digest"])) if status.get("version") else None
        return SlotReport(str(status.get("state")), release, str(status.get("why") or ""))

    def read_effective_route(self) -> tuple[Route | None, bool | None]:
        """The route that the proxy's answers carry, and whether the file says the same; None: it does not answer."""
        try:
            label = self._http.get(f"{self._addresses.proxy}/health").headers.get(envoy_routes.ROUTE_HEADER, "")
        except httpx.HTTPError:
            return None, None
        with suppress(RecordDamaged):
            return envoy_routes.parse_label(label), label == envoy_routes.build_label(self._read_route())
        return envoy_routes.parse_label(label), False

    def read_envelope(self, colour: Colour) -> str | None:
        """The signed envelope that allows what a slot's file names; None where it lies no more."""
        return self._read_envelope_file(json.loads(self._locate_slot_file(colour).read_text()).get("blessing"))

    # --- mending ---------------------------------------------------------------------------------------------------

    def restore_desired_state(self, observed: ObservedStatus) -> None:
        """Wants what serves, with a generation that never was."""
        with self._lock():
            self._must_be_unchanged(observed)
            with suppress(RecordDamaged):
                if self.read_desired_state() is not None:
                    raise Conflict("Somebody has wanted something meanwhile; nothing was changed.")
            live = observed.route.live
            if live is None or observed.live.release is None:
                raise Conflict("Nothing serves, so there is nothing to want; deploy a version.")
            blessing_digest = json.loads(self._locate_slot_file(live).read_text()).get("blessing")
            generation = self._find_newest_generation(None) + 1
            desired = DesiredState(
                observed.live.release, generation, "reconcile", "the record was lost", "deploy", blessing_digest
            )
            write_atomic(self._root / "wanted.json", json.dumps(asdict(desired), indent=1))

    def restore_route(self, route: Route) -> None:
        with self._lock():
            with suppress(RecordDamaged):
                if self._read_route().live:
                    raise Conflict("Somebody has written a route meanwhile; nothing was changed.")
            write_atomic(locate_routes_file(self._root), envoy_routes.render(route))
        self._await_route()

    def apply_route(self) -> None:
        """Writes the same route once more: a rename is what wakes the proxy."""
        with self._lock():
            write_atomic(locate_routes_file(self._root), envoy_routes.render(self._read_route()))
        self._await_route()

    def restore_slot(
        self, colour: Colour, release: Release | None, envelope: str | None, observed: ObservedStatus
    ) -> None:
        """Names `release` in the slot's file, as it was allowed; without one the slot is emptied."""
        with self._lock():
            self._must_be_unchanged(observed)
            if release is None:
                self._must_not_be_live(colour, self._read_route())
                self._locate_slot_file(colour).unlink(missing_ok=True)
            else:
                content = {**asdict(release), "generation": self._find_newest_generation(None)}
                content["blessing"] = self._keep_envelope(envelope)
                write_atomic(self._locate_slot_file(colour), json.dumps(content))
        self.reload(colour)

    def reload(self, colour: Colour) -> None:
        """The process reads its file again, beside the model that serves where it can; else it is restarted."""
        try:
            answer = self._http.post(f"{self._addresses.slots[colour]}/admin/reload", timeout=self._slot_timeout_s)
        except httpx.HTTPError:
            return self.start_slot(colour)
        if answer.status_code != 200 and not self._is_live(colour):
            self._restart(colour)
            self._await_slot(colour)
        return None

    def start_slot(self, colour: Colour) -> None:
        self._start(colour)
        self._await_slot(colour)

    def _await_slot(self, colour: Colour) -> None:
        """Until the process has tried its file, well or not; gives up in silence, since the next look will tell."""
        attempts = Retrying(
            stop=stop_after_delay(self._slot_timeout_s),
            wait=wait_fixed(0.1),
            retry=retry_if_result(lambda said: not said),
        )
        with suppress(RetryError):
            attempts(self.read_slot_report, colour)

    def start_proxy(self) -> None:
        with self._connect_supervisor("envoy") as manager, suppress(xmlrpc.client.Fault):  # running already
            manager.supervisor.startProcess("envoy", False)
        self._await_route()

    def _is_live(self, colour: Colour) -> bool:
        return self._read_route().live == colour

    def _must_be_unchanged(self, observed: ObservedStatus) -> None:
        if self._read_route() != observed.route:
            raise Conflict("The route has changed meanwhile; nothing was changed.")
