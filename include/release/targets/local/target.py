"""The local serving target: two slot processes behind Envoy, everything it knows in files.

    <serving>/wanted.json              the one stored desire, changed by compare-and-set under a lock
    <serving>/route/routes.yaml        where traffic goes; Envoy watches it, and it is the only record of the route
    <serving>/slots/<colour>.json      what a slot loads when it starts
    <serving>/artifacts/<digest>/      verified copies, so that a slot comes back with the registry down
    <serving>/blessings/<hash>.json    the signed documents that allow them, which a slot verifies before it loads
    <serving>/verdicts/<generation>/   accepted.json, shadowed.json, canary-1.json, experiment.json and so on
    <serving>/progress/<generation>/   how far a part that takes many looks has come

A process manager owns the slots: a child of an Airflow task would die with its task. Every write that concerns traffic
carries the generation of the wish it serves, and one that comes too late is refused.
"""

from __future__ import annotations

import json
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.kernel.errors import Conflict, RecordDamaged, ServiceUnavailable
from include.kernel.files import locked, sweep_drafts, write_atomic
from include.kernel.words.verdicts import SOAKED
from include.model.blessing.blessing import envelope_digest
from include.model.integrity.artifact_integrity import copy_verified
from include.release.core.release_record import alone, evidence_of, wanted_of
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
    other,
)
from include.release.targets import slot_client, slot_counters
from include.release.targets.base import ServingTarget
from include.release.targets.local import envoy_routes
from include.release.targets.slot_counters import Counted
from include.serving.words.recent import RecentAnswers, RecentQuestion
from include.serving.words.slot_files import ARTIFACTS, artifact_path, blessing_path, routes_path, slot_path

ROUTE_TIMEOUT_S = 10.0
ALREADY_STARTED = 60  # a fault of supervisor's
STOP_TIMEOUT_S = 20.0  # the process manager kills after ten
LOCK_PATIENCE_S = 20.0  # nobody holds it longer than a file takes to write


@dataclass(frozen=True)
class LocalAddresses:
    """Where the parts of the local target listen."""

    proxy: str
    proxy_admin: str
    slots: Mapping[Colour, str]
    supervisor: str


