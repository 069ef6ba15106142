"""Remembers that a day's delivery was refused, for those who decide by data: the ledger says so until a day is valid.

A task's own callback and not a part of the job: the job that refuses a day leaves nothing in the store, in any runtime.
"""

from collections.abc import Mapping
from typing import Any

from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import announce_entry
from evergreen.run_context import read_run_context
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds


def record_refused_day(context: Mapping[str, Any]) -> None:
    """For `on_failure_callback` of the ingest task: a live delivery that failed for good is `dataset.refused`."""
    run = read_run_context(context)
    if not run.is_live:
        return
    day, why = context["task"].job_params["day"], str(context.get("exception") or "the task failed")
    entry = Entry(what=kinds.DATASET_REFUSED, subject=str(day), who=run.who, why=why, key=f"dataset-{run.key}")
    ConnectionsHook().open_ledger().append(entry)
    announce_entry(entry)
