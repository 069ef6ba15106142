"""Measures the ingested days against the live version's own baseline and writes one report.

Windows are derived from the stored days each time, so persistence needs no memory: the last n windows end at the last n
ingested days, and each is the sum of its days, of which every one is measured once (include.monitoring.jobs.profile).
Matured labels are scored too, where there are any. A column that the days no longer deliver is a signal and no failure:
the others are measured without it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from include.alerting.wiring import open_outbox
from include.data.core.snapshots import Snapshot, filter_matured
from include.feedback.wiring import open_segments
from include.kernel.inference import statistics as st
from include.kernel.job import JobRequest, JobResult
from include.monitoring import drift_report, outcomes
from include.monitoring.core import drift, performance
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.signals import Signal
from include.monitoring.jobs import profile
from include.monitoring.monitor_page import PICTURE_SUFFIX, render_monitor_page
from include.monitoring.monitored_model import MonitoredModel
from include.monitoring.report_store import LocalReports
from include.monitoring.spec import MonitoringManifest
from include.monitoring.wiring import open_monitored_model, open_report_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaturedScores:
    """The newest window of days whose labels are known: truth (n,) of 0 and 1, and scores (n,)."""

    truth: st.Floats
    scores: st.Floats


def run(request: JobRequest, manifest: MonitoringManifest) -> JobResult:
    """Verdict `no` when there is nothing to measure yet: no live model or no ingested day."""
    monitored = open_monitored_model(request, manifest)
    if isinstance(monitored, str):
        summary = f"{monitored}; nothing to measure"
        return JobResult(job="monitor", run_key=request.run_key, verdict="no", summary=summary)
    days = list(monitored.days)
    windows = [_compare_window(window, monitored) for window in monitored.windows]
    report = _build_report(
        monitored, windows, _score_matured(days, request, monitored), _check_outcomes(days, request, monitored)
    )
    report = _publish(report, windows, monitored, open_report_store())
    monitored.units.sweep(profile.KIND, days[-1].day)
    log.info(report.sentence)
    outputs = report.model_dump(mode="json")
    return JobResult(job="monitor", run_key=request.run_key, summary=report.sentence, outputs=outputs)


def _compare_window(days: Sequence[Snapshot], monitored: MonitoredModel) -> drift.Window:
    before, threshold = monitored.baseline.profile, monitored.model.meta.threshold
    return drift.compare_window(
        days[-1].day, before, profile.measure_days(days, monitored), threshold, monitored.manifest.monitor
    )


def _score_matured(days: list[Snapshot], request: JobRequest, monitored: MonitoredModel) -> MaturedScores | None:
    """None where no label is known yet, or a day lacks an input."""
    manifest, columns = monitored.manifest, monitored.model.meta.columns
    matured_days = filter_matured(days, min(request.as_of, days[-1].day), manifest.label)[
        -manifest.monitor.window_days :
    ]
    if not matured_days or any(column.name not in day.columns for column in columns for day in matured_days):
        return None
    rows = monitored.dataset.read(matured_days, columns)
    return MaturedScores(rows.truth, monitored.model.predict_frame(rows.inputs))


def _check_outcomes(days: list[Snapshot], request: JobRequest, monitored: MonitoredModel) -> list[Signal]:
    """What became of the decisions, as far as it is known."""
    manifest = monitored.manifest
    matured_days = filter_matured(days, min(request.as_of, days[-1].day), manifest.label)
    window = days[-manifest.monitor.window_days :]
    return outcomes.check_outcomes(monitored, matured_days, window, open_segments)


def _estimate_auc(matured: MaturedScores | None, manifest: MonitoringManifest) -> dict[str, float]:
    if matured is None or len(np.unique(matured.truth)) < 2:
        return {}
    weight = st.draw_bootstrap_weights(len(matured.truth), 400, manifest.gate.seed)
    area = st.compute_percentile_interval(
        st.compute_auc(matured.truth, matured.scores, weight), manifest.gate.confidence
    )
    return {"auc": area.value, "auc_low": area.low, "auc_high": area.high, "auc_rows": len(matured.truth)}


def _check_labels(monitored: MonitoredModel, matured: MaturedScores | None) -> list[Signal]:
    """`unknown` while no label is."""
    manifest, nothing = monitored.manifest, np.empty(0)
    truth, scores = (matured.truth, matured.scores) if matured else (nothing, nothing)
    return drift.detect_label_drift(monitored.baseline.labels, truth, scores, manifest.monitor, manifest.gate.seed)


def _build_report(
    monitored: MonitoredModel,
    windows: Sequence[drift.Window],
    matured: MaturedScores | None,
    outcome_signals: Sequence[Signal],
) -> MonitorReport:
    newest = windows[-1]
    return MonitorReport.model_validate(
        {
            "as_of": newest.last,
            "version": monitored.version,
            "alarm": drift.should_alarm(windows, monitored.manifest.monitor) or performance.has_alarm(outcome_signals),
            "verdict": newest.verdict,
            "rows": newest.rows,
            "moved": {name: round(psi, 4) for name, psi in newest.moved.items()},
            "untold": open_outbox(monitored.manifest).list_untold(),
            "signals": (*newest.signals, *_check_labels(monitored, matured), *outcome_signals),
            **_estimate_auc(matured, monitored.manifest),
        }
    )


def _publish(
    report: MonitorReport, windows: list[drift.Window], monitored: MonitoredModel, store: LocalReports
) -> MonitorReport:
    """The report last: who is killed before it finds nothing there and draws all of it again."""
    path = store.locate_page(report.version, report.as_of)
    report = report.model_copy(update={"page": str(path)})
    if report.alarm and not _is_known_alarm(report, store):
        _draw_picture(path.with_suffix(PICTURE_SUFFIX), monitored, store)
    store.write_page(path, render_monitor_page(report, windows, monitored.manifest.monitor))
    store.write_report(report)
    return report


def _is_known_alarm(report: MonitorReport, store: LocalReports) -> bool:
    """Whether the alarm stood in the newest report before: an alarm is drawn once."""
    newest = store.read_newest(report.version)
    return newest is not None and newest.alarm


def _draw_picture(path: Path, monitored: MonitoredModel, store: LocalReports) -> None:
    manifest, current = monitored.manifest, profile.measure_days(monitored.windows[-1], monitored)
    if html := drift_report.render_drift_report(
        monitored.baseline.profile, current, manifest.monitor, manifest.gate.seed
    ):
        store.write_page(path, html)
