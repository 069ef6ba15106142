"""Says once, at the start of a run of `score`, with which version it scores which snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from evergreen.errors import as_airflow
from evergreen.hooks.connections import WorldHook
from evergreen.run_context import Edge, announced, edge, interval_day
from include.kernel.errors import RequestInvalid
from include.kernel.words import ledger_kinds as kinds
from include.release.core.rollout import Release
from include.scoring.core.scoring import Pinned, PinnedDay, chosen

if TYPE_CHECKING:
    from include.data.store.snapshot_store import ContentStore


class PinOperator(BaseOperator):
    """Without a version on the form it is the one that the route leads to now, and not the newest.

    Its blessing is verified here, and the job takes no artifact of another digest. Without a live version, or without
    a day to score, the run is skipped; for a day or a version somebody asked for, it fails.
    """

    ui_color = "#dcefe3"

    def execute(self, context: Context) -> dict[str, Any]:
        run, world, asked = edge(context), WorldHook(), context["params"]
        days = _days(run, world.store(), context)
        with as_airflow():
            release = self._asked(world, str(asked["version"])) if asked.get("version") else self._live(world)
        for day in days:
            self.log.info("%s (snapshot %s) with version %s", day.day, day.snapshot[:12], release.version)
        pinned = Pinned(version=release.version, digest=release.digest, days=tuple(days))
        return pinned.model_dump(mode="json")

    def _asked(self, world: WorldHook, version: str) -> Release:
        return Release(version, world.blessing(version, world.registry().blessing(version)).digest)

    def _live(self, world: WorldHook) -> Release:
        """The ledger keeps the blessing of what went live, so that the registry may be down; else it is asked."""
        live = world.target().observe().live.release
        if live is None:
            raise AirflowSkipException("No version is live yet, so there is nothing to score with.")
        told = [entry.details for entry in world.ledger().entries(kinds.RELEASE_LIVE) if entry.subject == live.version]
        envelope = next((each["blessing"] for each in reversed(told) if each.get("blessing")), None)
        world.blessing(live.version, envelope or world.registry().blessing(live.version), live.digest)
        return live


def _days(run: Edge, store: ContentStore, context: Mapping[str, Any]) -> list[PinnedDay]:
    with as_airflow():
        asked = _date(context, "day"), _date(context, "until")
        own = interval_day(context) if run.run_type == "backfill" else None
        found = chosen(store.history(), run.as_of, asked, announced(context, "day"), own)
        if not found and any(asked):
            raise RequestInvalid(
                f"No day from {asked[0] or asked[1]} to {asked[1] or asked[0]} was known as of {run.as_of}; ingest it, "
                "or choose another."
            )
    if not found:
        raise AirflowSkipException(f"There is no day to score as of {run.as_of}.")
    return [PinnedDay(day=each.day, snapshot=each.id) for each in found]


def _date(context: Mapping[str, Any], name: str) -> date | None:
    value = context["params"].get(name)
    return date.fromisoformat(value) if value else None
