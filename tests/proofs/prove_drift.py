"""`make prove-drift`: how often the monitor cries wolf, what it sees, how soon; the textbook and Evidently beside it.

    python -m tests.proofs.prove_drift [share of the windows, 1 for the proof]

Everything is judged by the monitor section of the shipped manifest, on tables whose truth is known (`drift_worlds`),
through the core's own `compare` and `label_drift`, with seeds fixed.

(a) Healthy windows of 150 to a million rows: how often each check raises a signal. Baselines are drawn anew all the
time, since one that is unlucky is so for all of its windows. Beside it: any p < 0.05, and Evidently's default. (b)
Power: one feature of twenty moves by so much; how often it is seen at all, at the warning's and the alarm's floor.
(c) Delay: sliding windows of days, from the first day that moved to the alarm, which asks for persistence. (d)
Healthy years with sliding windows against one baseline each: days with an alarm, beside the printed budget. (e) The
example's applications with labels that turn round while the inputs stay: who notices, and when.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from scipy import stats

from include.monitoring.core import drift
from include.monitoring.core.drift import TableProfile, should_alarm
from include.monitoring.core.false_alarms import compute_budget
from tests.proofs import drift_concept
from tests.proofs.drift_worlds import DAY as SOME_DAY
from tests.proofs.drift_worlds import (
    FEATURES,
    THRESHOLD,
    Baseline,
    Move,
    World,
    baseline,
    evidently_default,
    spec,
    textbook,
)  # fmt: skip

HEALTHY = {150: 2_400, 1_000: 2_000, 10_000: 2_000, 100_000: 200, 1_000_000: 30}
SHARED_BY = 10  # windows that one baseline is compared with
BESIDE = 30  # windows of each size that Evidently sees
POWER_ROWS, POWER_WINDOWS = (1_000, 10_000), 200
MOVES = {
    **{f"shift {shift:g}": ("normal", Move(shift)) for shift in (0.1, 0.2, 0.3, 0.5, 1.0)},
    **{f"scale {scale:g}": ("normal", Move(scale=scale)) for scale in (1.2, 1.5, 2.0)},
    **{f"mix {shift:g}": ("mix_even", Move(shift)) for shift in (0.1, 0.3, 0.5, 1.0)},
    "heavy tails 0.5": ("heavy_tails", Move(0.5)),
    "ties 0.5": ("ties_and_missing", Move(0.5)),
}
SEEN = {"shift 0.5": 0.95, "scale 2": 0.95, "mix 0.5": 0.95}  # power at 1,000 rows, chance excluded, that is asked for
DELAYS, DELAY_SHIFTS = 100, (0.5, 0.75, 1.0)
YEARS, DAYS, DAY_ROWS, BASELINE_ROWS = 10, 365, 100, 1_000
RATE, UPPER = 0.01, 0.015
CHECKS = ("feature_drift", "prediction_drift", "data_quality", "label_drift", "schema_drift")
TEXTBOOK_EXPECTED = 0.4  # of healthy windows at least: else the windows are not the textbook's


@dataclass(frozen=True)
class Work:
    """A part of the proof that a process can do alone; `what` is the name of the function."""

    what: str
    rows: int
    windows: int
    seed: int
    move: str = ""


def healthy(work: Work) -> Counter[str]:
    """Windows against one baseline: how many raise a signal, by check; and how many the textbook would call drifted."""
    world = World(np.random.default_rng(work.seed))
    fixed, found = baseline(world.drawn(_reference(work.rows))), Counter[str]()
    for _ in range(work.windows):
        table = world.drawn(work.rows)
        current = fixed.of(table)
        window, signals = fixed.judged(table, current)
        found.update({signal.check for signal in signals if signal.raised})
        found["drifted"] += window.verdict == "drifted"
        found["textbook"] += textbook(fixed.measured, current)
        found["windows"] += 1
    return found


def beside(work: Work) -> Counter[str]:
    """The same kind of windows, asked of Evidently: any column drifted, and its rule for the table (half of them)."""
    world, found = World(np.random.default_rng(work.seed)), Counter[str]()
    reference = world.drawn(_reference(work.rows))
    for _ in range(work.windows):
        drifted = evidently_default(reference, world.drawn(work.rows))
        found["windows"] += 1
        found["any column"] += bool(drifted)
        found["half of the columns"] += len(drifted) >= len(FEATURES) / 2
    return found


def _reference(rows: int) -> int:
    return min(max(2_000, 2 * rows), 1_000_000)


def power(work: Work) -> Counter[str]:
    """How often the feature that moved is seen: chance excluded whatever the size, then by the two floors."""
    feature, move = MOVES[work.move]
    rng, found = np.random.default_rng(work.seed), Counter[str]()
    fixed = baseline(World(rng).drawn(_reference(work.rows)))
    without = spec().model_copy(update={"psi": 1e-12, "psi_warning": 1e-12})
    looks = (
        ("seen", without, ("critical",)),
        ("warned", spec(), ("critical", "warning")),
        ("alarmed", spec(), ("critical",)),
    )
    for _ in range(work.windows):
        current = fixed.of(World(rng, {feature: move}).drawn(work.rows))
        for name, bounds, severities in looks:
            signals = drift.detect_feature_drift(fixed.measured.columns, current.columns, bounds)
            found[name] += any(s.subject == feature and s.severity in severities for s in signals)
        found["windows"] += 1
    return found


def delay(work: Work) -> Counter[str]:
    """Days from the first that moved to the alarm, in sliding windows; the profiles of days are added up."""
    rng, found, moved = np.random.default_rng(work.seed), Counter[str](), {"normal": Move(float(work.move))}
    for _ in range(work.windows):
        fixed = baseline(World(rng).drawn(BASELINE_ROWS))
        days = (fixed.of(World(rng, moved if day >= 5 else {}).drawn(work.rows)) for day in range(35))
        first = next((day - 4 for day, alarmed in enumerate(alarms(fixed, days)) if alarmed and day >= 5), 0)
        found[str(first)] += 1
    return found


def year(work: Work) -> Counter[str]:
    """Days with an alarm, in a healthy year against one baseline."""
    world = World(np.random.default_rng(work.seed))
    fixed = baseline(world.drawn(BASELINE_ROWS))
    days = (fixed.of(world.drawn(work.rows)) for _ in range(work.windows))
    return Counter({"alarms": sum(alarms(fixed, days)), "days": work.windows})


def alarms(fixed: Baseline, days: Iterable[TableProfile]) -> Iterator[bool]:
    """After each day: is there an alarm, by the manifest's windows and persistence?"""
    recent, windows = list[TableProfile](), list[drift.Window]()
    for day in days:
        recent = [*recent, day][-spec().window_days :]
        windows = [
            *windows,
            drift.compare_window(SOME_DAY, fixed.measured, reduce(together, recent), THRESHOLD, spec()),
        ]
        windows = windows[-spec().persistence.n :]
        yield should_alarm(windows, spec())


