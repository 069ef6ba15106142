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

from include.feedback.core.prediction_records import Served
from include.gate.core import checks as ck
from include.gate.spec import GateSpec
from include.kernel.inference import statistics as st
from include.monitoring.core import concept_drift
from include.monitoring.core.concept_drift import Day
from include.monitoring.core.signals import Check, Severity, Signal
from include.monitoring.spec import MonitoringManifest, MonitorSpec
from include.serving.spec import ObjectivesSpec

TESTS = 6  # of the check "performance"
TREND_DAYS = 3
RETRAIN = "Have it trained on the new labels; after a release, roll back."
LOOK_AT_DAY = "Look at that day's data before anything else: a broken delivery looks like this."


@dataclass(frozen=True)
class Reference:
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
class Matured:
    """Rows whose labels are known: truth (n,) of 0 and 1, scores (n,), and of each the place of its day (n,)."""

    truth: st.Floats
    scores: st.Floats
    place: st.Floats
    days: tuple[date, ...]

    def __len__(self) -> int:
        return len(self.truth)

    def last(self, days: int) -> Matured:
        """Those of the newest `days` days."""
        kept = self.place >= len(self.days) - days
        return Matured(self.truth[kept], self.scores[kept], self.place[kept], self.days)

    def by_day(self, threshold: float) -> list[Day]:
        wrong = (self.scores >= threshold) != (self.truth == 1)
        rows, errors = (
            np.bincount(self.place[kept].astype(int), minlength=len(self.days)) for kept in (self.place >= 0, wrong)
        )
        return [Day(day, int(n), int(e)) for day, n, e in zip(self.days, rows, errors, strict=True) if n]


def decisions(truth: st.Floats, scores: st.Floats, threshold: float) -> Reference:
    found = st.confusion(truth, scores >= threshold)
    cells = (found.true_negative, found.false_positive, found.false_negative, found.true_positive)
    return Reference(*map(int, cells))


def alarming(signals: Iterable[Signal]) -> bool:
    """Whether labels say that the model itself is worse now. No persistence is asked for: a window of days is one."""
    return any(s.severity == "critical" and s.check in ("performance", "concept_drift") for s in signals)


def unknown(check: Check, measure: str) -> list[Signal]:
    return [Signal(check=check, subject="(all)", measure=measure, severity="unknown")]


# --- on matured labels ------------------------------------------------------------------------------------------------


def performance(before: Reference | None, now: Matured, threshold: float, manifest: MonitoringManifest) -> list[Signal]:
    """Accuracy, both classes, AUC, the newest day against those before it, and the trend of the last three days."""
    spec = manifest.monitor
    if before is None or len(now) < spec.min_rows:
        return unknown("performance", "accuracy")
    by_day, share = now.by_day(threshold), spec.alpha / TESTS
    found = decisions(now.truth, now.scores, threshold)
    return [
        *_shares(before, found, spec, share),
        *_area(now, manifest.gate, share),
        *_spike(by_day, spec, share),
        *_trend(by_day, spec, share),
    ]


def _shares(before: Reference, now: Reference, spec: MonitorSpec, share: float) -> Iterator[Signal]:
    classes = (
        ("(all)", "accuracy", now.wrong, now.rows, before.wrong, before.rows),
        ("(positive)", "recall", *_missed(now), *_missed(before)),
        ("(negative)", "recall", *_called(now), *_called(before)),
    )
    for subject, measure, wrong, rows, wrong_then, rows_then in classes:
        if not rows or not rows_then:
            continue
        bound = 1 - wrong_then / rows_then - spec.performance.drop
        p_value = st.rose(wrong, rows, wrong_then, rows_then)
        right = st.proportion(rows - wrong, rows, 1 - 2 * share)
        dropped = p_value <= share and right.value <= bound
        yield _signal("performance", subject, measure, right, bound, "critical" if dropped else "ok", RETRAIN, p_value)


def _missed(found: Reference) -> tuple[int, int]:
    return found.false_negative, found.false_negative + found.true_positive


def _called(found: Reference) -> tuple[int, int]:
    return found.false_positive, found.false_positive + found.true_negative


def _area(now: Matured, gate: GateSpec, share: float) -> Iterator[Signal]:
    """Against the gate's floor: below it, the model would not have been blessed. Needs two rows of each class."""
    if min(now.truth.sum(), (1 - now.truth).sum()) < 2:
        return
    area = st.auc_interval(now.truth, now.scores, 1 - 2 * share)
    grave: Severity = "critical" if area.high < gate.floor_auc else "ok"
    yield _signal("performance", "(all)", "auc", area, gate.floor_auc, grave, RETRAIN)


