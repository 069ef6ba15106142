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
from include.monitoring.core.data_quality import data_quality
from include.monitoring.core.profiles import NumberProfile, Profile
from include.monitoring.core.signals import SCORE, Severity, Signal
from include.monitoring.spec import MonitorSpec

Verdict = Literal["healthy", "drifted", "not enough data"]
MOVED = "Look which market or source changed; train again on rows that have it, once their labels are known."
SCORES = "Compare with the inputs that moved; if none did, check what was released and which rows are asked."
LABELS = "Check how labels are made; if the world changed, train again and set the decision's threshold anew."


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


def change(baseline: Profile, current: Profile, bins: int) -> Change:
    """Of two profiles over one grid; numbers are compared in bins of equal share of the baseline."""
    if isinstance(baseline, NumberProfile) and isinstance(current, NumberProfile):
        cuts = baseline.cuts(bins)
        pair = baseline.binned(cuts), current.binned(cuts)
        ks = baseline.distance(current)
        p_value = min(st.homogeneity(*pair), st.kolmogorov_smirnov(ks, baseline.known, current.known))
        return Change(st.psi(*pair), st.jensen_shannon(*pair), ks, min(1.0, 2 * p_value))
    pair = np.asarray(baseline.counts, np.float64), np.asarray(current.counts, np.float64)
    return Change(st.psi(*pair), st.jensen_shannon(*pair), None, st.homogeneity(*pair))


def feature_drift(baseline: Mapping[str, Profile], current: Mapping[str, Profile], spec: MonitorSpec) -> list[Signal]:
    """One signal a column of both, the largest PSI first."""
    both = [name for name in current if name in baseline]
    changes = [change(baseline[name], current[name], spec.bins) for name in both]
    excluded = st.false_discovery([each.p_value for each in changes], spec.alpha)
    signals = [_feature(name, each, real, spec) for name, each, real in zip(both, changes, excluded, strict=True)]
    return sorted(signals, key=lambda signal: -(signal.value or 0))


def _feature(name: str, found: Change, chance_excluded: bool, spec: MonitorSpec) -> Signal:
    gravity: Severity = "critical" if found.psi >= spec.psi else "warning" if found.psi >= spec.psi_warning else "ok"
    severity = gravity if chance_excluded else "ok"
    return Signal(
        check="feature_drift",
        subject=name,
        measure="psi",
        value=found.psi,
        p_value=found.p_value,
        threshold=spec.psi,
        severity=severity,
        action="" if severity == "ok" else MOVED,
        details=found.details,
    )


def prediction_drift(
    baseline: NumberProfile, current: NumberProfile, threshold: float, spec: MonitorSpec
) -> list[Signal]:
    """The scores: their distribution (PSI), their mean, and the share at or above the decision's threshold.

    Three tests share the check's budget (Holm). Only the distribution decides about a window's verdict.
    """
    if not baseline.known or not current.known:
        return [Signal(check="prediction_drift", subject=SCORE, measure="psi", severity="unknown")]
    found, confidence = change(baseline, current, spec.bins), 1 - spec.alpha
    before = (baseline.mean, baseline.variance, baseline.known)
    mean = st.shift(current.mean, current.variance, current.known, before, confidence)
    rates = [profile.share_from(threshold) for profile in (baseline, current)]
    spread = [rate * (1 - rate) for rate in rates]
    rate = st.shift(rates[1], spread[1], current.known, (rates[0], spread[0], baseline.known), confidence)
    psi, shifted, decided = st.holm([found.p_value, mean.p_value, rate.p_value], spec.alpha)
    limits = spec.predictions
    distance = st.Change(st.Interval(found.psi, found.psi, found.psi), found.p_value)
    signals = [
        _score("psi", distance, limits.psi, psi, "critical").model_copy(update={"low": None, "high": None}),
        _score("mean_shift", mean, limits.mean_shift, shifted, "warning"),
        _score("decision_rate_shift", rate, limits.decision_rate, decided, "warning"),
    ]
    return [signals[0].model_copy(update={"details": found.details}), *signals[1:]]


def _score(measure: str, moved: st.Change, floor: float, chance_excluded: bool, gravity: Severity) -> Signal:
    wrong = chance_excluded and abs(moved.by.value) >= floor
    return Signal(
        check="prediction_drift",
        subject=SCORE,
        measure=measure,
        value=moved.by.value,
        low=moved.by.low,
        high=moved.by.high,
        p_value=moved.p_value,
        threshold=floor,
        severity=gravity if wrong else "ok",
        action=SCORES if wrong else "",
    )


