"""From the bytes of a request to rows the model may see, or to the one problem that is answered.

Pure, and strict on purpose: a number is a JSON number, not "1.5" and not true, because a client that sends the wrong
type has a bug that a guess would hide in the predictions. A message never repeats what was sent: requests are about
people, and answers end up in logs. A field is named when it is one of ours or looks like a name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.model.schema import Column

Row = dict[str, float | str | None]
NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


@dataclass(frozen=True)
class Problem:
    """Why a request is refused: a status, a sentence, and where."""

    status: int
    message: str
    row: int | None = None
    field: str | None = None

    def document(self) -> dict[str, Any]:
        places = {"row": self.row, "field": self.field}
        return {"error": {"message": self.message, **{k: v for k, v in places.items() if v is not None}}}


def rows_of(body: bytes, columns: Sequence[Column], max_rows: int) -> list[Row] | Problem:
    """Validated rows in the order they were sent, or the first problem."""
    payload = _parse(body)
    if isinstance(payload, Problem):
        return payload
    rows = _row_list(payload, max_rows)
    if isinstance(rows, Problem):
        return rows
    return _checked(rows, {column.name: column for column in columns})


def unseen(rows: Sequence[Row], columns: Iterable[Column]) -> dict[str, int]:
    """How many values of each category column the training has not seen: served, but counted."""
    counts = {column.name: _unseen(rows, column) for column in columns if column.categories}
    return {name: count for name, count in counts.items() if count}


class _Duplicate(Exception):
    pass


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_unique)
    except _Duplicate:
        return Problem(400, "The body holds the same key twice in one object; send each key once.")
    except (ValueError, RecursionError):
        return Problem(400, "The body is not JSON; send an object with rows.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Duplicate
    return found


def _row_list(payload: Any, max_rows: int) -> list[Any] | Problem:
    if not isinstance(payload, dict) or set(payload) not in ({"rows"}, {"row"}):
        return Problem(422, 'The body must be {"rows": [...]} or {"row": {...}} and nothing else.')
    rows = payload["rows"] if "rows" in payload else [payload["row"]]
    if not isinstance(rows, list) or not rows:
        return Problem(422, "rows must be a list with at least one row.", field="rows")
    if len(rows) > max_rows:
        return Problem(422, f"A request may hold {max_rows} rows at most; split it.", field="rows")
    return rows


def _checked(rows: list[Any], columns: Mapping[str, Column]) -> list[Row] | Problem:
    checked = []
    for index, row in enumerate(rows):
        problem = _row_problem(index, row, columns)
        if problem:
            return problem
        checked.append({name: _value(row.get(name)) for name in columns})
    return checked


def _value(value: Any) -> float | str | None:
    return float(value) if isinstance(value, int) else value


def _row_problem(index: int, row: Any, columns: Mapping[str, Column]) -> Problem | None:
    if not isinstance(row, dict):
        return Problem(422, "A row must be an object of column names and values.", index)
    for name in row:
        if name not in columns:
            return Problem(422, "The model has no such column.", index, name if NAME.match(name) else None)
    found = ((column, _complaint(row.get(column.name), column)) for column in columns.values())
    return next((Problem(422, says, index, column.name) for column, says in found if says), None)


def _complaint(value: Any, column: Column) -> str | None:
    if value is None:
        return None if column.nullable else f"{column.name} must be given."
    if column.kind == "category":
        return None if isinstance(value, str) else f"{column.name} must be a string or null."
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{column.name} must be a number or null."
    return None if _is_finite(value) else f"{column.name} must be a finite number that fits into 64 bits."


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _unseen(rows: Sequence[Row], column: Column) -> int:
    values = (row.get(column.name) for row in rows)
    return sum(1 for value in values if value is not None and value not in column.categories)
