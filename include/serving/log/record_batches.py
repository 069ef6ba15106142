"""From answered requests to Arrow record batches: in C where it can be, and in slices where it cannot.

The interpreter's lock is what predictions and the log share, so a batch holds few rows and is built by numpy from one
list a column. pyarrow's own conversion of Python objects is not used, since it imports pandas, which the server does
without: 50 MB.
"""

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


def build_schema(columns: Mapping[str, Kind]) -> pa.Schema:
    return pa.schema([pa.field(name, TYPES[kind]) for name, kind in columns.items()])


def build_batch(
    arrow_schema: pa.Schema, columns: Mapping[str, Kind], values: Mapping[str, Sequence[Any]]
) -> pa.RecordBatch:
    """One list a column, None where a value is missing; times are microseconds since 1970 in UTC.

    Raises `TypeError` or `ValueError` when a value is not of its column's kind.
    """
    return pa.RecordBatch.from_arrays(
        [_build_array(kind, values[name]) for name, kind in columns.items()], schema=arrow_schema
    )


class ParquetFile:
    """One segment, made in memory, a row group at a time and without the interpreter's lock. Written at its end only,
    fifty thousand rows are fifty milliseconds of the core that predictions may share."""

    def __init__(self, arrow_schema: pa.Schema) -> None:
        texts = [field.name for field in arrow_schema if field.type == pa.string()]
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink, arrow_schema, compression="zstd", use_dictionary=texts, store_schema=False
        )

    def add(self, group: pa.Table) -> None:
        self._writer.write_table(group)

    def finish(self) -> bytes:
        """Its bytes; nothing can be added afterwards."""
        self._writer.close()
        return bytes(self._sink.getvalue())


def encode_parquet(table: pa.Table) -> bytes:
    file = ParquetFile(table.schema)
    file.add(table)
    return file.finish()


def _build_array(kind: Kind, values: Sequence[Any]) -> pa.Array:
    if kind == "text":
        return _build_text_array(values)
    valid = _build_validity(values)
    if kind == "flag":
        data = np.packbits(np.array([value is True for value in values], dtype=bool), bitorder="little")
    elif kind == "number":
        data = np.array(values, dtype=np.float64)  # None becomes NaN, and is masked
    else:
        data = np.array(values if valid is None else [value or 0 for value in values], dtype=PLAIN[kind])
    return pa.Array.from_buffers(TYPES[kind], len(values), [valid, pa.py_buffer(data)])


def _build_text_array(values: Sequence[str | None]) -> pa.Array:
    valid = _build_validity(values)
    data, sizes = _join_texts(values if valid is None else [value or "" for value in values])  # type: ignore[arg-type]
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(sizes, np.int32, len(values)), out=ends[1:])
    return pa.Array.from_buffers(pa.string(), len(values), [valid, pa.py_buffer(ends), pa.py_buffer(data)])


def _join_texts(values: Sequence[str]) -> tuple[bytes, Iterable[int]]:
    """The bytes of all texts, and of how many each has; plain ASCII, which most are, is never looked at one by one."""
    whole = "".join(values)
    if whole.isascii():
        return whole.encode(), map(len, values)
    blobs = [value.encode(errors="replace") for value in values]
    return b"".join(blobs), map(len, blobs)


def _build_validity(values: Sequence[Any]) -> pa.Buffer | None:
    """None where nothing is missing: then no value is looked at by Python."""
    if None not in values:
        return None
    return _pack_bitmap(np.array([value is not None for value in values], dtype=bool))


def _pack_bitmap(valid: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid, bitorder="little"))
