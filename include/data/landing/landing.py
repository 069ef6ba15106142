"""Landing: the delivered rows, as they came, in one Parquet file before anybody judges them.

Batches are written as they arrive, so memory holds a row group and no day. The first batch says which columns there
are. A later file may have them in another order, and a column of it may be empty throughout; anything else is a schema
that changed in the middle of a day, and is refused by the names of file and column.

Every batch becomes a row group of its own, so a part of the day can be read out of the file again, and batches that
were read out of one landed file land in another one as the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING

from include.kernel.errors import DataRefused
from include.kernel.files import translate_write_errors

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
LANDED_FILE = "landed.parquet"
FILE_KEY = b"file"  # key of a batch's schema metadata: the file or object it was read from


@dataclass(frozen=True)
class Landing:
    """`parts` are the row groups of each part that was landed, in order; a part without rows has none."""

    path: Path
    rows: int
    columns: tuple[str, ...]
    parts: tuple[range, ...]


def land(
    batches: Iterable[pa.RecordBatch],
    directory: Path,
    schema: pa.Schema | None = None,
    declared: Collection[str] | None = None,
) -> Landing | None:
    """One Parquet file in `directory` with the rows of all batches in their order; None when there are no rows.

    Raises `DataRefused` when a batch has other columns or types than `schema`, by default those of the first batch; and
    `StorageUnavailable`. Only columns that are `declared`, by default all, are held to that.
    """
    return land_parts([batches], directory, schema, declared)


def land_parts(
    parts: Iterable[Iterable[pa.RecordBatch]],
    directory: Path,
    schema: pa.Schema | None = None,
    declared: Collection[str] | None = None,
) -> Landing | None:
    """The same for the batches of several parts, one part after the other."""
    counts: list[int] = []
    full = _read_filled_batches(parts, counts)
    first = next(full, None)
    if first is None:
        return None
    wanted = _check_schema(first) if schema is None else schema
    path = directory / LANDED_FILE
    with translate_write_errors(path):
        rows = _write(path, wanted, (_fit_batch(batch, wanted, declared) for batch in chain([first], full)))
    ends = list(accumulate(counts))
    spans = tuple(range(end - count, end) for end, count in zip(ends, counts, strict=True))
    return Landing(path, rows, tuple(wanted.names), spans)


def _read_filled_batches(parts: Iterable[Iterable[pa.RecordBatch]], counts: list[int]) -> Iterator[pa.RecordBatch]:
    """The batches that have rows; `counts` becomes how many of them each part had."""
    for part in parts:
        counts.append(0)
        for batch in part:
            if batch.num_rows:
                counts[-1] += 1
                yield batch


def _check_schema(first: pa.RecordBatch) -> pa.Schema:
    names = first.schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataRefused(
            f"{_read_file_name(first)} names column {twice[0]!r} twice; deliver it with one column of each name."
        )
    return first.schema.remove_metadata()


def _write(path: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    import pyarrow.parquet as pq

    rows, texts = 0, [each.name for each in schema if _is_text(each.type)]
    # Trying a dictionary on numbers doubles the time and makes the file larger. It may be published as it is: zstd.
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts) as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=batch.num_rows)
            rows += batch.num_rows
    return rows


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _fit_batch(batch: pa.RecordBatch, schema: pa.Schema, declared: Collection[str] | None) -> pa.RecordBatch:
    """The batch with the columns of `schema`, in that order. Raises `DataRefused`."""
    import pyarrow as pa

    if batch.schema.equals(schema):
        return batch
    if declared is not None:
        batch = _fit_undeclared(batch, schema, declared)
    problem = _explain_difference(batch.schema, schema)
    if problem:
        raise DataRefused(f"{_read_file_name(batch)} {problem}; deliver all files of a day with the same columns.")
    columns = [batch.column(each.name).cast(each.type) for each in schema]  # casts a column of nulls, or nothing
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _fit_undeclared(batch: pa.RecordBatch, schema: pa.Schema, declared: Collection[str]) -> pa.RecordBatch:
    """The batch with those of its columns that nobody declared as `schema` has them, without cells that do not fit."""
    import pyarrow as pa

    for name in batch.schema.names:
        if name not in declared and name not in schema.names:
            _warn_left_out(_read_file_name(batch), name, "no file before has it")
    free = [field for field in schema if field.name not in declared]
    columns = {name: batch[name] for name in batch.schema.names if name in declared}
    for field in free:
        columns[field.name] = pa.nulls(batch.num_rows, field.type)
        if field.name in batch.schema.names:
            try:
                columns[field.name] = batch[field.name].cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                _warn_left_out(_read_file_name(batch), field.name, f"the rows before it hold {field.type}")
    fitted = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return fitted.replace_schema_metadata(batch.schema.metadata)


@cache
def _warn_left_out(file: str, name: str, why: str) -> None:
    log.warning("%s: the cells of column %r, which nobody declared, are left out: %s", file, name, why)


def _explain_difference(delivered: pa.Schema, expected: pa.Schema) -> str | None:
    import pyarrow as pa

    missing = [name for name in expected.names if name not in delivered.names]
    unknown = [name for name in delivered.names if name not in expected.names]
    if missing or unknown or len(delivered) != len(expected):
        lacks = f"lacks column(s) {', '.join(map(repr, missing))}" if missing else ""
        has = f"has {', '.join(map(repr, unknown))}" if unknown else ""
        return (" and ".join(filter(None, (lacks, has))) or "names a column twice") + ", unlike the rows before it"
    for each in expected:
        kind = delivered.field(each.name).type
        if kind != each.type and not pa.types.is_null(kind):
            return f"holds column {each.name!r} as {kind}, where the rows before it hold {each.type}"
    return None


def _read_file_name(batch: pa.RecordBatch) -> str:
    return ((batch.schema.metadata or {}).get(FILE_KEY) or b"the delivery").decode()
