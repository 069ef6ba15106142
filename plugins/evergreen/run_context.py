"""The DAG's edge: where time and intent are read from Airflow, once, and become plain inputs.

Whoever triggered the run has the first word: a Param, then the newest asset event that carries the field, then the
run's own dates. Behind this line nobody asks what day it is.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from evergreen.errors import translate_errors
from include.kernel.errors import RequestInvalid
from include.kernel.job import Intent, JobRequest, build_run_key, derive_intent


@dataclass(frozen=True)
class RunContext:
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


def read_run_context(context: Mapping[str, Any]) -> RunContext:
    params, extra = context.get("params") or {}, find_newest_extra(context)
    run = context["dag_run"]
    run_type = str(getattr(run.run_type, "value", run.run_type))
    with translate_errors():
        _check_conf(context)
        as_of = parse_date("as_of", params.get("as_of") or extra.get("as_of"))
        intent = derive_intent(run_type, params.get("intent"), extra.get("intent"))
    return RunContext(
        as_of=as_of or _find_run_day(context),
        intent=intent,
        extra=extra,
        run_type=run_type,
        who=f"{run.dag_id} {run.run_id}",
        key=build_run_key(run.dag_id, run.run_id),
    )


def _check_conf(context: Mapping[str, Any]) -> None:
    """Airflow takes any key; one that no form has would be dropped, and the run do what nobody asked for."""
    dag, run = context.get("dag"), context["dag_run"]
    known = list(dag.params) if dag else []
    for name in (getattr(run, "conf", None) or {}) if dag else {}:
        if name not in known and not name.startswith("airflow/"):  # its own settings for traces
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? It" if near else "it"
            takes = f"takes {', '.join(known)}" if known else "takes no settings"
            raise RequestInvalid(f"The run's conf names {name!r}, which {run.dag_id} does not know; {hint} {takes}.")


def parse_date(name: str, value: object) -> date | None:
    """None for what was not given. Raises `RequestInvalid`."""
    try:
        return date.fromisoformat(str(value)) if value else None
    except ValueError as error:
        raise RequestInvalid(f"{name} is {value!r}, which is no day; write it as 2026-08-31.") from error


def build_job_request(context: Mapping[str, Any], job: str, params: Mapping[str, Any]) -> JobRequest:
    run = read_run_context(context)
    return JobRequest(job=job, run_key=run.key, as_of=run.as_of, intent=run.intent, params=dict(params))


def find_newest_extra(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Several events may have been merged into this run: the newest live one counts, else the newest of all."""
    events = [event for asset in (context.get("triggering_asset_events") or {}).values() for event in asset]
    extras = [event.extra or {} for event in sorted(events, key=lambda event: event.timestamp)]
    live = [extra for extra in extras if extra.get("intent", "live") == "live"]
    return (live or extras or [{}])[-1]


def list_announced_days(context: Mapping[str, Any], field: str) -> list[date]:
    """The days in this field of all triggering events: a run may answer several, and each names a day of its own."""
    events = [event for asset in (context.get("triggering_asset_events") or {}).values() for event in asset]
    with translate_errors():
        days = [parse_date(field, (event.extra or {}).get(field)) for event in events]
    return [day for day in days if day]


def find_interval_day(context: Mapping[str, Any]) -> date | None:
    """The day a run of a daily schedule is about: the one its interval begins with."""
    moment = context.get("data_interval_start")
    return date.fromisoformat(moment.strftime("%Y-%m-%d")) if moment else None


def _find_run_day(context: Mapping[str, Any]) -> date:
    moment = context.get("data_interval_end") or context["dag_run"].run_after
    return date.fromisoformat(moment.strftime("%Y-%m-%d"))
