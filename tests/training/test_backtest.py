from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.data.core.snapshots import Snapshot
from include.data.spec import LabelSpec
from include.kernel.errors import NotEnoughData
from include.training.core.backtest import Estimate, Fold, ModelEvaluation, find_judging_days, has_mixed_code
from tests.described import snapshot as described

FIRST = date(2026, 8, 1)


def on(day: int) -> date:
    return FIRST + timedelta(days=day)


def label(delay: int) -> LabelSpec:
    return LabelSpec(column="y", positive="bad", negative="good", delay_days=delay)


def history(days: int, **corrected: int) -> list[Snapshot]:
    """Days known on time; `day_3=20` means that day 3 was corrected by a version known on day 20."""
    found = [described(id=f"{day}-0", day=on(day), rows=9, known_on=on(day + 1)) for day in range(days)]
    for name, later in corrected.items():
        day = int(name.removeprefix("day_"))
        found.append(described(id=f"{day}-1", day=on(day), rows=9, known_on=on(later)))
    return found


@given(st.integers(0, 20), st.integers(0, 5), st.integers(1, 9))
def test_what_judges_follows_what_was_known_and_its_labels_had_matured(as_of: int, delay: int, follow: int) -> None:
    found = find_judging_days(history(60), on(as_of), label(delay), follow)
    assert [snapshot.day for snapshot in found.days] == [on(as_of + number) for number in range(follow)]
    assert all(snapshot.known_from > on(as_of) for snapshot in found.days)  # no training of that day saw one of them
    assert all(snapshot.day + timedelta(days=delay) <= found.judged_on for snapshot in found.days)


@given(st.integers(0, 20), st.integers(0, 5), st.integers(1, 9), st.integers(1, 9))
def test_what_becomes_known_after_the_judging_changes_no_fold(as_of: int, delay: int, follow: int, late: int) -> None:
    then = find_judging_days(history(60), on(as_of), label(delay), follow)
    corrected = described(id="x", day=on(as_of), rows=1, known_on=then.judged_on + timedelta(days=late))
    assert find_judging_days([*history(60), corrected], on(as_of), label(delay), follow) == then


def test_a_correction_known_by_the_judging_counts() -> None:
    found = find_judging_days(history(30, day_3=8), on(2), label(1), 7)
    assert [snapshot.id for snapshot in found.days][:3] == ["2-0", "3-1", "4-0"]


@pytest.mark.parametrize(("days", "told"), [(10, "knows nothing after 2026-08-11"), (0, "knows nothing after None")])
def test_a_fold_whose_future_is_not_known_yet_says_what_is(days: int, told: str) -> None:
    with pytest.raises(NotEnoughData, match=told):
        find_judging_days(history(days), on(5), label(3), 7)


def test_a_fold_without_a_single_day_after_it_says_so() -> None:
    gap = [snapshot for snapshot in history(40) if not 5 <= (snapshot.day - FIRST).days < 12]
    with pytest.raises(NotEnoughData, match="None of the 7 days from 2026-08-06 on is known"):
        find_judging_days(gap, on(5), label(3), 7)


def fold(**told: object) -> Fold:
    one = Estimate(value=0.8, low=0.7, high=0.9)
    judged = ModelEvaluation(as_of=FIRST, candidate="logistic", digest="d", auc=one, cost=one)
    content = {"rows": 9, "positives": 3, "trained_rows": 50, "trained_on": ("a",), "judged_by": ("b",)}
    days = {"as_of": FIRST, "first": FIRST, "last": FIRST, "before": None, "saved": None}
    return Fold.model_validate({**content, **days, "model": judged, "manifest": "m", "code": "c", **told})


def test_folds_of_different_code_are_told_apart() -> None:
    assert not has_mixed_code([fold(), fold()])
    assert has_mixed_code([fold(), fold(code="another")])


def test_the_page_shows_each_fold_warns_of_mixed_code_and_escapes_what_it_is_given() -> None:
    from include.training.backtest_page import render_backtest_page

    evil = ModelEvaluation.model_validate({**fold().model.model_dump(), "candidate": "<script>alert(1)</script>"})
    told = render_backtest_page([fold(), fold(as_of=on(7), code="another", model=evil, before=evil, saved=evil.cost)])
    assert "<script>" not in told and "&lt;script&gt;alert(1)" in told
    assert "2 folds" in told and "2026-08-08" in told and "different versions of the code" in told
    assert "different versions" not in render_backtest_page([fold()])
    assert told.count("<circle") == 3