def together(one: TableProfile, other: TableProfile) -> TableProfile:
    profiles = {name: profile + other.profiles[name] for name, profile in one.profiles.items()}  # type: ignore[operator]
    assert one.correlations and other.correlations
    return TableProfile(profiles, one.correlations + other.correlations)


PARTS: dict[str, Callable[[Work], Counter[str]]] = {
    each.__name__: each for each in (healthy, beside, power, delay, year)
}


def done(work: Work) -> tuple[Work, Counter[str]]:
    return work, PARTS[work.what](work)


def plan(share: float) -> list[Work]:
    """The largest first, so that two processes end together."""
    works = [Work("healthy", rows, part, 0) for rows, windows in HEALTHY.items() for part in _parts(windows * share)]
    works += [Work("beside", rows, part, 0) for rows in HEALTHY for part in _parts(BESIDE * share)]
    works += [
        Work("power", rows, part, 0, move)
        for rows in POWER_ROWS for move in MOVES for part in _parts(POWER_WINDOWS * share, 50)
    ]  # fmt: skip
    works += [Work("delay", DAY_ROWS, part, 0, str(shift)) for shift in DELAY_SHIFTS for part in _parts(DELAYS * share)]
    works += [Work("year", DAY_ROWS, DAYS, 0) for _ in range(max(1, round(YEARS * share)))]
    ordered = sorted(works, key=lambda work: -work.rows * work.windows)
    return [Work(w.what, w.rows, w.windows, seed, w.move) for seed, w in enumerate(ordered, start=1)]


