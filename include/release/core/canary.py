"""Is the candidate in the canary as good as the stable slot beside it? Three verdicts, at every look, from counters.

Four questions over the same requests of the same period: errors, latency, scores and decisions. Each is asked twice.
It is *worse* when there is proof that it exceeds what is `tolerated`; one such proof ends the canary, and all together
are wrong about a healthy candidate with probability `false_abort` at most, whenever and however often one looks. It is
*good enough* when there is proof that it stays below `limit`; all of them are needed for the traffic to move over. What
lies between is a canary that goes on: too little traffic, or counters that are missing, prove nothing and are no pass.

Both rest on requests being dealt by the weight and by nothing else. A proxy that finds a slot unwell for a moment
gives its requests to the other one, and then every event seems to be that one's. So the split itself is tested first (a
sample ratio mismatch: Fabijan et al. 2019, KDD), and a period that was dealt otherwise proves nothing and begins anew.

A distribution (latency, scores) is asked threshold by threshold: the share of requests above it. A latency is compared
with the stable one times LATENCY_STEP, since two processes are never equally fast to the last per cent.

The trade-off: a proof that holds at every look needs more requests than one at a fixed end. How many, at
which weight, for the shipped limits: `make prove-canary` has a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from include.kernel.inference import e_values
from include.kernel.inference.e_values import Split
from include.release.core.rollout import Verdict
from include.serving.words.slot_metrics import LATENCY_S, SCORES


@dataclass(frozen=True)
class Traffic:
    """Counters of one slot over one period. `latency` has one count for each bound and one beyond, as has `scores`."""

    requests: int
    errors: int
    latency: tuple[int, ...]
    scores: tuple[int, ...]
    decisions: int  # of `scores`, how many were answered with the decision

    @property
    def scored(self) -> int:
        return sum(self.scores)

    def __sub__(self, earlier: Traffic) -> Traffic:
        """What came after an earlier count of the same process."""
        return Traffic(
            self.requests - earlier.requests,
            self.errors - earlier.errors,
            tuple(now - then for now, then in zip(self.latency, earlier.latency, strict=True)),
            tuple(now - then for now, then in zip(self.scores, earlier.scores, strict=True)),
            self.decisions - earlier.decisions,
        )


@dataclass(frozen=True)
class Period:
    """What both slots answered while the candidate had this weight; None where a slot's counters could not be read."""

    weight: float
    candidate: Traffic | None
    stable: Traffic | None


class Bounds(Protocol):
    """Shares of requests, 0 to 1: a difference up to `tolerated` is nobody's fault, one of `limit` is too much."""

    @property
    def tolerated(self) -> float: ...
    @property
    def limit(self) -> float: ...


class CanarySpec(Protocol):
    """The manifest's `release.canary`."""

    @property
    def min_requests(self) -> int: ...
    @property
    def false_abort(self) -> float: ...
    @property
    def false_pass(self) -> float: ...
    @property
    def errors(self) -> Bounds: ...
    @property
    def latency(self) -> Bounds: ...
    @property
    def scores(self) -> Bounds: ...
    @property
    def decisions(self) -> Bounds: ...


@dataclass(frozen=True)
class Finding:
    """One question's answer. `against` and `for_it` are log e-values of "worse" and of "good enough"."""

    name: str
    difference: float  # of the shares, at the threshold where it is largest
    against: float
    for_it: float
    verdict: Verdict


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    why: str
    findings: tuple[Finding, ...] = ()
    misdealt: bool = False  # the newest period cannot be used and has to begin anew


def judge(periods: Sequence[Period], spec: CanarySpec, is_last: bool) -> Judgement:
    """The verdict on the newest period's weight, given all of them.

    FAILED needs one proof of worse. PASSED needs `min_requests` answered by the candidate in the newest period, and in
    the last one (`is_last`) a proof of good enough for every question. All else is PENDING.
    """
    seen = [_Seen(p.weight, p.candidate, p.stable) for p in periods if p.candidate and p.stable]
    if len(seen) < len(periods) or not seen:
        return Judgement(Verdict.PENDING, "the counters of a slot cannot be read")
    if other := _otherwise_dealt(seen[-1], spec):
        return Judgement(Verdict.PENDING, other, misdealt=True)
    findings = tuple(_findings(seen, spec))
    worse = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    if worse:
        return Judgement(Verdict.FAILED, "; ".join(map(_told, worse)), findings)
    answered = seen[-1].candidate.requests
    if answered < spec.min_requests:
        return Judgement(Verdict.PENDING, f"{answered} of {spec.min_requests} requests", findings)
    open_questions = [finding.name for finding in findings if finding.verdict is Verdict.PENDING]
    if is_last and open_questions:
        return Judgement(Verdict.PENDING, f"not yet proven good enough: {', '.join(open_questions)}", findings)
    return Judgement(Verdict.PASSED, f"no worse after {answered} requests", findings)


