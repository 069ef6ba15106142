"""Finds runs that were cleared and are late. Airflow gives a deadline to a run when it is made; one that succeeded, or
was told as late, and is cleared then has none, and could hang for weeks. So a task asks, each time `monitor` runs.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetDagRun

from evergreen.deadline_callback import build_late_alert
from include.alerting.core.alerts import Alert

OPEN = ("queued", "running")
ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}


def fetch_run(dag_id: str, run_id: str) -> Any:
    return task_runner.SUPERVISOR_COMMS.send(GetDagRun(dag_id=dag_id, run_id=run_id))


def list_late_runs(ti: Any, dag_ids: Iterable[str], late: timedelta, now: datetime) -> Iterator[Alert]:
    """`ti` is the running task, which asks for it. Runs that were never cleared are left to their deadline."""
    for dag_id in dag_ids:
        if not ti.get_dr_count(dag_id=dag_id, states=list(OPEN)):
            continue
        for run_id, states in ti.get_task_states(dag_id=dag_id).items():
            if ENDED.issuperset(states.values()):
                continue
            run = fetch_run(dag_id, run_id)
            began = run.start_date or now
            if run.clear_number and run.state in OPEN and run.run_type != "backfill" and now - began > late:
                yield build_late_alert(dag_id, run_id, began, f"was cleared, and has not ended since {began}")
