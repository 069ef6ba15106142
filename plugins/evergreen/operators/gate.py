"""Takes a verdict and branches: on yes the run goes on, on no the rest is skipped. A no is a result, not a failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import Context

from evergreen.edge import edge
from evergreen.hooks.world import WorldHook
from include.core.ledger import Entry


class GateOperator(BaseBranchOperator):
    """`told` is a job result (templated). The decision goes to the ledger, once a run."""

    template_fields: Sequence[str] = ("told",)
    ui_color = "#f6d9c9"

    def __init__(self, *, told: Any, **options: Any) -> None:
        super().__init__(**options)
        self.told = told

    def choose_branch(self, context: Context) -> list[str] | None:
        run, passed = edge(context), self.told["verdict"] == "yes"
        self.log.info("%s", self.told["summary"])
        WorldHook().ledger().append(
            Entry(
                what="gate.passed" if passed else "gate.refused",
                subject=str(self.told["outputs"].get("run_id")),
                who=run.who,
                why=self.told["summary"],
                details=self.told["outputs"],
                key=f"gate-{run.key}",
            )
        )
        return sorted(self.downstream_task_ids) if passed else None
