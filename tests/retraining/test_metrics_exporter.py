"""What the exporter tells of a store."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from include.data.wiring import open_snapshot_store
from include.kernel.errors import ManifestInvalid
from include.kernel.ledger import Entry
from include.kernel.wiring import open_ledger
from include.metrics_exporter import build_registry
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.signals import Signal
from include.monitoring.wiring import open_report_store
from tests.job_world import publish

WHICH = {"check": "performance", "subject": "all", "measure": "auc", "version": "3"}


@pytest.fixture
def manifest(small):
    return small()


def report(version: str, alarm: bool = False, day: int = 20, **more: object) -> None:
    made = MonitorReport(as_of=date(2026, 8, day), version=version, alarm=alarm, verdict="", rows=300, moved={}, **more)
    open_report_store().write_report(made)


def enter(what: str, subject: str) -> None:
    count = len(open_ledger().read_lines())
    open_ledger().append(Entry(what=what, subject=subject, who="test", why="", key=f"{what}-{count}"))


def value(told: CollectorRegistry, metric: str, /, **labels: str) -> float | None:
    return told.get_sample_value(metric, labels)


def test_an_empty_store_tells_zeros_and_the_manifests_bounds(manifest):
    told = build_registry()
    assert value(told, "evergreen_ledger_entries_total", what="gate.refused") == 0
    assert value(told, "evergreen_bound", name="serving.objectives.p99_seconds") == 0.25
    assert value(told, "evergreen_drift_alarm", version="3") is None


def test_signals_come_with_interval_bound_and_severity(manifest):
    signal = Signal(
        check="performance", subject="all", measure="auc", value=0.6, low=0.5, threshold=0.65, severity="critical"
    )
    report("3", signals=(signal,))
    enter("release.live", "3")
    told = build_registry()
    assert value(told, "evergreen_signal", **WHICH) == 0.6
    assert value(told, "evergreen_signal_low", **WHICH) == 0.5
    assert value(told, "evergreen_signal_high", **WHICH) is None
    assert value(told, "evergreen_signal_threshold", **WHICH) == 0.65
    assert value(told, "evergreen_signal_severity", **WHICH) == 3


def test_only_the_live_version_is_told_of_so_that_an_alarm_ends_with_a_rollback(manifest):
    told = build_registry()
    report("3")
    report("4", alarm=True, day=21)
    enter("release.live", "4")
    assert value(told, "evergreen_drift_alarm", version="4") == 1
    enter("release.live", "3")
    assert value(told, "evergreen_drift_alarm", version="4") is None
    assert value(told, "evergreen_drift_alarm", version="3") == 0
    assert value(told, "evergreen_live_info", version="3") == 1


def test_entries_of_the_ledger_are_counted_by_kind_and_the_newest_day_is_told(manifest):
    for _ in range(2):
        enter("gate.refused", "run")
    publish(open_snapshot_store(), manifest, date(2026, 8, 1))
    told = build_registry()
    assert value(told, "evergreen_ledger_entries_total", what="gate.refused") == 2
    assert value(told, "evergreen_newest_day_seconds") == datetime(2026, 8, 1, tzinfo=UTC).timestamp()


def test_what_cannot_be_read_is_no_silence_but_an_error(manifest, monkeypatch, tmp_path):
    monkeypatch.setenv("EVERGREEN_MANIFEST", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ManifestInvalid, match="There is no manifest"):
        generate_latest(build_registry())
