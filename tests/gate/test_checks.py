"""The checks one by one, on scores of known truth."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_ratio, equal_opportunity_difference
from hypothesis import given
from hypothesis import strategies as st

from include import manifest
from include.gate.core import checks as ck
from include.gate.core.checks import InfraMeasurement, Scores, Verdict
from include.gate.core.gate import Evidence, GateReport, compute_metrics, estimate_intervals, judge, measure_slices
from include.gate.spec import GateSpec, WhenSpec
from tests.proofs.binormal import World

SPEC = manifest.load().gate
seeds = st.integers(0, 2**31)


def drawn(seed: int, champion: float = 0.8, challenger: float = 0.8, rows: int = 400) -> Scores:
    return World(rows, champion, challenger).scores(np.random.default_rng(seed))


@lru_cache
def sound() -> tuple[Scores, Evidence]:
    random = np.random.default_rng(12)
    world = World(6000, 0.80, 0.85)
    scores = world.scores(random)
    return scores, world.evidence(random, scores)


def check(report: GateReport, name: str) -> ck.Check:
    return next(each for each in report.checks if each.name == name)


def soft(**when: WhenSpec) -> GateSpec:
    return SPEC.model_copy(update={"when": when})


def swapped(scores: Scores) -> Scores:
    assert scores.champion is not None
    return Scores(scores.truth, scores.champion, scores.challenger)


class TestChampion:
    @given(seeds)
    def test_swapping_the_two_mirrors_every_difference(self, seed: int) -> None:
        scores = drawn(seed)
        for measure in ("auc", "brier", "cost"):
            spec = SPEC.model_copy(update={"superiority": measure})
            one, other = ck.check_superiority(scores, spec), ck.check_superiority(swapped(scores), spec)
            assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
            assert not (one.verdict is Verdict.PASSED and other.verdict is Verdict.PASSED)

    @given(seeds, st.sampled_from(["auc", "brier", "cost"]))
    def test_a_model_is_never_better_than_itself(self, seed: int, measure: str) -> None:
        scores = drawn(seed)
        same = replace(scores, champion=scores.challenger.copy())
        assert ck.check_superiority(same, SPEC.model_copy(update={"superiority": measure})).verdict is Verdict.REFUSED
        assert ck.check_non_inferiority(same, SPEC).verdict is Verdict.PASSED

    @given(seeds, st.floats(0.2, 5))
    def test_what_keeps_the_order_of_scores_keeps_every_check_of_the_auc(self, seed: int, power: float) -> None:
        scores = drawn(seed)
        bent = replace(scores, challenger=scores.challenger**power)
        assert ck.check_non_inferiority(bent, SPEC) == ck.check_non_inferiority(scores, SPEC)
        assert list(ck.check_floors(bent, SPEC)) == list(ck.check_floors(scores, SPEC))

    @given(seeds)
    def test_the_order_of_rows_does_not_matter(self, seed: int) -> None:
        scores = drawn(seed)
        order = np.random.default_rng(seed).permutation(400)
        mixed = Scores(scores.truth[order], scores.challenger[order], scores.champion[order])  # type: ignore[index]
        for one, other in zip(
            ck.compare_with_champion(mixed, SPEC), ck.compare_with_champion(scores, SPEC), strict=True
        ):
            assert (one.verdict, one.low, one.high) == (
                other.verdict,
                pytest.approx(other.low),
                pytest.approx(other.high),
            )

    def test_an_inconclusive_comparison_says_how_many_rows_would_decide_it_and_is_about_right(self) -> None:
        spec = SPEC.model_copy(update={"superiority": "auc", "when": {}})
        off = spec.model_copy(update=dict.fromkeys(("classic", "stability", "overfit", "calibration", "slices")))
        off = off.model_copy(update=dict.fromkeys(("fairness", "leakage", "infra")))
        found = (judge(drawn(seed, 0.80, 0.82, 900), off) for seed in range(60))
        told = [re.search(r"about ([\d,]+) rows show it", check(each, "auc_superiority").reason) for each in found]
        numbers = [int(each[1].replace(",", "")) for each in told if each]
        assert len(numbers) > 15
        assert 1_000 < np.median(numbers) < 6_000  # `make prove-gate` finds 2,100 for a gain of 0.02


class TestSlices:
    def judged(self, scores: Scores, labels: Any, **limits: Any) -> list[ck.Check]:
        assert SPEC.slices
        spec = SPEC.slices.model_copy(update=limits)
        return ck.check_slices(scores, {"branch": np.asarray(labels, dtype=object)}, SPEC, spec)

    def test_twenty_slices_of_an_equal_model_are_not_refused_by_the_worst_of_them(self) -> None:
        refused = 0
        for seed in range(60):
            labels = [f"b{n % 20}" for n in range(4000)]
            found = self.judged(drawn(seed, rows=4000), labels, auc_margin=0.0)
            refused += any(each.verdict is Verdict.REFUSED for each in found)
        assert refused <= 8  # Holm allows 5 %: 3 of 60 expected; without it, about 40

    def test_a_slice_without_enough_rows_or_of_nearly_one_class_has_no_verdict(self) -> None:
        scores = drawn(1, rows=500)
        labels = np.where(scores.truth == 1, "bad", "good").astype(object)
        labels[:10] = "few"
        found = self.judged(scores, labels)
        assert {each.verdict for each in found} == {Verdict.INCONCLUSIVE}
        assert "10 rows" in next(each.reason for each in found if each.name == "slice branch=few")

    def test_a_missing_label_belongs_to_no_slice(self) -> None:
        assert [c.name for c in self.judged(drawn(2), ["main"] * 399 + [None])] == ["slice branch=main"]

    def test_the_first_models_slices_must_reach_the_floor(self) -> None:
        scores = replace(drawn(3, rows=2000), champion=None)
        half = np.arange(2000) < 1000
        useless = np.where(half, np.random.default_rng(1).uniform(size=2000), scores.challenger)
        found = self.judged(replace(scores, challenger=useless), np.where(half, "a", "b"), floor_auc=0.6)
        assert [each.verdict for each in found] == [Verdict.REFUSED, Verdict.PASSED]

    def test_the_table_of_slices_holds_both_models_and_no_number_that_is_none(self) -> None:
        scores = drawn(4)
        labels = np.where(scores.truth == 1, "bad", "good").astype(object)
        bad, good = measure_slices(scores, {"outcome": labels}, SPEC)
        assert bad["rows"] + good["rows"] == 400 and bad["positives"] == bad["rows"]
        assert bad["challenger"]["auc"] is None and good["champion"]["ap"] is None
        assert bad["champion"]["cost"] >= 0


class TestFairness:
    @given(seeds, st.sampled_from(["positive", "negative"]))
    def test_the_numbers_are_those_of_fairlearn(self, seed: int, favourable: Any) -> None:
        assert SPEC.fairness
        limits = SPEC.fairness.model_copy(update={"favourable": favourable, "min_rows": 1})
        scores, random = drawn(seed), np.random.default_rng(seed)
        labels = random.choice(np.array(["a", "b", "c"], dtype=object), 400)
        found = ck.measure_fairness(scores.truth, scores.challenger, labels, SPEC, limits)
        truth, given_ = scores.truth == 1, scores.challenger >= SPEC.threshold
        y, p = (truth, given_) if favourable == "positive" else (~truth, ~given_)
        assert found
        assert found.parity_ratio.value == pytest.approx(demographic_parity_ratio(y, p, sensitive_features=labels))
        expected = equal_opportunity_difference(y, p, sensitive_features=labels)
        assert found.opportunity_difference.value == pytest.approx(expected)
        for each in (found.parity_ratio, found.opportunity_difference):
            assert 0 <= each.low <= each.value <= each.high <= 1

    def test_a_column_with_one_large_group_is_not_called_fair(self) -> None:
        assert SPEC.fairness
        one = {"sex": np.full(400, "x", dtype=object)}
        [(_, measured, found)] = ck.check_fairness(drawn(1), one, SPEC, SPEC.fairness)
        assert measured is None and [each.verdict for each in found] == [Verdict.INCONCLUSIVE]

    def test_the_bias_score_is_the_largest_difference_and_absent_when_nothing_was_measured(self) -> None:
        scores, known = sound()
        report = judge(scores, SPEC, known)
        assert report.facts["bias_score"] == check(report, "opportunity protected").value
        assert "bias_score" not in judge(scores, SPEC, replace(known, protected={})).facts


class TestWhatIsAsked:
    def test_a_sound_challenger_passes_all_of_the_shipped_gate(self) -> None:
        report = judge(*sound()[:1], SPEC, sound()[1])
        assert report.verdict is Verdict.PASSED, report.sentence
        assert {each.family for each in report.checks} == {
            "floors", "champion", "classic", "stability", "overfit", "calibration", "slices", "fairness", "leakage",
            "schema", "infra",
        }  # fmt: skip

    @pytest.mark.parametrize("family", ["training", "folds", "groups", "protected", "features", "infra"])
    def test_what_nobody_measured_is_inconclusive_and_not_passed(self, family: str) -> None:
        scores, known = sound()
        report = judge(scores, soft(), replace(known, **{family: None}))
        assert report.verdict is Verdict.INCONCLUSIVE
        assert "not measured" in report.sentence

    def test_a_section_that_is_off_has_no_line_in_the_report(self) -> None:
        off = ("classic", "stability", "overfit", "calibration", "slices", "fairness", "leakage", "infra")
        report = judge(sound()[0], SPEC.model_copy(update=dict.fromkeys(off)), Evidence())
        assert {each.family for each in report.checks} == {"floors", "champion"}

    def test_the_first_model_meets_limits_but_no_comparison(self) -> None:
        scores, known = sound()
        report = judge(replace(scores, champion=None), SPEC, known)
        assert report.verdict is Verdict.PASSED
        assert not {"auc_non_inferiority", "cost_superiority", "f1_ratio"} & {each.name for each in report.checks}
        assert "the first model" in report.sentence

    @pytest.mark.parametrize(("floor", "verdict"), [(0.3, Verdict.PASSED), (0.99, Verdict.REFUSED)])
    @pytest.mark.parametrize("name", ["floor_ap", "floor_f1"])
    def test_more_floors_may_be_set(self, name: str, floor: float, verdict: Verdict) -> None:
        report = judge(sound()[0], SPEC.model_copy(update={name: floor}), sound()[1])
        assert check(report, name.removeprefix("floor_") + "_floor").verdict is verdict

    def test_an_artifact_over_its_budget_is_refused_by_the_line_it_is_over(self) -> None:
        scores, known = sound()
        fat = replace(known, infra=InfraMeasurement(parity=1e-3, p99_ms=1.0, rss_mb=9e9, size_mb=1.0))
        report = judge(scores, SPEC, fat)
        refused = {each.name for each in report.checks if each.verdict is Verdict.REFUSED}
        assert refused == {"parity", "rss"}

    @pytest.mark.parametrize(("tolerance", "verdict"), [(0.0, Verdict.REFUSED), (1e-5, Verdict.PASSED)])
    def test_an_artifact_of_single_precision_is_held_to_what_it_declares(
        self, tolerance: float, verdict: Verdict
    ) -> None:
        measured = InfraMeasurement(parity=5e-6, p99_ms=1.0, rss_mb=1.0, size_mb=1.0, tolerance=tolerance)
        report = judge(sound()[0], SPEC, replace(sound()[1], infra=measured))
        assert check(report, "parity").verdict is verdict


class TestWhen:
    def test_a_warning_stops_nothing_and_is_told(self) -> None:
        scores, known = sound()
        leaky = replace(known, features={"leak": scores.truth + np.random.default_rng(1).normal(0, 0.1, 6000)})
        assert judge(scores, soft(), leaky).verdict is Verdict.REFUSED
        warned = judge(scores, soft(leakage=WhenSpec(refused="warn")), leaky)
        assert warned.verdict is Verdict.PASSED
        assert warned.sentence.endswith("; warnings: leakage (1)")

    def test_a_refusal_for_many_reasons_names_the_weightiest_and_counts_the_rest(self) -> None:
        scores, known = sound()
        report = judge(replace(scores, challenger=1 - scores.challenger), SPEC, known)
        refused = [each for each in report.checks if each.blocks and each.verdict is Verdict.REFUSED]
        assert report.sentence.startswith(f"refused: {refused[0].reason}; {refused[1].reason}")
        assert f"; and {len(refused) - 5} more" in report.sentence

    def test_only_the_named_verdict_is_softened(self) -> None:
        scores, known = sound()
        report = judge(scores, soft(overfit=WhenSpec(refused="warn")), replace(known, training=None))
        assert report.verdict is Verdict.INCONCLUSIVE

    def test_a_policy_may_deny_what_passed_and_never_lets_through_what_did_not(self) -> None:
        good = judge(*sound()[:1], SPEC, sound()[1])
        assert good.add_denials([], "rules.rego").verdict is Verdict.PASSED
        assert good.add_denials(["no"], "rules.rego").verdict is Verdict.REFUSED
        bad = judge(replace(sound()[0], challenger=1 - sound()[0].challenger), SPEC, sound()[1])
        assert bad.add_denials([], "rules.rego").verdict is Verdict.REFUSED


def test_every_metric_lies_within_its_interval() -> None:
    scores = sound()[0]
    points, found = (
        compute_metrics(scores.truth, scores.challenger, SPEC),
        estimate_intervals(scores.truth, scores.challenger, SPEC),
    )
    assert set(found) == {*points, "ece"}
    for name, (value, low, high) in found.items():
        assert low <= value <= high, name
        assert name == "ece" or points[name] == pytest.approx(value), name
