"""Parts a DAG by why its run exists: what moves production on one side, what looks at the past on the other."""

from typing import Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import Context

from evergreen.run_context import read_run_context


class IntentOperator(BaseBranchOperator):
    """A live run goes on with the task `live`, any other with the task `otherwise`; the other one is skipped."""

    ui_color = "#f6d9c9"

    def __init__(self, *, live: str, otherwise: str, **options: Any) -> None:
        super().__init__(**options)
        self.live = live
        self.otherwise = otherwise

    def choose_branch(self, context: Context) -> str:
        run = read_run_context(context)
        self.log.info("%s run as of %s", run.intent.value, run.as_of)
        return self.live if run.is_live else self.otherwise
