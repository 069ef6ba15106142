"""What monitoring and the ledger say, for Prometheus: `python -m include.metrics_exporter` answers /metrics.

The model servers tell their own counts; this tells what jobs found, which are gone when they have found it. Everything
is read anew from the store when Prometheus asks: no state, no push, and a restart loses nothing. A pushgateway would
keep the numbers of a version that is not live any more; a text file would need an exporter of the machine beside it.

Signals are those of the live version's newest report, so that an alarm about a version that was rolled back ends. The
manifest's bounds stand beside them: alerts compare two metrics, and no rule repeats a number. What cannot be read makes
the answer an error, and that is an alert of its own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from include.data.wiring import open_snapshot_store
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger
from include.kernel.wiring import open_ledger
from include.kernel.words import ledger_kinds as kinds
from include.manifest import read_manifest
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.signals import SEVERITY_RANK, Signal
from include.monitoring.report_store import LocalReports
from include.monitoring.wiring import open_report_store
from include.retraining.spec import RetrainingManifest
from include.retraining.wait_conditions import find_live_version

if TYPE_CHECKING:
    from include.data.store.snapshot_store import SnapshotStore

PORT = 9108
SIGNAL_LABELS = ("check", "subject", "measure", "version")
# Zero is a sample too: without it Prometheus does not see the first one as an increase.
COUNTED_KINDS = (
    kinds.DATASET_REFUSED,
    kinds.DRIFT_DETECTED,
    kinds.GATE_INCONCLUSIVE,
    kinds.GATE_PASSED,
    kinds.GATE_REFUSED,
    kinds.MODEL_TRAINED,
    kinds.RELEASE_DONE,
    kinds.RELEASE_LIVE,
    kinds.RELEASE_REJECTED,
    kinds.RELEASE_REVERTED,
    kinds.RETRAINING_APPROVED,
    kinds.RETRAINING_DECLINED,
    kinds.ROLLBACK_WANTED,
)


class StoreCollector(Collector):
    """Signals of the newest report, entries of the ledger, the newest day and the manifest's bounds.

    `read` reads the manifest, at every asking: a bound that was changed holds at once.
    """

    def __init__(
        self,
        ledger: LocalLedger,
        reports: LocalReports,
        open_store: Callable[[], SnapshotStore],
        load_manifest: Callable[[], RetrainingManifest],
    ) -> None:
        self._ledger, self._reports, self._open_store, self._load_manifest = ledger, reports, open_store, load_manifest

    def describe(self) -> list[Metric]:
        return []  # nothing is read before somebody asks

    def collect(self) -> Iterator[Metric]:
        entries = list(self._ledger.read_entries())
        live = find_live_version(self._ledger)
        if live is not None and (report := self._reports.read_newest(live)) is not None:
            yield from _iterate_report_metrics(report)
        yield from _iterate_ledger_metrics(entries)
        yield from _iterate_store_metrics(self._open_store())
        yield _build_bounds(self._load_manifest())


def _iterate_report_metrics(report: MonitorReport) -> Iterator[Metric]:
    alarm = GaugeMetricFamily("evergreen_drift_alarm", "1 while a persistent drift is seen", labels=["version"])
    alarm.add_metric([report.version], float(report.alarm))
    rows = GaugeMetricFamily("evergreen_monitored_rows", "Rows of the newest window", labels=["version"])
    rows.add_metric([report.version], report.rows)
    day = GaugeMetricFamily("evergreen_monitored_day_seconds", "Newest day of the report, Unix", labels=["version"])
    day.add_metric([report.version], _convert_to_unix(report.as_of))
    yield from (alarm, rows, day)
    yield from _iterate_signal_metrics(report.signals, report.version)


def _iterate_signal_metrics(signals: Sequence[Signal], version: str) -> Iterator[Metric]:
    gauges = {
        "value": GaugeMetricFamily("evergreen_signal", "What was measured", labels=SIGNAL_LABELS),
        "low": GaugeMetricFamily("evergreen_signal_low", "Lower end of its interval", labels=SIGNAL_LABELS),
        "high": GaugeMetricFamily("evergreen_signal_high", "Upper end of its interval", labels=SIGNAL_LABELS),
        "threshold": GaugeMetricFamily(
            "evergreen_signal_threshold", "The manifest's bound of it", labels=SIGNAL_LABELS
        ),
    }
    graveness = GaugeMetricFamily(
        "evergreen_signal_severity", "0 ok, 1 unknown, 2 warning, 3 critical", labels=SIGNAL_LABELS
    )
    for measured in signals:
        label_values = [measured.check, measured.subject, measured.measure, version]
        graveness.add_metric(label_values, SEVERITY_RANK[measured.severity])
        for name, gauge in gauges.items():
            if (value := getattr(measured, name)) is not None:
                gauge.add_metric(label_values, value)
    yield from (*gauges.values(), graveness)


def _iterate_ledger_metrics(entries: Sequence[Entry]) -> Iterator[Metric]:
    counts = Counter(dict.fromkeys(COUNTED_KINDS, 0))
    counts.update(entry.what for entry in entries)
    counter = CounterMetricFamily("evergreen_ledger_entries", "Decisions and events by their kind", labels=["what"])
    for what, count in sorted(counts.items()):
        counter.add_metric([what], count)
    yield counter
    live = GaugeMetricFamily("evergreen_live_info", "1 for the version that is live", labels=["version"])
    if version := next((entry.subject for entry in reversed(entries) if entry.what == kinds.RELEASE_LIVE), None):
        live.add_metric([version], 1)
    yield live


def _iterate_store_metrics(store: SnapshotStore) -> Iterator[Metric]:
    newest = store.find_newest_day()
    if newest is not None:
        yield GaugeMetricFamily("evergreen_newest_day_seconds", "Newest validated day, Unix", _convert_to_unix(newest))


def _build_bounds(manifest: RetrainingManifest) -> Metric:
    objectives = manifest.serving.objectives
    bounds = GaugeMetricFamily("evergreen_bound", "Numbers of the manifest that alerts compare with", labels=["name"])
    for name, value in {
        "serving.objectives.availability": objectives.availability,
        "serving.objectives.error_rate": objectives.error_rate,
        "serving.objectives.p95_seconds": objectives.p95_ms / 1000,
        "serving.objectives.p99_seconds": objectives.p99_ms / 1000,
        "serving.queue_rows": manifest.serving.queue_rows,
        "retraining.monthly_budget": manifest.retraining.monthly_budget,
        "retraining.breaker_refusals": manifest.retraining.breaker_refusals,
    }.items():
        bounds.add_metric([name], value)
    return bounds


def _convert_to_unix(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def build_registry() -> CollectorRegistry:
    """Of the stores that the environment names."""
    registry = CollectorRegistry()
    registry.register(StoreCollector(open_ledger(), open_report_store(), open_snapshot_store, read_manifest))
    return registry


def main() -> None:
    """Serves on EVERGREEN_EXPORTER_HOST and EVERGREEN_EXPORTER_PORT until it is told to end."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    host = os.environ.get("EVERGREEN_EXPORTER_HOST", "127.0.0.1")
    port = int(os.environ.get("EVERGREEN_EXPORTER_PORT", PORT))
    server, thread = start_http_server(port, host, build_registry())
    stopped.wait()
    server.shutdown()
    thread.join()


if __name__ == "__main__":
    main()
