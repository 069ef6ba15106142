"""Looks at route, slots, release request, ledger and registry at once, and mends what core.reconcile finds.

After every round of mending it looks again, since one thing put right may show another; what is found a second time
was not put right, and is told as that. Whatever was found is entered in the ledger and told to people. A registry that
is away is compared at the next run, and is no reason to fail: the traffic does not depend on it.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from include.alerting.outbox import Outbox, record
from include.kernel.errors import Conflict, EvergreenError, NotBlessed, ServiceUnavailable
from include.kernel.ledger import Entry, build_live_key
from include.kernel.ledger_file import LocalLedger
from include.kernel.words import ledger_kinds as kinds
from include.kernel.words.colours import COLOURS
from include.registry.base import ReleaseMarks
from include.release.core.reconcile import (
    SAFE_STEPS,
    Finding,
    ReconcileTimeouts,
    RegistryStatus,
    RepairAction,
    SystemView,
    TargetState,
    classify_state,
    find_route_to_restore,
    list_findings,
)
from include.release.core.rollout import DesiredState, Release
from include.release.service.driver import ReleaseDriver
from include.release.targets.base import RepairableTarget

log = logging.getLogger(__name__)
ROUNDS = 5
RESUME_S = 60.0  # how long one run goes on with a release that was left alone


@dataclass
class Outcome:
    """What one run came to: the state it ended in, what it put right, and what it could not."""

    state: TargetState
    repaired: list[str] = field(default_factory=list)
    unresolved: list[str] = field(default_factory=list)
    has_compared_registry: bool = True  # False: the registry was away

    @property
    def sentence(self) -> str:
        away = "" if self.has_compared_registry else "; the registry is away and was not compared"
        if not self.repaired and not self.unresolved:
            return f"{self.state.value}: nothing disagrees{away}"
        return f"{self.state.value}: {len(self.repaired)} healed, {len(self.unresolved)} for a person{away}"


class Reconciler:
    """`rollout` makes the driver that goes on with a release nobody follows."""

    def __init__(
        self,
        target: RepairableTarget,
        registry: ReleaseMarks,
        ledger: LocalLedger,
        outbox: Outbox,
        timeouts: ReconcileTimeouts,
        open_driver: Callable[[], ReleaseDriver],
    ) -> None:
        self._target = target
        self._registry = registry
        self._ledger = ledger
        self._outbox = outbox
        self._open_driver = open_driver
        self._timeouts = timeouts
        self._repairs: dict[RepairAction, Callable[[Finding, SystemView], None]] = {
            RepairAction.RESTORE_DESIRED_STATE: lambda finding, sight: target.restore_desired_state(sight.observed),
            RepairAction.RESTORE_ROUTE: self._restore_route,
            RepairAction.RESTORE_SLOT: self._restore_slot,
            RepairAction.START_PROXY: lambda finding, sight: target.start_proxy(),
            RepairAction.APPLY_ROUTE: lambda finding, sight: target.apply_route(),
            RepairAction.START_SLOT: lambda finding, sight: target.start_slot(_get_slot(finding)),
            RepairAction.RELOAD_SLOT: lambda finding, sight: target.reload(_get_slot(finding)),
            RepairAction.WITHDRAW: lambda finding, sight: target.withdraw(_get_desired_state(sight)),
            RepairAction.RESUME: self._resume,
            RepairAction.ENTER_LIVE: self._enter_live,
            RepairAction.MOVE_ALIAS: lambda finding, sight: registry.promote(_get_live_release(sight).version),
            RepairAction.UNMARK: self._clear_soaking_marks,
        }

    def run(self, who: str) -> Outcome:
        """Raises nothing for what it finds; only where the records themselves cannot be reached."""
        attempts: dict[str, tuple[Finding, str | None]] = {}
        for _ in range(ROUNDS):
            view = self.observe()
            findings = list_findings(view, self._timeouts)
            fresh = [problem for problem in findings if problem.repair and problem.sentence not in attempts]
            if not fresh:
                break
            for finding in fresh:
                attempts[finding.sentence] = (finding, self._try_repair(finding, view))
        outcome = Outcome(classify_state(view, self._timeouts), has_compared_registry=view.registry is not None)
        self._record_findings(outcome, findings, attempts, who)
        return outcome

    def _record_findings(
        self, outcome: Outcome, unrepaired: list[Finding], attempts: dict[str, tuple[Finding, str | None]], who: str
    ) -> None:
        """What the last look still finds was not healed, whatever was done about it."""
        remaining = {finding.sentence for finding in unrepaired}
        for sentence, (finding, _) in attempts.items():
            if sentence not in remaining:
                self._record_finding(kinds.RECONCILE_HEALED, finding.about, sentence, who, outcome.repaired)
        for finding in unrepaired:
            _, why = attempts.get(finding.sentence, (finding, None))
            failed = f" That did not put it right{f': {why}' if why else '.'}" if finding.sentence in attempts else ""
            self._record_finding(
                kinds.RECONCILE_FOUND, finding.about, finding.sentence + failed, who, outcome.unresolved
            )

    def observe(self) -> SystemView:
        observed, desired, evidence, damaged = self._target.read_records()
        effective_route, is_in_sync = self._target.read_effective_route()
        return SystemView(
            observed=observed,
            slot_reports={colour: self._target.read_slot_report(colour) for colour in COLOURS},
            desired=desired,
            evidence=evidence,
            effective_route=effective_route,
            is_in_sync=is_in_sync,
            ledger_release=self._find_live_release(),
            idle_s=self._target.measure_idle_s(desired.generation) if desired else 0.0,
            registry=self._read_registry(),
            damaged=damaged,
        )

    def _find_live_release(self) -> Release | None:
        newest = next(iter(reversed(list(self._ledger.read_entries(kinds.RELEASE_LIVE)))), None)
        return Release(newest.subject, str(newest.details.get("digest"))) if newest else None

    def _read_registry(self) -> RegistryStatus | None:
        try:
            return RegistryStatus(self._registry.find_champion(), tuple(self._registry.list_soaking()))
        except ServiceUnavailable as error:
            log.warning("The registry was not compared: %s", error)
            return None

    def _try_repair(self, finding: Finding, view: SystemView) -> str | None:
        """Why it did not succeed, where that is known at once."""
        log.warning("%s", finding.sentence)
        try:
            self._repairs[finding.repair](finding, view)  # type: ignore[index]
        except EvergreenError as error:
            log.warning("%s", error)
            return str(error)
        return None

    def _record_finding(self, kind: str, about: str, sentence: str, who: str, sentences: list[str]) -> None:
        """What was healed is told each time, what a person has to do once a day."""
        sentences.append(sentence)
        daily_key = f"{kind}-{datetime.now(UTC).date()}-{hashlib.sha256(sentence.encode()).hexdigest()[:16]}"
        key = daily_key if kind == kinds.RECONCILE_FOUND else None
        record(self._ledger, self._outbox, Entry(what=kind, subject=about, who=who, why=sentence, key=key))

    # --- what puts things right -------------------------------------------------------------------------------------

    def _restore_route(self, finding: Finding, view: SystemView) -> None:
        generation = view.desired.generation if view.desired else 0
        if route := find_route_to_restore(view, generation):
            self._target.restore_route(route)

    def _restore_slot(self, finding: Finding, view: SystemView) -> None:
        colour = _get_slot(finding)
        if colour != view.observed.route.live:
            return self._target.restore_slot(colour, None, None, view.observed)
        return self._target.restore_slot(
            colour, view.ledger_release, self._find_envelope(view.ledger_release), view.observed
        )

    def _resume(self, finding: Finding, view: SystemView) -> None:
        """Goes on as the run would have that was left, but moves no traffic on to a new release."""
        driver, generation = self._open_driver(), _get_desired_state(view).generation
        for step, _ in driver.run(generation, max_wait_s=RESUME_S):
            log.info("%s", step.value)
            if step.is_terminal or self.observe().step not in SAFE_STEPS:
                return

    def _enter_live(self, finding: Finding, view: SystemView) -> None:
        """As go_live would have, and by the same key, so that it is entered once even if that run comes after all."""
        live, desired, route = _get_live_release(view), view.desired, view.observed.route
        generation = desired.generation if desired and desired.release == live else route.generation
        details: dict[str, Any] = {"generation": route.trial or generation, "digest": live.digest}
        details["blessing"] = self._read_live_envelope(view) or self._find_envelope(live)
        kind, why = kinds.RELEASE_LIVE, finding.sentence
        entry = Entry(what=kind, subject=live.version, who="reconcile", why=why, details=details)
        self._ledger.append(entry.model_copy(update={"key": build_live_key(details)}))

    def _clear_soaking_marks(self, finding: Finding, view: SystemView) -> None:
        if view.registry:
            self._registry.unmark_soaking(view.registry.soaking)

    def _read_live_envelope(self, view: SystemView) -> str | None:
        return self._target.read_envelope(view.observed.route.live) if view.observed.route.live else None

    def _find_envelope(self, release: Release | None) -> str | None:
        """The signed blessing by which a release went live, else the registry's; None where neither has one."""
        if release is None:
            return None
        entries = [
            details.details
            for details in self._ledger.read_entries(kinds.RELEASE_LIVE)
            if details.subject == release.version
        ]
        if blessing := next((details["blessing"] for details in reversed(entries) if details.get("blessing")), None):
            return str(blessing)
        try:
            return self._registry.fetch_blessing(release.version)
        except (ServiceUnavailable, NotBlessed):
            return None


def _get_slot(finding: Finding) -> Any:
    return finding.slot


def _get_desired_state(view: SystemView) -> DesiredState:
    if view.desired is None:
        raise Conflict("Nothing is wanted any more; look again.")
    return view.desired


def _get_live_release(view: SystemView) -> Release:
    if view.live is None:
        raise Conflict("Nothing serves any more; look again.")
    return view.live
