"""The release machine: one pure function decides the next step of a blue-green or canary rollout.

Nothing here remembers a phase. Each call looks at what is *wanted*, what was *observed* on the target and which
*verdicts* stand beside it, and names one idempotent step. A task that was killed between any two lines simply calls
again. The same function drives `deploy` and `rollback`; a rollback is nothing but a newer request.

The trade-off: every step pays for one more observation. In return there is no state to repair after a crash.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from include.kernel.words.colours import Colour, other
from include.kernel.words.verdicts import Verdict


class Step(StrEnum):
    """What to do next; the last three end a run."""

    STAGE = "stage"  # put the wanted release into the idle slot
    AWAIT = "await"  # wait until that slot reports ready
    VERIFY = "verify"  # smoke requests and golden rows against the idle slot
    SHADOW = "shadow"  # mirror live requests to it and compare its answers, which nobody gets
    CANARY = "canary"  # give it the next share of the live requests and compare
    EXPERIMENT = "experiment"  # deal the callers to both by their key, and compare what became of them
    APPROVE = "approve"  # nothing but a person's yes is missing
    SWITCH = "switch"  # route all traffic to it; the previous release stays warm as the standby
    SOAK = "soak"  # watch what is live under real traffic
    RECOVER = "recover"  # the soak failed and the standby is not ready: bring it back
    REVERT = "revert"  # the soak failed: route back to the standby
    WITHDRAW = "withdraw"  # end a share or a mirror that no run vouches for any more
    DISCARD = "discard"  # empty the slot of a release that was turned down
    DONE = "done"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"

    @property
    def is_terminal(self) -> bool:
        return self in (Step.DONE, Step.REJECTED, Step.SUPERSEDED)

    @property
    def is_polled(self) -> bool:
        """Whether it is done by looking again and again, and so need not keep a worker busy."""
        return self in (Step.AWAIT, Step.SHADOW, Step.CANARY, Step.EXPERIMENT, Step.SOAK, Step.RECOVER)


@dataclass(frozen=True)
class Release:
    """One model version as the target runs it: the registry's version and the digest of its artifact (sha256, hex)."""

    version: str
    digest: str


@dataclass(frozen=True)
class ReleasePlan:
    """What a release goes through between its verification and the switch; nothing of it is blue-green."""

    shadow: bool = False
    weights: tuple[int, ...] = ()  # per cent of the live requests, rising
    approval: bool = False  # a person's yes, asked for last
    experiment: int = 0  # per cent of the callers that it answers until their outcomes have decided; 0: no experiment

    @property
    def uses_live_requests(self) -> bool:
        return self.shadow or bool(self.weights) or self.experiment > 0


BLUE_GREEN = ReleasePlan()


@dataclass(frozen=True)
class DesiredState:
    """The one stored desire of a target. `generation` grows by one with every request and fences all writes."""

    release: Release
    generation: int
    by: str
    why: str
    kind: Literal["deploy", "rollback"] = "deploy"
    blessing: str | None = None  # sha256 of the signed document that allows it; the slot repeats it
    plan: ReleasePlan = BLUE_GREEN


@dataclass(frozen=True)
class Route:
    """Where traffic goes: the live slot, and the standby, which takes over when it dies (none while one is staged).

    The standby holds what served before the last switch, untouched since. `trial` is the generation whose switch made
    the live slot live, and whose soak vouches for it; 0 when it needs none: it served before.
    """

    live: Colour | None = None
    standby: Colour | None = None
    generation: int = 0
    share: int = 0  # per cent of the requests that go to the idle slot
    mirror: bool = False  # whether the idle slot sees copies of the requests
    trial: int = 0
    sticky: bool = False  # whether the share is dealt by the caller's key, and no caller changes sides

    @property
    def is_split(self) -> bool:
        return self.share > 0 or self.mirror


@dataclass(frozen=True)
class Slot:
    """What one slot holds and whether it answers ready for exactly that release."""

    release: Release | None = None
    ready: bool = False


@dataclass(frozen=True)
class ObservedStatus:
    """The target as it was just seen."""

    route: Route
    blue: Slot
    green: Slot

    def get_slot(self, colour: Colour) -> Slot:
        return self.blue if colour == "blue" else self.green

    @property
    def idle(self) -> Colour:
        """The colour a new release goes into: the one that is not live."""
        return other(self.route.live) if self.route.live else "blue"

    @property
    def live(self) -> Slot:
        return self.get_slot(self.route.live) if self.route.live else Slot()


