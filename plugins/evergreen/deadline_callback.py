"""Tells people of a run that is late: the callback of every DAG's deadline.

A module of its own at the top of the plugins, since Airflow stores the callback by its address and imports it in a
process of its own. It gets two plain dictionaries, the run and the deadline, and no task's context.
"""

from collections.abc import Mapping
from typing import Any

from evergreen.hooks.notifiers import announce
from include.alerting.core.alerts import Alert, Severity


def tell_late(context: Mapping[str, Any]) -> None:
    """Once for each run. A backfill is as long as it is, and wakes nobody."""
    run = context["dag_run"]
    if run.get("run_type") == "backfill":
        return
    dag, run_id = run["dag_id"], run["dag_run_id"]
    announce(
        Alert(
            severity=Severity.WARNING,
            title=f"A run of {dag} is late",
            text=f"{run_id} has not ended by {context['deadline'].get('deadline_time')}.",
            runbook="a-run-is-late",
            key=f"late-{dag}-{run_id}"[:255],
        )
    )
