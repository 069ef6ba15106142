from __future__ import annotations

from datetime import date, timedelta
from functools import reduce
from itertools import product
from operator import add
from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include import manifest as manifests
from include.monitoring.core import drift
from include.monitoring.core.correlations import compute_correlations
from include.monitoring.core.drift import TableProfile, Window, should_alarm
from include.monitoring.core.profiles import build_category_baseline, build_number_baseline
from include.monitoring.core.signals import SCORE, Signal
from include.monitoring.spec import MonitorSpec, Persistence

DAY = date(2026, 9, 1)
SPEC = manifests.load().monitor.model_copy(update={"psi": 0.25, "alpha": 0.005, "min_rows": 150, "bins": 10})
LENIENT = SPEC.model_copy(update={"min_rows": 10})


def drawn(rows: int, seed: int, mean: float = 0.0) -> Any:
    return np.random.default_rng(seed).normal(mean, 1, rows)


def baseline_of(features: int, rows: int = 2000) -> TableProfile:
    return TableProfile({f"f{i}": build_number_baseline(drawn(rows, i)) for i in range(features)})


def window_of(baseline: TableProfile, rows: int, seed: int, **means: float) -> TableProfile:
    drawn_anew = {name: drawn(rows, 1000 * seed + i, means.get(name, 0)) for i, name in enumerate(baseline.profiles)}
    return TableProfile({name: baseline.profiles[name].count_values(values) for name, values in drawn_anew.items()})


def compare(baseline: TableProfile, current: TableProfile, spec: MonitorSpec = SPEC) -> Window:
    return drift.compare_window(DAY, baseline, current, 0.5, spec)


def of(window: Window, check: str, measure: str = "psi") -> list[Signal]:
    return [signal for signal in window.signals if (signal.check, signal.measure) == (check, measure)]


@given(st.lists(st.tuples(st.integers(1, 30), st.sets(st.sampled_from("abc"), min_size=1)), min_size=1, max_size=4))
def test_days_add_up_to_the_window_of_the_columns_that_all_of_them_have(days: list[tuple[int, set[str]]]) -> None:
    grid = {name: build_number_baseline(drawn(200, place), knots=20) for place, name in enumerate("abc")}
    tables = [
        {name: drawn(rows, 10 * number + place) for place, name in enumerate("abc") if name in names}
        for number, (rows, names) in enumerate(days)
    ]
    shared = [name for name in "abc" if all(name in table for table in tables)]
    whole = measured({name: np.concatenate([table[name] for table in tables]) for name in shared}, grid)
    summed = reduce(add, [measured(table, grid) for table in tables])
    assert list(summed.profiles) == shared
    for name in shared:
        assert summed.profiles[name].counts.tolist() == whole.profiles[name].counts.tolist()
        assert summed.profiles[name].mean == pytest.approx(whole.profiles[name].mean)
    assert summed.correlations is not None and whole.correlations is not None
    assert summed.correlations.pairs == whole.correlations.pairs
    assert np.allclose(
        summed.correlations.compute_coefficients(), whole.correlations.compute_coefficients(), equal_nan=True
    )


def measured(table: dict[str, Any], grid: dict[str, Any]) -> Any:
    return TableProfile(
        {name: grid[name].count_values(values) for name, values in table.items()}, compute_correlations(table, grid)
    )


def test_lots_without_correlations_come_to_none() -> None:
    baseline = baseline_of(2)
    with_relations = measured({"f0": drawn(9, 1), "f1": drawn(9, 2)}, dict(baseline.profiles))
    assert (window_of(baseline, 9, 1) + with_relations).correlations is None


def test_a_window_like_the_baseline_is_healthy() -> None:
    baseline = baseline_of(5)
    window = compare(baseline, window_of(baseline, 300, seed=1))
    assert (window.verdict, window.moved, window.rows) == ("healthy", {}, 300)