def label_drift(
    before: tuple[int, int], truth: st.Floats, score: st.Floats, spec: MonitorSpec, seed: int
) -> list[Signal]:
    """Of matured rows: the rate of the positive label, relative to (positives, rows) before, and the calibration error.

    truth: (n,) of 0 and 1; score: (n,). `unknown` below `min_rows`. The two share the budget (Bonferroni).
    """
    limits, rows = spec.labels, len(truth)
    if rows < spec.min_rows or not before[1]:
        return [Signal(check="label_drift", subject="(label)", measure="rate_change", severity="unknown")]
    hits, half = int(truth.sum()), spec.alpha / 2
    p_value = st.changed(hits, rows, *before)
    relative = (hits / rows) / max(before[0] / before[1], 0.5 / before[1]) - 1
    error = st.calibration_error(truth, score, spec.bins, 1 - 2 * half, 1000, seed)
    worse = st.calibrated(truth, score, spec.bins, seed)
    return [
        _label("rate_change", st.Change(st.Interval(relative, np.nan, np.nan), p_value), limits.rate, p_value <= half),
        _label("calibration_error", st.Change(error, worse), limits.calibration_error, worse <= half),
    ]


def _label(measure: str, found: st.Change, floor: float, chance_excluded: bool) -> Signal:
    wrong = chance_excluded and abs(found.by.value) >= floor
    known = {"low": found.by.low, "high": found.by.high, "p_value": found.p_value}
    return Signal(
        check="label_drift",
        subject="(label)",
        measure=measure,
        value=found.by.value,
        threshold=floor,
        severity="warning" if wrong else "ok",
        action=LABELS if wrong else "",
        **{name: value for name, value in known.items() if not np.isnan(value)},
    )


def schema_drift(baseline: Sequence[str], delivered: Sequence[str]) -> list[Signal]:
    """Columns the baseline knows and the rows lack, and the other way round; nothing when they are the same."""
    gone = [_schema(name, "column_missing", "critical") for name in baseline if name not in delivered]
    return gone + [_schema(name, "column_without_baseline", "unknown") for name in delivered if name not in baseline]


def _schema(name: str, measure: str, severity: Severity) -> Signal:
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
        return {s.subject: s.value for s in self.signals if _decides(s) and s.value is not None}


def _decides(signal: Signal) -> bool:
    drift = signal.check in ("feature_drift", "prediction_drift")
    return drift and signal.measure == "psi" and signal.severity == "critical"


@dataclass(frozen=True)
class Measured:
    """Profiles of columns and of SCORE over one baseline, and the correlations of the columns where they were taken."""

    profiles: Mapping[str, Profile]
    correlations: Correlations | None = None

    def __add__(self, other: Measured) -> Measured:
        """Both lots of rows, as if they had been measured at once; of the columns that both have."""
        names = [name for name in self.profiles if name in other.profiles]
        relations = self.correlations, other.correlations
        known = [each.only(names) for each in relations if each is not None]
        both = {name: self.profiles[name] + other.profiles[name] for name in names}
        return Measured(both, known[0] + known[1] if len(known) == 2 else None)

    @property
    def columns(self) -> dict[str, Profile]:
        return {name: profile for name, profile in self.profiles.items() if name != SCORE}

    @property
    def rows(self) -> int:
        return max((profile.rows for profile in self.profiles.values()), default=0)


def compare(last: date, baseline: Measured, current: Measured, threshold: float, spec: MonitorSpec) -> Window:
    """The verdict of one window. A column that only one side has is a signal, and the rest is compared without it."""
    schema = schema_drift(list(baseline.columns), list(current.columns))
    if current.rows < spec.min_rows:
        return Window(last, current.rows, tuple(schema), "not enough data")
    signals = [*schema, *feature_drift(baseline.columns, current.columns, spec)]
    scores = [side.profiles.get(SCORE) for side in (baseline, current)]
    if isinstance(scores[0], NumberProfile):
        now = scores[1] if isinstance(scores[1], NumberProfile) else scores[0].of([])
        signals += prediction_drift(scores[0], now, threshold, spec)
    relations = (baseline.correlations, current.correlations)
    both = (relations[0], relations[1]) if relations[0] and relations[1] else None
    signals += data_quality(baseline.columns, current.columns, both, spec)
    return Window(last, current.rows, tuple(signals), "drifted" if any(map(_decides, signals)) else "healthy")


def alarm(windows: Sequence[Window], spec: MonitorSpec) -> bool:
    """k of the last n windows drifted, the newest among them; `windows` are oldest first."""
    recent = [window.verdict == "drifted" for window in windows[-spec.persistence.n :]]
    return bool(recent) and recent[-1] and sum(recent) >= spec.persistence.k
