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
from include.kernel.inference.e_values import PeriodCounts
from include.kernel.words.verdicts import Verdict
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
    """One question's answer. `against` and `log_e_good` are log e-values of "worse" and of "good enough"."""

    name: str
    difference: float  # of the shares, at the threshold where it is largest
    log_e_worse: float
    log_e_good: float
    verdict: Verdict


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    why: str
    findings: tuple[Finding, ...] = ()
    has_ratio_mismatch: bool = False  # the newest period cannot be used and has to begin anew


def judge(periods: Sequence[Period], spec: CanarySpec, is_last: bool) -> Judgement:
    """The verdict on the newest period's weight, given all of them.

    FAILED needs one proof of worse. PASSED needs `min_requests` answered by the candidate in the newest period, and in
    the last one (`is_last`) a proof of good enough for every question. All else is PENDING.
    """
    counted_periods = [_CountedPeriod(p.weight, p.candidate, p.stable) for p in periods if p.candidate and p.stable]
    if len(counted_periods) < len(periods) or not counted_periods:
        return Judgement(Verdict.PENDING, "the counters of a slot cannot be read")
    if other := _check_sample_ratio(counted_periods[-1], spec):
        return Judgement(Verdict.PENDING, other, has_ratio_mismatch=True)
    findings = tuple(_judge_questions(counted_periods, spec))
    worse = [finding for finding in findings if finding.verdict is Verdict.FAILED]
    if worse:
        return Judgement(Verdict.FAILED, "; ".join(map(_describe_finding, worse)), findings)
    answered = counted_periods[-1].candidate.requests
    if answered < spec.min_requests:
        return Judgement(Verdict.PENDING, f"{answered} of {spec.min_requests} requests", findings)
    open_questions = [finding.name for finding in findings if finding.verdict is Verdict.PENDING]
    if is_last and open_questions:
        return Judgement(Verdict.PENDING, f"not yet proven good enough: {', '.join(open_questions)}", findings)
    return Judgement(Verdict.PASSED, f"no worse after {answered} requests", findings)


@dataclass(frozen=True)
class _CountedPeriod:
    """A period whose counters are all there."""

    weight: float
    candidate: Traffic
    stable: Traffic


def _check_sample_ratio(period: _CountedPeriod, spec: CanarySpec) -> str | None:
    candidate, stable = period.candidate.requests, period.stable.requests
    if e_values.compute_weight_evidence(candidate, stable, period.weight) < -math.log(spec.false_abort):
        return None
    share = candidate / (candidate + stable)
    return f"the candidate got {share:.0%} of the requests and not its {period.weight:.0%}, so nothing can be compared"


EventCounter = Callable[[Traffic], tuple[int, int]]  # requests, and those of them with the event


def _judge_questions(periods: Sequence[_CountedPeriod], spec: CanarySpec) -> list[Finding]:
    false_abort = spec.false_abort / 4
    questions: list[tuple[str, Bounds, list[tuple[EventCounter, EventCounter]], bool]] = [
        ("errors", spec.errors, [_use_for_both(_count_errors)], False),
        (
            "latency",
            spec.latency,
            [(_build_latency_counter(at + 1), _build_latency_counter(at)) for at in range(len(LATENCY_S) - 1)],
            False,
        ),
        ("scores", spec.scores, [_use_for_both(_build_score_counter(at)) for at in range(len(SCORES))], True),
        ("decisions", spec.decisions, [_use_for_both(_count_decisions)], True),
    ]
    return [
        _judge_question(
            name,
            [_list_period_counts(periods, *counts) for counts in thresholds],
            bounds,
            two_sided,
            false_abort,
            spec.false_pass,
        )
        for name, bounds, thresholds, two_sided in questions
    ]


def _judge_question(
    name: str,
    thresholds: list[list[PeriodCounts]],
    bounds: Bounds,
    two_sided: bool,
    false_abort: float,
    false_pass: float,
) -> Finding:
    tested = [*thresholds, *(_invert_thresholds(thresholds) if two_sided else [])]
    log_e_worse = e_values.compute_mean_evidence(
        e_values.compute_evidence_above(periods, bounds.tolerated) for periods in tested
    )
    log_e_good = min(e_values.compute_evidence_below(periods, bounds.limit) for periods in tested)
    difference = max(
        (e_values.compute_share_difference(periods) for periods in thresholds), key=abs if two_sided else float
    )
    verdict = Verdict.PASSED if log_e_good >= -math.log(false_pass) else Verdict.PENDING
    if log_e_worse >= -math.log(false_abort):
        verdict = Verdict.FAILED
    return Finding(name, difference, log_e_worse, log_e_good, verdict)


def _invert_thresholds(thresholds: list[list[PeriodCounts]]) -> list[list[PeriodCounts]]:
    """Less often is more often not: the other direction of every question."""
    return [[_invert_counts(split) for split in periods] for periods in thresholds]


def _invert_counts(split: PeriodCounts) -> PeriodCounts:
    return PeriodCounts(
        split.weight,
        split.candidate,
        split.stable,
        split.candidate - split.candidate_events,
        split.stable - split.stable_events,
    )


def _list_period_counts(
    periods: Sequence[_CountedPeriod], candidate: EventCounter, stable: EventCounter
) -> list[PeriodCounts]:
    return [
        _build_period_counts(period.weight, candidate(period.candidate), stable(period.stable)) for period in periods
    ]


def _build_period_counts(weight: float, candidate: tuple[int, int], stable: tuple[int, int]) -> PeriodCounts:
    return PeriodCounts(weight, candidate[0], stable[0], candidate[1], stable[1])


def _use_for_both(count: EventCounter) -> tuple[EventCounter, EventCounter]:
    return count, count


def _count_errors(traffic: Traffic) -> tuple[int, int]:
    return traffic.requests, traffic.errors


def _count_decisions(traffic: Traffic) -> tuple[int, int]:
    return traffic.scored, traffic.decisions


def _build_latency_counter(bound: int) -> EventCounter:
    """Requests that took longer than the bound with this number."""
    return lambda traffic: _count_beyond(traffic.latency, bound)


def _build_score_counter(bound: int) -> EventCounter:
    return lambda traffic: _count_beyond(traffic.scores, bound)


def _count_beyond(bins: tuple[int, ...], bound: int) -> tuple[int, int]:
    return sum(bins), sum(bins[bound + 1 :])


def _describe_finding(finding: Finding) -> str:
    return (
        f"{finding.name} worse by {finding.difference:+.1%} of the requests (e-value "
        f"{_format_e_value(finding.log_e_worse)})"
    )


def _format_e_value(log: float) -> str:
    return f"{math.exp(log):.3g}" if log < 300 else "beyond 1e130"
