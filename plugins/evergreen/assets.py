"""The assets that join the DAGs, named noun.state. Airflow's asset graph is therefore the picture of the data flow."""

from __future__ import annotations

from airflow.sdk import Asset


def _asset(name: str) -> Asset:
    return Asset(name=name, uri=f"evergreen://{name.replace('.', '/')}", group="evergreen")


DATASET_VALIDATED = _asset("dataset.validated")
MONITOR_REPORTED = _asset("monitor.reported")
DRIFT_DETECTED = _asset("drift.detected")
TRAINING_REQUESTED = _asset("training.requested")
MODEL_BLESSED = _asset("model.blessed")
MODEL_LIVE = _asset("model.live")
SCORES_PUBLISHED = _asset("scores.published")  # nobody in this house waits for it: it is for whoever uses the scores
