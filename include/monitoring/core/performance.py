"""How well the live model does: on labels that are known by now, estimated while they are not, and at what cost.

The reference is the version's own holdout, whose decisions its baseline kept. A drop is raised when it is both large
(the manifest's floors) and not chance (a test); all tests of one check share its budget `monitor.alpha` (Bonferroni),
as everywhere in monitoring. Estimates without labels hold only while scores are calibrated and the relation stands, so
they warn and never alarm, and each is held against the truth when that is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np

from include.feedback.core.prediction_records import ServingStatistics
from include.gate.core import checks as ck
from include.gate.spec import GateSpec
from include.kernel.inference import statistics as st
from include.monitoring.core import concept_drift
from include.monitoring.core.concept_drift import DayErrors
from include.monitoring.core.signals import Check, Severity, Signal
from include.monitoring.spec import MonitoringManifest, MonitorSpec
from include.serving.spec import ObjectivesSpec

PERFORMANCE_TESTS = 6  # of the check "performance"
TREND_DAYS = 3
RETRAIN_ACTION = "Have it trained on the new labels; after a release, roll back."
CHECK_DAY_ACTION = "Look at that day's data before anything else: a broken delivery looks like this."


@dataclass(frozen=True)
class ConfusionCounts:
    """Decisions on the holdout at the model's threshold: the four cells of the confusion matrix, in rows."""

    true_negative: int
    false_positive: int
    false_negative: int
    true_positive: int

    @property
    def rows(self) -> int:
        return self.true_negative + self.false_positive + self.false_negative + self.true_positive

    @property
    def wrong(self) -> int:
        return self.false_positive + self.false_negative


@dataclass(frozen=True)
class MaturedRows:
    """Rows whose labels are known: truth (n,) of 0 and 1, scores (n,), and of each the place of its day (n,)."""

    truth: st.Floats
    scores: st.Floats
    day_index: st.Floats
    days: tuple[date, ...]

    def __len__(self) -> int:
        return len(self.truth)

    def select_last(self, days: int) -> MaturedRows:
        """Those of the newest `days` days."""
        recent = self.day_index >= len(self.days) - days
        return MaturedRows(self.truth[recent], self.scores[recent], self.day_index[recent], self.days)

    def count_by_day(self, threshold: float) -> list[DayErrors]:
        wrong = (self.scores >= threshold) != (self.truth == 1)
        rows, errors = (
            np.bincount(self.day_index[selected].astype(int), minlength=len(self.days))
            for selected in (self.day_index >= 0, wrong)
        )
        return [DayErrors(day, int(n), int(e)) for day, n, e in zip(self.days, rows, errors, strict=True) if n]


def count_decisions(truth: st.Floats, scores: st.Floats, threshold: float) -> ConfusionCounts:
    confusion = st.count_confusion(truth, scores >= threshold)
    cells = (confusion.true_negative, confusion.false_positive, confusion.false_negative, confusion.true_positive)
    return ConfusionCounts(*map(int, cells))


def has_alarm(signals: Iterable[Signal]) -> bool:
    """Whether labels say that the model itself is worse now. No persistence is asked for: a window of days is one."""
    return any(s.severity == "critical" and s.check in ("performance", "concept_drift") for s in signals)


def build_unknown(check: Check, measure: str) -> list[Signal]:
    return [Signal(check=check, subject="(all)", measure=measure, severity="unknown")]


# --- on matured labels ------------------------------------------------------------------------------------------------


def check_performance(
    before: ConfusionCounts | None, now: MaturedRows, threshold: float, manifest: MonitoringManifest
) -> list[Signal]:
    """Accuracy, both classes, AUC, the newest day against those before it, and the trend of the last three days."""
    spec = manifest.monitor
    if before is None or len(now) < spec.min_rows:
        return build_unknown("performance", "accuracy")
    by_day, share = now.count_by_day(threshold), spec.alpha / PERFORMANCE_TESTS
    counts = count_decisions(now.truth, now.scores, threshold)
    return [
        *_compare_shares(before, counts, spec, share),
        *_check_auc(now, manifest.gate, share),
        *_check_spike(by_day, spec, share),
        *_check_trend(by_day, spec, share),
    ]


