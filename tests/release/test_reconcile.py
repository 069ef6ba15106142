"""Every disagreement between registry, ledger and world, made one by one from a world in which all agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.release.core.reconcile import (
    Finding,
    Heal,
    Patience,
    Registered,
    Said,
    Sight,
    State,
    findings,
    route_to_restore,
    state,
)
from include.release.core.rollout import Evidence, Observed, Plan, Release, Route, Slot, Verdict, Wanted

V1, V2, V3 = (Release(name, name * 8) for name in ("1", "2", "3"))
PENDING, PASSED, FAILED = Verdict.PENDING, Verdict.PASSED, Verdict.FAILED
PATIENCE = Patience(settle_s=100, abandoned_s=1000, asking_s=10_000)
SETTLED = Sight(
    observed=Observed(Route("green", "blue", 2, trial=2), Slot(V1, True), Slot(V2, True)),
    said={"blue": Said("loaded", V1), "green": Said("loaded", V2)},
    wanted=Wanted(V2, 2, "a run", "to see"),
    evidence=Evidence(PASSED, soaked=PASSED, trial=PASSED),
    proxied=Route("green", "blue", 2, trial=2),
    follows=True,
    served=V2,
    quiet_s=500,
    registry=Registered("2"),
)
SOAKING = replace(
    SETTLED, evidence=Evidence(PASSED, trial=PENDING), served=V1, registry=Registered("1", ("2",)), quiet_s=1
)
TRYING = replace(
    SETTLED,
    observed=Observed(Route("blue", None, 2, share=5, trial=1), Slot(V1, True), Slot(V2, True)),
    wanted=Wanted(V2, 2, "a run", "to see", plan=Plan(weights=(5, 50))),
    evidence=Evidence(PASSED, trial=PASSED),
    served=V1,
    registry=Registered("1"),
    quiet_s=1,
)


def found(sight: Sight, **changes) -> list[Heal | None]:
    return [finding.heal for finding in findings(replace(sight, **changes), PATIENCE)]


def only(sight: Sight, **changes) -> Finding:
    [finding] = findings(replace(sight, **changes), PATIENCE)
    return finding


def looks(sight: Sight, **changes) -> State:
    return state(replace(sight, **changes), PATIENCE)


class TestState:
    def test_each_moment_of_a_release_has_a_name(self):
        asking = Wanted(V2, 2, "a run", "to see", plan=Plan(approval=True))
        unsplit = replace(TRYING.observed, route=Route("blue", None, 2, trial=1))
        assert looks(SETTLED) is State.SETTLED
        assert looks(SETTLED, quiet_s=99) is State.SETTLING
        assert looks(SOAKING) is State.SOAKING
        assert looks(TRYING) is State.RELEASING
        assert looks(TRYING, wanted=asking, observed=unsplit, quiet_s=9_000) is State.ASKING
        assert looks(TRYING, wanted=asking, observed=unsplit, quiet_s=11_000) is State.ABANDONED
        assert looks(TRYING, quiet_s=1001) is State.ABANDONED
        assert looks(SETTLED, wanted=None, observed=Observed(Route(), Slot(), Slot())) is State.EMPTY

    def test_a_release_that_was_turned_down_and_cleared_away_is_settled(self):
        cleared = Observed(Route("blue", None, 2, trial=1), Slot(V1, True), Slot())
        assert looks(TRYING, observed=cleared, evidence=Evidence(FAILED, trial=PASSED), quiet_s=500) is State.SETTLED


@pytest.mark.parametrize("sight", [SETTLED, SOAKING, TRYING], ids=["settled", "soaking", "trying"])
def test_where_all_agree_or_a_release_is_under_way_nothing_is_found(sight):
    assert found(sight) == []


def test_while_a_release_is_under_way_its_run_puts_things_right_and_nobody_else():
    assert found(TRYING, said={"blue": Said("loaded", V1), "green": None}, follows=None, proxied=None) == []
    assert found(SETTLED, quiet_s=99, registry=Registered("1")) == [], "go_live is about to move it"


class TestRegistryAndLedger:
    def test_an_alias_behind_a_finished_soak_follows_the_traffic(self):
        finding = only(SETTLED, registry=Registered("1"))
        assert finding.heal is Heal.MOVE_ALIAS
        assert finding.sentence == "Version 2 serves, and the champion is version 1; the alias follows the traffic."
        assert "the champion is no version" in only(SETTLED, registry=Registered(None)).sentence

    def test_an_alias_that_somebody_moved_ahead_comes_back(self):
        assert found(SETTLED, registry=Registered("3")) == [Heal.MOVE_ALIAS]

    def test_a_mark_of_a_soak_that_is_over_goes(self):
        assert found(SETTLED, registry=Registered("2", ("2",))) == [Heal.UNMARK]

    def test_a_registry_that_is_away_is_compared_another_time(self):
        assert found(SETTLED, registry=None) == []

    def test_a_release_that_the_ledger_does_not_know_is_entered(self):
        assert found(SETTLED, served=V1) == [Heal.ENTER_LIVE]
        assert found(SETTLED, served=None, registry=Registered(None)) == [Heal.ENTER_LIVE, Heal.MOVE_ALIAS]


class TestProcesses:
    def test_a_proxy_that_is_away_is_started_and_one_that_follows_another_route_is_given_ours(self):
        assert found(SETTLED, proxied=None, follows=None) == [Heal.START_PROXY]
        assert found(SETTLED, proxied=Route("blue", None, 1), follows=False) == [Heal.APPLY_ROUTE]

    @pytest.mark.parametrize(
        "said, heal",
        [
            (None, Heal.START_SLOT),
            (Said("loaded", V3), Heal.RELOAD_SLOT),
            (Said("empty", None), Heal.RELOAD_SLOT),
        ],
    )
    @pytest.mark.parametrize("colour", ["blue", "green"])
    def test_a_slot_that_does_not_run_what_its_file_names_is_made_to(self, colour, said, heal):
        finding = only(SETTLED, said={**SETTLED.said, colour: said})
        assert (finding.heal, finding.slot) == (heal, colour)

    def test_a_slot_that_cannot_serve_says_why_and_needs_a_person(self):
        broken = Observed(SETTLED.observed.route, Slot(V1, False), Slot(V2, True))
        finding = only(SETTLED, observed=broken, said={**SETTLED.said, "blue": Said("broken", V1, "It was altered.")})
        assert finding.heal is None
        assert finding.sentence.startswith("Slot blue cannot serve version 1: It was altered. Roll back")

    def test_an_idle_slot_that_still_holds_what_was_discarded_is_emptied(self):
        discarded = Observed(Route("green", None, 2, trial=2), Slot(), Slot(V2, True))
        assert found(SETTLED, observed=discarded) == [Heal.RELOAD_SLOT]

    def test_an_empty_slot_whose_process_is_away_is_nobodys_concern(self):
        discarded = Observed(Route("green", None, 2, trial=2), Slot(), Slot(V2, True))
        assert found(SETTLED, observed=discarded, said={**SETTLED.said, "blue": None}) == []


class TestLeftAlone:
    def test_a_share_that_nobody_watches_is_taken_back(self):
        finding = only(TRYING, quiet_s=1200)
        assert finding.heal is Heal.WITHDRAW
        assert finding.sentence == (
            "The deploy of version 2 has stood at canary for 20 minutes and nobody looks; its share of the requests is "
            "taken back."
        )

    @pytest.mark.parametrize(
        "sight", [SOAKING, replace(TRYING, evidence=Evidence(PASSED, canary=(FAILED,), trial=PASSED))]
    )
    def test_what_is_safe_is_finished(self, sight):
        assert found(sight, quiet_s=1200) == [Heal.RESUME]

    def test_what_would_move_traffic_on_is_named_only(self):
        staged = Observed(Route("blue", None, 2, trial=1), Slot(V1, True), Slot(V2, True))
        finding = only(TRYING, observed=staged, evidence=Evidence(trial=PASSED), quiet_s=1200)
        assert finding.heal is None and "trigger deploy with the version again" in finding.sentence


class TestRecords:
    def test_a_lost_wish_wants_what_serves(self):
        assert found(SETTLED, wanted=None) == [Heal.RESTORE_WISH]
        assert found(SETTLED, wanted=None, damaged=frozenset({"wanted"})) == [Heal.RESTORE_WISH]

    def test_a_lost_route_is_what_the_proxy_follows_else_where_the_ledger_says(self):
        lost = replace(SETTLED, observed=replace(SETTLED.observed, route=Route()))
        assert found(lost) == found(lost, damaged=frozenset({"route"})) == [Heal.RESTORE_ROUTE]
        assert route_to_restore(lost, 7) == SETTLED.proxied
        assert route_to_restore(replace(lost, proxied=None), 7) == Route("green", None, 7)

    def test_a_route_that_nobody_knows_is_for_a_person(self):
        unknown = replace(SETTLED, observed=Observed(Route(), Slot(), Slot()), proxied=None, served=V3)
        finding = only(unknown, damaged=frozenset({"route"}))
        assert finding.heal is None and "name the version that shall serve" in finding.sentence

    def test_a_lost_file_of_the_live_slot_names_what_went_live_last(self):
        lost = replace(SETTLED, observed=Observed(SETTLED.observed.route, Slot(V1, True), Slot()))
        assert found(lost) == found(lost, damaged=frozenset({"green"})) == [Heal.RESTORE_SLOT]
        assert found(lost, said={**SETTLED.said, "green": None}) == [Heal.RESTORE_SLOT]
        assert only(lost, served=V1).heal is None, "the ledger does not know what the process holds"

    def test_a_file_of_the_live_slot_that_somebody_edited_is_put_back_though_its_slot_has_not_read_it(self):
        edited = replace(SETTLED, observed=Observed(SETTLED.observed.route, Slot(V1, True), Slot(V3)))
        finding = only(edited, quiet_s=1)
        assert (
            finding.heal is Heal.RESTORE_SLOT
            and "names version 3, which never went live" in finding.sentence.replace("to name", "names")
        )

    def test_an_idle_slots_damaged_file_empties_it(self):
        finding = only(SETTLED, damaged=frozenset({"blue"}))
        assert (finding.heal, finding.slot) == (Heal.RESTORE_SLOT, "blue")

    def test_the_first_release_of_all_is_not_taken_for_a_lost_route(self):
        first = Observed(Route(), Slot(V1, True), Slot())
        wanted = Wanted(V1, 1, "a run", "to see")
        assert found(SETTLED, observed=first, wanted=wanted, served=None, evidence=Evidence(), quiet_s=1) == []
