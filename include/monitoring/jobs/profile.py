"""Measures days against the live version's baseline, each day once: one of several mapped tasks, and the monitor's way.

What a day measures is a piece: the monitor asks for those of its windows, adds them up, and makes what is missing. So
an hourly monitor reads the rows of a day that is new, or of all days after a release, and otherwise a few kilobytes
each. A day is read in batches of a fixed number of rows: memory does not grow with the day, and the sums of floats do
not depend on who makes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path

import pandas as pd

from include.data.core.snapshots import Snapshot
from include.data.store.content import parquet
from include.kernel import work_units
from include.kernel.code_digest import PROFILING, digest_code
from include.kernel.job import JobRequest, JobResult
from include.model.schema import Column, conform
from include.monitoring.core.drift import Measured
from include.monitoring.monitored_model import Watched
from include.monitoring.spec import MonitoringManifest
from include.monitoring.wiring import open_monitored_model

KIND = "profiles"
BATCH_ROWS = 32_768


def run(request: JobRequest, manifest: MonitoringManifest) -> JobResult:
    """Params: `shard` of `shards`. Verdict `no` when there is nothing to measure yet."""
    shard, found = work_units.asked(request), open_monitored_model(request, manifest)
    if isinstance(found, str):
        summary = f"{found}; nothing to measure"
        return JobResult(job="profile", run_key=request.run_key, verdict="no", summary=summary)
    mine = shard.share(found.measured_days)
    rows = sum(of_day(day, found).rows for day in mine)
    summary = f"{shard}: {rows} rows of {len(mine)} days against version {found.version}"
    outputs = {"version": found.version, "days": [str(day.day) for day in mine], "rows": rows}
    return JobResult(job="profile", run_key=request.run_key, summary=summary, outputs=outputs)


def of_days(days: Sequence[Snapshot], found: Watched) -> Measured:
    """All of these days, one or more, as if they had been measured at once."""
    return reduce(add, (of_day(day, found) for day in days))


def of_day(day: Snapshot, found: Watched) -> Measured:
    """What one day measures, read or made. Raises `DataRefused` when its rows are damaged."""
    piece = work_units.piece(KIND, day.day, day.id, found.digest, digest_code(*PROFILING))
    return found.baseline.unpack(found.units.get(piece, lambda: found.baseline.pack(_measured(day, found))))


def _measured(day: Snapshot, found: Watched) -> Measured:
    """Of the columns the day has; without one of the model's inputs there are no scores."""
    columns = found.model.meta.columns
    delivered = tuple(column for column in columns if column.name in day.columns)
    model = found.model if delivered == columns else None
    batches = _batches(found.dataset.store.file(day), delivered) if delivered else iter([pd.DataFrame()])
    return reduce(add, (found.baseline.of(batch, model) for batch in batches))


def _batches(path: Path, columns: tuple[Column, ...]) -> Iterator[pd.DataFrame]:
    with parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=[column.name for column in columns], use_threads=False):
            yield conform(batch.to_pandas(), columns)
