"""Holds registry, ledger and world against each other, and mends what it can. What it finds never fails a run."""

from typing import Any

from airflow.sdk import BaseOperator, Context

from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import deliver
from evergreen.run_context import read_run_context


class ReconcileOperator(BaseOperator):
    """Returns the state that people call the target's, what was healed, and what is left for a person.

    It also tells what still waits to be told: an alert whose channel was away gets another chance with every run.
    """

    ui_color = "#e6dcf3"

    def execute(self, context: Context) -> dict[str, Any]:
        run, hook = read_run_context(context), ConnectionsHook()
        if not run.is_live:
            return self._log_state("untouched", f"a {run.intent.value} run moves nothing")
        with translate_errors():
            outcome = hook.open_reconciler().run(run.who)
        deliver()
        untold = hook.open_outbox().list_untold()
        for sentence in untold:
            self.log.warning("could not be told: %s", sentence)
        return {
            **self._log_state(outcome.state.value, outcome.sentence),
            "healed": outcome.repaired,
            "found": outcome.unresolved,
            "untold": untold,
        }

    def _log_state(self, state: str, sentence: str) -> dict[str, Any]:
        self.log.info("%s", sentence)
        return {"state": state, "sentence": sentence}
