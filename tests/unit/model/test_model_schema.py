import math

import numpy as np
import pandas as pd

from include.model.schema import Column, conform, describe, frame

AGE = Column(name="age", kind="number")
JOB = Column(name="job", kind="category")


def test_a_frame_has_the_declared_columns_in_the_declared_order() -> None:
    table = frame([{"job": "fixed", "age": 3, "extra": 1}], [AGE, JOB])
    assert list(table.columns) == ["age", "job"]
    assert table["age"].dtype == np.float64 and table["job"].dtype == object


def test_what_is_missing_is_nan_for_a_number_and_none_for_a_category() -> None:
    table = frame([{}, {"age": None, "job": math.nan}], [AGE, JOB])
    assert table["age"].isna().all()
    assert list(table["job"]) == [None, None]


def test_types_do_not_depend_on_which_values_a_batch_happens_to_hold() -> None:
    whole, holes = frame([{"age": 1, "job": "a"}], [AGE, JOB]), frame([{}], [AGE, JOB])
    assert list(whole.dtypes) == list(holes.dtypes)


def test_a_table_from_a_file_equals_the_frame_of_its_rows() -> None:
    table = pd.DataFrame({"job": ["a", None], "age": [1, 2]})
    rows = [{"age": 1, "job": "a"}, {"age": 2}]
    pd.testing.assert_frame_equal(conform(table, [AGE, JOB]), frame(rows, [AGE, JOB]))


def test_describing_a_frame_finds_its_categories_and_keeps_what_was_declared() -> None:
    table = frame([{"age": 1, "job": "b"}, {"job": "a"}], [AGE, JOB])
    strict = Column(name="job", kind="category", nullable=False)
    assert describe(table, [strict]) == (
        AGE.model_copy(update={"low": 1.0, "high": 1.0}),
        strict.model_copy(update={"categories": ("a", "b")}),
    )
    assert describe(frame([{}], [AGE])) == (AGE,)
