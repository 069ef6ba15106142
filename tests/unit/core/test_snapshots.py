from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.errors import NotEnoughData
from include.core.manifest import LabelSpec, TrainSpec
from include.core.snapshots import Snapshot, labelled_rows, matured, split, visible

FIRST = date(2026, 8, 1)


def snapshot(day: int, rows: int = 100) -> Snapshot:
    content = {"columns": ("a",), "source": "test", "manifest": "m", "expectations": 1}
    return Snapshot(id=f"day-{day}", day=FIRST + timedelta(days=day), rows=rows, **content)


def label(delay: int) -> LabelSpec:
    return LabelSpec(column="y", positive="bad", negative="good", delay_days=delay)


def training(window: int = 10, holdout: int = 2, min_rows: int = 1) -> TrainSpec:
    return TrainSpec(window_days=window, holdout_days=holdout, min_rows=min_rows, seed=0, candidates={"logistic": {}})


days = st.integers(0, 40)
as_ofs = days.map(lambda day: FIRST + timedelta(days=day))
delays = st.integers(0, 10)


def dealt(least: int) -> st.SearchStrategy[list[Snapshot]]:
    """Days with gaps and in no order; a store gives one snapshot a day."""
    found = st.dictionaries(days, st.integers(1, 500), min_size=least, max_size=40)
    return found.map(lambda rows: [snapshot(*item) for item in rows.items()])


snapshots = dealt(0)


@st.composite
def enough(draw: st.DrawFn) -> tuple[list[Snapshot], date, LabelSpec, TrainSpec]:
    """A situation in which a training is possible: more days have matured than are held out."""
    found, delay, holdout = draw(dealt(2)), draw(delays), draw(st.integers(1, 5))
    known = sorted(s.day for s in found)
    holdout = min(holdout, len(known) - 1)
    newest = draw(st.sampled_from(known[holdout:]))
    window = draw(st.integers(holdout + 1, 30))
    return found, newest + timedelta(days=delay), label(delay), training(window, holdout)


@given(enough())
def test_a_split_never_leaks(situation: tuple[list[Snapshot], date, LabelSpec, TrainSpec]) -> None:
    _, as_of, labels, train = situation
    parts = split(*situation)
    assert max(s.day for s in parts.train) < min(s.day for s in parts.holdout)
    assert all(s.day + timedelta(days=labels.delay_days) <= as_of for s in (*parts.train, *parts.holdout))
    assert len(parts.holdout) == train.holdout_days
    assert 0 < len(parts.train) <= train.window_days - train.holdout_days


@given(enough())
def test_what_happens_later_never_changes_a_split(
    situation: tuple[list[Snapshot], date, LabelSpec, TrainSpec],
) -> None:
    found, as_of, labels, train = situation
    assert split([s for s in found if s.day <= as_of], as_of, labels, train) == split(*situation)


@given(enough())
def test_a_split_takes_the_newest_days_whose_labels_are_known(
    situation: tuple[list[Snapshot], date, LabelSpec, TrainSpec],
) -> None:
    found, as_of, labels, train = situation
    parts = split(*situation)
    newest = matured(found, as_of, labels)[-train.window_days :]
    assert (*parts.train, *parts.holdout) == tuple(newest)
    assert parts.ids == tuple(s.id for s in newest)


@given(snapshots, as_ofs)
def test_days_up_to_and_including_as_of_are_visible_oldest_first(found: list[Snapshot], as_of: date) -> None:
    seen = visible(found, as_of)
    assert {s.id for s in seen} == {s.id for s in found if s.day <= as_of}
    assert [s.day for s in seen] == sorted(s.day for s in seen)


def test_a_label_is_known_from_the_very_day_it_matures() -> None:
    one = [snapshot(0)]
    assert matured(one, FIRST + timedelta(days=2), label(3)) == []
    assert matured(one, FIRST + timedelta(days=3), label(3)) == one


@given(snapshots, as_ofs, as_ofs, delays)
def test_labelled_rows_since_a_day_are_those_known_now_and_not_then(
    found: list[Snapshot], as_of: date, since: date, delay: int
) -> None:
    now, then = (labelled_rows(found, moment, label(delay)) for moment in (as_of, since))
    assert labelled_rows(found, as_of, label(delay), since) == max(0, now - then)


@pytest.mark.parametrize(
    ("count", "min_rows"), [(0, 1), (2, 1), (3, 301)], ids=["nothing", "holdout only", "too few rows"]
)
def test_too_little_data_is_told_with_what_is_known_and_what_is_asked_for(count: int, min_rows: int) -> None:
    found = [snapshot(day) for day in range(count)]
    with pytest.raises(NotEnoughData) as refused:
        split(found, FIRST + timedelta(days=40), label(3), training(min_rows=min_rows))
    assert f"only {count * 100} labelled rows on {count} days" in str(refused.value)
    assert f"train.min_rows asks for {min_rows} rows on more than 2 days" in str(refused.value)
