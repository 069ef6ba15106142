"""`make prove-gate`: how often the gate is wrong, how much it sees, and whether it would notice its own faults.

Everything is judged by the gate section of the shipped manifest, on scores whose truth is known (see `binormal`), with
seeds fixed, so that two runs print the same figures. The whole gate is the real one: `judge` with all its evidence. It
is asked only where the champion's two checks passed, since it cannot pass without them.

(a) False passes: superiority between two equally good models, non-inferiority at a loss of exactly the margin.
(b) Power: how often a better challenger passes one check, and the whole gate.
(c) Challengers with a known fault (see `sabotage`).
(d) A gate of point estimates, on the same draws.
Then two real models on the example's rows, as an illustration: their truth is not known.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats
from sklearn.model_selection import train_test_split

from include import manifest
from include.gate.core import checks as ck
from include.gate.core import gate
from include.gate.core.checks import Scores, Verdict
from include.gate.spec import GateSpec
from include.kernel.inference import statistics as st
from include.model import pipelines
from tests import credit
from tests.proofs.binormal import World
from tests.proofs.sabotage import CASES

SEED = 20
BOUND = 0.07  # of the upper end of each false-pass rate
BASE = 0.80  # the champion's AUC
GAINS = (0.01, 0.02, 0.05)
A_A = {1_000: 2_000, 3_000: 2_000, 10_000: 2_000, 100_000: 1_000}  # rows -> pairs
POWER = {300: 400, 1_000: 400, 3_000: 400, 10_000: 400, 30_000: 200, 100_000: 100}
CHUNK = 20
MEASURES = ("auc", "brier", "cost")
SPLITS = 20
WANTED = 0.8

console = Console(width=130)


@dataclass(frozen=True)
class Work:
    """Some draws of one world, with a seed of their own."""

    kind: str
    rows: int
    gain: float
    draws: int
    seed: tuple[int, ...]


@lru_cache
def spec() -> GateSpec:
    return manifest.load().gate.model_copy(update={"policy": None})


def by(measure: str) -> GateSpec:
    return spec().model_copy(update={"superiority": measure})


# --- one draw ---------------------------------------------------------------------------------------------------------


def count(work: Work) -> tuple[Work, Counter[str]]:
    random, found = np.random.default_rng(work.seed), Counter[str]()
    for _ in range(work.draws):
        found.update(false_passes_of(random, work) if work.kind == "false" else powers(random, work))
    return work, found


def false_passes_of(random: np.random.Generator, work: Work) -> Iterator[str]:
    yield from (f"{name} at equality" for name in _passes(random, World(work.rows, BASE, BASE)))
    worse = World(work.rows, BASE, BASE - spec().auc_margin).scores(random)
    held = ck.check_non_inferiority(worse, spec())
    if passed(held):
        yield "non-inferiority at the margin"
    if held.value >= -spec().auc_margin:
        yield "point gate at the margin"


def powers(random: np.random.Generator, work: Work) -> Iterator[str]:
    yield from _passes(random, World(work.rows, BASE, BASE + work.gain))


def _passes(random: np.random.Generator, world: World) -> Iterator[str]:
    """What this draw of the world passes. The gate cannot pass without its two checks, so it is asked after them."""
    scores = world.scores(random)
    held = ck.check_non_inferiority(scores, spec())
    better = {measure: passed(ck.check_superiority(scores, by(measure))) for measure in MEASURES}
    yield from (f"superiority {measure}" for measure in MEASURES if better[measure])
    if passed(held):
        yield "non-inferiority"
    if point_gate(scores, held.value):
        yield "point gate"
    if passed(held) and better[spec().superiority] and whole(world, scores, random):
        yield "whole gate"


def passed(check: ck.Check) -> bool:
    return check.verdict is Verdict.PASSED


def whole(world: World, scores: Scores, random: np.random.Generator) -> bool:
    return gate.judge(scores, spec(), world.evidence(random, scores)).verdict is Verdict.PASSED


def point_gate(scores: Scores, gain: float) -> bool:
    """What public pipelines do: a higher AUC, and an F1 that did not fall by more than a twentieth."""
    assert scores.champion is not None
    new, old = (
        st.count_confusion(scores.truth, s >= spec().threshold).f1 for s in (scores.challenger, scores.champion)
    )
    return gain > 0 and new >= 0.95 * old


# --- many draws on two cores ------------------------------------------------------------------------------------------


def works() -> Iterator[Work]:
    """The largest first, so that both cores end together."""
    for number, (rows, draws) in enumerate(reversed(A_A.items())):
        for chunk in range(math.ceil(draws / CHUNK)):
            yield Work("false", rows, 0.0, CHUNK, (SEED, 1, number, chunk))
    for number, (rows, draws) in enumerate(reversed(POWER.items())):
        for place, gain in enumerate(GAINS):
            for chunk in range(math.ceil(draws / CHUNK)):
                yield Work("power", rows, gain, CHUNK, (SEED, 2, number, place, chunk))


def drawn() -> tuple[dict[Any, Counter[str]], Counter[Any]]:
    """(kind, rows, gain) -> how often each name passed, and how many draws were made."""
    found: dict[Any, Counter[str]] = {}
    draws: Counter[Any] = Counter()
    todo, began, said = list(works()), time.monotonic(), 0.0
    with ProcessPoolExecutor(2) as pool:
        for done, (work, counted) in enumerate(pool.map(count, todo), 1):
            key = (work.kind, work.rows, work.gain)
            found.setdefault(key, Counter()).update(counted)
            draws[key] += work.draws
            if time.monotonic() - said > 10 or done == len(todo):
                said = time.monotonic()
                print(f"{done} of {len(todo)} parts drawn, {said - began:.0f} s", flush=True)
    return found, draws


# --- tables -----------------------------------------------------------------------------------------------------------


def upper(hits: int, draws: int) -> float:
    """The 95 % upper bound of a rate (Clopper and Pearson 1934)."""
    return 1.0 if hits == draws else float(stats.beta.ppf(0.95, hits + 1, draws - hits))


def table(title: str, headings: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    shown = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


def false_passes(found: dict[Any, Counter[str]], draws: Counter[Any]) -> dict[str, Any]:
    held = [
        *(f"superiority {m} at equality" for m in MEASURES),
        "non-inferiority at the margin",
        "whole gate at equality",
    ]
    points = ["point gate at equality", "point gate at the margin"]
    told = {name: {rows: _rate(found, draws, ("false", rows, 0.0), name) for rows in A_A} for name in [*held, *points]}
    table(
        f"(a, d) How often a challenger passes that should not, and the 95 % upper bound (asked: <= {BOUND:.0%})",
        ["", *(f"n = {rows:,}\n{draws['false', rows, 0.0]:,} pairs" for rows in A_A)],
        ([name, *(f"{rate:.1%} (<= {high:.1%})" for rate, high in row.values())] for name, row in told.items()),
    )
    worst = max(high for name in held for _, high in told[name].values())
    return {"worst_upper_bound": round(worst, 4), "ok": worst <= BOUND, "rates": _plain(told)}


def _rate(found: dict[Any, Counter[str]], draws: Counter[Any], key: Any, name: str) -> tuple[float, float]:
    return found[key][name] / draws[key], upper(found[key][name], draws[key])


def _plain(told: dict[str, dict[int, tuple[float, float]]]) -> dict[str, dict[str, list[float]]]:
    return {name: {str(n): [round(v, 4) for v in pair] for n, pair in row.items()} for name, row in told.items()}


def powers_told(found: dict[Any, Counter[str]], draws: Counter[Any]) -> dict[str, Any]:
    names = ["non-inferiority", *(f"superiority {m}" for m in MEASURES), "whole gate", "point gate"]
    told: dict[str, Any] = {}
    for gain in GAINS:
        rates = {name: {n: _rate(found, draws, ("power", n, gain), name)[0] for n in POWER} for name in names}
        needed = {name: rows_for(WANTED, row) for name, row in rates.items()}
        table(
            f"(b, d) Power at a true AUC gain of {gain} ({BASE} -> {BASE + gain:.2f}); n by interpolation",
            ["", *(f"n = {rows:,}" for rows in POWER), f"n for {WANTED:.0%}"],
            ([name, *(f"{rate:.1%}" for rate in row.values()), said(needed[name])] for name, row in rates.items()),
        )
        told[str(gain)] = {"power": {n: [round(rate, 3) for rate in v.values()] for n, v in rates.items()}}
        told[str(gain)]["rows_for_0.8"] = needed
    return told


def rows_for(wanted: float, rates: dict[int, float]) -> int | None:
    """Rows at which power reaches `wanted`, by log n; 0 below the smallest size, None beyond the largest."""
    sizes, seen = list(rates), list(rates.values())
    if seen[0] >= wanted:
        return 0
    for (low, high), (before, after) in zip(pairwise(sizes), pairwise(seen), strict=True):
        if before < wanted <= after:
            share = (wanted - before) / (after - before)
            return int(round(math.exp(math.log(low) + share * math.log(high / low)), -2))
    return None


def said(rows: int | None) -> str:
    return f"> {max(POWER):,}" if rows is None else f"< {min(POWER):,}" if rows == 0 else f"{rows:,}"


# --- faults, and the real rows ----------------------------------------------------------------------------------------


def faults() -> dict[str, Any]:
    reports = [(case, case.judged(spec(), SEED)) for case in CASES]
    right = [case.as_expected(report) for case, report in reports]
    table(
        "(c) Challengers with a known fault",
        ["fault", "expected", "verdict", "decided by", ""],
        (
            [case.name, case.expected.value, report.verdict.value, case.family, "right" if fine else "WRONG"]
            for (case, report), fine in zip(reports, right, strict=True)
        ),
    )
    return {"right": sum(right), "of": len(right), "ok": all(right)}


def real() -> dict[str, Any]:
    """Logistic regression against boosting, and against itself on other rows, over repeated splits of the real rows."""
    seen: dict[str, Counter[str]] = {name: Counter() for name in ("better", "equal", "reverse")}
    gains = []
    for split in range(SPLITS):
        line, other, forest, truth = _fitted(split)
        pairs = {"better": (forest, line), "equal": (other, line), "reverse": (line, forest)}
        for name, (challenger, champion) in pairs.items():
            seen[name][gate.judge(Scores(truth, challenger, champion), _plain_spec()).verdict.value] += 1
        gains.append(st.estimate_auc_gain(truth, forest, line)[0])
    headings = ["challenger against champion", *(verdict.value for verdict in Verdict)]
    names = {
        "better": "boosting against logistic",
        "equal": "logistic against its twin",
        "reverse": "logistic against boosting",
    }
    table(
        f"Illustration: the 4,454 real rows, {SPLITS} splits in half; mean AUC gain of boosting {np.mean(gains):+.3f}",
        headings,
        ([names[name], *(str(counted[verdict.value]) for verdict in Verdict)] for name, counted in seen.items()),
    )
    return {names[name]: dict(counted) for name, counted in seen.items()} | {
        "mean_gain": round(float(np.mean(gains)), 4)
    }


def _plain_spec() -> GateSpec:
    """Floors and champion: the rest asks for evidence that a split does not have."""
    off = dict.fromkeys(("classic", "stability", "overfit", "calibration", "slices", "fairness", "leakage", "infra"))
    return spec().model_copy(update=off)


def _fitted(split: int) -> tuple[Any, Any, Any, Any]:
    """Two lines on disjoint quarters of the rows, a forest on the first one's half; scores on the other half."""
    table_, truth = credit.data()[[c.name for c in credit.columns()]], (credit.data()[credit.LABEL] == "bad").to_numpy()
    known, held, y, held_truth = train_test_split(table_, truth, test_size=0.5, random_state=split, stratify=truth)
    one, two, y_one, y_two = train_test_split(known, y, test_size=0.5, random_state=split, stratify=y)
    params: dict[str, Any] = manifest.load().train.candidates["boosting"]
    line, other = (_scores("logistic", {}, *pair, held) for pair in ((one, y_one), (two, y_two)))
    return line, other, _scores("boosting", params, known, y, held), held_truth.astype(np.float64)


def _scores(kind: str, params: dict[str, Any], known: Any, truth: Any, held: Any) -> Any:
    return pipelines.build(kind, credit.columns(), params, SEED).fit(known, truth).predict_proba(held)[:, 1]


def main() -> int:
    began = time.monotonic()
    console.print("challengers with a known fault")
    checked = faults()
    console.print("the real rows")
    shown = real()
    found, draws = drawn()
    wrong, sees = false_passes(found, draws), powers_told(found, draws)
    seconds = round(time.monotonic() - began, 1)
    ok = wrong["ok"] and checked["ok"] and all(count >= 1_000 for key, count in draws.items() if key[0] == "false")
    print(
        json.dumps({"ok": ok, "seconds": seconds, "bound": BOUND, "a": wrong, "b": sees, "c": checked, "real": shown})
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
