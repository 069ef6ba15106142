"""Two engines, one contract: polars in batches and Great Expectations on a data frame agree, rule by rule.

Verdicts and numbers of bad rows are compared on generated days, delivered as text (as from CSV) and typed (as from
Parquet), with everything in them that engines like to read in different ways.
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include import manifest as manifests
from include.data.core.contract import Rule
from include.data.validation import gx_validator, polars_validator
from include.manifest import Manifest

DAY = date(2026, 8, 1)
CONTRACT = """
id: loan
rows: {min: 2, max: 30}
columns:
  age: {kind: number, min: 18, max: 100, max_missing: 0.3, unique: true}
  price: {kind: number, max_missing: 0.0}
  amount: {kind: number, max: 1000}
  home: {kind: category, values: [rent, own, "größer", ""], max_missing: 0.5, severity: warning}
  plate: {kind: category, matches: '[A-ZÄÖ]{1,3}-\\d+|x.y', max_missing: 1.0}
  town: {kind: category, max_missing: 1.0}
extras:
  note: {kind: category, max_missing: 1.0}
checks: ["amount <= price", "not (age < 30 and price > 500) or home == 'rent'"]
event_time: {column: at, zone: required, late_hours: 6}
shift: {mean: 0.5, mix: 0.05}
unique_days: 1
"""


def manifest_with(contract: str, label: dict[str, Any] | None = None) -> Manifest:
    shipped = yaml.safe_load(manifests.DEFAULT_PATH.read_text())
    label = label or {"column": "status", "positive": "bad", "negative": "good", "delay_days": 3}
    changed = {**shipped, "contract": yaml.safe_load(contract), "label": label}
    for section in ("groups",):
        changed.pop(section, None)
    return manifests.parse(yaml.safe_dump(changed))


MANIFEST = manifest_with(CONTRACT)
NUMBERED = manifest_with(CONTRACT, {"column": "status", "positive": 1, "negative": 0, "delay_days": 3})
PUBLISHED = [f"L{number}" for number in (1, 5, 7)]


def both(manifest: Manifest, table: pa.Table, room: Path, reference: Path | None, published: list[Path]) -> list[Any]:
    """(rule, verdicts, bad rows) of both engines, where they differ."""
    landed = room / "landed.parquet"
    pq.write_table(table, landed)
    found = polars_validator.validate(landed, manifest, DAY, directory=room, reference=reference, published=published)
    rules = [outcome.expectation for outcome in found.outcomes]
    frame = pq.read_table(landed).to_pandas(integer_object_nulls=True)
    oracle = gx_validator.validate(frame, rules, PUBLISHED if published else ())
    return [
        (str(ours.expectation), (ours.passed, ours.bad), (theirs.passed, theirs.bad))
        for ours, theirs in zip(found.outcomes, oracle, strict=True)
        if (ours.passed, _counted(ours)) != (theirs.passed, _counted(theirs))
    ]


def _counted(outcome: Any) -> int:
    """Rules about the day have no bad rows to count, but for missing values."""
    return outcome.bad if outcome.expectation.about_rows or outcome.expectation.rule == "complete" else 0


numbers = st.one_of(
    st.none(), st.just(math.nan), st.sampled_from([math.inf, -math.inf, 0.0, -0.0, 18, 100, 100.5, 1000, 1e308]),
    st.integers(-10, 1200).map(float),
)  # fmt: skip
FULL_WIDTH_ONE, ARABIC_THREE = "\uff11", "\u0663"
ODD_NUMBERS = ["", " 1", "1 ", "1_0", "1,5", "NaN", "nan", "-inf", "Infinity", "1e3", "1e400", ".5", "5.", "old"]
ODD_TEXTS = ["", "Rent", "own ", "größer", "gro\u0308ßer", "x\ny", "x\u2028y", "AB-1\n", f"ÄÖ-{ARABIC_THREE}"]
number_texts = st.one_of(
    st.none(),
    st.integers(-10, 1200).map(str),
    st.floats(0, 1200).map(str),
    st.sampled_from([*ODD_NUMBERS, FULL_WIDTH_ONE]),
)
texts = st.one_of(st.none(), st.sampled_from(["rent", "own", "AB-1", *ODD_TEXTS]), st.text(max_size=3))
times = st.one_of(
    st.none(), st.sampled_from([
        "2026-08-01T00:00:00Z", "2026-08-01T23:59:59.999999+00:00", "2026-08-02T00:00:00Z", "2026-08-02T01:00:00+02:00",
        "2026-08-01 10:00:00", "2026-08-01", "2026-02-30T10:00:00Z", "2026-07-31T18:00:00Z", "2026-07-31T17:59:59Z", "",
        "01.08.2026 10:00", "2026-08-01T25:00:00Z",
    ]),
)  # fmt: skip
ids = st.one_of(st.integers(1, 30).map("L{}".format), st.none(), st.just(""))
labels = st.sampled_from(["bad", "good", "good", "ugly", None])
columns = {"loan": ids, "status": labels, "home": texts, "plate": texts, "town": texts, "note": texts}


def rows(**more: Any) -> Any:
    return st.lists(st.fixed_dictionaries({**columns, **more}), min_size=1, max_size=40)


def as_table(found: list[dict[str, Any]], **types: pa.DataType) -> pa.Table:
    fields = [pa.field(name, types.get(name, pa.string())) for name in found[0]]
    return pa.Table.from_pylist(found, schema=pa.schema(fields))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The day before: what a new one is compared with, and whose ids must not come again."""
    path = tmp_path_factory.mktemp("earlier") / "rows.parquet"
    towns = ["Ulm", "Rom", "Ulm", "AB-1", "rent", "own"]
    known = {"loan": [*PUBLISHED, "A", "B", "C"], "age": [30.0, 40, 50, None, 20, 61], "price": [1.0, 500, 90, 7, 8, 9]}
    pq.write_table(pa.table({**known, "town": towns, "home": ["rent", "own", "rent", None, "rent", "own"]}), path)
    return path


