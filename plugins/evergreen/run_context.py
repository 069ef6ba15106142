"""The DAG's edge: where time and intent are read from Airflow, once, and become plain inputs.

Whoever triggered the run has the first word: a Param, then the newest asset event that carries the field, then the
run's own dates. Behind this line nobody asks what day it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from evergreen.errors import as_airflow
from include.kernel.job import Intent, JobRequest, intent_of, run_key


@dataclass(frozen=True)
class Edge:
    """What a run may know and why it exists. `extra` is that of the newest asset event, live ones first."""

    as_of: date
    intent: Intent
    extra: Mapping[str, Any]
    run_type: str
    who: str
    key: str

    @property
    def is_live(self) -> bool:
        return self.intent is Intent.LIVE


def edge(context: Mapping[str, Any]) -> Edge:
    params, extra = context.get("params") or {}, newest_extra(context)
    run = context["dag_run"]
    as_of = params.get("as_of") or extra.get("as_of")
    run_type = str(getattr(run.run_type, "value", run.run_type))
    with as_airflow():
        intent = intent_of(run_type, params.get("intent"), extra.get("intent"))
    return Edge(
        as_of=date.fromisoformat(as_of) if as_of else _own_day(context),
        intent=intent,
        extra=extra,
        run_type=run_type,
        who=f"{run.dag_id} {run.run_id}",
        key=run_key(run.dag_id, run.run_id),
    )


def job_request(context: Mapping[str, Any], job: str, params: Mapping[str, Any]) -> JobRequest:
    found = edge(context)
    return JobRequest(job=job, run_key=found.key, as_of=found.as_of, intent=found.intent, params=dict(params))


def newest_extra(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Several events may have been merged into this run: the newest live one counts, else the newest of all."""
    events = [event for asset in (context.get("triggering_asset_events") or {}).values() for event in asset]
    extras = [event.extra or {} for event in sorted(events, key=lambda event: event.timestamp)]
    live = [extra for extra in extras if extra.get("intent", "live") == "live"]
    return (live or extras or [{}])[-1]


def announced(context: Mapping[str, Any], field: str) -> list[date]:
    """The days in this field of all triggering events: a run may answer several, and each names a day of its own."""
    events = [event for asset in (context.get("triggering_asset_events") or {}).values() for event in asset]
    return [date.fromisoformat(event.extra[field]) for event in events if (event.extra or {}).get(field)]


def interval_day(context: Mapping[str, Any]) -> date | None:
    """The day a run of a daily schedule is about: the one its interval begins with."""
    moment = context.get("data_interval_start")
    return date.fromisoformat(moment.strftime("%Y-%m-%d")) if moment else None


def _own_day(context: Mapping[str, Any]) -> date:
    moment = context.get("data_interval_end") or context["dag_run"].run_after
    return date.fromisoformat(moment.strftime("%Y-%m-%d"))
