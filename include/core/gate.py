"""The gate: may this challenger replace the champion? Numbers in, a report out.

Every check states value, interval, threshold and reason, and has one of three verdicts. `inconclusive` is an honest
answer: the holdout cannot tell. It never promotes. Champion and challenger are judged on the same rows, so intervals
are of paired differences (bootstrap over rows), which are far narrower than those of two separate estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from include.core import statistics as st
from include.core.manifest import GateSpec


class Verdict(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Check:
    name: str
    verdict: Verdict
    value: float
    low: float
    high: float
    threshold: float
    reason: str


@dataclass(frozen=True)
class GateReport:
    checks: tuple[Check, ...]
    rows: int

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks: refused beats inconclusive beats passed. No check, no pass."""
        if not self.checks:
            return Verdict.INCONCLUSIVE
        found = {check.verdict for check in self.checks}
        order = (Verdict.REFUSED, Verdict.INCONCLUSIVE)
        return next((verdict for verdict in order if verdict in found), Verdict.PASSED)

    @property
    def sentence(self) -> str:
        told = [check.reason for check in self.checks if check.verdict is self.verdict]
        return f"{self.verdict.value}: {'; '.join(told)}"

    def as_dict(self) -> dict[str, Any]:
        checks = [{**vars(check), "verdict": check.verdict.value} for check in self.checks]
        return {"verdict": self.verdict.value, "rows": self.rows, "sentence": self.sentence, "checks": checks}


@dataclass(frozen=True)
class Scores:
    """One holdout: truth (n,) of 0 and 1, probabilities of the positive class (n,). The first model has no champion."""

    truth: st.Floats
    challenger: st.Floats
    champion: st.Floats | None = None


def judge(scores: Scores, spec: GateSpec) -> GateReport:
    """Run every check the situation allows. Floors alone judge the very first model."""
    rows = len(scores.truth)
    unusable = _unusable(scores, spec)
    if unusable:
        return GateReport((unusable,), rows)
    weight = st.weights(rows, spec.resamples, spec.seed)
    checks = [_floor(scores, weight, spec)]
    if scores.champion is None:
        checks.append(_first(rows))
    else:
        checks += [_not_inferior(scores, weight, spec), _superior(scores, weight, spec)]
    return GateReport(tuple(checks), rows)


def _unusable(scores: Scores, spec: GateSpec) -> Check | None:
    """Scores no statistic can be built on: a broken challenger is refused, a holdout without information is not."""
    rows = len(scores.truth)
    if not np.isfinite(scores.challenger).all():
        return _plain("scores", Verdict.REFUSED, rows, 0, "the challenger's scores hold NaN or infinity")
    if scores.champion is not None and not np.isfinite(scores.champion).all():
        return _plain("scores", Verdict.INCONCLUSIVE, rows, 0, "the champion's scores hold NaN or infinity")
    if rows < spec.min_rows:
        reason = f"{rows} holdout rows, gate.min_rows asks for {spec.min_rows}"
        return _plain("rows", Verdict.INCONCLUSIVE, rows, spec.min_rows, reason)
    if len(np.unique(scores.truth)) < 2:
        return _plain("classes", Verdict.INCONCLUSIVE, rows, 2, "the holdout holds one class only")
    return None


def _plain(name: str, verdict: Verdict, value: float, threshold: float, reason: str) -> Check:
    return Check(name, verdict, value, value, value, threshold, reason)


def _first(rows: int) -> Check:
    return _plain("champion", Verdict.PASSED, rows, 0, "the first model: nothing to compare with, floors alone decide")


def _floor(scores: Scores, weight: st.Floats, spec: GateSpec) -> Check:
    found = st.interval(st.auc(scores.truth, scores.challenger, weight), spec.confidence)
    verdict = _at_least(found, spec.floor_auc)
    reason = f"AUC {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] against the floor {spec.floor_auc:g}"
    return Check("auc_floor", verdict, found.value, found.low, found.high, spec.floor_auc, reason)


def _not_inferior(scores: Scores, weight: st.Floats, spec: GateSpec) -> Check:
    assert scores.champion is not None
    gain = st.auc(scores.truth, scores.challenger, weight) - st.auc(scores.truth, scores.champion, weight)
    found = st.interval(gain, spec.confidence)
    reason = f"AUC gain {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], may lose {spec.auc_margin:g}"
    verdict = _at_least(found, -spec.auc_margin)
    return Check("auc_non_inferiority", verdict, found.value, found.low, found.high, -spec.auc_margin, reason)


def _superior(scores: Scores, weight: st.Floats, spec: GateSpec) -> Check:
    assert scores.champion is not None
    saved = loss(scores.truth, scores.champion, spec) - loss(scores.truth, scores.challenger, spec)
    found = st.interval(st.mean(saved, weight), spec.confidence)
    reason = (
        f"{spec.superiority} saved per row {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], must be above 0"
    )
    verdict = Verdict.PASSED if found.low > 0 else Verdict.REFUSED if found.value <= 0 else Verdict.INCONCLUSIVE
    return Check(f"{spec.superiority}_superiority", verdict, found.value, found.low, found.high, 0.0, reason)


def _at_least(found: st.Interval, threshold: float) -> Verdict:
    """Passed when the whole interval clears the threshold, refused when the estimate misses it."""
    if found.low >= threshold:
        return Verdict.PASSED
    return Verdict.REFUSED if found.value < threshold else Verdict.INCONCLUSIVE


def loss(truth: st.Floats, score: st.Floats, spec: GateSpec) -> st.Floats:
    """The per-row loss that superiority is measured in, shape (n,)."""
    if spec.superiority == "brier":
        return st.brier(truth, score)
    return st.cost(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)


def metrics(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, float]:
    """Point estimates on one set of rows: AUC, Brier score, expected cost per row."""
    one = np.ones((1, len(truth)))
    cost = st.cost(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)
    area = float(st.auc(truth, score, one)[0])
    return {"auc": area, "brier": float(st.brier(truth, score).mean()), "cost": float(cost.mean())}
