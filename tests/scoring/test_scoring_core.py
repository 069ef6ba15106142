"""Batch scoring, decided: which days, which parts, which name."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.kernel.errors import DataRefused, RequestInvalid
from include.scoring.core import scoring
from include.scoring.core.scoring import (
    PART_ROWS,
    ScoreSummary,
    build_result_key,
    choose_days,
    merge_summaries,
    parse_pinned,
    require_columns,
    split_into_parts,
)
from tests import described

FIRST = date(2026, 8, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(5)]


def snapshot(day, known_on=None, id="a" * 64, columns=("a",)):
    return described.snapshot(day=day, known_on=known_on, id=id, columns=columns, rows=9)


HISTORY = [snapshot(day, known_on=day + timedelta(days=1)) for day in DAYS]
LATER = date(2026, 9, 1)


def days(*args, **options):
    return [each.day for each in choose_days(HISTORY, *args, **options)]


def test_without_a_word_it_is_the_newest_day():
    assert days(LATER) == DAYS[-1:]


def test_a_form_asks_for_a_day_or_for_a_range_with_both_ends():
    assert days(LATER, (DAYS[1], None)) == DAYS[1:2]
    assert days(LATER, (None, DAYS[1])) == DAYS[1:2]
    assert days(LATER, (DAYS[1], DAYS[3])) == DAYS[1:4]
    assert days(LATER, (DAYS[3], LATER)) == DAYS[3:]


def test_the_form_goes_before_the_events_and_they_before_the_runs_own_day():
    assert days(LATER, (DAYS[0], None), [DAYS[1]], DAYS[2]) == DAYS[:1]
    assert days(LATER, announced=[DAYS[3], DAYS[1], DAYS[3]], own=DAYS[2]) == [DAYS[1], DAYS[3]]
    assert days(LATER, own=DAYS[2]) == DAYS[2:3]


def test_what_was_not_known_yet_is_not_scored():
    assert days(DAYS[2]) == DAYS[1:2]
    assert days(DAYS[2], (DAYS[2], None)) == []
    assert choose_days([], LATER) == []


def test_a_corrected_day_is_scored_as_it_was_known_then():
    corrected = snapshot(DAYS[0], id="c" * 64, known_on=DAYS[3])
    history = [*HISTORY, corrected]
    assert [each.id for each in choose_days(history, DAYS[2], (DAYS[0], None))] == [HISTORY[0].id]
    assert [each.id for each in choose_days(history, DAYS[3], (DAYS[0], None))] == ["c" * 64]


@given(st.integers(0, 5 * PART_ROWS))
def test_the_parts_are_every_row_once_in_order_and_all_but_the_last_are_full(rows):
    cut = split_into_parts(rows)
    assert [row for part in cut for row in (part.first, part.first + part.rows)] == [
        edge for index in range(len(cut)) for edge in (index * PART_ROWS, min((index + 1) * PART_ROWS, rows))
    ]
    assert sum(part.rows for part in cut) == rows
    assert [part.index for part in cut] == list(range(len(cut)))


def test_a_result_has_another_name_for_any_other_snapshot_version_or_artifact():
    names = {build_result_key(*each) for each in (("s", "1", "d"), ("t", "1", "d"), ("s", "2", "d"), ("s", "1", "e"))}
    assert len(names) == 4
    assert build_result_key("s", "1", "d") in names


def test_tallies_add_up_whatever_their_order():
    tallies = [
        ScoreSummary(rows=2, positives=1, total=share, histogram=(2, *[0] * 19))
        for share in (0.1, 1e16, 0.2, -1e16, 0.3)
    ]
    assert merge_summaries(tallies) == merge_summaries(tallies[::-1])
    assert (
        merge_summaries(tallies).rows,
        merge_summaries(tallies).positives,
        merge_summaries(tallies).histogram[0],
    ) == (10, 5, 10)
    assert merge_summaries([]) == ScoreSummary()


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "score needs params.pinned"),
        ({"pinned": {"version": "1", "digest": "x", "days": []}}, r"params\.pinned\.digest: "),
        ({"pinned": {"version": "../1", "digest": "a" * 64, "days": []}}, r"params\.pinned\.version: "),
        ({"pinned": {"version": "1", "digest": "a" * 64, "days": []}}, r"params\.pinned\.days: "),
    ],
)
def test_a_request_that_does_not_pin_what_it_scores_is_refused_by_field(params, says):
    with pytest.raises(RequestInvalid, match=says):
        parse_pinned(params)


def test_a_snapshot_without_what_the_model_reads_is_refused():
    with pytest.raises(DataRefused, match=r"no column a, b, which the model reads"):
        require_columns(snapshot(FIRST, columns=("id",)), "id", ["a", "b"])


@pytest.mark.parametrize("name", scoring.RESULT_COLUMNS)
def test_an_id_that_would_hide_a_column_of_the_result_is_refused(name):
    with pytest.raises(DataRefused, match="rename the id column"):
        require_columns(snapshot(FIRST, columns=(name,)), name, [])


def test_a_range_that_ends_before_it_begins_is_told_as_such() -> None:
    with pytest.raises(RequestInvalid, match=r"The range from 2026-\S+ until 2026-\S+ ends before it begins; swap"):
        choose_days(HISTORY, LATER, (DAYS[1], DAYS[0]))
