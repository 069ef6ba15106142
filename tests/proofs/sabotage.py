"""Challengers with a known fault, and the verdict the gate must give each: the gate's test of itself.

Gates failed in public by this: one compared the model with itself after a refactoring, and no test noticed. Each case
says which family of checks must be among those that decide, so that a right verdict for a wrong reason fails too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from include.gate.core.checks import Scores, Verdict
from include.gate.core.gate import Evidence, GateReport, judge
from include.gate.spec import GateSpec, WhenSpec
from tests.proofs.binormal import World

ROWS = 6_000
Sabotaged = tuple[Scores, Evidence, GateSpec]
Fault = Callable[[Scores, Evidence, GateSpec, np.random.Generator], Sabotaged]


@dataclass(frozen=True)
class Case:
    """A better challenger (0.84 against 0.80) before its fault; `family` must hold the check that decides."""

    name: str
    fault: Fault
    expected: Verdict
    family: str

    def judged(self, spec: GateSpec, seed: int) -> GateReport:
        random = np.random.default_rng(seed)
        world = World(ROWS, 0.80, 0.84)
        scores = world.scores(random)
        return judge_of(self.fault(scores, world.evidence(random, scores), spec, random))

    def as_expected(self, report: GateReport) -> bool:
        deciding = {check.family for check in report.checks if check.blocks and check.verdict is report.verdict}
        return report.verdict is self.expected and self.family in deciding


def judge_of(sabotaged: Sabotaged) -> GateReport:
    scores, evidence, spec = sabotaged
    return judge(scores, spec, evidence)


def _sound(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    return scores, evidence, spec


def _identical(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    return replace(scores, champion=scores.challenger.copy()), evidence, spec


def _shuffled_labels(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    """A model fitted on shuffled labels knows nothing: its scores belong to any row."""
    return replace(scores, challenger=random.permutation(scores.challenger)), evidence, spec


def _leaked_feature(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    """One input is the label with a little noise, and the model has found it."""
    leak = scores.truth + random.normal(0, 0.2, ROWS)
    features = {**(evidence.features or {}), "status_code": leak}
    return replace(scores, challenger=np.clip(leak, 0.01, 0.99)), replace(evidence, features=features), spec


def _inverted(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    return replace(scores, challenger=1 - scores.challenger), evidence, spec


def _stale_champion(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    """The market has moved on: half of what the champion answers is of another time."""
    assert scores.champion is not None
    old = random.uniform(size=ROWS) < 0.5
    return replace(scores, champion=np.where(old, random.permutation(scores.champion), scores.champion)), evidence, spec


def _unfair(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    """Good people of one group are denied; the manifest lets that block."""
    group = (evidence.protected or {})["protected"] == "y"
    spec = spec.model_copy(update={"when": {**spec.when, "fairness": WhenSpec()}})
    hit = group & (random.uniform(size=ROWS) < 0.5)
    return (
        replace(scores, challenger=np.where(hit, np.maximum(scores.challenger, 0.3), scores.challenger)),
        evidence,
        spec,
    )


def _tiny_slice(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    """Seven rows, all answered wrongly: nobody can tell, so it warns."""
    groups = {**(evidence.groups or {}), "branch": np.full(ROWS, "main", dtype=object)}
    groups["branch"][:7] = "island"
    challenger = scores.challenger.copy()
    challenger[:7] = 1 - scores.truth[:7]
    return replace(scores, challenger=challenger), replace(evidence, groups=groups), spec


def _one_slice_worse(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    """Useless for a quarter of the people."""
    segment = (evidence.groups or {})["segment"] == "c"
    challenger = scores.challenger.copy()
    challenger[segment] = random.permutation(challenger[segment])
    return replace(scores, challenger=challenger), evidence, spec


def _not_a_number(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    challenger = scores.challenger.copy()
    challenger[17] = np.nan
    return replace(scores, challenger=challenger), evidence, spec


def _constant(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    return replace(scores, challenger=np.full(ROWS, 0.28)), evidence, spec


def _too_few_rows(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    assert scores.champion is not None
    few = Scores(scores.truth[:150], scores.challenger[:150], scores.champion[:150])
    return few, evidence, spec


def _overconfident(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    """The same ranking, with probabilities that mean nothing."""
    return replace(scores, challenger=scores.challenger**0.3), evidence, spec


def _learned_by_heart(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    training = Scores(scores.truth, scores.truth * 0.98 + 0.01)
    worse = scores.challenger + random.normal(0, 0.4, ROWS)
    return Scores(scores.truth, np.clip(worse, 0, 1), scores.champion), replace(evidence, training=training), spec


def _foreign_input(scores: Scores, evidence: Evidence, spec: GateSpec, random: np.random.Generator) -> Sabotaged:
    return scores, replace(evidence, schema=({"signal": "number"}, {"signal": "number", "salary": "number"})), spec


CASES = (
    Case("a better model without a fault", _sound, Verdict.PASSED, "champion"),
    Case("identical to the champion", _identical, Verdict.REFUSED, "champion"),
    Case("trained on shuffled labels", _shuffled_labels, Verdict.REFUSED, "floors"),
    Case("a leaked feature", _leaked_feature, Verdict.REFUSED, "leakage"),
    Case("inverted scores", _inverted, Verdict.REFUSED, "floors"),
    Case("a stale champion", _stale_champion, Verdict.PASSED, "champion"),
    Case("unfair by construction", _unfair, Verdict.REFUSED, "fairness"),
    Case("one tiny slice", _tiny_slice, Verdict.PASSED, "champion"),
    Case("one large slice worse", _one_slice_worse, Verdict.REFUSED, "slices"),
    Case("a score that is not a number", _not_a_number, Verdict.REFUSED, "data"),
    Case("constant scores", _constant, Verdict.REFUSED, "data"),
    Case("too few rows", _too_few_rows, Verdict.INCONCLUSIVE, "data"),
    Case("probabilities that mean nothing", _overconfident, Verdict.REFUSED, "calibration"),
    Case("training rows learned by heart", _learned_by_heart, Verdict.REFUSED, "overfit"),
    Case("an input the contract has not", _foreign_input, Verdict.REFUSED, "schema"),
)
