"""What became of the live version's decisions: its performance signals, from matured days and the prediction log.

Beside the monitor and apart from drift, since it needs labels or callers and drift needs neither. Only days from the
version's holdout on are looked at: on the rows it was fitted on it is better than it will ever be again.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from include.data.core.snapshots import Snapshot
from include.data.dataset import list_columns
from include.feedback.core.prediction_records import ServingStatistics
from include.feedback.segments import Segments
from include.gate import evidence
from include.kernel.errors import EvergreenError
from include.monitoring.core import performance
from include.monitoring.core.performance import MaturedRows
from include.monitoring.core.signals import Signal
from include.monitoring.monitored_model import MonitoredModel

log = logging.getLogger(__name__)
Days = Sequence[Snapshot]


def check_outcomes(
    monitored: MonitoredModel, matured_days: Days, window: Days, open_log: Callable[[], Segments]
) -> list[Signal]:
    """`known` are the days whose labels have matured, `window` the newest ingested ones, both oldest first.

    `open_log` opens the prediction log's segments; what it raises is told and stops no monitoring.
    """
    baseline, manifest, meta = monitored.baseline, monitored.manifest, monitored.model.meta
    since = baseline.since or date.min
    names = {column.name for column in meta.columns}
    spec, threshold = manifest.monitor, meta.threshold
    judged_days = [day for day in matured_days if day.day >= since and names <= {*day.columns}][
        -spec.performance.concept_days :
    ]
    matured = _score_matured_days(judged_days, monitored)
    newest = matured.select_last(spec.window_days)
    return [
        *performance.check_performance(baseline.decisions, newest, threshold, manifest),
        *performance.detect_concept_drift(matured, threshold, spec),
        *_estimate_performance(window, monitored),
        *performance.verify_estimate(newest, threshold, spec),
        *_check_fairness(judged_days[-spec.window_days :], monitored, newest),
        *performance.check_business(newest, manifest.gate, spec),
        *performance.check_service(_read_served(monitored, open_log), manifest.serving.objectives, spec),
    ]


def _score_matured_days(days: Days, monitored: MonitoredModel) -> MaturedRows:
    """Day by day, so that no more than one day's inputs is held."""
    truth, scores, day_index = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for number, day in enumerate(days):
        rows = monitored.dataset.read([day], monitored.model.meta.columns)
        truth.append(rows.truth)
        scores.append(monitored.model.predict_frame(rows.inputs))
        day_index.append(np.full(len(rows.truth), float(number)))
    dates = tuple(day.day for day in days)
    return MaturedRows(np.concatenate(truth), np.concatenate(scores), np.concatenate(day_index), dates)


def _estimate_performance(window: Days, monitored: MonitoredModel) -> list[Signal]:
    meta = monitored.model.meta
    if any(not {column.name for column in meta.columns} <= {*day.columns} for day in window):
        return performance.build_unknown("estimated_performance", "accuracy")
    scores = monitored.model.predict_frame(monitored.dataset.read(window, meta.columns).inputs)
    return performance.estimate_performance(monitored.baseline.decisions, scores, meta.threshold, monitored.manifest)


def _check_fairness(days: Days, monitored: MonitoredModel, newest: MaturedRows) -> Iterator[Signal]:
    """Groups are read off the rows again, since a model may not have their columns among its inputs."""
    manifest = monitored.manifest
    protected = manifest.groups.protected
    if not days or any(not {*protected} <= {*day.columns} for day in days):
        yield from performance.build_unknown("fairness", "parity_ratio")
        return
    rows = monitored.dataset.read(days, list_columns(manifest))
    yield from performance.check_fairness(
        newest, evidence.assign_groups(rows.inputs, manifest.groups, protected), manifest.gate
    )


def _read_served(monitored: MonitoredModel, open_log: Callable[[], Segments]) -> ServingStatistics | None:
    """The newest days of the prediction log, by its own calendar. A log that cannot be read stops no monitoring."""
    manifest = monitored.manifest
    if not manifest.serving.log.enabled:
        return None
    from include.feedback.predictions import Predictions

    try:
        with tempfile.TemporaryDirectory() as scratch:
            predictions = Predictions(open_log(), monitored.dataset.store, manifest, Path(scratch))
            days = predictions.list_days()
            if not days:
                return None
            since = days[-1] - timedelta(days=manifest.monitor.window_days - 1)
            return predictions.summarize_serving(monitored.version, since, days[-1])
    except EvergreenError as error:
        log.warning("the service was not judged: %s", error)
        return None