class LocalTarget(ServingTarget):
    """`token` is the serving token: slots that know API tokens ask for one of these or for it."""

    def __init__(self, root: Path, addresses: LocalAddresses, token: str | None = None) -> None:
        self._root = root
        self._addresses = addresses
        self._http = httpx.Client(timeout=5.0, headers={"authorization": f"Bearer {token}"} if token else {})

    # --- the wish -------------------------------------------------------------------------------------------------

    def wanted(self) -> Wanted | None:
        path = self._root / "wanted.json"
        if not path.exists():
            return None
        with _readable(path):
            return wanted_of(json.loads(path.read_text()))

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
        """Stores a new wish with the next generation. Said again before it came to its end, it is the same wish.

        `blessing` is the signed envelope, kept for the slots. With `expected`, raises `Conflict` unless the stored
        generation is that one.
        """
        with self._lock():
            known = self.wanted()
            if known and (known.release, known.kind) == (release, kind) and self._is_same_wish(known, by):
                return known
            generation = self._newest_generation(known)
            if expected is not None and expected != generation:
                raise Conflict(f"Generation {expected} was expected but {generation} is wanted; look again and retry.")
            sweep_drafts(self._root)
            wish = Wanted(release, generation + 1, by, why, kind, self._kept(blessing), plan)
            write_atomic(self._root / "wanted.json", json.dumps(asdict(wish), indent=1))
            return wish

    def _newest_generation(self, known: Wanted | None) -> int:
        """Also of what a lost record had wanted: a generation that came again would find the verdicts of the first."""
        judged = [int(place.name) for place in (self._root / "verdicts").glob("[0-9]*")]
        return known.generation if known else max([self._route().generation, *judged])

    def quiet_s(self, generation: int) -> float:
        """Seconds since a run last wrote anything for this generation, by the clock of the disk."""
        own = [place for part in ("verdicts", "progress") for place in (self._root / part / str(generation)).glob("*")]
        files = [self._root / "wanted.json", routes_path(self._root), *own]
        return time.time() - max((path.stat().st_mtime for path in files if path.exists()), default=0.0)

    def _kept(self, envelope: str | None) -> str | None:
        """The hash by which an envelope lies in blessings/; there before anything names it."""
        if envelope is None:
            return None
        paper = envelope_digest(envelope)
        write_atomic(blessing_path(self._root, paper), envelope)
        return paper

    def _is_same_wish(self, known: Wanted, by: str) -> bool:
        """A second run for an unfinished release joins the first, so that evidence is not split between the two."""
        evidence = self.evidence(known.generation)
        ended = evidence.turned_down or evidence.soaked is not Verdict.PENDING
        return known.by == by or (known.kind == "deploy" and not ended)

    # --- what is there --------------------------------------------------------------------------------------------

    def observe(self) -> Observed:
        return Observed(self._route(), *(self._slot(colour) for colour in COLOURS))

    def _route(self) -> Route:
        path = routes_path(self._root)
        with _readable(path):
            return envoy_routes.parse(path.read_text()) if path.exists() else Route()

    def _slot(self, colour: Colour) -> Slot:
        staged = self._staged(colour)
        return Slot(staged, ready=staged is not None and self._reports(colour) == staged)

    def _staged(self, colour: Colour) -> Release | None:
        path = self._slot_file(colour)
        if not path.exists():
            return None
        with _readable(path):
            content = json.loads(path.read_text())
            return Release(content["version"], content["digest"])

    def _slot_file(self, colour: Colour) -> Path:
        return slot_path(self._root, colour)

    def _reports(self, colour: Colour) -> Release | None:
        """What the slot's process says it serves; None unless it is ready."""
        try:
            answer = self._http.get(f"{self._addresses.slots[colour]}/ready")
            model = answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None
        return Release(str(model["version"]), str(model["digest"])) if model else None

    def why_not_ready(self, colour: Colour) -> str:
        """The slot's own sentence about why it is not ready."""
        try:
            answer = self._http.get(f"{self._addresses.slots[colour]}/model").json()
        except (httpx.HTTPError, ValueError):
            return f"slot {colour} does not answer"
        return str(answer.get("why") or answer.get("state") or "it does not say why")

    def refusal(self, colour: Colour, release: Release) -> str | None:
        """Why the slot will never serve this release, once it has tried; None while it may still become ready."""
        try:
            answer = self._http.get(f"{self._addresses.slots[colour]}/model").json()
        except (httpx.HTTPError, ValueError):
            return None
        tried = Release(str(answer.get("version")), str(answer.get("digest")))
        return str(answer["why"]) if answer.get("state") == "broken" and tried == release else None

    # --- verdicts -------------------------------------------------------------------------------------------------

    def evidence(self, generation: int, trial: int = 0) -> Evidence:
        """The verdicts of a generation, and of the one on trial; a `trial` of 0 needs no verdict."""
        own, tried = self._found(generation), self._found(trial) if trial else {SOAKED: Verdict.PASSED}
        return evidence_of(own, tried)

    def _found(self, generation: int) -> dict[str, Verdict]:
        return {part: Verdict(content["verdict"]) for part, content in self.verdicts(generation).items()}

    def verdicts(self, generation: int) -> dict[str, dict[str, Any]]:
        """Part (accepted, shadowed, canary-1, approved, soaked, recovered) -> {verdict, why}, report if any."""
        place = self._root / "verdicts" / str(generation)
        return {path.stem: json.loads(path.read_text()) for path in sorted(place.glob("*.json"))}

    def record(
        self, generation: int, part: str, verdict: Verdict, why: str, report: dict[str, Any] | None = None
    ) -> None:
        """`report` is what the verdict was taken from, where that is more than a sentence."""
        path = self._root / "verdicts" / str(generation) / f"{part}.json"
        content = {"verdict": verdict.value, "why": why, **({"report": report} if report else {})}
        write_atomic(path, json.dumps(content, indent=1))

    def progress(self, generation: int, part: str) -> dict[str, Any]:
        """What the looks at a part have noted so far; empty before the first."""
        path = self._root / "progress" / str(generation) / f"{part}.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def note(self, generation: int, part: str, progress: dict[str, Any]) -> None:
        write_atomic(self._root / "progress" / str(generation) / f"{part}.json", json.dumps(progress))

    # --- the steps ------------------------------------------------------------------------------------------------

    def has_artifact(self, digest: str) -> Path | None:
        path = artifact_path(self._root, digest)
        return path if path.is_dir() else None

    def golden(self, digest: str) -> list[dict[str, Any]]:
        """The golden rows (row, probability) of a staged artifact."""
        path = artifact_path(self._root, digest) / "artifact.json"
        return list(json.loads(path.read_text())["golden"])

    def stage(self, colour: Colour, wanted: Wanted, artifact: Path) -> None:
        """Takes the slot out of the standby role, then puts the release into it and restarts its process."""
        copy_verified(artifact, self._root / ARTIFACTS, wanted.release.digest)
        with self._fenced(wanted) as route:
            self._must_not_be_live(colour, route)
            self._write_route(alone(route, wanted))
            content = {**asdict(wanted.release), "generation": wanted.generation, "blessing": wanted.blessing}
            write_atomic(self._slot_file(colour), json.dumps(content))
        self._await_route()
        self._restart(colour, wanted)

    def nudge(self, colour: Colour) -> None:
        """Restarts a slot whose process holds another release than its file names, or does not run at all.

        That is what a kill between writing the file and restarting the process leaves behind.
        """
        try:
            model = self._http.get(f"{self._addresses.slots[colour]}/model").json()
            found = Release(str(model["version"]), str(model["digest"]))
        except (httpx.HTTPError, ValueError, KeyError):
            return self._start(colour)
        if found != self._staged(colour):
            self._restart(colour)
        return None

    def isolate(self, wanted: Wanted) -> None:
        """Takes the idle slot out of the standby role: what is being judged takes over for nobody."""
        with self._fenced(wanted) as route:
            self._write_route(alone(route, wanted))

    def split(self, wanted: Wanted, share: int = 0, mirror: bool = False, sticky: bool = False) -> None:
        """Gives the idle slot a share of the requests (per cent), of the callers if `sticky`, or copies of them all."""
        if share:
            self._await_trust(wanted, *COLOURS)
        with self._fenced(wanted) as route:
            self._write_route(replace(alone(route, wanted), share=share, mirror=mirror, sticky=sticky))
        self._await_route()

    def switch(self, colour: Colour, wanted: Wanted) -> None:
        """Routes all traffic to `colour` and waits until the proxy says so.

        A deployment is on trial, with what served before as its standby; a rollback is neither.
        """
        if wanted.kind == "deploy" and self._route().live:
            self._await_trust(wanted, colour)
        with self._fenced(wanted) as route:
            generation = wanted.generation
            if wanted.kind == "rollback":
                self._write_route(Route(colour, generation=generation))
            else:
                standby = route.live if route.live != colour else None
                self._write_route(Route(colour, standby, generation, trial=generation))
        self._await_route()

    def revert(self, colour: Colour, wanted: Wanted) -> None:
        """Routes all traffic back to the standby; what failed its trial stands by for nobody."""
        with self._fenced(wanted):
            self._write_route(Route(colour, generation=wanted.generation))
        self._await_route()

    def discard(self, colour: Colour, wanted: Wanted) -> None:
        """Empties the slot of a release that was turned down."""
        with self._fenced(wanted) as route:
            self._must_not_be_live(colour, route)
            self._write_route(alone(route, wanted))
            self._slot_file(colour).unlink(missing_ok=True)
        self._await_route()
        self._restart(colour, wanted)

    # --- how ------------------------------------------------------------------------------------------------------

    def _lock(self) -> Any:
        return locked(self._root / ".lock", LOCK_PATIENCE_S)

    @contextmanager
    def _fenced(self, wanted: Wanted | None) -> Iterator[Route]:
        """Holds the lock and gives the current route, unless a newer wish than `wanted` has been stored meanwhile."""
        with self._lock():
            if wanted:
                self._must_be_wanted(wanted)
            yield self._route()

    def _must_be_wanted(self, wanted: Wanted) -> None:
        now = self.wanted()
        if now is None or now.generation != wanted.generation:
            raise Conflict(f"Generation {wanted.generation} is no longer wanted; nothing was changed.")

    @staticmethod
    def _must_not_be_live(colour: Colour, route: Route) -> None:
        if route.live == colour:
            raise Conflict(f"Slot {colour} carries live traffic; look again before you touch it.")

    def _write_route(self, route: Route) -> None:
        if route != self._route():
            write_atomic(routes_path(self._root), envoy_routes.render(route))

    def _await_route(self) -> None:
        """Raises `ServiceUnavailable` when the proxy does not take the route over; the route file stays as it is."""
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(self._proxy_is_there)
        except RetryError as error:
            raise ServiceUnavailable(
                f"Envoy at {self._addresses.proxy} has not taken over the route of generation "
                f"{self._route().generation} within {ROUTE_TIMEOUT_S:g} s; start it with `make up`, the step is "
                "repeated by itself."
            ) from error

    def _proxy_is_there(self) -> bool:
        """Whether it follows the newest route: a newer wish may have written another one meanwhile."""
        try:
            answer = self._http.get(f"{self._addresses.proxy}/health")
        except httpx.HTTPError:
            return False
        return bool(answer.headers.get(envoy_routes.ROUTE_HEADER) == envoy_routes.label(self._route()))

    def _await_trust(self, wanted: Wanted, *colours: Colour) -> None:
        """A slot that Envoy has not yet probed as ready would send its first requests to its standby."""
        self._must_be_wanted(wanted)
        attempts = Retrying(
            stop=stop_after_delay(ROUTE_TIMEOUT_S), wait=wait_fixed(0.02), retry=retry_if_result(lambda seen: not seen)
        )
        try:
            attempts(lambda: all(map(self._proxy_trusts, colours)))
        except RetryError as error:
            raise ServiceUnavailable(
                f"Envoy at {self._addresses.proxy_admin} does not find slot {' and '.join(colours)} ready within "
                f"{ROUTE_TIMEOUT_S:g} s; look at `make status`, the step is repeated by itself."
            ) from error

    def _proxy_trusts(self, colour: Colour) -> bool:
        try:
            told = self._http.get(f"{self._addresses.proxy_admin}/clusters?format=json").json()
        except (httpx.HTTPError, ValueError):
            return False
        name = envoy_routes.cluster_name(Route(colour, other(colour)))
        hosts = [host for each in told["cluster_statuses"] if each["name"] == name for host in each["host_statuses"]]
        first = [host["health_status"] for host in hosts if host.get("priority", 0) == 0]
        return bool(first) and not any(status.get("failed_active_health_check", False) for status in first)

    def _restart(self, colour: Colour, wanted: Wanted | None = None) -> None:
        """Stops a slot under the lock: who was held up for a minute must not stop one that has gone live since.

        Only the signal is sent there, since a slot takes a second to end. Starting is harmless, whoever does it.
        """
        name = f"slot-{colour}"
        with self._manager(name) as manager:
            with self._fenced(wanted) as route:
                self._must_not_be_live(colour, route)
                with suppress(xmlrpc.client.Fault):  # not running is what we want
                    manager.supervisor.stopProcess(name, False)
            self._await_end(manager, name)
            try:
                manager.supervisor.startProcess(name, False)
            except xmlrpc.client.Fault as fault:  # brought back by the manager itself, since its file was written
                if fault.faultCode != ALREADY_STARTED:
                    raise

    @staticmethod
    def _await_end(manager: xmlrpc.client.ServerProxy, name: str) -> None:
        """Until the process has ended, or somebody else has started it anew."""

        def is_stopping() -> bool:
            return manager.supervisor.getProcessInfo(name)["statename"] == "STOPPING"  # type: ignore[index,call-overload]

        attempts = Retrying(stop=stop_after_delay(STOP_TIMEOUT_S), wait=wait_fixed(0.05), retry=retry_if_result(bool))
        try:
            attempts(is_stopping)
        except RetryError as error:
            raise ServiceUnavailable(
                f"{name} has not ended within {STOP_TIMEOUT_S:g} s; look at `make status`, the step is repeated."
            ) from error

    def _start(self, colour: Colour) -> None:
        with self._manager(f"slot-{colour}") as manager, suppress(xmlrpc.client.Fault):  # running already
            manager.supervisor.startProcess(f"slot-{colour}", False)

    @contextmanager
    def _manager(self, program: str) -> Iterator[xmlrpc.client.ServerProxy]:
        try:
            with xmlrpc.client.ServerProxy(self._addresses.supervisor) as manager:
                yield manager
        except (OSError, xmlrpc.client.Error) as error:
            raise ServiceUnavailable(
                f"The process manager did not start {program} ({type(error).__name__}); start it with `make up`."
            ) from error

    # --- asking the slots -----------------------------------------------------------------------------------------

    def counted(self, colour: Colour) -> Counted | None:
        """What a slot has answered so far with the version it was given; None when it cannot be asked."""
        staged = self._staged(colour)
        try:
            text = self._http.get(f"{self._addresses.slots[colour]}/metrics").raise_for_status().text
        except httpx.HTTPError:
            return None
        return slot_counters.counted(text, staged.version) if staged else None

    def recent(self, colour: Colour, question: RecentQuestion) -> RecentAnswers | None:
        """What a slot answered last, as include.serving.log.recent_answers tells it; None when it cannot be asked.

        Raises `AccessRefused` when the slot knows another serving token, or none.
        """
        return slot_client.recent(self._http, self._addresses.slots[colour], colour, question)

    def ask(self, colour: Colour | None, rows: list[dict[str, Any]]) -> httpx.Response:
        """Predictions for `rows`, from one slot, or from the proxy when `colour` is None.

        Of a slot nobody but us asks, so its answer is marked as a copy's and stands in no prediction log.
        """
        base = self._addresses.slots[colour] if colour else self._addresses.proxy
        return slot_client.ask(self._http, base, rows, as_client=colour is None)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordDamaged(
            f"{path} cannot be read ({type(error).__name__}), so nothing is moved; `make reconcile` writes it anew."
        ) from error
