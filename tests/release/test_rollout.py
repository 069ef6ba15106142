"""The release machine, walked exhaustively.

`World` is a small real target: two slots, a route, the verdicts of one run and the wish it serves. Two walks are taken.
The *arbitrary* walk starts in every combination of these, whether or not anything leads there, because a machine that
promises to carry on from whatever it sees must do so from every state. The *reachable* walk starts with an empty target
and follows every step, every outcome of a step, every kill in the middle of one, and every move of the environment at
any time: slots dying, coming back or being lost, newer requests. `pytest -s` is not needed to see what was walked: the
last test prints it.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import pytest

from include.kernel.words.colours import COLOURS, Colour, other
from include.kernel.words.verdicts import Verdict
from include.release.core.rollout import (
    DesiredState,
    Evidence,
    ObservedStatus,
    Release,
    ReleasePlan,
    Route,
    Slot,
    Step,
    decide_next_step,
)

PENDING, PASSED, FAILED = Verdict.PENDING, Verdict.PASSED, Verdict.FAILED
RELEASES = {name: Release(name, name * 8) for name in ("v1", "v2", "v3")}
BLUE_GREEN, CANARY = ReleasePlan(), ReleasePlan(shadow=True, weights=(5, 50))
ASKED = ReleasePlan(weights=(5, 50), approval=True)
EXPERIMENT = ReleasePlan(weights=(5, 50), experiment=30)
GENERATION = 7  # of the run that is walked; what matters is only whether the wish carries the same
WISHES = (
    *itertools.product(RELEASES, ("deploy",), (BLUE_GREEN, CANARY, ASKED, EXPERIMENT)),
    *itertools.product(RELEASES, ("rollback",), (BLUE_GREEN,)),
)

Kind = Literal["deploy", "rollback"]
Content = tuple[str | None, bool]  # what a slot holds, and whether it is ready
EMPTY: Content = (None, False)


class World(NamedTuple):
    blue: Content = EMPTY
    green: Content = EMPTY
    live: Colour | None = None
    standby: Colour | None = None
    share: int = 0
    mirror: bool = False
    sticky: bool = False
    trial: Verdict = PASSED  # of what is live
    recovered: Verdict = PENDING
    mine: bool = False  # whether this run made it live
    accepted: Verdict = PENDING
    shadowed: Verdict = PENDING
    canary: tuple[Verdict, ...] = ()
    experiment: Verdict = PENDING
    approved: Verdict = PENDING
    soaked: Verdict = PENDING
    release: str = "v1"
    kind: Kind = "deploy"
    plan: ReleasePlan = BLUE_GREEN

    def slot(self, colour: Colour) -> Content:
        return self.blue if colour == "blue" else self.green

    @property
    def idle(self) -> Colour:
        return self.observed.idle

    @property
    def is_split(self) -> bool:
        return self.share > 0 or self.mirror

    @property
    def split(self) -> tuple[int, bool, bool]:
        return self.share, self.mirror, self.sticky

    @property
    def observed(self) -> ObservedStatus:
        slots = (Slot(RELEASES[held] if held else None, ready) for held, ready in (self.blue, self.green))
        trial = GENERATION if self.mine else 1
        route = Route(self.live, self.standby, GENERATION, self.share, self.mirror, trial, self.sticky)
        return ObservedStatus(route, *slots)

    @property
    def evidence(self) -> Evidence:
        own = self.accepted, self.shadowed, self.canary, self.experiment, self.approved, self.soaked
        return Evidence(*own, self.trial, self.recovered)

    def wanted(self, generation: int = GENERATION) -> DesiredState:
        return DesiredState(RELEASES[self.release], generation, "a test", "to see", self.kind, None, self.plan)

    def step(self, wanted_generation: int = GENERATION) -> Step:
        return decide_next_step(self.wanted(wanted_generation), GENERATION, self.observed, self.evidence)

    def holding(self, colour: Colour, content: Content) -> World:
        return self._replace(**{colour: content})

    def routed(self, share: int = 0, mirror: bool = False, sticky: bool = False) -> World:
        """Without a standby: what the idle slot holds is on trial, or about to change."""
        return self._replace(share=share, mirror=mirror, sticky=sticky, standby=None)

    def live_at(self, colour: Colour, standby: Colour | None = None, on_trial: bool = False) -> World:
        trial = PENDING if on_trial else PASSED
        return self.routed()._replace(live=colour, standby=standby, trial=trial, mine=on_trial, recovered=PENDING)

    def outcomes(self, step: Step) -> tuple[World, ...]:
        """What the world may look like after a step was done: one effect, or one for each verdict it can bring."""
        return EFFECTS[step](self) if step in EFFECTS else ()

    def verified(self) -> tuple[World, ...]:
        """What is being judged is nobody's standby meanwhile."""
        return tuple(self.routed()._replace(accepted=verdict) for verdict in (PASSED, FAILED))

    def switched(self) -> World:
        deploys = self.kind == "deploy"
        return self.live_at(self.idle, self.live if deploys else None, on_trial=deploys)

    def awaited(self, given_up: World) -> tuple[World, ...]:
        held, _ = self.slot(self.idle)  # an empty slot never becomes ready
        return (self.holding(self.idle, (held, True)), given_up) if held else (given_up,)

    def judged(self) -> tuple[Verdict, ...]:
        """A candidate that died beside the live slot has been judged."""
        return (PASSED, FAILED) if self.slot(self.idle)[1] else (FAILED,)

    def weighed(self) -> World:
        return self.routed(share=self.plan.weights[len(self.canary)])

    def dealt(self) -> World:
        return self.routed(share=self.plan.experiment, sticky=True)

    def soaked_with(self, verdict: Verdict) -> World:
        return self._replace(trial=verdict, soaked=verdict if self.mine else self.soaked)

    def killed_during(self, step: Step) -> tuple[World, ...]:
        """These write the route before they do, or learn, the rest."""
        return (HALVES[step](self),) if step in HALVES else ()

    def disturbed(self) -> Iterator[World]:
        """What the environment may do at any time, short of a newer request."""
        for colour in COLOURS:
            held, ready = self.slot(colour)
            if held:
                yield self.holding(colour, (held, not ready))
                yield self.holding(colour, EMPTY)

    def wished(self) -> Iterator[World]:
        """A newer request: another generation, so no verdict stands beside it yet; the trial goes on."""
        clean = self._replace(accepted=PENDING, shadowed=PENDING, canary=(), approved=PENDING, soaked=PENDING)
        clean = clean._replace(mine=False, experiment=PENDING)
        for release, kind, plan in WISHES:
            yield clean._replace(release=release, kind=kind, plan=plan)