def _spike(days: Sequence[Day], spec: MonitorSpec, share: float) -> Iterator[Signal]:
    """The newest day's errors against those of the days before it in the window."""
    if len(days) < 2:
        return
    *earlier, newest = days
    wrong, rows = sum(day.wrong for day in earlier), sum(day.rows for day in earlier)
    bound = spec.performance.spike * max(wrong, 0.5) / rows
    p_value, error = st.rose(newest.wrong, newest.rows, wrong, rows), newest.wrong / newest.rows
    spiked = p_value <= share and error >= bound
    interval = st.proportion(newest.wrong, newest.rows, 1 - 2 * share)
    action = f"{newest.day}: {LOOK_AT_DAY}"
    yield _signal(
        "performance", "(newest day)", "error", interval, bound, "warning" if spiked else "ok", action, p_value
    )


def _trend(days: Sequence[Day], spec: MonitorSpec, share: float) -> Iterator[Signal]:
    """Errors that rise three days in a row, by the Cochran-Armitage test (Armitage 1955)."""
    if len(days) < TREND_DAYS:
        return
    last = days[-TREND_DAYS:]
    errors = [day.wrong / day.rows for day in last]
    rise, p_value = errors[-1] - errors[0], _armitage(last)
    rising = all(low < high for low, high in pairwise(errors))
    raised = rising and p_value <= share and rise >= spec.performance.drop
    grave: Severity = "warning" if raised else "ok"
    value = st.Interval(rise, math.nan, math.nan)
    action = "It gets worse day by day: look at what moved, and have it trained when labels suffice."
    yield _signal("performance", "(three days)", "error_rise", value, spec.performance.drop, grave, action, p_value)


def _armitage(days: Sequence[Day]) -> float:
    """One-sided p-value that the share of wrong decisions does not rise from day to day."""
    rows, wrong = (np.array([getattr(day, name) for day in days], np.float64) for name in ("rows", "wrong"))
    when, total, error = np.arange(len(days)), rows.sum(), wrong.sum() / rows.sum()
    variance = error * (1 - error) * ((rows * when**2).sum() - (rows * when).sum() ** 2 / total)
    return st.normal_below(-(when * (wrong - rows * error)).sum() / math.sqrt(variance)) if variance > 0 else 1.0


def concept(now: Matured, threshold: float, spec: MonitorSpec) -> list[Signal]:
    """ADWIN and DDM over every matured day since the holdout; see `include.monitoring.core.concept_drift`."""
    days = now.by_day(threshold)
    if len(days) < 2:
        return unknown("concept_drift", "adwin")
    limits, cut, level = (
        spec.performance,
        concept_drift.adwin(days, spec.performance.concept_delta),
        concept_drift.ddm(days),
    )
    rise = cut.after - cut.before if cut else 0.0
    since = f"Errors are more frequent since {cut.since}. " if cut else ""
    changed: Severity = "critical" if rise >= limits.concept_rise else "ok"
    above: Severity = "warning" if level >= concept_drift.DRIFT_LEVEL else "ok"
    told = {"errors_before": cut.before, "errors_after": cut.after} if cut else {}
    exact = [st.Interval(value, math.nan, math.nan) for value in (rise, level)]
    adwin = _signal("concept_drift", "(errors)", "adwin", exact[0], limits.concept_rise, changed, since + RETRAIN)
    action = "The error stands far above its best: look at the days since."
    ddm = _signal("concept_drift", "(errors)", "ddm", exact[1], concept_drift.DRIFT_LEVEL, above, action)
    return [adwin.model_copy(update={"details": told}), ddm]


# --- without labels ---------------------------------------------------------------------------------------------------


def estimated(
    before: Reference | None, scores: st.Floats, threshold: float, manifest: MonitoringManifest
) -> list[Signal]:
    """Confidence-based performance estimation (NannyML's CBPE, "How it works: estimation of performance").

    Where a score is a probability, the chance that a decision is right is the score itself, or its rest; their mean is
    the accuracy that labels would show. scores: (n,).
    """
    spec = manifest.monitor
    if before is None or len(scores) < spec.min_rows:
        return unknown("estimated_performance", "accuracy")
    right = _sure(scores, threshold)
    error = math.sqrt(float((right * (1 - right)).sum())) / len(right)
    accuracy = st.wald(float(right.mean()), error, 1 - 2 * spec.alpha)
    bound = 1 - before.wrong / before.rows - spec.performance.drop
    area = float(st.auc(scores, scores, np.ones((1, len(scores))))[0])
    low: Severity = "warning" if accuracy.high < bound else "ok"
    action = "Labels will tell; until then look at what moved."
    exact, floor = st.Interval(area, math.nan, math.nan), manifest.gate.floor_auc
    return [
        _signal("estimated_performance", "(all)", "accuracy", accuracy, bound, low, action),
        _signal("estimated_performance", "(all)", "auc", exact, floor, "warning" if area < floor else "ok", action),
    ]


