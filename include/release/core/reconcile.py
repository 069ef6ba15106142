"""Do registry, ledger and world say the same? A pure function from one look at all of them to a list of findings.

The release machine keeps what it steers in order by itself, as long as somebody runs it. This is for what is outside of
it: a task that was killed between the route and the alias, a registry that was away, a file edited by hand, a process
that holds something else than its file names. The world decides, not the registry: what serves was verified, judged and
soaked, so the alias follows the traffic and never the other way round.

While a release is under way its own run puts things right, and two hands would only meet: nothing is found then, but
the state is named. A release that nobody has looked at for long counts as left alone. What is safe is finished for it
(a soak, a way back, a share of the requests taken away); what would move traffic on to it is only named.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from include.kernel.words.colours import COLOURS, Colour
from include.release.core.rollout import DesiredState, Evidence, ObservedStatus, Release, Route, Step, decide_next_step


class TargetState(StrEnum):
    """What people call the moment a target is in."""

    EMPTY = "empty"  # nothing was ever wanted
    RELEASING = "releasing"
    ASKING = "asking"  # a person, before the switch
    SOAKING = "soaking"  # it serves, and is not the champion yet
    SETTLING = "settling"  # ended a moment ago; the alias is about to follow
    ABANDONED = "abandoned"  # not ended, and nobody looks
    SETTLED = "settled"


class RepairAction(StrEnum):
    """What puts a finding right."""

    RESTORE_DESIRED_STATE = "restore_wish"
    RESTORE_ROUTE = "restore_route"
    RESTORE_SLOT = "restore_slot"
    START_PROXY = "start_proxy"
    APPLY_ROUTE = "apply_route"
    START_SLOT = "start_slot"
    RELOAD_SLOT = "reload_slot"
    WITHDRAW = "withdraw"
    RESUME = "resume"
    ENTER_LIVE = "enter_live"
    MOVE_ALIAS = "move_alias"
    UNMARK = "unmark"


@dataclass(frozen=True)
class SlotReport:
    """What a slot's process says of itself: `state` is loaded, empty or broken; `release` is what its file named."""

    state: str
    release: Release | None
    why: str = ""


@dataclass(frozen=True)
class RegistryStatus:
    """What the registry says: the champion's version, and the versions marked as soaking."""

    champion: str | None
    soaking: tuple[str, ...] = ()


@dataclass(frozen=True)
class SystemView:
    """One look. `damaged` names the records that cannot be read: wanted, route, blue, green.

    `effective_route` is the route that the proxy's answers carry, if it leads to a slot; `is_in_sync` is whether it is
    that of the file, and None when the proxy does not answer. `served` is the ledger's newest live release. `idle_s`
    are the seconds since a run last wrote anything. `registry` is None while it is away.
    """

    observed: ObservedStatus
    slot_reports: Mapping[Colour, SlotReport | None]
    desired: DesiredState | None
    evidence: Evidence
    effective_route: Route | None
    is_in_sync: bool | None
    ledger_release: Release | None
    idle_s: float
    registry: RegistryStatus | None
    damaged: frozenset[str] = frozenset()

    @property
    def live(self) -> Release | None:
        return self.observed.live.release

    @property
    def step(self) -> Step:
        """What a run of the present request would do next."""
        if self.desired is None:
            return Step.DONE
        return decide_next_step(self.desired, self.desired.generation, self.observed, self.evidence)


@dataclass(frozen=True)
class ReconcileTimeouts:
    """Seconds without a look until what ended is settled, what did not is abandoned, and a question is given up."""

    settle_s: float
    abandoned_s: float
    approval_s: float


@dataclass(frozen=True)
class Finding:
    """`about` is the thing in a few words; without `repair` a person has to act, and the sentence says how."""

    about: str
    sentence: str
    repair: RepairAction | None = None
    slot: Colour | None = None


SAFE_STEPS = (Step.SOAK, Step.RECOVER, Step.REVERT, Step.WITHDRAW, Step.DISCARD)


