"""What the two sensors share: ask at once, and if there is no answer yet, wait in the triggerer instead of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.bases.sensor import PokeReturnValue

from evergreen.errors import as_airflow
from evergreen.hooks.connections import WorldHook
from evergreen.triggers.poll import PollTrigger


class QuestionSensor(BaseSensorOperator):
    """Deferrable; with `deferrable=False` it pokes in the worker like any sensor. Returns the answer."""

    question = ""
    ui_color = "#fbe7a1"

    def __init__(self, *, deferrable: bool = True, poke_interval: float = 2.0, **options: Any) -> None:
        super().__init__(poke_interval=poke_interval, **options)
        self.deferrable = deferrable

    def arguments(self, context: Context) -> dict[str, Any]:
        return {}

    def answer(self, context: Context) -> Any:
        """The answer there is now, or None."""
        with as_airflow():
            return WorldHook().wait_conditions().ask(self.question, self.arguments(context))

    def poke(self, context: Context) -> PokeReturnValue:
        answer = self.answer(context)
        return PokeReturnValue(is_done=answer is not None, xcom_value=answer)

    def execute(self, context: Context) -> Any:
        if not self.deferrable:
            return self.take(context, super().execute(context))
        answer = self.answer(context)
        if answer is None:
            self.log.info("no answer to %r yet, waiting in the triggerer", self.question)
            trigger = PollTrigger(self.question, self.arguments(context), float(self.poke_interval))
            self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
        return self.take(context, answer)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        return self.take(context, event)

    def take(self, context: Context, answer: Any) -> Any:
        """What to do with the answer; the task's return value."""
        self.log.info("%s", answer["sentence"])
        return answer