def test_a_feature_that_moved_is_named() -> None:
    baseline = baseline_of(5)
    window = compare(baseline, window_of(baseline, 300, seed=1, f3=1.0))
    assert (window.verdict, list(window.moved)) == ("drifted", ["f3"])


def test_values_that_went_missing_are_a_move() -> None:
    baseline = baseline_of(1)
    gone = TableProfile({"f0": baseline.profiles["f0"].count_values([*drawn(150, 7), *[float("nan")] * 150])})
    assert compare(baseline, gone).verdict == "drifted"


def test_a_window_of_too_few_rows_says_so_however_far_it_moved() -> None:
    baseline = baseline_of(2)
    window = compare(baseline, window_of(baseline, 149, seed=1, f0=9.0))
    assert (window.verdict, window.rows, window.signals) == ("not enough data", 149, ())


def test_no_feature_at_all_is_not_enough_data() -> None:
    assert compare(TableProfile({}), TableProfile({})).verdict == "not enough data"


def test_a_column_that_is_not_delivered_is_a_signal_and_the_others_are_compared_without_it() -> None:
    baseline = baseline_of(3)
    current = window_of(baseline, 300, seed=1, f2=1.0)
    others = {name: profile for name, profile in current.profiles.items() if name != "f1"}
    window = compare(baseline, TableProfile({**others, "new": build_number_baseline(drawn(300, 5))}))
    assert [(s.subject, s.severity) for s in window.signals if s.check == "schema_drift"] == [
        ("f1", "critical"),
        ("new", "unknown"),
    ]
    assert list(window.moved) == ["f2"]


def test_a_move_that_is_certain_but_small_does_not_count() -> None:
    baseline = baseline_of(1, rows=50_000)
    window = compare(baseline, window_of(baseline, 50_000, seed=2, f0=0.15))
    [moved] = of(window, "feature_drift")
    assert moved.p_value is not None and moved.p_value < 1e-9
    assert moved.severity == "ok" and window.verdict == "healthy"


def test_a_middling_move_is_a_warning_and_no_verdict() -> None:
    baseline = baseline_of(1, rows=50_000)
    window = compare(baseline, window_of(baseline, 5000, seed=2, f0=0.4))
    [moved] = of(window, "feature_drift")
    assert (moved.severity, window.verdict) == ("warning", "healthy")
    assert moved.action


def test_a_move_that_is_large_but_may_be_chance_does_not_count() -> None:
    baseline = baseline_of(1, rows=40)
    [moved] = of(compare(baseline, window_of(baseline, 12, 5), LENIENT), "feature_drift")
    assert moved.value is not None and moved.value >= SPEC.psi
    assert moved.severity == "ok"


def test_a_spread_that_widened_is_a_move_although_the_middle_stayed() -> None:
    baseline = baseline_of(1)
    [moved] = of(
        compare(baseline, TableProfile({"f0": baseline.profiles["f0"].count_values(3 * drawn(300, 9))})),
        "feature_drift",
    )
    assert moved.severity == "critical"
    assert set(moved.details) == {"ks", "jensen_shannon"}


def test_a_constant_column_that_changed_its_value_moved_in_either_direction() -> None:
    baseline = TableProfile({"f0": build_number_baseline(np.full(500, 3.0))})
    for value, verdict in ((3.0, "healthy"), (2.0, "drifted"), (4.0, "drifted")):
        assert (
            compare(baseline, TableProfile({"f0": baseline.profiles["f0"].count_values(np.full(300, value))})).verdict
            == verdict
        )


def test_a_column_that_had_no_value_in_the_baseline_is_compared_like_any_other() -> None:
    nothing = np.full(300, np.nan)
    baseline = TableProfile({"f0": build_number_baseline(nothing), "home": build_category_baseline([None] * 300)})
    same = TableProfile(
        {
            "f0": baseline.profiles["f0"].count_values(nothing),
            "home": baseline.profiles["home"].count_values([None] * 300),
        }
    )
    filled = TableProfile(
        {
            "f0": baseline.profiles["f0"].count_values(drawn(300, 1)),
            "home": baseline.profiles["home"].count_values("a" * 300),
        }
    )
    assert compare(baseline, same).verdict == "healthy"
    assert set(compare(baseline, filled).moved) == {"f0", "home"}


