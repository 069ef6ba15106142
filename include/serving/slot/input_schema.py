"""The columns of the held model, and whether a row fits them.

Pure, and strict on purpose: a number is a JSON number, not "1.5" and not true, because a client that sends the wrong
type has a bug that a guess would hide in the predictions. A message never repeats what was sent: requests are about
people, and answers end up in logs. A field is named when it is one of ours or looks like a name.

Every protocol ends here, so all of them are strict alike and say the same. A row that is right takes one short loop
(about 3 us for 13 columns); only a row that is not is looked at again, column by column, to say what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from include.serving.exchange import InputAnomalies, Problem, Row

if TYPE_CHECKING:
    from include.model.schema import Column, Kind

NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


class InputSchema:
    """A model's name and columns, prepared once for the rows of many requests.

    `unneeded` are further columns that a row may have: those of the contract that this model was not trained on, so
    that clients need not know which of two releases answers them, and the caller's own id of the row. The model does
    not see them; the prediction log keeps the id, so that outcomes which come with the data find their predictions.
    """

    def __init__(
        self, columns: Sequence[Column], model: str = "", version: str = "", unneeded: Mapping[str, Kind] | None = None
    ) -> None:
        self.model, self.version = model, version
        self.columns = {column.name: column for column in columns}
        self._categories = [(column.name, frozenset(column.categories)) for column in columns if column.categories]
        self._numbers = [(column.name, *_get_bounds(column)) for column in columns if column.kind == "number"]
        for name, kind in (unneeded or {}).items():
            self.columns.setdefault(name, _build_unneeded_column(name, kind))
        self._kinds = [(column.name, column.kind == "number", column.nullable) for column in self.columns.values()]

    def check_rows(self, rows: Sequence[Any]) -> list[Row] | Problem:
        """Complete rows, every number a float; or what is wrong with the first row that is not right."""
        complete_rows: list[Row] = []
        for index, row in enumerate(rows):
            complete = self._complete(row) if type(row) is dict else None
            if complete is None:
                return self._find_problem(index, row)
            complete_rows.append(complete)
        return complete_rows

    def count_anomalies(self, rows: Sequence[Row]) -> InputAnomalies:
        """How many values of each column are not as the training saw them: served, but counted; 1 us a row."""
        counts: InputAnomalies = {}
        for row in rows:
            for name, known in self._categories:
                value = row[name]
                if value not in known:
                    key = (name, "missing" if value is None else "unseen")
                    counts[key] = counts.get(key, 0) + 1
            for name, low, high in self._numbers:
                value = row[name]
                if value is None or not low <= value <= high:  # type: ignore[operator]  # a checked row: a float
                    key = (name, "missing" if value is None else "low" if value < low else "high")  # type: ignore[operator]
                    counts[key] = counts.get(key, 0) + 1
        return counts

    def _complete(self, row: dict[str, Any]) -> Row | None:
        if not row.keys() <= self.columns.keys():
            return None
        complete: Row = {}
        for name, is_number, nullable in self._kinds:
            value = row.get(name)
            kind = type(value)
            if value is None:
                fits = nullable
            elif is_number:
                if kind is int:
                    value = convert_to_float(value)
                fits = (kind is float or kind is int) and value - value == 0.0  # neither NaN nor infinite
            else:
                fits = kind is str and _is_text(value)
            if not fits:
                return None
            complete[name] = value
        return complete

    def _find_problem(self, index: int, row: Any) -> Problem:
        if not isinstance(row, dict):
            return Problem(422, "A row must be an object of column names and values.", index)
        for name in row:
            if name not in self.columns:
                return self.refuse_unknown(name, index)
        faults = ((column, _find_fault(row.get(column.name), column)) for column in self.columns.values())
        column, says = next((column, says) for column, says in faults if says)
        return Problem(422, says, index, column.name)

    @staticmethod
    def refuse_unknown(name: str, row: int | None = None) -> Problem:
        """A column the model does not have; named only if it looks like a name, and not like somebody's data."""
        return Problem(422, "The model has no such column.", row, name if NAME.match(name) else None)


def _build_unneeded_column(name: str, kind: Kind) -> Column:
    from include.model.schema import Column

    return Column(name=name, kind=kind)


def _get_bounds(column: Column) -> tuple[float, float]:
    """Those of the training; an artifact from before they were kept has none."""
    low, high = column.low, column.high
    return -math.inf if low is None else low, math.inf if high is None else high


def _find_fault(value: Any, column: Column) -> str | None:
    or_null = " or null" if column.nullable else ""
    if value is None:
        return None if column.nullable else f"{column.name} must be given."
    if column.kind == "category":
        return _find_text_fault(value, column.name, or_null)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{column.name} must be a number{or_null}."
    number = convert_to_float(value)
    if isinstance(value, int) and math.isnan(number):
        return f"{column.name} must be a number that a 64-bit float holds exactly; this integer would be rounded."
    return None if math.isfinite(number) else f"{column.name} must be a finite number that fits into 64 bits."


def _find_text_fault(value: Any, name: str, or_null: str) -> str | None:
    if not isinstance(value, str):
        return f"{name} must be a string{or_null}."
    return None if _is_text(value) else f"{name} must be text; it holds half of a surrogate pair."


def _is_text(value: str) -> bool:
    """JSON can write half of a surrogate pair; no file and no log can."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def convert_to_float(value: float) -> float:
    """NaN for an integer that would be rounded: two ids beyond 2**53 must not become one number. The shortest digits of
    a float are its name, though, as JavaScript writes 1.2345678901234568e20 with twenty-one of them."""
    try:
        number = float(value)
        return number if number == value or Decimal(repr(number)) == value else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.inf
