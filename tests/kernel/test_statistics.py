from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import spatial, stats
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from include.gate.spec import CostSpec, GateSpec
from include.kernel.inference import statistics as own

costs = st.floats(0.1, 100)
histograms = st.integers(1, 12).flatmap(
    lambda bins: st.tuples(*[hnp.arrays(np.float64, bins, elements=st.integers(0, 1000).map(float))] * 2)
)


@st.composite
def samples(draw: st.DrawFn) -> tuple[own.Floats, own.Floats, own.Floats]:
    """Truth with both classes, scores with many ties, and how often each row is drawn (both classes at least once)."""
    rows = draw(st.integers(2, 40))
    truth = draw(hnp.arrays(np.float64, rows, elements=st.sampled_from([0.0, 1.0])))
    truth[:2] = 0.0, 1.0
    score = draw(hnp.arrays(np.float64, rows, elements=st.integers(0, 8).map(lambda n: n / 8)))
    weight = draw(hnp.arrays(np.float64, rows, elements=st.integers(0, 4).map(float)))
    weight[:2] = np.maximum(weight[:2], 1)
    return truth, score, weight


def spec(false_approval: float, false_denial: float) -> GateSpec:
    cost = CostSpec(false_approval=false_approval, false_denial=false_denial)
    limits = {"confidence": 0.95, "resamples": 200, "seed": 0, "min_rows": 1, "floor_auc": 0.5, "auc_margin": 0.0}
    return GateSpec(**limits, superiority="cost", cost=cost)


@given(samples())
def test_auc_is_the_one_of_scikit_learn_also_with_ties_and_weights(sample: tuple[own.Floats, ...]) -> None:
    truth, score, weight = sample
    plain, weighted = own.compute_auc(truth, score, np.vstack([np.ones(len(truth)), weight]))
    assert plain == pytest.approx(roc_auc_score(truth, score))
    assert weighted == pytest.approx(roc_auc_score(truth, score, sample_weight=weight))


@given(samples())
def test_weighting_a_row_is_repeating_it(sample: tuple[own.Floats, ...]) -> None:
    truth, score, weight = sample
    often = weight.astype(int)
    repeated = roc_auc_score(np.repeat(truth, often), np.repeat(score, often))
    assert own.compute_auc(truth, score, weight[None])[0] == pytest.approx(repeated)
    assert own.compute_weighted_mean(score, weight[None])[0] == pytest.approx(np.repeat(score, often).mean())


@given(samples())
def test_auc_of_reversed_scores_is_the_rest_to_one(sample: tuple[own.Floats, ...]) -> None:
    truth, score, weight = sample
    assert own.compute_auc(truth, -score, weight[None])[0] == pytest.approx(
        1 - own.compute_auc(truth, score, weight[None])[0]
    )


def test_auc_of_a_resample_with_one_class_only_is_nan() -> None:
    assert math.isnan(own.compute_auc(np.array([0.0, 1.0]), np.array([0.1, 0.9]), np.array([[1.0, 0.0]]))[0])


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 2**32))
def test_bootstrap_weights_draw_as_many_rows_as_there_are_and_begin_with_the_sample_itself(
    rows: int, resamples: int, seed: int
) -> None:
    drawn = own.draw_bootstrap_weights(rows, resamples, seed)
    assert drawn.shape == (resamples + 1, rows)
    assert (drawn[0] == 1).all()
    assert (drawn.sum(axis=1) == rows).all()
    assert (drawn == own.draw_bootstrap_weights(rows, resamples, seed)).all()


@given(hnp.arrays(np.float64, 50, elements=st.floats(-100, 100)))
def test_an_interval_lies_within_its_values_and_widens_with_confidence(values: own.Floats) -> None:
    narrow, wide = own.compute_percentile_interval(values, 0.8), own.compute_percentile_interval(values, 0.99)
    assert narrow.value == values[0]
    assert values[1:].min() <= wide.low <= narrow.low <= np.median(values[1:]) <= narrow.high <= wide.high
    assert wide.high <= values[1:].max()


def test_an_interval_forgives_resamples_without_an_answer() -> None:
    found = own.compute_percentile_interval(np.array([0.5, np.nan, 0.4, 0.6]), 0.9)
    assert 0.4 <= found.low <= found.high <= 0.6


def test_the_bootstrap_interval_of_a_mean_contains_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(5)
    found = [
        own.compute_percentile_interval(
            own.compute_weighted_mean(random.exponential(2.0, 80), own.draw_bootstrap_weights(80, 300, i)), 0.9
        )
        for i in range(300)
    ]
    assert 0.83 < np.mean([each.low <= 2.0 <= each.high for each in found]) < 0.95


