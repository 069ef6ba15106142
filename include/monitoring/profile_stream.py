"""Counts files of any size over a baseline's grid, a batch at a time: memory depends on the batch and not on the file.

Parquet is read without pre-buffering, which would hold whole row groups, and page by page where the file is written in
small pages. Columns of one batch are counted by two threads: sorting leaves the interpreter's lock alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from include.kernel.errors import DataRefused
from include.monitoring.core.profiles import CategoryProfile, Profile

BATCH = 1 << 16  # rows: a column of them is half a megabyte, and is sorted within the cache of the processor
BLOCK = 1 << 23  # bytes of a CSV file parsed at once
THREADS = 2


def count(paths: Iterable[Path], baseline: Mapping[str, Profile]) -> dict[str, Profile]:
    """The files' rows, counted together. Raises `DataRefused` when a file is broken or lacks a column of the baseline.

    Integers, booleans and decimals count as numbers; null and NaN are missing.
    """
    found = {name: profile.of([]) for name, profile in baseline.items()}
    with ThreadPoolExecutor(THREADS) as threads:
        for path in paths:
            for more in _counted(path, baseline, threads):
                found = {name: found[name] + counted for name, counted in more.items()}
    return found


def _counted(path: Path, baseline: Mapping[str, Profile], threads: Executor) -> Iterator[dict[str, Profile]]:
    """The profiles of each batch of a file."""
    names = list(baseline)
    try:
        for batch in (_csv if path.suffix == ".csv" else _parquet)(path, names):
            counted = threads.map(_count, (batch.column(name) for name in names), baseline.values())
            yield dict(zip(names, counted, strict=True))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataRefused(f"{path} cannot be profiled ({error}); deliver it again with {', '.join(names)}.") from error


def _parquet(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
        if missing := sorted(set(names) - set(file.schema_arrow.names)):
            raise KeyError(f"no column {', '.join(missing)}")
        yield from file.iter_batches(BATCH, columns=names, use_threads=False)


def _csv(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    options = pa.csv.ConvertOptions(include_columns=names, strings_can_be_null=True)
    with pa.csv.open_csv(path, pa.csv.ReadOptions(block_size=BLOCK), convert_options=options) as reader:
        yield from reader


def _count(column: pa.Array, profile: Profile) -> Profile:
    if isinstance(profile, CategoryProfile):
        counted = pc.value_counts(column.cast(pa.string()))
        return profile.of_counts({each["values"]: each["counts"] for each in counted.to_pylist()})
    return profile.of(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
