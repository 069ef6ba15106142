"""From raw columns to the numbers a compiled model reads: a pipeline's preparation as data, applied by numpy alone.

A fitted ColumnTransformer is code and state; what it learned is a few tables: medians, scales, values of a category.
`encoding.json` holds those, so a server needs neither scikit-learn nor pandas, and there is nothing in it to execute.
The trade-off: only preparations that can be written so are compiled (see compiling); others keep the generic path.

For one row the fixed cost of numpy counts, so the work is done on two matrices, all numbers and all categories, and not
column by column; and rows of which nothing must be prepared but codes, as trees want them, are one matrix at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from include.model.schema import is_missing

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Floats = NDArray[np.float64]
MATRIX_CELLS = 2**22  # of one matrix made of a table: 32 MiB in float64


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Numbers(_Table):
    """The numeric columns, in the model's order.

    Missing becomes `fill` (without it, it stays NaN); one 0/1 column is appended for each position in `indicators`,
    telling that it was missing. Every resulting column is then held between `low` and `high` and becomes
    (value - shift) / scale; an empty tuple skips that step.
    """

    names: tuple[str, ...] = ()
    fill: tuple[float, ...] = ()
    indicators: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        return len(self.names) + len(self.indicators)

    @model_validator(mode="after")
    def _check_tables(self) -> Numbers:
        if self.fill and len(self.fill) != len(self.names):
            raise ValueError("fill needs one value for each name")
        if any(not 0 <= position < len(self.names) for position in self.indicators):
            raise ValueError("indicators must be positions of names")
        tables = (self.low, self.high, self.shift, self.scale)
        if any(table and len(table) != self.width for table in tables) or 0.0 in self.scale:
            raise ValueError("low, high, shift and scale need one value for each number and indicator, scale none of 0")
        return self


class Categories(_Table):
    """The category columns and the values each had in training; None among them means that missing was one of them.

    onehot: a 0/1 column for each value, none of them set for an unseen one. ordinal: the position of the value, -1 for
    an unseen one.
    """

    style: Literal["onehot", "ordinal"] = "onehot"
    values: dict[str, tuple[str | None, ...]] = {}

    @property
    def width(self) -> int:
        return len(self.values) if self.style == "ordinal" else sum(map(len, self.values.values()))


class Encoding(_Table):
    """The content of encoding.json: all numbers first, then the categories, as `dtype` says the model reads them."""

    numbers: Numbers = Numbers()
    categories: Categories = Categories()
    dtype: Literal["float32", "float64"] = "float64"

    @property
    def width(self) -> int:
        return self.numbers.width + self.categories.width

    @property
    def owners(self) -> list[str]:
        """For each column of the matrix the input column it came from."""
        names, spread = self.numbers.names, self.categories.style == "onehot"
        categories = [[name] * (len(values) if spread else 1) for name, values in self.categories.values.items()]
        return [*names, *(names[position] for position in self.numbers.indicators), *itertools.chain(*categories)]


class Encoder:
    """Applies an `Encoding`: rows in, matrix (rows, width) out."""

    def __init__(self, encoding: Encoding) -> None:
        self._names = encoding.numbers.names
        self._numbers = encoding.numbers
        self._tables = {name: np.array(getattr(encoding.numbers, name)) for name in ("fill", "low", "high", "shift")}
        self._scale, self._indicators = np.array(encoding.numbers.scale), list(encoding.numbers.indicators)
        self._categories, self._style = list(_index_categories(encoding.categories).items()), encoding.categories.style
        self._width, self.dtype = encoding.categories.width, np.dtype(encoding.dtype)
        steps = (encoding.numbers.fill, encoding.numbers.low, encoding.numbers.scale)
        self._is_plain = not any(steps) and (self._style == "ordinal" or not self._categories)
        self.owners = encoding.owners

    def encode_rows(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
        """What a row lacks is missing."""
        if self._is_plain:
            return self._cast(_convert_to_floats([self._encode_plain_row(row) for row in rows]))
        numbers = _convert_to_floats([[row.get(name) for name in self._names] for row in rows])
        codes = [[known[row.get(name)] for name, known in self._categories] for row in rows]
        return self._build_matrix(numbers.reshape(len(rows), -1), np.array(codes, dtype=np.intp).reshape(len(rows), -1))

    def _encode_plain_row(self, row: Mapping[str, Any]) -> list[Any]:
        """The row of a matrix that needs no further step: for one row a call of numpy takes longer than all of this."""
        return [*map(row.get, self._names), *(known[row.get(name)] for name, known in self._categories)]

    def iterate_frame(self, table: pd.DataFrame) -> Iterator[NDArray[Any]]:
        """`encode_frame` in as many parts as keep a matrix small: a wide category is dense in it. One part at least."""
        step = max(1, MATRIX_CELLS // max(1, len(self.owners)))
        for first in range(0, max(1, len(table)), step):
            yield self.encode_frame(table.iloc[first : first + step])

    def encode_frame(self, table: pd.DataFrame) -> NDArray[Any]:
        """The same for a table that `schema.frame` or `schema.conform` built."""
        numbers = np.empty((len(table), len(self._names)))
        codes = np.empty((len(table), len(self._categories)), dtype=np.intp)
        for position, name in enumerate(self._names):
            numbers[:, position] = table[name]
        for position, (name, known) in enumerate(self._categories):
            codes[:, position] = [known[value] for value in table[name]]
        return self._build_matrix(numbers, codes)

    def encode_batch(self, table: pl.DataFrame) -> NDArray[Any]:
        """The same for rows as they lie in a snapshot: each column at once, each value of a category once."""
        numbers = np.empty((table.height, len(self._names)))
        codes = np.empty((table.height, len(self._categories)), dtype=np.intp)
        for position, name in enumerate(self._names):
            numbers[:, position] = _convert_numbers(table[name])
        for position, (name, known) in enumerate(self._categories):
            codes[:, position] = _find_codes(table[name], known)
        return self._build_matrix(numbers, codes)

    def _build_matrix(self, numbers: Floats, codes: NDArray[np.intp]) -> NDArray[Any]:
        prepared = self._cast(self._prepare_numbers(numbers))
        if not self._categories:
            return prepared
        return np.concatenate([prepared, self._encode_categories(codes)], axis=1)

    def _cast(self, matrix: Floats) -> NDArray[Any]:
        if matrix.dtype == self.dtype:
            return matrix
        with np.errstate(over="ignore"):  # beyond float32 is infinite, as in every float32 model
            return matrix.astype(self.dtype)

    def _prepare_numbers(self, numbers: Floats) -> Floats:
        tables = self._tables
        if len(tables["fill"]):
            missing = np.isnan(numbers)
            numbers = np.where(missing, tables["fill"], numbers)
            if self._indicators:
                numbers = np.concatenate([numbers, missing[:, self._indicators]], axis=1)
        if len(tables["low"]):
            numbers = np.minimum(np.maximum(numbers, tables["low"]), tables["high"])
        return (numbers - tables["shift"]) / self._scale if len(self._scale) else numbers

    def _encode_categories(self, codes: NDArray[np.intp]) -> NDArray[Any]:
        if self._style == "ordinal":
            return codes.astype(self.dtype)
        out = np.zeros((len(codes), self._width + 1), dtype=self.dtype)  # the last column takes the unseen ones
        out[np.arange(len(codes))[:, None], codes] = 1
        return out[:, :-1]


class _CategoryIndex(dict[Any, int]):
    """Where a value stands; a value of another type than str is looked up as `schema.frame` would have written it."""

    def __init__(self, values: Sequence[str | None], first: int, unseen: int) -> None:
        super().__init__({value: first + position for position, value in enumerate(values)})
        self._unseen = unseen

    def __missing__(self, value: object) -> int:
        return self.get(None if is_missing(value) else str(value), self._unseen)


def _index_categories(categories: Categories) -> dict[str, _CategoryIndex]:
    """onehot: columns of the matrix, the one behind the last for unseen. ordinal: codes."""
    if categories.style == "ordinal":
        return {name: _CategoryIndex(values, 0, -1) for name, values in categories.values.items()}
    indexes, first = {}, 0
    for name, values in categories.values.items():
        indexes[name] = _CategoryIndex(values, first, categories.width)
        first += len(values)
    return indexes


def _convert_numbers(values: pl.Series) -> Floats:
    import polars as pl

    return values.cast(pl.Float64).fill_null(math.nan).to_numpy()


def _find_codes(values: pl.Series, known: Mapping[Any, int]) -> NDArray[np.int64]:
    import polars as pl

    distinct = values.unique()
    codes = [known[value] for value in distinct.to_list()]
    return values.replace_strict(distinct, codes, return_dtype=pl.Int64).to_numpy()


def _convert_to_floats(values: list[list[Any]]) -> Floats:
    """numpy reads None as NaN by itself; only what it cannot read is looked at one by one."""
    try:
        return np.array(values, dtype=np.float64)
    except TypeError:
        cleaned = [[math.nan if is_missing(value) else float(value) for value in row] for row in values]
        return np.array(cleaned, dtype=np.float64)