@given(histograms)
def test_psi_is_symmetric_never_negative_and_zero_for_equal_histograms(pair: tuple[own.Floats, own.Floats]) -> None:
    one, two = pair
    assert own.compute_psi(one, two) == pytest.approx(own.compute_psi(two, one))
    assert own.compute_psi(one, two) >= 0
    assert own.compute_psi(one, one) == 0


def test_psi_is_the_textbook_sum() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    assert own.compute_psi(1000 * p, 500 * q) == pytest.approx(sum((q - p) * np.log(q / p)))


@given(histograms)
def test_homogeneity_is_a_symmetric_p_value(pair: tuple[own.Floats, own.Floats]) -> None:
    one, two = pair
    assert 0 <= own.compute_homogeneity_p_value(one, two) <= 1
    assert own.compute_homogeneity_p_value(one, two) == pytest.approx(own.compute_homogeneity_p_value(two, one))
    assert own.compute_homogeneity_p_value(one, one) == pytest.approx(1)


def test_homogeneity_is_the_chi_square_test_and_ignores_bins_empty_on_both_sides() -> None:
    one, two = np.array([30.0, 50.0, 20.0]), np.array([10.0, 60.0, 40.0])
    expected = stats.chi2_contingency(np.vstack([one, two]), correction=False).pvalue
    assert own.compute_homogeneity_p_value(one, two) == pytest.approx(expected)
    assert own.compute_homogeneity_p_value(np.append(one, 0), np.append(two, 0)) == pytest.approx(expected)


def test_a_histogram_without_rows_says_nothing() -> None:
    assert own.compute_homogeneity_p_value(np.array([3.0, 4.0]), np.zeros(2)) == 1.0


def step_up(p_values: list[float], alpha: float) -> list[bool]:
    """Benjamini and Hochberg (1995) word by word: the largest k with p(k) <= k/m alpha, and all up to it."""
    ordered = sorted(p_values)
    passing = [p for k, p in enumerate(ordered, 1) if p <= k / len(ordered) * alpha]
    return [bool(passing) and p <= max(passing) for p in p_values]


# numbers k/1000 never lie on the line the procedure draws, where rounding would decide
@given(st.lists(st.integers(0, 1000).map(lambda n: n / 1000), max_size=20), st.sampled_from([0.0123, 0.0517, 0.2003]))
def test_false_discovery_is_the_step_up_procedure_and_the_one_of_scipy(p_values: list[float], alpha: float) -> None:
    found = own.reject_by_false_discovery(p_values, alpha)
    assert found == step_up(p_values, alpha)
    if p_values:
        assert found == list(stats.false_discovery_control(p_values, method="bh") <= alpha)


def test_many_fair_hypotheses_are_hardly_ever_rejected() -> None:
    random = np.random.default_rng(3)
    days = [any(own.reject_by_false_discovery(list(random.uniform(size=13)), 0.05)) for _ in range(400)]
    assert np.mean(days) < 0.08


@given(costs, costs, st.floats(0, 1))
def test_a_denial_is_cheaper_from_the_threshold_on(false_approval: float, false_denial: float, p: float) -> None:
    threshold = spec(false_approval, false_denial).threshold
    approve, deny = p * false_approval, (1 - p) * false_denial
    if abs(p - threshold) > 1e-9:
        assert (p >= threshold) is (deny < approve)


@given(costs, costs)
def test_no_other_threshold_costs_less_on_calibrated_scores(false_approval: float, false_denial: float) -> None:
    """Every probability from 0 to 1 once, its row good with weight 1 - p and bad with weight p."""
    p = np.linspace(0, 1, 101)
    score, truth, weight = np.tile(p, 2), np.repeat([0.0, 1.0], 101), np.concatenate([1 - p, p])

    def expected(threshold: float) -> float:
        return float(
            own.compute_weighted_mean(
                own.compute_decision_costs(truth, score, threshold, false_approval, false_denial), weight[None]
            )[0]
        )

    best = min(expected(threshold) for threshold in np.append(p, 1.01))
    assert expected(spec(false_approval, false_denial).threshold) == pytest.approx(best)


def test_only_wrong_decisions_cost_and_a_score_at_the_threshold_is_denied() -> None:
    truth, score = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.2, 0.5, 0.2, 0.5])
    assert own.compute_decision_costs(truth, score, 0.5, 5.0, 1.0).tolist() == [5.0, 0.0, 0.0, 1.0]


def test_brier_is_the_squared_error() -> None:
    assert own.compute_brier_losses(np.array([1.0, 0.0]), np.array([0.7, 0.2])).tolist() == pytest.approx([0.09, 0.04])


