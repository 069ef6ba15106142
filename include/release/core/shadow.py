"""Does the candidate answer as the live slot does? A comparison request by request, of answers that nobody got.

While the live requests are copied to the idle slot, both slots answer the same rows. So a shadow needs no statistics to
tell noise from effect, as a canary does: each pair is one row under two models. What is left to chance is which rows
came, and for that there is `min_requests`: the verdict falls once, at the first look that has so many, and is never
taken early. A candidate that did not answer what the live slot answered has an error; it cannot hide by being silent.

A retrained model is meant to decide some rows otherwise. The limits say how many: they catch a model whose scores are
shifted, whose inputs arrive mangled or whose server is slow, and they do not say which of two models is better.

Latency is compared by the 90th percentile of both slots. Both are read off bins a quarter wide, so the ratio is good to
about that; tails are the canary's question.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

from include.kernel.words.verdicts import Verdict
from include.serving.words.slot_metrics import LATENCY_S

QUANTILE = 0.9


class ShadowSpec(Protocol):
    """The manifest's `release.shadow`."""

    @property
    def min_requests(self) -> int: ...
    @property
    def max_errors(self) -> float: ...
    @property
    def max_flips(self) -> float: ...
    @property
    def max_score_delta(self) -> float: ...
    @property
    def max_latency_ratio(self) -> float: ...
    @property
    def slice_rows(self) -> int: ...
    @property
    def slice_flips(self) -> float: ...


@dataclass(frozen=True)
class ShadowAnswer:
    """What one slot made of one request: score, decision and slices of each row. No scores where it did not answer."""

    seconds: float
    scores: tuple[float, ...] = ()
    decisions: tuple[bool, ...] = ()
    slices: tuple[tuple[str, ...], ...] = ()  # of each row, such as ("Home=rent", "Age=<30"); of the live slot alone

    @property
    def is_answer(self) -> bool:
        return bool(self.scores)


@dataclass(frozen=True)
class ScoreShift:
    """How far the decisions and scores of some rows moved from the live slot to the candidate."""

    rows: int = 0
    flips: int = 0
    delta: float = 0.0  # sum of the absolute differences
    largest: float = 0.0

    def __add__(self, more: ScoreShift) -> ScoreShift:
        return ScoreShift(
            self.rows + more.rows,
            self.flips + more.flips,
            self.delta + more.delta,
            max(self.largest, more.largest),
        )

    @property
    def flipped(self) -> float:
        """Share of the rows, 0 to 1."""
        return self.flips / self.rows if self.rows else 0.0

    @property
    def mean_delta(self) -> float:
        return self.delta / self.rows if self.rows else 0.0


NO_BINS = (0,) * (len(LATENCY_S) + 1)


@dataclass(frozen=True)
class ShadowComparison:
    """Everything compared so far. Sums only, so two looks are added, and a killed run goes on from the last one."""

    requests: int = 0
    errors: int = 0  # requests the live slot answered and the candidate did not
    all: ScoreShift = ScoreShift()
    slices: Mapping[str, ScoreShift] = field(default_factory=dict)
    live: tuple[int, ...] = NO_BINS  # answers by latency, as `Traffic.latency`
    candidate: tuple[int, ...] = NO_BINS

    def __add__(self, more: ShadowComparison) -> ShadowComparison:
        names = dict.fromkeys((*self.slices, *more.slices))
        return ShadowComparison(
            self.requests + more.requests,
            self.errors + more.errors,
            self.all + more.all,
            {name: self.slices.get(name, ScoreShift()) + more.slices.get(name, ScoreShift()) for name in names},
            tuple(a + b for a, b in zip(self.live, more.live, strict=True)),
            tuple(a + b for a, b in zip(self.candidate, more.candidate, strict=True)),
        )

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    @property
    def latency_ratio(self) -> float:
        """The candidate's 90th percentile over the live slot's; 1 while one of them has none."""
        live, candidate = find_latency_quantile(self.live, QUANTILE), find_latency_quantile(self.candidate, QUANTILE)
        return candidate / live if live and candidate else 1.0


def compare(pairs: Iterable[tuple[ShadowAnswer, ShadowAnswer | None]]) -> ShadowComparison:
    """Pairs of the live slot's answer and the candidate's, which is None where there is none to be found."""
    total = ShadowComparison()
    for live, candidate in pairs:
        answered = candidate is not None and candidate.is_answer and len(candidate.scores) == len(live.scores)
        total += _compare_pair(live, candidate) if candidate and answered else ShadowComparison(requests=1, errors=1)
    return total


