"""Every type that pyarrow writes into Parquet, as a declared number, a declared category and a column nobody declared.

`published` or one sentence, never a trace; a column nobody declared never stops the day. `pytest -s` prints the table.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.data.landing.landed_rows import LandedRows
from include.data.landing.landing import land
from include.data.sources.files import Files
from include.data.spec import FilesSource
from include.data.validation import polars_validator
from include.kernel.errors import DataRefused
from include.manifest import Manifest
from tests.data.test_contract_oracle import manifest_with

DAY = date(2026, 8, 1)
ONE, TWO = Decimal("1.5"), Decimal("2.0")
NOON, HOUR = datetime(2026, 8, 1, 12), time(1, 2, 3)


def _cells(*cells: object) -> Callable[[pa.DataType], pa.Array]:
    return lambda kind: pa.array([*cells, None], kind)


TYPES: dict[str, pa.Array] = {
    "null": pa.nulls(3),
    "bool": _cells(True, False)(pa.bool_()),
    **{str(kind): _cells(1, 2)(kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())},
    **{str(kind): _cells(1, 2)(kind) for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())},
    **{str(kind): _cells(1.5, 2.0)(kind) for kind in (pa.float16(), pa.float32(), pa.float64())},
    **{str(kind): _cells(ONE, TWO)(kind) for kind in (pa.decimal32(5, 2), pa.decimal64(12, 2), pa.decimal128(38, 2))},
    **{str(kind): _cells(ONE, TWO)(kind) for kind in (pa.decimal256(38, 2), pa.decimal256(76, 38))},
    **{str(kind): _cells("a", "b")(kind) for kind in (pa.string(), pa.large_string(), pa.string_view())},
    **{str(kind): _cells(b"a", b"\xff")(kind) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())},
    "text as binary": _cells(b"a", b"b")(pa.binary()),
    "fixed_size_binary": _cells(b"ab", b"\xff\xfe")(pa.binary(2)),
    **{str(kind): _cells(DAY, DAY)(kind) for kind in (pa.date32(), pa.date64())},
    **{str(kind): _cells(HOUR, HOUR)(kind) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"))},
    "time64[ns]": _cells(HOUR, HOUR)(pa.time64("ns")),
    **{f"timestamp[{unit}]": _cells(NOON, NOON)(pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    **{
        f"timestamp[us, {zone}]": _cells(NOON, NOON)(pa.timestamp("us", zone))
        for zone in ("UTC", "Z", "+05:30", "-03:00", "Europe/Berlin")
    },
    **{f"duration[{unit}]": _cells(timedelta(1), timedelta(2))(pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "dictionary of text": pa.array(["a", "b", None]).dictionary_encode(),
    "dictionary of int64": pa.array([1, 2, None]).dictionary_encode(),
    "list": _cells([1], [2])(pa.list_(pa.int64())),
    "large_list": _cells([1], [2])(pa.large_list(pa.int64())),
    "struct": _cells({"a": 1}, {"a": 2})(pa.struct([("a", pa.int64())])),
    "map": _cells([("a", 1)], [("b", 2)])(pa.map_(pa.string(), pa.int64())),
    "uuid": _cells(b"a" * 16, b"b" * 16)(pa.uuid()),
    "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", "[]", None])),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None], pa.int8())),
}
CONTRACT = "id: loan\nrows: {min: 1, max: 30}\ncolumns: {age: {kind: number}}\n"
NUMBERS = ("null", "bool", "bool8", "int", "uint", "halffloat", "float", "double", "decimal", "dictionary of int64")
TEXTS = ("null", "bool", "string", "large_string", "text as binary", "dictionary of text", "uuid", "json")


def deliver(cells: pa.Array, tmp_path: Path, declared: str | None) -> str:
    """`published`, or the sentence that refuses the day."""
    extra = f"extras: {{x: {{kind: {declared}, max_missing: 1.0}}}}\n" if declared else ""
    manifest = manifest_with(CONTRACT + extra)
    ids, ages, status = ["a", "b", "c"], [1.0, 2.0, 3.0], ["good", "bad", "good"]
    pq.write_table(pa.table({"loan": ids, "age": ages, "x": cells, "status": status}), tmp_path / f"{DAY}.parquet")
    try:
        return _publish(manifest, tmp_path)
    except DataRefused as refusal:
        return str(refusal)


def _publish(manifest: Manifest, tmp_path: Path) -> str:
    spec = FilesSource.model_validate({"kind": "files", "path": f"{tmp_path}/{{day}}.parquet"})
    source = Files(spec, manifest.declared_columns)
    landing = land(source.read_batches(DAY), tmp_path, declared=manifest.declared_columns)
    assert landing is not None
    found = polars_validator.validate(LandedRows.build_from_landing(landing), manifest, DAY, directory=tmp_path)
    if found.refusal:
        return found.refusal
    assert found.accepted is not None and pl.read_parquet(found.accepted, glob=False).height == 3
    return "published"


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_published_or_refused_by_one_sentence_and_undeclared_it_never_stops_a_day(
    name: str, tmp_path: Path
) -> None:
    told = {kind: deliver(TYPES[name], tmp_path, kind) for kind in ("number", "category", None)}
    for kind, what in told.items():
        print(f"{name:25} {kind or 'undeclared':11} {what[:150]}")
        assert "\n" not in what and what
    assert told[None] == "published"
    assert (told["number"] == "published") == name.startswith(NUMBERS)
    assert (told["category"] == "published") == (name.startswith(TEXTS) and name != "bool8")


@pytest.mark.parametrize(
    ("kind", "name"), [("number", "date32[day]"), ("category", "int64"), ("number", "duration[us]")]
)
def test_a_wrong_type_is_called_by_its_name(kind: str, name: str, tmp_path: Path) -> None:
    assert f"delivered as {TYPES[name].type}" in deliver(TYPES[name], tmp_path, kind)


def test_a_year_beyond_the_nanoseconds_of_int96_stays_what_it_is(tmp_path: Path) -> None:
    ends = pa.array([datetime(9999, 12, 31), datetime(2026, 8, 1), None], pa.timestamp("us"))
    path = tmp_path / f"{DAY}.parquet"
    pq.write_table(pa.table({"x": ends}), path, use_deprecated_int96_timestamps=True)
    spec = FilesSource.model_validate({"kind": "files", "path": f"{tmp_path}/{{day}}.parquet"})
    [batch] = Files(spec).read_batches(DAY)
    assert batch.column(0).to_pylist() == ends.to_pylist()


class TestUndeclaredColumns:
    """They differ from file to file, come late or go away: the day is published all the same."""

    CONTRACT = "id: loan\nrows: {min: 1, max: 30}\ncolumns: {age: {kind: number}}\n"

    @pytest.mark.parametrize(
        "second",
        [{"x": pa.array([1.5])}, {"x": pa.array(["a"])}, {"x": pa.array([[1]])}, {}, {"x": pa.array([3]), "y": ["b"]}],
        ids=["other number", "text", "list", "gone", "one more"],
    )
    def test_a_later_file_may_have_others(self, second: dict[str, pa.Array], tmp_path: Path) -> None:
        manifest = manifest_with(self.CONTRACT)
        for number, more in enumerate(({"x": pa.array([7])}, second)):
            rows = {"loan": [f"L{number}"], "age": [30.0], "status": ["good"], **more}
            pq.write_table(pa.table(rows), tmp_path / f"{number}.parquet")
        spec = FilesSource.model_validate({"kind": "files", "path": f"{tmp_path}/{{day}}/../*.parquet"})
        (tmp_path / str(DAY)).mkdir()
        batches = Files(spec, manifest.declared_columns).read_batches(DAY)
        landing = land(batches, tmp_path / str(DAY), declared=manifest.declared_columns)
        assert landing is not None and (landing.rows, landing.columns) == (2, ("loan", "age", "status", "x"))
        assert pq.read_table(landing.path)["x"].to_pylist()[0] == 7

    def test_one_that_only_a_later_file_has_is_named_in_the_log(self, tmp_path: Path, caplog) -> None:
        parts = [pa.record_batch({"loan": ["a"]}), pa.record_batch({"loan": ["b"], "gift of late": [1]})]
        assert land(parts, tmp_path, declared=frozenset(("loan",))) is not None
        assert "'gift of late', which nobody declared, are left out: no file before has it" in caplog.text

    def test_cells_that_do_not_fit_the_rows_before_are_named_in_the_log(self, tmp_path: Path, caplog) -> None:
        parts = [pa.record_batch({"loan": ["a"], "late": [1]}), pa.record_batch({"loan": ["b"], "late": ["two"]})]
        landing = land(parts, tmp_path, declared=frozenset(("loan",)))
        assert landing is not None and pq.read_table(landing.path)["late"].to_pylist() == [1, None]
        assert "'late', which nobody declared, are left out: the rows before it hold int64" in caplog.text

    def test_where_the_contract_refuses_them_they_are_held_like_all_others(self) -> None:
        assert manifest_with(self.CONTRACT).declared_columns == {"loan", "status", "age"}
        assert manifest_with(self.CONTRACT + "unknown_columns: refuse\n").declared_columns is None

    def test_a_declared_one_may_not(self, tmp_path: Path) -> None:
        parts = [pa.record_batch({"loan": ["a"], "age": [1.0]}), pa.record_batch({"loan": ["b"], "age": ["x"]})]
        with pytest.raises(DataRefused, match="holds column 'age' as string"):
            land(parts, tmp_path, declared=frozenset(("loan", "age")))
