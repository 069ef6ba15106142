"""Whole releases: the driver, the release machine, real slots and a real proxy."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from include.kernel.errors import ServiceUnavailable
from include.kernel.words.verdicts import Verdict
from include.release.core.rollout import ReleasePlan, Route, Step
from include.release.targets.local import traffic
from tests import credit
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


def test_a_model_of_fewer_columns_goes_live_and_takes_the_rows_that_clients_send(serving, one_is_live, release):
    assert release("narrow", by="next")[-1] is Step.DONE
    assert serving.answers_with("narrow")
    assert serving.ask({**credit.rows()[0], "Shoes": 1}).status_code == 422


@pytest.mark.parametrize("live", [False, True])
def test_a_head_is_answered_at_once_through_the_proxy(serving, request, live):
    if live:
        request.getfixturevalue("one_is_live")
    with httpx.Client(base_url=serving.addresses.proxy, trust_env=False, timeout=2) as client:
        for path in ("/ready", "/health", "/model", "/metrics", "/ping", "/v2/models/credit"):
            head, got = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (
                200 if live else 503,
                b"",
            ) and got.status_code == head.status_code


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
            return serving.target.read_verdicts(2)["accepted"]["why"]

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
    assert "probes failed while soaking" in serving.target.read_verdicts(2)["soaked"]["why"]


class TestCanary:
    """Version 2 beside version 1 on live requests; the bounds are wide, since both run on whatever machine this is."""

    @staticmethod
    def lenient(**changes):
        wide = {what: {"tolerated": 0.6, "limit": 0.9} for what in ("latency", "scores", "decisions")}
        errors = {"tolerated": 0.05, "limit": 0.5}
        canary = {"weights": [20, 50], "min_requests": 30, "look_s": 0.1, "looks": 600, "errors": errors, **wide}
        return {"release.canary": canary | changes}

    @pytest.fixture
    def wanted(self, serving, trained, one_is_live):
        return serving.want(trained.release("2"), by="next", plan=ReleasePlan(weights=(20, 50)))

    def steps(self, driver, wanted):
        steps = [step for step, _ in driver.run(wanted.generation)]
        return [step for number, step in enumerate(steps) if number == 0 or step != steps[number - 1]]

    def test_a_good_release_gets_rising_shares_and_then_all(self, serving, rollout, wanted, load):
        taken = self.steps(rollout(**self.lenient()), wanted)
        assert taken == [STAGE, AWAIT, VERIFY, Step.CANARY, SWITCH, SOAK, Step.DONE]
        found = serving.target.read_verdicts(wanted.generation)
        assert found["canary-1"]["why"].startswith("20 %: no worse after")
        assert found["canary-2"]["why"].startswith("50 %: no worse after")
        assert set(load) == {200}

    def test_a_release_that_scores_otherwise_is_turned_down_on_a_share_of_the_requests(
        self, serving, trained, one_is_live, rollout, load
    ):
        gloomy = serving.want(trained.release("gloomy"), by="next", plan=ReleasePlan(weights=(20, 50)))
        strict = self.lenient(scores={"tolerated": 0.0, "limit": 0.01}, min_requests=100_000)
        taken = self.steps(rollout(**strict), gloomy)
        assert taken[-4:] == [Step.CANARY, Step.WITHDRAW, Step.DISCARD, Step.REJECTED]
        assert "scores worse by" in serving.target.read_verdicts(gloomy.generation)["canary-1"]["why"]
        assert serving.answers_with("1") and set(load) == {200}

    def test_without_traffic_nothing_is_proved_and_the_release_is_taken_back(self, serving, rollout, wanted):
        taken = self.steps(rollout(**self.lenient(looks=5)), wanted)
        assert taken[-4:] == [Step.CANARY, Step.WITHDRAW, Step.DISCARD, Step.REJECTED]
        why = serving.target.read_verdicts(wanted.generation)["canary-1"]["why"]
        assert why == "20 %: undecided after 5 looks: 0 of 30 requests"

    def test_a_candidate_that_dies_in_its_canary_is_turned_down_and_no_request_fails(
        self, serving, rollout, wanted, load
    ):
        driver, steps = rollout(**self.lenient(min_requests=100_000)), []
        for step, _ in driver.run(wanted.generation):
            if step is Step.CANARY and Step.CANARY not in steps:
                serving.kill("slot-green")
            steps.append(step)
        assert steps[-3:] == [Step.WITHDRAW, Step.DISCARD, Step.REJECTED]
        assert "process ended" in serving.target.read_verdicts(wanted.generation)["canary-1"]["why"]
        assert serving.answers_with("1") and set(load) == {200}


def test_a_newer_wish_takes_over_from_a_release_that_is_soaking(serving, one_is_live, release, rollout, wish):
    wanted = wish("2", by="next")
    taken: list[Step] = []
    run = rollout(**{"release.soak_s": 900}).run(wanted.generation)
    following = threading.Thread(target=lambda: taken.extend(step for step, _ in run))
    following.start()
    wait_for(lambda: serving.answers_with("2") or not following.is_alive())
    assert serving.answers_with("2"), taken
    assert release("1", by="a person", kind="rollback")[-1] is Step.DONE
    following.join(120)
    assert taken[-1] is Step.SUPERSEDED
    assert serving.answers_with("1")
    assert serving.target.read_evidence(wanted.generation).soaked is Verdict.PENDING


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
    monkeypatch.setattr(traffic, "ROUTE_TIMEOUT_S", 1.0)
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
