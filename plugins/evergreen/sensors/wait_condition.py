"""What the two sensors share: ask at once, and if there is no answer yet, wait in the triggerer instead of a worker."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator, BaseSensorOperator, Context
from airflow.sdk.bases.sensor import PokeReturnValue
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralTimeout,
)

from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.run_context import read_run_context
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
        read_run_context(context)  # what it refuses is refused before anything is waited for
        if not self.deferrable:
            return self.handle_answer(context, self._poke_until_answered(context))
        answer = self.fetch_answer(context)
        if answer is None:
            self.log.info("no answer to %r yet, waiting in the triggerer", self.condition)
            trigger = PollTrigger(self.condition, self.build_arguments(context), float(self.poke_interval))
            self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
        return self.handle_answer(context, answer)

    def _poke_until_answered(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except AirflowSkipException as skip:
            if isinstance(skip.__cause__, AirflowFailException):  # of a sensor with soft_fail Airflow hides it
                raise skip.__cause__ from None
            raise

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Only the end of the time limit may skip. Airflow's own takes whatever a sensor with soft_fail raises after a
        wait for that, so an outage would end a retraining, green, and nobody would be told.
        """
        try:
            return BaseOperator.resume_execution(self, next_method, next_kwargs, context)
        except TaskDeferralTimeout as error:
            sentence = f"No answer to {self.condition!r} within {timedelta(seconds=self.timeout)}."
            raise (AirflowSkipException if self.soft_fail else AirflowSensorTimeout)(sentence) from error

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        return self.handle_answer(context, event)

    def handle_answer(self, context: Context, answer: Any) -> Any:
        """What to do with the answer; the task's return value."""
        self.log.info("%s", answer["sentence"])
        return answer
