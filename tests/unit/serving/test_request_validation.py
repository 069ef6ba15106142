import json
from typing import Any

import pytest

from include.model.schema import Column
from include.serving.validation import InputSchema, Problem, rows_of, unseen

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
    problem = rows_of(body.encode("utf-8", "surrogateescape"), SCHEMA, max_rows=3)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.row, problem.field) == (status, row, field)
    assert problem.message.endswith(".") and "\n" not in problem.message


@pytest.mark.parametrize("body", [case[1] for case in BAD], ids=[case[0] for case in BAD])
def test_a_refusal_never_repeats_what_was_sent(body: str) -> None:
    problem = rows_of(body.encode("utf-8", "surrogateescape"), SCHEMA, max_rows=3)
    assert isinstance(problem, Problem)
    said = json.dumps(problem.document())
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
    assert rows_of(body.encode(), SCHEMA, max_rows=3) == rows


def test_unseen_categories_pass_and_are_counted() -> None:
    rows = rows_of(b'{"rows": [{"Age": 1, "Job": "clown"}, {"Age": 1, "Job": "fixed"}, {"Age": 1}]}', SCHEMA, 3)
    assert not isinstance(rows, Problem)
    assert unseen(rows, COLUMNS) == {"Job": 1}
