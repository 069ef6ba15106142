"""Every protocol is as strict as every other, and says the same; what only one of them has is in its own file."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.model.schema import Column
from include.serving.exchange import Problem, Row
from include.serving.slot.input_schema import InputSchema
from tests.serving.spoken import FORMS, IN_JSON, Literal, read

AGE = Column(name="Age", kind="number", nullable=False)
DEBT = Column(name="Debt", kind="number")
JOB = Column(name="Job", kind="category", categories=("fixed", "freelance"))
COLUMNS = (AGE, DEBT, JOB)
SECRET = "s3cret-of-a-person"
GOOD: Row = {"Age": 40.0, "Debt": None, "Job": "fixed"}

CELLS: list[tuple[str, str, Any]] = [
    ("text for a number", "Age", SECRET),
    ("a number in quotes", "Age", "31337"),
    ("a flag for a number", "Age", True),
    ("a list for a number", "Age", [31337]),
    ("an object for a number", "Debt", {SECRET: 31337}),
    ("null where a value must be", "Age", None),
    ("infinity", "Debt", Literal("Infinity")),
    ("minus infinity", "Debt", Literal("-Infinity")),
    ("1e400", "Age", Literal("1e400")),
    ("an integer of four hundred digits", "Age", Literal("31337" + "0" * 400)),
    ("an integer of five thousand digits", "Age", Literal("-31337" + "0" * 5000)),
    ("an integer of five thousand digits as a category", "Job", Literal("31337" + "0" * 5000)),
    ("a number for a category", "Job", 31337),
    ("a flag for a category", "Job", False),
    ("a list for a category", "Job", [SECRET]),
    ("half of a surrogate pair", "Job", Literal(rf'"{SECRET}\ud800"')),
]


@pytest.mark.parametrize("form", IN_JSON)
@pytest.mark.parametrize(("what", "field", "value"), CELLS, ids=[case[0] for case in CELLS])
def test_a_wrong_value_is_named_by_row_and_field_in_every_protocol(
    form: str, what: str, field: str, value: Any
) -> None:
    problem = read(form, *FORMS[form]([GOOD, {**GOOD, field: value}]), COLUMNS, 10)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.row, problem.field) == (422, 1, field)
    assert problem.message.startswith(f"{field} must ") and problem.message.endswith(".")
    assert SECRET not in problem.message and "31337" not in problem.message


@pytest.mark.parametrize("form", FORMS)
def test_a_column_the_model_does_not_have_is_refused_in_every_protocol(form: str) -> None:
    problem = read(form, *FORMS[form]([{**GOOD, "Shoe": 44.0}]), COLUMNS, 10)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.message, problem.field) == (422, "The model has no such column.", "Shoe")
    problem = read(form, *FORMS[form]([{**GOOD, SECRET: 44.0}]), COLUMNS, 10)
    assert isinstance(problem, Problem) and problem.field is None


@pytest.mark.parametrize("form", FORMS)
def test_a_column_that_must_be_given_is_asked_for_in_every_protocol(form: str) -> None:
    problem = read(form, *FORMS[form]([{"Debt": 1.0}]), COLUMNS, 10)
    assert problem == Problem(422, "Age must be given.", 0, "Age")


@pytest.mark.parametrize("form", FORMS)
def test_what_the_training_saw_missing_may_be_missing_in_every_protocol(form: str) -> None:
    rows = [GOOD, {"Age": 1.0, "Debt": 2.0, "Job": None}, GOOD]
    assert read(form, *FORMS[form](rows), COLUMNS, 10) == rows
    assert read(form, *FORMS[form]([{"Age": 1.0}]), COLUMNS, 10) == [{"Age": 1.0, "Debt": None, "Job": None}]


@pytest.mark.parametrize("form", FORMS)
def test_too_many_rows_are_refused_in_every_protocol(form: str) -> None:
    problem = read(form, *FORMS[form]([GOOD] * 4), COLUMNS, 3)
    assert isinstance(problem, Problem)
    assert (problem.status, problem.message) == (422, "A request may hold 3 rows at most; split it.")
    assert isinstance(read(form, *FORMS[form]([GOOD] * 3), COLUMNS, 3), list)


@pytest.mark.parametrize("form", FORMS)
def test_no_rows_are_refused_in_every_protocol(form: str) -> None:
    problem = read(form, *FORMS[form]([]), COLUMNS, 3)
    assert isinstance(problem, Problem) and problem.status == 422


@pytest.mark.parametrize("form", [form for form in IN_JSON if form != "native"])
def test_nan_is_missing_where_a_protocols_client_writes_missing_so(form: str) -> None:
    body, headers = FORMS[form]([{**GOOD, "Debt": Literal("NaN"), "Job": Literal("NaN")}])
    assert read(form, body, headers, COLUMNS, 3) == [{**GOOD, "Debt": None, "Job": None}]
    problem = read(form, *FORMS[form]([{**GOOD, "Age": Literal("NaN")}]), COLUMNS, 3)
    assert problem == Problem(422, "Age must be given.", 0, "Age")


BODIES: list[tuple[str, bytes, int, str]] = [
    ("nothing", b"", 400, "The body is empty; send rows."),
    ("bad UTF-8", b'{"rows": [{"Job": "\xff"}]}', 400, "The body is not UTF-8; send it so."),
    ("a surrogate in UTF-8", b'{"rows": [{"Job": "\xed\xa0\x80"}]}', 400, "The body is not UTF-8; send it so."),
    ("UTF-16", '{"rows": []}'.encode("utf-16"), 400, "The body is not UTF-8; send it so."),
    ("UTF-32", '{"rows": []}'.encode("utf-32-be"), 400, "The body is not JSON; send an object with rows."),
    ("a mark", b'\xef\xbb\xbf{"rows": []}', 400, "The body begins with a byte order mark; send JSON without one."),
    ("no JSON", SECRET.encode(), 400, "The body is not JSON; send an object with rows."),
    ("half a body", b'{"rows": [{"Age": ', 400, "The body is not JSON; send an object with rows."),
    ("two bodies", b'{"rows": []}{"rows": []}', 400, "The body is not JSON; send an object with rows."),
    ("lists too deep", b"[" * 100_000, 400, "The body is nested too deeply; send an object with rows."),
    ("objects too deep", b'{"a":' * 100_000, 400, "The body is nested too deeply; send an object with rows."),
    ("a long integer and no JSON", b"[" + b"1" * 5000 + b"x", 400, "The body is not JSON; send an object with rows."),
    ("a key twice", b'{"a": {"b": 1, "b": 2}}', 400, "The body holds the same key twice in one object; "),
    ("a list", b"[1]", 422, "The body must be "),
    ("a bare value", b"7", 422, "The body must be "),
    ("null", b"null", 422, "The body must be "),
    ("an empty object", b"{}", 422, "The body must be "),
    ("another key", f'{{"{SECRET}": 1}}'.encode(), 422, "The body must be "),
]  # fmt: skip


@pytest.mark.parametrize("form", ["native", "instances", "tensors"])
@pytest.mark.parametrize(("what", "body", "status", "message"), BODIES, ids=[case[0] for case in BODIES])
def test_a_body_that_is_no_request_is_refused_alike_in_every_protocol(
    form: str, what: str, body: bytes, status: int, message: str
) -> None:
    problem = read(form, body, {}, COLUMNS, 3)
    assert isinstance(problem, Problem)
    assert problem.status == status and problem.message.startswith(message)
    assert SECRET not in json.dumps(problem.build_document())


numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1)
rows = st.lists(
    st.fixed_dictionaries({"Age": numbers, "Debt": numbers | st.none(), "Job": texts | st.none()}),
    min_size=1,
    max_size=5,
)


@given(rows, st.sampled_from(list(FORMS)))
def test_any_rows_arrive_the_same_in_every_form(rows: list[Row], form: str) -> None:
    assert read(form, *FORMS[form](rows), COLUMNS, 5) == rows


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["Age", "Job"]), inner),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(st.sampled_from(["Age", "Debt", "Job", "Shoe"]), anything) | anything, max_size=3))
def test_the_quick_check_of_a_row_and_the_one_that_says_why_agree(rows: list[Any]) -> None:
    found = InputSchema(COLUMNS).check_rows(rows)
    if isinstance(found, Problem):
        assert found.row is not None and found.status == 422
    else:
        assert [set(row) for row in found] == [{"Age", "Debt", "Job"}] * len(rows)


KEYS = ["rows", "row", "inputs", "instances", "dataframe_split", "dataframe_records", "columns", "data", "outputs",
        "id", "parameters", "name", "shape", "datatype", "binary_data_size", "Age", "Job"]  # fmt: skip
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 9)
    | st.floats()
    | st.sampled_from([*KEYS, "FP64", "BYTES", "INT8", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)
BYTES_BEHIND = st.binary(max_size=40)


@given(documents, BYTES_BEHIND, st.sampled_from(list(FORMS)), st.sampled_from(["json", "csv", "bytes", "wrong"]))
def test_no_document_makes_a_protocol_fail(document: Any, raw: bytes, form: str, kind: str) -> None:
    head = json.dumps(document).encode()
    body = head + raw if kind in ("bytes", "wrong") else head
    length = {"bytes": str(len(head)), "wrong": "99"}.get(kind)
    headers = {"content-type": "text/csv" if kind == "csv" else "application/json"}
    found = read(form, body, headers | ({"inference-header-content-length": length} if length else {}), COLUMNS, 3)
    if isinstance(found, Problem):
        assert found.status in (400, 415, 422) and found.message.endswith(".") and "\n" not in found.message
    else:
        assert all(row["Age"] is not None for row in found)


@given(st.binary(max_size=60), st.sampled_from(list(FORMS)), st.sampled_from(["application/json", "text/csv"]))
def test_no_bytes_make_a_protocol_fail(body: bytes, form: str, kind: str) -> None:
    assert isinstance(read(form, body, {"content-type": kind}, COLUMNS, 3), list | Problem)
