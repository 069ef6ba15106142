"""Emits an asset event with an extra, for live runs that have something to tell; else it is skipped, with a reason."""

from collections.abc import Sequence
from typing import Any

from airflow.sdk import Asset, BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.hooks.connections import ConnectionsHook
from evergreen.hooks.notifiers import announce_entry
from evergreen.results import require_result
from evergreen.run_context import RunContext, read_run_context
from include.kernel.ledger import Entry


class AnnounceOperator(BaseOperator):
    """`told` is the result of the task before (templated); `fields` are those of it that travel in the event's extra.

    With `once` the announcement is made once for the value of that field, whoever retries or repeats it.
    """

    template_fields: Sequence[str] = ("result",)
    ui_color = "#f3ead2"

    def __init__(
        self, *, asset: Asset, result: Any, fields: Sequence[str], once: str | None = None, **options: Any
    ) -> None:
        super().__init__(outlets=[asset], **options)
        self.asset = asset
        self.result = result
        self.fields = tuple(fields)
        self.once = once

    def execute(self, context: Context) -> dict[str, Any]:
        run, result = read_run_context(context), _flatten_result(require_result(self.result))
        self._must_be_due(run, result)
        extra = {name: require_result(result, name)[name] for name in self.fields} | {"intent": run.intent.value}
        context["outlet_events"][self.asset].extra.update(extra)
        self.log.info("%s: %s", self.asset.name, extra)
        return extra

    def _must_be_due(self, run: RunContext, result: dict[str, Any]) -> None:
        if not run.is_live:
            raise AirflowSkipException(f"A {run.intent.value} run announces nothing.")
        if result.get("verdict") == "no":
            raise AirflowSkipException(f"Nothing to announce: {result.get('summary') or result.get('sentence')}.")
        if self.once and not self._claim_announcement(run, result):
            raise AirflowSkipException(f"{result[self.once]} was announced already.")

    def _claim_announcement(self, run: RunContext, result: dict[str, Any]) -> bool:
        """Whether this run is the one that announces the key; a retry of that run still is."""
        ledger, key = ConnectionsHook().open_ledger(), str(require_result(result, str(self.once))[str(self.once)])
        why = str(result.get("sentence") or result.get("summary"))
        entry = Entry(what=self.asset.name, subject=key, who=run.who, why=why, details=result, key=key)
        is_own = ledger.append(entry) or any(
            earlier.key == key and earlier.who == run.who for earlier in ledger.read_entries(entry.what)
        )
        if is_own:
            announce_entry(entry)
        return is_own


def _flatten_result(result: dict[str, Any]) -> dict[str, Any]:
    """A job result's outputs beside its verdict and summary; any other dictionary as it is."""
    return {**result, **result["outputs"]} if "outputs" in result else result
