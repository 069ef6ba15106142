"""Asks the retraining policy; waits while it says wait, skips the run when it says no.

What the trigger answers only wakes the task. The decision is taken, and entered, by the worker: between the two a
release may have begun, or another run may have been given the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.assets import DRIFT_DETECTED
from evergreen.errors import as_airflow
from evergreen.hooks.connections import WorldHook
from evergreen.run_context import Edge, edge
from evergreen.sensors.wait_condition import QuestionSensor
from include.retraining.approvals import enter_decision


class RetrainingSensor(QuestionSensor):
    """A drift decides by the newest ingested day, which moves while it waits; a schedule by the run's own day."""

    question = "retraining"

    def arguments(self, context: Context) -> dict[str, Any]:
        run = edge(context)
        trigger = _trigger(context, run)
        asked = context["params"].get("as_of")
        own_day = str(run.as_of) if trigger == "schedule" else None
        episode = run.extra.get("key") if trigger == "drift" else None
        return {"trigger": trigger, "triggered": str(run.as_of), "as_of": asked or own_day, "episode": episode}

    def answer(self, context: Context) -> Any:
        run, arguments = edge(context), self.arguments(context)
        with as_airflow():
            conditions, ledger = WorldHook().wait_conditions(), WorldHook().ledger()
            found = enter_decision(conditions, ledger, arguments, run.who, run.key)
            if found is None:
                self.log.info("the policy waits: %s", conditions.weigh_retraining(**arguments)[1].sentence)
        return found

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        return self.execute(context)

    def take(self, context: Context, answer: Any) -> Any:
        super().take(context, answer)
        if answer["verdict"] == "no":
            raise AirflowSkipException(answer["sentence"])
        return answer


def _trigger(context: Context, run: Edge) -> str:
    # by iteration: looking an asset up in Airflow's accessor answers yes also for one that sent no event
    senders = {asset.name for asset in context.get("triggering_asset_events") or {}}
    if DRIFT_DETECTED.name in senders:
        return "drift"
    return "manual" if run.run_type == "manual" else "schedule"
