"""One delivered file, CSV or Parquet, as batches of bounded size, whatever the file claims to be.

Sources that find files (a disk, a bucket) share this reader. It works on an open file, so a file that is replaced
meanwhile is still read as one whole. Three bounds hold: a batch has at most `MAX_BATCH_ROWS` rows and about
`BATCH_BYTES`, and a day unfolds to no more than the manifest's `source.max_gib`. Parquet needs care for that, since a
dictionary can say a long text a million times in a few bytes: text columns are read as dictionaries, weighed, and
unfolded in pieces. What cannot be bounded from outside is one page that lies about its own size.

pyarrow reads; what it reports is turned into one sentence that names the file, the row or column, and the fix. When a
Parquet file is damaged, its columns are read again one by one to name the first that fails.
"""

import csv
import hashlib
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from include.data.landing.landing import FILE_KEY
from include.data.sources.base import MAX_BATCH_ROWS, Budget, Declared, is_declared
from include.kernel.errors import DataRefused

log = logging.getLogger(__name__)

BATCH_BYTES = 64 * 2**20
CSV_BLOCK_BYTES = 4 * 2**20  # a longer line is refused
CHUNK_BYTES = 2**20
NAME_CHARACTERS = 80  # characters of a name that came with the data
MAX_NAMED_FILES = 5  # files a description names one by one


@dataclass(frozen=True)
class FileSurvey:
    """What one pass over the bytes tells, before any of them is trusted. `quotes` counts quotation marks."""

    size: int
    sha256: str
    quotes: int
    last: bytes

    @property
    def identity(self) -> str:
        return f"size={self.size}&sha256={self.sha256}"


def survey(handle: BinaryIO) -> FileSurvey:
    handle.seek(0)
    digest, size, quotes, last = hashlib.sha256(), 0, 0, b""
    while chunk := handle.read(CHUNK_BYTES):
        digest.update(chunk)
        size, quotes, last = size + len(chunk), quotes + chunk.count(b'"'), chunk[-1:]
    return FileSurvey(size, digest.hexdigest(), quotes, last)


