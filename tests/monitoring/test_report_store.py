"""The monitor's reports: one a version and day."""

from __future__ import annotations

from datetime import date

import pytest

from include.monitoring.core.episodes import MonitorReport
from include.monitoring.report_store import LocalReports


@pytest.fixture
def kept(tmp_path) -> LocalReports:
    return LocalReports(tmp_path)


def report(day: int, version: str) -> MonitorReport:
    return MonitorReport(
        as_of=date(2026, 8, day), version=version, alarm=False, verdict="steady", rows=9, moved={"Income": 0.1}
    )


def test_before_the_first_there_are_none(kept):
    assert kept.read_reports() == []


def test_reports_come_by_day_and_then_by_version_as_numbers(kept):
    for made in (report(2, "10"), report(2, "9"), report(1, "10")):
        kept.write_report(made)
    assert [(found.as_of.day, found.version) for found in kept.read_reports()] == [(1, "10"), (2, "9"), (2, "10")]


def test_a_day_measured_again_has_one_report(kept):
    kept.write_report(report(1, "3"))
    kept.write_report(report(1, "3").model_copy(update={"alarm": True}))
    assert [found.alarm for found in kept.read_reports()] == [True]
