"""The gate: may this challenger replace the champion? Numbers in, a report out.

Every check states value, interval, threshold and reason, and has one of three verdicts. `inconclusive` is an honest
answer: the holdout cannot tell. It never promotes; it asks for more rows or for a person. Champion and challenger are
judged on the same rows, so intervals are of paired differences, which are far narrower than those of two separate
estimates. What is measured is a matter of `checks`; which verdict stops a release is a matter of the manifest, and
neither the data, the floors, the champion nor the policy can be softened there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from include.gate.core import checks as ck
from include.gate.core.checks import Check, InfraMeasured, Labels, Scores, Verdict, loss
from include.gate.spec import GateSpec
from include.kernel.inference import statistics as st

__all__ = ["Check", "Evidence", "GateReport", "InfraMeasured", "Scores", "Verdict", "judge", "loss", "metrics"]

HEADLINES = ("data", "floors", "champion", "policy")
ADVISED = ("floors", "champion", "classic")
MOST_ROWS = 1_000_000  # beyond it, the honest answer is that the two are alike
TOLD = 5  # reasons in one sentence; the rest is in the table
ORDER = (Verdict.REFUSED, Verdict.INCONCLUSIVE)


@dataclass(frozen=True)
class Evidence:
    """What is known beside the scores; None means that nobody measured it.

    groups, protected: column -> label of each holdout row (n,), None where it is missing. features: input -> value of
    each holdout row (n,). folds: AUC of each cross-validation fold. schema: column -> kind, delivered and asked for.
    """

    training: Scores | None = None
    folds: tuple[float, ...] | None = None
    groups: Mapping[str, Labels] | None = None
    protected: Mapping[str, Labels] | None = None
    features: Mapping[str, st.Floats] | None = None
    schema: tuple[Mapping[str, str], Mapping[str, str]] | None = None
    infra: InfraMeasured | None = None


@dataclass(frozen=True)
class GateReport:
    """All checks of one challenger, and the facts a policy may ask for."""

    checks: tuple[Check, ...]
    rows: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the checks that block: refused beats inconclusive beats passed. No check, no pass."""
        found = {check.verdict for check in self.checks if check.blocks}
        if not found:
            return Verdict.INCONCLUSIVE
        return next((verdict for verdict in ORDER if verdict in found), Verdict.PASSED)

    @property
    def sentence(self) -> str:
        """The verdict with what decided it, and what it warns of."""
        decided = [c for c in self.checks if c.blocks and c.verdict is self.verdict]
        heads = [c for c in decided if c.family in HEADLINES]
        told = (heads if self.verdict is Verdict.PASSED else heads + [c for c in decided if c not in heads])[:TOLD]
        left = 0 if self.verdict is Verdict.PASSED else len(decided) - len(told)
        parts = ["; ".join(c.reason for c in told), f"and {left} more" if left else "", self._warnings]
        return f"{self.verdict.value}: {'; '.join(filter(None, parts))}"

    @property
    def _warnings(self) -> str:
        warned = Counter(c.family for c in self.checks if c.warns)
        told = ", ".join(f"{family} ({number})" for family, number in warned.items())
        return f"warnings: {told}" if told else ""

    def denied(self, reasons: Iterable[str], policy: str) -> GateReport:
        """The report after a policy has looked at it; it may add denials and take none away."""
        found = tuple(ck.plain("policy", "policy", Verdict.REFUSED, 1, 0, reason) for reason in reasons)
        kept = ck.plain("policy", "policy", Verdict.PASSED, 0, 0, f"{policy} denies nothing")
        return replace(self, checks=(*self.checks, *(found or (kept,))))

    def as_dict(self) -> dict[str, Any]:
        checks = [{**vars(check), "verdict": check.verdict.value} for check in self.checks]
        told = {"verdict": self.verdict.value, "rows": self.rows, "sentence": self.sentence}
        return {**told, **self.facts, "checks": checks}


def judge(scores: Scores, spec: GateSpec, evidence: Evidence | None = None) -> GateReport:
    """Runs every check the manifest switches on. A first model meets floors and limits alone."""
    rows = len(scores.truth)
    unusable = ck.unusable(scores, spec)
    if unusable:
        return GateReport((unusable,), rows)
    facts: dict[str, Any] = {}
    found = [
        *ck.floors(scores, spec),
        *ck.champion(scores, spec),
        *_limits(scores, spec, evidence or Evidence(), facts),
    ]
    return GateReport(tuple(_softened(_advised(check, rows, spec), spec) for check in found), rows, facts)


def _advised(check: Check, rows: int, spec: GateSpec) -> Check:
    """An inconclusive check that is decided by more rows says how many, where a sane number of them is enough."""
    distance = abs(check.value - check.threshold)
    if check.verdict is not Verdict.INCONCLUSIVE or check.family not in ADVISED or distance == 0:
        return check
    half = check.value - check.low if check.value > check.threshold else check.high - check.value
    needed = st.rows_needed(rows, distance, half, spec.confidence)
    if needed > MOST_ROWS:
        return check
    return replace(check, reason=f"{check.reason}; if that is the truth, about {round(needed, -2):,.0f} rows show it")


