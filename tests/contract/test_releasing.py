"""Whole releases: the driver, the release machine, real slots and a real proxy."""

from __future__ import annotations

import threading
import time

import pytest

from include.adapters import serving_local
from include.core.errors import ServiceUnavailable
from include.core.rollout import Route, Step, Verdict
from tests.ground import wait_for

STAGE, AWAIT, VERIFY, SWITCH, SOAK = Step.STAGE, Step.AWAIT, Step.VERIFY, Step.SWITCH, Step.SOAK


def test_first_release_second_release_and_the_way_back(serving, release):
    assert release("1") == [STAGE, AWAIT, VERIFY, SWITCH, SOAK, Step.DONE]
    assert serving.answers_with("1")
    assert serving.target.observe().route == Route("blue", None, 1, trial=1)

    assert release("2", by="next") == [STAGE, AWAIT, VERIFY, SWITCH, SOAK, Step.DONE]
    assert serving.answers_with("2")
    assert serving.target.observe().route == Route("green", "blue", 2, trial=2)
    assert serving.target.observe().blue.ready, "the standby is warm"

    assert release("1", by="a person", kind="rollback") == [VERIFY, SWITCH, Step.DONE]
    assert serving.answers_with("1")


def test_a_release_that_is_live_already_and_proved_itself_is_done(serving, one_is_live, release):
    assert release("1", by="again") == [Step.DONE]
    assert serving.answers_with("1")


class TestRejected:
    @pytest.fixture
    def rejected(self, serving, one_is_live, release):
        """Releases the bad version over the good one; gives why it was turned down."""

        def turned_down(version: str, **changes) -> str:
            steps = release(version, by="next", **changes)
            assert steps[-2:] == [Step.DISCARD, Step.REJECTED] and SWITCH not in steps
            assert serving.answers_with("1")
            assert serving.target.observe().green.release is None
            return serving.target.verdicts(2)["accepted"]["why"]

        return turned_down

    def test_a_model_that_cannot_be_loaded_is_turned_down_at_once_with_the_slots_own_reason(self, rejected):
        began = time.monotonic()
        why = rejected("unloadable", **{"serving.ready_timeout_s": 200})
        assert why.startswith("slot green cannot serve it: ")
        assert "model" in why.removeprefix("slot green cannot serve it: ")
        assert time.monotonic() - began < 60

    def test_a_slot_that_does_not_answer_in_time_is_told_as_that(self, rejected):
        why = rejected("2", **{"serving.ready_timeout_s": 0.01})
        assert why == "slot green was not ready within 0.01 s: slot green does not answer"

    def test_a_model_that_answers_too_late_is_turned_down(self, rejected):
        assert "serving.max_latency_ms is 0.01" in rejected("2", **{"serving.max_latency_ms": 0.01})

    def test_a_model_that_wants_a_column_nobody_sends_fails_its_smoke_test_and_the_next_one_goes_well(
        self, serving, rejected, release
    ):
        assert rejected("extra-column") == "a smoke request was answered 422: Salary must be given."
        assert release("2", by="a third run")[-1] is Step.DONE
        assert serving.answers_with("2")

    def test_the_first_release_of_all_may_be_turned_down_too(self, serving, release):
        assert release("extra-column")[-2:] == [Step.DISCARD, Step.REJECTED]
        assert serving.ask().status_code == 503


def test_a_release_that_fails_its_soak_is_reverted_and_cleared_away(serving, one_is_live, rollout, wish):
    wanted = wish("2", by="next")
    driver = rollout(**{"release.soak_s": 20})
    steps = []
    for step, _ in driver.run(wanted.generation):
        steps.append(step)
        if step is SWITCH:
            serving.stop("slot-green")
    assert steps[-4:] == [SOAK, Step.REVERT, Step.DISCARD, Step.REJECTED]
    assert serving.answers_with("1")
    assert "probes failed while soaking" in serving.target.verdicts(2)["soaked"]["why"]


def test_a_newer_wish_takes_over_from_a_release_that_is_soaking(serving, one_is_live, release, rollout, wish):
    wanted = wish("2", by="next")
    taken: list[Step] = []
    run = rollout(**{"release.soak_s": 60}).run(wanted.generation)
    following = threading.Thread(target=lambda: taken.extend(step for step, _ in run))
    following.start()
    wait_for(lambda: serving.answers_with("2"))
    assert release("1", by="a person", kind="rollback")[-1] is Step.DONE
    following.join(10)
    assert taken[-1] is Step.SUPERSEDED
    assert serving.answers_with("1")
    assert serving.target.evidence(wanted.generation).soaked is Verdict.PENDING


def test_a_run_that_was_killed_anywhere_is_continued_by_another(serving, rollout, wish):
    """A driver keeps nothing, so a fresh one for every single step is as good as one for all."""
    wanted = wish("1")
    taken = []
    while not taken or not taken[-1].is_terminal:
        taken.append(rollout().advance(wanted.generation))
    assert taken[-1] is Step.DONE
    assert serving.answers_with("1")


def test_a_proxy_that_is_down_is_one_sentence_and_the_same_run_goes_on_when_it_is_back(
    serving, rollout, wish, monkeypatch
):
    monkeypatch.setattr(serving_local, "ROUTE_TIMEOUT_S", 1.0)
    wanted = wish("1")
    serving.stop("envoy")
    with pytest.raises(ServiceUnavailable, match=r"Envoy at .* has not taken over the route of generation 1"):
        list(rollout().run(wanted.generation))
    serving.start_all()
    steps = [step for step, _ in rollout().run(wanted.generation)]
    assert steps[-1] is Step.DONE
    assert serving.answers_with("1")


def test_the_traffic_is_answered_throughout_a_release(serving, one_is_live, release):
    seen, done = [], threading.Event()

    def client() -> None:
        while not done.is_set():
            answer = serving.ask()
            seen.append((answer.status_code, answer.json().get("version")))

    asking = threading.Thread(target=client)
    asking.start()
    release("2", by="next")
    done.set()
    asking.join()
    assert {status for status, _ in seen} == {200}
    versions = [version for _, version in seen]
    assert versions == sorted(versions) and set(versions) == {"1", "2"}
