"""The live version as it is watched: its model, its own baseline, and the days it is measured on."""

from dataclasses import dataclass

from include.data.core.snapshots import Snapshot
from include.data.dataset import Dataset
from include.data.store.work_units import WorkUnitStore
from include.model.artifact import Model
from include.monitoring.baselines import Baseline
from include.monitoring.spec import MonitoringManifest


@dataclass(frozen=True)
class MonitoredModel:
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
    units: WorkUnitStore  # what days measured, by whoever measured them
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