def reconciled(now: Matured, threshold: float, spec: MonitorSpec) -> list[Signal]:
    """The estimate minus the truth on rows whose labels have come: whether estimates may be believed."""
    if len(now) < spec.min_rows:
        return unknown("estimated_performance", "accuracy_gap")
    right = _sure(now.scores, threshold)
    truth = (now.scores >= threshold) == (now.truth == 1)
    error = math.sqrt(float((right * (1 - right)).sum())) / len(right)
    gap = st.wald(float(right.mean() - truth.mean()), error, 1 - spec.alpha)
    p_value = 2 * st.normal_below(-abs(gap.value) / error) if error else 1.0
    off = p_value <= spec.alpha and abs(gap.value) >= spec.performance.estimate_gap
    action = "Do not believe estimates until the model is calibrated anew by a training."
    bound, grave = spec.performance.estimate_gap, "warning" if off else "ok"
    return [_signal("estimated_performance", "(all)", "accuracy_gap", gap, bound, grave, action, p_value)]


def _sure(scores: st.Floats, threshold: float) -> st.Floats:
    """The chance that each decision is right, if the score is a probability."""
    return np.where(scores >= threshold, scores, 1 - scores)


# --- who is treated how, and what it costs ----------------------------------------------------------------------------


def fairness(now: Matured, groups: Mapping[str, ck.Labels], gate: GateSpec) -> Iterator[Signal]:
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
        yield _signal("fairness", column, "parity_ratio", ratio, limits.parity_ratio, apart, action)
        yield _signal("fairness", column, "opportunity_difference", spread, most, unlike, action)


def business(now: Matured, gate: GateSpec, spec: MonitorSpec) -> list[Signal]:
    """Cost of a row by gate.cost; the bound is what the better of the two policies costs that need no model."""
    if len(now) < spec.min_rows:
        return unknown("business", "cost_per_row")
    costs = ck.loss(now.truth, now.scores, gate)
    error = float(costs.std(ddof=1)) / math.sqrt(len(costs))
    cost = st.wald(float(costs.mean()), error, 1 - 2 * spec.alpha)
    positive = float(now.truth.mean())
    bound = min(positive * gate.cost.false_approval, (1 - positive) * gate.cost.false_denial)
    action = "Deciding all cases alike would cost less: have it trained anew, or decide by people."
    return [_signal("business", "(all)", "cost_per_row", cost, bound, "critical" if cost.low > bound else "ok", action)]


# --- the service ------------------------------------------------------------------------------------------------------


def service(served: Served | None, promised: ObjectivesSpec, spec: MonitorSpec) -> list[Signal]:
    """Error rate, availability and latency as the log has them, against serving.objectives."""
    if served is None or served.requests < spec.min_rows:
        return [Signal(check="service", subject="(all)", measure="error_rate", severity="unknown")]
    errors = st.proportion(served.failed, served.requests, 1 - 2 * spec.alpha)
    there = st.Interval(1 - errors.value, 1 - errors.high, 1 - errors.low)
    failing: Severity = "critical" if errors.low > promised.error_rate else "ok"
    short: Severity = "warning" if there.high < promised.availability else "ok"
    action = "Read the answers' sentences in the server's log; after a release, roll back."
    found = [
        _signal("service", "(all)", "error_rate", errors, promised.error_rate, failing, action),
        _signal("service", "(all)", "availability", there, promised.availability, short, action),
    ]
    bounds = (promised.p95_ms, promised.p99_ms)
    for name, value, bound in zip(("p95_ms", "p99_ms"), served.latency_ms, bounds, strict=True):
        exact, slow = st.Interval(value, math.nan, math.nan), "warning" if value > bound else "ok"
        found.append(_signal("service", "(all)", name, exact, bound, slow, "See what else runs on its cores."))
    return found


def _signal(
    check: Check,
    subject: str,
    measure: str,
    found: st.Interval,
    threshold: float,
    severity: Severity | str,
    action: str,
    p_value: float | None = None,
) -> Signal:
    ends = {name: end for name, end in (("low", found.low), ("high", found.high)) if not math.isnan(end)}
    said = action if severity != "ok" else ""
    return Signal.model_validate(
        {
            "check": check,
            "subject": subject,
            "measure": measure,
            "value": found.value,
            "threshold": threshold,
            "severity": severity,
            "action": said,
            "p_value": p_value,
            **ends,
        }
    )
