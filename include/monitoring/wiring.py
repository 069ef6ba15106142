"""Where the monitor's reports lie, and what it watches, by the environment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from include.data.core.snapshots import select_visible
from include.data.wiring import open_snapshot_store, open_work_units
from include.kernel.environment import read_setting
from include.kernel.job import JobRequest
from include.monitoring.report_store import LocalReports
from include.monitoring.spec import MonitoringManifest
from include.registry.wiring import open_registry

if TYPE_CHECKING:
    from include.monitoring.monitored_model import MonitoredModel


def open_report_store() -> LocalReports:
    return LocalReports(Path(read_setting("EVERGREEN_STORE")))


def open_monitored_model(request: JobRequest, manifest: MonitoringManifest) -> MonitoredModel | str:
    """What is watched as of the request's day; a few words where there is nothing to measure yet.

    Param: `serving`, the version that the route leads to; without it, where nobody could tell, it is the champion.
    """
    from include.data.dataset import Dataset
    from include.model import artifact
    from include.monitoring import baselines
    from include.monitoring.monitored_model import MonitoredModel

    registry, store = open_registry(manifest.name), open_snapshot_store()
    version, days = (
        request.params.get("serving") or registry.find_champion(),
        select_visible(store.read_history(), request.as_of),
    )
    if version is None or not days:
        return "no version is live yet" if version is None else f"no day up to {request.as_of} is ingested"
    with tempfile.TemporaryDirectory() as scratch:
        place = registry.fetch(version, Path(scratch))
        digest, model = artifact.compute_digest(place), artifact.load(place)
        units, data = open_work_units(manifest.fan_out.keep_days), Dataset(store, manifest)
        return MonitoredModel(version, digest, model, baselines.read(place), manifest, data, units, tuple(days))
