from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.data.core.snapshots import (
    Snapshot,
    Split,
    Version,
    compute_horizon,
    compute_known_on,
    count_labelled_rows,
    enter_version,
    find_dropped_entities,
    select_matured,
    select_visible,
    split,
)
from include.data.spec import LabelSpec
from include.kernel.errors import DataRefused, NotEnoughData
from include.kernel.job import Intent
from include.training.spec import TrainSpec
from tests.described import snapshot as described

FIRST = date(2026, 8, 1)
History = list[Snapshot]
Situation = tuple[History, date, LabelSpec, TrainSpec]


def on(day: int) -> date:
    return FIRST + timedelta(days=day)


def snapshot(day: int, rows: int = 100, version: int = 0, known: date | None = None) -> Snapshot:
    return described(id=f"day-{day}-{version}", day=on(day), rows=rows, known_on=known)


def label(delay: int) -> LabelSpec:
    return LabelSpec(column="y", positive="bad", negative="good", delay_days=delay)


def training(window: int = 10, holdout: int = 2, calibration: int = 0, min_rows: int = 1) -> TrainSpec:
    days = {"window_days": window, "holdout_days": holdout, "calibration_days": calibration}
    return TrainSpec(**days, min_rows=min_rows, seed=0, candidates={"logistic": {}})


days = st.integers(0, 40)
as_ofs = st.integers(0, 60).map(on)
delays = st.integers(0, 10)
versions = st.lists(st.tuples(st.integers(1, 15), st.integers(1, 500)), min_size=1, max_size=3)  # days later, rows


def history_of(dealt: dict[int, list[tuple[int, int]]]) -> History:
    """Days with gaps, some of them late, some corrected up to twice, in no order between the days."""
    found = []
    for day, deliveries in dealt.items():
        known = on(day)
        for number, (later, rows) in enumerate(deliveries):
            known += timedelta(days=later)
            found.append(snapshot(day, rows, number, known))
    return found


def dealt(least: int) -> st.SearchStrategy[History]:
    return st.dictionaries(days, versions, min_size=least, max_size=40).map(history_of)


histories = dealt(0)


@st.composite
def enough(draw: st.DrawFn) -> Situation:
    """A situation in which a training is possible: more days have matured than are set aside."""
    found, delay = draw(dealt(3)), draw(delays)
    as_of = max(s.known_from for s in found) if draw(st.booleans()) else draw(as_ofs)
    count = len(select_matured(found, as_of, label(delay)))
    if count < 2:
        as_of = max(max(s.known_from, s.day + timedelta(days=delay)) for s in found)
        count = len(select_matured(found, as_of, label(delay)))
    holdout = draw(st.integers(1, min(5, count - 1)))
    calibration = draw(st.integers(0, min(4, count - holdout - 1)))
    window = draw(st.integers(holdout + calibration + 1, 30))
    return found, as_of, label(delay), training(window, holdout, calibration)


class TestKnowledge:
    @given(histories, as_ofs)
    def test_as_of_a_day_every_day_shows_the_last_version_known_by_then(self, found: History, as_of: date) -> None:
        then = defaultdict(list)
        for one in found:
            if one.known_from <= as_of:
                then[one.day].append(one)
        expected = {day: max(seen, key=lambda s: s.known_from) for day, seen in then.items()}
        assert select_visible(found, as_of) == [expected[day] for day in sorted(expected)]

    @given(st.integers(0, 40), st.integers(0, 60))
    def test_rows_are_never_known_before_their_day_has_ended_nor_before_they_came(self, day: int, as_of: int) -> None:
        assert compute_known_on(on(day), on(as_of)) == max(on(day + 1), on(as_of))

    def test_a_late_day_is_absent_before_it_came(self) -> None:
        late = [snapshot(0, known=compute_known_on(on(0), on(9)))]
        assert select_visible(late, on(8)) == [] and select_visible(late, on(9)) == late

    def test_a_label_is_known_from_the_very_day_it_matures(self) -> None:
        one = [snapshot(0)]
        assert select_matured(one, on(2), label(3)) == []
        assert select_matured(one, on(3), label(3)) == one

    @given(histories)
    def test_as_of_the_horizon_everything_is_known(self, found: History) -> None:
        end = compute_horizon(found)
        assert (end is None) == (not found)
        assert select_visible(found, end or FIRST) == select_visible(found, date.max)

    @given(histories, as_ofs, as_ofs, delays)
    def test_labelled_rows_since_a_day_are_those_of_days_that_had_none_then(
        self, found: History, as_of: date, since: date, delay: int
    ) -> None:
        then = {s.day for s in select_matured(found, since, label(delay))}
        now = [s for s in select_matured(found, as_of, label(delay)) if s.day not in then]
        assert count_labelled_rows(found, as_of, label(delay), since) == sum(s.rows for s in now)


