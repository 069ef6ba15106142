"""What tests open by hand: a test stands at an edge, as a job's entry does, and so reads the manifest in force."""

from __future__ import annotations

from include.alerting.outbox import Outbox
from include.alerting.wiring import open_outbox
from include.data.store.work_units import WorkUnitStore
from include.data.wiring import find_data_docs, find_work_room, open_job_results, open_snapshot_store, open_work_units
from include.feedback.wiring import open_segments
from include.kernel.wiring import open_ledger
from include.manifest import Manifest, read_manifest
from include.monitoring.wiring import open_report_store
from include.registry.mlflow_registry import MlflowRegistry
from include.registry.wiring import open_registry
from include.release import wiring as release
from include.release.service.driver import ReleaseDriver
from include.release.service.reconciler import Reconciler
from include.release.targets.base import ServingTarget
from include.scoring.wiring import open_score_store
from include.training import wiring as training
from include.training.backtest_store import LocalBacktests

data_docs, work_room, studies = find_data_docs, find_work_room, training.find_studies
store, results, segments, scores = open_snapshot_store, open_job_results, open_segments, open_score_store
ledger, reports = open_ledger, open_report_store


def manifest() -> Manifest:
    return read_manifest()


def registry(uri: str | None = None) -> MlflowRegistry:
    return open_registry(manifest().name, uri)


def pieces() -> WorkUnitStore:
    return open_work_units(manifest().fan_out.keep_days)


def backtests() -> LocalBacktests:
    return training.open_backtest_store(manifest().digest)


def outbox() -> Outbox:
    return open_outbox(manifest())


def target() -> ServingTarget:
    return release.open_target(manifest())


def rollout(known: MlflowRegistry | None = None) -> ReleaseDriver:
    return release.open_driver(manifest(), known or registry())


def reconciler(known: MlflowRegistry | None = None, at_once: bool = False) -> Reconciler:
    return release.open_reconciler(manifest(), known or registry(), at_once)
