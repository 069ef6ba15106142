"""What a person's answer, and a person's silence, does to the run; Airflow's own part is played by its own classes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from evergreen.operators.approval import ApproveOperator, ApproveReleaseOperator
from include.manifest import read_manifest
from include.model.blessing.approval import render_release_approval
from tests.blessed import REPORT
from tests.plugins.conftest import context

TOLD = {"outputs": {"gate": REPORT | {"verdict": "inconclusive"}, "run_id": "r1", "digest": "7" * 64}}
NOW = datetime(2026, 8, 20, 9, tzinfo=UTC)
SILENCE = {"error": "The response timeout has passed.", "error_type": "timeout"}


def answered(option: str, why: str = "") -> dict:
    user = {"id": "1", "name": "ada"}
    given = {"chosen_options": [option], "params_input": {"why": why}, "timedout": False}
    return {**given, "responded_at": NOW, "responded_by_user": user}


def ask_a_person() -> ApproveOperator:
    return ApproveOperator(task_id="approve", manifest=read_manifest(), result=TOLD)


def ask_before_the_switch(told: dict) -> ApproveReleaseOperator:
    return ApproveReleaseOperator(task_id="approve", manifest=read_manifest(), result=told)


def resume(event: dict, **run):
    return ask_a_person().execute_complete(context(**run), event)


def written(world) -> list[tuple[str, str, str, str]]:
    return [(entry.what, entry.subject, entry.who, entry.why) for entry in world.open_ledger().read_entries()]


def test_a_yes_is_handed_on_with_who_and_why_and_stands_in_the_ledger(world):
    assert resume(answered("Approve", " better for the young ")) == {
        "who": "ada",
        "why": "better for the young",
        "at": "2026-08-20T09:00:00Z",
    }
    assert written(world) == [("approval.given", "r1", "ada", "better for the young")]


def test_a_no_fails_the_run_for_good_and_names_who_and_why(world):
    with pytest.raises(AirflowFailException, match=r"The release was refused by ada: unfair\."):
        resume(answered("Reject", "unfair"))
    assert written(world) == [("approval.refused", "r1", "ada", "unfair")]


def test_silence_fails_the_run_for_good_and_says_how_long_was_waited(world, small):
    small(**{"gate.approval_hours": 1.5})
    with pytest.raises(AirflowFailException, match=r"Nobody answered within gate\.approval_hours \(1\.5\)"):
        resume(SILENCE)
    [(what, _, who, why)] = written(world)
    assert (what, who) == ("approval.expired", "a_dag a_run") and "Nobody answered" in why


def test_an_answer_without_a_reason_says_so(world):
    with pytest.raises(AirflowFailException, match="refused by ada: no reason"):
        resume(answered("Reject"))
    assert [entry.why for entry in world.open_ledger().read_entries()] == ["no reason was given"]


def test_a_retry_writes_no_second_answer(world):
    for _ in range(2):
        resume(answered("Approve", "fine"))
    assert len(written(world)) == 1


def test_a_retry_that_lost_a_yes_does_not_ask_again(world):
    given = resume(answered("Approve", "fine"))
    assert ask_a_person().execute(context()) == given
    with pytest.raises(KeyError, match="task_instance"):  # Airflow's own question, as far as it comes without a server
        ask_a_person().execute(context(run_id="a later run is asked anew"))


def test_the_form_asks_for_a_reason_and_for_nothing_the_run_was_started_with(bag_of_train):
    approve = bag_of_train.get_task("approve")
    assert list(approve.serialized_params) == ["why"]
    assert approve.response_timeout.total_seconds() == 24 * 3600


@pytest.fixture
def bag_of_train():
    return dag("train")


def dag(name: str):
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(f"dags/{name}.py").dags[name]


class TestRelease:
    """The question before the switch; what the machine makes of the answer is tests/contract/test_release_approval."""

    OUTPUTS: ClassVar = {
        "generation": 4,
        "version": "7",
        "digest": "7" * 64,
        "evidence": {"accepted": {"verdict": "passed", "why": "answered | as expected"}},
    }

    def resume(self, event: dict, **run):
        told = {"verdict": "ask", "summary": "", "outputs": self.OUTPUTS}
        return ask_before_the_switch(told).execute_complete(context(**run), event)

    def verdict(self, world) -> dict[str, str]:
        return world.open_target().read_verdicts(4)["approved"]

    def test_a_yes_lies_beside_the_target_with_who_and_why(self, world):
        self.resume(answered("Approve", "fits the season"))
        assert self.verdict(world) == {"verdict": "passed", "why": "given by ada: fits the season"}
        assert written(world) == [("approval.given", "7", "ada", "fits the season")]

    def test_a_retry_that_lost_an_answer_does_not_ask_again(self, world):
        self.resume(answered("Reject", "not on a Friday"))
        told = {"verdict": "ask", "summary": "", "outputs": self.OUTPUTS}
        again = ask_before_the_switch(told).execute(context())
        assert again == {"yes": False, "why": "refused by ada: not on a Friday"}

    def test_a_no_fails_nothing_since_the_rollout_clears_it_away(self, world):
        assert self.resume(answered("Reject", "not on a Friday"))["yes"] is False
        assert self.verdict(world) == {"verdict": "failed", "why": "refused by ada: not on a Friday"}

    @pytest.mark.parametrize("silence, verdict", [("refuse", "failed"), ("switch", "passed")])
    def test_silence_is_what_the_manifest_takes_it_for(self, world, small, silence, verdict):
        small(**{"release.silence": silence, "release.approval_hours": 2})
        self.resume(SILENCE)
        found = self.verdict(world)
        assert found["verdict"] == verdict and "nobody answered within release.approval_hours (2)" in found["why"]
        assert [what for what, *_ in written(world)] == ["approval.expired"]

    def test_a_release_that_ended_before_the_question_is_not_asked_about(self, world):
        told = {"verdict": "no", "summary": "version 7 was rejected", "outputs": {}}
        with pytest.raises(AirflowSkipException, match="version 7 was rejected"):
            ask_before_the_switch(told).execute(context())

    def test_the_form_shows_which_version_replaces_which_and_every_verdict(self):
        body = render_release_approval(self.OUTPUTS, "6")
        assert "**Version 7 is ready to get all requests, instead of version 6.**" in body
        assert "| accepted | passed | answered \\| as expected |" in body
        assert "as the first release of all" in render_release_approval(self.OUTPUTS, None)

    def test_the_dag_asks_only_where_the_manifest_says_so(self, small):
        small()
        assert set(dag("deploy").task_ids) == {"reconcile", "want", "rollout", "go_live"}
        small(**{"release.approval": "before_switch"})
        asking = dag("deploy")
        assert set(asking.task_ids) == {"reconcile", "want", "try_out", "approve", "rollout", "go_live"}
        assert asking.get_task("approve").downstream_task_ids == {"rollout"}
