"""Rows that a library would end in a trace over, or fit without seeing anything."""

import numpy as np
import pytest

from include.kernel.errors import NotEnoughData, Permanent
from include.training.core.training_rows import check_classes, describe_dominated, find_empty
from include.training.fitting import CandidateFailed, explain_failure, split_folds

SPENT = np.random.default_rng(1).lognormal(3, 2, 5000)


@pytest.mark.parametrize("positive", [0, 3, 97, 100])
def test_too_few_rows_of_a_class_are_told_with_both_counts(positive: int) -> None:
    truth = np.r_[np.ones(positive), np.zeros(100 - positive)]
    with pytest.raises(NotEnoughData, match=f"hold {positive} positive and {100 - positive} negative"):
        check_classes(truth, 5)
    check_classes(np.r_[np.ones(5), np.zeros(5)], 5)


def test_a_column_without_a_value_in_some_fold_is_found() -> None:
    folds = list(split_folds(np.arange(100) % 2, 1))
    once, twice = np.ones(100, dtype=bool), np.ones(100, dtype=bool)
    once[0] = False
    twice[[folds[0][1][0], folds[1][1][0]]] = False  # in the test rows of two folds: every fold trains on one
    empty = find_empty({"never": np.ones(100, dtype=bool), "once": once, "twice": twice}, folds)
    assert empty == ["never", "once"]


@pytest.mark.parametrize("wild", [1e155, -1e155, 1e300, -1.7e308, 1e20])
def test_a_number_that_dwarfs_its_column_is_named(wild: float) -> None:
    spoiled = SPENT.copy()
    spoiled[7] = wild
    assert f"'spent' holds {wild:g}" in str(describe_dominated({"fine": SPENT, "spent": spoiled}))


@pytest.mark.parametrize(
    "fine",
    [
        SPENT,
        np.r_[np.zeros(1000), 1e6],  # a count that is nearly always none
        np.r_[SPENT, np.full(800, 999_999_999.0)],  # a code for unknown
        np.r_[SPENT, 999_999_999.0],
        np.r_[np.nan, np.nan],
        np.full(9, 1e300),
        np.random.default_rng(1).standard_cauchy(100_000),
    ],
)
def test_what_real_columns_hold_is_left_alone(fine: np.ndarray) -> None:
    assert describe_dominated({"fine": fine}) is None


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (
            ValueError("two lines,\nhere."),
            r"candidate 'boosting' cannot be trained: ValueError: two lines, here\.$",
        ),
        (Permanent("a sentence of ours."), r"trained: a sentence of ours\.$"),
    ],
)
def test_whatever_a_library_raises_in_a_fit_is_one_sentence_of_its_candidate(raised: Exception, says: str) -> None:
    with pytest.raises(CandidateFailed, match=says), explain_failure("boosting"):
        raise raised


def test_what_another_try_may_mend_is_no_fault_of_the_candidate() -> None:
    with pytest.raises(MemoryError), explain_failure("boosting"):
        raise MemoryError
