"""Takes a verdict and branches: go on, ask a person, or skip the rest. A no is a result, not a failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import Context

from evergreen.hooks.connections import WorldHook
from evergreen.hooks.notifiers import tell
from evergreen.run_context import Edge, edge
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.model.blessing.approval import Next, after_gate


class GateOperator(BaseBranchOperator):
    """`told` is the result of evaluate (templated). The verdict goes to the ledger, once a run.

    `bless` and `ask` name the tasks that follow a pass and a question to a person; `gate.approval` says which it is.
    """

    template_fields: Sequence[str] = ("told",)
    ui_color = "#f6d9c9"

    def __init__(self, *, told: Any, bless: str = "bless", ask: str = "approve", **options: Any) -> None:
        super().__init__(**options)
        self.told = told
        self.follows = {Next.BLESS: bless, Next.ASK: ask, Next.STOP: None}

    def choose_branch(self, context: Context) -> str | None:
        run, verdict = edge(context), self.told["outputs"]["gate"]["verdict"]
        world = WorldHook()
        chosen = after_gate(verdict, world.manifest.gate.approval, run.intent)
        self.log.info("%s", self.told["summary"])
        entry = Entry(
            what=kinds.name_gate(verdict),
            subject=str(self.told["outputs"].get("run_id")),
            who=run.who,
            why=self.told["summary"],
            details={**self.told["outputs"], **_why_it_ran(run)},
            key=f"gate-{run.key}",
        )
        world.ledger().append(entry)
        if run.is_live:
            tell(entry)
        return self.follows[chosen]


def _why_it_ran(run: Edge) -> dict[str, str]:
    """What the retraining policy asks of a verdict: whether it counts, and from which day on."""
    return {"as_of": str(run.as_of), "intent": run.intent.value, "run_type": run.run_type}
