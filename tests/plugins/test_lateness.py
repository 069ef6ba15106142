"""The callback of a missed deadline, called as Airflow calls it: with two plain dictionaries."""

from __future__ import annotations

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


def test_a_backfill_wakes_nobody():
    tell_late({**LATE, "dag_run": {**LATE["dag_run"], "run_type": "backfill"}})
    assert waiting() == []


def test_the_deadline_of_the_house_is_the_manifests_and_its_callback_can_be_imported(manifest):
    deadline = build_dag_defaults(manifest)["deadline"]
    assert deadline.interval.total_seconds() == 7 * 60
    assert import_string(deadline.callback.path) is tell_late
