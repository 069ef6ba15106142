from __future__ import annotations

import json
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from include.gate.core import gate
from include.gate.core.gate import Check, GateReport, Scores, Verdict, judge
from include.gate.spec import CostSpec, GateSpec
from include.kernel.inference.statistics import Floats

SPEC = GateSpec(
    confidence=0.95,
    resamples=400,
    seed=11,
    min_rows=200,
    floor_auc=0.65,
    auc_margin=0.02,
    superiority="cost",
    cost=CostSpec(false_approval=5, false_denial=1),
)
MEASURES: tuple[Literal["cost", "brier"], ...] = ("cost", "brier")


class Holdout:
    """Applicants with a known probability of default, and scorers who see it more or less clearly."""

    def __init__(self, rows: int = 600, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._logit = self._random.normal(-1.0, 1.6, rows)
        self.truth: Floats = (self._random.uniform(size=rows) < sigmoid(self._logit)).astype(np.float64)

    def scorer(self, noise: float) -> Floats:
        return sigmoid(self._logit + self._random.normal(0, noise, len(self.truth)))


def sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)))


def measured_by(measure: Literal["cost", "brier"]) -> GateSpec:
    return SPEC.model_copy(update={"superiority": measure})


def names(report: GateReport) -> list[str]:
    return [check.name for check in report.checks]


def verdict_of(report: GateReport, name: str) -> Verdict:
    return next(check.verdict for check in report.checks if check.name == name)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("seed", range(10))
def test_a_challenger_identical_to_the_champion_never_passes(measure: Literal["cost", "brier"], seed: int) -> None:
    holdout = Holdout(seed=seed)
    scores = holdout.scorer(0.5)
    report = judge(Scores(holdout.truth, scores, scores.copy()), measured_by(measure))
    assert verdict_of(report, f"{measure}_superiority") is Verdict.REFUSED
    assert verdict_of(report, "auc_non_inferiority") is Verdict.PASSED
    assert report.verdict is Verdict.REFUSED


@pytest.mark.parametrize("measure", MEASURES)
def test_two_equally_good_models_hardly_ever_replace_each_other(measure: Literal["cost", "brier"]) -> None:
    passed = 0
    for seed in range(80):
        holdout = Holdout(300, seed)
        report = judge(Scores(holdout.truth, holdout.scorer(1.0), holdout.scorer(1.0)), measured_by(measure))
        passed += report.verdict is Verdict.PASSED
    assert passed <= 6  # 2.5 % are allowed: 2 of 80 expected


@pytest.mark.parametrize("measure", MEASURES)
def test_a_clearly_better_challenger_passes(measure: Literal["cost", "brier"]) -> None:
    holdout = Holdout()
    report = judge(Scores(holdout.truth, holdout.scorer(0.1), holdout.scorer(3.0)), measured_by(measure))
    assert names(report) == ["auc_floor", "auc_non_inferiority", f"{measure}_superiority"]
    assert report.verdict is Verdict.PASSED
    assert all(check.reason in report.sentence for check in report.checks)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_clearly_worse_challenger_is_refused(measure: Literal["cost", "brier"]) -> None:
    holdout = Holdout()
    report = judge(Scores(holdout.truth, holdout.scorer(3.0), holdout.scorer(0.1)), measured_by(measure))
    assert report.verdict is Verdict.REFUSED


def test_a_challenger_better_on_three_rows_alone_is_inconclusive() -> None:
    """One resample in twenty holds none of the three."""
    holdout = Holdout()
    champion = holdout.scorer(0.5)
    challenger = champion.copy()
    challenger[np.flatnonzero(holdout.truth)[:3]] = 1.0
    report = judge(Scores(holdout.truth, challenger, champion), measured_by("brier"))
    assert verdict_of(report, "brier_superiority") is Verdict.INCONCLUSIVE
    assert report.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("margin", "verdict"), [(0.02, Verdict.REFUSED), (0.3, Verdict.PASSED)])
def test_better_probabilities_buy_no_more_of_the_ranking_than_the_margin_allows(
    margin: float, verdict: Verdict
) -> None:
    holdout = Holdout(2000)
    sharp = holdout.scorer(0.0)
    spec = measured_by("brier").model_copy(update={"auc_margin": margin})
    report = judge(Scores(holdout.truth, holdout.scorer(1.5), sharp**6), spec)
    assert verdict_of(report, "brier_superiority") is Verdict.PASSED
    assert verdict_of(report, "auc_non_inferiority") is verdict
    assert report.verdict is verdict


@pytest.mark.parametrize("with_champion", [True, False])
def test_inverted_scores_are_refused(with_champion: bool) -> None:
    holdout = Holdout()
    champion = holdout.scorer(0.5)
    report = judge(Scores(holdout.truth, 1 - champion, champion if with_champion else None), SPEC)
    assert verdict_of(report, "auc_floor") is Verdict.REFUSED
    assert report.verdict is Verdict.REFUSED


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [10, 600])
def test_a_challenger_with_nan_or_infinity_is_refused_on_any_holdout(broken: float, rows: int) -> None:
    holdout = Holdout(rows)
    challenger = holdout.scorer(0.1)
    challenger[3] = broken
    report = judge(Scores(holdout.truth, challenger, holdout.scorer(3.0)), SPEC)
    assert report.verdict is Verdict.REFUSED
    assert report.sentence == "refused: the challenger's scores hold NaN or infinity"


