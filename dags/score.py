"""
### Score whole days

Scores every row of a day with the version that serves, in parts, into Parquet files beside the snapshots. Version and
snapshot are chosen once, by the task `pin`; a retry goes on with both behind the last whole part. The same snapshot and
artifact give the same files, so asking twice costs nothing. Nothing that serves is moved.

* Runs when `dataset.validated`, for the days the events name, and daily for the newest day, should an event be missed.
* **Manual**: choose a day or a range, and a blessed version; empty: the newest day, the live version.
* **Backfill** it to score past days, each as it was known then. A backfill announces nothing.
"""

from airflow.sdk import DAG, AssetOrTimeSchedule
from airflow.timetables.interval import CronDataIntervalTimetable

from evergreen.assets import DATASET_VALIDATED, SCORES_PUBLISHED
from evergreen.dag_defaults import build_dag_defaults, make_date_param, make_intent_param, make_text_param
from evergreen.operators.announce import AnnounceOperator
from evergreen.operators.job import make_job_task
from evergreen.operators.scoring import PinOperator
from include.manifest import read_manifest

manifest = read_manifest()

with DAG(
    "score",
    schedule=AssetOrTimeSchedule(
        timetable=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"), assets=[DATASET_VALIDATED]
    ),
    doc_md=__doc__,
    params={
        "day": make_date_param("Day", "The day to score, or the first of a range; empty: the newest."),
        "until": make_date_param("Until", "The last day of a range; empty: one day only."),
        "version": make_text_param("Version", "A blessed version; empty: the one that serves now."),
        "as_of": make_date_param("As of", "Score the days as they were known on this one; empty: as known now."),
        "intent": make_intent_param(),
    },
    **(build_dag_defaults(manifest, "model") | {"max_active_runs": 2}),
) as dag:
    pin = PinOperator(task_id="pin")
    score = make_job_task(manifest, "score", job="score", job_params={"pinned": pin.output})
    announce = AnnounceOperator(
        task_id="announce",
        asset=SCORES_PUBLISHED,
        result=score.output,
        fields=["version", "digest", "days", "snapshots", "uris", "rows"],
    )
    pin >> score >> announce
