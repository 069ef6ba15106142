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
from include.gate.core.checks import Check, InfraMeasurement, Labels, Scores, Verdict, compute_loss
from include.gate.spec import GateSpec
from include.kernel.inference import statistics as st

__all__ = [
    "Check",
    "Evidence",
    "GateReport",
    "InfraMeasurement",
    "Scores",
    "Verdict",
    "compute_loss",
    "compute_metrics",
    "judge",
]

HEADLINE_FAMILIES = ("data", "floors", "champion", "policy")
ADVISED_FAMILIES = ("floors", "champion", "classic")
MOST_ROWS = 1_000_000  # beyond it, the honest answer is that the two are alike
REASONS_SHOWN = 5  # reasons in one sentence; the rest is in the table
VERDICT_ORDER = (Verdict.REFUSED, Verdict.INCONCLUSIVE)


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
    infra: InfraMeasurement | None = None


@dataclass(frozen=True)
class GateReport:
    """All checks of one challenger, and the facts a policy may ask for."""

    checks: tuple[Check, ...]
    rows: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the checks that block: refused beats inconclusive beats passed. No check, no pass."""
        verdicts = {check.verdict for check in self.checks if check.blocks}
        if not verdicts:
            return Verdict.INCONCLUSIVE
        return next((verdict for verdict in VERDICT_ORDER if verdict in verdicts), Verdict.PASSED)

    @property
    def sentence(self) -> str:
        """The verdict with what decided it, and what it warns of."""
        decided = [c for c in self.checks if c.blocks and c.verdict is self.verdict]
        heads = [c for c in decided if c.family in HEADLINE_FAMILIES]
        reported = (heads if self.verdict is Verdict.PASSED else heads + [c for c in decided if c not in heads])[
            :REASONS_SHOWN
        ]
        left = 0 if self.verdict is Verdict.PASSED else len(decided) - len(reported)
        parts = ["; ".join(c.reason for c in reported), f"and {left} more" if left else "", self._warnings]
        return f"{self.verdict.value}: {'; '.join(filter(None, parts))}"

    @property
    def _warnings(self) -> str:
        warned = Counter(c.family for c in self.checks if c.warns)
        listed = ", ".join(f"{family} ({number})" for family, number in warned.items())
        return f"warnings: {listed}" if listed else ""

    def add_denials(self, denial_reasons: Iterable[str], policy: str) -> GateReport:
        """The report after a policy has looked at it; it may add denials and take none away."""
        denials = tuple(
            ck.make_plain_check("policy", "policy", Verdict.REFUSED, 1, 0, reason) for reason in denial_reasons
        )
        passed = ck.make_plain_check("policy", "policy", Verdict.PASSED, 0, 0, f"{policy} denies nothing")
        return replace(self, checks=(*self.checks, *(denials or (passed,))))

    def convert_to_dict(self) -> dict[str, Any]:
        checks = [{**vars(check), "verdict": check.verdict.value} for check in self.checks]
        summary = {"verdict": self.verdict.value, "rows": self.rows, "sentence": self.sentence}
        return {**summary, **self.facts, "checks": checks}


def judge(scores: Scores, spec: GateSpec, evidence: Evidence | None = None) -> GateReport:
    """Runs every check the manifest switches on. A first model meets floors and limits alone."""
    rows = len(scores.truth)
    usability = ck.check_usable(scores, spec)
    if usability:
        return GateReport((usability,), rows)
    facts: dict[str, Any] = {}
    checks = [
        *ck.check_floors(scores, spec),
        *ck.compare_with_champion(scores, spec),
        *_check_limits(scores, spec, evidence or Evidence(), facts),
    ]
    return GateReport(tuple(_apply_reaction(_suggest_rows(check, rows, spec), spec) for check in checks), rows, facts)


def _suggest_rows(check: Check, rows: int, spec: GateSpec) -> Check:
    """An inconclusive check that is decided by more rows says how many, where a sane number of them is enough."""
    distance = abs(check.value - check.threshold)
    if check.verdict is not Verdict.INCONCLUSIVE or check.family not in ADVISED_FAMILIES or distance == 0:
        return check
    half = check.value - check.low if check.value > check.threshold else check.high - check.value
    needed = st.estimate_rows_needed(rows, distance, half, spec.confidence)
    if needed > MOST_ROWS:
        return check
    return replace(check, reason=f"{check.reason}; if that is the truth, about {round(needed, -2):,.0f} rows show it")


def _apply_reaction(check: Check, spec: GateSpec) -> Check:
    """With the manifest's word on whether this verdict of this check blocks."""
    for family, when in spec.when.items():
        if family == check.family and check.verdict is not Verdict.PASSED:
            blocks = (when.refused if check.verdict is Verdict.REFUSED else when.inconclusive) == "block"
            return replace(check, blocks=blocks)
    return check


