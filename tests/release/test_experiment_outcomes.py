"""Callers and what became of them, read off a real log: one a caller, and only those that count."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from include.release.core.experiment import Arm
from include.release.service.experiment_outcomes import ExperimentOutcomes
from tests.feedback.test_prediction_reading import NOON, Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def arms(log: Log, since=NOON) -> tuple[Arm, ...]:
    return ExperimentOutcomes(log.segments, log.store, log.manifest).count_arms(since, "4", "3")


def asked(id_: str, caller: str | None, decision: bool, version: str = "4", minutes: int = 1, **more):
    at = NOON + timedelta(minutes=minutes)
    known = {"request_id": id_, "caller": caller, "decision": decision, "version": version, "at": at}
    return {**known, "served_by": "model", **more}


def test_callers_are_counted_by_version_decision_and_outcome(log):
    log.predicted(asked("a", "ann", True), asked("b", "bob", False), asked("c", "cleo", False, "3"))
    log.told(*({"request_id": id_, "label": label} for id_, label in (("a", "bad"), ("b", "bad"), ("c", "good"))))
    assert arms(log) == (Arm(true_positive=1, false_negative=1), Arm(true_negative=1))


def test_of_a_caller_the_first_prediction_counts_once_its_outcome_is_known(log):
    log.predicted(asked("a1", "ann", True, minutes=1), asked("a2", "ann", False, minutes=2))
    log.told({"request_id": "a2", "label": "bad"})
    assert arms(log) == (Arm(), Arm())
    log.told({"request_id": "a1", "label": "good"})
    assert arms(log) == (Arm(false_positive=1), Arm())


@pytest.mark.parametrize(
    "changes", [{"caller": None}, {"served_by": "rule"}, {"minutes": -1}, {"version": "2"}, {"decision": None}]
)
def test_who_was_not_dealt_or_not_answered_by_the_model_does_not_count(log, changes):
    log.predicted(asked(**{"id_": "a", "caller": "ann", "decision": True, **changes}))
    log.told({"request_id": "a", "label": "bad"})
    assert arms(log) == (Arm(), Arm())


def test_an_empty_log_has_no_callers(log):
    assert arms(log) == (Arm(), Arm())
