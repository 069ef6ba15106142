"""
### Decide whether to retrain

Weekly, or when `drift.detected`. A pure policy says yes or no with every reason: enough new labels or a model too old,
no cooldown, budget left this month, no two refused gates in a row, no release under way, no broken delivery. A drift
whose labels are not known yet waits for them, in data time, without holding a worker. However many runs decide at once,
the ledger takes one approval.

* **Manual**: a person's word is enough, if there are rows to train on.
* **Backfill** over past weeks is a walk-forward backtest: one historical training a week, judged by the days that
  followed, compared with the week before on one page. It announces nothing and registers no model.
"""

from datetime import timedelta

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from evergreen.assets import DRIFT_DETECTED, TRAINING_REQUESTED
from evergreen.dag_defaults import build_dag_defaults, make_date_param, make_intent_param
from evergreen.operators.announce import AnnounceOperator
from evergreen.operators.intent import IntentOperator
from evergreen.operators.job import make_job_task
from evergreen.sensors.retraining import RetrainingSensor
from include.manifest import read_manifest

manifest = read_manifest()

with DAG(
    "retrain",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(manifest.retraining.schedule, timezone="UTC"),
        assets=[DRIFT_DETECTED],
    ),
    doc_md=__doc__,
    params={
        "as_of": make_date_param("As of", "What the training may know; empty: all ingested days."),
        "intent": make_intent_param(),
    },
    **(build_dag_defaults(manifest, "model") | {"max_active_runs": 2, "deadline": None}),
) as dag:
    intent = IntentOperator(task_id="intent", live="decide", otherwise="backtest")
    backtest = make_job_task(manifest, "backtest", job="backtest")
    patience = timedelta(days=manifest.retraining.wait_for_labels_days)
    decide = RetrainingSensor(task_id="decide", timeout=patience.total_seconds(), soft_fail=True)
    request = AnnounceOperator(
        task_id="request",
        asset=TRAINING_REQUESTED,
        result=decide.output,
        fields=["as_of", "sentence"],
        once="key",
    )
    intent >> [decide, backtest]
    decide >> request
