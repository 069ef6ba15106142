"""From the bytes of a request to values, or to the one problem that is answered; whether rows fit is the schema's say.

Pure, and shared by the protocols, so that all of them refuse alike what is no JSON, holds a key twice or is too much. A
message never repeats what was sent: requests are about people, and answers end up in logs.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from include.serving.exchange import Problem, Row
from include.serving.slot.input_schema import InputSchema

# parameters of a content type that say how a body is to be read, and the values that mean it is read as here: MLflow's
# first server knew `format`, RFC 4180 knows `header`
PLAIN_PARAMETERS = {"charset": ("utf-8", "utf8"), "header": ("present",), "format": ()}
PARAMETER_FAULTS = {
    "charset": "The body must be UTF-8; send it so.",
    "header": "A CSV needs a head line of column names; send it with header=present, or without that parameter.",
    "format": "The body's own keys say its format; leave the parameter out of Content-Type.",
}
LONGEST_INTEGER = 4300  # digits; Python reads no longer ones, since the time grows with their square


def parse_rows(body: bytes, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    """Validated rows in the order they were sent, or the first problem."""
    payload = _parse_plain(body)
    if payload is None:
        payload = parse_json(body)
    if isinstance(payload, Problem):
        return payload
    name = find_one_key(payload, ("rows", "row"))
    if name is None:
        return Problem(422, 'The body must be {"rows": [...]} or {"row": {...}} and nothing else.')
    return check_rows(payload[name] if name == "rows" else [payload[name]], "rows", schema, max_rows)


def find_one_key(payload: Any, names: Collection[str]) -> str | None:
    """Which one of these an object holds, and nothing else. One that is null is as good as left out."""
    if not isinstance(payload, dict) or not payload.keys() <= set(names):
        return None
    present = [name for name, value in payload.items() if value is not None] or list(payload)
    return present[0] if len(present) == 1 else None


def _parse_plain(body: bytes) -> dict[str, Any] | None:
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


def check_rows(rows: Any, field: str, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    """The rows of what should be a list of objects; `field` is where the list stands in the body."""
    if not isinstance(rows, list) or not rows:
        return Problem(422, f"{field} must be a list with at least one row.", field=field)
    return check_row_count(len(rows), field, max_rows) or schema.check_rows(rows)


def check_row_count(count: int, field: str | None, max_rows: int) -> Problem | None:
    if count > max_rows:
        return Problem(422, f"A request may hold {max_rows} rows at most; split it.", field=field)
    return None


def check_headers(headers: Mapping[str, str], accepted: Sequence[str]) -> Problem | None:
    """A body that is compressed, not of an accepted type or not UTF-8, as its headers say. Without a type: the first.

    A compressed body is refused, since a kilobyte of it can unpack to a gigabyte.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        return Problem(415, "The body is compressed; send it plain, without Content-Encoding.")
    content_type = headers.get("content-type")
    if content_type is None or content_type == accepted[0]:
        return None
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind not in accepted:
        return Problem(415, f"The body must be {' or '.join(accepted)}; say so in Content-Type.")
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        if value.strip('"') not in PLAIN_PARAMETERS.get(name, (value.strip('"'),)):
            return Problem(415, PARAMETER_FAULTS[name])
    return None


class _Duplicate(Exception):
    pass


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise _Duplicate
    return unique


def _parse_constant(constant: str) -> float | None:
    return None if constant == "NaN" else float(constant)


def parse_integer(digits: str) -> float:
    """Whole, so that the check of the rows sees whether a float can hold it."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else math.inf


# one for each meaning of NaN, and their slow twins that get past an integer too long to read
_DECODERS = {
    (lenient, patient): json.JSONDecoder(
        object_pairs_hook=_reject_duplicates,
        parse_constant=_parse_constant if lenient else None,
        parse_int=parse_integer if patient else None,
    )
    for lenient in (False, True)
    for patient in (False, True)
}


def decode_text(body: bytes) -> str | Problem:
    if not body:
        return Problem(400, "The body is empty; send rows.")
    try:
        return body.decode()
    except UnicodeDecodeError:
        return Problem(400, "The body is not UTF-8; send it so.")


def parse_json(body: bytes, *, nan_is_missing: bool = False) -> Any:
    """The JSON of a body. `nan_is_missing`: NaN, which JSON does not have, is read as null (see the protocols)."""
    text = decode_text(body)
    if isinstance(text, Problem):
        return text
    if text[0] == "\ufeff":
        return Problem(400, "The body begins with a byte order mark; send JSON without one.")
    try:
        return _decode_json(text, nan_is_missing)
    except _Duplicate:
        return Problem(400, "The body holds the same key twice in one object; send each key once.")
    except RecursionError:
        return Problem(400, "The body is nested too deeply; send an object with rows.")
    except ValueError:
        return Problem(400, "The body is not JSON; send an object with rows.")


def _decode_json(text: str, lenient: bool) -> Any:
    try:
        return _DECODERS[lenient, False].decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # of int(): an integer of thousands of digits; read again to find out where
        return _DECODERS[lenient, True].decode(text)
