"""Looks at route, slots, wish, ledger and registry at once, and mends what core.reconcile finds.

After every round of mending it looks again, since one thing put right may show another; what is found a second time
was not put right, and is told as that. Whatever was found is entered in the ledger and told to people. A registry that
is away is compared at the next run, and is no reason to fail: the traffic does not depend on it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from include.alerting.outbox import Outbox, record
from include.kernel.errors import Conflict, EvergreenError, NotBlessed, ServiceUnavailable
from include.kernel.ledger import Entry, live_key
from include.kernel.ledger_file import LocalLedger
from include.kernel.words import ledger_kinds as kinds
from include.registry.base import ReleaseMarks
from include.release.core.reconcile import (
    SAFE,
    Finding,
    Heal,
    Patience,
    Registered,
    Sight,
    State,
    findings,
    route_to_restore,
    state,
)
from include.release.core.rollout import COLOURS, Release, Wanted
from include.release.service.driver import Rollout
from include.release.targets.base import RepairableTarget

log = logging.getLogger(__name__)
ROUNDS = 5
RESUME_S = 60.0  # how long one run goes on with a release that was left alone


@dataclass
class Outcome:
    """What one run came to: the state it ended in, what it put right, and what it could not."""

    state: State
    healed: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    compared: bool = True  # False: the registry was away

    @property
    def sentence(self) -> str:
        away = "" if self.compared else "; the registry is away and was not compared"
        if not self.healed and not self.found:
            return f"{self.state.value}: nothing disagrees{away}"
        return f"{self.state.value}: {len(self.healed)} healed, {len(self.found)} for a person{away}"


class Reconciler:
    """`rollout` makes the driver that goes on with a release nobody follows."""

    def __init__(
        self,
        target: RepairableTarget,
        registry: ReleaseMarks,
        ledger: LocalLedger,
        outbox: Outbox,
        patience: Patience,
        rollout: Callable[[], Rollout],
    ) -> None:
        self._target = target
        self._registry = registry
        self._ledger = ledger
        self._outbox = outbox
        self._rollout = rollout
        self._patience = patience
        self._heal: dict[Heal, Callable[[Finding, Sight], None]] = {
            Heal.RESTORE_WISH: lambda finding, sight: target.restore_wish(sight.observed),
            Heal.RESTORE_ROUTE: self._restore_route,
            Heal.RESTORE_SLOT: self._restore_slot,
            Heal.START_PROXY: lambda finding, sight: target.start_proxy(),
            Heal.APPLY_ROUTE: lambda finding, sight: target.apply_route(),
            Heal.START_SLOT: lambda finding, sight: target.start_slot(_slot(finding)),
            Heal.RELOAD_SLOT: lambda finding, sight: target.reload(_slot(finding)),
            Heal.WITHDRAW: lambda finding, sight: target.withdraw(_wanted(sight)),
            Heal.RESUME: self._resume,
            Heal.ENTER_LIVE: self._enter_live,
            Heal.MOVE_ALIAS: lambda finding, sight: registry.promote(_live(sight).version),
            Heal.UNMARK: self._unmark,
        }

    def run(self, who: str) -> Outcome:
        """Raises nothing for what it finds; only where the records themselves cannot be reached."""
        tried: dict[str, tuple[Finding, str | None]] = {}
        for _ in range(ROUNDS):
            sight = self.look()
            found = findings(sight, self._patience)
            fresh = [each for each in found if each.heal and each.sentence not in tried]
            if not fresh:
                break
            for finding in fresh:
                tried[finding.sentence] = (finding, self._try(finding, sight))
        outcome = Outcome(state(sight, self._patience), compared=sight.registry is not None)
        self._tell_all(outcome, found, tried, who)
        return outcome

    def _tell_all(
        self, outcome: Outcome, left: list[Finding], tried: dict[str, tuple[Finding, str | None]], who: str
    ) -> None:
        """What the last look still finds was not healed, whatever was done about it."""
        remaining = {finding.sentence for finding in left}
        for sentence, (finding, _) in tried.items():
            if sentence not in remaining:
                self._tell(kinds.RECONCILE_HEALED, finding.about, sentence, who, outcome.healed)
        for finding in left:
            _, why = tried.get(finding.sentence, (finding, None))
            failed = f" That did not put it right{f': {why}' if why else '.'}" if finding.sentence in tried else ""
            self._tell(kinds.RECONCILE_FOUND, finding.about, finding.sentence + failed, who, outcome.found)

    def look(self) -> Sight:
        observed, wanted, evidence, damaged = self._target.records()
        proxied, follows = self._target.proxied()
        return Sight(
            observed=observed,
            said={colour: self._target.said(colour) for colour in COLOURS},
            wanted=wanted,
            evidence=evidence,
            proxied=proxied,
            follows=follows,
            served=self._served(),
            quiet_s=self._target.quiet_s(wanted.generation) if wanted else 0.0,
            registry=self._registered(),
            damaged=damaged,
        )

    def _served(self) -> Release | None:
        newest = next(iter(reversed(list(self._ledger.entries(kinds.RELEASE_LIVE)))), None)
        return Release(newest.subject, str(newest.details.get("digest"))) if newest else None

    def _registered(self) -> Registered | None:
        try:
            return Registered(self._registry.champion(), tuple(self._registry.soaking()))
        except ServiceUnavailable as error:
            log.warning("The registry was not compared: %s", error)
            return None

    def _try(self, finding: Finding, sight: Sight) -> str | None:
        """Why it did not succeed, where that is known at once."""
        log.warning("%s", finding.sentence)
        try:
            self._heal[finding.heal](finding, sight)  # type: ignore[index]
        except EvergreenError as error:
            log.warning("%s", error)
            return str(error)
        return None

    def _tell(self, what: str, about: str, sentence: str, who: str, told: list[str]) -> None:
        """What was healed is told each time, what a person has to do once a day."""
        told.append(sentence)
        once = f"{what}-{datetime.now(UTC).date()}-{hashlib.sha256(sentence.encode()).hexdigest()[:16]}"
        key = once if what == kinds.RECONCILE_FOUND else None
        record(self._ledger, self._outbox, Entry(what=what, subject=about, who=who, why=sentence, key=key))

    # --- what puts things right -------------------------------------------------------------------------------------

    def _restore_route(self, finding: Finding, sight: Sight) -> None:
        generation = sight.wanted.generation if sight.wanted else 0
        if route := route_to_restore(sight, generation):
            self._target.restore_route(route)

    def _restore_slot(self, finding: Finding, sight: Sight) -> None:
        colour = _slot(finding)
        if colour != sight.observed.route.live:
            return self._target.restore_slot(colour, None, None, sight.observed)
        return self._target.restore_slot(colour, sight.served, self._envelope(sight.served), sight.observed)

    def _resume(self, finding: Finding, sight: Sight) -> None:
        """Goes on as the run would have that was left, but moves no traffic on to a new release."""
        driver, generation = self._rollout(), _wanted(sight).generation
        for step, _ in driver.run(generation, patience=RESUME_S):
            log.info("%s", step.value)
            if step.is_terminal or self.look().step not in SAFE:
                return

    def _enter_live(self, finding: Finding, sight: Sight) -> None:
        """As go_live would have, and by the same key, so that it is entered once even if that run comes after all."""
        live, wanted, route = _live(sight), sight.wanted, sight.observed.route
        own = wanted.generation if wanted and wanted.release == live else route.generation
        details: dict[str, Any] = {"generation": route.trial or own, "digest": live.digest}
        details["blessing"] = self._paper(sight) or self._envelope(live)
        what, why = kinds.RELEASE_LIVE, finding.sentence
        entry = Entry(what=what, subject=live.version, who="reconcile", why=why, details=details)
        self._ledger.append(entry.model_copy(update={"key": live_key(details)}))

    def _unmark(self, finding: Finding, sight: Sight) -> None:
        if sight.registry:
            self._registry.unmark(sight.registry.soaking)

    def _paper(self, sight: Sight) -> str | None:
        return self._target.paper(sight.observed.route.live) if sight.observed.route.live else None

    def _envelope(self, release: Release | None) -> str | None:
        """The signed blessing by which a release went live, else the registry's; None where neither has one."""
        if release is None:
            return None
        told = [each.details for each in self._ledger.entries(kinds.RELEASE_LIVE) if each.subject == release.version]
        if found := next((each["blessing"] for each in reversed(told) if each.get("blessing")), None):
            return str(found)
        try:
            return self._registry.blessing(release.version)
        except (ServiceUnavailable, NotBlessed):
            return None


def _slot(finding: Finding) -> Any:
    return finding.slot


def _wanted(sight: Sight) -> Wanted:
    if sight.wanted is None:
        raise Conflict("Nothing is wanted any more; look again.")
    return sight.wanted


def _live(sight: Sight) -> Release:
    if sight.live is None:
        raise Conflict("Nothing serves any more; look again.")
    return sight.live
