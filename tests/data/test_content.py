"""The name of rows: the same for the same rows however they are stored, another one for any other rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from include.data.store.content import compute_content_id, read_content
from include.kernel.errors import DataRefused

KINDS = {
    "float64": (pa.float64(), st.floats()),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "string": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    "bool": (pa.bool_(), st.booleans()),
    "day": (pa.date32(), st.dates()),
    "moment": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
}
number = count()


@st.composite
def tables(draw: st.DrawFn, least: int = 0) -> pa.Table:
    rows = draw(st.integers(least, 12))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4))
    columns = [st.lists(st.none() | KINDS[kind][1], min_size=rows, max_size=rows) for kind in kinds]
    arrays = [pa.array(draw(column), KINDS[kind][0]) for column, kind in zip(columns, kinds, strict=True)]
    return pa.table(arrays, names=[f"c{place}" for place in range(len(kinds))])


@pytest.fixture(scope="module")
def name_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    place = tmp_path_factory.mktemp("content")

    def named(table: pa.Table, **how: Any) -> str:
        path = place / f"{next(number)}.parquet"
        pq.write_table(table, path, **how)
        return compute_content_id(path)

    return named


quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(tables(), st.data())
def test_how_rows_are_stored_does_not_matter(name_of, table, data):
    how = {
        "row_group_size": data.draw(st.integers(1, 5)),
        "compression": data.draw(st.sampled_from(["none", "snappy", "zstd", "lz4"])),
        "use_dictionary": data.draw(st.booleans()),
        "data_page_version": data.draw(st.sampled_from(["1.0", "2.0"])),
        "store_schema": data.draw(st.booleans()),
    }
    cut = data.draw(st.integers(0, len(table)))
    in_two = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert name_of(in_two, **how) == name_of(table)


@quick
@given(tables())
def test_who_wrote_them_does_not_matter(name_of, tmp_path, table):
    path = tmp_path / f"{next(number)}.parquet"
    pl.from_arrow(table).write_parquet(path)
    assert compute_content_id(path) == name_of(table)


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_texts_are_texts_however_they_are_kept(name_of, kind):
    texts = ["a", None, "", "bb", "a"] * 3
    assert name_of(pa.table({"c": pa.array(texts, kind)})) == name_of(pa.table({"c": texts}))


def test_what_lies_under_a_missing_value_does_not_matter(name_of):
    hidden = pa.Array.from_buffers(pa.float64(), 3, [pa.py_buffer(b"\x05"), pa.array([1.0, 777.0, 3.0]).buffers()[1]])
    assert name_of(pa.table({"c": hidden})) == name_of(pa.table({"c": [1.0, None, 3.0]}))


@quick
@given(tables(least=1), st.data())
def test_another_value_is_another_name(name_of, table, data):
    place, row = data.draw(st.integers(0, table.num_columns - 1)), data.draw(st.integers(0, len(table) - 1))
    column = table.column(place)
    kind = next(made for arrow, made in KINDS.values() if arrow == column.type)
    values = column.to_pylist()
    values[row] = data.draw(st.none() | kind)
    assume(not same(values[row], column[row].as_py()))
    changed = table.set_column(place, table.field(place), pa.array(values, column.type))
    assert name_of(changed) != name_of(table)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


@quick
@given(tables(least=2), st.data())
def test_another_order_of_the_rows_is_another_name(name_of, table, data):
    order = data.draw(st.permutations(range(len(table))))
    moved = table.take(order)
    rows, others = table.to_pylist(), moved.to_pylist()
    assume(any(not same(a[c], b[c]) for a, b in zip(rows, others, strict=True) for c in table.column_names))
    assert name_of(moved) != name_of(table)


BASE = {"id": ["a", "b"], "x": [1.0, 2.0], "y": [3.0, 4.0]}
OTHERS = {
    "a row more": pa.table({name: [*values, values[0]] for name, values in BASE.items()}),
    "a row less": pa.table({name: values[:1] for name, values in BASE.items()}),
    "a column renamed": pa.table(BASE).rename_columns(["id", "x", "z"]),
    "columns in another order": pa.table(BASE).select(["id", "y", "x"]),
    "two columns' values exchanged": pa.table({**BASE, "x": BASE["y"], "y": BASE["x"]}),
    "a column less": pa.table(BASE).select(["id", "x"]),
    "whole numbers": pa.table({**BASE, "x": [1, 2]}),
    "numbers as text": pa.table({**BASE, "x": ["1.0", "2.0"]}),
    "narrower numbers": pa.table({**BASE, "x": pa.array([1.0, 2.0], pa.float32())}),
    "letters that moved between cells": pa.table({**BASE, "id": ["ab", ""]}),
    "a missing value for an empty text": pa.table({**BASE, "id": ["a", None]}),
    "an empty text": pa.table({**BASE, "id": ["a", ""]}),
    "a NaN for a number": pa.table({**BASE, "x": [1.0, math.nan]}),
    "a missing number": pa.table({**BASE, "x": [1.0, None]}),
    "zero": pa.table({**BASE, "x": [1.0, 0.0]}),
    "minus zero": pa.table({**BASE, "x": [1.0, -0.0]}),
}


def test_all_these_are_different(name_of):
    names = [name_of(pa.table(BASE)), *map(name_of, OTHERS.values())]
    assert len(set(names)) == len(OTHERS) + 1


def test_the_name_is_the_same_on_every_machine_and_day(name_of):
    """Pinned: another value here would give all published days new versions."""
    table = pa.table(
        {
            "id": ["a", None, ""],
            "x": [1.5, None, math.nan],
            "n": pa.array([1, None, -3], pa.int32()),
            "b": [True, None, False],
            "t": pa.array([datetime(2026, 8, 1, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
            "d": [date(2026, 8, 1), None, None],
            "m": pa.array([Decimal("1.10"), None, None], pa.decimal128(9, 2)),
            "raw": [b"\x00\xff", None, b""],
            "nothing": pa.nulls(3),
        }
    )
    assert name_of(table) == PINNED


PINNED = "0cf7508cc5183732acce586630e8a2cb04013d8410e48ec97d47707231826d18"


def test_rows_columns_and_logical_types_are_told(tmp_path):
    pq.write_table(pa.table({"id": pa.array(["a"], pa.large_string()), "x": [1.0]}), tmp_path / "f.parquet")
    found = read_content(tmp_path / "f.parquet")
    assert (found.rows, found.columns, found.types) == (1, ("id", "x"), ("string", "double"))


def test_a_file_that_is_not_whole_is_named(tmp_path, name_of):
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table(BASE), path)
    for damage in (path.read_bytes()[:-9], b""):
        path.write_bytes(damage)
        with pytest.raises(DataRefused, match=r"f\.parquet is not a whole Parquet file"):
            compute_content_id(path)


def test_a_nested_column_is_named(tmp_path):
    pq.write_table(pa.table({"x": [[1], [2]]}), tmp_path / "f.parquet")
    with pytest.raises(DataRefused, match=r"Column 'x' of .*f\.parquet is nested"):
        compute_content_id(tmp_path / "f.parquet")
