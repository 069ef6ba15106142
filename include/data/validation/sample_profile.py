"""Looks at a sample file, CSV or Parquet, and says of each column what a contract would have to know."""

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from include.data.core.proposal import MAX_LISTED_VALUES, ColumnProfile
from include.data.landing.landing import land
from include.data.sources.base import Budget
from include.data.sources.delivered_files import read, survey
from include.data.validation.column_casts import ColumnCast, Kind
from include.kernel.errors import DataRefused

MAX_GIB = 4.0


def survey_sample(path: Path, workspace: Path) -> tuple[list[ColumnProfile], int]:
    """(columns, rows). Raises `DataRefused` when the file cannot be read or has no rows."""
    try:
        with path.open("rb") as handle:
            landed = land(read(handle, str(path), survey(handle), Budget(MAX_GIB), declared=()), workspace)
    except OSError as error:
        raise DataRefused(f"{path} cannot be opened ({error.strerror}); name a CSV or Parquet file.") from error
    if landed is None:
        raise DataRefused(f"{path} has no rows; take a sample that has some.")
    file = pq.ParquetFile(landed.path, pre_buffer=False)
    return [_measure_column(file, name) for name in file.schema_arrow.names], landed.rows


def _measure_column(file: pq.ParquetFile, name: str) -> ColumnProfile:
    """One column at a time, so that a wide sample fits."""
    kind, cells = _infer_kind(file, name)
    missing = cells.null_count() / len(cells)
    if kind is None or missing == 1:
        return ColumnProfile(name, "unusable", missing, 0)
    known = cells.drop_nulls()
    if kind == "number":
        low, high = float(known.to_numpy().min()), float(known.to_numpy().max())
        is_whole = bool((known == known.floor()).all())
        return ColumnProfile(name, "number", missing, known.n_unique(), low, high, whole=is_whole)
    counted = known.value_counts(sort=True) if kind == "category" else pl.DataFrame({name: []})
    values = tuple(str(value) for value in counted[name].head(MAX_LISTED_VALUES + 1))
    return ColumnProfile(
        name, "category" if kind == "category" else "timestamp", missing, known.n_unique(), values=values
    )


def _infer_kind(file: pq.ParquetFile, name: str) -> tuple[Kind | None, pl.Series]:
    """The first kind every cell can be read as; a text with a leading zero is a code and no number."""
    column = pl.DataFrame(file.read([name]))
    text = ColumnCast(name, "category", file.schema_arrow.field(name).type).text
    codes = text and column.select(pl.col(name).cast(pl.String).str.contains("^0[0-9]").any()).item()
    kinds: tuple[Kind, ...] = ("timestamp", "category") if codes else ("number", "timestamp", "category")
    for kind in kinds:
        cell = ColumnCast(name, kind, file.schema_arrow.field(name).type)
        typed = column.select(*cell.list_expressions())
        broken = typed.width > 1 and cell.may_break and bool(typed.to_series(1).any())
        infinite = kind == "number" and bool(typed.to_series().is_infinite().any())
        if not broken and not infinite:
            return kind, typed.to_series()
    return None, column.to_series()