EFFECTS: dict[Step, Callable[[World], tuple[World, ...]]] = {
    Step.STAGE: lambda w: (w.routed().holding(w.idle, (w.release, False)),),
    Step.AWAIT: lambda w: w.awaited(given_up=w._replace(accepted=FAILED)),
    Step.VERIFY: World.verified,
    Step.SHADOW: lambda w: tuple(w.routed(mirror=True)._replace(shadowed=verdict) for verdict in w.judged()),
    Step.CANARY: lambda w: tuple(w.weighed()._replace(canary=(*w.canary, verdict)) for verdict in w.judged()),
    Step.EXPERIMENT: lambda w: tuple(w.dealt()._replace(experiment=verdict) for verdict in w.judged()),
    Step.APPROVE: lambda w: tuple(w._replace(approved=verdict) for verdict in (PASSED, FAILED)),
    Step.SWITCH: lambda w: (w.switched(),),
    Step.SOAK: lambda w: tuple(w.soaked_with(verdict) for verdict in (PASSED, FAILED)),
    Step.RECOVER: lambda w: w.awaited(given_up=w._replace(recovered=FAILED)),
    Step.REVERT: lambda w: (w.live_at(w.idle),),
    Step.WITHDRAW: lambda w: (w.routed(),),
    Step.DISCARD: lambda w: (w.routed().holding(w.idle, EMPTY),),
}
HALVES: dict[Step, Callable[[World], World]] = {
    Step.STAGE: World.routed,
    Step.VERIFY: World.routed,
    Step.DISCARD: World.routed,
    Step.SHADOW: lambda w: w.routed(mirror=True),
    Step.CANARY: World.weighed,
    Step.EXPERIMENT: World.dealt,
}


class Edges(NamedTuple):
    """What a step may lead to, done and killed half-way."""

    step: Step
    outcomes: tuple[World, ...]
    kills: tuple[World, ...]


@cache
def edges(world: World) -> Edges:
    step = world.step()
    return Edges(step, world.outcomes(step), world.killed_during(step))


