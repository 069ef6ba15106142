"""Do registry, ledger and world say the same? A pure function from one look at all of them to a list of findings.

The release machine keeps what it steers in order by itself, as long as somebody runs it. This is for what is outside of
it: a task that was killed between the route and the alias, a registry that was away, a file edited by hand, a process
that holds something else than its file names. The world decides, not the registry: what serves was verified, judged and
soaked, so the alias follows the traffic and never the other way round.

While a release is under way its own run puts things right, and two hands would only meet: nothing is found then, but
the state is named. A release that nobody has looked at for long counts as left alone. What is safe is finished for it
(a soak, a way back, a share of the requests taken away); what would move traffic on to it is only named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from include.release.core.rollout import COLOURS, Colour, Evidence, Observed, Release, Route, Step, Wanted, next_step


class State(StrEnum):
    """What people call the moment a target is in."""

    EMPTY = "empty"  # nothing was ever wanted
    RELEASING = "releasing"
    ASKING = "asking"  # a person, before the switch
    SOAKING = "soaking"  # it serves, and is not the champion yet
    SETTLING = "settling"  # ended a moment ago; the alias is about to follow
    ABANDONED = "abandoned"  # not ended, and nobody looks
    SETTLED = "settled"


class Heal(StrEnum):
    """What puts a finding right."""

    RESTORE_WISH = "restore_wish"
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
class Said:
    """What a slot's process says of itself: `state` is loaded, empty or broken; `release` is what its file named."""

    state: str
    release: Release | None
    why: str = ""


@dataclass(frozen=True)
class Registered:
    """What the registry says: the champion's version, and the versions marked as soaking."""

    champion: str | None
    soaking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sight:
    """One look. `damaged` names the records that cannot be read: wanted, route, blue, green.

    `proxied` is the route that the proxy's answers carry, if it leads to a slot; `follows` is whether it is that of the
    file, and None when the proxy does not answer. `served` is the ledger's newest live release. `quiet_s` are the
    seconds since a run last wrote anything. `registry` is None while it is away.
    """

    observed: Observed
    said: Mapping[Colour, Said | None]
    wanted: Wanted | None
    evidence: Evidence
    proxied: Route | None
    follows: bool | None
    served: Release | None
    quiet_s: float
    registry: Registered | None
    damaged: frozenset[str] = frozenset()

    @property
    def live(self) -> Release | None:
        return self.observed.live.release

    @property
    def step(self) -> Step:
        """What a run of the present wish would do next."""
        if self.wanted is None:
            return Step.DONE
        return next_step(self.wanted, self.wanted.generation, self.observed, self.evidence)


@dataclass(frozen=True)
class Patience:
    """Seconds without a look until what ended is settled, what did not is abandoned, and a question is given up."""

    settle_s: float
    abandoned_s: float
    asking_s: float


@dataclass(frozen=True)
class Finding:
    """`about` is the thing in a few words; without `heal` a person has to act, and the sentence says how."""

    about: str
    sentence: str
    heal: Heal | None = None
    slot: Colour | None = None


SAFE = (Step.SOAK, Step.RECOVER, Step.REVERT, Step.WITHDRAW, Step.DISCARD)


def state(sight: Sight, patience: Patience) -> State:
    if sight.wanted is None:
        return State.EMPTY if sight.live is None else State.SETTLED
    if sight.step in (Step.DONE, Step.REJECTED):
        return State.SETTLING if sight.quiet_s < patience.settle_s else State.SETTLED
    if sight.step is Step.APPROVE:
        return State.ASKING if sight.quiet_s < patience.asking_s else State.ABANDONED
    if sight.quiet_s > patience.abandoned_s:
        return State.ABANDONED
    return State.SOAKING if sight.step is Step.SOAK and sight.live == sight.wanted.release else State.RELEASING


def findings(sight: Sight, patience: Patience) -> list[Finding]:
    """What disagrees, the records first: as long as one of them cannot be read, nothing else can be judged."""
    if broken := list(_records(sight)):
        return broken
    found = state(sight, patience)
    if found is State.EMPTY or found in (State.RELEASING, State.ASKING, State.SOAKING, State.SETTLING):
        return []
    running = [*_proxy(sight), *(each for colour in COLOURS for each in _slot(sight, colour))]
    return running + (_abandoned(sight) if found is State.ABANDONED else [*_ledger(sight), *_registry(sight)])


def route_to_restore(sight: Sight, generation: int) -> Route | None:
    """What the proxy still follows; else the slot that holds what went live last. None: nobody can know."""
    if sight.proxied and sight.proxied.live:
        return sight.proxied
    holding = [colour for colour in COLOURS if sight.served and sight.observed.slot(colour).release == sight.served]
    return Route(holding[0], generation=generation) if holding else None


def _records(sight: Sight) -> Iterator[Finding]:
    if "route" in sight.damaged or (sight.observed.route.live is None and _must_be_routed(sight)):
        yield _route(sight)
        return
    for colour in COLOURS:
        if colour in sight.damaged or (colour == sight.observed.route.live and sight.live is None):
            yield _slot_file(sight, colour)
        elif colour == sight.observed.route.live and _is_edited(sight, colour):
            sentence = f"Slot {colour} serves {_told(sight.served)}, and its record was changed to name "
            sentence += f"{_told(sight.live)}, which never went live; it is written anew."
            yield Finding(f"slot {colour}", sentence, Heal.RESTORE_SLOT, colour)
    if "wanted" in sight.damaged or (sight.wanted is None and sight.live):
        yield Finding(
            "the record of what is wanted",
            "The record of what is wanted is lost or cannot be read; it is written anew, wanting what serves.",
            Heal.RESTORE_WISH if sight.live else None,
        )


