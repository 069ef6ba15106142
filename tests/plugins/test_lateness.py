"""The callback of a missed deadline, called as Airflow calls it: with two plain dictionaries."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.sdk._shared.module_loading import import_string

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
