"""The one way from rows to a frame: training and the generic serving path both call `frame`, so they can never differ.

The trade-off: everything is float64 or str, also what was an integer or a flag. One type a kind costs a little memory
and saves the whole class of bugs in which a column without missing values trains as int and serves as float.

pandas is imported where it is used: a server that runs a compiled model needs `Column` and never a frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["number", "category"]
FRACTIONS = (float, np.floating, Decimal)  # each has a NaN of its own
MISSING_TYPES = ("NAType", "NaTType")  # pandas' own, known by name so that pandas need not be there


class Column(BaseModel):
    """One input column. `categories` are the values seen in training, `low` and `high` the smallest and the largest
    number; others are served too, but counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    nullable: bool = True
    categories: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


def build_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    """Rows as a frame with exactly these columns in this order; what a row lacks is missing."""
    import pandas as pd

    return pd.DataFrame(
        {column.name: _convert_values([row.get(column.name) for row in rows], column.kind) for column in columns}
    )


def conform(table: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """A table read from a file, as `frame` would have built it from its rows."""
    import pandas as pd

    return pd.DataFrame({column.name: _conform_series(table[column.name], column.kind) for column in columns})


def describe(table: pd.DataFrame, columns: Sequence[Column] = ()) -> tuple[Column, ...]:
    """The columns of a training frame with the categories it holds; `columns` says what it cannot know: nullable."""
    declared = {column.name: column for column in columns}
    return tuple(_describe_column(table[name], declared.get(str(name))) for name in table.columns)


def is_missing(value: object) -> bool:
    if value is None or isinstance(value, FRACTIONS):
        return value is None or math.isnan(value)
    return type(value).__name__ in MISSING_TYPES


def _convert_values(values: list[Any], kind: Kind) -> np.ndarray[Any, Any]:
    if kind == "number":
        return np.array([math.nan if is_missing(value) else float(value) for value in values], dtype=np.float64)
    # filled by slice: np.array(list) would build a fixed-width string array
    texts = np.empty(len(values), dtype=object)
    texts[:] = [None if is_missing(value) else str(value) for value in values]
    return texts


def _conform_series(series: pd.Series[Any], kind: Kind) -> np.ndarray[Any, Any]:
    """What numpy holds as numbers already is not taken apart: a day of a million rows is read in half the time."""
    if kind == "number" and isinstance(series.dtype, np.dtype) and series.dtype.kind in "fiub":
        return series.to_numpy(dtype=np.float64)
    return _convert_values(series.tolist(), kind)


def _compute_bounds(series: pd.Series[Any]) -> dict[str, float]:
    """Of what is finite; nothing where no number is."""
    numbers = series.to_numpy(dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    return {"low": float(finite.min()), "high": float(finite.max())} if finite.size else {}


def _describe_column(series: pd.Series[Any], declared: Column | None) -> Column:
    from pandas.api.types import is_numeric_dtype

    nullable = declared.nullable if declared else True
    if is_numeric_dtype(series.dtype):
        return Column(name=str(series.name), kind="number", nullable=nullable, **_compute_bounds(series))
    seen = tuple(sorted({str(value) for value in series if not is_missing(value)}))
    return Column(name=str(series.name), kind="category", nullable=nullable, categories=seen)