def _softened(check: Check, spec: GateSpec) -> Check:
    """With the manifest's word on whether this verdict of this check blocks."""
    for family, when in spec.when.items():
        if family == check.family and check.verdict is not Verdict.PASSED:
            blocks = (when.refused if check.verdict is Verdict.REFUSED else when.inconclusive) == "block"
            return replace(check, blocks=blocks)
    return check


def _limits(scores: Scores, spec: GateSpec, evidence: Evidence, facts: dict[str, Any]) -> Iterator[Check]:
    if spec.classic:
        yield from ck.classic(scores, spec, spec.classic)
    yield from _training(scores, spec, evidence)
    if spec.calibration:
        yield from ck.calibration(scores, spec, spec.calibration)
    yield from _people(scores, spec, evidence, facts)
    if evidence.schema:
        yield ck.schema(*evidence.schema)
    if spec.infra:
        yield from ck.infra(evidence.infra or InfraMeasured(), spec.infra)


def _training(scores: Scores, spec: GateSpec, evidence: Evidence) -> Iterator[Check]:
    if spec.stability:
        folds = evidence.folds or ()
        yield ck.stability(folds, spec, spec.stability) if len(folds) > 1 else ck.unmeasured("stability")
    if spec.overfit:
        known = evidence.training
        yield ck.overfit(scores, known, spec, spec.overfit) if known else ck.unmeasured("overfit")
    if spec.leakage:
        inputs = evidence.features
        yield ck.leakage(scores.truth, inputs, spec, spec.leakage) if inputs else ck.unmeasured("leakage")


def _people(scores: Scores, spec: GateSpec, evidence: Evidence, facts: dict[str, Any]) -> Iterator[Check]:
    if spec.slices:
        groups = evidence.groups
        yield from [ck.unmeasured("slices")] if groups is None else ck.slices(scores, groups, spec, spec.slices)
    if not spec.fairness:
        return
    if evidence.protected is None:
        yield ck.unmeasured("fairness")
        return
    facts["fairness"] = {}
    for column, measured, found in ck.fairness(scores, evidence.protected, spec, spec.fairness):
        if measured:
            facts["fairness"][column] = measured.groups
            facts["bias_score"] = max(facts.get("bias_score", 0.0), measured.opportunity_difference.value)
        yield from found


def metrics(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, float]:
    """Point estimates on one set of rows; `cost` is the expected one per row, rates are at the costs' threshold."""
    made = st.confusion(truth, score >= spec.threshold)
    cost = st.cost(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)
    one = np.ones((1, len(truth)))
    return {
        "auc": float(st.auc(truth, score, one)[0]),
        "ap": st.average_precision(truth, score),
        "f1": float(made.f1),
        "precision": float(made.precision),
        "recall": float(made.recall),
        "specificity": float(made.specificity),
        "brier": float(st.brier(truth, score).mean()),
        "cost": float(cost.mean()),
    }


def intervals(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, list[float]]:
    """The same numbers as [value, low, high], and the calibration error where the manifest asks for it."""
    shares, (made, _) = ck.rates(truth, score, spec), ck.decisions(Scores(truth, score), spec)
    cost = st.cost(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)
    found = {
        "auc": st.auc_interval(truth, score, spec.confidence),
        "ap": st.average_precision_interval(truth, score, spec.confidence),
        "f1": st.interval(made.f1, spec.confidence),
        "precision": shares["precision"],
        "recall": shares["sensitivity"],
        "specificity": shares["specificity"],
        "brier": st.paired_mean(st.brier(truth, score), spec.confidence),
        "cost": st.paired_mean(cost, spec.confidence),
    }
    if spec.calibration:
        found["ece"] = ck.calibration_error(truth, score, spec, spec.calibration)
    return {name: [float(end) for end in (each.value, each.low, each.high)] for name, each in found.items()}


def by_slice(scores: Scores, groups: Mapping[str, Labels], spec: GateSpec) -> list[dict[str, Any]]:
    """Every slice with its rows and both models' metrics; None where a slice of one class has none."""
    found = []
    for column, labels in groups.items():
        for label in ck.labels_of(labels):
            rows = labels == label
            found.append({"name": f"{column}={label}", **_sliced(scores, rows, spec)})
    return found


def _sliced(scores: Scores, rows: Labels, spec: GateSpec) -> dict[str, Any]:
    truth = scores.truth[rows]
    models = {"challenger": scores.challenger, "champion": scores.champion}
    told = {name: _measured(truth, score[rows], spec) for name, score in models.items() if score is not None}
    return {"rows": len(truth), "positives": int(truth.sum()), **told}


def _measured(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, float | None]:
    with np.errstate(invalid="ignore"):
        return {name: value if np.isfinite(value) else None for name, value in metrics(truth, score, spec).items()}


def fold_areas(truth: st.Floats, out_of_fold: st.Floats, folds: Iterable[Any]) -> tuple[float, ...]:
    """AUC of each cross-validation fold, NaN-free: folds are stratified; `folds` yields the row numbers of each."""
    return tuple(float(st.auc(truth[f], out_of_fold[f], np.ones((1, len(f))))[0]) for f in folds)
