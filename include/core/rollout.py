"""The release machine: one pure function decides the next step of a blue-green rollout.

Nothing here remembers a phase. Each call looks at what is *wanted*, what was *observed* on the target and which
*verdicts* stand beside it, and names one idempotent step. A task that was killed between any two lines simply calls
again. The same function drives `deploy` and `rollback`; a rollback is nothing but a newer wish.

The trade-off: every step pays for one more observation. In return there is no state to repair after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Colour = Literal["blue", "green"]
COLOURS: tuple[Colour, Colour] = ("blue", "green")


class Step(StrEnum):
    """What to do next; the last three end a run."""

    STAGE = "stage"  # put the wanted release into the idle slot
    AWAIT = "await"  # wait until that slot reports ready
    VERIFY = "verify"  # smoke requests and golden rows against the idle slot
    SWITCH = "switch"  # route all traffic to it
    SOAK = "soak"  # watch it under real traffic
    RETIRE = "retire"  # keep the previous release as the warm standby
    REVERT = "revert"  # the soak failed: route back to the previous release
    DISCARD = "discard"  # empty the slot of a release that was turned down
    DONE = "done"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"

    @property
    def is_terminal(self) -> bool:
        return self in (Step.DONE, Step.REJECTED, Step.SUPERSEDED)


class Verdict(StrEnum):
    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True)
class Release:
    """One model version as the target runs it: the registry's version and the digest of its artifact (sha256, hex)."""

    version: str
    digest: str


@dataclass(frozen=True)
class Wanted:
    """The one stored desire of a target. `generation` grows by one with every wish and fences all writes."""

    release: Release
    generation: int
    by: str
    why: str
    kind: Literal["deploy", "rollback"] = "deploy"
    blessing: str | None = None  # sha256 of the signed document that allows it; the slot repeats it


@dataclass(frozen=True)
class Route:
    """Where traffic goes: the live slot, and the slot that takes over when it dies (none while a release is staged)."""

    live: Colour | None = None
    standby: Colour | None = None
    generation: int = 0


@dataclass(frozen=True)
class Slot:
    """What one slot holds and whether it answers ready for exactly that release."""

    release: Release | None = None
    ready: bool = False


@dataclass(frozen=True)
class Observed:
    """The target as it was just seen."""

    route: Route
    blue: Slot
    green: Slot

    def slot(self, colour: Colour) -> Slot:
        return self.blue if colour == "blue" else self.green

    @property
    def idle(self) -> Colour:
        """The colour a new release goes into: the one that carries no live traffic."""
        return other(self.route.live) if self.route.live else "blue"

    @property
    def live(self) -> Slot:
        return self.slot(self.route.live) if self.route.live else Slot()


@dataclass(frozen=True)
class Evidence:
    """The verdicts of one generation. `accepted` covers readiness and verification, `soaked` the time after."""

    accepted: Verdict = Verdict.PENDING
    soaked: Verdict = Verdict.PENDING


def other(colour: Colour) -> Colour:
    return "green" if colour == "blue" else "blue"


def next_step(wanted: Wanted, generation: int, observed: Observed, evidence: Evidence) -> Step:
    """The next step of the run that was started for `generation`.

    Read top-down: a newer wish ends this run; a release that serves is soaked; one that was turned down is cleared
    away; any other is staged, awaited, verified and switched to.
    """
    if wanted.generation != generation:
        return Step.SUPERSEDED
    if observed.live.release == wanted.release:
        return _after_switch(wanted, observed, evidence)
    if Verdict.FAILED in (evidence.accepted, evidence.soaked):
        return _clear_away(wanted, observed)
    return _before_switch(wanted, observed, evidence)


def _before_switch(wanted: Wanted, observed: Observed, evidence: Evidence) -> Step:
    slot = observed.slot(observed.idle)
    if slot.release != wanted.release:
        return Step.STAGE
    if not slot.ready:
        return Step.AWAIT
    return Step.SWITCH if evidence.accepted is Verdict.PASSED else Step.VERIFY


def _after_switch(wanted: Wanted, observed: Observed, evidence: Evidence) -> Step:
    predecessor = _has_predecessor(wanted, observed, evidence)
    if evidence.soaked is Verdict.FAILED and predecessor:
        return Step.REVERT
    if wanted.kind == "rollback":
        return Step.DONE  # what was rolled back from is no standby
    if evidence.soaked is Verdict.PENDING:
        return Step.SOAK
    if predecessor and observed.route.standby is None:
        return Step.RETIRE
    return Step.DONE


def _has_predecessor(wanted: Wanted, observed: Observed, evidence: Evidence) -> bool:
    """Whether the idle slot can take the traffic back: it is ready, and this run itself took the traffic from it.

    A run whose wish was already served when it came never accepted anything, and finds in the idle slot whatever an
    older run left behind, perhaps a release that was turned down: nobody vouches for it.
    """
    previous = observed.slot(observed.idle)
    return evidence.accepted is Verdict.PASSED and previous.ready and previous.release not in (None, wanted.release)


def _clear_away(wanted: Wanted, observed: Observed) -> Step:
    return Step.DISCARD if observed.slot(observed.idle).release == wanted.release else Step.REJECTED
