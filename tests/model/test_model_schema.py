import math

import numpy as np
import pandas as pd
import pytest

from include.model.schema import Column, build_frame, conform, describe

AGE = Column(name="age", kind="number")
JOB = Column(name="job", kind="category")


def test_a_frame_has_the_declared_columns_in_the_declared_order() -> None:
    table = build_frame([{"job": "fixed", "age": 3, "extra": 1}], [AGE, JOB])
    assert list(table.columns) == ["age", "job"]
    assert table["age"].dtype == np.float64 and table["job"].dtype == object


def test_what_is_missing_is_nan_for_a_number_and_none_for_a_category() -> None:
    table = build_frame([{}, {"age": None, "job": math.nan}], [AGE, JOB])
    assert table["age"].isna().all()
    assert list(table["job"]) == [None, None]


def test_types_do_not_depend_on_which_values_a_batch_happens_to_hold() -> None:
    whole, holes = build_frame([{"age": 1, "job": "a"}], [AGE, JOB]), build_frame([{}], [AGE, JOB])
    assert list(whole.dtypes) == list(holes.dtypes)


def test_a_table_from_a_file_equals_the_frame_of_its_rows() -> None:
    table = pd.DataFrame({"job": ["a", None], "age": [1, 2]})
    rows = [{"age": 1, "job": "a"}, {"age": 2}]
    pd.testing.assert_frame_equal(conform(table, [AGE, JOB]), build_frame(rows, [AGE, JOB]))


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint64", "bool", "object", "Int64", "Float64"])
def test_a_number_is_the_same_however_the_table_holds_it(dtype: str) -> None:
    given: dict[str, list[object]] = {"bool": [True, False], "uint64": [0, 2**64 - 1], "int64": [-1, 2**53 + 1]}
    missing = [None] if dtype in ("object", "Int64", "Float64") else [math.nan] if dtype.startswith("float") else []
    held = pd.Series(given.get(dtype, [1, 7]) + missing, dtype=dtype)
    found = conform(pd.DataFrame({"age": held}), [AGE])
    pd.testing.assert_frame_equal(
        found, build_frame([{"age": value} for value in held.tolist()], [AGE]), check_exact=True
    )


def test_describing_a_frame_finds_its_categories_and_keeps_what_was_declared() -> None:
    table = build_frame([{"age": 1, "job": "b"}, {"job": "a"}], [AGE, JOB])
    strict = Column(name="job", kind="category", nullable=False)
    assert describe(table, [strict]) == (
        AGE.model_copy(update={"low": 1.0, "high": 1.0}),
        strict.model_copy(update={"categories": ("a", "b")}),
    )
    assert describe(build_frame([{}], [AGE])) == (AGE,)
