from __future__ import annotations

import json
from datetime import date
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.kernel.errors import Permanent, RequestInvalid
from include.kernel.job import (
    REQUEST_VARIABLE,
    Intent,
    JobRequest,
    JobResult,
    build_run_key,
    derive_intent,
    read_request,
)

REQUEST = JobRequest(job="train", run_key="abc", as_of=date(2026, 9, 1), intent=Intent.LIVE, params={"rows": 3})


def test_a_request_survives_the_way_through_an_environment_variable() -> None:
    assert read_request(REQUEST.model_dump_json()) == REQUEST


def test_a_result_survives_the_way_through_a_file() -> None:
    result = JobResult(job="gate", run_key="abc", verdict="no", summary="refused", outputs={"auc": 0.7})
    assert JobResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize("text", [None, ""])
def test_an_absent_request_is_told_with_the_variable_to_set(text: str | None) -> None:
    with pytest.raises(RequestInvalid, match=f"set {REQUEST_VARIABLE}"):
        read_request(text)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"protocol": 2}, "protocol"),
        ({"intent": "perhaps"}, "intent"),
        ({"as_of": "yesterday"}, "as_of"),
        ({"run_key": ""}, "run_key"),
        ({"now": "12:00"}, "now"),
        ({"params": [1]}, "params"),
    ],
)
def test_a_malformed_request_is_told_with_the_field_that_is_wrong(change: dict[str, object], place: str) -> None:
    content = json.loads(REQUEST.model_dump_json()) | change
    with pytest.raises(RequestInvalid, match=f"^{REQUEST_VARIABLE}: {place}: "):
        read_request(json.dumps(content))


def test_text_that_is_no_json_is_told_so() -> None:
    with pytest.raises(RequestInvalid, match="the document: Invalid JSON"):
        read_request("{job: train}")


def test_a_malformed_request_is_never_worth_a_retry() -> None:
    assert issubclass(RequestInvalid, Permanent)


def test_the_day_a_job_may_know_has_no_default() -> None:
    assert JobRequest.model_fields["as_of"].is_required()
    assert JobRequest.model_fields["intent"].is_required()


@given(st.lists(st.text()), st.lists(st.text()))
def test_a_run_key_is_short_stable_and_tells_different_parts_apart(one: list[str], two: list[str]) -> None:
    assert build_run_key(*one) == build_run_key(*one)
    assert len(build_run_key(*one)) == 16
    assert (build_run_key(*one) == build_run_key(*two)) is (one == two)


def test_a_run_key_does_not_run_its_parts_together() -> None:
    assert build_run_key("ab", "c") != build_run_key("a", "bc")


@pytest.mark.parametrize(("first", "second"), list(product([None, "", *Intent], repeat=2)))
def test_a_backfill_is_historical_whatever_is_declared(first: str | None, second: str | None) -> None:
    assert derive_intent("backfill", first, second) is Intent.HISTORICAL


@pytest.mark.parametrize("run_type", ["manual", "scheduled", "asset_triggered"])
@pytest.mark.parametrize(
    ("declared", "meant"),
    [
        ((), Intent.LIVE),
        ((None, ""), Intent.LIVE),
        (("rehearsal",), Intent.REHEARSAL),
        ((None, "historical"), Intent.HISTORICAL),
        (("rehearsal", "live"), Intent.REHEARSAL),
    ],
)
def test_any_other_run_has_the_first_intent_declared(
    run_type: str, declared: tuple[str | None, ...], meant: Intent
) -> None:
    assert derive_intent(run_type, *declared) is meant


def test_a_word_that_is_no_intent_is_told_with_those_there_are() -> None:
    with pytest.raises(
        RequestInvalid, match="There is no intent 'nonsense'; choose one of live, historical, rehearsal"
    ):
        derive_intent("manual", None, "nonsense")
