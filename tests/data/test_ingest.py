"""From a delivery to a snapshot: what comes late, twice, differently or not at all, and what is kept of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from include.data.sources.base import Budget
from include.data.sources.files import Files
from include.jobs.__main__ import run
from include.kernel.code_digest import INGESTING, compute_code_digest
from include.kernel.errors import Conflict, DataRefused, StorageUnavailable
from include.kernel.job import REQUEST_VARIABLE, RESULT_VARIABLE, Intent, JobRequest
from include.manifest import DEFAULT_PATH, load
from tests import edge
from tests.delivered import read_day
from tests.ground import wait_for
from tests.kernel.test_scratch import at_most

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2026, 8, 1)


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return read_day(load(DEFAULT_PATH), DAY)


@pytest.fixture
def deliver(small, tmp_path, clean):
    """Puts a day's file where the source looks for it."""
    manifest = small(
        source={"kind": "files", "path": str(tmp_path / "{day}.csv")}, **{"contract.max_quarantined": 0.05}
    )

    def delivered(rows: pd.DataFrame = clean, day: date = DAY) -> None:
        rows.to_csv(tmp_path / f"{day}.csv", index=False)

    delivered.manifest = manifest
    return delivered


def request(as_of: date = DAY + timedelta(days=1), intent: Intent = Intent.LIVE, day: date = DAY) -> JobRequest:
    return JobRequest(job="ingest", run_key="k", as_of=as_of, intent=intent, params={"day": str(day)})


def test_a_snapshot_says_what_it_is_where_it_comes_from_and_who_let_it_pass(deliver, clean):
    deliver()
    result = run(request())
    [snapshot] = edge.store().list_snapshots()
    assert (snapshot.rows, snapshot.quarantined, snapshot.known_on) == (len(clean), 0, DAY + timedelta(days=1))
    assert snapshot.interval == (datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 8, 2, tzinfo=UTC))
    assert dict(zip(snapshot.columns, snapshot.types, strict=True))["Income"] == "double"
    assert snapshot.manifest == deliver.manifest.digest
    assert snapshot.code == compute_code_digest(*INGESTING)
    assert f"{DAY}.csv" in snapshot.source and "sha256=" in snapshot.source
    report = json.loads(edge.store().fetch_file(snapshot, "contract.json").read_text())
    assert len(report) == snapshot.expectations and all(outcome["passed"] for outcome in report)
    assert result.outputs["uri"] == edge.store().build_uri(snapshot) and result.outputs["id"] == snapshot.id


def test_rows_that_are_set_aside_are_counted_and_kept_with_their_reasons(deliver, clean):
    deliver(clean.assign(Age=clean["Age"].where(clean.index != 3, 17)))
    result = run(request())
    [snapshot] = edge.store().list_snapshots()
    assert (snapshot.rows, snapshot.quarantined) == (len(clean) - 1, 1)
    assert "1 were set aside" in result.summary and result.outputs["quarantined"] == 1
    aside = pd.read_parquet(edge.store().fetch_file(snapshot, "quarantine.parquet"))
    assert aside["row_number"].tolist() == [4] and "Age" in aside["reasons"][0][0]
    assert "<table" in edge.store().fetch_file(snapshot, "quarantine.html").read_text()


def test_a_day_delivered_again_is_a_new_version_from_then_on(deliver, clean):
    deliver()
    first = run(request()).outputs["id"]
    deliver(clean.iloc[1:])
    second = run(request(as_of=DAY + timedelta(days=9))).outputs["id"]
    history = edge.store().read_history()
    assert [(found.id, found.known_on.day) for found in history] == [(first, 2), (second, 10)]


def test_the_file_of_another_day_is_published_with_a_word_that_names_that_day(deliver, clean, small, tmp_path):
    source = {"kind": "files", "path": str(tmp_path / "{day}.csv")}
    small(source=source, **{"contract.unique_days": 0})  # with it the ids alone would refuse the day
    deliver()
    run(request())
    deliver(day=DAY + timedelta(days=1))
    told = run(request(day=DAY + timedelta(days=1), as_of=DAY + timedelta(days=2)))
    assert "the very rows of 2026-08-01, delivered again" in told.summary
    assert told.outputs["same_rows_as"] == "2026-08-01"
    assert any("the very rows of 2026-08-01 came again" in each for each in edge.store().list_snapshots()[-1].warnings)
    deliver(clean.iloc[1:], day=DAY + timedelta(days=2))
    other = run(request(day=DAY + timedelta(days=2), as_of=DAY + timedelta(days=3)))
    assert (other.outputs["same_rows_as"], other.outputs["warnings"]) == (None, [])


def test_a_column_that_is_not_there_is_told_with_what_is(deliver, clean):
    deliver(clean.rename(columns={"Age": " Age"}))
    with pytest.raises(DataRefused, match="Age: exists, found no such column, only ' Age'"):
        run(request())


def test_a_backfill_does_not_rewrite_what_was_known_and_a_late_day_is_known_late(deliver, clean):
    deliver()
    run(request(as_of=DAY + timedelta(days=5)))
    deliver(clean.iloc[1:])
    with pytest.raises(DataRefused, match="the past is not rewritten"):
        run(request(intent=Intent.HISTORICAL))
    [snapshot] = edge.store().read_history()
    assert (snapshot.rows, snapshot.known_on) == (len(clean), DAY + timedelta(days=5))


def test_a_delivery_that_changes_while_it_is_read_is_tried_again(deliver, clean, monkeypatch):
    deliver()
    read = Files.read

    def overtaken(self: Files, path: Path, budget: Budget):
        yield from read(self, path, budget)
        deliver(clean.iloc[1:])

    monkeypatch.setattr(Files, "read", overtaken)
    with pytest.raises(Conflict, match=r"The delivery of 2026-08-01 changed while it was read"):
        run(request())
    assert edge.store().list_snapshots() == []


@pytest.mark.parametrize("size", [100, 6000, 10_000])
def test_a_disk_that_is_full_publishes_nothing_and_the_next_run_recovers(deliver, clean, size):
    """Full while the day lands, while its file is closed, or while the report is written."""
    deliver(clean.assign(Age=clean["Age"].where(clean.index != 3, 17)))
    with pytest.raises(StorageUnavailable, match="cannot be written"), at_most(size):
        run(request())
    assert edge.store().list_snapshots() == [] and list(edge.work_room().glob("work-*")) == []
    assert run(request()).outputs["changed"] is True


def test_a_job_killed_at_work_leaves_nothing_published_and_its_room_to_the_next_run(deliver, tmp_path):
    """Killed while it waits for a delivery that has begun and does not end."""
    deliver()
    os.rename(tmp_path / f"{DAY}.csv", tmp_path / "whole.csv")
    os.mkfifo(tmp_path / f"{DAY}.csv")
    protocol = {REQUEST_VARIABLE: request().model_dump_json(), RESULT_VARIABLE: str(tmp_path / "result.json")}
    job = subprocess.Popen([sys.executable, "-m", "include.jobs"], cwd=ROOT, env=os.environ | protocol)
    wait_for(lambda: list(edge.work_room().glob("work-*")), 60)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert edge.store().list_snapshots() == [] and len(list(edge.work_room().glob("work-*"))) == 1
    os.replace(tmp_path / "whole.csv", tmp_path / f"{DAY}.csv")
    assert run(request()).outputs["changed"] is True
    assert list(edge.work_room().glob("work-*")) == []
