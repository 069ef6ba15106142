"""What the columnar engine writes and what it leaves alone; that its verdicts are right is the oracle's business."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from include import manifest as manifests
from include.data.core.contract import Validation
from include.data.validation import row_checks
from include.data.validation.polars_validator import validate
from include.kernel.errors import ManifestInvalid

DAY = dt.date(2026, 8, 1)
CONTRACT: dict[str, Any] = {
    "id": "loan",
    "rows": {"min": 2, "max": 1000},
    "columns": {"age": {"kind": "number", "min": 18, "max_missing": 0.5}, "home": {"kind": "category"}},
    "event_time": {"column": "at"},
    "max_quarantined": 0.3,
}


def manifest(**changes: Any) -> manifests.Manifest:
    shipped = yaml.safe_load(manifests.DEFAULT_PATH.read_text())
    label = {"column": "status", "positive": "bad", "negative": "good", "delay_days": 1}
    return manifests.parse(yaml.safe_dump({**shipped, "contract": CONTRACT | changes, "label": label, "groups": {}}))


def day(count: int = 10, **changes: Any) -> pa.Table:
    moment = dt.datetime(2026, 8, 1, 12, tzinfo=dt.UTC)
    columns = {
        "loan": [f"N{number}" for number in range(count)],
        "status": ["bad", "good"] * (count // 2),
        "age": [20.0 + number for number in range(count)],
        "home": ["own"] * count,
        "at": pa.array([moment] * count, pa.timestamp("us", "UTC")),
    }
    return pa.table({**columns, **changes})


def run(table: pa.Table, room: Path, **changes: Any) -> Validation:
    pq.write_table(table, room / "landed.parquet")
    return validate(room / "landed.parquet", manifest(**changes), DAY, directory=room)


def test_a_day_that_is_already_what_it_should_be_is_linked_and_not_written_again(tmp_path: Path) -> None:
    found = run(day(), tmp_path)
    assert found.refusal is None and found.accepted is not None
    assert found.accepted.stat().st_ino == (tmp_path / "landed.parquet").stat().st_ino


@pytest.mark.parametrize(
    "table",
    [
        day(age=[math.nan] + [20.0] * 9),
        day(age=[str(20 + number) for number in range(10)]),
        day().select(["at", "home", "age", "status", "loan"]),
        day(home=pa.array(["own"] * 10).dictionary_encode()),
        day(age=pa.array(range(20, 30), pa.int32())),
    ],
    ids=["nan", "text", "order", "dictionary", "integer"],
)
def test_accepted_rows_have_the_types_and_the_order_of_the_contract(tmp_path: Path, table: pa.Table) -> None:
    found = run(table, tmp_path)
    assert found.refusal is None and found.accepted is not None
    accepted = pq.read_table(found.accepted)
    assert accepted.schema.names == ["loan", "status", "age", "home", "at"]
    assert [str(kind) for kind in accepted.schema.types] == [
        "string", "string", "double", "string", "timestamp[us, tz=UTC]",
    ]  # fmt: skip
    assert not any(isinstance(age, float) and math.isnan(age) for age in accepted["age"].to_pylist())
    assert accepted["loan"].to_pylist() == [f"N{number}" for number in range(10)]


def test_rows_keep_their_order_and_their_numbers_over_many_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_checks, "BATCH_ROWS", 7)
    ages = [3.0 if number in (6, 7, 48, 99) else 30.0 for number in range(100)]
    ids = ["N0" if number in (13, 70) else f"I{number}" for number in range(100)]
    found = run(day(100, age=ages, loan=ids), tmp_path)
    assert found.accepted is not None and found.quarantine is not None
    aside = pl.read_parquet(found.quarantine)
    assert aside["row_number"].to_list() == [7, 8, 14, 49, 71, 100]
    kept = [name for number, name in enumerate(ids) if number + 1 not in aside["row_number"].to_list()]
    assert pq.read_table(found.accepted)["loan"].to_pylist() == kept
    [told] = [str(each) for each in found.outcomes if not each.passed and each.expectation.rule == "in_range"]
    assert told == "age: in range (min=18.0, max=None), found 4 of 100 rows (7, 8, 49, ...), such as '3.0'"


def test_columns_nobody_declared_are_kept_as_they_came_and_shown_as_text_in_quarantine(tmp_path: Path) -> None:
    odd = {"tags": [["a", "b"]] * 10, "raw": [b"\x00"] * 10, "on": [DAY] * 10, "row_number": range(10)}
    found = run(day(age=[3.0] + [30.0] * 9, **odd), tmp_path)
    assert found.accepted is not None and found.quarantine is not None
    assert pq.read_table(found.accepted).schema.field("tags").type.value_type == pa.string()
    [row] = pl.read_parquet(found.quarantine).to_dicts()
    assert (row["row_number"], row["delivered row_number"], row["on"]) == (1, "0", "2026-08-01")
    assert "'tags', 'raw', 'on', 'row_number'" in found.warnings[0]


def test_a_refused_day_writes_nothing(tmp_path: Path) -> None:
    found = run(day(age=[3.0] * 10), tmp_path)
    assert found.refusal is not None and (found.accepted, found.quarantine, found.page) == (None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["landed.parquet"]


def test_mixed_and_absent_time_zones_are_named_with_their_rows(tmp_path: Path) -> None:
    times = ["2026-08-01T10:00:00Z"] * 8 + ["2026-08-01T10:00:00", "2026-08-01 10:00:00+02:00"]
    found = run(day(at=times), tmp_path, max_quarantined=0.0)
    assert found.refusal is not None
    assert "at: zoned (zone=required), found 1 of 10 rows (9), such as '2026-08-01T10:00:00'" in found.refusal


def test_a_pattern_the_engine_does_not_know_is_the_manifests_fault(tmp_path: Path) -> None:
    columns = CONTRACT["columns"] | {"home": {"kind": "category", "matches": "(?#note)a"}}
    with pytest.raises(ManifestInvalid, match="the pattern of 'home' cannot be used"):
        run(day(), tmp_path, columns=columns)
