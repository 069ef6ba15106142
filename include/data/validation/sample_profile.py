"""Looks at a sample file, CSV or Parquet, and says of each column what a contract would have to know."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from include.data.core.proposal import LISTED, Seen
from include.data.landing.landing import land
from include.data.sources.base import Budget
from include.data.sources.delivered_files import read, survey
from include.data.validation.column_casts import Cell, Kind
from include.kernel.errors import DataRefused

MAX_GIB = 4.0


def profile(path: Path, room: Path) -> tuple[list[Seen], int]:
    """(columns, rows). Raises `DataRefused` when the file cannot be read or has no rows."""
    try:
        with path.open("rb") as handle:
            landed = land(read(handle, str(path), survey(handle), Budget(MAX_GIB)), room)
    except OSError as error:
        raise DataRefused(f"{path} cannot be opened ({error.strerror}); name a CSV or Parquet file.") from error
    if landed is None:
        raise DataRefused(f"{path} has no rows; take a sample that has some.")
    file = pq.ParquetFile(landed.path, pre_buffer=False)
    return [_seen(file, name) for name in file.schema_arrow.names], landed.rows


def _seen(file: pq.ParquetFile, name: str) -> Seen:
    """One column at a time, so that a wide sample fits."""
    kind, cells = _kind(file, name)
    missing = cells.null_count() / len(cells)
    if kind is None or missing == 1:
        return Seen(name, "unusable", missing, 0)
    known = cells.drop_nulls()
    if kind == "number":
        low, high = known.to_numpy().min(), known.to_numpy().max()
        return Seen(name, "number", missing, known.n_unique(), float(low), float(high))
    counted = known.value_counts(sort=True) if kind == "category" else pl.DataFrame({name: []})
    values = tuple(str(value) for value in counted[name].head(LISTED + 1))
    return Seen(name, "category" if kind == "category" else "timestamp", missing, known.n_unique(), values=values)


def _kind(file: pq.ParquetFile, name: str) -> tuple[Kind | None, pl.Series]:
    """The first kind every cell can be read as; a text with a leading zero is a code and no number."""
    column = pl.DataFrame(file.read([name]))
    text = Cell(name, "category", file.schema_arrow.field(name).type).text
    codes = text and column.select(pl.col(name).cast(pl.String).str.contains("^0[0-9]").any()).item()
    kinds: tuple[Kind, ...] = ("timestamp", "category") if codes else ("number", "timestamp", "category")
    for kind in kinds:
        cell = Cell(name, kind, file.schema_arrow.field(name).type)
        typed = column.select(*cell.expressions())
        broken = typed.width > 1 and cell.may_break and bool(typed.to_series(1).any())
        infinite = kind == "number" and bool(typed.to_series().is_infinite().any())
        if not broken and not infinite:
            return kind, typed.to_series()
    return None, column.to_series()