def classify_state(view: SystemView, timeouts: ReconcileTimeouts) -> TargetState:
    if view.desired is None:
        return TargetState.EMPTY if view.live is None else TargetState.SETTLED
    if view.step in (Step.DONE, Step.REJECTED):
        return TargetState.SETTLING if view.idle_s < timeouts.settle_s else TargetState.SETTLED
    if view.step is Step.APPROVE:
        return TargetState.ASKING if view.idle_s < timeouts.approval_s else TargetState.ABANDONED
    if view.idle_s > timeouts.abandoned_s:
        return TargetState.ABANDONED
    return (
        TargetState.SOAKING if view.step is Step.SOAK and view.live == view.desired.release else TargetState.RELEASING
    )


def list_findings(view: SystemView, timeouts: ReconcileTimeouts) -> list[Finding]:
    """What disagrees, the records first: as long as one of them cannot be read, nothing else can be judged."""
    if broken := list(_check_records(view)):
        return broken
    target_state = classify_state(view, timeouts)
    if target_state is TargetState.EMPTY or target_state in (
        TargetState.RELEASING,
        TargetState.ASKING,
        TargetState.SOAKING,
        TargetState.SETTLING,
    ):
        return []
    running = [*_check_proxy(view), *(finding for colour in COLOURS for finding in _check_slot(view, colour))]
    return running + (
        _check_abandoned(view)
        if target_state is TargetState.ABANDONED
        else [*_check_ledger(view), *_check_registry(view)]
    )


def find_route_to_restore(view: SystemView, generation: int) -> Route | None:
    """What the proxy still follows; else the slot that holds what went live last. None: nobody can know."""
    if view.effective_route and view.effective_route.live:
        return view.effective_route
    holders = [
        colour
        for colour in COLOURS
        if view.ledger_release and view.observed.get_slot(colour).release == view.ledger_release
    ]
    return Route(holders[0], generation=generation) if holders else None


def _check_records(view: SystemView) -> Iterator[Finding]:
    if "route" in view.damaged or (view.observed.route.live is None and _must_be_routed(view)):
        yield _describe_lost_route(view)
        return
    for colour in COLOURS:
        if colour in view.damaged or (colour == view.observed.route.live and view.live is None):
            yield _describe_lost_slot(view, colour)
        elif colour == view.observed.route.live and _is_edited(view, colour):
            sentence = (
                f"Slot {colour} serves {_describe_release(view.ledger_release)}, and its record was changed to name "
            )
            sentence += f"{_describe_release(view.live)}, which never went live; it is written anew."
            yield Finding(f"slot {colour}", sentence, RepairAction.RESTORE_SLOT, colour)
    if "wanted" in view.damaged or (view.desired is None and view.live):
        yield Finding(
            "the record of what is wanted",
            "The record of what is wanted is lost or cannot be read; it is written anew, wanting what serves.",
            RepairAction.RESTORE_DESIRED_STATE if view.live else None,
        )


def _is_edited(view: SystemView, colour: Colour) -> bool:
    """No release writes the file of the live slot: what runs there and went live is right, and the file is not."""
    report = view.slot_reports[colour]
    return view.live != view.ledger_release and report is not None and report.release == view.ledger_release is not None


def _must_be_routed(view: SystemView) -> bool:
    """A target that served once always serves something, unless its first release is still under way."""
    return view.ledger_release is not None and any(
        view.observed.get_slot(colour).release == view.ledger_release for colour in COLOURS
    )


def _describe_lost_route(view: SystemView) -> Finding:
    if find_route_to_restore(view, 0):
        return Finding(
            "the route",
            "The record of the route is lost or cannot be read; it is written anew.",
            RepairAction.RESTORE_ROUTE,
        )
    return Finding(
        "the route",
        "The record of the route is lost or cannot be read, and neither the proxy nor the ledger tells what it said; "
        "name the version that shall serve in the form of deploy.",
    )