@dataclass(frozen=True)
class _Seen:
    """A period whose counters are all there."""

    weight: float
    candidate: Traffic
    stable: Traffic


def _otherwise_dealt(period: _Seen, spec: CanarySpec) -> str | None:
    candidate, stable = period.candidate.requests, period.stable.requests
    if e_values.evidence_of_other_weight(candidate, stable, period.weight) < -math.log(spec.false_abort):
        return None
    dealt = candidate / (candidate + stable)
    return f"the candidate got {dealt:.0%} of the requests and not its {period.weight:.0%}, so nothing can be compared"


Count = Callable[[Traffic], tuple[int, int]]  # requests, and those of them with the event


def _findings(seen: Sequence[_Seen], spec: CanarySpec) -> list[Finding]:
    wrong = spec.false_abort / 4
    questions: list[tuple[str, Bounds, list[tuple[Count, Count]], bool]] = [
        ("errors", spec.errors, [_same(_errors)], False),
        ("latency", spec.latency, [(_slower(at + 1), _slower(at)) for at in range(len(LATENCY_S) - 1)], False),
        ("scores", spec.scores, [_same(_above(at)) for at in range(len(SCORES))], True),
        ("decisions", spec.decisions, [_same(_decisions)], True),
    ]
    return [
        _finding(name, [_splits(seen, *counts) for counts in thresholds], bounds, two_sided, wrong, spec.false_pass)
        for name, bounds, thresholds, two_sided in questions
    ]


def _finding(
    name: str, thresholds: list[list[Split]], bounds: Bounds, two_sided: bool, false_abort: float, false_pass: float
) -> Finding:
    asked = [*thresholds, *(_complements(thresholds) if two_sided else [])]
    against = e_values.average(e_values.evidence_above(periods, bounds.tolerated) for periods in asked)
    for_it = min(e_values.evidence_below(periods, bounds.limit) for periods in asked)
    difference = max((e_values.difference(periods) for periods in thresholds), key=abs if two_sided else float)
    verdict = Verdict.PASSED if for_it >= -math.log(false_pass) else Verdict.PENDING
    if against >= -math.log(false_abort):
        verdict = Verdict.FAILED
    return Finding(name, difference, against, for_it, verdict)


def _complements(thresholds: list[list[Split]]) -> list[list[Split]]:
    """Less often is more often not: the other direction of every question."""
    return [[_complement(split) for split in periods] for periods in thresholds]


def _complement(split: Split) -> Split:
    return Split(
        split.weight,
        split.candidate,
        split.stable,
        split.candidate - split.candidate_events,
        split.stable - split.stable_events,
    )


def _splits(seen: Sequence[_Seen], candidate: Count, stable: Count) -> list[Split]:
    return [_split(period.weight, candidate(period.candidate), stable(period.stable)) for period in seen]


def _split(weight: float, candidate: tuple[int, int], stable: tuple[int, int]) -> Split:
    return Split(weight, candidate[0], stable[0], candidate[1], stable[1])


def _same(count: Count) -> tuple[Count, Count]:
    return count, count


def _errors(traffic: Traffic) -> tuple[int, int]:
    return traffic.requests, traffic.errors


def _decisions(traffic: Traffic) -> tuple[int, int]:
    return traffic.scored, traffic.decisions


def _slower(bound: int) -> Count:
    """Requests that took longer than the bound with this number."""
    return lambda traffic: _beyond(traffic.latency, bound)


def _above(bound: int) -> Count:
    return lambda traffic: _beyond(traffic.scores, bound)


def _beyond(bins: tuple[int, ...], bound: int) -> tuple[int, int]:
    return sum(bins), sum(bins[bound + 1 :])


def _told(finding: Finding) -> str:
    return f"{finding.name} worse by {finding.difference:+.1%} of the requests (e-value {_e_value(finding.against)})"


def _e_value(log: float) -> str:
    return f"{math.exp(log):.3g}" if log < 300 else "beyond 1e130"
