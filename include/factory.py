"""Gone soon: each slice has a `wiring` of its own, and what it opens is passed in."""

from __future__ import annotations

from typing import Any

from include.alerting import wiring as alerting_wiring
from include.data.wiring import find_data_docs as data_docs
from include.data.wiring import find_work_room as work_room
from include.data.wiring import has_snapshots, open_work_units
from include.data.wiring import open_job_results as results
from include.data.wiring import open_snapshot_store as store
from include.feedback.wiring import open_segments as segments
from include.kernel.environment import ROOT
from include.kernel.environment import read_setting as setting
from include.kernel.wiring import open_ledger as ledger
from include.manifest import read_manifest as manifest
from include.monitoring.wiring import open_report_store as reports
from include.registry import wiring as registry_wiring
from include.release import wiring as release_wiring
from include.scoring.wiring import find_served_artifact as served_artifact
from include.scoring.wiring import open_score_store as scores
from include.training import wiring as training_wiring
from include.training.wiring import find_studies as studies

__all__ = [
    "ROOT",
    "data_docs",
    "has_snapshots",
    "ledger",
    "manifest",
    "reports",
    "results",
    "scores",
    "segments",
    "served_artifact",
    "setting",
    "store",
    "studies",
    "work_room",
]


def registry(uri: str | None = None) -> Any:
    return registry_wiring.open_registry(manifest().name, uri)


def pieces() -> Any:
    return open_work_units(manifest().fan_out.keep_days)


def backtests() -> Any:
    return training_wiring.open_backtest_store(manifest().digest)


def outbox() -> Any:
    return alerting_wiring.open_outbox(manifest())


def target() -> Any:
    return release_wiring.open_target(manifest())


def upkeep() -> Any:
    return release_wiring.open_repair(manifest())


def rollout(known_registry: Any = None) -> Any:
    return release_wiring.open_driver(manifest(), known_registry or registry())


def reconciler(known_registry: Any = None, at_once: bool = False) -> Any:
    return release_wiring.open_reconciler(manifest(), known_registry or registry(), at_once)


def experiment_outcomes() -> Any:
    return release_wiring.open_experiment_outcomes(manifest())