def read(
    handle: BinaryIO, name: str, known: FileSurvey, budget: Budget, declared: Declared = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one open file; `name` is what messages call it, and its ending says the format.

    Each batch carries the name along, since who compares the files of a day must name the one that differs. A column
    that is not `declared` and holds what no snapshot can keep comes without its cells.

    Raises `DataRefused` when the file is empty, damaged, ragged, not UTF-8, nested, or too large unfolded.
    """
    if not known.size:
        raise DataRefused(f"{name} is empty (0 bytes); deliver the file again, whole.")
    is_parquet = name.endswith(".parquet")
    batches = _read_parquet(handle, name, budget, declared) if is_parquet else _read_csv(handle, name, known)
    for batch in batches:
        budget.spend(name, batch.nbytes)
        yield batch.replace_schema_metadata({FILE_KEY: name.encode()})


def quote_name(text: str) -> str:
    """A name that came with the data, safe in one line of a message: quoted, escaped, bounded."""
    quoted = ascii(text) if not text.isprintable() else repr(text)
    return quoted if len(quoted) <= NAME_CHARACTERS else f"{quoted[:NAME_CHARACTERS]}..."


def _render_handle_path(handle: BinaryIO) -> str:
    """The open file itself, under a name that libraries can open, also when its directory entry is gone."""
    return f"/dev/fd/{handle.fileno()}"


# --- CSV --------------------------------------------------------------------------------------------------------------


def _read_csv(handle: BinaryIO, name: str, known: FileSurvey) -> Iterator[pa.RecordBatch]:
    columns = _read_header(handle, name)
    if known.last not in (b"\n", b"\r"):
        raise DataRefused(
            f"{name} cannot be read (its last line has no end, so it was cut off); deliver the file again, whole."
        )
    if known.quotes % 2:
        _check_quotes(handle, name)
    ragged: list[pacsv.InvalidRow] = []
    try:
        with pacsv.open_csv(_render_handle_path(handle), **_build_csv_options(columns, ragged)) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, MAX_BATCH_ROWS):
                    yield batch.slice(start, MAX_BATCH_ROWS)
    except pa.ArrowInvalid as error:
        raise DataRefused(_explain_csv_problem(name, columns, ragged, str(error))) from error


def _build_csv_options(columns: list[str], ragged: list[pacsv.InvalidRow]) -> dict[str, object]:
    def remember(row: pacsv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    return {
        "read_options": pacsv.ReadOptions(block_size=CSV_BLOCK_BYTES, use_threads=False),  # threads lose row numbers
        "parse_options": pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=remember),
        "convert_options": pacsv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), null_values=[""], strings_can_be_null=True
        ),
    }


def _read_header(handle: BinaryIO, name: str) -> list[str]:
    with open(_render_handle_path(handle), encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        try:
            columns = next(csv.reader(text), [])
        except csv.Error as error:
            raise DataRefused(f"{name}: its header, row 1, cannot be read ({error}); deliver it whole.") from error
    if not "".join(columns).isprintable():
        raise DataRefused(f"{name}: its header, row 1, is not plain UTF-8 text; deliver the file as UTF-8.")
    _check_header(name, columns)
    return columns


def _check_header(name: str, columns: list[str]) -> None:
    unnamed = [number for number, column in enumerate(columns, 1) if not column.strip()]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if not columns or unnamed:
        where = f"column {unnamed[0]} of" if unnamed else ""
        raise DataRefused(f"{name}: {where} its header, row 1, has no name; deliver it with a name for every column.")
    if twice:
        raise DataRefused(
            f"{name}: its header, row 1, names column {quote_name(twice[0])} {columns.count(twice[0])} times; "
            "deliver it with one name for one column."
        )
    if len(columns) == 1 and (found := next((mark for mark in ";\t|" if mark in columns[0]), None)):
        raise DataRefused(f"{name} seems to be separated by {found!r}; deliver it separated by commas.")


def _check_quotes(handle: BinaryIO, name: str) -> None:
    """For a file with an odd number of quotation marks: a cell that never ends would swallow the rows behind it."""
    row = 1
    with open(_render_handle_path(handle), encoding="utf-8", errors="replace", newline="") as text:
        try:
            for row, _ in enumerate(csv.reader(text, strict=True), 2):  # noqa: B007  (the row that comes next)
                pass
        except csv.Error as error:
            raise DataRefused(
                f"{name}: a quotation mark in row {row} is never closed, so the file was cut off or is garbled; "
                "deliver the file again, whole."
            ) from error


def _explain_csv_problem(name: str, columns: list[str], ragged: list[pacsv.InvalidRow], cause: str) -> str:
    if ragged:
        row = ragged[0]
        where = f"row {row.number}" if row.number else "a row"
        shifted = "; the header, row 1, seems to be shifted" if row.number == 2 else ""
        return (
            f"{name} cannot be read ({where} has {row.actual_columns} cells, but its header has "
            f"{row.expected_columns}{shifted}); deliver the file again, whole, with one cell for every column."
        )
    if found := re.match(r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid UTF8", cause):
        where = f"row {found[2]}, " if found[2] else ""
        return (
            f"{name}: {where}column {quote_name(columns[int(found[1])])} is not UTF-8 text; deliver the file as UTF-8."
        )
    if "straddling" in cause:
        cause = f"a line is longer than {CSV_BLOCK_BYTES // 2**20} MiB, as after a quotation mark that is never closed"
    return f"{name} cannot be read ({quote_name(cause)}); deliver the file again, whole."


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _read_parquet(handle: BinaryIO, name: str, budget: Budget, declared: Declared) -> Iterator[pa.RecordBatch]:
    try:
        metadata = pq.read_metadata(_render_handle_path(handle))
        schema = metadata.schema.to_arrow_schema()
        file = _open_parquet(handle, metadata, [field.name for field in schema if _is_text(field.type)])
    except DAMAGE_ERRORS as error:
        raise _build_damage_error(name, "", error) from error
    kept = _list_kept_columns(name, schema, declared)
    budget.check(name, _estimate_least_bytes(metadata, schema))
    rows, weighed = 0, False
    batches = file.iter_batches(batch_size=_compute_batch_rows(metadata, schema), columns=kept)
    while (batch := _read_next(batches, handle, name, metadata)) is not None:
        if not weighed and _count_unfolded_bytes(batch) > BATCH_BYTES:
            budget.check(name, _weigh(handle, metadata))
            weighed = True
        for part in _split_batch(batch):
            yield _decode_batch(part, name, rows, schema.names, declared)
            rows += part.num_rows


# What pyarrow raises for bytes that are no Parquet; its own errors are OSError, ValueError and others besides.
DAMAGE_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError)


def _open_parquet(handle: BinaryIO, metadata: pq.FileMetaData, dictionaries: list[str]) -> pq.ParquetFile:
    return pq.ParquetFile(
        _render_handle_path(handle),
        metadata=metadata,
        read_dictionary=dictionaries,
        pre_buffer=False,  # else every page that was read stays in memory
        page_checksum_verification=True,
        coerce_int96_timestamp_unit="us",  # in nanoseconds a year after 2262 silently becomes another one
    )


def _read_next(
    batches: Iterator[pa.RecordBatch], handle: BinaryIO, name: str, metadata: pq.FileMetaData
) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except DAMAGE_ERRORS as error:
        raise _build_damage_error(name, _find_damaged_column(handle, metadata), error) from error


def _build_damage_error(name: str, where: str, error: BaseException) -> DataRefused:
    cause = quote_name(" ".join(str(error).split()) or type(error).__name__)
    return DataRefused(f"{name} cannot be read ({where}{cause}); deliver the file again, whole.")


def _find_damaged_column(handle: BinaryIO, metadata: pq.FileMetaData) -> str:
    """The first column and row group that cannot be read by itself; empty when each of them can."""
    file = _open_parquet(handle, metadata, [])
    for column in metadata.schema.to_arrow_schema().names:
        for group in range(metadata.num_row_groups):
            try:
                for _ in file.iter_batches(batch_size=1024, row_groups=[group], columns=[column]):
                    pass
            except DAMAGE_ERRORS:
                return f"column {quote_name(column)} in row group {group + 1} of {metadata.num_row_groups} is damaged: "
    return ""


def _list_kept_columns(name: str, schema: pa.Schema, declared: Declared) -> list[str] | None:
    """The columns that are read; None where that is all of them. Raises `DataRefused`."""
    left_out = set()
    for field in schema:
        if schema.names.count(field.name) > 1:
            raise DataRefused(
                f"{name} has column {quote_name(field.name)} twice; deliver it with one name for one column."
            )
        if is_declared(field.name, declared):
            if pa.types.is_nested(field.type):
                raise DataRefused(
                    f"Column {quote_name(field.name)} of {name} holds {quote_name(str(field.type))}; deliver plain "
                    "values, one for each row and column."
                )
        elif not _can_keep(field.type):
            left_out.add(field.name)
            log.warning("%s: column %s holds %s and is left out", name, quote_name(field.name), field.type)
    return [column for column in schema.names if column not in left_out] if left_out else None


def _can_keep(kind: pa.DataType) -> bool:
    """Whether a snapshot can hold cells of this type."""
    if pa.types.is_dictionary(kind):
        return _can_keep(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name in ("arrow.uuid", "arrow.json") or _can_keep(kind.storage_type)
    plain = (pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    times = (pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, pa.types.is_duration)
    return _is_text(kind) or any(is_one(kind) for is_one in (*plain, *times))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    views = (pa.types.is_string_view, pa.types.is_binary_view)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, *views)
    return any(is_one(kind) for is_one in text)


def _estimate_row_bytes(schema: pa.Schema) -> int:
    """Bytes a row takes in memory at least."""
    return sum(4 if _is_text(field.type) or field.type.id == pa.null().id else 8 for field in schema)


def _estimate_least_bytes(metadata: pq.FileMetaData, schema: pa.Schema) -> int:
    pages: int = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    rows: int = metadata.num_rows
    return max(pages, rows * _estimate_row_bytes(schema))


def _compute_batch_rows(metadata: pq.FileMetaData, schema: pa.Schema) -> int:
    """As many rows as fit `BATCH_BYTES`, by what the file says of its row groups."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    widest: float = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0.0)
    return int(min(max(BATCH_BYTES // (widest + _estimate_row_bytes(schema) + 1), 1), MAX_BATCH_ROWS))


def _weigh(handle: BinaryIO, metadata: pq.FileMetaData) -> int:
    """Bytes of the whole file unfolded, for one whose dictionaries promise much; nothing is unfolded for it."""
    texts = [field.name for field in metadata.schema.to_arrow_schema() if _is_text(field.type)]
    try:
        return sum(map(_count_unfolded_bytes, _open_parquet(handle, metadata, texts).iter_batches(columns=texts)))
    except DAMAGE_ERRORS:
        return 0  # told when it is read


def _split_batch(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch, halved until a piece is small enough unfolded, or one row."""
    if batch.num_rows <= 1 or _count_unfolded_bytes(batch) <= BATCH_BYTES:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _split_batch(batch.slice(0, half))
    yield from _split_batch(batch.slice(half))


def _count_unfolded_bytes(batch: pa.RecordBatch) -> int:
    return sum(map(_count_column_bytes, batch.columns))


def _count_column_bytes(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0)


def _decode_batch(
    batch: pa.RecordBatch, name: str, before: int, names: list[str], declared: Declared
) -> pa.RecordBatch:
    """The columns `names` of the file in plain types, so that files of a day differ in content alone; of one that was
    left out, nothing but nulls."""
    columns = []
    for column in names:
        try:
            columns.append(_decode_column(batch[column]) if column in batch.schema.names else pa.nulls(batch.num_rows))
        except pa.ArrowInvalid as error:
            if not is_declared(column, declared):
                log.warning("%s: column %s is not UTF-8 text; its cells are left out", name, quote_name(column))
                columns.append(pa.nulls(batch.num_rows, pa.string()))
                continue
            raise DataRefused(
                f"{name}: column {quote_name(column)} is not UTF-8 text between rows {before + 1} and "
                f"{before + batch.num_rows}; deliver the file as UTF-8."
            ) from error
    return pa.RecordBatch.from_arrays(columns, names=names)


def _decode_column(column: pa.Array) -> pa.Array:
    """Dictionaries unfold, the many kinds of text become one, and what the engine cannot hold what it can."""
    if isinstance(column.type, pa.BaseExtensionType):
        is_uuid = column.type.extension_name == "arrow.uuid"
        column = pa.array(map(_format_uuid, column.to_pylist()), pa.string()) if is_uuid else column.storage
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = column.type
    if _is_text(kind):
        plain = column.cast(pa.string())
        plain.validate(full=True)  # Parquet's reader does not look whether text is text
        return plain
    if pa.types.is_decimal256(kind):
        return column.cast(pa.float64())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if pa.types.is_timestamp(kind) and kind.tz and not _is_named_zone(kind.tz):
        return column.cast(pa.timestamp(kind.unit, "UTC"))  # the same moment: Arrow keeps times in UTC
    return column


def _format_uuid(value: object) -> str | None:
    return None if value is None else str(value)


@cache
def _is_named_zone(name: str) -> bool:
    """Whether the database of time zones has it; an offset such as +05:30 stands in none."""
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # no such zone, or no name of one
        return False
    return True


def describe_files(pattern: str, files: list[tuple[str, int, str]]) -> str:
    """The files of a day, each a URI, a size in bytes and an identity; many of them as one with their list's digest."""
    named = [f"{quote(uri, safe=':/')}?{identity}" for uri, _, identity in files]
    if len(named) <= MAX_NAMED_FILES:
        return " ".join(named)
    digest = hashlib.sha256("\n".join(named).encode()).hexdigest()
    return f"{quote(pattern, safe=':/*')}?files={len(named)}&size={sum(size for _, size, _ in files)}&sha256={digest}"
