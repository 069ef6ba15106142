"""Drift: how far columns, scores and labels moved from a model version's baseline, and what one window says.

A column counts as moved when the move is both large (PSI at a floor) and not chance. Chance is judged by a chi-square
test and, for numbers, by Kolmogorov-Smirnov, the smaller p-value doubled (Bonferroni): the one sees that a spread
widened, the other sees a shift sooner. Over all columns the false-discovery rate is held (Benjamini-Hochberg), so a
window of healthy rows is called drifted with probability `alpha` at most, however many columns there are. An alarm
further asks for persistence: k of the last n windows, the newest among them. The textbook rule "any p < 0.05" alarms
on 64 % of healthy windows of twenty columns, and on nearly all large ones, where no two days are the same to three
digits.

Numbers move in days and labels arrive late, so a window never waits for them: label drift is a signal of its own and
takes no part in the verdict, which is about what a model is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np

from include.kernel.inference import statistics as st
from include.monitoring.core.correlations import Correlations
from include.monitoring.core.data_quality import check_data_quality
from include.monitoring.core.profiles import NumberProfile, Profile
from include.monitoring.core.signals import SCORE, Severity, Signal
from include.monitoring.spec import MonitorSpec

Verdict = Literal["healthy", "drifted", "not enough data"]
FEATURE_ACTION = "Look which market or source changed; train again on rows that have it, once their labels are known."
SCORE_ACTION = "Compare with the inputs that moved; if none did, check what was released and which rows are asked."
LABEL_ACTION = "Check how labels are made; if the world changed, train again and set the decision's threshold anew."


@dataclass(frozen=True)
class Change:
    """How far one column is from its baseline. `ks` is the distance of the distribution functions of a number."""

    psi: float
    jensen_shannon: float
    ks: float | None
    p_value: float

    @property
    def details(self) -> dict[str, float]:
        return {"jensen_shannon": self.jensen_shannon} | ({} if self.ks is None else {"ks": self.ks})


def measure_change(baseline: Profile, current: Profile, bins: int) -> Change:
    """Of two profiles over one grid; numbers are compared in bins of equal share of the baseline."""
    if isinstance(baseline, NumberProfile) and isinstance(current, NumberProfile):
        cuts = baseline.choose_cuts(bins)
        pair = baseline.build_histogram(cuts), current.build_histogram(cuts)
        ks = baseline.measure_distance(current)
        p_value = min(st.compute_homogeneity_p_value(*pair), st.compute_ks_p_value(ks, baseline.known, current.known))
        return Change(st.compute_psi(*pair), st.compute_jensen_shannon(*pair), ks, min(1.0, 2 * p_value))
    pair = np.asarray(baseline.counts, np.float64), np.asarray(current.counts, np.float64)
    return Change(st.compute_psi(*pair), st.compute_jensen_shannon(*pair), None, st.compute_homogeneity_p_value(*pair))


def detect_feature_drift(
    baseline: Mapping[str, Profile], current: Mapping[str, Profile], spec: MonitorSpec
) -> list[Signal]:
    """One signal a column of both, the largest PSI first."""
    both = [name for name in current if name in baseline]
    changes = [measure_change(baseline[name], current[name], spec.bins) for name in both]
    excluded = st.reject_by_false_discovery([measured.p_value for measured in changes], spec.alpha)
    signals = [
        _build_feature_signal(name, measured, real, spec)
        for name, measured, real in zip(both, changes, excluded, strict=True)
    ]
    return sorted(signals, key=lambda signal: -(signal.value or 0))


def _build_feature_signal(name: str, measured: Change, chance_excluded: bool, spec: MonitorSpec) -> Signal:
    gravity: Severity = (
        "critical" if measured.psi >= spec.psi else "warning" if measured.psi >= spec.psi_warning else "ok"
    )
    severity = gravity if chance_excluded else "ok"
    return Signal(
        check="feature_drift",
        subject=name,
        measure="psi",
        value=measured.psi,
        p_value=measured.p_value,
        threshold=spec.psi,
        severity=severity,
        action="" if severity == "ok" else FEATURE_ACTION,
        details=measured.details,
    )


def detect_prediction_drift(
    baseline: NumberProfile, current: NumberProfile, threshold: float, spec: MonitorSpec
) -> list[Signal]:
    """The scores: their distribution (PSI), their mean, and the share at or above the decision's threshold.

    Three tests share the check's budget (Holm). Only the distribution decides about a window's verdict.
    """
    if not baseline.known or not current.known:
        return [Signal(check="prediction_drift", subject=SCORE, measure="psi", severity="unknown")]
    measured, confidence = measure_change(baseline, current, spec.bins), 1 - spec.alpha
    before = (baseline.mean, baseline.variance, baseline.known)
    mean = st.estimate_mean_shift(current.mean, current.variance, current.known, before, confidence)
    rates = [profile.compute_share_from(threshold) for profile in (baseline, current)]
    spread = [rate * (1 - rate) for rate in rates]
    rate = st.estimate_mean_shift(rates[1], spread[1], current.known, (rates[0], spread[0], baseline.known), confidence)
    psi, shifted, decided = st.reject_by_holm([measured.p_value, mean.p_value, rate.p_value], spec.alpha)
    limits = spec.predictions
    distance = st.Change(st.Interval(measured.psi, measured.psi, measured.psi), measured.p_value)
    signals = [
        _build_score_signal("psi", distance, limits.psi, psi, "critical").model_copy(
            update={"low": None, "high": None}
        ),
        _build_score_signal("mean_shift", mean, limits.mean_shift, shifted, "warning"),
        _build_score_signal("decision_rate_shift", rate, limits.decision_rate, decided, "warning"),
    ]
    return [signals[0].model_copy(update={"details": measured.details}), *signals[1:]]


def _build_score_signal(
    measure: str, measured: st.Change, floor: float, chance_excluded: bool, gravity: Severity
) -> Signal:
    wrong = chance_excluded and abs(measured.by.value) >= floor
    return Signal(
        check="prediction_drift",
        subject=SCORE,
        measure=measure,
        value=measured.by.value,
        low=measured.by.low,
        high=measured.by.high,
        p_value=measured.p_value,
        threshold=floor,
        severity=gravity if wrong else "ok",
        action=SCORE_ACTION if wrong else "",
    )


def detect_label_drift(
    before: tuple[int, int], truth: st.Floats, score: st.Floats, spec: MonitorSpec, seed: int
) -> list[Signal]:
    """Of matured rows: the rate of the positive label, relative to (positives, rows) before, and the calibration error.

    truth: (n,) of 0 and 1; score: (n,). `unknown` below `min_rows`. The two share the budget (Bonferroni).
    """
    limits, rows = spec.labels, len(truth)
    if rows < spec.min_rows or not before[1]:
        return [Signal(check="label_drift", subject="(label)", measure="rate_change", severity="unknown")]
    hits, half = int(truth.sum()), spec.alpha / 2
    p_value = st.compute_change_p_value(hits, rows, *before)
    relative = (hits / rows) / max(before[0] / before[1], 0.5 / before[1]) - 1
    error = st.estimate_calibration_error(truth, score, spec.bins, 1 - 2 * half, 1000, seed)
    worse = st.compute_calibration_p_value(truth, score, spec.bins, seed)
    return [
        _build_label_signal(
            "rate_change", st.Change(st.Interval(relative, np.nan, np.nan), p_value), limits.rate, p_value <= half
        ),
        _build_label_signal("calibration_error", st.Change(error, worse), limits.calibration_error, worse <= half),
    ]


def _build_label_signal(measure: str, measured: st.Change, floor: float, chance_excluded: bool) -> Signal:
    wrong = chance_excluded and abs(measured.by.value) >= floor
    numbers = {"low": measured.by.low, "high": measured.by.high, "p_value": measured.p_value}
    return Signal(
        check="label_drift",
        subject="(label)",
        measure=measure,
        value=measured.by.value,
        threshold=floor,
        severity="warning" if wrong else "ok",
        action=LABEL_ACTION if wrong else "",
        **{name: value for name, value in numbers.items() if not np.isnan(value)},
    )


def detect_schema_drift(baseline: Sequence[str], delivered: Sequence[str]) -> list[Signal]:
    """Columns the baseline knows and the rows lack, and the other way round; nothing when they are the same."""
    gone = [_build_schema_signal(name, "column_missing", "critical") for name in baseline if name not in delivered]
    return gone + [
        _build_schema_signal(name, "column_without_baseline", "unknown") for name in delivered if name not in baseline
    ]


def _build_schema_signal(name: str, measure: str, severity: Severity) -> Signal:
    lacking = "Have the source deliver the column again; until then the model answers without it."
    unmeasured = "Train again: this version's baseline has no profile of the column."
    action = lacking if severity == "critical" else unmeasured
    return Signal(check="schema_drift", subject=name, measure=measure, value=1, severity=severity, action=action)


@dataclass(frozen=True)
class Window:
    """One window of ingested days, ending at `last`, against the live version's baseline."""

    last: date
    rows: int
    signals: tuple[Signal, ...]
    verdict: Verdict

    @property
    def moved(self) -> dict[str, float]:
        """PSI of each column, or of the score, that makes this window drifted."""
        return {s.subject: s.value for s in self.signals if _is_deciding(s) and s.value is not None}


