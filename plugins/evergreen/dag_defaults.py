"""What every DAG of the house has in common, each default with its reason."""

import logging
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Param
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from evergreen.deadline_callback import tell_late
from evergreen.hooks.connections import ConnectionsHook
from evergreen.results import read_output
from include.kernel.errors import EvergreenError
from include.kernel.job import Intent
from include.manifest import Manifest

log = logging.getLogger(__name__)
START_DATE = datetime(2026, 1, 1)  # the earliest day a backfill may ask for
DAGS_WITH_DEADLINE = ("ingest", "monitor", "rollback", "score", "watch")  # whose cleared runs `monitor` watches


def build_dag_defaults(manifest: Manifest, *tags: str) -> dict[str, Any]:
    """Keyword arguments for DAG(...)."""
    return {
        "start_date": START_DATE,
        "catchup": False,  # history is a backfill somebody asks for, never a surprise after a pause
        "deadline": _build_deadline(manifest),  # a DAG that may wait for labels or a person takes it away
        "max_active_runs": 1,  # steps are idempotent, but two runs of one decision only confuse readers
        "tags": ["evergreen", manifest.name, *tags],
        "user_defined_macros": {"read_output": read_output, "find_serving": find_serving_version},
        "owner_links": {manifest.owner: f"mailto:{manifest.owner}@example.com"},
        "default_args": {
            "owner": manifest.owner,
            "retries": 2,  # for what is temporary; permanent errors fail at once
            "retry_delay": timedelta(seconds=10),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=5),
        },
    }


def find_serving_version() -> str:
    """For templates: the version that the route leads to, soaking or not; empty where there is none or nobody knows."""
    try:
        live = ConnectionsHook().open_target().observe().live.release
    except EvergreenError as error:
        log.warning("The route was not asked: %s", error)
        return ""
    return live.version if live else ""


def _build_deadline(manifest: Manifest) -> DeadlineAlert:
    """From when a run is queued, since a run that an asset started has no logical date to count from."""
    return DeadlineAlert(
        name="late",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=manifest.jobs.late_minutes),
        callback=SyncCallback(tell_late),
    )


def make_date_param(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], format="date", title=title, description=description)


def make_intent_param() -> Param:
    values = [intent.value for intent in Intent]
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *values],
        values_display={"null": "live, or what the event says"},  # the form would show the word null
        title="Intent",
        description="Only live runs move production. Empty: live, or what the triggering event says; a backfill is "
        "always historical.",
    )


def make_boolean_param(title: str, description: str) -> Param:
    return Param(None, type=["null", "boolean"], title=title, description=description)


def make_text_param(title: str, description: str, **options: Any) -> Param:
    return Param(None, type=["null", "string"], title=title, description=description, **options)
