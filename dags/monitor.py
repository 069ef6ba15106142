"""
### Measure the live model

Compares the ingested days with the live version's own baseline: every feature and the scores by PSI and chi-square,
and the AUC on days whose labels are known by now. An alarm needs a move that is large, not chance, and persistent. The
report's page lies beside the report in the store.

Each day is measured once, and a window is the sum of its days; with `fan_out.profiles` the new days are measured by
tasks of their own first, all at once.

Beside that, `reconcile` holds registry, ledger and world against each other: what disagrees is healed, or told. So is a
run that was cleared and is late, since Airflow gives it no new deadline.

Runs hourly, or when `dataset.validated`, or when `model.live`.
"""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from evergreen.assets import DATASET_VALIDATED, MODEL_LIVE, MONITOR_REPORTED
from evergreen.dag_defaults import DAGS_WITH_DEADLINE, build_dag_defaults, make_date_param
from evergreen.operators.announce import AnnounceOperator
from evergreen.operators.job import make_job_task, make_mapped_job
from evergreen.operators.reconcile import ReconcileOperator
from include.manifest import read_manifest

manifest = read_manifest()

with DAG(
    "monitor",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(manifest.monitor.schedule, timezone="UTC"),
        assets=DATASET_VALIDATED | MODEL_LIVE,
    ),
    doc_md=__doc__,
    params={"as_of": make_date_param("As of", "Look at days up to this one only; empty: all.")},
    **build_dag_defaults(manifest, "monitoring"),
) as dag:
    # A day that no task before it measured is measured by `measure` itself, so it asks only whether they have ended.
    serving = {"serving": "{{ find_serving() }}"}
    measure = make_job_task(manifest, "measure", job="monitor", job_params=serving, trigger_rule="all_done")
    if manifest.fan_out.profiles > 1:
        make_mapped_job(manifest, "profile", "profile", manifest.fan_out.profiles, job_params=serving) >> measure
    announce = AnnounceOperator(
        task_id="announce",
        asset=MONITOR_REPORTED,
        result=measure.output,
        fields=["as_of", "version", "alarm"],
    )
    measure >> announce
    ReconcileOperator(
        task_id="reconcile", watched=DAGS_WITH_DEADLINE
    )  # beside the measuring: neither waits for the other
