"""Measures days against the live version's baseline, each day once: one of several mapped tasks, and the monitor's way.

What a day measures is a work unit: the monitor asks for those of its windows, adds them up, makes what is missing. So
an hourly monitor reads the rows of a day that is new, or of all days after a release, and otherwise a few kilobytes
each. A day is read in batches of a fixed number of rows: memory does not grow with the day, and the sums of floats do
not depend on who makes them.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path

import pandas as pd

from include.data.core.snapshots import Snapshot
from include.data.store.content import open_parquet
from include.kernel import work_units
from include.kernel.code_digest import PROFILING, compute_code_digest
from include.kernel.job import JobRequest, JobResult
from include.model.schema import Column, conform
from include.monitoring.core.drift import TableProfile
from include.monitoring.monitored_model import MonitoredModel
from include.monitoring.spec import MonitoringManifest
from include.monitoring.wiring import open_monitored_model

KIND = "profiles"
BATCH_ROWS = 32_768


def run(request: JobRequest, manifest: MonitoringManifest) -> JobResult:
    """Params: `shard` of `shards`. Verdict `no` when there is nothing to measure yet."""
    shard, monitored = work_units.read_shard(request), open_monitored_model(request, manifest)
    if isinstance(monitored, str):
        summary = f"{monitored}; nothing to measure"
        return JobResult(job="profile", run_key=request.run_key, verdict="no", summary=summary)
    shard_days = shard.select_share(monitored.measured_days)
    rows = sum(measure_day(day, monitored).rows for day in shard_days)
    summary = f"{shard}: {rows} rows of {len(shard_days)} days against version {monitored.version}"
    outputs = {"version": monitored.version, "days": [str(day.day) for day in shard_days], "rows": rows}
    return JobResult(job="profile", run_key=request.run_key, summary=summary, outputs=outputs)


def measure_days(days: Sequence[Snapshot], monitored: MonitoredModel) -> TableProfile:
    """All of these days, one or more, as if they had been measured at once."""
    return reduce(add, (measure_day(day, monitored) for day in days))


def measure_day(day: Snapshot, monitored: MonitoredModel) -> TableProfile:
    """What one day measures, read or made. Raises `DataRefused` when its rows are damaged."""
    unit = work_units.build_work_unit(KIND, day.day, day.id, monitored.digest, compute_code_digest(*PROFILING))
    return monitored.baseline.unpack(
        monitored.units.get_or_make(unit, lambda: monitored.baseline.pack(_measure_rows(day, monitored)))
    )


def _measure_rows(day: Snapshot, monitored: MonitoredModel) -> TableProfile:
    """Of the columns the day has; without one of the model's inputs there are no scores."""
    columns = monitored.model.meta.columns
    delivered = tuple(column for column in columns if column.name in day.columns)
    model = monitored.model if delivered == columns else None
    batches = _read_batches(monitored.dataset.store.fetch_file(day), delivered) if delivered else iter([pd.DataFrame()])
    return reduce(add, (monitored.baseline.measure(batch, model) for batch in batches))


def _read_batches(path: Path, columns: tuple[Column, ...]) -> Iterator[pd.DataFrame]:
    with open_parquet(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=[column.name for column in columns], use_threads=False):
            yield conform(batch.to_pandas(), columns)