# accepted, shadowed, canary, experiment, approved: what can stand beside a run that asks one question after the other
ANSWERS: tuple[tuple[Verdict, Verdict, tuple[Verdict, ...], Verdict, Verdict], ...] = (
    (PENDING, PENDING, (), PENDING, PENDING),
    (FAILED, PENDING, (), PENDING, PENDING),
    (PASSED, PENDING, (), PENDING, PENDING),
    (PASSED, FAILED, (), PENDING, PENDING),
    *((PASSED, PASSED, weights, PENDING, PENDING) for weights in ((), (FAILED,), (PASSED,), (PASSED, FAILED))),
    *((PASSED, PASSED, (PASSED, PASSED), found, PENDING) for found in Verdict),
    *((PASSED, PASSED, weights, PENDING, given) for weights in ((), (PASSED, PASSED)) for given in (PASSED, FAILED)),
)
TRIALS = ((PENDING, PENDING), (PASSED, PENDING), (FAILED, PENDING), (FAILED, FAILED))  # and whether it was recovered
# The wanted release is v2 and blue is what may be live: names and colours are interchangeable, which a test shows.
CONTENTS: tuple[Content, ...] = (EMPTY, *itertools.product(("v1", "v2"), (False, True)))
ROUTES = [(None, None), ("blue", None), ("blue", "green")]
NOT_SPLIT = (0, False, False)  # share, mirror, sticky
SPLITS = [NOT_SPLIT, (0, True, False), (5, False, False), (50, False, False), (30, False, True)]
WANTED = [
    ("deploy", BLUE_GREEN),
    ("deploy", CANARY),
    ("deploy", ASKED),
    ("deploy", EXPERIMENT),
    ("rollback", BLUE_GREEN),
]


@cache
def arbitrary() -> tuple[World, ...]:
    """Every combination, sensible or not; only a split route without a live slot, or with a standby, is no route."""
    routes = [(*route, *split) for route in ROUTES for split in SPLITS if split == NOT_SPLIT or route == ("blue", None)]
    soaks = [(*trial, True, trial[0]) for trial in TRIALS]
    soaks += [(*trial, False, soaked) for trial in TRIALS for soaked in Verdict]
    combined = itertools.product(CONTENTS, CONTENTS, routes, soaks, ANSWERS, WANTED)
    return tuple(
        World(blue, green, *route, *soak[:3], *answers, soak[3], "v2", *asked)  # type: ignore[misc]
        for blue, green, route, soak, answers, asked in combined
    )


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
        for world in (*found.kills, *self.world.disturbed(), *self.world.wished()):
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


def test_traffic_only_moves_to_a_ready_slot_that_holds_the_wanted_release_and_passed_all_it_was_asked() -> None:
    for world in doing(Step.SWITCH):
        assert world.slot(world.idle) == (world.release, True)
        assert world.accepted is PASSED and not world.evidence.is_turned_down
        if world.plan.weights and world.live:
            assert world.canary == (PASSED, PASSED)
        assert not (world.plan.shadow and world.live) or world.shadowed is PASSED
        assert not (world.plan.experiment and world.live) or world.experiment is PASSED
        assert not world.plan.approval or world.approved is PASSED


def test_traffic_only_moves_back_to_a_ready_standby_after_a_failed_trial() -> None:
    for world in doing(Step.REVERT):
        assert world.standby == world.idle and world.slot(world.idle)[1]
        assert world.trial is FAILED


def test_no_step_but_switch_and_revert_moves_all_traffic() -> None:
    for world in doing(*set(Step) - {Step.SWITCH, Step.REVERT}):
        assert all(after.live == world.live for after in edges(world).outcomes + edges(world).kills)


def test_only_a_verified_candidate_gets_a_share_and_only_by_the_plan() -> None:
    for world in arbitrary():
        for after in edges(world).outcomes + edges(world).kills:
            if after.is_split and after.split != world.split:
                assert edges(world).step in (Step.SHADOW, Step.CANARY, Step.EXPERIMENT)
                assert world.accepted is PASSED and world.slot(world.idle)[0] == world.release
                assert not world.evidence.is_turned_down and after.live
                assert after.share in ((world.plan.experiment,) if after.sticky else (0, *world.plan.weights))


