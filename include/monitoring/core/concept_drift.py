"""Whether the relation between inputs and labels changed: two detectors over the days' errors, without any library.

Both are sequential: they may be asked after every day, and find when a change began. They see days and not rows, since
the rows of a day have no order among themselves; a day is what exponential histograms call a bucket. Labels must be
known, so they speak `label.delay_days` late. ADWIN has a bound on its false alarms and decides; DDM is quicker on a
sudden rise and has none, so it warns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

MIN_ROWS = 30  # before which DDM's normal approximation says nothing (Gama et al. 2004, section 3)
DRIFT_LEVEL = 3.0  # standard deviations above the best error seen; the same paper's drift level


@dataclass(frozen=True)
class DayErrors:
    """The matured rows of one day, and how many of them the model decided wrongly."""

    day: date
    rows: int
    wrong: int


@dataclass(frozen=True)
class Cut:
    """Since when the error is another one; shares of wrong decisions before and since."""

    since: date
    before: float
    after: float


def find_adwin_cut(days: Sequence[DayErrors], delta: float) -> Cut | None:
    """The newest cut of an adaptive window (Bifet and Gavalda 2007, figure 1 and equation 3.1), or None.

    While the window has two parts whose errors differ by more than the bound for `delta`, its older part is dropped.
    `days` are oldest first; `delta` is the chance of a false cut in a window that did not change.
    """
    window, newest = [day for day in days if day.rows], None
    while position := _find_cut(window, delta):
        newest = Cut(window[position].day, _compute_error(window[:position]), _compute_error(window[position:]))
        window = window[position:]
    return newest


def _find_cut(window: Sequence[DayErrors], delta: float) -> int:
    """The first place at which the window must be cut; 0 for none."""
    rows, wrong = sum(day.rows for day in window), sum(day.wrong for day in window)
    variance = wrong / rows * (1 - wrong / rows) if rows else 0.0
    old_rows = old_wrong = 0
    for position, day in enumerate(window[:-1], 1):
        old_rows, old_wrong = old_rows + day.rows, old_wrong + day.wrong
        harmonic = 1 / (1 / old_rows + 1 / (rows - old_rows))
        distance = abs(old_wrong / old_rows - (wrong - old_wrong) / (rows - old_rows))
        if distance >= _compute_bound(harmonic, variance, delta / len(window)):
            return position
    return 0


def _compute_bound(harmonic: float, variance: float, delta: float) -> float:
    """Bernstein's, as in equation 3.1 of the paper; `delta` is already shared out over the places of a cut."""
    spread = math.log(2 / delta)
    return math.sqrt(2 / harmonic * variance * spread) + 2 / (3 * harmonic) * spread


def _compute_error(days: Sequence[DayErrors]) -> float:
    return sum(day.wrong for day in days) / sum(day.rows for day in days)


def measure_ddm_level(days: Sequence[DayErrors]) -> float:
    """How far the error stands above the best it ever was, in standard deviations of that time (Gama et al. 2004).

    From `DRIFT_LEVEL` on it is a drift. 0 before `MIN_ROWS` rows.
    """
    rows = wrong = 0
    level, best, spread = 0.0, math.inf, 0.0
    for day in days:
        rows, wrong = rows + day.rows, wrong + day.wrong
        if rows < MIN_ROWS:
            continue
        error = wrong / rows
        deviation = math.sqrt(error * (1 - error) / rows)
        if error + deviation < best + spread:
            best, spread = error, deviation
        level = (error + deviation - best) / spread if spread else 0.0
    return level