def _compare_pair(live: ShadowAnswer, candidate: ShadowAnswer) -> ShadowComparison:
    rows = [
        ScoreShift(1, int(is_before is not is_now), abs(high - low), abs(high - low))
        for is_before, is_now, low, high in zip(
            live.decisions, candidate.decisions, live.scores, candidate.scores, strict=True
        )
    ]
    slices: dict[str, ScoreShift] = {}
    for row, names in zip(rows, live.slices or ((),) * len(rows), strict=True):
        for name in names:
            slices[name] = slices.get(name, ScoreShift()) + row
    together = ShadowComparison(1, 0, sum(rows, ScoreShift()), slices)
    return together + ShadowComparison(
        live=_build_latency_bins(live.seconds), candidate=_build_latency_bins(candidate.seconds)
    )


def _build_latency_bins(seconds: float) -> tuple[int, ...]:
    own_bin = bisect_left(LATENCY_S, seconds)
    return tuple(int(number == own_bin) for number in range(len(NO_BINS)))


def find_latency_quantile(bins: Sequence[int], share: float) -> float | None:
    """Upper bound in seconds of the bin in which this share of the answers is reached; None without answers."""
    target_count = share * sum(bins)
    if not target_count:
        return None
    bin_number = next(number for number, below in enumerate(accumulate(bins)) if below >= target_count)
    return LATENCY_S[min(bin_number, len(LATENCY_S) - 1)]


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    why: str


def judge(comparison: ShadowComparison, spec: ShadowSpec) -> Judgement:
    """PENDING below `min_requests`; then FAILED with every limit that is exceeded, or PASSED."""
    if comparison.requests < spec.min_requests:
        return Judgement(Verdict.PENDING, f"{comparison.requests} of {spec.min_requests} requests compared")
    breaches = [*_list_exceeded_limits(comparison, spec), *_list_exceeded_slices(comparison, spec)]
    if breaches:
        return Judgement(Verdict.FAILED, f"{comparison.requests} requests compared: {'; '.join(breaches)}")
    return Judgement(Verdict.PASSED, f"{comparison.requests} requests compared: {summarise_comparison(comparison)}")


def _list_exceeded_limits(comparison: ShadowComparison, spec: ShadowSpec) -> list[str]:
    shift = comparison.all
    checks = (
        (comparison.error_share, spec.max_errors, "{:.1%} were not answered, max_errors allows {:.1%}"),
        (shift.flipped, spec.max_flips, "{:.1%} of the decisions flipped, max_flips allows {:.1%}"),
        (
            shift.mean_delta,
            spec.max_score_delta,
            "scores moved by {:.3f} on average, max_score_delta allows {:.3f}",
        ),
        (
            comparison.latency_ratio,
            spec.max_latency_ratio,
            "answers took {:.1f} times as long, max_latency_ratio is {}",
        ),
    )
    return [template.format(value, limit) for value, limit, template in checks if value > limit]


def _list_exceeded_slices(comparison: ShadowComparison, spec: ShadowSpec) -> list[str]:
    return [
        f"{shift.flipped:.1%} of the decisions flipped where {name}, slice_flips allows {spec.slice_flips:.1%}"
        for name, shift in sorted(comparison.slices.items())
        if shift.rows >= spec.slice_rows and shift.flipped > spec.slice_flips
    ]


def summarise_comparison(comparison: ShadowComparison) -> str:
    return (
        f"{comparison.all.flipped:.1%} of the decisions flipped, scores moved by {comparison.all.mean_delta:.3f}, "
        f"{comparison.error_share:.1%} errors, latency {comparison.latency_ratio:.1f} times the live slot's"
    )


def build_report(comparison: ShadowComparison) -> dict[str, Any]:
    """What is kept beside the release; shares 0 to 1, times in milliseconds."""
    return {
        "requests": comparison.requests,
        "errors": comparison.error_share,
        **_encode_shift(comparison.all),
        "latency_ratio": comparison.latency_ratio,
        "latency_ms": {
            "live": _compute_latency_ms(comparison.live),
            "candidate": _compute_latency_ms(comparison.candidate),
        },
        "slices": {name: _encode_shift(shift) for name, shift in sorted(comparison.slices.items())},
    }


def _encode_shift(shift: ScoreShift) -> dict[str, Any]:
    return {"rows": shift.rows, "flips": shift.flipped, "score_delta": shift.mean_delta, "largest": shift.largest}


def _compute_latency_ms(bins: Sequence[int]) -> dict[str, float | None]:
    quantiles = {f"p{share * 100:g}": find_latency_quantile(bins, share) for share in (0.5, QUANTILE, 0.99)}
    return {name: None if seconds is None else round(seconds * 1e3, 3) for name, seconds in quantiles.items()}
