"""Days in the store: named by their content, whole or absent, one of a day counts."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from include.adapters.store_local import LocalStore, content_id
from include.core.episodes import MonitorReport
from include.core.snapshots import Snapshot

ROOT = Path(__file__).resolve().parents[3]
DAY = date(2026, 8, 1)


def rows(*incomes: float | None) -> pd.DataFrame:
    ids = [f"A{number}" for number in range(len(incomes))]
    return pd.DataFrame({"id": ids, "Income": incomes, "Home": ["own"] * len(incomes)})


def described(table: pd.DataFrame, day: date = DAY) -> Snapshot:
    return Snapshot(
        id=content_id(table),
        day=day,
        rows=len(table),
        columns=tuple(table.columns),
        source="test",
        manifest="m",
        expectations=1,
    )


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path)


def test_what_was_published_is_read_back(store):
    table = rows(1.5, None, 3.0)
    assert store.publish(described(table), table) is True
    [snapshot] = store.snapshots()
    assert snapshot == described(table)
    pd.testing.assert_frame_equal(store.rows([snapshot]), table)
    assert store.newest_day() == DAY


def test_an_empty_store_has_no_days_and_no_reports(store):
    assert (store.snapshots(), store.newest_day(), store.reports()) == ([], None, [])


def test_publishing_the_same_day_again_rewrites_nothing(store, tmp_path):
    table = rows(1.0)
    store.publish(described(table), table)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert store.publish(described(table), table) is False
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_id_is_the_contents_and_does_not_depend_on_when_or_where():
    assert content_id(rows(1.0, None)) == content_id(rows(1.0, None))
    assert content_id(rows(1.0)) == hashlib.sha256(b"id,Income,Home\nA0,1.0,own\n").hexdigest()


@pytest.mark.parametrize("other", [rows(2.0), rows(1.0, 1.0), rows(1.0).rename(columns={"Income": "Pay"})])
def test_other_content_is_another_id(other):
    assert content_id(other) != content_id(rows(1.0))


def test_a_corrected_day_counts_from_then_on_and_the_old_one_stays(store):
    wrong, right = rows(1.0), rows(2.0)
    store.publish(described(wrong), wrong)
    assert store.publish(described(right), right) is True
    assert store.snapshots() == [described(right)]
    pd.testing.assert_frame_equal(store.rows([described(wrong)]), wrong)


def test_days_come_in_order_however_they_were_published(store):
    table = rows(1.0)
    for day in (3, 1, 2):
        store.publish(described(table, date(2026, 8, day)), table)
    assert [snapshot.day.day for snapshot in store.snapshots()] == [1, 2, 3]
    assert store.newest_day() == date(2026, 8, 3)


def test_two_publishers_of_one_day_leave_one_whole_snapshot(tmp_path):
    table, errors = rows(*map(float, range(500))), []

    def publish() -> None:
        try:
            LocalStore(tmp_path).publish(described(table), table)
        except Exception as error:
            errors.append(error)

    publishers = [threading.Thread(target=publish) for _ in range(6)]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()
    assert errors == []
    assert LocalStore(tmp_path).snapshots() == [described(table)]
    assert [path.name for path in (tmp_path / "snapshots" / str(DAY)).iterdir()] == [content_id(table)]


KILLED = """
import os, signal, sys
from pathlib import Path
from include.adapters import store_local
from tests.unit.adapters.test_store_local import described, rows

def die(*_): os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "before the pointer moves":
    store_local.write_atomic = die
else:
    store_local.LocalStore._rename = staticmethod(die)
store_local.LocalStore(Path(sys.argv[1])).publish(described(rows(1.0)), rows(1.0))
"""


@pytest.mark.parametrize("moment", ["before the rename", "before the pointer moves"])
def test_a_publisher_killed_half_way_has_published_nothing_and_the_next_finishes_the_work(store, tmp_path, moment):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), moment], cwd=ROOT)
    assert done.returncode == -9
    assert store.snapshots() == []
    assert store.publish(described(rows(1.0)), rows(1.0)) is True
    assert store.snapshots() == [described(rows(1.0))]


def test_a_sample_is_plain_json_with_the_asked_columns_and_no_nan(store):
    table = rows(1.5, None)
    store.publish(described(table), table)
    assert store.sample(described(table), ["Income", "Home"]) == [
        {"Income": 1.5, "Home": "own"},
        {"Income": None, "Home": "own"},
    ]


def test_a_sample_does_not_grow_with_the_day(store):
    table = rows(*map(float, range(500)))
    store.publish(described(table), table)
    assert len(store.sample(described(table), ["Income"])) == 50


def report(day: int, version: str) -> MonitorReport:
    return MonitorReport(
        as_of=date(2026, 8, day), version=version, alarm=False, verdict="steady", rows=9, moved={"Income": 0.1}
    )


def test_reports_come_by_day_and_then_by_version_as_numbers(store):
    for made in (report(2, "10"), report(2, "9"), report(1, "10")):
        store.write_report(made)
    assert [(found.as_of.day, found.version) for found in store.reports()] == [(1, "10"), (2, "9"), (2, "10")]


def test_a_day_measured_again_has_one_report(store):
    store.write_report(report(1, "3"))
    store.write_report(report(1, "3").model_copy(update={"alarm": True}))
    assert [found.alarm for found in store.reports()] == [True]
