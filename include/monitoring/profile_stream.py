"""Counts files of any size over a baseline's grid, a batch at a time: memory depends on the batch and not on the file.

Parquet is read without pre-buffering, which would hold whole row groups, and page by page where the file is written in
small pages. Columns of one batch are counted by two threads: sorting leaves the interpreter's lock alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from include.kernel.errors import DataRefused
from include.monitoring.core.profiles import CategoryProfile, Profile

STREAM_BATCH_ROWS = (
    1 << 16
)  # rows: a column of them is half a megabyte, and is sorted within the cache of the processor
CSV_BLOCK_BYTES = 1 << 23  # bytes of a CSV file parsed at once
THREADS = 2


def count_files(paths: Iterable[Path], baseline: Mapping[str, Profile]) -> dict[str, Profile]:
    """The files' rows, counted together. Raises `DataRefused` when a file is broken or lacks a column of the baseline.

    Integers, booleans and decimals count as numbers; null and NaN are missing.
    """
    profiles = {name: profile.count_values([]) for name, profile in baseline.items()}
    with ThreadPoolExecutor(THREADS) as threads:
        for path in paths:
            for batch_profiles in _count_batches(path, baseline, threads):
                profiles = {name: profiles[name] + counted for name, counted in batch_profiles.items()}
    return profiles


def _count_batches(path: Path, baseline: Mapping[str, Profile], threads: Executor) -> Iterator[dict[str, Profile]]:
    """The profiles of each batch of a file."""
    names = list(baseline)
    try:
        for batch in (_read_csv if path.suffix == ".csv" else _read_parquet)(path, names):
            counted = threads.map(_count_column, (batch.column(name) for name in names), baseline.values())
            yield dict(zip(names, counted, strict=True))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataRefused(f"{path} cannot be profiled ({error}); deliver it again with {', '.join(names)}.") from error


def _read_parquet(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
        if missing := sorted(set(names) - set(file.schema_arrow.names)):
            raise KeyError(f"no column {', '.join(missing)}")
        yield from file.iter_batches(STREAM_BATCH_ROWS, columns=names, use_threads=False)


def _read_csv(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    options = pa.csv.ConvertOptions(include_columns=names, strings_can_be_null=True)
    with pa.csv.open_csv(path, pa.csv.ReadOptions(block_size=CSV_BLOCK_BYTES), convert_options=options) as reader:
        yield from reader


def _count_column(column: pa.Array, profile: Profile) -> Profile:
    if isinstance(profile, CategoryProfile):
        counted = pc.value_counts(column.cast(pa.string()))
        return profile.build_from_counts({entry["values"]: entry["counts"] for entry in counted.to_pylist()})
    return profile.count_values(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
