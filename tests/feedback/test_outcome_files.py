"""Outcomes by file: taken whole or not at all, once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from include.data.store.local_store import LocalObjectStore
from include.feedback.outcome_files import import_outcomes
from include.feedback.segments import Segments
from include.kernel.errors import DataRefused

NOW = datetime(2026, 8, 2, 8, tzinfo=UTC)


def bring(text: str, room: Path, now: datetime = NOW) -> tuple[int, bool]:
    path = room / "outcomes.csv"
    path.write_text(text)
    return import_outcomes(path, ("bad", "good"), Segments(LocalObjectStore(room / "store")), now)


def kept(room: Path) -> list[tuple[object, ...]]:
    columns = ("request_id", "row", "label", "happened", "received")
    return pl.read_parquet(room / "store/feedback/*/*.parquet").select(columns).rows()


def test_outcomes_with_and_without_row_and_time_are_kept_as_feedback_keeps_them(tmp_path):
    text = "request_id,label,row,time\na,bad,,\nb,good,2,2026-08-01T14:00:00+02:00\nc,bad,0,2026-08-01 12:00:00.5Z\n"
    assert bring(text, tmp_path) == (3, True)
    noon = datetime(2026, 8, 1, 12, tzinfo=UTC)
    assert kept(tmp_path) == [
        ("a", 0, "bad", None, NOW),
        ("b", 2, "good", noon, NOW),
        ("c", 0, "bad", noon + timedelta(seconds=0.5), NOW),
    ]


def test_a_file_given_twice_is_kept_once_also_on_another_day(tmp_path):
    assert bring("request_id,label\na,bad\n", tmp_path) == (1, True)
    assert bring("request_id,label\na,bad\n", tmp_path, NOW + timedelta(days=3)) == (1, False)
    assert bring("request_id,label\na,good\n", tmp_path, NOW + timedelta(days=3)) == (1, True)
    assert len(kept(tmp_path)) == 2


def test_parquet_is_read_with_its_own_types(tmp_path):
    path, when = tmp_path / "outcomes.parquet", datetime(2026, 8, 1, tzinfo=UTC)
    pl.DataFrame({"request_id": ["a"], "row": [1], "label": ["bad"], "time": [when]}).write_parquet(path)
    assert import_outcomes(path, ("bad", "good"), Segments(LocalObjectStore(tmp_path / "store")), NOW) == (1, True)
    assert kept(tmp_path) == [("a", 1, "bad", when, NOW)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a b,bad,,", "row 2: request_id must be the x-request-id"),
        (",bad,,", "row 2: request_id"),
        ("a,ugly,,", "row 2: label must be one of bad, good"),
        ("a,,,", "row 2: label"),
        ("a,bad,-1,", "row 2: row must be a whole number"),
        ("a,bad,1.5,", "row 2: row"),
        ("a,bad,0,2026-08-01", "row 2: time must be a past time with its offset"),
        ("a,bad,0,2026-08-01T12:00:00", "row 2: time"),
        ("a,bad,0,2027-08-01T12:00:00Z", "row 2: time"),
    ],
)
def test_one_wrong_row_refuses_the_file_by_row_and_column(tmp_path, line, says):
    with pytest.raises(DataRefused, match=says):
        bring(f"request_id,label,row,time\na,bad,,\n{line}\n", tmp_path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("request_id\na\n", "lacks column 'label'"),
        ("request_id,label,who\na,bad,x\n", "has column 'who'"),
        ("", "cannot be read"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_what_it_needs(tmp_path, text, says):
    with pytest.raises(DataRefused, match=says):
        bring(text, tmp_path)
