"""Takes a verdict and branches: go on, ask a person, or skip the rest. A no is a result, not a failure."""

from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import Context

from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import announce_entry
from evergreen.results import require_result
from evergreen.run_context import RunContext, read_run_context
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.model.blessing.approval import Next, choose_next


class GateOperator(BaseBranchOperator):
    """`told` is the result of evaluate (templated). The verdict goes to the ledger, once a run.

    `bless` and `ask` name the tasks that follow a pass and a question to a person; `gate.approval` says which it is.
    """

    template_fields: Sequence[str] = ("result",)
    ui_color = "#f6d9c9"

    def __init__(self, *, result: Any, bless: str = "bless", ask: str = "approve", **options: Any) -> None:
        super().__init__(**options)
        self.result = result
        self.next_tasks = {Next.BLESS: bless, Next.ASK: ask, Next.STOP: None}

    def choose_branch(self, context: Context) -> str | None:
        run, outputs = read_run_context(context), require_result(self.result, "outputs", task_id="evaluate")["outputs"]
        verdict = outputs["gate"]["verdict"]
        hook = ConnectionsHook()
        next_step = choose_next(verdict, hook.manifest.gate.approval, run.intent)
        entry = Entry(
            what=kinds.name_gate(verdict),
            subject=str(outputs.get("run_id")),
            who=run.who,
            why=self.result["summary"],
            details={**outputs, **_describe_run(run)},
            key=f"gate-{run.key}",
        )
        hook.open_ledger().append(entry)
        if run.is_live:
            announce_entry(entry)
        self.log.info("%s", self.result["summary"])
        return self.next_tasks[next_step]


def _describe_run(run: RunContext) -> dict[str, str]:
    """What the retraining policy asks of a verdict: whether it counts, and from which day on."""
    return {"as_of": str(run.as_of), "intent": run.intent.value, "run_type": run.run_type}
