"""Measures the ingested days against the live version's own baseline and writes one report.

Windows are derived from the stored days each time, so persistence needs no memory: the last n windows end at the last n
ingested days. Matured labels are scored too, where there are any.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

import numpy as np

from include.adapters import factory
from include.core import drift
from include.core import statistics as st
from include.core.episodes import MonitorReport
from include.core.job import JobRequest, JobResult
from include.core.manifest import Manifest
from include.core.snapshots import Snapshot, mature, visible
from include.jobs import dataset
from include.jobs.dataset import SCORE
from include.jobs.monitor_page import page
from include.model import artifact
from include.model.artifact import Model

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: Manifest) -> JobResult:
    """Verdict `no` when there is nothing to measure yet: no live model or no ingested day."""
    registry = factory.registry()
    version, days = registry.champion(), visible(factory.store().history(), request.as_of)
    if version is None or not days:
        missing = "no version is live yet" if version is None else f"no day up to {request.as_of} is ingested"
        return JobResult(job="monitor", run_key=request.run_key, verdict="no", summary=f"{missing}; nothing to measure")
    with tempfile.TemporaryDirectory() as scratch:
        place = registry.fetch(version, Path(scratch))
        model, baseline = artifact.load(place), _baseline(place)
    windows = _windows(days, model, baseline, manifest)
    report = _report(version, windows, _quality(days, request, model, manifest), manifest)
    report = _publish(report, windows)
    log.info(report.sentence)
    outputs = report.model_dump(mode="json")
    return JobResult(job="monitor", run_key=request.run_key, summary=report.sentence, outputs=outputs)


def _baseline(place: Path) -> dict[str, drift.Profile]:
    content = json.loads((place / "baseline.json").read_text())
    return {name: drift.Profile.from_dict(profile) for name, profile in content.items()}


def _windows(
    days: list[Snapshot], model: Model, baseline: dict[str, drift.Profile], manifest: Manifest
) -> list[drift.Window]:
    spec = manifest.monitor
    ends = range(max(len(days) - spec.persistence.n, 0), len(days))
    return [_window(days[max(0, end + 1 - spec.window_days) : end + 1], model, baseline, manifest) for end in ends]


def _window(days: list[Snapshot], model: Model, baseline: dict[str, drift.Profile], manifest: Manifest) -> drift.Window:
    rows = dataset.load(manifest, days, model.meta.columns)
    current = {c.name: baseline[c.name].of(rows.inputs[c.name].tolist()) for c in model.meta.columns}
    current[SCORE] = baseline[SCORE].of(model.predict_frame(rows.inputs).tolist())
    return drift.compare(days[-1].day, baseline, current, manifest.monitor)


def _quality(
    days: list[Snapshot], request: JobRequest, model: Model, manifest: Manifest
) -> tuple[st.Interval, int] | None:
    """AUC on the newest window of days whose labels are known, with the number of rows."""
    known = mature(days, min(request.as_of, days[-1].day), manifest.label)[-manifest.monitor.window_days :]
    if not known:
        return None
    rows = dataset.load(manifest, known, model.meta.columns)
    if len(np.unique(rows.truth)) < 2:
        return None
    weight = st.weights(len(rows.truth), 400, manifest.gate.seed)
    found = st.interval(st.auc(rows.truth, model.predict_frame(rows.inputs), weight), manifest.gate.confidence)
    return found, len(rows.truth)


def _report(
    version: str, windows: list[drift.Window], quality: tuple[st.Interval, int] | None, manifest: Manifest
) -> MonitorReport:
    newest = windows[-1]
    found, rows = quality or (None, 0)
    return MonitorReport(
        as_of=newest.last,
        version=version,
        alarm=drift.alarm(windows, manifest.monitor),
        verdict=newest.verdict,
        rows=newest.rows,
        moved={f.feature: round(f.psi, 4) for f in newest.features if f.moved},
        auc=found.value if found else None,
        auc_low=found.low if found else None,
        auc_high=found.high if found else None,
        auc_rows=rows,
    )


def _publish(report: MonitorReport, windows: list[drift.Window]) -> MonitorReport:
    kept = factory.reports()
    place = kept.report_page(report.version, report.as_of)
    report = report.model_copy(update={"page": str(place)})
    kept.write_page(place, page(report, windows))
    kept.write_report(report)
    return report
