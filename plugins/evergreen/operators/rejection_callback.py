"""Remembers that a day's delivery was refused, for those who decide by data: the ledger says so until a day is valid.

A task's own callback and not a part of the job: the job that refuses a day leaves nothing in the store, in any runtime.
"""

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import announce, announce_entry
from evergreen.run_context import read_run_context
from include.alerting.core.alerts import Alert, Severity
from include.kernel.errors import DataRefused
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds


def record_refused_day(context: Mapping[str, Any]) -> None:
    """For `on_failure_callback` of the ingest task: a live delivery that breaks the contract is `dataset.refused`.

    Whatever else ended the task, an outage or a mistyped form, is told too, and says nothing about the data: only a
    refused delivery keeps the retraining policy from training on its own.
    """
    try:
        run = read_run_context(context)
    except AirflowFailException:  # it is what the run failed of
        return None
    if not run.is_live:
        return None
    error = context.get("exception")
    day, why = context["task"].job_params["day"], str(error or "the task failed")
    if getattr(error, "kind", None) != DataRefused.__name__:
        title, key = f"The day {day} was not ingested"[:200], f"not-ingested-{run.key}"
        alert = Alert(severity=Severity.WARNING, title=title, text=why, runbook="a-source-cannot-be-read", key=key)
        return announce(alert)
    entry = Entry(what=kinds.DATASET_REFUSED, subject=str(day), who=run.who, why=why, key=f"dataset-{run.key}")
    ConnectionsHook().open_ledger().append(entry)
    return announce_entry(entry)
