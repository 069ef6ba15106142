"""Values that come twice: inside a day, or in a day and in others that are published.

A set of all ids of a large day would not fit the memory that is promised, so 64 bits of each value are compared first
(8 bytes a row), and the values themselves only where those bits agree. The answer is exact.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import polars as pl

from include.data.landing.landed_rows import LandedRows
from include.data.validation.column_casts import ColumnCast, hash_column

BATCH_ROWS = 262_144  # rows


def mark_within(rows: LandedRows, column: ColumnCast) -> pl.Series:
    """One flag a row: its value stands more than once among them. A missing value repeats nothing."""
    bits = _hash_values(rows, column)
    ordered = bits.drop_nulls().sort()
    twice = ordered.filter(ordered == ordered.shift(1)).unique()
    if twice.is_empty():
        return pl.repeat(False, len(bits), eager=True)
    found = _select_rows(rows, column, twice)
    real = found.filter(pl.col("value").is_duplicated())["row"]
    return _build_flags(real, len(bits))


def mark_across(rows: LandedRows, column: ColumnCast, others: Sequence[Path]) -> pl.Series:
    """One flag a row: its value stands in one of the other files as well."""
    bits = _hash_values(rows, column)
    known = bits.drop_nulls().unique()
    flags = pl.repeat(False, len(bits), eager=True)
    for path in others:
        flags = flags | _build_flags(_find_shared_rows(rows, column, known, path), len(bits))
    return flags


def _find_shared_rows(rows: LandedRows, column: ColumnCast, known: pl.Series, path: Path) -> pl.Series:
    """Places of the rows whose value the file at `path` holds too."""
    other = LandedRows.build_from_file(path)
    if column.name not in other.schema.names:
        return pl.Series([], dtype=pl.UInt32)
    theirs = ColumnCast(column.name, column.kind, other.schema.field(column.name).type)
    common = known.filter(known.is_in(_hash_values(other, theirs).drop_nulls().implode()))
    if common.is_empty():
        return pl.Series([], dtype=pl.UInt32)
    values = _select_rows(other, theirs, common)["value"]
    return _select_rows(rows, column, common).filter(pl.col("value").is_in(values.implode()))["row"]


def _read_batches(rows: LandedRows, column: ColumnCast) -> Iterator[pl.DataFrame]:
    for batch in rows.read_batches([column.name], BATCH_ROWS):
        yield cast(pl.DataFrame, pl.from_arrow(batch)).select(column.build_cast())


def _hash_values(rows: LandedRows, column: ColumnCast) -> pl.Series:
    parts = [batch.select(hash_column(column.name)).to_series() for batch in _read_batches(rows, column)]
    return pl.concat(parts).rechunk() if parts else pl.Series([], dtype=pl.UInt64)


def _select_rows(rows: LandedRows, column: ColumnCast, wanted: pl.Series) -> pl.DataFrame:
    """(row, value) of the rows whose bits are among `wanted`."""
    parts, began = [], 0
    for batch in _read_batches(rows, column):
        numbered = batch.select(
            pl.int_range(began, began + pl.len(), dtype=pl.UInt32).alias("row"), value=pl.col(column.name)
        )
        parts.append(numbered.filter(batch.select(hash_column(column.name)).to_series().is_in(wanted.implode())))
        began += batch.height
    return pl.concat(parts)


def _build_flags(places: pl.Series, rows: int) -> pl.Series:
    return (
        pl.repeat(False, rows, eager=True).scatter(places, True) if len(places) else pl.repeat(False, rows, eager=True)
    )
