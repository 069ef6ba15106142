"""What became of the live version's decisions: its performance signals, from matured days and the prediction log.

Beside the monitor and apart from drift, since it needs labels or callers and drift needs neither. Only days from the
version's holdout on are looked at: on the rows it was fitted on it is better than it will ever be again.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from include import factory
from include.data import dataset
from include.data.core.snapshots import Snapshot
from include.feedback.core.prediction_records import Served
from include.gate import evidence
from include.kernel.errors import EvergreenError
from include.model.artifact import Model
from include.monitoring.baselines import Baseline
from include.monitoring.core import performance
from include.monitoring.core.performance import Matured
from include.monitoring.core.signals import Signal
from include.monitoring.spec import MonitoringManifest

log = logging.getLogger(__name__)
Days = Sequence[Snapshot]


def signals(
    version: str, model: Model, baseline: Baseline, known: Days, window: Days, manifest: MonitoringManifest
) -> list[Signal]:
    """`known` are the days whose labels have matured, `window` the newest ingested ones, both oldest first."""
    since = baseline.since or date.min
    names = {column.name for column in model.meta.columns}
    spec, threshold = manifest.monitor, model.meta.threshold
    judged = [day for day in known if day.day >= since and names <= {*day.columns}][-spec.performance.concept_days :]
    found = _matured(judged, model, manifest)
    newest = found.last(spec.window_days)
    return [
        *performance.performance(baseline.decisions, newest, threshold, manifest),
        *performance.concept(found, threshold, spec),
        *_estimated(window, model, baseline, manifest),
        *performance.reconciled(newest, threshold, spec),
        *_fairness(judged[-spec.window_days :], model, newest, manifest),
        *performance.business(newest, manifest.gate, spec),
        *performance.service(_served(version, manifest), manifest.serving.objectives, spec),
    ]


def _matured(days: Days, model: Model, manifest: MonitoringManifest) -> Matured:
    """Day by day, so that no more than one day's inputs is held."""
    truth, scores, place = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for number, day in enumerate(days):
        rows = dataset.load(manifest, [day], model.meta.columns)
        truth.append(rows.truth)
        scores.append(model.predict_frame(rows.inputs))
        place.append(np.full(len(rows.truth), float(number)))
    named = tuple(day.day for day in days)
    return Matured(np.concatenate(truth), np.concatenate(scores), np.concatenate(place), named)


def _estimated(window: Days, model: Model, baseline: Baseline, manifest: MonitoringManifest) -> list[Signal]:
    names = {column.name for column in model.meta.columns}
    if any(not names <= {*day.columns} for day in window):
        return performance.unknown("estimated_performance", "accuracy")
    scores = model.predict_frame(dataset.load(manifest, window, model.meta.columns).inputs)
    return performance.estimated(baseline.decisions, scores, model.meta.threshold, manifest)


def _fairness(days: Days, model: Model, newest: Matured, manifest: MonitoringManifest) -> Iterator[Signal]:
    """Groups are read off the rows again, since a model may not have their columns among its inputs."""
    protected = manifest.groups.protected
    if not days or any(not {*protected} <= {*day.columns} for day in days):
        yield from performance.unknown("fairness", "parity_ratio")
        return
    rows = dataset.load(manifest, days, dataset.columns(manifest))
    yield from performance.fairness(newest, evidence.groups(rows.inputs, manifest.groups, protected), manifest.gate)


def _served(version: str, manifest: MonitoringManifest) -> Served | None:
    """The newest days of the prediction log, by its own calendar. A log that cannot be read stops no monitoring."""
    if not manifest.serving.log.enabled:
        return None
    from include.feedback.predictions import Predictions

    try:
        with tempfile.TemporaryDirectory() as room:
            read = Predictions(factory.segments(), factory.store(), manifest, Path(room))
            days = read.days()
            until = days[-1] if days else date.min
            return (
                read.served(version, until - timedelta(days=manifest.monitor.window_days - 1), until) if days else None
            )
    except EvergreenError as error:
        log.warning("the service was not judged: %s", error)
        return None
