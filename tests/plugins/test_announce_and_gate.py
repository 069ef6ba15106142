from __future__ import annotations

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.assets import DRIFT_DETECTED, MODEL_BLESSED, MODEL_LIVE
from evergreen.operators.announce import AnnounceOperator
from evergreen.operators.gate import GateOperator
from evergreen.operators.registry import BlessOperator, PromoteOperator
from tests.plugins.conftest import context

EPISODE = {"key": "drift-3-2026-08-20", "sentence": "Income moved", "moved": {"Income": 0.4}}
RESULT = {"verdict": "yes", "summary": "a week of rows", "outputs": {"id": "abc", "rows": 90}}


def announcement(told, **options):
    options = {"fields": list(told.get("outputs", told)), **options}
    return AnnounceOperator(task_id="announce", asset=DRIFT_DETECTED, told=told, **options)


def emitted(found, asset=DRIFT_DETECTED):
    return found["outlet_events"][asset].extra


class TestAnnounce:
    def test_the_named_fields_travel_with_the_intent(self, world):
        found = context()
        announcement(RESULT, fields=["rows"]).execute(found)
        assert emitted(found) == {"rows": 90, "intent": "live"}

    @pytest.mark.parametrize("intent", ["historical", "rehearsal"])
    def test_only_a_live_run_announces(self, world, intent):
        found = context(params={"intent": intent})
        with pytest.raises(AirflowSkipException, match=f"A {intent} run announces nothing"):
            announcement(RESULT).execute(found)
        assert emitted(found) == {}

    def test_a_backfill_announces_nothing_whatever_its_form_says(self, world):
        with pytest.raises(AirflowSkipException, match="historical"):
            announcement(RESULT).execute(context(run_type="backfill", params={"intent": "live"}))

    def test_a_no_is_not_announced_and_the_reason_is_told(self, world):
        with pytest.raises(AirflowSkipException, match="no rows were delivered"):
            announcement({**RESULT, "verdict": "no", "summary": "no rows were delivered"}).execute(context())

    def test_a_key_is_announced_once_however_many_runs_find_it(self, world):
        announcement(EPISODE, once=EPISODE["key"]).execute(context(run_id="first"))
        later = context(run_id="second")
        with pytest.raises(AirflowSkipException, match="was announced already"):
            announcement(EPISODE, once=EPISODE["key"]).execute(later)
        assert emitted(later) == {}

    def test_a_retry_of_the_run_that_announced_it_announces_it(self, world):
        for _ in range(2):
            found = context(run_id="first")
            announcement(EPISODE, once=EPISODE["key"]).execute(found)
            assert emitted(found)["key"] == EPISODE["key"]
        assert len(list(world.ledger().entries("drift.detected"))) == 1

    def test_a_skipped_announcement_leaves_the_key_for_a_live_run(self, world):
        with pytest.raises(AirflowSkipException):
            announcement(EPISODE, once=EPISODE["key"]).execute(context(run_type="backfill"))
        found = context(run_id="live")
        announcement(EPISODE, once=EPISODE["key"]).execute(found)
        assert emitted(found)["key"] == EPISODE["key"]


class TestGate:
    @staticmethod
    def gate(verdict):
        with DAG("d", schedule=None):
            told = {"verdict": verdict, "summary": "cost falls by 3 %", "outputs": {"run_id": "r1"}}
            gate = GateOperator(task_id="gate", told=told)
            gate >> [BaseOperator(task_id="b"), BaseOperator(task_id="a")]
        return gate

    def test_on_yes_everything_after_it_goes_on(self, world):
        assert self.gate("yes").choose_branch(context()) == ["a", "b"]
        assert [entry.what for entry in world.ledger().entries()] == ["gate.passed"]

    @pytest.mark.parametrize("verdict", ["no", "wait"])
    def test_on_anything_else_nothing_does_and_that_is_no_failure(self, world, verdict):
        assert self.gate(verdict).choose_branch(context()) is None
        [entry] = world.ledger().entries()
        assert (entry.what, entry.subject, entry.why) == ("gate.refused", "r1", "cost falls by 3 %")

    def test_a_retry_writes_no_second_decision(self, world):
        for _ in range(2):
            self.gate("yes").choose_branch(context())
        assert len(list(world.ledger().entries())) == 1


class TestRegistryOperators:
    @pytest.mark.parametrize("found", [context(run_type="backfill"), context(params={"intent": "rehearsal"})])
    def test_only_a_live_training_is_blessed(self, world, found):
        with pytest.raises(AirflowSkipException, match="never blessed"):
            BlessOperator(task_id="bless", told=RESULT).execute(found)
        assert emitted(found, MODEL_BLESSED) == {}

    def test_a_release_that_went_well_becomes_the_champion_and_is_told(self, world):
        found = context()
        told = {"verdict": "yes", "summary": "serves all traffic", "outputs": {"version": "7", "digest": "d"}}
        PromoteOperator(task_id="go_live", told=told).execute(found)
        assert world.shelf.champion == "7"
        assert emitted(found, MODEL_LIVE) == {"version": "7", "intent": "live"}
        assert [entry.subject for entry in world.ledger().entries("release.live")] == ["7"]

    def test_one_that_did_not_moves_nothing(self, world):
        told = {"verdict": "no", "summary": "version 7 was rejected", "outputs": {"version": "7"}}
        with pytest.raises(AirflowSkipException, match="version 7 was rejected"):
            PromoteOperator(task_id="go_live", told=told).execute(context())
        assert world.shelf.champion is None
        assert list(world.ledger().entries()) == []
