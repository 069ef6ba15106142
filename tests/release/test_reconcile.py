"""Every disagreement between registry, ledger and world, made one by one from a world in which all agree."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.kernel.words.verdicts import Verdict
from include.release.core.reconcile import (
    Finding,
    ReconcileTimeouts,
    RegistryStatus,
    RepairAction,
    SlotReport,
    SystemView,
    TargetState,
    classify_state,
    find_route_to_restore,
    list_findings,
)
from include.release.core.rollout import DesiredState, Evidence, ObservedStatus, Release, ReleasePlan, Route, Slot

V1, V2, V3 = (Release(name, name * 8) for name in ("1", "2", "3"))
PENDING, PASSED, FAILED = Verdict.PENDING, Verdict.PASSED, Verdict.FAILED
PATIENCE = ReconcileTimeouts(settle_s=100, abandoned_s=1000, approval_s=10_000)
SETTLED = SystemView(
    observed=ObservedStatus(Route("green", "blue", 2, trial=2), Slot(V1, True), Slot(V2, True)),
    slot_reports={"blue": SlotReport("loaded", V1), "green": SlotReport("loaded", V2)},
    desired=DesiredState(V2, 2, "a run", "to see"),
    evidence=Evidence(PASSED, soaked=PASSED, trial=PASSED),
    effective_route=Route("green", "blue", 2, trial=2),
    is_in_sync=True,
    ledger_release=V2,
    idle_s=500,
    registry=RegistryStatus("2"),
)
SOAKING = replace(
    SETTLED, evidence=Evidence(PASSED, trial=PENDING), ledger_release=V1, registry=RegistryStatus("1", ("2",)), idle_s=1
)
TRYING = replace(
    SETTLED,
    observed=ObservedStatus(Route("blue", None, 2, share=5, trial=1), Slot(V1, True), Slot(V2, True)),
    desired=DesiredState(V2, 2, "a run", "to see", plan=ReleasePlan(weights=(5, 50))),
    evidence=Evidence(PASSED, trial=PASSED),
    ledger_release=V1,
    registry=RegistryStatus("1"),
    idle_s=1,
)


def found(sight: SystemView, **changes) -> list[RepairAction | None]:
    return [finding.repair for finding in list_findings(replace(sight, **changes), PATIENCE)]


def only(sight: SystemView, **changes) -> Finding:
    [finding] = list_findings(replace(sight, **changes), PATIENCE)
    return finding


def looks(sight: SystemView, **changes) -> TargetState:
    return classify_state(replace(sight, **changes), PATIENCE)


class TestState:
    def test_each_moment_of_a_release_has_a_name(self):
        asking = DesiredState(V2, 2, "a run", "to see", plan=ReleasePlan(approval=True))
        unsplit = replace(TRYING.observed, route=Route("blue", None, 2, trial=1))
        assert looks(SETTLED) is TargetState.SETTLED
        assert looks(SETTLED, idle_s=99) is TargetState.SETTLING
        assert looks(SOAKING) is TargetState.SOAKING
        assert looks(TRYING) is TargetState.RELEASING
        assert looks(TRYING, desired=asking, observed=unsplit, idle_s=9_000) is TargetState.ASKING
        assert looks(TRYING, desired=asking, observed=unsplit, idle_s=11_000) is TargetState.ABANDONED
        assert looks(TRYING, idle_s=1001) is TargetState.ABANDONED
        assert looks(SETTLED, desired=None, observed=ObservedStatus(Route(), Slot(), Slot())) is TargetState.EMPTY

    def test_a_release_that_was_turned_down_and_cleared_away_is_settled(self):
        cleared = ObservedStatus(Route("blue", None, 2, trial=1), Slot(V1, True), Slot())
        assert (
            looks(TRYING, observed=cleared, evidence=Evidence(FAILED, trial=PASSED), idle_s=500) is TargetState.SETTLED
        )


@pytest.mark.parametrize("sight", [SETTLED, SOAKING, TRYING], ids=["settled", "soaking", "trying"])
def test_where_all_agree_or_a_release_is_under_way_nothing_is_found(sight):
    assert found(sight) == []


def test_while_a_release_is_under_way_its_run_puts_things_right_and_nobody_else():
    assert (
        found(
            TRYING,
            slot_reports={"blue": SlotReport("loaded", V1), "green": None},
            is_in_sync=None,
            effective_route=None,
        )
        == []
    )
    assert found(SETTLED, idle_s=99, registry=RegistryStatus("1")) == [], "go_live is about to move it"


class TestRegistryAndLedger:
    def test_an_alias_behind_a_finished_soak_follows_the_traffic(self):
        finding = only(SETTLED, registry=RegistryStatus("1"))
        assert finding.repair is RepairAction.MOVE_ALIAS
        assert finding.sentence == "Version 2 serves, and the champion is version 1; the alias follows the traffic."
        assert "the champion is no version" in only(SETTLED, registry=RegistryStatus(None)).sentence

    def test_an_alias_that_somebody_moved_ahead_comes_back(self):
        assert found(SETTLED, registry=RegistryStatus("3")) == [RepairAction.MOVE_ALIAS]

    def test_a_mark_of_a_soak_that_is_over_goes(self):
        assert found(SETTLED, registry=RegistryStatus("2", ("2",))) == [RepairAction.UNMARK]

    def test_a_registry_that_is_away_is_compared_another_time(self):
        assert found(SETTLED, registry=None) == []

    def test_a_release_that_the_ledger_does_not_know_is_entered(self):
        assert found(SETTLED, ledger_release=V1) == [RepairAction.ENTER_LIVE]
        assert found(SETTLED, ledger_release=None, registry=RegistryStatus(None)) == [
            RepairAction.ENTER_LIVE,
            RepairAction.MOVE_ALIAS,
        ]


class TestProcesses:
    def test_a_proxy_that_is_away_is_started_and_one_that_follows_another_route_is_given_ours(self):
        assert found(SETTLED, effective_route=None, is_in_sync=None) == [RepairAction.START_PROXY]
        assert found(SETTLED, effective_route=Route("blue", None, 1), is_in_sync=False) == [RepairAction.APPLY_ROUTE]

    @pytest.mark.parametrize(
        "said, heal",
        [
            (None, RepairAction.START_SLOT),
            (SlotReport("loaded", V3), RepairAction.RELOAD_SLOT),
            (SlotReport("empty", None), RepairAction.RELOAD_SLOT),
        ],
    )
    @pytest.mark.parametrize("colour", ["blue", "green"])
    def test_a_slot_that_does_not_run_what_its_file_names_is_made_to(self, colour, said, heal):
        finding = only(SETTLED, slot_reports={**SETTLED.slot_reports, colour: said})
        assert (finding.repair, finding.slot) == (heal, colour)

    def test_a_slot_that_cannot_serve_says_why_and_needs_a_person(self):
        broken = ObservedStatus(SETTLED.observed.route, Slot(V1, False), Slot(V2, True))
        finding = only(
            SETTLED,
            observed=broken,
            slot_reports={**SETTLED.slot_reports, "blue": SlotReport("broken", V1, "It was altered.")},
        )
        assert finding.repair is None
        assert finding.sentence.startswith("Slot blue cannot serve version 1: It was altered. Roll back")

    def test_an_idle_slot_that_still_holds_what_was_discarded_is_emptied(self):
        discarded = ObservedStatus(Route("green", None, 2, trial=2), Slot(), Slot(V2, True))
        assert found(SETTLED, observed=discarded) == [RepairAction.RELOAD_SLOT]

    def test_an_empty_slot_whose_process_is_away_is_nobodys_concern(self):
        discarded = ObservedStatus(Route("green", None, 2, trial=2), Slot(), Slot(V2, True))
        assert found(SETTLED, observed=discarded, slot_reports={**SETTLED.slot_reports, "blue": None}) == []


class TestLeftAlone:
    def test_a_share_that_nobody_watches_is_taken_back(self):
        finding = only(TRYING, idle_s=1200)
        assert finding.repair is RepairAction.WITHDRAW
        assert finding.sentence == (
            "The deploy of version 2 has stood at canary for 20 minutes and nobody looks; its share of the requests is "
            "taken back."
        )

    @pytest.mark.parametrize(
        "sight", [SOAKING, replace(TRYING, evidence=Evidence(PASSED, canary=(FAILED,), trial=PASSED))]
    )
    def test_what_is_safe_is_finished(self, sight):
        assert found(sight, idle_s=1200) == [RepairAction.RESUME]

    def test_what_would_move_traffic_on_is_named_only(self):
        staged = ObservedStatus(Route("blue", None, 2, trial=1), Slot(V1, True), Slot(V2, True))
        finding = only(TRYING, observed=staged, evidence=Evidence(trial=PASSED), idle_s=1200)
        assert finding.repair is None and "trigger deploy with the version again" in finding.sentence


class TestRecords:
    def test_a_lost_wish_wants_what_serves(self):
        assert found(SETTLED, desired=None) == [RepairAction.RESTORE_DESIRED_STATE]
        assert found(SETTLED, desired=None, damaged=frozenset({"wanted"})) == [RepairAction.RESTORE_DESIRED_STATE]

    def test_a_lost_route_is_what_the_proxy_follows_else_where_the_ledger_says(self):
        lost = replace(SETTLED, observed=replace(SETTLED.observed, route=Route()))
        assert found(lost) == found(lost, damaged=frozenset({"route"})) == [RepairAction.RESTORE_ROUTE]
        assert find_route_to_restore(lost, 7) == SETTLED.effective_route
        assert find_route_to_restore(replace(lost, effective_route=None), 7) == Route("green", None, 7)

    def test_a_route_that_nobody_knows_is_for_a_person(self):
        unknown = replace(
            SETTLED, observed=ObservedStatus(Route(), Slot(), Slot()), effective_route=None, ledger_release=V3
        )
        finding = only(unknown, damaged=frozenset({"route"}))
        assert finding.repair is None and "name the version that shall serve" in finding.sentence

    def test_a_lost_file_of_the_live_slot_names_what_went_live_last(self):
        lost = replace(SETTLED, observed=ObservedStatus(SETTLED.observed.route, Slot(V1, True), Slot()))
        assert found(lost) == found(lost, damaged=frozenset({"green"})) == [RepairAction.RESTORE_SLOT]
        assert found(lost, slot_reports={**SETTLED.slot_reports, "green": None}) == [RepairAction.RESTORE_SLOT]
        assert only(lost, ledger_release=V1).repair is None, "the ledger does not know what the process holds"

    def test_a_file_of_the_live_slot_that_somebody_edited_is_put_back_though_its_slot_has_not_read_it(self):
        edited = replace(SETTLED, observed=ObservedStatus(SETTLED.observed.route, Slot(V1, True), Slot(V3)))
        finding = only(edited, idle_s=1)
        assert (
            finding.repair is RepairAction.RESTORE_SLOT
            and "names version 3, which never went live" in finding.sentence.replace("to name", "names")
        )

    def test_an_idle_slots_damaged_file_empties_it(self):
        finding = only(SETTLED, damaged=frozenset({"blue"}))
        assert (finding.repair, finding.slot) == (RepairAction.RESTORE_SLOT, "blue")

    def test_the_first_release_of_all_is_not_taken_for_a_lost_route(self):
        first = ObservedStatus(Route(), Slot(V1, True), Slot())
        wanted = DesiredState(V1, 1, "a run", "to see")
        assert found(SETTLED, observed=first, desired=wanted, ledger_release=None, evidence=Evidence(), idle_s=1) == []
