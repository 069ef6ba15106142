"""The same rows in every form a client may send them, so that one table of tests holds for all protocols."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.model.schema import Column
from include.serving.exchange import Problem, Row
from include.serving.protocols import mlflow_scoring, native, open_inference
from include.serving.slot.input_schema import InputSchema

JSON, OCTETS, CSV = "application/json", "application/octet-stream", "text/csv"
CATEGORIES = ("Home", "Marital", "Records", "Job")  # of the example data
Rows = Sequence[Mapping[str, Any]]
Headers = dict[str, str]


@dataclass(frozen=True)
class Literal:
    """JSON as it is to be written, such as 1e400, which Python has no value for."""

    text: str


def dumps(value: Any) -> str:
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)}: {dumps(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(dumps(each) for each in value) + "]"
    return json.dumps(value)


def in_rows(rows: Rows) -> tuple[bytes, Headers]:
    return dumps({"rows": list(rows)}).encode(), {"content-type": JSON}


def split(rows: Rows) -> tuple[bytes, Headers]:
    names = _names(rows)
    data = [[row.get(name) for name in names] for row in rows]
    table = {"index": list(range(len(data))), "columns": names, "data": data}
    return dumps({"dataframe_split": table}).encode(), {"content-type": JSON}


def records(rows: Rows) -> tuple[bytes, Headers]:
    return dumps({"dataframe_records": list(rows)}).encode(), {"content-type": JSON}


def instances(rows: Rows) -> tuple[bytes, Headers]:
    return dumps({"instances": list(rows)}).encode(), {"content-type": JSON}


def inputs(rows: Rows) -> tuple[bytes, Headers]:
    columns = {name: [row.get(name) for row in rows] for name in _names(rows)}
    return dumps({"inputs": columns}).encode(), {"content-type": JSON}


def tensors(rows: Rows) -> tuple[bytes, Headers]:
    return dumps({"inputs": [_tensor(name, rows) for name in _names(rows)]}).encode(), {"content-type": JSON}


def columnar_csv(rows: Rows) -> tuple[bytes, Headers]:
    out, names = io.StringIO(newline=""), _names(rows)
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows(["" if row.get(name) is None else row[name] for name in names] for row in rows)
    return out.getvalue().encode(), {"content-type": CSV}


def binary_tensors(rows: Rows) -> tuple[bytes, Headers]:
    """As Triton's client sends arrays of float64 and of objects."""
    described, raw = [], b""
    for name in _names(rows):
        values = [row.get(name) for row in rows]
        datatype = _datatype(name)
        encoded = _floats(values) if datatype == "FP64" else _strings(values)
        size = {"binary_data_size": len(encoded)}
        described.append({"name": name, "shape": [len(values), 1], "datatype": datatype, "parameters": size})
        raw += encoded
    head = dumps({"inputs": described}).encode()
    return head + raw, {"content-type": OCTETS, "inference-header-content-length": str(len(head))}


FORMS: dict[str, Callable[[Rows], tuple[bytes, Headers]]] = {
    "native": in_rows,
    "dataframe_split": split,
    "dataframe_records": records,
    "instances": instances,
    "inputs": inputs,
    "csv": columnar_csv,
    "tensors": tensors,
    "binary_tensors": binary_tensors,
}
IN_JSON = ("native", "dataframe_split", "dataframe_records", "instances", "inputs", "tensors")


def read(form: str, body: bytes, headers: Headers, columns: Sequence[Column], max_rows: int) -> list[Row] | Problem:
    """What the server reads in a body of that form."""
    protocol = native if form == "native" else open_inference if "tensors" in form else mlflow_scoring
    parsed = protocol.parse(body, headers, InputSchema(columns), max_rows)
    return parsed if isinstance(parsed, Problem) else parsed.rows


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _datatype(name: str) -> str:
    return "BYTES" if name in CATEGORIES else "FP64"


def _tensor(name: str, rows: Rows) -> dict[str, Any]:
    values = [row.get(name) for row in rows]
    return {"name": name, "shape": [len(values)], "datatype": _datatype(name), "data": values}


def _floats(values: Sequence[Any]) -> bytes:
    return struct.pack(f"<{len(values)}d", *(float("nan") if value is None else value for value in values))


def _strings(values: Sequence[Any]) -> bytes:
    encoded = [(value or "").encode() for value in values]
    return b"".join(struct.pack("<I", len(each)) + each for each in encoded)