def test_traffic_that_nobody_vouches_for_is_taken_away_before_anything_else_happens() -> None:
    for world in arbitrary():
        if world.is_split and world.evidence.is_turned_down:
            assert edges(world).step is Step.WITHDRAW
    tried = {Step.SHADOW, Step.CANARY, Step.EXPERIMENT, Step.APPROVE, Step.SWITCH, Step.AWAIT, Step.SOAK}
    for world in doing(*set(Step) - tried - {Step.WITHDRAW}):
        assert not world.is_split or edges(world).step in (Step.REVERT, Step.RECOVER), world


def test_a_candidate_that_dies_beside_the_live_slot_is_judged_and_not_awaited() -> None:
    for world in doing(Step.AWAIT):
        assert not world.is_split or world.canary == (PASSED, PASSED)


def test_a_person_is_asked_last_and_only_where_the_plan_says_so() -> None:
    for world in doing(Step.APPROVE):
        assert world.plan == ASKED and world.accepted is PASSED and world.slot(world.idle)[0] == world.release
        assert world.live is None or world.canary == (PASSED, PASSED)


def test_no_step_changes_what_the_live_slot_holds() -> None:
    for world in arbitrary():
        if world.live:
            for after in edges(world).outcomes + edges(world).kills:
                assert after.slot(world.live) == world.slot(world.live)


def test_only_an_idle_slot_with_another_release_is_staged_into() -> None:
    for world in doing(Step.STAGE):
        assert world.idle != world.live and not world.is_split
        assert world.slot(world.idle)[0] != world.release


def test_a_deployment_stages_nothing_over_the_standby_while_what_is_live_is_on_trial() -> None:
    for world in doing(Step.STAGE):
        if world.kind == "deploy" and world.live:
            assert world.trial is not PENDING
            assert world.trial is PASSED or world.standby is None or world.recovered is FAILED


def test_only_a_release_that_was_turned_down_and_is_not_live_is_discarded() -> None:
    for world in doing(Step.DISCARD):
        assert world.evidence.is_turned_down
        assert world.slot(world.idle)[0] == world.release
        assert world.idle != world.live and not world.is_split


def test_a_slot_leaves_the_route_before_it_is_staged_into_or_discarded() -> None:
    for world in doing(Step.STAGE, Step.DISCARD):
        assert all(after.standby is None for after in edges(world).outcomes + edges(world).kills)


def test_the_standby_is_never_the_live_slot() -> None:
    for world in arbitrary():
        assert all(after.standby is None or after.standby != after.live for after in edges(world).outcomes)


def test_a_run_ends_done_exactly_where_the_wanted_release_serves_all_traffic() -> None:
    for world in doing(Step.DONE):
        assert world.live and world.slot(world.live)[0] == world.release and not world.is_split


def test_a_run_ends_rejected_only_after_a_no_and_with_nothing_left_behind() -> None:
    for world in doing(Step.REJECTED):
        assert world.evidence.is_turned_down and not world.is_split
        assert all(world.slot(colour)[0] != world.release for colour in (world.live, world.idle) if colour)


def test_a_rollback_waits_for_no_trial_no_canary_and_nobodys_yes() -> None:
    for world in arbitrary():
        if world.kind == "rollback":
            waits = (Step.SHADOW, Step.CANARY, Step.EXPERIMENT, Step.APPROVE, Step.SOAK, Step.RECOVER, Step.REVERT)
            assert edges(world).step not in waits


def test_a_run_whose_generation_is_not_wanted_any_more_ends_superseded_whatever_it_sees() -> None:
    for world in arbitrary():
        assert world.step(GENERATION + 1) is Step.SUPERSEDED
        assert world.step(GENERATION - 1) is Step.SUPERSEDED  # a target that was set up anew
        assert edges(world).step is not Step.SUPERSEDED


def test_a_run_killed_in_the_middle_of_a_step_takes_that_step_again() -> None:
    for world in arbitrary():
        assert all(edges(after).step is edges(world).step for after in edges(world).kills)


def test_a_step_done_twice_is_as_good_as_done_once() -> None:
    for world in doing(Step.STAGE, Step.DISCARD, Step.WITHDRAW):
        (after,) = edges(world).outcomes
        assert after.outcomes(edges(world).step) == (after,)


def test_every_run_comes_to_an_end_in_few_steps_however_its_verdicts_fall() -> None:
    """No cycle without a disturbance in it: so a run on which finitely many disturbances fall ends, too."""
    try:
        longest = max(map(steps_left, arbitrary()))
    except RecursionError:
        pytest.fail("the release machine goes round in circles though nothing disturbs it")
    assert longest <= 16


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
    for moment, after in done(Step.SWITCH, Step.REVERT, Step.SHADOW, Step.CANARY, Step.EXPERIMENT):
        gets = after.idle if after.is_split else after.live
        assert gets and after.slot(gets)[0] in moment.proven, moment


