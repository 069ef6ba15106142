"""The release machine, walked exhaustively.

`World` is a small real target: two slots, a route, the verdicts of one run and the wish it serves. Two walks are taken.
The *arbitrary* walk starts in every combination of these, whether or not anything leads there, because a machine that
promises to carry on from whatever it sees must do so from every state. The *reachable* walk starts with an empty target
and follows every step, every outcome of a step, every kill in the middle of one, and every move of the environment at
any time: slots dying, coming back or being lost, newer wishes. `pytest -s` is not needed to see what was walked: the
last test prints it.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import pytest

from include.core.rollout import (
    COLOURS,
    Colour,
    Evidence,
    Observed,
    Release,
    Route,
    Slot,
    Step,
    Verdict,
    Wanted,
    next_step,
    other,
)

PENDING, PASSED, FAILED = Verdict.PENDING, Verdict.PASSED, Verdict.FAILED
RELEASES = {name: Release(name, name * 8) for name in ("v1", "v2", "v3")}
GENERATION = 7  # of the run that is walked; what matters is only whether the wish carries the same
WISHES = tuple(itertools.product(RELEASES, ("deploy", "rollback")))

Kind = Literal["deploy", "rollback"]
Content = tuple[str | None, bool]  # what a slot holds, and whether it is ready
EMPTY: Content = (None, False)
CONTENTS: tuple[Content, ...] = (EMPTY, *itertools.product(RELEASES, (False, True)))


class World(NamedTuple):
    blue: Content = EMPTY
    green: Content = EMPTY
    live: Colour | None = None
    standby: Colour | None = None
    accepted: Verdict = PENDING
    soaked: Verdict = PENDING
    release: str = "v1"
    kind: Kind = "deploy"

    def slot(self, colour: Colour) -> Content:
        return self.blue if colour == "blue" else self.green

    @property
    def idle(self) -> Colour:
        return self.observed.idle

    @property
    def observed(self) -> Observed:
        slots = (Slot(RELEASES[held] if held else None, ready) for held, ready in (self.blue, self.green))
        return Observed(Route(self.live, self.standby, GENERATION), *slots)

    def wanted(self, generation: int = GENERATION) -> Wanted:
        return Wanted(RELEASES[self.release], generation, "a test", "to see", self.kind)

    def step(self, wanted_generation: int = GENERATION) -> Step:
        return next_step(
            self.wanted(wanted_generation), GENERATION, self.observed, Evidence(self.accepted, self.soaked)
        )

    def holding(self, colour: Colour, content: Content) -> World:
        return self._replace(**{colour: content})

    def outcomes(self, step: Step) -> tuple[World, ...]:
        """What the world may look like after a step was done: one effect, or one for each verdict it can bring."""
        accepted = [self._replace(accepted=verdict) for verdict in (PASSED, FAILED)]
        soaked = [self._replace(soaked=verdict) for verdict in (PASSED, FAILED)]
        held, _ = self.slot(self.idle)
        alone = self._replace(standby=None)
        effects: dict[Step, tuple[World, ...]] = {
            Step.STAGE: (alone.holding(self.idle, (self.release, False)),),
            Step.AWAIT: (self.holding(self.idle, (held, True)), accepted[1]),
            Step.VERIFY: tuple(accepted),
            Step.SWITCH: (alone._replace(live=self.idle),),
            Step.SOAK: tuple(soaked),
            Step.RETIRE: (self._replace(standby=self.idle),),
            Step.REVERT: (alone._replace(live=self.idle),),
            Step.DISCARD: (alone.holding(self.idle, EMPTY),),
        }
        return effects.get(step, ())

    def killed_during(self, step: Step) -> tuple[World, ...]:
        """Only staging and discarding write twice: first the standby leaves the route, then the slot changes."""
        return (self._replace(standby=None),) if step in (Step.STAGE, Step.DISCARD) else ()

    def disturbed(self) -> Iterator[World]:
        """What the environment may do at any time, short of a newer wish."""
        for colour in COLOURS:
            held, ready = self.slot(colour)
            if held:
                yield self.holding(colour, (held, not ready))
                yield self.holding(colour, EMPTY)

    def wished(self) -> Iterator[World]:
        """A newer wish: another generation, so no verdict stands beside it yet."""
        for release, kind in WISHES:
            yield self._replace(release=release, kind=kind, accepted=PENDING, soaked=PENDING)


class Edges(NamedTuple):
    """All that can happen next in one world."""

    step: Step
    outcomes: tuple[World, ...]
    kills: tuple[World, ...]
    disturbances: tuple[World, ...]
    wishes: tuple[World, ...]

    @property
    def count(self) -> int:
        return sum(map(len, self[1:]))


@cache
def edges(world: World) -> Edges:
    step = world.step()
    kills = world.killed_during(step)
    return Edges(step, world.outcomes(step), kills, tuple(world.disturbed()), tuple(world.wished()))


@cache
def arbitrary() -> tuple[World, ...]:
    """Every combination, sensible or not; only a slot that is live and its own standby is not a route."""
    routes = [(live, by) for live in (None, *COLOURS) for by in (None, *COLOURS) if live is None or live != by]
    verdicts = list(itertools.product(Verdict, repeat=2))
    combined = itertools.product(CONTENTS, CONTENTS, routes, verdicts, WISHES)
    return tuple(World(blue, green, *route, *proof, *wish) for blue, green, route, proof, wish in combined)


@dataclass(frozen=True)
class Moment:
    """A reachable world, with what only history knows: the releases whose latest verification passed."""

    world: World
    proven: frozenset[str]

    def after(self, world: World) -> Moment:
        if edges(self.world).step is not Step.VERIFY or world.accepted is self.world.accepted:
            return Moment(world, self.proven)
        change = {self.world.release}
        return Moment(world, self.proven | change if world.accepted is PASSED else self.proven - change)

    def nexts(self) -> Iterator[Moment]:
        found = edges(self.world)
        yield from map(self.after, found.outcomes)
        for world in (*found.kills, *found.disturbances, *found.wishes):
            yield Moment(world, self.proven)


@cache
def reachable() -> tuple[Moment, ...]:
    """Everything that can come of an empty target and a first wish."""
    seen = {Moment(world, frozenset()) for world in World().wished()}
    queue = deque(seen)
    while queue:
        new = set(queue.popleft().nexts()) - seen
        seen |= new
        queue.extend(new)
    return tuple(seen)


def doing(*steps: Step) -> list[World]:
    return [world for world in arbitrary() if edges(world).step in steps]


def done(*steps: Step) -> list[tuple[Moment, World]]:
    """Every reachable moment in which one of these steps is named, with each world it leads to."""
    told = [moment for moment in reachable() if edges(moment.world).step in steps]
    return [(moment, world) for moment in told for world in edges(moment.world).outcomes]


@cache
def steps_left(world: World) -> int:
    """The longest way to a terminal step when nothing disturbs; a livelock would recurse without end."""
    return max((1 + steps_left(after) for after in edges(world).outcomes), default=0)


def ways(world: World) -> set[tuple[Step, ...]]:
    """Every undisturbed sequence of steps from a world to its end."""
    step, outcomes = edges(world)[:2]
    return {(step, *way) for after in outcomes for way in ways(after)} or {(step,)}


# ------------------------------------------------------------------------------------------- from every combination


def test_traffic_only_moves_to_a_ready_slot_that_holds_the_wanted_release_and_was_accepted() -> None:
    for world in doing(Step.SWITCH):
        assert world.slot(world.idle) == (world.release, True)
        assert world.accepted is PASSED
        assert world.soaked is not FAILED


def test_traffic_only_moves_back_to_a_ready_slot_with_another_release_than_the_one_turned_down() -> None:
    for world in doing(Step.REVERT):
        held, ready = world.slot(world.idle)
        assert ready
        assert held not in (None, world.release)
        assert world.soaked is FAILED


def test_no_step_but_switch_and_revert_moves_traffic() -> None:
    for world in doing(*set(Step) - {Step.SWITCH, Step.REVERT}):
        assert all(after.live == world.live for after in edges(world).outcomes + edges(world).kills)


def test_no_step_changes_what_the_live_slot_holds() -> None:
    for world in arbitrary():
        if world.live:
            for after in edges(world).outcomes + edges(world).kills:
                assert after.slot(world.live) == world.slot(world.live)


def test_only_an_idle_slot_with_another_release_is_staged_into() -> None:
    for world in doing(Step.STAGE):
        assert world.idle != world.live
        assert world.slot(world.idle)[0] != world.release


def test_only_a_release_that_was_turned_down_and_is_not_live_is_discarded() -> None:
    for world in doing(Step.DISCARD):
        assert FAILED in (world.accepted, world.soaked)
        assert world.slot(world.idle)[0] == world.release
        assert world.idle != world.live


def test_a_slot_leaves_the_route_before_it_is_staged_into_or_discarded() -> None:
    for world in doing(Step.STAGE, Step.DISCARD):
        assert all(after.standby is None for after in edges(world).outcomes + edges(world).kills)


def test_the_standby_is_never_the_live_slot() -> None:
    for world in arbitrary():
        assert all(after.standby is None or after.standby != after.live for after in edges(world).outcomes)


def test_a_run_ends_done_exactly_where_the_wanted_release_serves() -> None:
    for world in doing(Step.DONE):
        assert world.live and world.slot(world.live)[0] == world.release


def test_a_run_ends_rejected_only_after_a_no_and_with_nothing_left_behind() -> None:
    for world in doing(Step.REJECTED):
        assert FAILED in (world.accepted, world.soaked)
        assert all(world.slot(colour)[0] != world.release for colour in (world.live, world.idle) if colour)


def test_a_run_whose_generation_is_not_wanted_any_more_ends_superseded_whatever_it_sees() -> None:
    for world in arbitrary():
        assert world.step(GENERATION + 1) is Step.SUPERSEDED
        assert world.step(GENERATION - 1) is Step.SUPERSEDED  # a target that was set up anew
        assert edges(world).step is not Step.SUPERSEDED


def test_the_same_world_gives_the_same_step() -> None:
    for world in arbitrary():
        assert world.step() is edges(world).step


def test_a_run_killed_in_the_middle_of_a_step_takes_that_step_again() -> None:
    for world in arbitrary():
        assert all(edges(after).step is edges(world).step for after in edges(world).kills)


def test_a_step_done_twice_is_as_good_as_done_once() -> None:
    writing = (Step.STAGE, Step.DISCARD, Step.RETIRE)
    for world in doing(*writing):
        (after,) = edges(world).outcomes
        assert after.outcomes(edges(world).step) == (after,)


def test_every_run_comes_to_an_end_in_few_steps_however_its_verdicts_fall() -> None:
    """No cycle without a disturbance in it: so a run on which finitely many disturbances fall ends, too."""
    try:
        longest = max(map(steps_left, arbitrary()))
    except RecursionError:
        pytest.fail("the release machine goes round in circles though nothing disturbs it")
    assert longest <= 7


def test_every_step_but_a_terminal_one_changes_something() -> None:
    for world in arbitrary():
        found = edges(world)
        assert bool(found.outcomes) is not found.step.is_terminal
        assert world not in found.outcomes


# --------------------------------------------------------------------------------- from an empty target and its history


def test_every_step_of_the_machine_is_reached() -> None:
    reached = {edges(moment.world).step for moment in reachable()}
    assert reached == set(Step) - {Step.SUPERSEDED}


def test_traffic_never_moves_to_a_release_whose_latest_verification_did_not_pass() -> None:
    for moment, after in done(Step.SWITCH, Step.REVERT):
        assert after.live and after.slot(after.live)[0] in moment.proven, moment


def test_no_release_becomes_the_standby_unless_its_latest_verification_passed() -> None:
    for moment, after in done(Step.RETIRE):
        assert after.standby
        held, ready = after.slot(after.standby)
        assert ready and held in moment.proven, moment


def test_nothing_changes_in_the_slot_of_the_standby_but_by_the_environment() -> None:
    for moment in reachable():
        for after in edges(moment.world).outcomes:
            if after.standby and edges(moment.world).step is not Step.AWAIT:
                assert after.slot(after.standby) == moment.world.slot(after.standby)


def test_two_slots_never_run_the_same_release() -> None:
    for moment in reachable():
        blue, green = moment.world.blue[0], moment.world.green[0]
        assert blue is None or blue != green


def test_once_something_serves_something_stays_routed_to() -> None:
    for moment in reachable():
        if moment.world.live:
            assert all(after.live for after in edges(moment.world).outcomes)


# ------------------------------------------------------------------------------------------------ stories worth telling

V1_LIVE = World(blue=("v1", True), live="blue", release="v2")
V2_SOAKING = World(("v1", True), ("v2", True), live="green", accepted=PASSED, release="v2")
WITH_STANDBY = World(("v1", True), ("v2", True), live="green", standby="blue", release="v1", kind="rollback")


def sequence(text: str) -> tuple[Step, ...]:
    return tuple(Step(word) for word in text.split())


def test_a_deployment_is_staged_awaited_verified_switched_to_soaked_and_its_predecessor_retired() -> None:
    assert max(ways(V1_LIVE), key=len) == sequence("stage await verify switch soak revert discard rejected")
    assert sequence("stage await verify switch soak retire done") in ways(V1_LIVE)


def test_a_deployment_has_four_ways_to_end() -> None:
    assert ways(V1_LIVE) == {
        sequence("stage await discard rejected"),
        sequence("stage await verify discard rejected"),
        sequence("stage await verify switch soak retire done"),
        sequence("stage await verify switch soak revert discard rejected"),
    }


def test_a_first_release_whose_soak_failed_keeps_serving() -> None:
    first = World(blue=("v1", True), live="blue", accepted=PASSED, soaked=FAILED, release="v1")
    assert ways(first) == {sequence("done")}


def test_a_later_release_whose_soak_failed_is_reverted_discarded_and_rejected() -> None:
    assert ways(V2_SOAKING._replace(soaked=FAILED)) == {sequence("revert discard rejected")}


def test_a_later_release_whose_soak_failed_keeps_serving_when_its_predecessor_is_gone() -> None:
    for predecessor in (EMPTY, ("v1", False)):
        assert ways(V2_SOAKING._replace(blue=predecessor, soaked=FAILED)) == {sequence("done")}


def test_a_rollback_to_the_warm_standby_is_verified_switched_to_and_done() -> None:
    assert ways(WITH_STANDBY) == {sequence("verify switch done"), sequence("verify discard rejected")}


def test_a_rollback_to_a_release_that_is_not_loaded_any_more_stages_it_first() -> None:
    cold = WITH_STANDBY._replace(blue=EMPTY, standby=None)
    assert sequence("stage await verify switch done") in ways(cold)
    assert not any(Step.SOAK in way or Step.RETIRE in way for way in ways(cold))


def test_a_rollback_preempts_a_deployment_that_is_soaking() -> None:
    assert V2_SOAKING.step() is Step.SOAK
    assert V2_SOAKING.step(GENERATION + 1) is Step.SUPERSEDED
    rollback = V2_SOAKING._replace(release="v1", kind="rollback", accepted=PENDING)
    assert sequence("verify switch done") in ways(rollback)


def test_what_was_rolled_back_from_is_no_standby() -> None:
    switched = WITH_STANDBY._replace(live="blue", standby=None, accepted=PASSED)
    assert ways(switched) == {sequence("done")}


def test_a_slot_that_died_after_its_verification_is_awaited_before_traffic_moves_to_it() -> None:
    verified = V1_LIVE._replace(green=("v2", False), accepted=PASSED)
    assert ways(verified) == {
        sequence("await switch soak retire done"),
        sequence("await switch soak revert discard rejected"),
        sequence("await discard rejected"),
    }


@pytest.mark.parametrize("soaked", [PASSED, FAILED])
def test_a_wish_for_what_already_serves_neither_reverts_to_nor_retires_what_another_run_left(soaked: Verdict) -> None:
    """v2 was staged, perhaps even turned down, by a run that was superseded: nobody vouches for it."""
    left_over = World(("v1", True), ("v2", True), live="blue", release="v1", soaked=soaked)
    assert ways(left_over) == {sequence("done")}


def test_a_failed_soak_does_not_go_back_and_forth_between_two_slots_of_one_release() -> None:
    twins = V2_SOAKING._replace(blue=("v2", True), soaked=FAILED)
    assert ways(twins) == {sequence("done")}


def test_the_colours_are_interchangeable_once_one_of_them_is_live() -> None:
    for world in arbitrary():
        if world.live:
            standby = other(world.standby) if world.standby else None
            mirrored = world._replace(blue=world.green, green=world.blue, live=other(world.live), standby=standby)
            assert edges(mirrored).step is edges(world).step


def test_what_was_walked(capsys: pytest.CaptureFixture[str]) -> None:
    moments = reachable()
    steps = Counter(edges(world).step.value for world in arbitrary())
    walked = Counter(edges(moment.world).step.value for moment in moments)
    with capsys.disabled():
        print(f"\n  arbitrary walk: {len(arbitrary()):,} worlds, {sum(edges(w).count for w in arbitrary()):,} edges")
        print(f"  reachable walk: {len({m.world for m in moments}):,} worlds, with their history {len(moments):,},")
        print(f"                  {sum(edges(moment.world).count for moment in moments):,} edges")
        print(f"  longest undisturbed run: {max(map(steps_left, arbitrary()))} steps to a terminal one")
        for step in Step:
            print(f"  {step.value:>10}: {steps[step.value]:6,} arbitrary {walked[step.value]:7,} reachable")
    assert len(arbitrary()) == len(CONTENTS) ** 2 * 7 * 9 * len(WISHES)
