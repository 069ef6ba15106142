"""Measures the ingested days against the live version's own baseline and writes one report.

Windows are derived from the stored days each time, so persistence needs no memory: the last n windows end at the last n
ingested days, and each is the sum of its days, of which every one is measured once (include.monitoring.jobs.profile).
Matured labels are scored too, where there are any. A column that the days no longer deliver is a signal and no failure:
the others are measured without it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from include.data.core.snapshots import Snapshot, mature
from include.feedback.wiring import open_segments
from include.kernel.inference import statistics as st
from include.kernel.job import JobRequest, JobResult
from include.monitoring import drift_report, outcomes
from include.monitoring.core import drift, performance
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.signals import Signal
from include.monitoring.jobs import profile
from include.monitoring.monitor_page import PICTURE, page
from include.monitoring.monitored_model import Watched
from include.monitoring.report_store import LocalReports
from include.monitoring.spec import MonitoringManifest
from include.monitoring.wiring import open_monitored_model, open_report_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Matured:
    """The newest window of days whose labels are known: truth (n,) of 0 and 1, and scores (n,)."""

    truth: st.Floats
    scores: st.Floats


def run(request: JobRequest, manifest: MonitoringManifest) -> JobResult:
    """Verdict `no` when there is nothing to measure yet: no live model or no ingested day."""
    found = open_monitored_model(request, manifest)
    if isinstance(found, str):
        summary = f"{found}; nothing to measure"
        return JobResult(job="monitor", run_key=request.run_key, verdict="no", summary=summary)
    days = list(found.days)
    windows = [_window(window, found) for window in found.windows]
    report = _report(found, windows, _matured(days, request, found), _outcomes(days, request, found))
    report = _publish(report, windows, found, open_report_store())
    found.units.sweep(profile.KIND, days[-1].day)
    log.info(report.sentence)
    outputs = report.model_dump(mode="json")
    return JobResult(job="monitor", run_key=request.run_key, summary=report.sentence, outputs=outputs)


def _window(days: Sequence[Snapshot], watched: Watched) -> drift.Window:
    before, threshold = watched.baseline.measured, watched.model.meta.threshold
    return drift.compare(days[-1].day, before, profile.of_days(days, watched), threshold, watched.manifest.monitor)


def _matured(days: list[Snapshot], request: JobRequest, watched: Watched) -> Matured | None:
    """None where no label is known yet, or a day lacks an input."""
    manifest, columns = watched.manifest, watched.model.meta.columns
    known = mature(days, min(request.as_of, days[-1].day), manifest.label)[-manifest.monitor.window_days :]
    if not known or any(column.name not in day.columns for column in columns for day in known):
        return None
    rows = watched.dataset.read(known, columns)
    return Matured(rows.truth, watched.model.predict_frame(rows.inputs))


def _outcomes(days: list[Snapshot], request: JobRequest, watched: Watched) -> list[Signal]:
    """What became of the decisions, as far as it is known."""
    manifest = watched.manifest
    known = mature(days, min(request.as_of, days[-1].day), manifest.label)
    window = days[-manifest.monitor.window_days :]
    return outcomes.signals(watched, known, window, open_segments)


def _auc(matured: Matured | None, manifest: MonitoringManifest) -> dict[str, float]:
    if matured is None or len(np.unique(matured.truth)) < 2:
        return {}
    weight = st.weights(len(matured.truth), 400, manifest.gate.seed)
    found = st.interval(st.auc(matured.truth, matured.scores, weight), manifest.gate.confidence)
    return {"auc": found.value, "auc_low": found.low, "auc_high": found.high, "auc_rows": len(matured.truth)}


def _labels(watched: Watched, matured: Matured | None) -> list[Signal]:
    """`unknown` while no label is."""
    manifest, nothing = watched.manifest, np.empty(0)
    truth, scores = (matured.truth, matured.scores) if matured else (nothing, nothing)
    return drift.label_drift(watched.baseline.labels, truth, scores, manifest.monitor, manifest.gate.seed)


def _report(
    watched: Watched, windows: Sequence[drift.Window], matured: Matured | None, judged: Sequence[Signal]
) -> MonitorReport:
    newest = windows[-1]
    return MonitorReport.model_validate(
        {
            "as_of": newest.last,
            "version": watched.version,
            "alarm": drift.alarm(windows, watched.manifest.monitor) or performance.alarming(judged),
            "verdict": newest.verdict,
            "rows": newest.rows,
            "moved": {name: round(psi, 4) for name, psi in newest.moved.items()},
            "signals": (*newest.signals, *_labels(watched, matured), *judged),
            **_auc(matured, watched.manifest),
        }
    )


def _publish(report: MonitorReport, windows: list[drift.Window], watched: Watched, kept: LocalReports) -> MonitorReport:
    """The report last: who is killed before it finds nothing there and draws all of it again."""
    place = kept.report_page(report.version, report.as_of)
    report = report.model_copy(update={"page": str(place)})
    if report.alarm and not _known(report, kept):
        _picture(place.with_suffix(PICTURE), watched, kept)
    kept.write_page(place, page(report, windows, watched.manifest.monitor))
    kept.write_report(report)
    return report


def _known(report: MonitorReport, kept: LocalReports) -> bool:
    """Whether the alarm stood in the newest report before: an alarm is drawn once."""
    newest = kept.newest(report.version)
    return newest is not None and newest.alarm


def _picture(place: Path, watched: Watched, kept: LocalReports) -> None:
    manifest, current = watched.manifest, profile.of_days(watched.windows[-1], watched)
    if html := drift_report.report(watched.baseline.measured, current, manifest.monitor, manifest.gate.seed):
        kept.write_page(place, html)