def test_the_standby_is_what_served_before_and_only_the_environment_changes_it() -> None:
    for moment, after in done(*Step):
        before, step = moment.world, edges(moment.world).step
        if after.standby and step is Step.SWITCH:
            assert after.standby == before.live
        elif after.standby and step not in (Step.AWAIT, Step.RECOVER):
            assert after.standby == before.standby and after.slot(after.standby) == before.slot(after.standby)


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
V2_SOAKING = World(("v1", True), ("v2", True), "green", "blue", trial=PENDING, mine=True, accepted=PASSED, release="v2")
WITH_STANDBY = World(("v1", True), ("v2", True), "green", "blue", release="v1", kind="rollback")


def sequence(text: str) -> tuple[Step, ...]:
    return tuple(Step(word) for word in text.split())


def test_a_blue_green_deployment_has_four_ways_to_end_and_one_more_when_the_standby_is_gone() -> None:
    assert ways(V1_LIVE) == {
        sequence("stage await discard rejected"),
        sequence("stage await verify discard rejected"),
        sequence("stage await verify switch soak done"),
        sequence("stage await verify switch soak revert discard rejected"),
    }


def test_a_canary_goes_through_shadow_and_every_weight_and_may_end_at_each_of_them() -> None:
    before = "stage await verify shadow"
    assert ways(V1_LIVE._replace(plan=CANARY)) == {
        sequence("stage await discard rejected"),
        sequence("stage await verify discard rejected"),
        sequence(f"{before} withdraw discard rejected"),
        sequence(f"{before} canary withdraw discard rejected"),
        sequence(f"{before} canary canary withdraw discard rejected"),
        sequence(f"{before} canary canary switch soak done"),
        sequence(f"{before} canary canary switch soak revert discard rejected"),
    }


def test_an_experiment_comes_after_the_canary_and_its_outcomes_promote_or_discard() -> None:
    tried = V1_LIVE._replace(green=("v2", True), plan=EXPERIMENT, share=50, accepted=PASSED, canary=(PASSED, PASSED))
    assert ways(tried) == {
        sequence("experiment withdraw discard rejected"),
        sequence("experiment switch soak done"),
        sequence("experiment switch soak revert discard rejected"),
    }
    assert sequence("stage await verify switch soak done") in ways(World(release="v1", plan=EXPERIMENT))


def test_a_caller_changes_sides_only_when_the_experiment_is_over() -> None:
    for moment, after in done(*Step):
        if moment.world.sticky and after.sticky:
            assert after.share == moment.world.share
        if moment.world.sticky and not after.sticky:
            assert edges(moment.world).step in (Step.WITHDRAW, Step.SWITCH, Step.REVERT)


def test_a_person_has_the_last_word_before_the_switch_and_a_no_leaves_nothing_behind() -> None:
    tried = V1_LIVE._replace(green=("v2", True), plan=ASKED, share=50, accepted=PASSED, canary=(PASSED, PASSED))
    assert ways(tried) == {
        sequence("approve withdraw discard rejected"),
        sequence("approve switch soak done"),
        sequence("approve switch soak revert discard rejected"),
    }
    first = World(release="v1", plan=ASKED)
    assert sequence("stage await verify approve switch soak done") in ways(first)


def test_a_slot_that_died_while_a_person_was_thinking_is_awaited_before_the_switch() -> None:
    died = V1_LIVE._replace(green=("v2", False), plan=ASKED, share=50, accepted=PASSED, canary=(PASSED, PASSED))
    assert died._replace(approved=PASSED).step() is Step.AWAIT
    assert died._replace(approved=FAILED).step() is Step.WITHDRAW


def test_a_first_release_has_nothing_to_be_compared_with_and_its_canary_is_skipped() -> None:
    assert sequence("stage await verify switch soak done") in ways(World(release="v1", plan=CANARY))
    assert not any(Step.CANARY in way or Step.SHADOW in way for way in ways(World(release="v1", plan=CANARY)))