def _is_deciding(signal: Signal) -> bool:
    drift = signal.check in ("feature_drift", "prediction_drift")
    return drift and signal.measure == "psi" and signal.severity == "critical"


@dataclass(frozen=True)
class TableProfile:
    """Profiles of columns and of SCORE over one baseline, and the correlations of the columns where they were taken."""

    profiles: Mapping[str, Profile]
    correlations: Correlations | None = None

    def __add__(self, other: TableProfile) -> TableProfile:
        """Both lots of rows, as if they had been measured at once; of the columns that both have."""
        names = [name for name in self.profiles if name in other.profiles]
        relations = self.correlations, other.correlations
        selected = [side.select(names) for side in relations if side is not None]
        both = {name: self.profiles[name] + other.profiles[name] for name in names}
        return TableProfile(both, selected[0] + selected[1] if len(selected) == 2 else None)

    @property
    def columns(self) -> dict[str, Profile]:
        return {name: profile for name, profile in self.profiles.items() if name != SCORE}

    @property
    def rows(self) -> int:
        return max((profile.rows for profile in self.profiles.values()), default=0)


def compare_window(
    last: date, baseline: TableProfile, current: TableProfile, threshold: float, spec: MonitorSpec
) -> Window:
    """The verdict of one window. A column that only one side has is a signal, and the rest is compared without it."""
    schema = detect_schema_drift(list(baseline.columns), list(current.columns))
    if current.rows < spec.min_rows:
        return Window(last, current.rows, tuple(schema), "not enough data")
    signals = [*schema, *detect_feature_drift(baseline.columns, current.columns, spec)]
    scores = [side.profiles.get(SCORE) for side in (baseline, current)]
    if isinstance(scores[0], NumberProfile):
        now = scores[1] if isinstance(scores[1], NumberProfile) else scores[0].count_values([])
        signals += detect_prediction_drift(scores[0], now, threshold, spec)
    relations = (baseline.correlations, current.correlations)
    both = (relations[0], relations[1]) if relations[0] and relations[1] else None
    signals += check_data_quality(baseline.columns, current.columns, both, spec)
    return Window(last, current.rows, tuple(signals), "drifted" if any(map(_is_deciding, signals)) else "healthy")


def should_alarm(windows: Sequence[Window], spec: MonitorSpec) -> bool:
    """k of the last n windows drifted, the newest among them; `windows` are oldest first."""
    recent = [window.verdict == "drifted" for window in windows[-spec.persistence.n :]]
    return bool(recent) and recent[-1] and sum(recent) >= spec.persistence.k