def _describe_lost_slot(view: SystemView, colour: Colour) -> Finding:
    report, is_live = view.slot_reports[colour], colour == view.observed.route.live
    if not is_live:
        sentence = (
            f"The record of slot {colour} cannot be read; the slot is emptied, and the next release stages into it."
        )
        return Finding(f"slot {colour}", sentence, RepairAction.RESTORE_SLOT, colour)
    if view.ledger_release and (report is None or report.release in (None, view.ledger_release)):
        sentence = (
            f"The record of slot {colour}, which is live, is lost or cannot be read; it names "
            f"{_describe_release(view.ledger_release)}."
        )
        return Finding(f"slot {colour}", sentence, RepairAction.RESTORE_SLOT, colour)
    return Finding(
        f"slot {colour}",
        f"The record of slot {colour}, which is live, is lost, and the ledger does not know what the slot holds; "
        "deploy a version by the form, or roll back.",
    )


def _check_proxy(view: SystemView) -> Iterator[Finding]:
    if view.is_in_sync is None:
        yield Finding("the proxy", "The proxy does not answer; it is started.", RepairAction.START_PROXY)
    elif not view.is_in_sync:
        yield Finding(
            "the route",
            "The proxy does not follow the record of the route; it is given it again.",
            RepairAction.APPLY_ROUTE,
        )


def _check_slot(view: SystemView, colour: Colour) -> Iterator[Finding]:
    slot, report = view.observed.get_slot(colour), view.slot_reports[colour]
    if slot.release is None and (report is None or report.release is None):
        return
    name = f"slot {colour}"
    if report is None:
        yield Finding(name, f"The process of {name} does not answer; it is started.", RepairAction.START_SLOT, colour)
    elif report.release != slot.release:
        sentence = (
            f"Slot {colour} holds {_describe_release(report.release)}, and its record names "
            f"{_describe_release(slot.release)}; it reads it again."
        )
        yield Finding(name, sentence, RepairAction.RELOAD_SLOT, colour)
    elif not slot.ready:
        sentence = (
            f"Slot {colour} cannot serve {_describe_release(slot.release)}: "
            f"{report.why.rstrip('.') or 'it does not say why'}."
        )
        yield Finding(name, f"{sentence} Roll back, or deploy a version again.")


def _check_abandoned(view: SystemView) -> list[Finding]:
    desired, minutes = view.desired, view.idle_s / 60
    assert desired is not None  # nothing wanted is never abandoned
    about = f"the {desired.kind} of version {desired.release.version}"
    sentence_start = f"{about.capitalize()} has stood at {view.step.value} for {minutes:.0f} minutes"
    if view.step in SAFE_STEPS:
        return [Finding(about, f"{sentence_start} and nobody looks; it is gone on with.", RepairAction.RESUME)]
    if view.observed.route.is_split:
        sentence = f"{sentence_start} and nobody looks; its share of the requests is taken back."
        return [Finding(about, sentence, RepairAction.WITHDRAW)]
    return [
        Finding(about, f"{sentence_start} and nobody looks; trigger {desired.kind} with the version again, or another.")
    ]


def _check_ledger(view: SystemView) -> Iterator[Finding]:
    if view.live and view.live != view.ledger_release:
        entered = f"tells of {_describe_release(view.ledger_release)}" if view.ledger_release else "does not tell"
        sentence = f"{_describe_release(view.live).capitalize()} serves, and the ledger {entered}; it is entered."
        yield Finding("the ledger", sentence, RepairAction.ENTER_LIVE)


def _check_registry(view: SystemView) -> Iterator[Finding]:
    if view.registry is None or view.live is None:
        return
    if view.registry.champion != view.live.version:
        champion = f"version {view.registry.champion}" if view.registry.champion else "no version"
        sentence = (
            f"{_describe_release(view.live).capitalize()} serves, and the champion is {champion}; the "
            "alias follows the traffic."
        )
        yield Finding("the champion alias", sentence, RepairAction.MOVE_ALIAS)
    elif view.registry.soaking:
        versions = ", ".join(view.registry.soaking)
        yield Finding(
            "the registry's marks", f"No release is soaking, and version {versions} is marked so.", RepairAction.UNMARK
        )


def _describe_release(release: Release | None) -> str:
    return f"version {release.version}" if release else "nothing"
