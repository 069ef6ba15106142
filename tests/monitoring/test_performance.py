"""Signals on rows whose truth we choose: what is raised, and what is not."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from include import manifest as manifests
from include.feedback.core.prediction_records import ServingStatistics
from include.monitoring.core import performance
from include.monitoring.core.performance import ConfusionCounts, MaturedRows, count_decisions, has_alarm
from include.monitoring.core.signals import Signal

MANIFEST = manifests.load()
SPEC, GATE = MANIFEST.monitor, MANIFEST.gate
THRESHOLD = 0.5
FIRST = date(2026, 8, 1)


def world(rows: int, seed: int = 0, days: int = 3, wrong: float = 0.0) -> MaturedRows:
    """Calibrated scores: a row is positive with its score as probability; `wrong` of the labels are turned round."""
    random = np.random.default_rng(seed)
    scores = random.beta(0.8, 1.6, rows)
    truth = (random.uniform(size=rows) < scores).astype(float)
    turned = random.uniform(size=rows) < wrong
    place = np.sort(random.integers(0, days, rows)).astype(float)
    return MaturedRows(
        np.where(turned, 1 - truth, truth), scores, place, tuple(FIRST + timedelta(days=n) for n in range(days))
    )


def holdout() -> ConfusionCounts:
    found = world(4000, seed=99)
    return count_decisions(found.truth, found.scores, THRESHOLD)


def by(signals: list[Signal]) -> dict[tuple[str, str], Signal]:
    return {(signal.subject, signal.measure): signal for signal in signals}


def judged(now: MaturedRows) -> dict[tuple[str, str], Signal]:
    return by(performance.check_performance(holdout(), now, THRESHOLD, MANIFEST))


def test_a_healthy_model_raises_nothing_and_every_measure_has_its_bound():
    found = judged(world(1500))
    assert {signal.severity for signal in found.values()} == {"ok"}
    assert all(signal.threshold is not None and not signal.action for signal in found.values())
    assert {("(all)", "accuracy"), ("(positive)", "recall"), ("(negative)", "recall"), ("(all)", "auc")} <= set(found)


def test_labels_that_turned_round_are_a_drop_of_accuracy_and_of_auc_below_the_floor():
    found = judged(world(1500, wrong=0.4))
    accuracy = found["(all)", "accuracy"]
    assert accuracy.severity == "critical" and accuracy.action and accuracy.p_value < 1e-6
    assert accuracy.low < accuracy.value < accuracy.high
    assert found["(all)", "auc"].severity == "critical"
    assert has_alarm(found.values())


def test_a_class_that_is_no_longer_found_is_told_by_its_own_recall():
    now = world(1500)
    missed = (now.truth == 1) & (np.arange(len(now)) % 3 == 0)
    scores = np.where(missed, 0.1, now.scores)
    found = judged(MaturedRows(now.truth, scores, now.day_index, now.days))
    assert found["(positive)", "recall"].severity == "critical"
    assert found["(negative)", "recall"].severity == "ok"


def test_too_few_rows_and_a_baseline_without_decisions_are_unknown():
    for before, rows in ((holdout(), SPEC.min_rows - 1), (None, 1000)):
        [signal] = performance.check_performance(before, world(rows), THRESHOLD, MANIFEST)
        assert signal.severity == "unknown"


def test_false_alarms_stay_within_the_checks_budget():
    """monitor.alpha for the whole check: of 300 healthy windows, 1.5 are expected at 0.005."""
    raised = [any(s.raised for s in judged(world(1000, seed)).values()) for seed in range(300)]
    assert sum(raised) <= 5


def daily(*errors: float, rows: int = 300) -> MaturedRows:
    """Days with exactly these shares of wrong decisions."""
    truth, place = np.tile([0.0, 1.0], rows * len(errors) // 2), np.repeat(np.arange(len(errors)), rows).astype(float)
    wrong = (np.arange(rows * len(errors)) % rows) < np.repeat([round(rows * e) for e in errors], rows)
    scores = np.where(wrong, 1 - truth, truth)
    return MaturedRows(truth, scores, place, tuple(FIRST + timedelta(days=n) for n in range(len(errors))))


def test_one_bad_day_is_a_spike_that_says_which_day():
    signal = judged(daily(0.2, 0.2, 0.4))["(newest day)", "error"]
    assert signal.severity == "warning" and "2026-08-03" in signal.action
    assert judged(daily(0.2, 0.2, 0.22))["(newest day)", "error"].severity == "ok"


def test_three_days_that_get_worse_are_a_trend_and_an_up_and_down_is_none():
    assert judged(daily(0.1, 0.2, 0.3))["(three days)", "error_rise"].severity == "warning"
    assert judged(daily(0.3, 0.1, 0.4))["(three days)", "error_rise"].severity == "ok"
    assert judged(daily(0.20, 0.21, 0.22))["(three days)", "error_rise"].severity == "ok"


def test_a_concept_that_changed_is_critical_and_says_since_when():
    adwin, ddm = performance.detect_concept_drift(daily(*[0.2] * 8, *[0.35] * 4), THRESHOLD, SPEC)
    assert adwin.severity == "critical" and "since 2026-08-09" in adwin.action and has_alarm([adwin])
    assert round(adwin.details["errors_after"] - adwin.details["errors_before"], 2) == 0.15
    assert ddm.severity == "warning"


def test_errors_that_become_fewer_are_no_concept_drift_to_act_on():
    adwin, _ = performance.detect_concept_drift(daily(*[0.35] * 8, *[0.2] * 6), THRESHOLD, SPEC)
    assert adwin.severity == "ok" and adwin.value < 0


def test_the_estimate_without_labels_meets_the_truth_while_scores_are_calibrated():
    now = world(4000, seed=3)
    estimate = by(performance.estimate_performance(holdout(), now.scores, THRESHOLD, MANIFEST))["(all)", "accuracy"]
    truth = float(((now.scores >= THRESHOLD) == now.truth).mean())
    assert estimate.low <= truth <= estimate.high and estimate.severity == "ok"
    [gap] = performance.verify_estimate(now, THRESHOLD, SPEC)
    assert gap.severity == "ok" and abs(gap.value) < 0.03


def test_an_estimate_that_labels_refute_says_not_to_believe_it():
    [gap] = performance.verify_estimate(world(2000, wrong=0.3), THRESHOLD, SPEC)
    assert gap.severity == "warning" and gap.value > SPEC.performance.estimate_gap and "Do not believe" in gap.action


def test_scores_near_the_threshold_estimate_a_drop_before_any_label():
    found = by(performance.estimate_performance(holdout(), np.full(1000, 0.49), THRESHOLD, MANIFEST))
    assert found["(all)", "accuracy"].severity == "warning"


def test_unlike_groups_are_told_by_column_and_small_ones_are_unknown():
    now, random = world(2000), np.random.default_rng(1)
    group = np.where(random.uniform(size=2000) < 0.5, "a", "b").astype(object)
    unlike = MaturedRows(now.truth, np.where(group == "a", 0.9, now.scores), now.day_index, now.days)
    found = list(performance.check_fairness(unlike, {"Age": group}, GATE))
    assert {s.severity for s in found} == {"warning"} and {s.subject for s in found} == {"Age"}
    [small] = performance.check_fairness(now, {"Age": np.full(2000, "a", dtype=object)}, GATE)
    assert small.severity == "unknown"
    assert not list(performance.check_fairness(now, {"Age": group}, GATE.model_copy(update={"fairness": None})))


def test_decisions_that_cost_more_than_no_model_are_told_with_that_bound():
    [well] = performance.check_business(world(2000), GATE, SPEC)
    assert well.severity == "ok" and well.value < well.threshold
    upside_down = world(2000)
    [bad] = performance.check_business(
        MaturedRows(upside_down.truth, 1 - upside_down.scores, upside_down.day_index, upside_down.days), GATE, SPEC
    )
    assert bad.severity == "critical" and bad.low > bad.threshold


@pytest.mark.parametrize(
    ("served", "raised"),
    [
        (ServingStatistics(10_000, 0, (8.0, 20.0)), set()),
        (ServingStatistics(10_000, 300, (8.0, 20.0)), {"error_rate", "availability"}),
        (ServingStatistics(10_000, 30, (8.0, 20.0)), {"availability"}),
        (ServingStatistics(10_000, 0, (120.0, 300.0)), {"p95_ms", "p99_ms"}),
    ],
)
def test_the_service_is_held_to_what_was_promised(served, raised):
    found = performance.check_service(served, MANIFEST.serving.objectives, SPEC)
    assert {signal.measure for signal in found if signal.raised} == raised


def test_a_log_without_requests_is_unknown_and_not_well():
    for served in (None, ServingStatistics(3, 3, (1.0, 1.0))):
        [signal] = performance.check_service(served, MANIFEST.serving.objectives, SPEC)
        assert signal.severity == "unknown"
