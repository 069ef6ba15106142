"""The callback of a missed deadline, called as Airflow calls it: with two plain dictionaries. And the runs that have no
deadline, since they were cleared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.api.datamodels._generated import DagRun

from evergreen import cleared_runs
from evergreen.dag_defaults import build_dag_defaults
from evergreen.deadline_callback import tell_late
from include.kernel.environment import read_setting

LATE = {
    "dag_run": {"dag_id": "monitor", "dag_run_id": "scheduled__1", "run_type": "scheduled"},
    "deadline": {"id": "1", "deadline_time": "2026-08-20T03:00:00Z"},
}


@pytest.fixture(autouse=True)
def manifest(small):
    return small(**{"jobs.late_minutes": 7})


def waiting() -> list[str]:
    store = read_setting("EVERGREEN_STORE")
    place = Path(store) / "alerts"
    return [path.read_text() for path in place.rglob("*.json")]


def test_a_run_that_is_late_is_told_once_with_the_section_that_says_what_to_do():
    tell_late(LATE)
    tell_late(LATE)
    [told] = waiting()
    assert "A run of monitor is late" in told and "a-run-is-late" in told and "scheduled__1" in told


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_run_that_ended_in_time_is_not_late_whatever_airflow_says_hours_later(state):
    """Airflow forgets the deadline of a run that succeeded, and of no other."""
    ended = {**LATE["dag_run"], "state": state, "end_date": "2026-08-20T02:59:00Z"}
    tell_late({**LATE, "dag_run": ended})
    assert waiting() == []


@pytest.mark.parametrize("due", ["2026-08-20T03:00:00Z", datetime(2026, 8, 20, 3, tzinfo=UTC)])
def test_a_run_that_ended_too_late_is_told_with_its_end(due):
    ended = {**LATE["dag_run"], "state": "failed", "end_date": "2026-08-20T04:30:00Z"}
    tell_late({"dag_run": ended, "deadline": {"id": "1", "deadline_time": due}})
    [told] = waiting()
    assert "failed at 2026-08-20 04:30:00+00:00, due by 2026-08-20 03:00:00+00:00" in told and "has not" not in told


def test_a_backfill_wakes_nobody():
    tell_late({**LATE, "dag_run": {**LATE["dag_run"], "run_type": "backfill"}})
    assert waiting() == []


def test_the_deadline_of_the_house_is_the_manifests_and_its_callback_can_be_imported(manifest):
    deadline = build_dag_defaults(manifest)["deadline"]
    assert deadline.interval.total_seconds() == 7 * 60
    assert import_string(deadline.callback.path) is tell_late


BEGAN, DEADLINE = datetime(2026, 8, 20, 1, tzinfo=UTC), timedelta(minutes=7)
RUN = {
    "dag_id": "score",
    "run_id": "manual__1",
    "run_after": BEGAN,
    "start_date": BEGAN,
    "run_type": "manual",
    "state": "running",
    "clear_number": 1,
    "consumed_asset_events": [],
    **dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "end_date", "partition_key")),
}


@dataclass
class Runs:
    """What a running task may ask of Airflow, and a run as Airflow describes it to a task."""

    run: dict[str, Any]
    states: dict[str, str | None] = field(default_factory=lambda: {"pin": "success", "score": None})

    def get_dr_count(self, dag_id: str, states: list[str]) -> int:
        return int(dag_id == self.run["dag_id"] and self.run["state"] in states)

    def get_task_states(self, dag_id: str) -> dict[str, Any]:
        return {"manual__0": {"pin": "success", "score": "skipped"}, self.run["run_id"]: self.states}

    def fetch_run(self, dag_id: str, run_id: str) -> DagRun:
        assert (dag_id, run_id) == (self.run["dag_id"], self.run["run_id"]), "a run that ended is not asked for"
        return DagRun(**self.run)


def late_runs(monkeypatch, minutes: float, runs: Runs) -> list[Any]:
    monkeypatch.setattr(cleared_runs, "fetch_run", runs.fetch_run)
    now = BEGAN + timedelta(minutes=minutes)
    return list(cleared_runs.list_late_runs(runs, ("ingest", "score"), DEADLINE, now))


def test_a_cleared_run_that_does_not_end_is_told(monkeypatch):
    [alert] = late_runs(monkeypatch, 8, Runs(RUN))
    assert (alert.title, alert.runbook) == ("A run of score is late", "a-run-is-late")
    assert alert.text == "manual__1 was cleared, and has not ended since 2026-08-20 01:00:00+00:00."
    assert late_runs(monkeypatch, 6, Runs(RUN)) == []


def test_it_is_told_once_for_each_time_it_began_whoever_tells_it(monkeypatch):
    [first], [again] = late_runs(monkeypatch, 8, Runs(RUN)), late_runs(monkeypatch, 68, Runs(RUN))
    [anew] = late_runs(monkeypatch, 70, Runs(RUN | {"start_date": BEGAN + timedelta(hours=1), "clear_number": 2}))
    assert first.key == again.key != anew.key
    run = {"dag_id": "score", "dag_run_id": "manual__1", "start_date": "2026-08-20T01:00:00Z"}
    tell_late({"dag_run": run, "deadline": {"deadline_time": BEGAN + DEADLINE}})
    assert first.key in waiting()[0]


@pytest.mark.parametrize("change", [{"clear_number": 0}, {"run_type": "backfill"}, {"state": "failed"}])
def test_other_runs_are_not_its_business(monkeypatch, change):
    runs = Runs(RUN | change)
    monkeypatch.setattr(runs, "get_dr_count", lambda dag_id, states: dag_id == "score")  # another run is open
    assert late_runs(monkeypatch, 600, runs) == []
    runs.states = {"pin": "success", "score": "failed"}
    monkeypatch.setattr(runs, "fetch_run", lambda *given: pytest.fail("it has ended"))
    assert late_runs(monkeypatch, 600, runs) == []


def test_a_deadline_stored_before_the_callback_moved_still_finds_it():
    assert import_string("evergreen.lateness.tell_late") is tell_late
