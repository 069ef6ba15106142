"""Asks the retraining policy; waits while it says wait, skips the run when it says no."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.assets import DRIFT_DETECTED
from evergreen.edge import Edge, edge
from evergreen.hooks.world import WorldHook
from evergreen.sensors.questions import QuestionSensor
from include.core.ledger import Entry


class RetrainingSensor(QuestionSensor):
    """A drift decides by the newest ingested day, which moves while it waits; a schedule by the run's own day."""

    question = "retraining"

    def arguments(self, context: Context) -> dict[str, Any]:
        run = edge(context)
        trigger = _trigger(context, run)
        asked = context["params"].get("as_of")
        own_day = str(run.as_of) if trigger == "schedule" else None
        return {"trigger": trigger, "triggered": str(run.as_of), "as_of": asked or own_day}

    def take(self, context: Context, answer: Any) -> Any:
        super().take(context, answer)
        run = edge(context)
        what = "retraining.approved" if answer["verdict"] == "yes" else "retraining.declined"
        why, key = answer["sentence"], f"retraining-{run.key}"
        WorldHook().ledger().append(Entry(what=what, subject=answer["as_of"], who=run.who, why=why, key=key))
        if answer["verdict"] == "no":
            raise AirflowSkipException(why)
        return answer


def _trigger(context: Context, run: Edge) -> str:
    # by iteration: looking an asset up in Airflow's accessor answers yes also for one that sent no event
    senders = {asset.name for asset in context.get("triggering_asset_events") or {}}
    if DRIFT_DETECTED.name in senders:
        return "drift"
    return "manual" if run.run_type == "manual" else "schedule"
