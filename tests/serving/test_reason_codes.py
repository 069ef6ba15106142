from __future__ import annotations

import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from include import manifest
from include.kernel.errors import ManifestInvalid
from include.serving.explain.reason_codes import derive_code, find
from include.serving.spec import ReasonSpec

MOVED = {"Age": 0.3, "Income": -0.5, "Job": 0.1, "Home": 0.0, "Time in job": 0.3}


def codes(moved: dict[str, float], top: int = 4, sign: int = 1) -> list[str]:
    return [reason.code for reason in find(moved, {}, top, sign).reasons]


def test_reasons_are_what_raised_the_risk_most_first_and_equals_by_code():
    assert codes(MOVED) == ["AGE", "TIME_IN_JOB", "JOB"] and codes(MOVED, top=1) == ["AGE"]
    [against] = find(MOVED, {}, 4).mitigating
    assert (against.code, against.text, against.contribution) == ("INCOME", "Income lowered the risk", -0.5)


def test_the_adverse_outcome_may_be_the_negative_class():
    assert codes(MOVED, sign=-1) == ["INCOME"]


def test_the_manifest_names_codes_and_sentences():
    specs = {"Age": ReasonSpec(code="R07", text="Short credit history"), "Income": ReasonSpec(lowered="Good income")}
    found = find(MOVED, specs, 1)
    assert (found.reasons[0].code, found.reasons[0].text) == ("R07", "Short credit history")
    assert (found.mitigating[0].code, found.mitigating[0].text) == ("INCOME", "Good income")


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=5), st.randoms(use_true_random=False))
def test_neither_the_order_of_columns_nor_the_last_bits_change_what_is_told(values: list[float], by: random.Random):
    moved = dict(zip(MOVED, [round(value, 5) for value in values], strict=True))
    shuffled = list(moved.items())
    by.shuffle(shuffled)
    assert codes({column: value + by.uniform(-1e-13, 1e-13) for column, value in shuffled}) == codes(moved)


@pytest.mark.parametrize("column, code", [("Time in job", "TIME_IN_JOB"), ("größe", "GRÖSSE"), ("%", "COLUMN")])
def test_a_code_comes_from_the_columns_name(column: str, code: str):
    assert derive_code(column) == code


@pytest.mark.parametrize(
    "reasons, complaint",
    [
        ({"Agee": {"code": "A"}}, "serving.reasons names 'Agee'"),
        ({"Age": {"code": "JOB"}}, "gives 'Age' and 'Job' the code 'JOB'"),
        ({"Age": {"code": "a b"}}, "serving.reasons.Age.code"),
    ],
)
def test_reasons_that_cannot_be_told_apart_are_refused(reasons: dict, complaint: str):
    content = yaml.safe_load(manifest.DEFAULT_PATH.read_text())
    content["serving"]["reasons"] = reasons
    with pytest.raises(ManifestInvalid, match=complaint):
        manifest.parse(yaml.safe_dump(content))
