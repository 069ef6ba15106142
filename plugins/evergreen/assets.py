"""The assets that join the DAGs, named noun.state. Airflow's asset graph is therefore the picture of the data flow."""

from airflow.sdk import Asset


def _make_asset(name: str) -> Asset:
    return Asset(name=name, uri=f"evergreen://{name.replace('.', '/')}", group="evergreen")


DATASET_VALIDATED = _make_asset("dataset.validated")
MONITOR_REPORTED = _make_asset("monitor.reported")
DRIFT_DETECTED = _make_asset("drift.detected")
TRAINING_REQUESTED = _make_asset("training.requested")
MODEL_BLESSED = _make_asset("model.blessed")
MODEL_LIVE = _make_asset("model.live")
# no DAG of ours waits for it: it is for whoever uses the scores
SCORES_PUBLISHED = _make_asset("scores.published")