def _compare_shares(before: ConfusionCounts, now: ConfusionCounts, spec: MonitorSpec, share: float) -> Iterator[Signal]:
    classes = (
        ("(all)", "accuracy", now.wrong, now.rows, before.wrong, before.rows),
        ("(positive)", "recall", *_count_false_negatives(now), *_count_false_negatives(before)),
        ("(negative)", "recall", *_count_false_positives(now), *_count_false_positives(before)),
    )
    for subject, measure, wrong, rows, wrong_then, rows_then in classes:
        if not rows or not rows_then:
            continue
        bound = 1 - wrong_then / rows_then - spec.performance.drop
        p_value = st.compute_increase_p_value(wrong, rows, wrong_then, rows_then)
        right = st.estimate_proportion(rows - wrong, rows, 1 - 2 * share)
        dropped = p_value <= share and right.value <= bound
        yield _build_signal(
            "performance", subject, measure, right, bound, "critical" if dropped else "ok", RETRAIN_ACTION, p_value
        )


def _count_false_negatives(counts: ConfusionCounts) -> tuple[int, int]:
    return counts.false_negative, counts.false_negative + counts.true_positive


def _count_false_positives(counts: ConfusionCounts) -> tuple[int, int]:
    return counts.false_positive, counts.false_positive + counts.true_negative


def _check_auc(now: MaturedRows, gate: GateSpec, share: float) -> Iterator[Signal]:
    """Against the gate's floor: below it, the model would not have been blessed. Needs two rows of each class."""
    if min(now.truth.sum(), (1 - now.truth).sum()) < 2:
        return
    area = st.estimate_auc(now.truth, now.scores, 1 - 2 * share)
    grave: Severity = "critical" if area.high < gate.floor_auc else "ok"
    yield _build_signal("performance", "(all)", "auc", area, gate.floor_auc, grave, RETRAIN_ACTION)


def _check_spike(days: Sequence[DayErrors], spec: MonitorSpec, share: float) -> Iterator[Signal]:
    """The newest day's errors against those of the days before it in the window."""
    if len(days) < 2:
        return
    *earlier, newest = days
    wrong, rows = sum(day.wrong for day in earlier), sum(day.rows for day in earlier)
    bound = spec.performance.spike * max(wrong, 0.5) / rows
    p_value, error = st.compute_increase_p_value(newest.wrong, newest.rows, wrong, rows), newest.wrong / newest.rows
    spiked = p_value <= share and error >= bound
    interval = st.estimate_proportion(newest.wrong, newest.rows, 1 - 2 * share)
    action = f"{newest.day}: {CHECK_DAY_ACTION}"
    yield _build_signal(
        "performance", "(newest day)", "error", interval, bound, "warning" if spiked else "ok", action, p_value
    )


def _check_trend(days: Sequence[DayErrors], spec: MonitorSpec, share: float) -> Iterator[Signal]:
    """Errors that rise three days in a row, by the Cochran-Armitage test (Armitage 1955)."""
    if len(days) < TREND_DAYS:
        return
    last = days[-TREND_DAYS:]
    errors = [day.wrong / day.rows for day in last]
    rise, p_value = errors[-1] - errors[0], _compute_trend_p_value(last)
    rising = all(low < high for low, high in pairwise(errors))
    raised = rising and p_value <= share and rise >= spec.performance.drop
    grave: Severity = "warning" if raised else "ok"
    value = st.Interval(rise, math.nan, math.nan)
    action = "It gets worse day by day: look at what moved, and have it trained when labels suffice."
    yield _build_signal(
        "performance", "(three days)", "error_rise", value, spec.performance.drop, grave, action, p_value
    )


def _compute_trend_p_value(days: Sequence[DayErrors]) -> float:
    """One-sided p-value that the share of wrong decisions does not rise from day to day."""
    rows, wrong = (np.array([getattr(day, name) for day in days], np.float64) for name in ("rows", "wrong"))
    when, total, error = np.arange(len(days)), rows.sum(), wrong.sum() / rows.sum()
    variance = error * (1 - error) * ((rows * when**2).sum() - (rows * when).sum() ** 2 / total)
    return (
        st.compute_lower_p_value(-(when * (wrong - rows * error)).sum() / math.sqrt(variance)) if variance > 0 else 1.0
    )


