"""The identity of rows: one sha256 over what a Parquet file says, not over how it says it.

Two writers, or two versions of one writer, store the same rows in different bytes: other row groups, encodings,
compression. A snapshot's name must not depend on that, or a library update would make every backfilled day a new
version. So each column is hashed as three streams of its own (which rows have a value, how long each text is, the
values themselves, little-endian) and the name is the sha256 over the list of columns with their types and those
digests. Streams know no batches, so no re-batching is needed and memory stays at one batch. Text is one type here,
whether it was stored plain, large or as a dictionary; what lies under a missing value, and the payload of a NaN, count
for nothing. The order of rows and columns, the names, the types and the sign of a zero do count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.kernel.errors import DataRefused

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT = "evergreen-rows-1"  # part of the hash: another canonical form must give other names
STREAMS = ("present", "length", "value")  # of a column: 1 byte a row, 8 bytes a text, the values
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Content:
    """What a file of rows holds; `types` are the logical types of `columns`, in their order."""

    id: str
    rows: int
    columns: tuple[str, ...]
    types: tuple[str, ...]


@dataclass
class _ColumnDigest:
    name: str
    type: str
    streams: dict[str, Any] = field(default_factory=lambda: {part: hashlib.sha256() for part in STREAMS})

    def add(self, array: pa.Array) -> None:
        for part, chunk in _split_streams(array):
            self.streams[part].update(chunk)

    def list_digests(self) -> list[str]:
        return [self.name, self.type, *(stream.hexdigest() for stream in self.streams.values())]


def compute_content_id(path: Path) -> str:
    """The sha256 of the rows in the Parquet file at `path`, 64 hex digits. Raises `DataRefused`."""
    return read_content(path).id


def read_content(path: Path) -> Content:
    """Reads the Parquet file once, in batches. Raises `DataRefused` for a broken file or a nested column."""
    with open_parquet(path) as file:
        columns = [_ColumnDigest(each.name, _find_type_name(each.type, each.name, path)) for each in file.schema_arrow]
        for batch in file.iter_batches(BATCH_ROWS):
            for column, array in zip(columns, batch.columns, strict=True):
                column.add(array)
        rows = file.metadata.num_rows
    form = json.dumps([FORMAT, rows, *(column.list_digests() for column in columns)], ensure_ascii=False)
    names, types = tuple(column.name for column in columns), tuple(column.type for column in columns)
    return Content(hashlib.sha256(form.encode()).hexdigest(), rows, names, types)


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """The open Parquet file. Raises `DataRefused` naming it when it, or what is read of it, is not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # pre-buffering keeps every row group it has read
            yield file
    except (pa.ArrowException, OSError) as error:
        cause = " ".join(str(error).split())
        raise DataRefused(f"{path} is not a whole Parquet file ({cause}); deliver or publish it again.") from error


def _find_type_name(kind: pa.DataType, column: str, path: Path) -> str:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _find_type_name(kind.value_type, column, path)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_nested(kind):
        raise DataRefused(f"Column {column!r} of {path} is nested ({kind}); flatten it into plain columns.")
    return str(kind)


def _split_streams(array: pa.Array) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    yield "present", _read_bytes(array.is_valid().cast("uint8"))
    if pa.types.is_null(array.type):
        return
    if pa.types.is_primitive(array.type):
        yield "value", _read_bytes(_convert_to_integers(array))
    else:
        yield from _split_texts(array)


def _convert_to_integers(array: pa.Array) -> pa.Array:
    """Whole numbers of the same width that stand for the values, 0 where one is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(array.type):
        array = _normalise_nan(array)
    whole = array.cast("uint8") if pa.types.is_boolean(array.type) else array.view(f"int{array.type.bit_width}")
    return pc.coalesce(whole, _make_blank(whole.type)) if whole.null_count else whole


def _make_blank(kind: pa.DataType) -> pa.Scalar:
    """The zero or the empty text of a type, made of bytes: pyarrow loads pandas to make one of a Python value."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(bytes(16)), pa.py_buffer(b"")]
    return pa.Array.from_buffers(kind, 1, buffers[:2] if pa.types.is_primitive(kind) else buffers)[0]


def _normalise_nan(array: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    odd = pc.is_nan(array)
    return pc.if_else(odd, pa.scalar(float("nan"), array.type), array) if pc.any(odd).as_py() else array


def _split_texts(array: pa.Array) -> Iterator[tuple[str, Any]]:
    """Texts and bytes (and decimals, as text): their lengths, and all of them in a row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wide = pa.large_string() if not pa.types.is_binary(array.type) else pa.large_binary()
    texts = array.cast(wide)
    texts = pc.coalesce(texts, _make_blank(wide)) if texts.null_count else texts
    yield "length", _read_bytes(pc.binary_length(texts).cast("int64"))
    _, offsets, values = texts.buffers()
    places = memoryview(offsets).cast("q")
    if values is not None:
        yield "value", memoryview(values)[places[texts.offset] : places[texts.offset + len(texts)]]


def _read_bytes(array: pa.Array) -> memoryview:
    """The values of a fixed-width array without its padding."""
    width = array.type.bit_width // 8
    return memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]