def test_a_mix_of_categories_that_turned_is_a_move() -> None:
    baseline = TableProfile({"home": build_category_baseline(["own"] * 300 + ["rent"] * 100)})
    turned = TableProfile({"home": baseline.profiles["home"].count_values(["own"] * 100 + ["rent"] * 100)})
    assert list(compare(baseline, turned).moved) == ["home"]


def scored(rows: int, seed: int, shift: float = 0.0) -> Any:
    return np.clip(np.random.default_rng(seed).beta(2, 6, rows) + shift, 0, 1)


@pytest.mark.parametrize(
    ("shift", "severities"), [(0.0, ["ok"] * 3), (0.04, ["ok", "warning", "ok"]), (0.2, ["critical", *["warning"] * 2])]
)
def test_scores_are_watched_by_shape_by_mean_and_by_what_is_decided(shift: float, severities: list[str]) -> None:
    baseline = TableProfile({SCORE: build_number_baseline(scored(5000, 1), include=[0.5])})
    window = compare(baseline, TableProfile({SCORE: baseline.profiles[SCORE].count_values(scored(3000, 2, shift))}))
    found = {signal.measure: signal for signal in window.signals if signal.check == "prediction_drift"}
    assert [found[name].severity for name in ("psi", "mean_shift", "decision_rate_shift")] == severities
    assert found["mean_shift"].value == pytest.approx(shift, abs=0.01)
    assert window.verdict == ("drifted" if "critical" in severities else "healthy")


def test_without_scores_their_drift_is_unknown() -> None:
    baseline = TableProfile(
        {"f0": build_number_baseline(drawn(500, 1)), SCORE: build_number_baseline(scored(500, 1), include=[0.5])}
    )
    window = compare(baseline, TableProfile({"f0": baseline.profiles["f0"].count_values(drawn(300, 2))}))
    assert [signal.severity for signal in of(window, "prediction_drift")] == ["unknown"]


def test_labels_are_watched_by_their_rate_and_by_how_well_scores_foretell_them() -> None:
    rng = np.random.default_rng(4)
    score = rng.beta(2, 6, 4000)
    for truth, raised in (
        (rng.random(4000) < score, []),
        (rng.random(4000) < np.minimum(score + 0.15, 1), ["rate_change", "calibration_error"]),
        (rng.random(4000) < score.mean(), ["calibration_error"]),
    ):
        signals = drift.detect_label_drift((1000, 4000), truth.astype(float), score, SPEC, seed=1)
        assert [signal.measure for signal in signals if signal.raised] == raised


def test_too_few_labels_are_unknown() -> None:
    [signal] = drift.detect_label_drift((100, 400), np.ones(149), np.ones(149), SPEC, seed=1)
    assert (signal.severity, signal.raised) == ("unknown", False)


def test_healthy_days_of_a_wide_table_hardly_ever_drift_where_any_small_p_value_often_would() -> None:
    baseline = baseline_of(13)
    windows = [compare(baseline, window_of(baseline, 200, seed), SPEC) for seed in range(1, 101)]
    textbook = [any((signal.p_value or 0) < 0.05 for signal in of(window, "feature_drift")) for window in windows]
    assert sum(window.verdict == "drifted" for window in windows) <= 1
    assert sum(textbook) > 25


def test_the_correction_for_many_features_holds_without_the_floor_under_the_effect() -> None:
    baseline, no_floor = baseline_of(13), SPEC.model_copy(update={"psi": 1e-9, "psi_warning": 1e-9})
    windows = [compare(baseline, window_of(baseline, 200, seed), no_floor) for seed in range(1, 101)]
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
            assert should_alarm(windows, spec) is (last.count("drifted") >= k and last[-1] == "drifted")
