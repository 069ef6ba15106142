"""A release that a person has to agree to, on real slots behind a real proxy."""

from __future__ import annotations

import pytest

from include.kernel.words.verdicts import Verdict
from include.release.core.rollout import ReleasePlan, Route, Step


@pytest.fixture
def asked(serving, trained, one_is_live, rollout):
    """Version 2 up to the question; gives its wish and how to go on."""
    wanted = serving.want(trained.release("2"), by="next", plan=ReleasePlan(approval=True))

    def go_on() -> list[Step]:
        steps = [step for step, _ in rollout().run(wanted.generation)]
        return [step for number, step in enumerate(steps) if number == 0 or step != steps[number - 1]]

    assert go_on() == [Step.STAGE, Step.AWAIT, Step.VERIFY, Step.APPROVE]
    return wanted, go_on


def test_without_an_answer_nothing_moves_however_often_it_is_looked_at(serving, asked):
    wanted, go_on = asked
    assert go_on() == [Step.APPROVE]
    assert serving.answers_with("1") and serving.target.read_desired_state() == wanted


def test_a_yes_is_followed_by_the_switch(serving, asked):
    wanted, go_on = asked
    serving.target.record_verdict(wanted.generation, "approved", Verdict.PASSED, "approved by ada")
    assert go_on() == [Step.SWITCH, Step.SOAK, Step.DONE]
    assert serving.answers_with("2")


def test_a_no_clears_the_release_away(serving, asked):
    wanted, go_on = asked
    serving.target.record_verdict(wanted.generation, "approved", Verdict.FAILED, "refused by ada: unfair")
    assert go_on() == [Step.DISCARD, Step.REJECTED]
    assert serving.answers_with("1") and serving.target.observe().green.release is None


def test_a_rollback_waits_for_nobodys_answer(serving, asked, release):
    _, go_on = asked
    assert release("1", by="a person", kind="rollback") == [Step.DONE]
    assert go_on() == [Step.SUPERSEDED]
    assert serving.target.observe().route == Route("blue", None, 2, trial=1)
