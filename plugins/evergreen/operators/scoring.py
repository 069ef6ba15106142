"""Says once, at the start of a run of `score`, with which version it scores which snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.errors import translate_errors
from evergreen.hooks.connections import ConnectionsHook
from evergreen.run_context import RunContext, find_interval_day, list_announced_days, parse_date, read_run_context
from include.kernel.errors import RequestInvalid
from include.kernel.words import ledger_kinds as kinds
from include.release.core.rollout import Release
from include.scoring.core.scoring import PinnedDay, PinnedRun, choose_days

if TYPE_CHECKING:
    from include.data.store.snapshot_store import SnapshotStore


class PinOperator(BaseOperator):
    """Without a version on the form it is the one that the route leads to now, and not the newest.

    Its blessing is verified here, and the job takes no artifact of another digest. Without a live version, or without
    a day to score, the run is skipped; for a day or a version somebody asked for, it fails.
    """

    ui_color = "#dcefe3"

    def execute(self, context: Context) -> dict[str, Any]:
        run, hook, params = read_run_context(context), ConnectionsHook(), context["params"]
        days = _choose_days(run, hook.open_snapshot_store(), context)
        with translate_errors():
            release = (
                self._verify_requested(hook, str(params["version"]))
                if params.get("version")
                else self._verify_live(hook)
            )
        for day in days:
            self.log.info("%s (snapshot %s) with version %s", day.day, day.snapshot[:12], release.version)
        pinned = PinnedRun(version=release.version, digest=release.digest, days=tuple(days))
        return pinned.model_dump(mode="json")

    def _verify_requested(self, hook: ConnectionsHook, version: str) -> Release:
        return Release(version, hook.verify_blessing(version, hook.open_registry().fetch_blessing(version)).digest)

    def _verify_live(self, hook: ConnectionsHook) -> Release:
        """The ledger keeps the blessing of what went live, so that the registry may be down; else it is asked."""
        live = hook.open_target().observe().live.release
        if live is None:
            raise AirflowSkipException("No version is live yet, so there is nothing to score with.")
        entries = [
            entry.details
            for entry in hook.open_ledger().read_entries(kinds.RELEASE_LIVE)
            if entry.subject == live.version
        ]
        envelope = next((details["blessing"] for details in reversed(entries) if details.get("blessing")), None)
        hook.verify_blessing(live.version, envelope or hook.open_registry().fetch_blessing(live.version), live.digest)
        return live


def _choose_days(run: RunContext, store: SnapshotStore, context: Mapping[str, Any]) -> list[PinnedDay]:
    with translate_errors():
        params = context["params"]
        requested = parse_date("day", params.get("day")), parse_date("until", params.get("until"))
        backfill_day = find_interval_day(context) if run.run_type == "backfill" else None
        snapshots = choose_days(
            store.read_history(), run.as_of, requested, list_announced_days(context, "day"), backfill_day
        )
        if not snapshots and any(requested):
            raise RequestInvalid(
                f"No day from {requested[0] or requested[1]} to {requested[1] or requested[0]} was "
                f"known as of {run.as_of}; ingest it, "
                "or choose another."
            )
    if not snapshots:
        raise AirflowSkipException(f"There is no day to score as of {run.as_of}.")
    return [PinnedDay(day=snapshot.day, snapshot=snapshot.id) for snapshot in snapshots]
