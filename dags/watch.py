"""
### Watch for drift

A deferrable sensor looks at the monitor's reports. When they form a drift episode that nobody announced yet, it
announces it, once. Without an alarm the run ends as skipped after `monitor.watch_minutes`.

Runs when `monitor.reported`.
"""

from airflow.sdk import DAG

from evergreen.assets import DRIFT_DETECTED, MONITOR_REPORTED
from evergreen.dag_defaults import build_dag_defaults
from evergreen.operators.announce import AnnounceOperator
from evergreen.sensors.drift import DriftSensor
from include.manifest import read_manifest

manifest = read_manifest()

with DAG("watch", schedule=[MONITOR_REPORTED], doc_md=__doc__, **build_dag_defaults(manifest, "monitoring")) as dag:
    drift = DriftSensor(task_id="drift", timeout=manifest.monitor.watch_minutes * 60, soft_fail=True)
    announce = AnnounceOperator(
        task_id="announce",
        asset=DRIFT_DETECTED,
        result=drift.output,
        fields=["key", "version", "as_of", "moved"],
        once="key",
    )
    drift >> announce
