"""What one look at a canary notes for the next one."""

from __future__ import annotations

from typing import Any

import pytest

from include.kernel.words.verdicts import Verdict
from include.release.core.canary import Traffic
from include.release.core.rollout import DesiredState, Evidence, ObservedStatus, Release, ReleasePlan, Route, Slot
from include.release.service import canary_analysis
from include.release.spec import CanarySpec
from include.release.targets.slot_counters import SlotCounters
from include.serving.words.slot_metrics import LATENCY_S, SCORES

WANTED = DesiredState(Release("2", "d"), 7, "a test", "to see", plan=ReleasePlan(weights=(20,)))
SEEN = ObservedStatus(Route("blue", None, 7, share=20), Slot(), Slot())


class Target:
    """Files in dictionaries, and counters that a test sets."""

    def __init__(self) -> None:
        self.noted: dict[str, Any] = {}
        self.verdict: tuple[Verdict, str] | None = None
        self.counts = {"green": 0, "blue": 0}

    def read_evidence(self, generation: int) -> Evidence:
        return Evidence()

    def read_progress(self, generation: int, part: str) -> dict[str, Any]:
        return dict(self.noted)

    def record_progress(self, generation: int, part: str, progress: dict[str, Any]) -> None:
        self.noted = progress

    def record_verdict(self, generation: int, part: str, verdict: Verdict, why: str) -> None:
        self.verdict = verdict, why

    def count_traffic(self, colour: str) -> SlotCounters:
        return SlotCounters(1.0, _traffic(self.counts[colour]))


def _traffic(requests: int) -> Traffic:
    return Traffic(requests, 0, (requests, *[0] * len(LATENCY_S)), (requests, *[0] * len(SCORES)), 0)


@pytest.fixture
def target() -> Target:
    return Target()


def look(target: Target, green: int, blue: int) -> None:
    target.counts["green"] += green
    target.counts["blue"] += blue
    canary_analysis.analyse_canary(target, WANTED, SEEN, CanarySpec(min_requests=100))  # type: ignore[arg-type]


def test_a_period_that_was_not_dealt_by_the_weight_is_forgotten_and_the_next_one_counts_alone(target):
    look(target, 0, 0)
    look(target, 3000, 1000)  # the stable slot was thought unwell, and the candidate got its requests
    assert target.verdict is None
    look(target, 0, 0)  # the next look begins anew
    look(target, 6000, 24_000)
    assert target.verdict is not None and target.verdict[0] is Verdict.PASSED
    assert target.noted["since"]["candidate"]["requests"] == 6000
    assert target.noted["looks"] == 4


def test_a_canary_that_is_never_dealt_by_its_weight_is_not_passed_in_the_end(target):
    look(target, 0, 0)
    for _ in range(CanarySpec().looks):
        look(target, 3000, 1000)
        if target.verdict:
            break
    assert target.verdict is not None and target.verdict[0] is Verdict.FAILED
    assert target.verdict[1].startswith(f"20 %: undecided after {CanarySpec().looks} looks")
