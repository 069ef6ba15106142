"""Wishes that meet on the real target: whichever comes when, there is one live release and every run says how it ended.

Nothing here depends on how two threads interleave: a run is taken to a step, another one begins, and both go on. What a
wish may be refused for before it is stored stands in tests/plugins/test_wishes.
"""

from __future__ import annotations

import pytest

from include.kernel.words.verdicts import Verdict
from include.release.core.rollout import Step

STEPS = (Step.STAGE, Step.AWAIT, Step.VERIFY, Step.SWITCH, Step.SOAK)


@pytest.fixture
def taken_to(rollout):
    """Takes a wish up to and with the given step; gives how to go on to its end."""

    def made(wanted, last: Step):
        driver = rollout(**{"release.soak_s": 30, "release.soak_interval_s": 0.1})
        while driver.advance(wanted.generation) is not last:
            pass
        return lambda: [step for step, _ in rollout().run(wanted.generation)][-1]

    return made


@pytest.mark.parametrize("last", STEPS)
def test_a_rollback_takes_over_from_a_deployment_at_any_step(serving, one_is_live, wish, taken_to, release, last):
    go_on = taken_to(wish("2", by="deploy"), last)
    assert release("1", by="a person", kind="rollback")[-1] is Step.DONE
    assert go_on() is Step.SUPERSEDED
    assert serving.answers_with("1") and serving.target.observe().route.live == "blue"


@pytest.mark.parametrize("last", [Step.STAGE, Step.VERIFY, Step.SWITCH])
def test_a_newer_deployment_takes_over_from_an_older_one_at_any_step(
    serving, one_is_live, wish, taken_to, release, last
):
    go_on = taken_to(wish("2", by="deploy 1"), last)
    steps = release("gloomy", by="deploy 2")
    assert steps[-1] is Step.DONE and go_on() is Step.SUPERSEDED
    assert serving.answers_with("gloomy")
    began = [step for step in steps if step in (Step.SOAK, Step.STAGE)]
    assert began[0] is (Step.SOAK if last is Step.SWITCH else Step.STAGE), "a trial is finished first"


@pytest.mark.parametrize("last", [Step.AWAIT, Step.SOAK])
def test_two_runs_for_the_same_version_follow_one_release_and_both_say_it_serves(
    serving, one_is_live, wish, taken_to, release, last
):
    first = wish("2", by="deploy 1")
    go_on = taken_to(first, last)
    assert release("2", by="deploy 2")[-1] is Step.DONE
    assert go_on() is Step.DONE
    assert serving.target.read_desired_state() == first, "one wish, one generation"
    assert serving.answers_with("2")


def test_a_version_that_served_before_and_is_deployed_again_is_verified_like_any_other(
    serving, one_is_live, wish, release
):
    assert release("2", by="deploy 1")[-1] is Step.DONE
    assert release("1", by="deploy 2") == [Step.VERIFY, Step.SWITCH, Step.SOAK, Step.DONE]
    assert serving.answers_with("1") and serving.target.observe().route.standby == "green"


def test_a_first_release_that_fails_its_soak_goes_on_serving_since_there_is_nothing_else(serving, rollout, wish):
    wanted, steps = wish("1"), []
    for step, _ in rollout(**{"release.soak_s": 30}).run(wanted.generation):
        steps.append(step)
        if step is Step.SWITCH:
            serving.stop("slot-blue")
    assert steps[-2:] == [Step.SOAK, Step.DONE]
    assert serving.target.read_verdicts(wanted.generation)["soaked"]["verdict"] == Verdict.FAILED.value
    serving.start_all()
    assert serving.answers_with("1"), "and comes back by itself"
