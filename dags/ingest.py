"""
### Ingest one day

Lands the rows of one day, validates them against the manifest's contract, and publishes an immutable, content-addressed
snapshot. A few bad rows are set aside with their reasons; a broken contract fails the run with every broken rule in one
sentence and publishes nothing; a day without rows is skipped. The *Report* button opens the day's page of Data Docs.
With `fan_out.validation` above 1, as many tasks read and check the parts of the delivery first; what they did not get
to, `ingest` does itself.

* **Daily**, for the day that just ended. **Backfill** it for history: a backfill publishes the same snapshots and
  announces nothing.
* **Manual**: choose a day. A day delivered again becomes a new version, known from today or from *Known from*.
  `scenario` exists for demonstrations only and goes into the snapshot's description.
"""

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from evergreen.assets import DATASET_VALIDATED
from evergreen.dag_defaults import build_dag_defaults, make_date_param, make_intent_param, make_text_param
from evergreen.operators.announce import AnnounceOperator
from evergreen.operators.job import make_job_task, make_mapped_job
from evergreen.operators.rejection_callback import record_refused_day
from include.manifest import read_manifest

manifest = read_manifest()
OWN_DAY = "data_interval_start | ds if data_interval_start else macros.ds_add(dag_run.run_after | ds, -1)"
DAY = f"{{{{ params.day or ({OWN_DAY}) }}}}"

with DAG(
    "ingest",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    doc_md=__doc__,
    params={
        "day": make_date_param("Day", "The day to ingest; empty: the run's own day."),
        "scenario": make_text_param(
            "Scenario", "Replay source only: change the day's rows openly.", examples=["new_market"]
        ),
        "as_of": make_date_param("Known from", "From when these rows count as known; empty: the run's own day."),
        "intent": make_intent_param(),
    },
    **(build_dag_defaults(manifest, "data") | {"max_active_runs": 4}),
) as dag:
    land = make_job_task(
        manifest,
        "ingest",
        job="ingest",
        job_params={"day": DAY},
        params_from=["scenario"],
        on_failure_callback=record_refused_day,
        trigger_rule="all_done",
    )
    # What the tasks before it did not get to, `ingest` does itself, so it asks only whether they have ended.
    if (shards := manifest.fan_out.validation) > 1:
        part = make_mapped_job(
            manifest, "validate_part", "validate", shards, job_params={"day": DAY}, params_from=["scenario"]
        )
        part >> land
    announce = AnnounceOperator(
        task_id="announce",
        asset=DATASET_VALIDATED,
        result=land.output,
        fields=["id", "day", "rows"],
    )
    land >> announce
