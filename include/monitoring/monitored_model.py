"""The live version as it is watched: its model, its own baseline, and the days it is measured on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from include import factory
from include.data.core.snapshots import Snapshot, visible
from include.kernel.job import JobRequest
from include.model import artifact
from include.model.artifact import Model
from include.monitoring import baselines
from include.monitoring.baselines import Baseline
from include.monitoring.spec import MonitoringManifest


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
    registry = factory.registry()
    version, days = registry.champion(), visible(factory.store().history(), request.as_of)
    if version is None or not days:
        return "no version is live yet" if version is None else f"no day up to {request.as_of} is ingested"
    with tempfile.TemporaryDirectory() as scratch:
        place = registry.fetch(version, Path(scratch))
        digest, model = artifact.digest(place), artifact.load(place)
        return Watched(version, digest, model, baselines.read(place), manifest, tuple(days))
