"""The two detectors on days whose errors are known."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from include.monitoring.core.concept_drift import DRIFT_LEVEL, DayErrors, find_adwin_cut, measure_ddm_level

FIRST = date(2026, 8, 1)


def days(*errors: float, rows: int = 400) -> list[DayErrors]:
    return [DayErrors(FIRST + timedelta(days=n), rows, round(rows * error)) for n, error in enumerate(errors)]


def drawn(errors: list[float], seed: int, rows: int = 100) -> list[DayErrors]:
    wrong = np.random.default_rng(seed).binomial(rows, errors)
    return [DayErrors(FIRST + timedelta(days=n), rows, int(w)) for n, w in enumerate(wrong)]


def test_adwin_names_the_day_on_which_the_error_changed_and_both_errors():
    cut = find_adwin_cut(days(*[0.2] * 10, *[0.4] * 4), 0.002)
    assert cut is not None
    assert (cut.since, round(cut.before, 3), round(cut.after, 3)) == (FIRST + timedelta(days=10), 0.2, 0.4)


def test_adwin_is_quiet_while_nothing_changes_and_without_days():
    assert find_adwin_cut(days(*[0.2] * 60), 0.002) is None
    assert find_adwin_cut([], 0.002) is None
    assert find_adwin_cut(days(0.2), 0.002) is None
    assert find_adwin_cut([DayErrors(FIRST, 0, 0)], 0.002) is None


def test_the_newest_change_is_the_one_that_is_told():
    cut = find_adwin_cut(days(*[0.1] * 10, *[0.3] * 10, *[0.6] * 5), 0.002)
    assert cut is not None and cut.since == FIRST + timedelta(days=20)


def test_adwins_false_cuts_stay_within_their_bound():
    """`delta` bounds the chance for a window; over 500 windows of 60 days, 0.002 makes one."""
    false = sum(find_adwin_cut(drawn([0.25] * 60, seed), 0.002) is not None for seed in range(500))
    assert false <= 4


def test_what_adwin_finds_is_found_within_days():
    found = [find_adwin_cut(drawn([0.2] * 20 + [0.35] * 6, seed), 0.002) for seed in range(100)]
    assert sum(cut is not None and cut.after > cut.before for cut in found) >= 95


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 1)), max_size=20))
def test_any_days_are_measured_without_a_fault(told):
    given_days = [DayErrors(FIRST + timedelta(days=n), rows, int(rows * share)) for n, (rows, share) in enumerate(told)]
    cut = find_adwin_cut(given_days, 0.002)
    assert cut is None or (0 <= cut.before <= 1 and 0 <= cut.after <= 1)
    assert measure_ddm_level(given_days) >= 0 or measure_ddm_level(given_days) > -1e-9


def test_ddm_rises_above_its_level_when_errors_do_and_not_while_they_stand():
    assert measure_ddm_level(days(*[0.2] * 30)) < 2
    assert measure_ddm_level(days(*[0.2] * 10, *[0.4] * 5)) >= DRIFT_LEVEL


def test_ddm_says_nothing_before_its_approximation_holds():
    assert measure_ddm_level(days(0.2, 0.9, rows=10)) == 0