def _check_limits(scores: Scores, spec: GateSpec, evidence: Evidence, facts: dict[str, Any]) -> Iterator[Check]:
    if spec.classic:
        yield from ck.check_classic(scores, spec, spec.classic)
    yield from _check_training(scores, spec, evidence)
    if spec.calibration:
        yield from ck.check_calibration(scores, spec, spec.calibration)
    yield from _check_groups(scores, spec, evidence, facts)
    if evidence.schema:
        yield ck.check_schema(*evidence.schema)
    if spec.infra:
        yield from ck.check_infra(evidence.infra or InfraMeasurement(), spec.infra)


def _check_training(scores: Scores, spec: GateSpec, evidence: Evidence) -> Iterator[Check]:
    if spec.stability:
        folds = evidence.folds or ()
        yield (
            ck.check_stability(folds, spec, spec.stability) if len(folds) > 1 else ck.make_unmeasured_check("stability")
        )
    if spec.overfit:
        training_scores = evidence.training
        yield (
            ck.check_overfit(scores, training_scores, spec, spec.overfit)
            if training_scores
            else ck.make_unmeasured_check("overfit")
        )
    if spec.leakage:
        inputs = evidence.features
        yield (
            ck.check_leakage(scores.truth, inputs, spec, spec.leakage)
            if inputs
            else ck.make_unmeasured_check("leakage")
        )


def _check_groups(scores: Scores, spec: GateSpec, evidence: Evidence, facts: dict[str, Any]) -> Iterator[Check]:
    if spec.slices:
        groups = evidence.groups
        yield from (
            [ck.make_unmeasured_check("slices")]
            if groups is None
            else ck.check_slices(scores, groups, spec, spec.slices)
        )
    if not spec.fairness:
        return
    if evidence.protected is None:
        yield ck.make_unmeasured_check("fairness")
        return
    facts["fairness"] = {}
    for column, measured, checks in ck.check_fairness(scores, evidence.protected, spec, spec.fairness):
        if measured:
            facts["fairness"][column] = measured.groups
            facts["bias_score"] = max(facts.get("bias_score", 0.0), measured.opportunity_difference.value)
        yield from checks


def compute_metrics(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, float]:
    """Point estimates on one set of rows; `cost` is the expected one per row, rates are at the costs' threshold."""
    confusion = st.count_confusion(truth, score >= spec.threshold)
    cost = st.compute_decision_costs(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)
    one = np.ones((1, len(truth)))
    return {
        "auc": float(st.compute_auc(truth, score, one)[0]),
        "ap": st.compute_average_precision(truth, score),
        "f1": float(confusion.f1),
        "precision": float(confusion.precision),
        "recall": float(confusion.recall),
        "specificity": float(confusion.specificity),
        "brier": float(st.compute_brier_losses(truth, score).mean()),
        "cost": float(cost.mean()),
    }


def estimate_intervals(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, list[float]]:
    """The same numbers as [value, low, high], and the calibration error where the manifest asks for it."""
    shares, (confusion, _) = ck.estimate_rates(truth, score, spec), ck.resample_decisions(Scores(truth, score), spec)
    cost = st.compute_decision_costs(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)
    estimates = {
        "auc": st.estimate_auc(truth, score, spec.confidence),
        "ap": st.estimate_average_precision(truth, score, spec.confidence),
        "f1": st.compute_percentile_interval(confusion.f1, spec.confidence),
        "precision": shares["precision"],
        "recall": shares["sensitivity"],
        "specificity": shares["specificity"],
        "brier": st.estimate_paired_mean(st.compute_brier_losses(truth, score), spec.confidence),
        "cost": st.estimate_paired_mean(cost, spec.confidence),
    }
    if spec.calibration:
        estimates["ece"] = ck.estimate_calibration_error(truth, score, spec, spec.calibration)
    return {
        name: [float(end) for end in (estimate.value, estimate.low, estimate.high)]
        for name, estimate in estimates.items()
    }


def measure_slices(scores: Scores, groups: Mapping[str, Labels], spec: GateSpec) -> list[dict[str, Any]]:
    """Every slice with its rows and both models' metrics; None where a slice of one class has none."""
    measured_slices = []
    for column, labels in groups.items():
        for label in ck.list_labels(labels):
            rows = labels == label
            measured_slices.append({"name": f"{column}={label}", **_measure_slice(scores, rows, spec)})
    return measured_slices


def _measure_slice(scores: Scores, rows: Labels, spec: GateSpec) -> dict[str, Any]:
    truth = scores.truth[rows]
    models = {"challenger": scores.challenger, "champion": scores.champion}
    measured = {
        name: _compute_finite_metrics(truth, score[rows], spec) for name, score in models.items() if score is not None
    }
    return {"rows": len(truth), "positives": int(truth.sum()), **measured}


def _compute_finite_metrics(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, float | None]:
    with np.errstate(invalid="ignore"):
        return {
            name: value if np.isfinite(value) else None for name, value in compute_metrics(truth, score, spec).items()
        }


def compute_fold_aucs(truth: st.Floats, out_of_fold: st.Floats, folds: Iterable[Any]) -> tuple[float, ...]:
    """AUC of each cross-validation fold, NaN-free: folds are stratified; `folds` yields the row numbers of each."""
    return tuple(float(st.compute_auc(truth[f], out_of_fold[f], np.ones((1, len(f))))[0]) for f in folds)
