"""MLflow's scoring protocol: POST /invocations, GET /ping and /version, so that its clients work unchanged.

Read as MLflow's own server reads it, where that leaves no doubt: `dataframe_split`, `dataframe_records`, `instances`,
`inputs` or a CSV with a head line. Where that server guesses, this one refuses: columns the model does not have (it
drops them), columns without names (it takes them by position), "1.5" for a number (it casts). A prediction is what our
logged model's `predict` gives, the probability of the positive class, so a client sees the same numbers from either.

Missing is null, and also NaN: that is how MLflow's client writes the missing values of a DataFrame, numbers and texts
alike. In a CSV it is the empty cell, as `DataFrame.to_csv` writes it; NA or None there is a text like any other.

Not taken: parquet (a decoder in native code for a body of a stranger), and `params`, since our models have none.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from include.serving.exchange import ParsedRequest, Problem, RenderedResponse, Row
from include.serving.protocols.request_body import (
    check_headers,
    check_row_count,
    check_rows,
    decode_text,
    find_one_key,
    parse_integer,
    parse_json,
)
from include.serving.slot.input_schema import InputSchema

if TYPE_CHECKING:
    from include.serving.exchange import Answer

# The answer of /version. Clients take it for the version of MLflow whose protocol is spoken; a test holds it to ours.
MLFLOW_VERSION = "3.17.2"
JSON, CSV = "application/json", "text/csv"
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
NUMBER = re.compile(r"\A[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
CODES = {
    **dict.fromkeys((400, 405, 413, 415), "BAD_REQUEST"),
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def parse(body: bytes, headers: Mapping[str, str], schema: InputSchema, max_rows: int) -> ParsedRequest | Problem:
    """Rows of a body in any of the formats. `headers` by lower-case name."""
    problem = check_headers(headers, (JSON, CSV))
    if problem:
        return problem
    is_csv = headers.get("content-type", JSON).partition(";")[0].strip().lower() == CSV
    rows = _read_csv(body, schema, max_rows) if is_csv else _read_json(body, schema, max_rows)
    return rows if isinstance(rows, Problem) else ParsedRequest(rows)


def render(answer: Answer, parsed: ParsedRequest) -> RenderedResponse:
    """Who answered is said only when it was not the model."""
    content: dict[str, Any] = {"predictions": answer.probabilities}
    if answer.served_by != "model":
        content["served_by"] = answer.served_by
    return RenderedResponse(to_json(content))


def refuse(problem: Problem) -> RenderedResponse:
    """As MLflow's server writes it; row and field stand beside the message."""
    code = CODES.get(problem.status, "INTERNAL_ERROR")
    return RenderedResponse(to_json({"error_code": code, "message": problem.message, **problem.location}))


def _read_json(body: bytes, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    payload = parse_json(body, nan_is_missing=True)
    if isinstance(payload, Problem):
        return payload
    params = payload.pop("params", None) if isinstance(payload, dict) else None
    name = find_one_key(payload, FORMATS)
    if name is None:
        return Problem(422, f"The body must be an object with exactly one of {', '.join(FORMATS)}.")
    if params:
        return Problem(422, "The model takes no params; leave them out.", field="params")
    return _READERS[name](payload[name], name, schema, max_rows)


def _read_split(table: Any, field: str, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    if not isinstance(table, dict) or not {"columns", "data"} <= table.keys() <= {"columns", "data", "index"}:
        return Problem(422, f"{field} must be an object with columns and data, and index if you like.", field=field)
    names, data = table["columns"], table["data"]
    if not isinstance(data, list) or not data:
        return Problem(422, f"{field} needs data, a list with at least one row.", field=field)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return Problem(422, f"{field} needs columns, a list of names.", field=field)
    return check_row_count(len(data), field, max_rows) or _build_rows(names, data, schema)


def _build_rows(names: list[str], data: Sequence[Any], schema: InputSchema) -> list[Row] | Problem:
    """Rows of a head and of lists of as many values."""
    problem = _check_head(names, schema)
    if problem:
        return problem
    rows = []
    for index, values in enumerate(data):
        if not isinstance(values, list) or len(values) != len(names):
            return Problem(422, f"A row must be a list of {len(names)} values, one for each column.", index)
        rows.append(dict(zip(names, values, strict=True)))
    return schema.check_rows(rows)


def _check_head(names: Sequence[str], schema: InputSchema) -> Problem | None:
    unknown = next((name for name in names if name not in schema.columns), None)
    if unknown is not None:
        return schema.refuse_unknown(unknown)
    twice = next((name for name in schema.columns if names.count(name) > 1), None)
    return Problem(422, "The same column stands there twice; send each once.", field=twice) if twice else None


def _read_records_or_columns(values: Any, field: str, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    """`inputs` is a list of rows, or a list of values for each column."""
    return (_read_columns if isinstance(values, dict) else check_rows)(values, field, schema, max_rows)


def _read_columns(values: dict[str, Any], field: str, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    problem = _check_head(list(values), schema)
    if problem:
        return problem
    odd = next((name for name, each in values.items() if not isinstance(each, list)), None)
    if odd is not None or not values:
        return Problem(422, f"{field} must hold a list of values for each column.", field=odd or field)
    count = len(next(iter(values.values())))
    short = next((name for name, each in values.items() if len(each) != count), None)
    if short is not None or not count:
        return Problem(422, f"{field} needs lists of one length, and at least one value.", field=short or field)
    rows = (dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    return check_row_count(count, field, max_rows) or schema.check_rows(list(rows))


_READERS: dict[str, Callable[[Any, str, InputSchema, int], list[Row] | Problem]] = {
    "dataframe_split": _read_split,
    "dataframe_records": check_rows,
    "instances": check_rows,
    "inputs": _read_records_or_columns,
}


def _read_csv(body: bytes, schema: InputSchema, max_rows: int) -> list[Row] | Problem:
    text = decode_text(body)
    if isinstance(text, Problem):
        return text
    try:  # a byte order mark is what spreadsheets write first
        lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True))
    except csv.Error:
        return Problem(400, "The body is not CSV; send a head line of column names and a line for each row.")
    if len(lines) < 2:
        return Problem(422, "The CSV needs a head line of column names and at least one row.")
    problem = check_row_count(len(lines) - 1, None, max_rows)
    return problem or _build_rows(lines[0], [_parse_cells(lines[0], line, schema) for line in lines[1:]], schema)


def _parse_cells(names: Sequence[str], line: list[str], schema: InputSchema) -> list[Any]:
    """A line's cells as values; a number that is none stays text, and is refused as text."""
    if len(line) != len(names):
        return line
    return [_parse_cell(name, cell, schema) for name, cell in zip(names, line, strict=True)]


def _parse_cell(name: str, cell: str, schema: InputSchema) -> float | str | None:
    if not cell:
        return None
    column = schema.columns.get(name)
    if not column or column.kind != "number" or not NUMBER.match(cell):
        return cell
    return parse_integer(cell) if cell.lstrip("+-").isdigit() else float(cell)
