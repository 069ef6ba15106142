"""Shadows on real slots behind a real proxy: what is compared, what is decided, and what no client ever sees."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import httpx
import pytest

from include.release.core.rollout import ReleasePlan, Step
from tests.ground import wait_for

STAGE, AWAIT, VERIFY, SHADOW = Step.STAGE, Step.AWAIT, Step.VERIFY, Step.SHADOW
CLEARED = [SHADOW, Step.WITHDRAW, Step.DISCARD, Step.REJECTED]


def limits(**changes: Any) -> dict[str, Any]:
    """Of latency nothing is asked: whose machine this is, nobody knows."""
    shadow = {"min_requests": 60, "look_s": 0.3, "deadline_s": 150, "max_latency_ratio": 1000}
    return {"release.shadow": shadow | changes}


@pytest.fixture
def wanted(serving, trained, one_is_live):
    return lambda version: serving.want(trained.release(version), by="next", plan=ReleasePlan(shadow=True))


@pytest.fixture
def steps(rollout):
    def taken(generation: int, **changes: Any) -> list[Step]:
        found = [step for step, _ in rollout(**limits(**changes)).run(generation)]
        return [step for number, step in enumerate(found) if number == 0 or step != found[number - 1]]

    return taken


def test_a_shadow_that_agrees_is_passed_with_a_report_and_goes_live(serving, wanted, steps, load):
    wish = wanted("2")
    assert steps(wish.generation) == [STAGE, AWAIT, VERIFY, SHADOW, Step.SWITCH, Step.SOAK, Step.DONE]
    told = serving.target.read_verdicts(wish.generation)["shadowed"]
    report = told["report"]
    assert told["verdict"] == "passed" and report["requests"] >= 60 and report["errors"] == 0
    assert 0 < report["score_delta"] < 0.15 and report["flips"] < 0.25
    assert {"Home=rent", "Age=<30"} <= set(report["slices"])
    assert report["latency_ms"]["live"]["p50"] and report["latency_ms"]["candidate"]["p50"]
    assert set(load) == {200} and serving.answers_with("2")


def test_a_candidate_with_shifted_scores_is_turned_down_and_no_client_ever_saw_it(serving, wanted, steps, load):
    wish = wanted("gloomy")
    assert steps(wish.generation)[-4:] == CLEARED
    told = serving.target.read_verdicts(wish.generation)["shadowed"]
    assert re.search(r"scores moved by 0\.\d+ on average, max_score_delta allows 0\.150", told["why"])
    assert serving.answers_with("1") and serving.target.observe().green.release is None
    assert set(load) == {200} and set(load.versions) == {"1"}


def test_a_shadow_whose_run_is_killed_at_every_look_is_continued_and_counts_nothing_twice(
    serving, wanted, rollout, load
):
    wish, taken, counts = wanted("2"), [], []
    while not taken or not taken[-1].is_terminal:
        taken.append(rollout(**limits()).advance(wish.generation))
        noted = serving.target.read_progress(wish.generation, "shadowed")
        counts.append(noted.get("compared", {}).get("requests", 0))
        wait_for(partial(load.has_grown, len(load)))
    assert taken[-1] is Step.DONE and taken.count(SHADOW) > 2
    report = serving.target.read_verdicts(wish.generation)["shadowed"]["report"]
    assert counts == sorted(counts) and 60 <= counts[-1] == report["requests"] <= len(load)


def test_without_traffic_nothing_is_compared_and_the_release_is_taken_back(serving, wanted, steps):
    wish = wanted("2")
    assert steps(wish.generation, deadline_s=1.2)[-4:] == CLEARED
    why = serving.target.read_verdicts(wish.generation)["shadowed"]["why"]
    assert why == "undecided after 4 looks: 0 of 60 requests compared"


def test_a_candidate_that_dies_in_its_shadow_is_turned_down_and_no_request_fails(serving, wanted, rollout, load):
    wish, taken = wanted("2"), []
    for step, _ in rollout(**limits(min_requests=1_000_000)).run(wish.generation):
        if step is SHADOW and SHADOW not in taken:
            serving.kill("slot-green")
        taken.append(step)
    assert taken[-3:] == CLEARED[1:]
    assert "process ended" in serving.target.read_verdicts(wish.generation)["shadowed"]["why"]
    assert serving.answers_with("1") and set(load) == {200}


def test_copies_stand_in_no_prediction_log_and_no_client_can_pass_its_request_off_as_one(serving, one_is_live, staged):
    def logged(colour: str) -> int:
        told = httpx.get(f"{serving.addresses.slots[colour]}/metrics", trust_env=False).text
        rows = r'^evergreen_log_(?:waiting_rows|written_rows_total)\{[^}]*stream="predictions"[^}]*\} (\S+)$'
        return int(sum(map(float, re.findall(rows, told, re.MULTILINE))))

    serving.target.split(staged("2", "green"), mirror=True)
    before = {colour: logged(colour) for colour in ("blue", "green")}
    answered = serving.answered_by("green")
    for _ in range(20):
        assert serving.ask(headers={"x-evergreen-copy": "1"}).json()["version"] == "1"
    wait_for(lambda: serving.answered_by("green") == answered + 20)
    wait_for(lambda: logged("blue") == before["blue"] + 20)
    assert logged("green") == before["green"]


def test_a_slot_tells_its_answers_to_the_administrator_alone_and_never_through_the_proxy(serving, one_is_live):
    assert serving.target.fetch_recent_answers("blue", {"ids": []})["answers"] == []
    for base, token in (("proxy", True), ("blue", False)):
        url = serving.addresses.proxy if base == "proxy" else serving.addresses.slots[base]
        headers = {"authorization": f"Bearer {serving.stack.secret.serving_token}"} if token else {}
        assert httpx.post(f"{url}/admin/recent", headers=headers, trust_env=False).status_code in (401, 403)