def delong_by_the_book(truth: own.Floats, scores: own.Floats) -> tuple[own.Floats, own.Floats]:
    """Every pair of a positive and a negative row, as DeLong et al. wrote it in 1988."""
    wins = np.array([np.heaviside(s[truth == 1][:, None] - s[truth == 0][None], 0.5) for s in scores])
    over, under = np.atleast_2d(np.cov(wins.mean(axis=2))), np.atleast_2d(np.cov(wins.mean(axis=1)))
    return wins.mean(axis=(1, 2)), over / wins.shape[1] + under / wins.shape[2]


@st.composite
def rivals(draw: st.DrawFn) -> tuple[own.Floats, own.Floats]:
    """Truth with two rows of each class at least, and the tied scores of one to three models, shape (k, n)."""
    rows = draw(st.integers(4, 40))
    truth = draw(hnp.arrays(np.float64, rows, elements=st.sampled_from([0.0, 1.0])))
    truth[:4] = 0.0, 1.0, 0.0, 1.0
    shape = (draw(st.integers(1, 3)), rows)
    return truth, draw(hnp.arrays(np.float64, shape, elements=st.integers(0, 8).map(lambda n: n / 8)))


@given(rivals())
def test_the_quick_delong_is_the_one_of_the_book(pair: tuple[own.Floats, own.Floats]) -> None:
    truth, scores = pair
    areas, covariance = own.estimate_auc_covariance(truth, scores)
    expected, spread = delong_by_the_book(truth, scores)
    np.testing.assert_allclose(areas, expected)
    np.testing.assert_allclose(areas, [roc_auc_score(truth, score) for score in scores])
    np.testing.assert_allclose(covariance, spread, atol=1e-12)


def test_delongs_interval_holds_the_true_area_about_as_often_as_it_says() -> None:
    random, true, held = np.random.default_rng(3), stats.norm.cdf(1.2 / np.sqrt(2)), 0
    for _ in range(600):
        truth = (random.uniform(size=150) < 0.3).astype(np.float64)
        found = own.estimate_auc(truth, 1.2 * truth + random.normal(size=150), 0.9)
        held += found.low <= true <= found.high
    assert 0.87 < held / 600 < 0.93


@given(samples())
def test_average_precision_is_the_one_of_scikit_learn(sample: tuple[own.Floats, ...]) -> None:
    truth, score, _ = sample
    assert own.compute_average_precision(truth, score) == pytest.approx(average_precision_score(truth, score))
    found = own.estimate_average_precision(truth, score, 0.95)
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(samples(), st.floats(0, 1))
def test_rates_of_decisions_are_those_of_scikit_learn(sample: tuple[own.Floats, ...], threshold: float) -> None:
    truth, score, _ = sample
    denied, zero = score >= threshold, {"zero_division": 0}
    made = own.count_confusion(truth, denied)
    assert made.f1 == pytest.approx(f1_score(truth, denied, **zero))
    assert made.precision == pytest.approx(precision_score(truth, denied, **zero))
    assert made.recall == pytest.approx(recall_score(truth, denied, **zero))
    assert made.specificity == pytest.approx(recall_score(1 - truth, ~denied, **zero))


def test_resampling_counts_is_resampling_rows() -> None:
    random = np.random.default_rng(8)
    truth = (random.uniform(size=300) < 0.3).astype(np.float64)
    first, second = truth + random.normal(size=300) > 0.5, truth + random.normal(size=300) > 0.7
    champion, challenger = own.resample_decisions(truth, first, second, 4000, 1)
    assert (champion.f1[0], challenger.f1[0]) == (f1_score(truth, first), f1_score(truth, second))
    rows = random.integers(0, 300, (4000, 300))
    byrow = [f1_score(truth[r], second[r]) - f1_score(truth[r], first[r]) for r in rows[:1000]]
    bycount = challenger.f1[1:] - champion.f1[1:]
    assert np.std(bycount) == pytest.approx(np.std(byrow), rel=0.1)
    assert np.mean(bycount) == pytest.approx(np.mean(byrow), abs=0.01)


