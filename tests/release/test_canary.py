"""What a canary's counters prove, and what they leave open."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from include.kernel.words.verdicts import Verdict
from include.release.core.canary import Period, Traffic, judge
from include.serving.words.slot_metrics import LATENCY_S, SCORES


@dataclass(frozen=True)
class Bounds:
    tolerated: float
    limit: float


@dataclass(frozen=True)
class Spec:
    min_requests: int = 200
    false_abort: float = 0.01
    false_pass: float = 0.05
    errors: Bounds = Bounds(0.0, 0.01)
    latency: Bounds = Bounds(0.0, 0.1)
    scores: Bounds = Bounds(0.05, 0.15)
    decisions: Bounds = Bounds(0.03, 0.1)


def traffic(requests: int, errors: int = 0, slot_of_latency: int = 12, score_bin: int = 3, decided: float = 0.3):
    latency, scores = [0] * (len(LATENCY_S) + 1), [0] * (len(SCORES) + 1)
    latency[slot_of_latency], scores[score_bin] = requests, requests - errors
    return Traffic(requests, errors, tuple(latency), tuple(scores), int(decided * (requests - errors)))


def verdict(candidate: Traffic | None, stable: Traffic | None, weight: float = 0.5, is_last: bool = True) -> Verdict:
    return judge([Period(weight, candidate, stable)], Spec(), is_last).verdict


GOOD = traffic(5000)


def test_two_slots_that_answer_alike_pass_once_there_is_enough_traffic():
    assert verdict(GOOD, GOOD) is Verdict.PASSED


@pytest.mark.parametrize(
    ("what", "worse"),
    [
        ("errors", traffic(5000, errors=100)),
        ("latency", traffic(5000, slot_of_latency=14)),
        ("scores", traffic(5000, score_bin=9)),
        ("scores", traffic(5000, score_bin=1)),
        ("decisions", traffic(5000, decided=0.45)),
        ("decisions", traffic(5000, decided=0.15)),
    ],
)
def test_each_way_of_being_worse_ends_the_canary_and_is_named(what, worse):
    found = judge([Period(0.5, worse, GOOD)], Spec(), is_last=True)
    assert found.verdict is Verdict.FAILED
    assert found.why.startswith(f"{what} worse by ")


@pytest.mark.parametrize("better", [traffic(5000, slot_of_latency=5), replace(traffic(5000), errors=0)])
def test_faster_or_without_errors_is_not_worse(better):
    assert verdict(better, traffic(5000, errors=40)) is not Verdict.FAILED


def test_a_step_of_latency_is_what_two_processes_may_differ_by():
    assert verdict(traffic(5000, slot_of_latency=13), GOOD) is Verdict.PASSED


def test_counters_that_cannot_be_read_are_never_a_pass():
    for candidate, stable in ((None, GOOD), (GOOD, None), (None, None)):
        assert verdict(candidate, stable) is Verdict.PENDING
    assert judge([], Spec(), is_last=True).verdict is Verdict.PENDING
    whole_before = [Period(0.05, GOOD, GOOD), Period(0.5, None, GOOD)]
    assert judge(whole_before, Spec(), is_last=True).verdict is Verdict.PENDING


def test_no_traffic_and_little_traffic_are_held():
    assert verdict(traffic(0), traffic(0)) is Verdict.PENDING
    assert verdict(traffic(100), traffic(100)) is Verdict.PENDING


def test_a_candidate_that_got_no_request_is_held_however_much_the_stable_slot_answered():
    assert verdict(traffic(0), traffic(100_000), weight=0.05) is Verdict.PENDING


def test_an_early_weight_needs_enough_requests_and_the_last_one_a_proof():
    some = Period(0.05, traffic(250), traffic(4750))
    assert judge([some], Spec(), is_last=False).verdict is Verdict.PASSED
    last = judge([some], Spec(), is_last=True)
    assert last.verdict is Verdict.PENDING and last.why.startswith("not yet proven good enough: errors")


def test_what_was_seen_at_an_earlier_weight_counts_at_the_next():
    bad = Period(0.05, traffic(60, errors=2), traffic(1140))
    more = Period(0.25, traffic(150, errors=3), traffic(450))
    assert judge([bad], Spec(), is_last=False).verdict is Verdict.PENDING
    assert judge([more], Spec(), is_last=False).verdict is Verdict.PENDING
    assert judge([bad, more], Spec(), is_last=False).verdict is Verdict.FAILED


def test_requests_that_were_not_dealt_by_the_weight_prove_nothing_and_the_period_begins_anew():
    """The stable slot was thought unwell for a while, and the candidate got its requests too."""
    found = judge([Period(0.2, traffic(3000), traffic(5000))], Spec(), is_last=True)
    assert (found.verdict, found.has_ratio_mismatch) == (Verdict.PENDING, True)
    assert found.why == "the candidate got 38% of the requests and not its 20%, so nothing can be compared"
    assert not judge([Period(0.2, traffic(1020), traffic(3980))], Spec(), is_last=True).has_ratio_mismatch
