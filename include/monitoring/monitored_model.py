"""The live version as it is watched: its model, its own baseline, and the days it is measured on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from include.data.core.snapshots import Snapshot, visible
from include.data.dataset import Dataset
from include.data.store.work_units import Pieces
from include.data.wiring import open_snapshot_store, open_work_units
from include.kernel.job import JobRequest
from include.model import artifact
from include.model.artifact import Model
from include.monitoring import baselines
from include.monitoring.baselines import Baseline
from include.monitoring.spec import MonitoringManifest
from include.registry.wiring import open_registry


@dataclass(frozen=True)
class Watched:
    """The live version, what it was judged on, the bounds it is held to, and the ingested days, oldest first.

    `digest` is that of the artifact, which holds the baseline: it names everything a measurement depends on but the
    rows and the code.
    """

    version: str
    digest: str
    model: Model
    baseline: Baseline
    manifest: MonitoringManifest
    dataset: Dataset
    units: Pieces  # what days measured, by whoever measured them
    days: tuple[Snapshot, ...]

    @property
    def windows(self) -> list[tuple[Snapshot, ...]]:
        """The days of each of the last windows, oldest first; windows overlap."""
        spec, days = self.manifest.monitor, self.days
        ends = range(max(len(days) - spec.persistence.n, 0), len(days))
        return [days[max(0, end + 1 - spec.window_days) : end + 1] for end in ends]

    @property
    def measured_days(self) -> tuple[Snapshot, ...]:
        """The days of all windows, each once."""
        return self.days[self.days.index(self.windows[0][0]) :]


def watched(request: JobRequest, manifest: MonitoringManifest) -> Watched | str:
    """What is watched as of the request's day; a few words where there is nothing to measure yet."""
    registry, store = open_registry(manifest.name), open_snapshot_store()
    version, days = registry.champion(), visible(store.history(), request.as_of)
    if version is None or not days:
        return "no version is live yet" if version is None else f"no day up to {request.as_of} is ingested"
    with tempfile.TemporaryDirectory() as scratch:
        place = registry.fetch(version, Path(scratch))
        digest, model = artifact.digest(place), artifact.load(place)
        units, data = open_work_units(manifest.fan_out.keep_days), Dataset(store, manifest)
        return Watched(version, digest, model, baselines.read(place), manifest, data, units, tuple(days))
