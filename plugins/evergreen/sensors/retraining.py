"""Asks the retraining policy; waits while it says wait, skips the run when it says no.

What the trigger answers only wakes the task. The decision is taken, and entered, by the worker: between the two a
release may have begun, or another run may have been given the training.
"""

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.assets import DRIFT_DETECTED
from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.run_context import RunContext, read_run_context
from evergreen.sensors.wait_condition import WaitConditionSensor
from include.retraining.approvals import enter_decision


class RetrainingSensor(WaitConditionSensor):
    """A drift decides by the newest ingested day, which moves while it waits; a schedule by the run's own day."""

    condition = "retraining"

    def build_arguments(self, context: Context) -> dict[str, Any]:
        run = read_run_context(context)
        trigger = _find_trigger(context, run)
        requested = context["params"].get("as_of")
        own_day = str(run.as_of) if trigger == "schedule" else None
        episode = run.extra.get("key") if trigger == "drift" else None
        return {"trigger": trigger, "triggered": str(run.as_of), "as_of": requested or own_day, "episode": episode}

    def fetch_answer(self, context: Context) -> Any:
        run, arguments = read_run_context(context), self.build_arguments(context)
        with translate_errors():
            conditions, ledger = ConnectionsHook().open_wait_conditions(), ConnectionsHook().open_ledger()
            answer = enter_decision(conditions, ledger, arguments, run.who, run.key)
            if answer is None:
                self.log.info("the policy waits: %s", conditions.weigh_retraining(**arguments)[1].sentence)
        return answer

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        return self.execute(context)

    def handle_answer(self, context: Context, answer: Any) -> Any:
        super().handle_answer(context, answer)
        if answer["verdict"] == "no":
            raise AirflowSkipException(answer["sentence"])
        return answer


def _find_trigger(context: Context, run: RunContext) -> str:
    # by iteration: looking an asset up in Airflow's accessor answers yes also for one that sent no event
    senders = {asset.name for asset in context.get("triggering_asset_events") or {}}
    if DRIFT_DETECTED.name in senders:
        return "drift"
    return "manual" if run.run_type == "manual" else "schedule"
