import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.model.schema import Column
from include.serving.exchange import Problem
from include.serving.protocols.request_body import check_rows, parse_json, parse_rows
from include.serving.slot.input_schema import InputSchema

AGE = Column(name="Age", kind="number", nullable=False)
DEBT = Column(name="Debt", kind="number")
JOB = Column(name="Job", kind="category", categories=("fixed", "freelance"))
COLUMNS = (AGE, DEBT, JOB)
SCHEMA = InputSchema(COLUMNS)

SECRET = "s3cret-of-a-person"
BAD: list[tuple[str, str, int, int | None, str | None]] = [
    ("no JSON", f"{SECRET}", 400, None, None),
    ("no text", "\udcff", 400, None, None),
    ("nothing", "", 400, None, None),
    ("too deep", "[" * 100_000, 400, None, None),
    ("a key twice", '{"row": {"Age": 1, "Age": 2}}', 400, None, None),
    ("a list", "[1]", 422, None, None),
    ("a bare value", "7", 422, None, None),
    ("row and rows", '{"row": {}, "rows": []}', 422, None, None),
    ("another key", f'{{"{SECRET}": 1}}', 422, None, None),
    ("no rows", '{"rows": []}', 422, None, "rows"),
    ("rows that are no list", '{"rows": {"Age": 1}}', 422, None, "rows"),
    ("too many rows", '{"rows": [{"Age": 1}, {"Age": 1}, {"Age": 1}, {"Age": 1}]}', 422, None, "rows"),
    ("a row that is no object", f'{{"rows": [{{"Age": 1}}, "{SECRET}"]}}', 422, 1, None),
    ("an unknown column", '{"row": {"Age": 1, "Shoe": 44}}', 422, 0, "Shoe"),
    ("an unknown column that is no name", f'{{"row": {{"Age": 1, "{SECRET}": 44}}}}', 422, 0, None),
    ("a column that is missing", '{"row": {"Debt": 1}}', 422, 0, "Age"),
    ("null where a value must be", '{"row": {"Age": null}}', 422, 0, "Age"),
    ("text for a number", f'{{"row": {{"Age": "{SECRET}"}}}}', 422, 0, "Age"),
    ("a number in quotes", '{"row": {"Age": "1.5"}}', 422, 0, "Age"),
    ("a flag for a number", '{"row": {"Age": true}}', 422, 0, "Age"),
    ("a list for a number", '{"row": {"Age": [1]}}', 422, 0, "Age"),
    ("NaN", '{"row": {"Age": NaN}}', 422, 0, "Age"),
    ("infinity", '{"row": {"Age": -Infinity}}', 422, 0, "Age"),
    ("1e400", '{"row": {"Age": 1e400}}', 422, 0, "Age"),
    ("an integer too large", '{"row": {"Age": 1' + "0" * 400 + "}}", 422, 0, "Age"),
    ("an integer too long to parse", '{"row": {"Age": 1' + "0" * 5000 + "}}", 422, 0, "Age"),
    ("a number for a category", '{"row": {"Age": 1, "Job": 31337}}', 422, 0, "Job"),
    ("a flag for a category", '{"row": {"Age": 1, "Job": false}}', 422, 0, "Job"),
]


@pytest.mark.parametrize(("what", "body", "status", "row", "field"), BAD, ids=[case[0] for case in BAD])
def test_a_bad_request_is_one_sentence_with_its_place(
    what: str, body: str, status: int, row: int | None, field: str | None
) -> None:
    problem = parse_rows(body.encode("utf-8", "surrogateescape"), SCHEMA, max_rows=3)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.row, problem.field) == (status, row, field)
    assert problem.message.endswith(".") and "\n" not in problem.message


@pytest.mark.parametrize("body", [case[1] for case in BAD], ids=[case[0] for case in BAD])
def test_a_refusal_never_repeats_what_was_sent(body: str) -> None:
    problem = parse_rows(body.encode("utf-8", "surrogateescape"), SCHEMA, max_rows=3)
    assert isinstance(problem, Problem)
    said = json.dumps(problem.build_document())
    assert SECRET not in said and "31337" not in said and "1.5" not in said


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ('{"row": {"Age": 3}}', [{"Age": 3.0, "Debt": None, "Job": None}]),
        ('{"row": {"Age": 3.5, "Debt": null, "Job": "fixed"}}', [{"Age": 3.5, "Debt": None, "Job": "fixed"}]),
        ('{"rows": [{"Age": 0}, {"Age": -1}]}', [{"Age": a, "Debt": None, "Job": None} for a in (0.0, -1.0)]),
    ],
)
def test_a_good_request_becomes_complete_rows(body: str, rows: list[dict[str, Any]]) -> None:
    assert parse_rows(body.encode(), SCHEMA, max_rows=3) == rows


def test_values_the_training_has_not_seen_pass_and_are_counted() -> None:
    """Age has bounds; Debt comes from an artifact that keeps none."""
    schema = InputSchema((AGE.model_copy(update={"low": 18.0, "high": 70.0}), DEBT, JOB))
    body = b"""{"rows": [{"Age": 17, "Debt": 1e308, "Job": "clown"}, {"Age": 71, "Debt": -1, "Job": "fixed"},
                        {"Age": 18, "Job": "clown"}, {"Age": 70, "Debt": 0}]}"""
    rows = parse_rows(body, schema, 4)
    assert not isinstance(rows, Problem)
    counted = {
        ("Age", "low"): 1,
        ("Age", "high"): 1,
        ("Debt", "missing"): 1,
        ("Job", "unseen"): 2,
        ("Job", "missing"): 1,
    }
    assert schema.count_anomalies(rows) == counted


EDGES = [True, "", "1.5", "a:b", 'a":', "fixed", 0, -0.0, 1e308, 10**400, 2**63 + 1, "\ud800", [], {"Age": 1}]
VALUES = st.sampled_from(EDGES) | st.none() | st.floats() | st.integers() | st.text(max_size=3)
ROWS = st.dictionaries(st.sampled_from(["Age", "Debt", "Job", "Shoe", "Job:"]), VALUES, max_size=4)
WHOLE = st.builds(lambda age, rest: {**rest, "Age": age}, st.integers() | st.floats(), ROWS)
PAYLOADS = st.dictionaries(st.sampled_from(["row", "rows"]), st.lists(ROWS | WHOLE | VALUES, max_size=4) | WHOLE)


@given(PAYLOADS | VALUES)
def test_the_quick_parser_changes_no_verdict(payload: Any) -> None:
    body = json.dumps(payload).encode()
    read = parse_json(body)
    found = parse_rows(body, SCHEMA, 3)
    if isinstance(read, dict) and read.keys() in ({"row"}, {"rows"}):
        rows = read["rows"] if "rows" in read else [read["row"]]
        assert repr(found) == repr(check_rows(rows, "rows", SCHEMA, 3))
    else:
        assert isinstance(found, Problem)


@pytest.mark.parametrize("body", ['{"row": {"Age": 1, "Age": 2}}', '{"rows": [{"Age": 1}], "rows": [{"Age": 2}]}'])
def test_a_key_that_stands_twice_is_found_by_its_colon(body: str) -> None:
    problem = parse_rows(body.encode(), SCHEMA, 3)
    assert isinstance(problem, Problem) and "the same key twice" in problem.message