def _parts(windows: float, size: int = SHARED_BY) -> list[int]:
    count = max(1, round(windows))
    return [size] * (count // size) + [count % size] * bool(count % size)


def main(share: float = 1.0) -> int:
    began, works = time.monotonic(), plan(share)
    found: dict[tuple[str, int, str], Counter[str]] = {}
    with ProcessPoolExecutor(2) as processes:
        for number, (work, counts) in enumerate(processes.map(done, works), start=1):
            key = (work.what, work.rows, work.move)
            found[key] = found.get(key, Counter()) + counts
            if number % max(1, len(works) // 40) == 0:
                told(f"{number} of {len(works)} parts, {time.monotonic() - began:.0f} s")
    concept = drift_concept.who_notices()
    figures = summary(found, concept)
    figures["minutes"] = round((time.monotonic() - began) / 60, 1)
    figures["ok"] = figures["ok"] and share >= 1
    print(json.dumps(figures))
    return 0 if figures["ok"] else 1


def summary(found: dict[tuple[str, int, str], Counter[str]], concept: dict[str, Any]) -> dict[str, Any]:
    wolf = {rows: wolf_cries(found["healthy", rows, ""]) for rows in HEALTHY}
    seen = {
        f"{move} at {rows}": _rates(found["power", rows, move], "seen", "warned", "alarmed")
        for rows in POWER_ROWS for move in MOVES
    }  # fmt: skip
    years = found["year", DAY_ROWS, ""]
    alarm_days, allowed = years["alarms"] / years["days"] * DAYS, compute_budget(spec()).alarms
    held = {
        "false alarms": all(within(found["healthy", rows, ""]) for rows in HEALTHY),
        "textbook": all(each["textbook"] >= TEXTBOOK_EXPECTED for each in wolf.values()),
        "power": all(seen[f"{move} at 1000"]["seen"] >= wanted for move, wanted in SEEN.items()),
        "year": alarm_days <= allowed,
        **drift_concept.held(concept),
    }
    return {
        "ok": all(held.values()),
        "held": held,
        "healthy": wolf,
        "evidently": {rows: _rates(found["beside", rows, ""], "any column", "half of the columns") for rows in HEALTHY},
        "power": seen,
        "delay_days": {str(shift): spread(found["delay", DAY_ROWS, str(shift)]) for shift in DELAY_SHIFTS},
        "alarm_days_a_year": {"found": round(alarm_days, 2), "budget": round(allowed, 2)},
        "concept": concept,
    }


def within(counts: Counter[str]) -> bool:
    """Each check's rate and the upper end of its 95 % interval; too few windows for that must be without any alarm."""
    windows = counts["windows"]
    enough = upper(0, windows) <= UPPER
    return all(
        counts[check] <= RATE * windows and upper(counts[check], windows) <= UPPER if enough else not counts[check]
        for check in CHECKS
    )


def upper(hits: int, rows: int) -> float:
    """Upper end of the one-sided 95 % interval of a rate (Clopper and Pearson 1934)."""
    return float(stats.beta.ppf(0.95, hits + 1, rows - hits)) if hits < rows else 1.0


def wolf_cries(counts: Counter[str]) -> dict[str, Any]:
    windows = counts["windows"]
    rates = {check: [round(counts[check] / windows, 4), round(upper(counts[check], windows), 4)] for check in CHECKS}
    return {"windows": windows, **rates, "textbook": round(counts["textbook"] / windows, 3)}


def _rates(counts: Counter[str], *names: str) -> dict[str, float]:
    return {name: round(counts[name] / max(counts["windows"], 1), 3) for name in names}


def spread(counts: Counter[str]) -> dict[str, float]:
    """Days to the alarm: median and 95th percentile; `never` is the share that had none within 30 days."""
    days = np.array([int(day) for day, many in counts.items() for _ in range(many)])
    noticed = days[days > 0]
    ends = {} if not len(noticed) else {f"p{q}": float(np.percentile(noticed, q)) for q in (50, 95)}
    return {**ends, "never": round(float((days == 0).mean()), 3)}


def told(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2])))
