"""From the bytes of a request to rows the model may see, or to the one problem that is answered.

Pure, and strict on purpose: a number is a JSON number, not "1.5" and not true, because a client that sends the wrong
type has a bug that a guess would hide in the predictions. A message never repeats what was sent: requests are about
people, and answers end up in logs. A field is named when it is one of ours or looks like a name.

Every protocol ends here, so all of them are strict alike and say the same. A row that is right takes one short loop
(about 3 us for 13 columns); only a row that is not is looked at again, column by column, to say what is wrong.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

if TYPE_CHECKING:
    from include.model.schema import Column

Row = dict[str, float | str | None]
Oddities = dict[tuple[str, str], int]  # (column, "unseen" | "missing" | "low" | "high") -> values
NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
LONGEST_INTEGER = 4300  # digits; Python reads no longer ones, since the time grows with their square


@dataclass(frozen=True)
class Problem:
    """Why a request is refused: a status, a sentence, and where."""

    status: int
    message: str
    row: int | None = None
    field: str | None = None
    retry_after: int | None = None  # seconds; a header of the answer

    @property
    def places(self) -> dict[str, Any]:
        return {name: place for name in ("row", "field") if (place := getattr(self, name)) is not None}

    def document(self) -> dict[str, Any]:
        return {"error": {"message": self.message, **self.places}}


class Refused(Exception):
    """A `Problem` found deep inside a protocol; the protocol's `parse` catches it."""

    def __init__(self, status: int, message: str, row: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(status, message, row, field)


class InputSchema:
    """A model's name and columns, prepared once for the rows of many requests.

    `key` names a further column that a row may have: the caller's own id of the row, a text. The model does not see it;
    the prediction log keeps it, so that outcomes which come with the data find their predictions.
    """

    def __init__(self, columns: Sequence[Column], model: str = "", key: str | None = None) -> None:
        self.model = model
        self.columns = {column.name: column for column in columns}
        self._categories = [(column.name, frozenset(column.categories)) for column in columns if column.categories]
        self._numbers = [(column.name, *_bounds(column)) for column in columns if column.kind == "number"]
        if key:
            self.columns.setdefault(key, _key_column(key))
        self._kinds = [(column.name, column.kind == "number", column.nullable) for column in self.columns.values()]

    def checked(self, rows: Sequence[Any]) -> list[Row] | Problem:
        """Complete rows, every number a float; or what is wrong with the first row that is not right."""
        checked: list[Row] = []
        for index, row in enumerate(rows):
            complete = self._complete(row) if type(row) is dict else None
            if complete is None:
                return self._problem(index, row)
            checked.append(complete)
        return checked

    def oddities(self, rows: Sequence[Row]) -> Oddities:
        """How many values of each column are not as the training saw them: served, but counted; 1 us a row."""
        counts: Oddities = {}
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
                    value = _as_float(value)
                fits = (kind is float or kind is int) and value - value == 0.0  # neither NaN nor infinite
            else:
                fits = kind is str and _is_text(value)
            if not fits:
                return None
            complete[name] = value
        return complete

    def _problem(self, index: int, row: Any) -> Problem:
        if not isinstance(row, dict):
            return Problem(422, "A row must be an object of column names and values.", index)
        for name in row:
            if name not in self.columns:
                return self.unknown(name, index)
        found = ((column, _complaint(row.get(column.name), column)) for column in self.columns.values())
        column, says = next((column, says) for column, says in found if says)
        return Problem(422, says, index, column.name)

    @staticmethod
    def unknown(name: str, row: int | None = None) -> Problem:
        """A column the model does not have; named only if it looks like a name, and not like somebody's data."""
        return Problem(422, "The model has no such column.", row, name if NAME.match(name) else None)


def _key_column(name: str) -> Column:
    from include.model.schema import Column

    return Column(name=name, kind="category")


def rows_of(body: bytes, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    """Validated rows in the order they were sent, or the first problem."""
    payload = _plain_document(body)
    if payload is None:
        payload = document(body)
    if isinstance(payload, Problem):
        return payload
    if not isinstance(payload, dict) or len(payload) != 1 or not payload.keys() <= {"rows", "row"}:
        return Problem(422, 'The body must be {"rows": [...]} or {"row": {...}} and nothing else.')
    rows = payload["rows"] if "rows" in payload else [payload["row"]]
    return checked_list(rows, "rows", schema, max_rows)


def _plain_document(body: bytes) -> dict[str, Any] | None:
    """The JSON of a body in our own form, read in a fifth of `document`'s time; None when that may miss a flaw.

    This parser keeps the last of equal keys. But every key is followed by a colon, so where there are no more colons
    than keys were kept, none was dropped.
    """
    try:
        payload = from_json(body, allow_inf_nan=False)
        [rows] = payload.values()
        keys = 1 + (sum(map(len, rows)) if type(rows) is list else len(rows))
    except (ValueError, TypeError, AttributeError):
        return None
    return payload if body.count(b":") == keys else None


def checked_list(rows: Any, field: str, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    """The rows of what should be a list of objects; `field` is where the list stands in the body."""
    if not isinstance(rows, list) or not rows:
        return Problem(422, f"{field} must be a list with at least one row.", field=field)
    return too_many(len(rows), field, max_rows) or schema.checked(rows)


def too_many(count: int, field: str | None, max_rows: int) -> Problem | None:
    if count > max_rows:
        return Problem(422, f"A request may hold {max_rows} rows at most; split it.", field=field)
    return None


def wrong_form(headers: Mapping[str, str], accepted: Sequence[str]) -> Problem | None:
    """A body that is compressed, not of an accepted type or not UTF-8, as its headers say. Without a type: the first.

    A compressed body is refused, since a kilobyte of it can unpack to a gigabyte.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        return Problem(415, "The body is compressed; send it plain, without Content-Encoding.")
    sent = headers.get("content-type")
    if sent is None or sent == accepted[0]:
        return None
    kind, *parameters = (part.strip().lower() for part in sent.split(";"))
    if kind not in accepted:
        return Problem(415, f"The body must be {' or '.join(accepted)}; say so in Content-Type.")
    charsets = [value.strip('"') for name, _, value in map(_split, parameters) if name == "charset"]
    return None if set(charsets) <= {"utf-8", "utf8"} else Problem(415, "The body must be UTF-8; send it so.")


def _split(parameter: str) -> tuple[str, str, str]:
    return parameter.partition("=")


class _Duplicate(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Duplicate
    return found


def _nan_is_missing(constant: str) -> float | None:
    return None if constant == "NaN" else float(constant)


def _short_integer(digits: str) -> float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else math.inf


# one for each meaning of NaN, and their slow twins that get past an integer too long to read
_DECODERS = {
    (lenient, patient): json.JSONDecoder(
        object_pairs_hook=_unique,
        parse_constant=_nan_is_missing if lenient else None,
        parse_int=_short_integer if patient else None,
    )
    for lenient in (False, True)
    for patient in (False, True)
}


def text_of(body: bytes) -> str | Problem:
    if not body:
        return Problem(400, "The body is empty; send rows.")
    try:
        return body.decode()
    except UnicodeDecodeError:
        return Problem(400, "The body is not UTF-8; send it so.")


def document(body: bytes, *, nan_is_missing: bool = False) -> Any:
    """The JSON of a body. `nan_is_missing`: NaN, which JSON does not have, is read as null (see the protocols)."""
    text = text_of(body)
    if isinstance(text, Problem):
        return text
    if text[0] == "\ufeff":
        return Problem(400, "The body begins with a byte order mark; send JSON without one.")
    try:
        return _decoded(text, nan_is_missing)
    except _Duplicate:
        return Problem(400, "The body holds the same key twice in one object; send each key once.")
    except RecursionError:
        return Problem(400, "The body is nested too deeply; send an object with rows.")
    except ValueError:
        return Problem(400, "The body is not JSON; send an object with rows.")


def _decoded(text: str, lenient: bool) -> Any:
    try:
        return _DECODERS[lenient, False].decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # of int(): an integer of thousands of digits; read again to find out where
        return _DECODERS[lenient, True].decode(text)


def _bounds(column: Column) -> tuple[float, float]:
    """Those of the training; an artifact from before they were kept has none."""
    low, high = column.low, column.high
    return -math.inf if low is None else low, math.inf if high is None else high


def _complaint(value: Any, column: Column) -> str | None:
    or_null = " or null" if column.nullable else ""
    if value is None:
        return None if column.nullable else f"{column.name} must be given."
    if column.kind == "category":
        return _text_complaint(value, column.name, or_null)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{column.name} must be a number{or_null}."
    finite = math.isfinite(_as_float(value))
    return None if finite else f"{column.name} must be a finite number that fits into 64 bits."


def _text_complaint(value: Any, name: str, or_null: str) -> str | None:
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


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf
