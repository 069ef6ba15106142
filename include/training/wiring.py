"""Where trainings keep what is under way, and backtests their folds, by the environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from include.data.core.snapshots import split
from include.data.wiring import open_snapshot_store, open_work_units
from include.kernel.environment import read_setting
from include.kernel.job import JobRequest
from include.training.backtest_store import LocalBacktests
from include.training.spec import TrainingManifest

if TYPE_CHECKING:
    from include.training.training_plan import Training


def plan_training(request: JobRequest, manifest: TrainingManifest) -> Training:
    """What a request trains, and on what. Param: `columns`. Raises `NotEnoughData`, `RequestInvalid`."""
    from include.data.dataset import Dataset
    from include.training.training_plan import Training, choose_columns

    store = open_snapshot_store()
    return Training(
        request=request,
        dataset=Dataset(store, manifest),
        manifest=manifest,
        days=split(store.read_history(), request.as_of, manifest.label, manifest.train),
        inputs=choose_columns(request, manifest),
        units=open_work_units(manifest.fan_out.keep_days),
        journals=find_studies(),
    )


def find_studies() -> Path:
    """Where the studies of trainings that are under way keep their trials."""
    return Path(read_setting("EVERGREEN_STORE")) / "studies"


def open_backtest_store(manifest_digest: str) -> LocalBacktests:
    """The folds of one manifest."""
    return LocalBacktests(Path(read_setting("EVERGREEN_STORE")), manifest_digest)