def _is_edited(sight: Sight, colour: Colour) -> bool:
    """No release writes the file of the live slot: what runs there and went live is right, and the file is not."""
    said = sight.said[colour]
    return sight.live != sight.served and said is not None and said.release == sight.served is not None


def _must_be_routed(sight: Sight) -> bool:
    """A target that served once always serves something, unless its first release is still under way."""
    return sight.served is not None and any(sight.observed.slot(each).release == sight.served for each in COLOURS)


def _route(sight: Sight) -> Finding:
    if route_to_restore(sight, 0):
        return Finding(
            "the route", "The record of the route is lost or cannot be read; it is written anew.", Heal.RESTORE_ROUTE
        )
    return Finding(
        "the route",
        "The record of the route is lost or cannot be read, and neither the proxy nor the ledger tells what it said; "
        "name the version that shall serve in the form of deploy.",
    )


def _slot_file(sight: Sight, colour: Colour) -> Finding:
    said, is_live = sight.said[colour], colour == sight.observed.route.live
    if not is_live:
        sentence = (
            f"The record of slot {colour} cannot be read; the slot is emptied, and the next release stages into it."
        )
        return Finding(f"slot {colour}", sentence, Heal.RESTORE_SLOT, colour)
    if sight.served and (said is None or said.release in (None, sight.served)):
        sentence = (
            f"The record of slot {colour}, which is live, is lost or cannot be read; it names {_told(sight.served)}."
        )
        return Finding(f"slot {colour}", sentence, Heal.RESTORE_SLOT, colour)
    return Finding(
        f"slot {colour}",
        f"The record of slot {colour}, which is live, is lost, and the ledger does not know what the slot holds; "
        "deploy a version by the form, or roll back.",
    )


def _proxy(sight: Sight) -> Iterator[Finding]:
    if sight.follows is None:
        yield Finding("the proxy", "The proxy does not answer; it is started.", Heal.START_PROXY)
    elif not sight.follows:
        yield Finding(
            "the route", "The proxy does not follow the record of the route; it is given it again.", Heal.APPLY_ROUTE
        )


def _slot(sight: Sight, colour: Colour) -> Iterator[Finding]:
    held, said = sight.observed.slot(colour), sight.said[colour]
    if held.release is None and (said is None or said.release is None):
        return
    name = f"slot {colour}"
    if said is None:
        yield Finding(name, f"The process of {name} does not answer; it is started.", Heal.START_SLOT, colour)
    elif said.release != held.release:
        told = (
            f"Slot {colour} holds {_told(said.release)}, and its record names {_told(held.release)}; it reads it again."
        )
        yield Finding(name, told, Heal.RELOAD_SLOT, colour)
    elif not held.ready:
        told = f"Slot {colour} cannot serve {_told(held.release)}: {said.why.rstrip('.') or 'it does not say why'}."
        yield Finding(name, f"{told} Roll back, or deploy a version again.")


def _abandoned(sight: Sight) -> list[Finding]:
    wanted, minutes = sight.wanted, sight.quiet_s / 60
    assert wanted is not None  # nothing wanted is never abandoned
    about = f"the {wanted.kind} of version {wanted.release.version}"
    told = f"{about.capitalize()} has stood at {sight.step.value} for {minutes:.0f} minutes"
    if sight.step in SAFE:
        return [Finding(about, f"{told} and nobody looks; it is gone on with.", Heal.RESUME)]
    if sight.observed.route.is_split:
        sentence = f"{told} and nobody looks; its share of the requests is taken back."
        return [Finding(about, sentence, Heal.WITHDRAW)]
    return [Finding(about, f"{told} and nobody looks; trigger {wanted.kind} with the version again, or another.")]


def _ledger(sight: Sight) -> Iterator[Finding]:
    if sight.live and sight.live != sight.served:
        before = f"tells of {_told(sight.served)}" if sight.served else "does not tell"
        sentence = f"{_told(sight.live).capitalize()} serves, and the ledger {before}; it is entered."
        yield Finding("the ledger", sentence, Heal.ENTER_LIVE)


def _registry(sight: Sight) -> Iterator[Finding]:
    if sight.registry is None or sight.live is None:
        return
    if sight.registry.champion != sight.live.version:
        now = f"version {sight.registry.champion}" if sight.registry.champion else "no version"
        sentence = f"{_told(sight.live).capitalize()} serves, and the champion is {now}; the alias follows the traffic."
        yield Finding("the champion alias", sentence, Heal.MOVE_ALIAS)
    elif sight.registry.soaking:
        named = ", ".join(sight.registry.soaking)
        yield Finding("the registry's marks", f"No release is soaking, and version {named} is marked so.", Heal.UNMARK)


def _told(release: Release | None) -> str:
    return f"version {release.version}" if release else "nothing"
