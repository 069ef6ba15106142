"""Watching for drift in a real Airflow whose triggerer is killed: one event an episode, and a late run is told of."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import date

import pytest

from include.embedded.commands.airflow_api import AirflowApi, wait_for
from include.embedded.stack.stack import Stack
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.report_store import LocalReports
from tests import ground

AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
LATE_MINUTES = 1


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("watch")
    manifest = ground.write_manifest(home / "pipeline.yaml", ground.SMALL | {"jobs.late_minutes": LATE_MINUTES})
    with ground.stack(home, *AIRFLOW, manifest=manifest) as made:
        yield made


@pytest.fixture(scope="module")
def api(stack: Stack) -> AirflowApi:
    """Version 3 is live; nothing was reported about it yet."""
    found = AirflowApi(stack.settings.airflow_url, stack.settings.user, stack.settings.password)
    wait_for("the DAG", lambda: True if "watch" in found.list_dag_ids() else None, 300)
    assert found.list_import_errors() == []
    ledger = LocalLedger(stack.settings.store_dir / "ledger.jsonl")
    ledger.append(Entry(what="release.live", subject="3", who="deploy", why="", key="live"))
    found.unpause("watch")
    return found


def report(stack: Stack, day: int, alarm: bool) -> None:
    moved = {"Income": 0.4} if alarm else {}
    LocalReports(stack.settings.store_dir).write_report(
        MonitorReport(as_of=date(2026, 8, day), version="3", alarm=alarm, verdict="", rows=300, moved=moved)
    )


def kill_triggerer(stack: Stack) -> None:
    """As the kernel would for want of memory; returns when another one beats."""

    def triggerer() -> tuple[int, str | None]:
        return next((part.pid, part.missing) for part in stack.list_parts() if part.name == "airflow-triggerer")

    killed, _ = triggerer()
    os.kill(killed, signal.SIGKILL)

    def another() -> bool | None:
        pid, missing = triggerer()
        return True if pid not in (0, killed) and missing is None else None

    wait_for("another triggerer", another, 300)


def waiting(api: AirflowApi) -> str:
    """A run of watch whose sensor waits in the triggerer."""
    run_id = api.start_run("watch")
    look = lambda: True if api.read_task_states("watch", run_id).get("drift") == "deferred" else None  # noqa: E731
    wait_for("the sensor to defer", look, 300)
    return run_id


def announced(api: AirflowApi) -> list[str]:
    return sorted(event["extra"]["key"] for event in api.list_asset_events("drift.detected"))


@pytest.mark.timeout(2400)  # the stack's start is part of it
def test_a_killed_triggerer_loses_no_alarm_and_repeats_none_and_whoever_waits_too_long_is_told_of(api, stack):
    first = waiting(api)
    kill_triggerer(stack)
    alerts = stack.settings.store_dir / "alerts"
    late = lambda: [p for p in alerts.rglob("*.json") if "A run of watch is late" in p.read_text()] or None  # noqa: E731
    assert len(wait_for("the alert of the late run", late, 400)) == 1
    report(stack, 20, alarm=True)
    assert api.wait_for_end("watch", first, 300)["state"] == "success"
    assert announced(api) == ["drift-3-2026-08-20"]

    second = waiting(api)  # the same alarm: it is announced, so there is nothing to say
    report(stack, 21, alarm=True)
    kill_triggerer(stack)
    assert api.read_task_states("watch", second)["drift"] == "deferred"
    assert announced(api) == ["drift-3-2026-08-20"]
    report(stack, 22, alarm=False)
    report(stack, 23, alarm=True)  # another episode: the alarm had ended in between
    assert api.wait_for_end("watch", second, 300)["state"] == "success"
    assert announced(api) == ["drift-3-2026-08-20", "drift-3-2026-08-23"]