class TestEntering:
    ONE = Version(id="a" * 64, known_on=on(1))

    def enter(self, *found: Version, intent: Intent = Intent.LIVE, day: int = 0) -> tuple[Version, ...]:
        history: tuple[Version, ...] = ()
        for version in found:
            history = enter_version(history, version, on(day), intent)
        return history

    @pytest.mark.parametrize("intent", list(Intent))
    @pytest.mark.parametrize("known", [1, 9])
    def test_the_same_rows_again_change_nothing_whenever_and_why_ever(self, intent: Intent, known: int) -> None:
        again = Version(id=self.ONE.id, known_on=on(known))
        assert enter_version((self.ONE,), again, on(0), intent) == (self.ONE,)

    @pytest.mark.parametrize("intent", list(Intent))
    def test_a_correction_known_later_is_a_new_version(self, intent: Intent) -> None:
        later = Version(id="b" * 64, known_on=on(5))
        assert self.enter(self.ONE, later, intent=intent) == (self.ONE, later)

    def test_going_back_to_the_first_rows_is_a_version_too(self) -> None:
        found = self.enter(self.ONE, Version(id="b", known_on=on(5)), Version(id=self.ONE.id, known_on=on(6)))
        assert [version.id[0] for version in found] == ["a", "b", "a"]

    def test_a_backfill_that_delivers_corrected_rows_again_changes_nothing(self) -> None:
        corrected = self.enter(self.ONE, Version(id="b", known_on=on(5)))
        assert enter_version(corrected, Version(id="b", known_on=on(1)), on(0), Intent.HISTORICAL) == corrected

    def test_a_live_run_may_correct_a_day_on_the_day_it_became_known(self) -> None:
        assert self.enter(self.ONE, Version(id="b", known_on=on(1)))[-1].id == "b"

    @pytest.mark.parametrize(
        ("known", "intent"),
        [(1, Intent.HISTORICAL), (0, Intent.HISTORICAL), (0, Intent.LIVE)],
    )
    def test_the_past_is_not_rewritten_and_the_sentence_says_what_to_do(self, known: int, intent: Intent) -> None:
        with pytest.raises(DataRefused) as refused:
            enter_version((self.ONE,), Version(id="b", known_on=on(known)), on(0), intent)
        assert str(refused.value) == (
            "2026-08-01 now holds other rows than snapshot aaaaaaaaaaaa, known since 2026-08-02, and the past is not "
            "rewritten: to correct the day, run ingest for it with as_of after 2026-08-02."
        )

    @given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from("abc"), st.sampled_from(list(Intent))), max_size=12))
    def test_no_historical_run_and_no_later_one_ever_changes_what_a_day_knew(
        self, deliveries: list[tuple[int, str, Intent]]
    ) -> None:
        history: tuple[Version, ...] = ()
        for known, name, intent in deliveries:
            try:
                after = enter_version(history, Version(id=name, known_on=on(known)), on(0), intent)
            except DataRefused:
                continue
            assert after[: len(history)] == history
            assert [v.known_on for v in after] == sorted(v.known_on for v in after)
            if history and (intent is not Intent.LIVE or known > history[-1].known_on.toordinal() - FIRST.toordinal()):
                for day in range(known):
                    assert last(after, day) == last(history, day)
            history = after


