"""Emits an asset event with an extra, for live runs that have something to tell; else it is skipped, with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.hooks.connections import WorldHook
from evergreen.hooks.notifiers import tell
from evergreen.run_context import Edge, edge
from include.kernel.ledger import Entry


class AnnounceOperator(BaseOperator):
    """`told` is the result of the task before (templated); `fields` are those of it that travel in the event's extra.

    With `once` (templated) the announcement is made once for that key, whoever retries or repeats it.
    """

    template_fields: Sequence[str] = ("told", "once")
    ui_color = "#f3ead2"

    def __init__(
        self, *, asset: Asset, told: Any, fields: Sequence[str], once: str | None = None, **options: Any
    ) -> None:
        super().__init__(outlets=[asset], **options)
        self.asset = asset
        self.told = told
        self.fields = tuple(fields)
        self.once = once

    def execute(self, context: Context) -> dict[str, Any]:
        run, told = edge(context), _flat(self.told)
        self._must_be_due(run, told)
        extra = {name: told[name] for name in self.fields} | {"intent": run.intent.value}
        context["outlet_events"][self.asset].extra.update(extra)
        self.log.info("%s: %s", self.asset.name, extra)
        return extra

    def _must_be_due(self, run: Edge, told: dict[str, Any]) -> None:
        if not run.is_live:
            raise AirflowSkipException(f"A {run.intent.value} run announces nothing.")
        if told.get("verdict") == "no":
            raise AirflowSkipException(f"Nothing to announce: {told.get('summary') or told.get('sentence')}.")
        if self.once and not self._first(run, told):
            raise AirflowSkipException(f"{self.once} was announced already.")

    def _first(self, run: Edge, told: dict[str, Any]) -> bool:
        """Whether this run is the one that announces the key; a retry of that run still is."""
        ledger = WorldHook().ledger()
        why = str(told.get("sentence") or told.get("summary"))
        entry = Entry(what=self.asset.name, subject=str(self.once), who=run.who, why=why, details=told, key=self.once)
        own = ledger.append(entry) or any(
            known.key == self.once and known.who == run.who for known in ledger.entries(entry.what)
        )
        if own:
            tell(entry)
        return own


def _flat(told: dict[str, Any]) -> dict[str, Any]:
    """A job result's outputs beside its verdict and summary; any other dictionary as it is."""
    return {**told, **told["outputs"]} if "outputs" in told else told
