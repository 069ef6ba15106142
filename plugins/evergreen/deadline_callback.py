"""Tells people of a run that is late: the callback of every DAG's deadline.

A module of its own at the top of the plugins, since Airflow stores the callback by its address and imports it in a
process of its own. It gets two plain dictionaries, the run and the deadline, and no task's context.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from evergreen.hooks.notifiers import announce
from include.alerting.core.alerts import Alert, Severity


def _parse_time(value: object) -> datetime | None:
    return value if isinstance(value, datetime) or value is None else datetime.fromisoformat(str(value))


def tell_late(context: Mapping[str, Any]) -> None:
    """Once for each run. A backfill is as long as it is, and wakes nobody; nor does a run that ended in time, which
    Airflow calls late too unless it succeeded.
    """
    run, due = context["dag_run"], _parse_time(context["deadline"].get("deadline_time"))
    ended = _parse_time(run.get("end_date"))
    if run.get("run_type") == "backfill" or (ended and due and ended <= due):
        return
    how = f"has not ended by {due}" if ended is None else f"{run.get('state', 'ended')} at {ended}, due by {due}"
    announce(build_late_alert(run["dag_id"], run["dag_run_id"], _parse_time(run.get("start_date")), how))


def build_late_alert(dag: str, run_id: str, began: datetime | None, how: str) -> Alert:
    """Once for each time that the run began: one that is cleared begins anew."""
    return Alert(
        severity=Severity.WARNING,
        title=f"A run of {dag} is late",
        text=f"{run_id} {how}.",
        runbook="a-run-is-late",
        key=f"late-{began.timestamp() if began else ''}-{dag}-{run_id}"[:255],
    )
