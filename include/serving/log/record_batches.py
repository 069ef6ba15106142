"""From answered requests to Arrow record batches: in C where it can be, and in slices where it cannot.

The interpreter's lock is what predictions and the log share, so a batch holds few rows and is built by numpy from one
list a column. pyarrow's own conversion of Python objects is not used, since it imports pandas, which the server does
without: 50 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from include.feedback.core.prediction_records import Kind

TYPES = {
    "text": pa.string(),
    "number": pa.float64(),
    "integer": pa.int64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", "UTC"),
}
PLAIN = {"integer": np.int64, "time": np.int64}


def schema(columns: Mapping[str, Kind]) -> pa.Schema:
    return pa.schema([pa.field(name, TYPES[kind]) for name, kind in columns.items()])


def batch(of: pa.Schema, columns: Mapping[str, Kind], values: Mapping[str, Sequence[Any]]) -> pa.RecordBatch:
    """One list a column, None where a value is missing; times are microseconds since 1970 in UTC.

    Raises `TypeError` or `ValueError` when a value is not of its column's kind.
    """
    return pa.RecordBatch.from_arrays([_array(kind, values[name]) for name, kind in columns.items()], schema=of)


class ParquetFile:
    """One segment, made in memory, a row group at a time and without the interpreter's lock. Written at its end only,
    fifty thousand rows are fifty milliseconds of the core that predictions may share."""

    def __init__(self, of: pa.Schema) -> None:
        texts = [field.name for field in of if field.type == pa.string()]
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, of, compression="zstd", use_dictionary=texts, store_schema=False)

    def add(self, group: pa.Table) -> None:
        self._writer.write_table(group)

    def whole(self) -> bytes:
        """Its bytes; nothing can be added afterwards."""
        self._writer.close()
        return bytes(self._sink.getvalue())


def parquet(table: pa.Table) -> bytes:
    file = ParquetFile(table.schema)
    file.add(table)
    return file.whole()


def _array(kind: Kind, values: Sequence[Any]) -> pa.Array:
    if kind == "text":
        return _texts(values)
    valid = _valid(values)
    if kind == "flag":
        data = np.packbits(np.array([value is True for value in values], dtype=bool), bitorder="little")
    elif kind == "number":
        data = np.array(values, dtype=np.float64)  # None becomes NaN, and is masked
    else:
        data = np.array(values if valid is None else [value or 0 for value in values], dtype=PLAIN[kind])
    return pa.Array.from_buffers(TYPES[kind], len(values), [valid, pa.py_buffer(data)])


def _texts(values: Sequence[str | None]) -> pa.Array:
    valid = _valid(values)
    data, sizes = _joined(values if valid is None else [value or "" for value in values])  # type: ignore[arg-type]
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(sizes, np.int32, len(values)), out=ends[1:])
    return pa.Array.from_buffers(pa.string(), len(values), [valid, pa.py_buffer(ends), pa.py_buffer(data)])


def _joined(values: Sequence[str]) -> tuple[bytes, Iterable[int]]:
    """The bytes of all texts, and of how many each has; plain ASCII, which most are, is never looked at one by one."""
    whole = "".join(values)
    if whole.isascii():
        return whole.encode(), map(len, values)
    blobs = [value.encode(errors="replace") for value in values]
    return b"".join(blobs), map(len, blobs)


def _valid(values: Sequence[Any]) -> pa.Buffer | None:
    """None where nothing is missing: then no value is looked at by Python."""
    if None not in values:
        return None
    return _bitmap(np.array([value is not None for value in values], dtype=bool))


def _bitmap(valid: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid, bitorder="little"))
