from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from include import manifest as manifests
from include.kernel.errors import Permanent
from include.monitoring.core.correlations import Correlations, compute_correlations
from include.monitoring.core.data_quality import check_data_quality
from include.monitoring.core.profiles import Profile, build_category_baseline, build_number_baseline

SPEC = manifests.load().monitor


def table(rows: int, seed: int, relation: float = 0.8) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    age, noise = rng.normal(size=(2, rows))
    return {
        "age": age,
        "income": relation * age + np.sqrt(1 - relation**2) * noise,
        "debt": np.where(rng.random(rows) < 0.1, np.nan, rng.exponential(size=rows)),
        "home": np.array(["own", "rent"], dtype=object)[rng.integers(0, 2, rows)],
    }


@pytest.fixture(scope="module")
def baseline() -> dict[str, Profile]:
    columns = table(2000, 1)
    return {k: (build_category_baseline if k == "home" else build_number_baseline)(v) for k, v in columns.items()}


def raised(baseline: dict[str, Profile], columns: dict[str, Any]) -> list[tuple[str, str]]:
    current = {name: baseline[name].count_values(values) for name, values in columns.items()}
    relations = compute_correlations(table(2000, 1), baseline), compute_correlations(columns, baseline)
    return [(s.subject, s.measure) for s in check_data_quality(baseline, current, relations, SPEC) if s.raised]


def spoiled(column: str, share: float, value: Any) -> dict[str, Any]:
    columns = table(400, 2)
    columns[column][: int(share * 400)] = value
    return columns


@pytest.mark.parametrize("seed", range(2, 8))
def test_rows_like_those_of_the_baseline_raise_nothing(baseline: dict[str, Profile], seed: int) -> None:
    assert raised(baseline, table(400, seed)) == []


@pytest.mark.parametrize(
    ("column", "share", "value", "measure"),
    [
        ("debt", 0.2, np.nan, "missing"),
        ("home", 0.05, None, "missing"),
        ("home", 0.03, "ship", "new_categories"),
        ("debt", 0.04, 400.0, "out_of_range"),
        ("debt", 0.04, -1.0, "out_of_range"),
        ("debt", 0.06, 6.5, "outliers"),
    ],
)
def test_each_fault_is_found_and_named(
    baseline: dict[str, Profile], column: str, share: float, value: Any, measure: str
) -> None:
    assert (column, measure) in raised(baseline, spoiled(column, share, value))


def test_a_single_odd_value_is_nothing(baseline: dict[str, Profile]) -> None:
    assert raised(baseline, spoiled("debt", 1 / 400, 400.0)) == []


def test_a_column_that_became_better_is_nothing(baseline: dict[str, Profile]) -> None:
    columns = table(400, 2)
    columns["debt"] = np.nan_to_num(columns["debt"], nan=0.5)
    assert raised(baseline, columns) == []


def test_a_wrong_join_breaks_a_relation_and_no_column(baseline: dict[str, Profile]) -> None:
    columns = table(400, 2)
    columns["income"] = np.roll(columns["income"], 1)
    assert raised(baseline, columns) == [("age ~ income", "correlation")]


def test_a_measure_without_a_fault_is_told_by_the_column_nearest_to_its_bound(baseline: dict[str, Profile]) -> None:
    current = {name: baseline[name].count_values(values) for name, values in table(400, 2).items()}
    told = check_data_quality(baseline, current, None, SPEC)
    assert sorted(signal.measure for signal in told) == ["missing", "new_categories", "out_of_range", "outliers"]
    assert all(signal.severity == "ok" and not signal.action for signal in told)


def test_correlations_of_ranks_are_those_of_the_textbook_and_add_up(baseline: dict[str, Profile]) -> None:
    columns = table(3000, 5)
    parts = [{name: values[rows] for name, values in columns.items()} for rows in (slice(0, 999), slice(999, None))]
    whole, sum_ = (
        compute_correlations(columns, baseline),
        compute_correlations(parts[0], baseline) + compute_correlations(parts[1], baseline),
    )
    assert whole.compute_coefficients() == pytest.approx(sum_.compute_coefficients())
    found = {(one, other): value for one, other, value, _ in whole.iterate_pairs()}
    assert found["age", "income"] == pytest.approx(6 / np.pi * np.arcsin(0.8 / 2), abs=0.02)
    assert found["age", "debt"] == pytest.approx(0, abs=0.05)
    again = Correlations.decode(json.loads(json.dumps(whole.encode())))
    assert again.pairs == whole.pairs and np.array_equal(again.sums, whole.sums)


def test_a_wide_table_keeps_its_strongest_pairs_and_every_later_lot_measures_these() -> None:
    rng = np.random.default_rng(4)
    columns = {f"c{number}": rng.normal(size=300) for number in range(80)} | {"same": np.ones(300)}
    columns["c79"] = columns["c3"] + 0.1 * rng.normal(size=300)
    grids: dict[str, Profile] = {name: build_number_baseline(values) for name, values in columns.items()}
    every = compute_correlations(columns, grids)
    kept = every.keep_strongest()
    weakest = min(abs(value) for *_, value, _ in kept.iterate_pairs())
    assert len(every.pairs) == 81 * 80 / 2 > len(kept.pairs) == 2000 and ("c3", "c79") in kept.pairs
    assert sum(abs(value) > weakest for *_, value, _ in every.iterate_pairs()) == 1999
    columns["c79"] = np.roll(columns["c79"], 1)
    current = {name: grids[name].count_values(values) for name, values in columns.items()}
    later = compute_correlations(columns, grids, kept.pairs)
    told = [signal.subject for signal in check_data_quality(grids, current, (kept, later), SPEC) if signal.raised]
    assert later.pairs == kept.pairs and told == ["c3 ~ c79"]
    del columns["c3"]
    assert all("c3" not in pair for pair in compute_correlations(columns, grids, kept.pairs).pairs)


def test_correlations_as_the_former_version_stored_them_are_those_of_today(baseline: dict[str, Profile]) -> None:
    """Over a known, b known in two of three rows, ranks around the middle: four matrices over all columns."""
    former = {
        "names": ["a", "b"],
        "parts": [
            [[3, 2], [2, 2]],
            [[0.5, 0.25], [0.125, 0.125]],
            [[0.75, 0.5], [0.25, 0.25]],
            [[0.75, 0.3], [0.3, 0.25]],
        ],
    }
    found = Correlations.decode(former)
    assert found.pairs == (("a", "b"),) and found.sums[:, 0].tolist() == [2, 0.25, 0.125, 0.5, 0.25, 0.3]


def test_a_column_that_never_varies_has_no_relation() -> None:
    columns = {"one": np.ones(100), "other": np.arange(100.0)}
    baseline: dict[str, Profile] = {name: build_number_baseline(values) for name, values in columns.items()}
    assert list(compute_correlations(columns, baseline).iterate_pairs()) == []


def test_correlations_of_different_columns_are_not_added_up(baseline: dict[str, Profile]) -> None:
    columns = table(10, 1)
    with pytest.raises(Permanent, match="different columns cannot be added up"):
        compute_correlations(columns, baseline) + compute_correlations({"age": columns["age"]}, baseline)