def detect_concept_drift(now: MaturedRows, threshold: float, spec: MonitorSpec) -> list[Signal]:
    """ADWIN and DDM over every matured day since the holdout; see `include.monitoring.core.concept_drift`."""
    days = now.count_by_day(threshold)
    if len(days) < 2:
        return build_unknown("concept_drift", "adwin")
    limits, cut, level = (
        spec.performance,
        concept_drift.find_adwin_cut(days, spec.performance.concept_delta),
        concept_drift.measure_ddm_level(days),
    )
    rise = cut.after - cut.before if cut else 0.0
    since = f"Errors are more frequent since {cut.since}. " if cut else ""
    changed: Severity = "critical" if rise >= limits.concept_rise else "ok"
    above: Severity = "warning" if level >= concept_drift.DRIFT_LEVEL else "ok"
    details = {"errors_before": cut.before, "errors_after": cut.after} if cut else {}
    exact = [st.Interval(value, math.nan, math.nan) for value in (rise, level)]
    adwin = _build_signal(
        "concept_drift", "(errors)", "adwin", exact[0], limits.concept_rise, changed, since + RETRAIN_ACTION
    )
    action = "The error stands far above its best: look at the days since."
    ddm = _build_signal("concept_drift", "(errors)", "ddm", exact[1], concept_drift.DRIFT_LEVEL, above, action)
    return [adwin.model_copy(update={"details": details}), ddm]


# --- without labels ---------------------------------------------------------------------------------------------------


def estimate_performance(
    before: ConfusionCounts | None, scores: st.Floats, threshold: float, manifest: MonitoringManifest
) -> list[Signal]:
    """Confidence-based performance estimation (NannyML's CBPE, "How it works: estimation of performance").

    Where a score is a probability, the chance that a decision is right is the score itself, or its rest; their mean is
    the accuracy that labels would show. scores: (n,).
    """
    spec = manifest.monitor
    if before is None or len(scores) < spec.min_rows:
        return build_unknown("estimated_performance", "accuracy")
    right = _compute_confidence(scores, threshold)
    error = math.sqrt(float((right * (1 - right)).sum())) / len(right)
    accuracy = st.compute_wald_interval(float(right.mean()), error, 1 - 2 * spec.alpha)
    bound = 1 - before.wrong / before.rows - spec.performance.drop
    area = float(st.compute_auc(scores, scores, np.ones((1, len(scores))))[0])
    low: Severity = "warning" if accuracy.high < bound else "ok"
    action = "Labels will tell; until then look at what moved."
    exact, floor = st.Interval(area, math.nan, math.nan), manifest.gate.floor_auc
    return [
        _build_signal("estimated_performance", "(all)", "accuracy", accuracy, bound, low, action),
        _build_signal(
            "estimated_performance", "(all)", "auc", exact, floor, "warning" if area < floor else "ok", action
        ),
    ]


def verify_estimate(now: MaturedRows, threshold: float, spec: MonitorSpec) -> list[Signal]:
    """The estimate minus the truth on rows whose labels have come: whether estimates may be believed."""
    if len(now) < spec.min_rows:
        return build_unknown("estimated_performance", "accuracy_gap")
    right = _compute_confidence(now.scores, threshold)
    truth = (now.scores >= threshold) == (now.truth == 1)
    error = math.sqrt(float((right * (1 - right)).sum())) / len(right)
    gap = st.compute_wald_interval(float(right.mean() - truth.mean()), error, 1 - spec.alpha)
    p_value = 2 * st.compute_lower_p_value(-abs(gap.value) / error) if error else 1.0
    off = p_value <= spec.alpha and abs(gap.value) >= spec.performance.estimate_gap
    action = "Do not believe estimates until the model is calibrated anew by a training."
    bound, grave = spec.performance.estimate_gap, "warning" if off else "ok"
    return [_build_signal("estimated_performance", "(all)", "accuracy_gap", gap, bound, grave, action, p_value)]


def _compute_confidence(scores: st.Floats, threshold: float) -> st.Floats:
    """The chance that each decision is right, if the score is a probability."""
    return np.where(scores >= threshold, scores, 1 - scores)


