"""What two slots made of the same requests, and what follows from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.data.spec import GroupsSpec
from include.kernel.words.groups import name_slices
from include.kernel.words.verdicts import Verdict
from include.release.core.shadow import (
    ShadowAnswer,
    ShadowComparison,
    build_report,
    compare,
    find_latency_quantile,
    judge,
)
from include.release.spec import ShadowSpec

SPEC = ShadowSpec(min_requests=10, slice_rows=5)
SAME = ShadowAnswer(0.01, (0.2,), (False,), (("Home=rent",),))
OTHER_SLICE = replace(SAME, slices=(("Home=owner",),))
FLIPPED = ShadowAnswer(0.01, (0.3,), (True,))
SLOW = replace(SAME, seconds=0.05)
MUTE = ShadowAnswer(0.01)


def told(pairs: list[tuple[ShadowAnswer, ShadowAnswer | None]], **changes: object) -> tuple[Verdict, str]:
    found = judge(compare(pairs), SPEC.model_copy(update=changes))
    return found.verdict, found.why


def test_a_candidate_that_answers_alike_passes_once_there_are_enough_requests() -> None:
    assert told([(SAME, SAME)] * 9) == (Verdict.PENDING, "9 of 10 requests compared")
    verdict, why = told([(SAME, SAME)] * 10)
    assert verdict is Verdict.PASSED
    assert why.startswith("10 requests compared: 0.0% of the decisions flipped, scores moved by 0.000, 0.0% errors")


@pytest.mark.parametrize(
    "candidate, said",
    [
        (None, "100.0% were not answered, max_errors allows 1.0%"),
        (MUTE, "100.0% were not answered"),
        (ShadowAnswer(0.01, (0.2, 0.2), (False, False)), "100.0% were not answered"),
        (FLIPPED, "100.0% of the decisions flipped, max_flips allows 25.0%"),
        (ShadowAnswer(0.01, (0.4,), (False,)), "scores moved by 0.200 on average, max_score_delta allows 0.150"),
        (SLOW, "times as long, max_latency_ratio is 2.5"),
    ],
    ids=["silence", "refusal", "other rows", "flips", "scores", "latency"],
)
def test_each_limit_turns_a_candidate_down_with_a_sentence_and_never_early(candidate, said) -> None:
    assert told([(SAME, candidate)] * 9)[0] is Verdict.PENDING
    verdict, why = told([(SAME, candidate)] * 10)
    assert verdict is Verdict.FAILED and said in why


def test_a_slice_is_judged_apart_when_it_has_enough_rows() -> None:
    pairs: list[tuple[ShadowAnswer, ShadowAnswer | None]] = [(OTHER_SLICE, OTHER_SLICE)] * 30 + [(SAME, FLIPPED)] * 5
    assert told(pairs) == (
        Verdict.FAILED,
        "35 requests compared: 100.0% of the decisions flipped where Home=rent, slice_flips allows 40.0%",
    )
    assert told(pairs, slice_rows=6)[0] is Verdict.PASSED


def test_the_report_says_all_of_it_in_shares_and_milliseconds() -> None:
    found = build_report(compare([(SAME, FLIPPED), (SAME, SAME), (OTHER_SLICE, OTHER_SLICE), (SAME, None)]))
    assert (found["requests"], found["rows"], found["errors"]) == (4, 3, 0.25)
    assert found["flips"] == pytest.approx(1 / 3) and found["largest"] == pytest.approx(0.1)
    assert found["slices"]["Home=rent"]["flips"] == 0.5 and found["slices"]["Home=owner"]["flips"] == 0
    assert found["latency_ms"]["live"]["p50"] == pytest.approx(10, rel=0.25)


def test_a_row_belongs_to_its_categories_and_bands_and_to_none_where_it_is_empty() -> None:
    spec, known = GroupsSpec(business=("Home", "Job", "Age"), bands={"Age": (30.0, 45.0)}), {"Home": {"rent"}}
    ages = [name_slices({"Home": "rent", "Age": age}, spec, known)[1] for age in (29.5, 30.0, 44.9, 45.0)]
    assert ages == ["Age=<30", "Age=30-45", "Age=30-45", "Age=>=45"]
    assert name_slices({"Home": None, "Age": None}, spec, known) == ()
    assert name_slices({"Home": "somebody's name", "Job": "any"}, spec, known) == ()


PAIRS = st.lists(st.sampled_from([(SAME, SAME), (SAME, FLIPPED), (OTHER_SLICE, SLOW), (SAME, None)]), max_size=12)


@given(PAIRS, PAIRS)
def test_two_looks_added_are_one_long_look(first, second) -> None:
    together, apart = compare(first + second), compare(first) + compare(second)
    assert replace(together, all=apart.all, slices=apart.slices) == apart
    assert together.all.delta == pytest.approx(apart.all.delta) and set(together.slices) == set(apart.slices)


def test_a_quantile_is_the_bound_of_the_bin_that_reaches_it() -> None:
    bins = compare([(replace(SAME, seconds=seconds), SAME) for seconds in (0.001, 0.001, 0.001, 1.0)]).live
    assert find_latency_quantile(bins, 0.5) == pytest.approx(0.001, rel=0.25)
    assert find_latency_quantile(bins, 0.99) == pytest.approx(1.0, rel=0.25)
    assert find_latency_quantile(ShadowComparison().live, 0.5) is None
