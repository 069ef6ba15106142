"""What the two sensors share: ask at once, and if there is no answer yet, wait in the triggerer instead of a worker."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.bases.sensor import PokeReturnValue

from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.triggers.poll import PollTrigger


class WaitConditionSensor(BaseSensorOperator):
    """Deferrable; with `deferrable=False` it pokes in the worker like any sensor. Returns the answer."""

    condition = ""
    ui_color = "#fbe7a1"

    def __init__(self, *, deferrable: bool = True, poke_interval: float = 2.0, **options: Any) -> None:
        super().__init__(poke_interval=poke_interval, **options)
        self.deferrable = deferrable

    def build_arguments(self, context: Context) -> dict[str, Any]:
        return {}

    def fetch_answer(self, context: Context) -> Any:
        """The answer there is now, or None."""
        with translate_errors():
            return ConnectionsHook().open_wait_conditions().ask(self.condition, self.build_arguments(context))

    def poke(self, context: Context) -> PokeReturnValue:
        answer = self.fetch_answer(context)
        return PokeReturnValue(is_done=answer is not None, xcom_value=answer)

    def execute(self, context: Context) -> Any:
        if not self.deferrable:
            return self.handle_answer(context, super().execute(context))
        answer = self.fetch_answer(context)
        if answer is None:
            self.log.info("no answer to %r yet, waiting in the triggerer", self.condition)
            trigger = PollTrigger(self.condition, self.build_arguments(context), float(self.poke_interval))
            self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
        return self.handle_answer(context, answer)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        return self.handle_answer(context, event)

    def handle_answer(self, context: Context, answer: Any) -> Any:
        """What to do with the answer; the task's return value."""
        self.log.info("%s", answer["sentence"])
        return answer
