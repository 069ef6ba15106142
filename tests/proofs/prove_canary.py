"""`make prove-canary`: how often the canary ends a healthy release, and how soon it ends a faulty one.

The analysis is the real one (`canary.judge`) with the bounds of the manifest. Traffic of (a) to (d) is drawn: requests
are dealt to two slots by weight, have latencies with a heavy tail, scores and errors, and are counted into the server's
own buckets.

(a) A/A: both slots alike. The canary is never let pass, so that it is looked at again and again until the end, which is
    the worst case for a false alarm. The stated rate is `release.canary.false_abort`.
(b) The same by a textbook test at each look (two proportions for each question). It must fail where (a) holds.
(c) Faults: +1 % errors, latencies times 1.5, scores moved by 0.1. How many canaries end, after how many requests.
(d) Healthy canaries that may pass: how many do, after how many requests.
(e) Nothing drawn: one fault of each kind, and one healthy release, through real slots and Envoy (canary_slots.py). Each
    must be ended by the question that is about it, and by no other; decisions by decisions.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from include import manifest
from include.kernel.words.verdicts import Verdict
from include.release.core import canary
from include.release.core.canary import Judgement, Period, Traffic
from include.release.spec import CanarySpec
from include.serving.words.slot_metrics import LATENCY_S, SCORES
from tests.proofs import canary_slots

SEED = 6
RUNS, FAULTY, HEALTHY = 500, 100, 100
LOOKS, REQUESTS = 60, 1000  # of one canary, and between two looks
SCHEDULES = {"5 %": (5,), "50 %": (50,), "5, 25, 50 %": (5, 25, 50)}
DETECTED = 0.95  # share of the faulty canaries that must end
SHOWN = ("ok", "why", "requests", "seconds")  # of a real canary, in the table
ERRORS, THRESHOLD = 0.002, 1 / 6

console = Console(width=130)
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Service:
    """How one slot answers: error rate, factor on its latencies, shift of its scores."""

    errors: float = ERRORS
    slower: float = 1.0
    shift: float = 0.0

    def answer(self, requests: int, draw: np.random.Generator) -> Counts:
        """Counts: requests, errors, latency bins, score bins, decisions."""
        failed = draw.binomial(requests, self.errors)
        latency = self.slower * 0.002 * np.exp(0.5 * draw.standard_t(4, requests))
        scores = np.clip(draw.beta(1.2, 3.0, requests - failed) + self.shift, 0, 1)
        bins = np.bincount(np.searchsorted(LATENCY_S, latency), minlength=len(LATENCY_S) + 1)
        shares = np.bincount(np.searchsorted(SCORES, scores), minlength=len(SCORES) + 1)
        return np.concatenate([[requests, failed], bins, shares, [(scores >= THRESHOLD).sum()]])


FAULTS = {
    "+1 % errors": Service(errors=ERRORS + 0.01),
    "latency x 1.5": Service(slower=1.5),
    "scores + 0.1": Service(shift=0.1),
}


@dataclass(frozen=True)
class Ended:
    verdict: Verdict
    requests: int


@dataclass(frozen=True)
class Canary:
    """One canary: who answers, at which weights, and whether it may pass."""

    candidate: Service
    weights: tuple[int, ...]
    may_pass: bool
    judge: str = "sequential"

    def run(self, draw: np.random.Generator, looks: int = LOOKS) -> Ended:
        """To its verdict, or to the last look. Where it may not pass, its weights share the looks among them."""
        past: list[Period] = []
        now = _Counted(self.weights[0] / 100)
        for look in range(1, looks + 1):
            now.add(self.candidate, draw)
            is_last = len(past) == len(self.weights) - 1
            verdict = JUDGES[self.judge]([*past, now.period()], is_last).verdict
            if verdict is Verdict.FAILED or (verdict is Verdict.PASSED and is_last and self.may_pass):
                return Ended(verdict, look * REQUESTS)
            if not is_last and self._goes_on(verdict, look, len(past), looks):
                past.append(now.period())
                now = _Counted(self.weights[len(past)] / 100)
        return Ended(Verdict.PENDING, looks * REQUESTS)

    def _goes_on(self, verdict: Verdict, look: int, passed: int, looks: int) -> bool:
        return verdict is Verdict.PASSED if self.may_pass else look >= looks * (passed + 1) // len(self.weights)


@dataclass
class _Counted:
    weight: float
    candidate: Counts = field(default_factory=lambda: np.zeros(len(LATENCY_S) + len(SCORES) + 5, dtype=np.int64))
    stable: Counts = field(default_factory=lambda: np.zeros(len(LATENCY_S) + len(SCORES) + 5, dtype=np.int64))

    def add(self, candidate: Service, draw: np.random.Generator) -> None:
        dealt = draw.binomial(REQUESTS, self.weight)
        self.candidate += candidate.answer(dealt, draw)
        self.stable += Service().answer(REQUESTS - dealt, draw)

    def period(self) -> Period:
        return Period(self.weight, _traffic(self.candidate), _traffic(self.stable))


def _traffic(counts: Counts) -> Traffic:
    requests, errors, *bins, decisions = counts.tolist()
    cut = len(LATENCY_S) + 1
    return Traffic(requests, errors, tuple(bins[:cut]), tuple(bins[cut:]), decisions)


def spec() -> CanarySpec:
    return manifest.load().release.canary


def sequential(periods: list[Period], is_last: bool) -> Judgement:
    return canary.judge(periods, spec(), is_last)


def textbook(periods: list[Period], is_last: bool) -> Judgement:
    """Two proportions for each question, as if this look were the only one; the same share of the error for each."""
    shares = [(_shares(period.candidate), _shares(period.stable)) for period in periods]
    ours, theirs = (np.sum([each[slot] for each in shares], axis=0) for slot in (0, 1))
    pooled = (ours[1] + theirs[1]) / np.maximum(ours[0] + theirs[0], 1)
    error = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(ours[0], 1) + 1 / np.maximum(theirs[0], 1)))
    apart = np.abs(ours[1] / np.maximum(ours[0], 1) - theirs[1] / np.maximum(theirs[0], 1))
    worse = (apart > stats.norm.isf(spec().false_abort / 8) * error).any()
    return Judgement(Verdict.FAILED if worse else Verdict.PENDING, "")


def _shares(traffic: Traffic | None) -> Counts:
    """Rows: requests, and those with the event; columns: errors, slow, high score, decision."""
    assert traffic is not None
    slow, high = sum(traffic.latency[14:]), sum(traffic.scores[10:])
    return np.array(
        [
            [traffic.requests, traffic.requests, traffic.scored, traffic.scored],
            [traffic.errors, slow, high, traffic.decisions],
        ]
    )


JUDGES: dict[str, Callable[[list[Period], bool], Judgement]] = {"sequential": sequential, "textbook": textbook}


def run(work: tuple[Canary, int]) -> Ended:
    case, seed = work
    return case.run(np.random.default_rng([SEED, seed]))


def healthy(pool: ProcessPoolExecutor, judge: str) -> dict[str, dict[str, float]]:
    """(a) and (b): the rate at which each schedule ends a healthy canary, with its 95 % upper bound."""
    found = {}
    for name, weights in SCHEDULES.items():
        ended = _runs(pool, Canary(Service(), weights, False, judge), RUNS)
        aborted = sum(each.verdict is Verdict.FAILED for each in ended)
        rate = round(aborted / RUNS, 4)
        found[name] = {"runs": RUNS, "aborted": aborted, "rate": rate, "upper": _upper(aborted, RUNS)}
    return found


def _runs(pool: ProcessPoolExecutor, case: Canary, runs: int) -> list[Ended]:
    return list(pool.map(run, [(case, seed) for seed in range(runs)], chunksize=10))


def _upper(hits: int, runs: int) -> float:
    """Upper end of the one-sided 95 % interval of Clopper and Pearson (1934)."""
    return round(float(stats.beta.ppf(0.95, hits + 1, runs - hits)), 4)


def told(pool: ProcessPoolExecutor, candidate: Service, wanted: Verdict, runs: int) -> dict[str, dict[str, Any]]:
    """(c) and (d): how many canaries came to this verdict, after how many requests of both slots."""
    found = {}
    for name, weights in SCHEDULES.items():
        ended = _runs(pool, Canary(candidate, weights, True), runs)
        after = sorted(each.requests for each in ended if each.verdict is wanted)
        middle, late = (int(np.quantile(after, q)) if after else None for q in (0.5, 0.9))
        found[name] = {"share": len(after) / runs, "requests_median": middle, "requests_p90": late}
    return found


def _print(title: str, found: dict[str, dict[str, Any]]) -> None:
    table = Table("weights", *next(iter(found.values())), title=title, title_justify="left")
    for name, figures in found.items():
        table.add_row(name, *(_cell(value) for value in figures.values()))
    console.print(table)


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value or "-")


def main() -> int:
    began, stated = time.monotonic(), spec().false_abort
    with ProcessPoolExecutor(2) as pool:
        a_a, naive = healthy(pool, "sequential"), healthy(pool, "textbook")
        _print(f"(a) A/A, {LOOKS} looks, {LOOKS * REQUESTS:,} requests each: ended by mistake (stated {stated:g})", a_a)
        _print("(b) the same, by a textbook test at each look", naive)
        faults = {name: told(pool, fault, Verdict.FAILED, FAULTY) for name, fault in FAULTS.items()}
        for name, found in faults.items():
            _print(f"(c) {name}: ended", found)
        passed = told(pool, Service(), Verdict.PASSED, HEALTHY)
        _print("(d) healthy: passed", passed)
    with tempfile.TemporaryDirectory(prefix="evergreen-canary-") as home:
        slots = canary_slots.run(Path(home))
    _print("(e) through real slots", {name: {what: told[what] for what in SHOWN} for name, told in slots.items()})
    ok = (
        all(each["ok"] for each in slots.values())
        and all(each["rate"] <= stated for each in a_a.values())
        and all(each["rate"] > stated for each in naive.values())  # or (a) could not have failed
        and all(each["share"] >= DETECTED for found in faults.values() for each in found.values())
        and passed["5, 25, 50 %"]["share"] >= DETECTED
    )
    figures = {"stated": stated, "a_a": a_a, "textbook": naive, "faults": faults, "healthy": passed, "slots": slots}
    print(json.dumps({"ok": ok, "seconds": round(time.monotonic() - began, 1), **figures}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