def test_a_first_release_whose_soak_failed_keeps_serving() -> None:
    first = World(blue=("v1", True), live="blue", trial=FAILED, mine=True, accepted=PASSED, soaked=FAILED)
    assert ways(first) == {sequence("done")}


def test_a_failed_soak_waits_for_a_standby_that_is_not_ready_before_it_gives_up_on_it() -> None:
    failed = V2_SOAKING._replace(blue=("v1", False), trial=FAILED, soaked=FAILED)
    assert ways(failed) == {sequence("recover revert discard rejected"), sequence("recover done")}


def test_a_canary_whose_candidate_died_ends_at_once() -> None:
    dead = World(("v1", True), ("v2", False), "blue", share=5, accepted=PASSED, shadowed=PASSED, release="v2")
    assert ways(dead._replace(plan=CANARY)) == {sequence("canary withdraw discard rejected")}


def test_wanting_what_is_live_ends_a_canary_that_is_under_way() -> None:
    under_way = World(("v1", True), ("v2", True), "blue", share=5, release="v1")
    for kind in ("deploy", "rollback"):
        assert ways(under_way._replace(kind=kind)) == {sequence("withdraw done")}


def test_a_deployment_finishes_the_trial_an_earlier_run_began_so_that_it_never_overwrites_the_last_good_release() -> (
    None
):
    third = V2_SOAKING._replace(release="v3", mine=False, accepted=PENDING)
    assert sequence("soak stage await verify switch soak done") in ways(third)
    assert sequence("soak revert stage await verify switch soak revert discard rejected") in ways(third)
    assert all(way[0] is Step.SOAK for way in ways(third))


def test_a_rollback_preempts_a_deployment_that_is_soaking() -> None:
    assert V2_SOAKING.step() is Step.SOAK
    assert V2_SOAKING.step(GENERATION + 1) is Step.SUPERSEDED
    rollback = V2_SOAKING._replace(release="v1", kind="rollback", accepted=PENDING, mine=False)
    assert ways(rollback) == {sequence("verify switch done"), sequence("verify discard rejected")}


def test_a_rollback_to_a_release_that_is_not_loaded_any_more_stages_it_first() -> None:
    cold = WITH_STANDBY._replace(blue=EMPTY, standby=None)
    assert sequence("stage await verify switch done") in ways(cold)


def test_what_was_rolled_back_from_is_no_standby() -> None:
    (switched,) = edges(WITH_STANDBY._replace(accepted=PASSED)).outcomes
    assert (switched.live, switched.standby, switched.trial) == ("blue", None, PASSED)


def test_a_slot_that_died_after_its_verification_is_awaited_before_traffic_moves_to_it() -> None:
    verified = V1_LIVE._replace(green=("v2", False), accepted=PASSED)
    assert {way[:2] for way in ways(verified)} == {sequence("await switch"), sequence("await discard")}


def test_the_colours_are_interchangeable_once_one_of_them_is_live() -> None:
    for world in arbitrary():
        if world.live:
            standby = other(world.standby) if world.standby else None
            mirrored = world._replace(blue=world.green, green=world.blue, live=other(world.live), standby=standby)
            assert mirrored.step() is edges(world).step


def test_what_was_walked(capsys: pytest.CaptureFixture[str]) -> None:
    moments, worlds = reachable(), {moment.world for moment in reachable()}
    steps = Counter(edges(world).step.value for world in arbitrary())
    walked = Counter(edges(moment.world).step.value for moment in moments)
    with capsys.disabled():
        local = sum(len(edges(world).outcomes) + len(edges(world).kills) for world in arbitrary())
        print(f"\n  arbitrary walk: {len(arbitrary()):,} worlds, {local:,} edges")
        print(f"  reachable walk: {len(worlds):,} worlds, with their history {len(moments):,},")
        print(f"                  {sum(len(list(moment.nexts())) for moment in moments):,} edges")
        print(f"  longest undisturbed run: {max(map(steps_left, arbitrary()))} steps to a terminal one")
        for step in Step:
            print(f"  {step.value:>10}: {steps[step.value]:6,} arbitrary {walked[step.value]:7,} reachable")
        asked = [name.removeprefix("test_").replace("_", " ") for name in globals() if name.startswith("test_")]
        print(f"  asked of them, each by a test of this module, {len(asked) - 1} invariants and stories:")
        print(*(f"    {sentence}" for sentence in asked if sentence != "what was walked"), sep="\n")
    assert set(steps) == {step.value for step in Step} - {"superseded"}