# --- who is treated how, and what it costs ----------------------------------------------------------------------------


def check_fairness(now: MaturedRows, groups: Mapping[str, ck.Labels], gate: GateSpec) -> Iterator[Signal]:
    """The gate's two measures for each protected column, on matured rows; nothing without gate.fairness."""
    if gate.fairness is None:
        return
    for column, labels in groups.items():
        measured = ck.measure_fairness(now.truth, now.scores, labels, gate, gate.fairness) if len(now) else None
        if measured is None:
            yield Signal(check="fairness", subject=column, measure="parity_ratio", severity="unknown")
            continue
        ratio, spread, limits = measured.parity_ratio, measured.opportunity_difference, gate.fairness
        action = "Send that group's decisions to people, and have the next model judged by it (gate.when.fairness)."
        apart: Severity = "warning" if ratio.high < limits.parity_ratio else "ok"
        unlike: Severity = "warning" if spread.low > limits.opportunity_difference else "ok"
        most = limits.opportunity_difference
        yield _build_signal("fairness", column, "parity_ratio", ratio, limits.parity_ratio, apart, action)
        yield _build_signal("fairness", column, "opportunity_difference", spread, most, unlike, action)


def check_business(now: MaturedRows, gate: GateSpec, spec: MonitorSpec) -> list[Signal]:
    """Cost of a row by gate.cost; the bound is what the better of the two policies costs that need no model."""
    if len(now) < spec.min_rows:
        return build_unknown("business", "cost_per_row")
    costs = ck.compute_loss(now.truth, now.scores, gate)
    error = float(costs.std(ddof=1)) / math.sqrt(len(costs))
    cost = st.compute_wald_interval(float(costs.mean()), error, 1 - 2 * spec.alpha)
    positive = float(now.truth.mean())
    bound = min(positive * gate.cost.false_approval, (1 - positive) * gate.cost.false_denial)
    action = "Deciding all cases alike would cost less: have it trained anew, or decide by people."
    return [
        _build_signal(
            "business", "(all)", "cost_per_row", cost, bound, "critical" if cost.low > bound else "ok", action
        )
    ]


# --- the service ------------------------------------------------------------------------------------------------------


def check_service(served: ServingStatistics | None, promised: ObjectivesSpec, spec: MonitorSpec) -> list[Signal]:
    """Error rate, availability and latency as the log has them, against serving.objectives."""
    if served is None or served.requests < spec.min_rows:
        return [Signal(check="service", subject="(all)", measure="error_rate", severity="unknown")]
    errors = st.estimate_proportion(served.failed, served.requests, 1 - 2 * spec.alpha)
    available = st.Interval(1 - errors.value, 1 - errors.high, 1 - errors.low)
    failing: Severity = "critical" if errors.low > promised.error_rate else "ok"
    short: Severity = "warning" if available.high < promised.availability else "ok"
    action = "Read the answers' sentences in the server's log; after a release, roll back."
    signals = [
        _build_signal("service", "(all)", "error_rate", errors, promised.error_rate, failing, action),
        _build_signal("service", "(all)", "availability", available, promised.availability, short, action),
    ]
    bounds = (promised.p95_ms, promised.p99_ms)
    for name, value, bound in zip(("p95_ms", "p99_ms"), served.latency_ms, bounds, strict=True):
        exact, slow = st.Interval(value, math.nan, math.nan), "warning" if value > bound else "ok"
        signals.append(_build_signal("service", "(all)", name, exact, bound, slow, "See what else runs on its cores."))
    return signals


def _build_signal(
    check: Check,
    subject: str,
    measure: str,
    interval: st.Interval,
    threshold: float,
    severity: Severity | str,
    action: str,
    p_value: float | None = None,
) -> Signal:
    ends = {name: end for name, end in (("low", interval.low), ("high", interval.high)) if not math.isnan(end)}
    advice = action if severity != "ok" else ""
    return Signal.model_validate(
        {
            "check": check,
            "subject": subject,
            "measure": measure,
            "value": interval.value,
            "threshold": threshold,
            "severity": severity,
            "action": advice,
            "p_value": p_value,
            **ends,
        }
    )
