"""Holds registry, ledger and world against each other, and mends what it can. What it finds never fails a run."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, Context

from evergreen.errors import as_airflow
from evergreen.hooks.connections import WorldHook
from evergreen.hooks.notifiers import deliver
from evergreen.run_context import edge


class ReconcileOperator(BaseOperator):
    """Returns the state that people call the target's, what was healed, and what is left for a person.

    It also tells what still waits to be told: an alert whose channel was away gets another chance with every run.
    """

    ui_color = "#e6dcf3"

    def execute(self, context: Context) -> dict[str, Any]:
        run, world = edge(context), WorldHook()
        if not run.is_live:
            return self._said("untouched", f"a {run.intent.value} run moves nothing")
        with as_airflow():
            outcome = world.reconciler().run(run.who)
        deliver()
        return {**self._said(outcome.state.value, outcome.sentence), "healed": outcome.healed, "found": outcome.found}

    def _said(self, state: str, sentence: str) -> dict[str, Any]:
        self.log.info("%s", sentence)
        return {"state": state, "sentence": sentence}
