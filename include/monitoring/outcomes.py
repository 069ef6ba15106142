"""What became of the live version's decisions: its performance signals, from matured days and the prediction log.

Beside the monitor and apart from drift, since it needs labels or callers and drift needs neither. Only days from the
version's holdout on are looked at: on the rows it was fitted on it is better than it will ever be again.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from include.data.core.snapshots import Snapshot
from include.data.dataset import list_columns
from include.feedback.core.prediction_records import Served
from include.feedback.segments import Segments
from include.gate import evidence
from include.kernel.errors import EvergreenError
from include.monitoring.core import performance
from include.monitoring.core.performance import Matured
from include.monitoring.core.signals import Signal
from include.monitoring.monitored_model import Watched

log = logging.getLogger(__name__)
Days = Sequence[Snapshot]


def signals(watched: Watched, known: Days, window: Days, open_log: Callable[[], Segments]) -> list[Signal]:
    """`known` are the days whose labels have matured, `window` the newest ingested ones, both oldest first.

    `open_log` opens the prediction log's segments; what it raises is told and stops no monitoring.
    """
    baseline, manifest, meta = watched.baseline, watched.manifest, watched.model.meta
    since = baseline.since or date.min
    names = {column.name for column in meta.columns}
    spec, threshold = manifest.monitor, meta.threshold
    judged = [day for day in known if day.day >= since and names <= {*day.columns}][-spec.performance.concept_days :]
    found = _matured(judged, watched)
    newest = found.last(spec.window_days)
    return [
        *performance.performance(baseline.decisions, newest, threshold, manifest),
        *performance.concept(found, threshold, spec),
        *_estimated(window, watched),
        *performance.reconciled(newest, threshold, spec),
        *_fairness(judged[-spec.window_days :], watched, newest),
        *performance.business(newest, manifest.gate, spec),
        *performance.service(_served(watched, open_log), manifest.serving.objectives, spec),
    ]


def _matured(days: Days, watched: Watched) -> Matured:
    """Day by day, so that no more than one day's inputs is held."""
    truth, scores, place = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for number, day in enumerate(days):
        rows = watched.dataset.read([day], watched.model.meta.columns)
        truth.append(rows.truth)
        scores.append(watched.model.predict_frame(rows.inputs))
        place.append(np.full(len(rows.truth), float(number)))
    named = tuple(day.day for day in days)
    return Matured(np.concatenate(truth), np.concatenate(scores), np.concatenate(place), named)


def _estimated(window: Days, watched: Watched) -> list[Signal]:
    meta = watched.model.meta
    if any(not {column.name for column in meta.columns} <= {*day.columns} for day in window):
        return performance.unknown("estimated_performance", "accuracy")
    scores = watched.model.predict_frame(watched.dataset.read(window, meta.columns).inputs)
    return performance.estimated(watched.baseline.decisions, scores, meta.threshold, watched.manifest)


def _fairness(days: Days, watched: Watched, newest: Matured) -> Iterator[Signal]:
    """Groups are read off the rows again, since a model may not have their columns among its inputs."""
    manifest = watched.manifest
    protected = manifest.groups.protected
    if not days or any(not {*protected} <= {*day.columns} for day in days):
        yield from performance.unknown("fairness", "parity_ratio")
        return
    rows = watched.dataset.read(days, list_columns(manifest))
    yield from performance.fairness(newest, evidence.groups(rows.inputs, manifest.groups, protected), manifest.gate)


def _served(watched: Watched, open_log: Callable[[], Segments]) -> Served | None:
    """The newest days of the prediction log, by its own calendar. A log that cannot be read stops no monitoring."""
    manifest = watched.manifest
    if not manifest.serving.log.enabled:
        return None
    from include.feedback.predictions import Predictions

    try:
        with tempfile.TemporaryDirectory() as room:
            read = Predictions(open_log(), watched.dataset.store, manifest, Path(room))
            days = read.days()
            if not days:
                return None
            since = days[-1] - timedelta(days=manifest.monitor.window_days - 1)
            return read.served(watched.version, since, days[-1])
    except EvergreenError as error:
        log.warning("the service was not judged: %s", error)
        return None