def test_a_champion_with_nan_leaves_nothing_to_compare_with() -> None:
    holdout = Holdout()
    report = judge(Scores(holdout.truth, holdout.scorer(0.1), np.full(600, np.nan)), SPEC)
    assert report.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("rows", [0, 1, 199])
def test_a_tiny_holdout_is_inconclusive(rows: int) -> None:
    holdout = Holdout(rows)
    report = judge(Scores(holdout.truth, holdout.scorer(0.1), holdout.scorer(3.0)), SPEC)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert f"{rows} holdout rows, gate.min_rows asks for 200" in report.sentence


@pytest.mark.parametrize("only", [0.0, 1.0])
def test_a_holdout_with_one_class_is_inconclusive(only: float) -> None:
    holdout = Holdout()
    report = judge(Scores(np.full(600, only), holdout.scorer(0.1), holdout.scorer(3.0)), SPEC)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "one class only" in report.sentence


@pytest.mark.parametrize(
    ("noise", "floor", "verdict"),
    [(0.1, 0.65, Verdict.PASSED), (0.1, 0.999, Verdict.REFUSED), (50.0, 0.65, Verdict.REFUSED)],
)
def test_the_first_model_is_judged_by_floors_alone(noise: float, floor: float, verdict: Verdict) -> None:
    holdout = Holdout()
    report = judge(Scores(holdout.truth, holdout.scorer(noise)), SPEC.model_copy(update={"floor_auc": floor}))
    assert names(report) == ["auc_floor", "champion"]
    assert report.verdict is verdict


def test_a_model_whose_interval_straddles_the_floor_is_inconclusive() -> None:
    holdout = Holdout()
    scores = holdout.scorer(0.5)
    floor = float(roc_auc_score(holdout.truth, scores)) - 0.005
    report = judge(Scores(holdout.truth, scores), SPEC.model_copy(update={"floor_auc": floor}))
    assert verdict_of(report, "auc_floor") is Verdict.INCONCLUSIVE


def test_the_same_scores_give_the_same_report() -> None:
    holdout = Holdout()
    scores = Scores(holdout.truth, holdout.scorer(0.1), holdout.scorer(3.0))
    assert judge(scores, SPEC) == judge(scores, SPEC)


def test_every_check_states_value_interval_threshold_and_reason() -> None:
    holdout = Holdout()
    report = judge(Scores(holdout.truth, holdout.scorer(0.1), holdout.scorer(3.0)), SPEC)
    for check in report.checks:
        assert check.low <= check.value <= check.high
        assert check.reason
    floor, not_worse, better = report.checks
    assert (floor.threshold, not_worse.threshold, better.threshold) == (0.65, -0.02, 0.0)
    assert floor.value == pytest.approx(roc_auc_score(holdout.truth, holdout.scorer(0.1)), abs=0.02)


@pytest.mark.parametrize("found", list(combinations_with_replacement(Verdict, 3)))
def test_a_refusal_beats_an_inconclusive_check_which_beats_a_pass(found: tuple[Verdict, ...]) -> None:
    checks = tuple(Check(f"check {i}", verdict, 0, 0, 0, 0, f"reason {i}") for i, verdict in enumerate(found))
    severity = [Verdict.PASSED, Verdict.INCONCLUSIVE, Verdict.REFUSED]
    for order in (checks, checks[::-1]):
        report = GateReport(order, 1)
        assert report.verdict is max(found, key=severity.index)
        told = {check.reason for check in checks if check.reason in report.sentence}
        assert told == {check.reason for check in checks if check.verdict is report.verdict}


def test_a_report_can_be_written_as_json() -> None:
    holdout = Holdout()
    report = judge(Scores(holdout.truth, holdout.scorer(0.1), holdout.scorer(3.0)), SPEC)
    content = json.loads(json.dumps(report.convert_to_dict()))
    assert content["verdict"] == "passed"
    assert content["rows"] == 600
    assert [check["name"] for check in content["checks"]] == names(report)


def test_metrics_are_those_of_scikit_learn_and_the_cost_of_the_decisions_taken() -> None:
    holdout = Holdout()
    scores = holdout.scorer(0.5)
    found = gate.compute_metrics(holdout.truth, scores, SPEC)
    denied = scores >= 1 / 6
    wrong = 5 * ((holdout.truth == 1) & ~denied) + ((holdout.truth == 0) & denied)
    assert found["auc"] == pytest.approx(roc_auc_score(holdout.truth, scores))
    assert found["brier"] == pytest.approx(brier_score_loss(holdout.truth, scores))
    assert found["cost"] == pytest.approx(wrong.mean())
