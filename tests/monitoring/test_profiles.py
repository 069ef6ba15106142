from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from include.kernel.errors import Permanent
from include.monitoring.core.profiles import (
    Profile,
    build_category_baseline,
    build_number_baseline,
    decode_counts,
    decode_profile,
    encode_counts,
    encode_profile,
)
from tests.proofs.drift_shapes import NUMBERS, Shape

# whole numbers: their sums are exact, so that profiles can be compared to the last bit
numbers = st.lists(st.integers(-9, 9).map(float) | st.just(float("nan")), max_size=40)
anything = st.lists(st.floats(allow_infinity=True), max_size=40)
words = st.lists(st.sampled_from(["a", "b", "c", "new", "newer", None]), max_size=40)


@given(numbers, numbers, numbers, numbers, st.integers(1, 20))
def test_numeric_profiles_add_up_in_any_order_and_grouping(
    first: list[float], one: list[float], two: list[float], three: list[float], knots: int
) -> None:
    assert_adds_up(build_number_baseline(first, knots=knots), one, two, three)


@given(words, words, words, words)
def test_profiles_of_categories_add_up_in_any_order_and_grouping(
    first: list[str | None], one: list[str | None], two: list[str | None], three: list[str | None]
) -> None:
    assert_adds_up(build_category_baseline(first), one, two, three)


def assert_adds_up(baseline: Profile, one: list[Any], two: list[Any], three: list[Any]) -> None:
    a, b, c = (baseline.count_values(values) for values in (one, two, three))
    assert (a + b) + c == a + (b + c) == (c + a) + b == baseline.count_values(one + two + three)
    assert (a + b + c).rows == len(one + two + three)


def test_profiles_of_two_baselines_are_not_added_up() -> None:
    for one, other in (
        (build_number_baseline([1.0, 2.0]), build_number_baseline([1.0, 3.0])),
        (build_category_baseline("ab"), build_category_baseline("bc")),
        (build_category_baseline("ab"), build_number_baseline([1.0])),
    ):
        with pytest.raises(Permanent, match="two baselines cannot be added up"):
            one + other


@given(anything, words)
def test_a_profile_survives_the_way_through_json(values: list[float], names: list[str | None]) -> None:
    for profile in (build_number_baseline(values, knots=7), build_category_baseline(names)):
        assert decode_profile(json.loads(json.dumps(encode_profile(profile)))) == profile


@given(anything, anything, words, words)
def test_a_profile_survives_without_its_grid_which_the_baseline_has(
    first: list[float], values: list[float], names: list[str | None], others: list[str | None]
) -> None:
    for baseline, given_values in (
        (build_number_baseline(first, knots=7), values),
        (build_category_baseline(names), others),
    ):
        profile = baseline.count_values(given_values)  # type: ignore[arg-type]
        content = json.loads(json.dumps(encode_counts(profile)))
        assert not {"knots", "categories"} & {*content} and decode_counts(baseline, content) == profile


@pytest.mark.parametrize("content", [{}, {"kind": "number"}, {"kind": "number", "edges": [1], "counts": [1]}])
def test_what_no_profile_is_is_refused_in_a_sentence(content: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match="train the model again"):
        decode_profile(content)


@pytest.mark.parametrize("shape", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("shift", [0.0, 0.03, 1.0])
def test_the_distance_is_exact_within_the_resolution_whatever_the_shape(shape: Shape, shift: float) -> None:
    """With few knots, so that the bound is put to the test: about 1 in 200 of the rows lie between two."""
    rng = np.random.default_rng(7)
    reference, current = shape.drawn(rng, 4000), shape.drawn(rng, 3000, shift)
    baseline = build_number_baseline(reference, knots=200)
    exact = stats.ks_2samp(*(values[~np.isnan(values)] for values in (reference, current))).statistic
    assert baseline.resolution <= 1 / 200
    assert baseline.measure_distance(baseline.count_values(current)) <= exact + 1e-12
    assert baseline.measure_distance(baseline.count_values(current)) >= exact - baseline.resolution - 1e-12


@given(numbers.filter(lambda v: bool(np.isfinite(v).any())), numbers.filter(lambda v: bool(np.isfinite(v).any())))
def test_few_different_values_make_the_distance_exact(reference: list[float], current: list[float]) -> None:
    baseline = build_number_baseline(reference)
    known = [np.array(v)[~np.isnan(v)] for v in (reference, current)]
    # values that the baseline never saw fall between its knots; there the baseline does not rise, so nothing is lost
    exact = stats.ks_2samp(*known, method="asymp").statistic
    assert baseline.measure_distance(baseline.count_values(current)) == pytest.approx(exact)


def test_ten_thousand_knots_are_enough_for_a_distance_within_a_ten_thousandth() -> None:
    assert build_number_baseline(np.random.default_rng(1).normal(size=300_000)).resolution <= 1e-4


def test_a_bound_that_is_a_knot_divides_the_rows_exactly() -> None:
    values = np.random.default_rng(2).random(50_000)
    profile = build_number_baseline(values, include=[1 / 6], knots=100)
    assert profile.compute_share_from(1 / 6) == pytest.approx((values >= 1 / 6).mean())
    assert profile.mean == pytest.approx(values.mean())


def test_a_sample_drawn_from_a_profile_is_one_of_what_it_counted() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(size=4000), np.full(1000, 2.5), [np.nan]])
    drawn = build_number_baseline(values, knots=100).count_values(values).draw_sample(20_000, rng)
    assert stats.ks_2samp(drawn, values[:-1]).pvalue > 1e-3
    home = build_category_baseline("aaab").count_values(["a", "b", "new", None])
    assert set(home.draw_sample(100, rng)) == {"a", "b", "(other)"}


def test_names_never_seen_are_told_by_name() -> None:
    profile = build_category_baseline(["b", "a", "a", None])
    assert profile.count_values(["a", "new", "newer", None, None]).counts == (1, 0, 2, 2)
    assert profile.count_values(["a", "new", "newer"]).novel == ("new", "newer")


def test_an_empty_column_is_a_profile_as_well() -> None:
    empty = build_number_baseline([float("nan")] * 3)
    assert (empty.known, empty.missing, empty.measure_distance(empty.count_values([1.0, 2.0]))) == (0, 3, 0.0)