def last(history: tuple[Version, ...], day: int) -> str | None:
    return next((version.id for version in reversed(history) if version.known_on <= on(day)), None)


class TestSplit:
    @given(enough())
    def test_a_split_never_leaks(self, situation: Situation) -> None:
        _, as_of, labels, train = situation
        parts = split(*situation)
        used = [*parts.train, *parts.calibration, *parts.holdout]
        assert [s.day for s in used] == sorted({s.day for s in used})  # in time, no day twice
        assert all(s.day + timedelta(days=labels.delay_days) <= as_of for s in used)
        assert all(s.known_from <= as_of for s in used)
        assert (len(parts.holdout), len(parts.calibration)) == (train.holdout_days, train.calibration_days)
        assert 0 < len(parts.train) <= train.window_days - train.holdout_days - train.calibration_days

    @given(enough(), histories)
    def test_what_becomes_known_later_never_changes_a_split(self, situation: Situation, more: History) -> None:
        found, as_of, labels, train = situation
        later = [s.model_copy(update={"known_on": max(s.known_from, as_of + timedelta(days=1))}) for s in more]
        assert split([*found, *later], as_of, labels, train) == split(*situation)
        assert split([s for s in found if s.known_from <= as_of], as_of, labels, train) == split(*situation)

    @given(enough(), st.randoms())
    def test_the_order_in_which_a_store_lists_its_days_does_not_matter(self, situation: Situation, random) -> None:  # type: ignore[no-untyped-def]
        found, *rest = situation
        shuffled = random.sample(found, len(found))
        assert split(shuffled, *rest) == split(*situation)

    @given(enough())
    def test_a_split_takes_the_newest_days_whose_labels_are_known(self, situation: Situation) -> None:
        found, as_of, labels, train = situation
        parts = split(*situation)
        newest = select_matured(found, as_of, labels)[-train.window_days :]
        assert (*parts.train, *parts.calibration, *parts.holdout) == tuple(newest)
        assert parts.ids == tuple(s.id for s in newest)

    @pytest.mark.parametrize(
        ("count", "min_rows", "calibration"),
        [(0, 1, 0), (2, 1, 0), (3, 1, 1), (3, 301, 0)],
        ids=["nothing", "holdout only", "set aside only", "too few rows"],
    )
    def test_too_little_data_is_told_with_what_is_known_and_what_is_asked_for(
        self, count: int, min_rows: int, calibration: int
    ) -> None:
        found = [snapshot(day) for day in range(count)]
        with pytest.raises(NotEnoughData) as refused:
            split(found, on(40), label(3), training(min_rows=min_rows, calibration=calibration))
        assert f"only {count * 100} labelled rows on {count} days" in str(refused.value)
        assert f"train.min_rows asks for {min_rows} rows on more than {2 + calibration} days" in str(refused.value)


class TestEntities:
    PARTS = Split(train=(snapshot(0),), calibration=(snapshot(1),), holdout=(snapshot(2),), entity="customer")
    people = st.sets(st.one_of(st.none(), st.integers(0, 9)))

    @given(people, people, people)
    def test_nobody_is_in_two_parts_and_the_holdout_loses_no_one(
        self, first: set[int | None], middle: set[int | None], newest: set[int | None]
    ) -> None:
        kept = {
            "train": first - find_dropped_entities(first, middle | newest),
            "calibration": middle - find_dropped_entities(middle, newest),
            "holdout": newest - find_dropped_entities(newest, set()),
        }
        named = [part - {None} for part in kept.values()]
        assert len(set.union(*named)) == sum(map(len, named))
        assert kept["holdout"] == newest
        assert set.union(*kept.values()) == first | middle | newest

    def test_what_is_later_than_a_part_are_the_parts_after_it(self) -> None:
        assert self.PARTS.list_later_days("train") == (snapshot(1), snapshot(2))
        assert self.PARTS.list_later_days("calibration") == (snapshot(2),)
        assert self.PARTS.list_later_days("holdout") == ()
