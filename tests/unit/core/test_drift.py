from __future__ import annotations

import json
from datetime import date, timedelta
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core import manifest as manifests
from include.core.drift import Profile, Window, alarm, compare, profile_categories, profile_numbers
from include.core.manifest import MonitorSpec, Persistence

DAY = date(2026, 9, 1)
SPEC = manifests.load().monitor.model_copy(update={"psi": 0.25, "alpha": 0.01, "min_rows": 150, "bins": 10})

numbers = st.lists(st.floats(allow_infinity=False, width=32), max_size=60)
words = st.lists(st.sampled_from(["a", "b", "c", "new", None]), max_size=60)


def drawn(rows: int, seed: int, mean: float = 0.0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 1, rows))


def baseline_of(features: int, rows: int = 2000) -> dict[str, Profile]:
    return {f"f{i}": profile_numbers(drawn(rows, i), SPEC.bins) for i in range(features)}


def window_of(baseline: dict[str, Profile], rows: int, seed: int, **means: float) -> dict[str, Profile]:
    drawn_anew = {name: drawn(rows, 1000 * seed + i, means.get(name, 0)) for i, name in enumerate(baseline)}
    return {name: baseline[name].of(values) for name, values in drawn_anew.items()}


@given(numbers, numbers, numbers, st.integers(2, 20))
def test_profiles_over_the_same_bins_add_up_for_numbers(
    first: list[float], one: list[float], two: list[float], bins: int
) -> None:
    assert_adds_up(profile_numbers(first, bins), one, two)


@given(words, words, words)
def test_profiles_over_the_same_bins_add_up_for_categories(
    first: list[str | None], one: list[str | None], two: list[str | None]
) -> None:
    assert_adds_up(profile_categories(first), one, two)


def assert_adds_up(profile: Profile, one: list[Any], two: list[Any]) -> None:
    together = profile.of(one + two)
    assert together.counts == tuple(map(sum, zip(profile.of(one).counts, profile.of(two).counts, strict=True)))
    assert sum(together.counts) == len(one + two)


@given(numbers, st.integers(2, 20))
def test_a_numeric_profile_has_a_bin_more_than_edges_and_one_for_missing_values(values: list[float], bins: int) -> None:
    profile = profile_numbers(values, bins)
    assert len(profile.counts) == len(profile.edges) + 2
    assert len(profile.edges) < bins
    assert list(profile.edges) == sorted(set(profile.edges))
    assert profile.counts[-1] == sum(np.isnan(value) for value in values)


def test_bins_hold_equal_shares_of_the_values_they_were_made_from() -> None:
    assert profile_numbers(list(range(1000)), 10).counts == (*[100] * 10, 0)


def test_ties_merge_bins_instead_of_leaving_some_empty() -> None:
    profile = profile_numbers([0.0] * 95 + [1.0, 2.0, 3.0, 4.0, 5.0], 10)
    assert profile.edges == (0.0,)
    assert profile.counts == (95, 5, 0)


def test_a_category_never_seen_before_is_counted_as_other_and_none_as_missing() -> None:
    profile = profile_categories(["b", "a", "a", None])
    assert (profile.categories, profile.counts) == (("a", "b"), (2, 1, 0, 1))
    assert profile.of(["a", "new", "newer", None, None]).counts == (1, 0, 2, 2)


@given(numbers, words)
def test_a_profile_survives_the_way_through_json(values: list[float], names: list[str | None]) -> None:
    for profile in (profile_numbers(values, 5), profile_categories(names)):
        assert Profile.from_dict(json.loads(json.dumps(profile.as_dict()))) == profile


def test_a_window_like_the_baseline_is_healthy() -> None:
    baseline = baseline_of(5)
    window = compare(DAY, baseline, window_of(baseline, 300, seed=1), SPEC)
    assert (window.verdict, window.moved, window.rows) == ("healthy", (), 300)


def test_a_feature_that_moved_is_named() -> None:
    baseline = baseline_of(5)
    window = compare(DAY, baseline, window_of(baseline, 300, seed=1, f3=1.0), SPEC)
    assert (window.verdict, window.moved) == ("drifted", ("f3",))


def test_values_that_went_missing_are_a_move() -> None:
    baseline = baseline_of(1)
    gone = {"f0": baseline["f0"].of(drawn(150, 7) + [float("nan")] * 150)}
    assert compare(DAY, baseline, gone, SPEC).verdict == "drifted"


def test_a_window_of_too_few_rows_says_so_however_far_it_moved() -> None:
    baseline = baseline_of(2)
    window = compare(DAY, baseline, window_of(baseline, 149, seed=1, f0=9.0), SPEC)
    assert (window.verdict, window.rows, window.features) == ("not enough data", 149, ())


def test_no_feature_at_all_is_not_enough_data() -> None:
    assert compare(DAY, {}, {}, SPEC).verdict == "not enough data"


def test_a_move_that_is_certain_but_small_does_not_count() -> None:
    baseline = {"f0": profile_numbers(drawn(50_000, 1), SPEC.bins)}
    (moved,) = compare(DAY, baseline, {"f0": baseline["f0"].of(drawn(50_000, 2, 0.15))}, SPEC).features
    assert moved.p_value < 1e-9
    assert moved.psi < SPEC.psi
    assert not moved.moved


def test_a_move_that_is_large_but_may_be_chance_does_not_count() -> None:
    baseline = {"f0": profile_numbers(drawn(40, 1), SPEC.bins)}
    lenient = SPEC.model_copy(update={"min_rows": 10})
    (moved,) = compare(DAY, baseline, {"f0": baseline["f0"].of(drawn(12, 5))}, lenient).features
    assert moved.psi >= SPEC.psi
    assert moved.p_value > SPEC.alpha
    assert not moved.moved


def test_healthy_days_of_a_wide_table_hardly_ever_drift_where_any_small_p_value_often_would() -> None:
    baseline = baseline_of(13)
    windows = [compare(DAY, baseline, window_of(baseline, 200, seed), SPEC) for seed in range(1, 101)]
    textbook = [any(feature.p_value < 0.05 for feature in window.features) for window in windows]
    assert sum(window.verdict == "drifted" for window in windows) <= 1
    assert sum(textbook) > 25


def test_the_correction_for_many_features_holds_without_the_floor_under_the_effect() -> None:
    baseline, no_floor = baseline_of(13), SPEC.model_copy(update={"psi": 1e-9})
    windows = [compare(DAY, baseline, window_of(baseline, 200, seed), no_floor) for seed in range(1, 101)]
    assert sum(window.verdict == "drifted" for window in windows) <= 5


Verdict = Literal["healthy", "drifted", "not enough data"]
RULES = [(k, n) for n in range(1, 5) for k in range(1, n + 1)]


@pytest.mark.parametrize(("k", "n"), RULES)
def test_an_alarm_is_k_of_the_last_n_windows_the_newest_among_them(k: int, n: int) -> None:
    """Every history of up to five windows."""
    spec: MonitorSpec = SPEC.model_copy(update={"persistence": Persistence(k=k, n=n)})
    for length in range(6):
        for history in product(get_args(Verdict), repeat=length):
            windows = [Window(DAY + timedelta(days=i), 200, (), verdict) for i, verdict in enumerate(history)]
            last = history[-n:]
            assert alarm(windows, spec) is (last.count("drifted") >= k and last[-1] == "drifted")
