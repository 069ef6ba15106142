"""The local target as reconciliation needs it: it may look where nothing can be read, and mend the records themselves.

Apart from the target that releases use, so that no step of a release can reach for these. Whatever is written here is
written under the same lock, and only if what was seen is still so.
"""

from __future__ import annotations

import json
import xmlrpc.client
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.kernel.errors import Conflict, RecordDamaged
from include.kernel.files import write_atomic
from include.release.core.reconcile import Said
from include.release.core.rollout import COLOURS, Colour, Evidence, Observed, Release, Route, Slot, Wanted
from include.release.targets.base import RepairableTarget
from include.release.targets.damage import noting
from include.release.targets.local import envoy_routes
from include.release.targets.local.target import LocalTarget
from include.release.targets.local.traffic import LocalAddresses
from include.serving.words.slot_files import routes_path


class LocalRepair(LocalTarget, RepairableTarget):
    """`patience_s` is how long a slot may take until it has loaded what its file names."""

    def __init__(self, root: Path, addresses: LocalAddresses, token: str | None, patience_s: float) -> None:
        super().__init__(root, addresses, token)
        self._patience_s = patience_s

    # --- looking ---------------------------------------------------------------------------------------------------

    def records(self) -> tuple[Observed, Wanted | None, Evidence, frozenset[str]]:
        """What can be read, and the names of the records that cannot."""
        damaged: set[str] = set()
        route, wanted = Route(), None
        with noting("route", damaged):
            route = self._route()
        with noting("wanted", damaged):
            wanted = self.wanted()
        slots = dict.fromkeys(COLOURS, Slot())
        for colour in COLOURS:
            with noting(colour, damaged):
                slots[colour] = self._slot(colour)
        evidence = self.evidence(wanted.generation, route.trial) if wanted else Evidence()
        return Observed(route, slots["blue"], slots["green"]), wanted, evidence, frozenset(damaged)

    def said(self, colour: Colour) -> Said | None:
        """None when the process does not answer."""
        try:
            told = self._http.get(f"{self._addresses.slots[colour]}/model").json()
        except (httpx.HTTPError, ValueError):
            return None
        release = Release(str(told["version"]), str(told["digest"])) if told.get("version") else None
        return Said(str(told.get("state")), release, str(told.get("why") or ""))

    def proxied(self) -> tuple[Route | None, bool | None]:
        """The route that the proxy's answers carry, and whether the file says the same; None: it does not answer."""
        try:
            label = self._http.get(f"{self._addresses.proxy}/health").headers.get(envoy_routes.ROUTE_HEADER, "")
        except httpx.HTTPError:
            return None, None
        with suppress(RecordDamaged):
            return envoy_routes.parse_label(label), label == envoy_routes.label(self._route())
        return envoy_routes.parse_label(label), False

    def paper(self, colour: Colour) -> str | None:
        """The signed envelope that allows what a slot's file names; None where it lies no more."""
        return self._read_paper(json.loads(self._slot_file(colour).read_text()).get("blessing"))

    # --- mending ---------------------------------------------------------------------------------------------------

    def restore_wish(self, seen: Observed) -> None:
        """Wants what serves, with a generation that never was."""
        with self._lock():
            self._must_be_as(seen)
            with suppress(RecordDamaged):
                if self.wanted() is not None:
                    raise Conflict("Somebody has wanted something meanwhile; nothing was changed.")
            live = seen.route.live
            if live is None or seen.live.release is None:
                raise Conflict("Nothing serves, so there is nothing to want; deploy a version.")
            paper = json.loads(self._slot_file(live).read_text()).get("blessing")
            generation = self._newest_generation(None) + 1
            wish = Wanted(seen.live.release, generation, "reconcile", "the record was lost", "deploy", paper)
            write_atomic(self._root / "wanted.json", json.dumps(asdict(wish), indent=1))

    def restore_route(self, route: Route) -> None:
        with self._lock():
            with suppress(RecordDamaged):
                if self._route().live:
                    raise Conflict("Somebody has written a route meanwhile; nothing was changed.")
            write_atomic(routes_path(self._root), envoy_routes.render(route))
        self._await_route()

    def apply_route(self) -> None:
        """Writes the same route once more: a rename is what wakes the proxy."""
        with self._lock():
            write_atomic(routes_path(self._root), envoy_routes.render(self._route()))
        self._await_route()

    def restore_slot(self, colour: Colour, release: Release | None, envelope: str | None, seen: Observed) -> None:
        """Names `release` in the slot's file, as it was allowed; without one the slot is emptied."""
        with self._lock():
            self._must_be_as(seen)
            if release is None:
                self._must_not_be_live(colour, self._route())
                self._slot_file(colour).unlink(missing_ok=True)
            else:
                content = {**asdict(release), "generation": self._newest_generation(None)}
                content["blessing"] = self._kept(envelope)
                write_atomic(self._slot_file(colour), json.dumps(content))
        self.reload(colour)

    def reload(self, colour: Colour) -> None:
        """The process reads its file again, beside the model that serves where it can; else it is restarted."""
        try:
            answer = self._http.post(f"{self._addresses.slots[colour]}/admin/reload", timeout=self._patience_s)
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
            stop=stop_after_delay(self._patience_s), wait=wait_fixed(0.1), retry=retry_if_result(lambda said: not said)
        )
        with suppress(RetryError):
            attempts(self.said, colour)

    def start_proxy(self) -> None:
        with self._manager("envoy") as manager, suppress(xmlrpc.client.Fault):  # running already
            manager.supervisor.startProcess("envoy", False)
        self._await_route()

    def _is_live(self, colour: Colour) -> bool:
        return self._route().live == colour

    def _must_be_as(self, seen: Observed) -> None:
        if self._route() != seen.route:
            raise Conflict("The route has changed meanwhile; nothing was changed.")
