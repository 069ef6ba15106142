"""Holds registry, ledger and world against each other, and mends what it can. What it finds never fails a run."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator, Context

from evergreen.cleared_runs import list_late_runs
from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import deliver, enqueue_alerts
from evergreen.run_context import read_run_context


class ReconcileOperator(BaseOperator):
    """Returns the state that people call the target's, what was healed, and what is left for a person.

    It also tells what still waits to be told: an alert whose channel was away gets another chance with every run. Of
    the DAGs in `watched` it tells each run that was cleared and is late.
    """

    ui_color = "#e6dcf3"

    def __init__(self, *, watched: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self.watched = tuple(watched)

    def execute(self, context: Context) -> dict[str, Any]:
        run, hook = read_run_context(context), ConnectionsHook()
        if not run.is_live:
            return self._log_state("untouched", f"a {run.intent.value} run moves nothing")
        with translate_errors():
            outcome = hook.open_reconciler().run(run.who)
        late = timedelta(minutes=hook.manifest.jobs.late_minutes)
        enqueue_alerts(*list_late_runs(context.get("ti"), self.watched, late, datetime.now(UTC)))
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