@dataclass(frozen=True)
class Evidence:
    """The verdicts of one generation, and, of the generation whose switch made live what is live, its `trial`.

    `accepted` covers readiness and verification, `canary` has one verdict for each weight that has been decided,
    `experiment` is what the outcomes say, `approved` is a person's answer, or what the manifest makes of silence.
    """

    accepted: Verdict = Verdict.PENDING
    shadowed: Verdict = Verdict.PENDING
    canary: tuple[Verdict, ...] = ()
    experiment: Verdict = Verdict.PENDING
    approved: Verdict = Verdict.PENDING
    soaked: Verdict = Verdict.PENDING
    trial: Verdict = Verdict.PASSED
    recovered: Verdict = Verdict.PENDING  # FAILED: the standby of a failed trial did not come back

    @property
    def is_turned_down(self) -> bool:
        verdicts = self.accepted, self.shadowed, *self.canary, self.experiment, self.approved, self.soaked
        return Verdict.FAILED in verdicts


def decide_next_step(desired: DesiredState, generation: int, observed: ObservedStatus, evidence: Evidence) -> Step:
    """The next step of the run that was started for `generation`.

    Read top-down: a newer request ends this run; traffic that nobody vouches for ends; a deployment lets what is live
    finish its trial, whoever began it, so that there is always a release to go back to; a release that serves is done;
    one that was turned down is cleared away; any other goes its way to the switch. A rollback waits for no trial.
    """
    if desired.generation != generation:
        return Step.SUPERSEDED
    if observed.route.is_split and not _is_split_expected(desired, observed, evidence):
        return Step.WITHDRAW
    if desired.kind == "deploy" and (step := _decide_trial_step(observed, evidence)):
        return step
    if observed.live.release == desired.release:
        return Step.DONE
    if evidence.is_turned_down:
        return _decide_cleanup_step(desired, observed)
    return _decide_step_before_switch(desired, observed, evidence)


def _is_split_expected(desired: DesiredState, observed: ObservedStatus, evidence: Evidence) -> bool:
    """Whether a share or a mirror belongs to this run: it verified what the idle slot holds, and has not ended it."""
    is_staged = observed.get_slot(observed.idle).release == desired.release != observed.live.release
    return (
        is_staged
        and evidence.accepted is Verdict.PASSED
        and not evidence.is_turned_down
        and desired.plan.uses_live_requests
    )


def _decide_trial_step(observed: ObservedStatus, evidence: Evidence) -> Step | None:
    """What the live release still owes. One that failed with nothing to go back to goes on serving."""
    if evidence.trial is Verdict.PENDING and observed.route.live:
        return Step.SOAK
    if evidence.trial is not Verdict.FAILED or observed.route.standby is None:
        return None
    if observed.get_slot(observed.route.standby).ready:
        return Step.REVERT
    return Step.RECOVER if evidence.recovered is Verdict.PENDING else None


def _decide_cleanup_step(desired: DesiredState, observed: ObservedStatus) -> Step:
    return Step.DISCARD if observed.get_slot(observed.idle).release == desired.release else Step.REJECTED


def _decide_step_before_switch(desired: DesiredState, observed: ObservedStatus, evidence: Evidence) -> Step:
    slot = observed.get_slot(observed.idle)
    if slot.release != desired.release:
        return Step.STAGE
    if not slot.ready and not observed.route.is_split:
        return Step.AWAIT
    if evidence.accepted is not Verdict.PASSED:
        return Step.VERIFY
    if step := _decide_comparison_step(desired.plan, observed, evidence):
        return step
    if desired.plan.approval and evidence.approved is Verdict.PENDING:
        return Step.APPROVE
    return Step.SWITCH if slot.ready else Step.AWAIT


def _decide_comparison_step(plan: ReleasePlan, observed: ObservedStatus, evidence: Evidence) -> Step | None:
    """All three need a live release to compare with. A candidate that dies in them is judged by them."""
    if observed.route.live is None:
        return None
    if plan.shadow and evidence.shadowed is Verdict.PENDING:
        return Step.SHADOW
    if len(evidence.canary) < len(plan.weights):
        return Step.CANARY
    return Step.EXPERIMENT if plan.experiment and evidence.experiment is Verdict.PENDING else None