# An example costs Great Expectations a third of a second, so few are drawn, of many rows, and a failure is not shrunk.
slow = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)


@slow
@given(rows(age=number_texts, price=number_texts, amount=number_texts, at=times))
def test_both_engines_agree_on_rows_delivered_as_text(
    tmp_path: Path, earlier: Path, found: list[dict[str, Any]]
) -> None:
    assert both(MANIFEST, as_table(found), tmp_path, earlier, [earlier]) == []


stamps = st.one_of(
    st.none(), st.integers(-30, 50).map(lambda hours: datetime(2026, 8, 1) + timedelta(hours=hours))
)  # fmt: skip
typed = rows(age=numbers, price=numbers, amount=st.one_of(st.none(), st.integers(0, 2000)), at=stamps)


@slow
@given(typed, st.sampled_from([None, "UTC", "Europe/Rome"]))
def test_both_engines_agree_on_rows_delivered_with_types(
    tmp_path: Path, earlier: Path, found: list[dict[str, Any]], zone: str | None
) -> None:
    types = {"age": pa.float64(), "price": pa.float64(), "amount": pa.int64(), "at": pa.timestamp("us", zone)}
    assert both(MANIFEST, as_table(found, **types), tmp_path, earlier, []) == []


def day(count: int = 20, **changes: Any) -> pa.Table:
    """A day without a fault; a change is a list of cells, by row from the first, or a column as a whole."""
    towns = ["Ulm", "Rom", "Ulm", "AB-1", "rent", "own"]
    good = {
        "loan": [f"N{number}" for number in range(count)],
        "status": ["bad", "good"] * (count // 2),
        "age": [31.0 + number for number in range(count)],
        "price": [300.0] * count,
        "amount": [200.0] * count,
        "home": ["rent", "own"] * (count // 2),
        "plate": ["AB-1"] * count,
        "town": [towns[number % 6] for number in range(count)],
        "note": ["fine"] * count,
        "at": ["2026-08-01T10:00:00Z"] * count,
    }
    for name, cells in changes.items():
        good[name] = [*cells, *good.get(name, [])[len(cells) :]] if isinstance(cells, list) else cells
    return pa.table({name: cells for name, cells in good.items() if cells is not None})


BROKEN = {
    "row_count": (day(40, age=[float(18 + n) for n in range(40)]), "rows: row count (min=2, max=30)", 0),
    "declared": (day(extra=["?"] * 20), "rows: declared", 0),
    "exists": (day(town=None), "town: exists", 0),
    "typed": (day(price=["300", "old", "", "1_0"] + ["300"] * 16), "price: typed (kind=number)", 3),
    "typed integers": (day(home=list(range(20))), "home: typed (kind=category)", 20),
    "in_range of flags": (day(age=[True, None] * 10), "age: in range (min=18.0, max=100.0)", 10),
    "typed times": (day(at=["yesterday", "2026-02-30T10:00:00Z"]), "at: typed (kind=timestamp)", 2),
    "zoned": (day(at=["2026-08-01T10:00:00"]), "at: zoned (zone=required)", 1),
    "zoned by type": (day(at=[datetime(2026, 8, 1, 3)] * 20), "at: zoned (zone=required)", 20),
    "in_day": (day(at=["2026-08-02T00:00:00Z", "2026-07-31T17:59:59Z"]), "at: in day", 2),
    "complete": (day(price=[None, math.nan]), "price: complete (max_missing=0.0)", 2),
    "complete up to a share": (day(age=[None] * 7), "age: complete (max_missing=0.3)", 7),
    "unique": (day(loan=["N", "N", None, None]), "loan: unique", 2),
    "new_id": (day(loan=["L1", "L2"]), "loan: new id", 1),
    "finite": (day(price=[math.inf, -math.inf]), "price: finite", 2),
    "in_range": (day(age=[17.9, 100.1, math.inf]), "age: in range (min=18.0, max=100.0)", 3),
    "in_set": (day(home=["castle", "Rent", "", None]), "home: in set", 2),
    "in_set by unicode form": (day(home=["größer", "gro\u0308ßer"]), "home: in set", 1),
    "matches": (day(plate=["AB-1x", "x\ny", "AB-1\n", "xzy", "ÄÖ-7"]), "plate: matches", 3),
    "known_values": (day(town=["Bonn", "Bonn"]), "town: known values", 2),
    "holds": (day(amount=[301.0, None, math.inf]), "rows: holds (check=amount <= price)", 1),
    "mean_shift": (day(age=[90.0 + n / 10 for n in range(20)]), "age: mean shift", 0),
    "mix_shift": (day(town=["own"] * 20), "town: mix shift", 0),
}


@pytest.mark.parametrize("name", BROKEN)
def test_both_engines_find_the_same_rule_broken_by_as_many_rows(tmp_path: Path, earlier: Path, name: str) -> None:
    table, told, bad = BROKEN[name]
    assert both(MANIFEST, table, tmp_path, earlier, [earlier]) == []
    found = polars_validator.validate(
        tmp_path / "landed.parquet", MANIFEST, DAY, directory=tmp_path, reference=earlier, published=[earlier]
    )
    [broken] = [each for each in found.outcomes if not each.passed and str(each.expectation).startswith(told)]
    assert _counted(broken) == bad


def test_every_rule_has_its_broken_day_and_a_good_day_breaks_none(tmp_path: Path, earlier: Path) -> None:
    assert {name.split()[0] for name in BROKEN} == set(get_args(Rule))
    assert both(MANIFEST, day(), tmp_path, earlier, [earlier]) == []
    found = polars_validator.validate(
        tmp_path / "landed.parquet", MANIFEST, DAY, directory=tmp_path, reference=earlier, published=[earlier]
    )
    assert [str(each) for each in found.outcomes if not each.passed] == []


@pytest.mark.parametrize(
    ("delivered", "bad"), [([0, 1, 2, None], 1), (["0", "1.0", "1e0", "0.5", "x", ""], 3), ([0.0, 1.0, math.nan], 0)]
)
def test_classes_that_are_numbers_are_whole_numbers_however_they_are_delivered(
    tmp_path: Path, delivered: list[Any], bad: int
) -> None:
    table = day(count=20).set_column(1, "status", [delivered + [delivered[0]] * (20 - len(delivered))])
    assert both(NUMBERED, table, tmp_path, None, []) == []
    found = polars_validator.validate(tmp_path / "landed.parquet", NUMBERED, DAY, directory=tmp_path)
    rules = [
        each for each in found.outcomes if each.expectation.column == "status" and each.expectation.rule != "complete"
    ]
    assert sum(each.bad for each in rules) == bad