def test_the_paired_interval_is_students_where_all_rows_differ() -> None:
    one, two = np.random.default_rng(4).normal(size=(2, 60))
    expected = stats.ttest_rel(one, two).confidence_interval(0.9)
    found = own.estimate_paired_mean(one - two, 0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("agreeing", range(5))
def test_a_handful_of_rows_that_agree_is_no_proof(agreeing: int) -> None:
    difference = np.zeros(1000)
    difference[:agreeing] = 1.0
    found = own.estimate_paired_mean(difference, 0.95)
    assert found.low <= 0 <= found.high and found.value == pytest.approx(agreeing / 1000)


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_share_lies_within_its_interval_and_the_interval_between_0_and_1(hits: int, others: int) -> None:
    found = own.estimate_proportion(hits, hits + others, 0.95)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_calibration_error_of_a_perfect_model_is_less_than_its_noise_and_its_interval_reaches_down_to_it() -> None:
    random, found, plain = np.random.default_rng(6), [], []
    for seed in range(60):
        score = random.beta(1, 3, 400)
        truth = (random.uniform(size=400) < score).astype(np.float64)
        found.append(own.estimate_calibration_error(truth, score, 10, 0.95, 500, seed))
        rows, gap, _ = own.compute_calibration_bins(truth, score, 10)
        plain.append(rows @ np.abs(gap) / rows.sum())
    assert np.mean([each.value for each in found]) < 0.7 * np.mean(plain)
    assert np.mean([each.low < 0.01 for each in found]) > 0.7
    assert max(each.high for each in found) < 0.15


def test_probabilities_that_are_all_too_high_have_that_as_their_calibration_error() -> None:
    random = np.random.default_rng(7)
    score = random.uniform(0.1, 0.5, 5000)
    truth = (random.uniform(size=5000) < score).astype(np.float64)
    found = own.estimate_calibration_error(truth, score + 0.2, 10, 0.95, 1000, 1)
    assert found.low <= 0.2 <= found.high and found.value == pytest.approx(0.2, abs=0.02)


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.01, 0.5))
def test_holm_rejects_as_its_adjusted_p_values_say(p_values: list[float], alpha: float) -> None:
    ranked = sorted(p_values)
    steps = [(len(ranked) - rank) * p for rank, p in enumerate(ranked)]
    adjusted = {p: max(steps[: rank + 1]) for rank, p in enumerate(ranked)}
    assume(all(abs(each - alpha) > 1e-9 for each in steps))
    expected = [max(step for q, step in adjusted.items() if q <= p) <= alpha for p in p_values]
    assert own.reject_by_holm(p_values, alpha) == expected


def test_a_deviation_has_the_chi_square_interval() -> None:
    random, held = np.random.default_rng(9), 0
    for _ in range(500):
        found = own.estimate_deviation(random.normal(0, 0.03, 5), 0.9)
        held += found.low <= 0.03 <= found.high
    assert 0.86 < held / 500 < 0.94


@given(st.floats(0.01, 2), st.floats(0.1, 5), st.integers(50, 5000))
def test_the_rows_needed_are_the_sample_size_of_the_textbook(distance: float, spread: float, rows: int) -> None:
    half = stats.norm.ppf(0.975) * spread / np.sqrt(rows)
    expected = (spread * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / distance) ** 2
    assert own.estimate_rows_needed(rows, distance, half, 0.95) == pytest.approx(expected)


@pytest.mark.parametrize("rows", [40, 300, 5000])
@pytest.mark.parametrize("z", [0.8, 1.2, 1.5, 1.9])
def test_the_p_value_of_a_distance_is_that_of_the_exact_law(rows: int, z: float) -> None:
    distance = z / np.sqrt(rows / 2)
    exact = stats.kstwo.sf(distance, rows // 2)
    assert own.compute_ks_p_value(distance, rows, rows) == pytest.approx(exact, rel=0.08)


def test_a_share_that_rose_is_judged_alike_by_the_exact_test_and_by_the_normal_one() -> None:
    assert own.compute_increase_p_value(9, 100, 3, 200) == pytest.approx(
        stats.fisher_exact([[9, 91], [3, 197]], "greater").pvalue
    )
    assert own.compute_increase_p_value(1300, 10_000, 1200, 10_000) == pytest.approx(0.016, abs=0.001)
    assert own.compute_increase_p_value(3, 100, 6, 200) == own.compute_increase_p_value(0, 0, 1, 2) == 1.0


def test_the_test_of_calibration_keeps_its_level_and_sees_what_is_off() -> None:
    rng, p_values = np.random.default_rng(2), []
    for seed in range(400):
        score = rng.beta(2, 6, 200)
        p_values.append(
            own.compute_calibration_p_value((rng.random(200) < score).astype(float), score, 10, seed, draws=500)
        )
    assert np.mean(np.array(p_values) < 0.05) <= 0.09
    score = rng.beta(2, 6, 2000)
    assert own.compute_calibration_p_value((rng.random(2000) < score**2).astype(float), score, 10, 1) < 1e-3


def test_a_distance_between_histograms_is_that_of_scipy() -> None:
    one, two = np.array([3.0, 0, 4, 9]), np.array([1.0, 2, 0, 30])
    assert own.compute_jensen_shannon(one, two) == pytest.approx(spatial.distance.jensenshannon(one, two, base=2))


def test_rare_bins_are_tested_together() -> None:
    one, two = np.array([500.0, 490, 1, 0, 0]), np.array([50.0, 48, 0, 1, 1])
    merged = stats.chi2_contingency([[491, 500], [50, 50]], correction=False).pvalue
    assert own.compute_homogeneity_p_value(one, two) == pytest.approx(merged)
