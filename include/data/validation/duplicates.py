"""Values that come twice: inside a day, or in a day and in others that are published.

A set of all ids of a large day would not fit the memory that is promised, so 64 bits of each value are compared first
(8 bytes a row), and the values themselves only where those bits agree. The answer is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import polars as pl

from include.data.landing.landed_rows import Rows
from include.data.validation.column_casts import Cell, hashed

BATCH = 262_144  # rows


def within(rows: Rows, cell: Cell) -> pl.Series:
    """One flag a row: its value stands more than once among them. A missing value repeats nothing."""
    bits = _bits(rows, cell)
    ordered = bits.drop_nulls().sort()
    twice = ordered.filter(ordered == ordered.shift(1)).unique()
    if twice.is_empty():
        return pl.repeat(False, len(bits), eager=True)
    found = _holding(rows, cell, twice)
    real = found.filter(pl.col("value").is_duplicated())["row"]
    return _flags(real, len(bits))


def across(rows: Rows, cell: Cell, others: Sequence[Path]) -> pl.Series:
    """One flag a row: its value stands in one of the other files as well."""
    bits = _bits(rows, cell)
    known = bits.drop_nulls().unique()
    flags = pl.repeat(False, len(bits), eager=True)
    for path in others:
        flags = flags | _flags(_shared(rows, cell, known, path), len(bits))
    return flags


def _shared(rows: Rows, cell: Cell, known: pl.Series, path: Path) -> pl.Series:
    """Places of the rows whose value the file at `path` holds too."""
    other = Rows.of(path)
    if cell.name not in other.schema.names:
        return pl.Series([], dtype=pl.UInt32)
    theirs = Cell(cell.name, cell.kind, other.schema.field(cell.name).type)
    common = known.filter(known.is_in(_bits(other, theirs).drop_nulls().implode()))
    if common.is_empty():
        return pl.Series([], dtype=pl.UInt32)
    values = _holding(other, theirs, common)["value"]
    return _holding(rows, cell, common).filter(pl.col("value").is_in(values.implode()))["row"]


def _batches(rows: Rows, cell: Cell) -> Iterator[pl.DataFrame]:
    for batch in rows.batches([cell.name], BATCH):
        yield cast(pl.DataFrame, pl.from_arrow(batch)).select(cell.typed())


def _bits(rows: Rows, cell: Cell) -> pl.Series:
    parts = [batch.select(hashed(cell.name)).to_series() for batch in _batches(rows, cell)]
    return pl.concat(parts).rechunk() if parts else pl.Series([], dtype=pl.UInt64)


def _holding(rows: Rows, cell: Cell, wanted: pl.Series) -> pl.DataFrame:
    """(row, value) of the rows whose bits are among `wanted`."""
    parts, began = [], 0
    for batch in _batches(rows, cell):
        numbered = batch.select(
            pl.int_range(began, began + pl.len(), dtype=pl.UInt32).alias("row"), value=pl.col(cell.name)
        )
        parts.append(numbered.filter(batch.select(hashed(cell.name)).to_series().is_in(wanted.implode())))
        began += batch.height
    return pl.concat(parts)


def _flags(places: pl.Series, rows: int) -> pl.Series:
    return (
        pl.repeat(False, rows, eager=True).scatter(places, True) if len(places) else pl.repeat(False, rows, eager=True)
    )
