"""Is one share larger than another? An answer that may be looked at after every request, and stays true.

A fixed-sample test that is repeated at every look finds a difference in the end also where there is none. An e-value
does not: if nothing is wrong it exceeds 1/alpha with probability alpha at most, however often and for however long one
looks (Ville 1939). Ours is the wealth of a gambler who bets against the hypothesis on every request; he can only grow
rich if it is false (betting on bounded means: Waudby-Smith and Ramdas 2024, JRSS B 86:1; sequential tests for canary
releases: Lindon, Sanden and Shirikian 2022, arXiv 2205.14762).

Requests are dealt to candidate and stable slot at random with a known weight w. With Y = 1 for a request that has the
event (an error, a slow answer, a score above a threshold), (Y/w if it went to the candidate, -Y/(1-w) if not) has the
difference of the two shares as its mean, whatever they are. All wealths are functions of four counts in each period,
so nothing has to be remembered between two looks but counters, and the order of requests does not matter.

The trade-off: no assumption about the shares costs samples: at small weights, about the reciprocal of the weight.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

# How much of the largest allowed bet is placed. Nobody knows the best one beforehand, so the money is spread over all.
BET_FRACTIONS = tuple(0.9 * 0.6**step for step in range(16))


@dataclass(frozen=True)
class PeriodCounts:
    """One period of constant weight: requests of either slot, and how many of them had the event."""

    weight: float  # with which probability a request went to the candidate, 0 < weight < 1
    candidate: int
    stable: int
    candidate_events: int
    stable_events: int

    @property
    def others(self) -> int:
        """Requests without the event."""
        return self.candidate + self.stable - self.candidate_events - self.stable_events


def compute_evidence_above(periods: Sequence[PeriodCounts], margin: float) -> float:
    """Log e-value against "the candidate's share exceeds the stable one by `margin` at most" (-1 < margin < 1)."""
    return _compute_log_mean([_compute_log_wealth(periods, margin, fraction) for fraction in BET_FRACTIONS])


def compute_evidence_below(periods: Sequence[PeriodCounts], margin: float) -> float:
    """Log e-value against "the candidate's share exceeds the stable one by `margin` at least"."""
    return _compute_log_mean([_compute_log_wealth(periods, margin, -fraction) for fraction in BET_FRACTIONS])


def compute_weight_evidence(candidate: int, stable: int, weight: float) -> float:
    """Log e-value against "each request went to the candidate with probability `weight`".

    The likelihood of the split under all weights alike (a uniform prior), over that under the one which is said.
    """
    alike = math.lgamma(candidate + 1) + math.lgamma(stable + 1) - math.lgamma(candidate + stable + 2)
    return alike - candidate * math.log(weight) - stable * math.log1p(-weight)


@dataclass(frozen=True)
class Losses:
    """Callers dealt at random with one weight, each with a loss of 0 to 1: how many had which."""

    weight: float  # with which probability a caller went to the candidate, 0 < weight < 1
    candidate: Mapping[float, int]
    stable: Mapping[float, int]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


BISECTION_STEPS = 40  # halvings of the interval from -1 to 1


def compute_confidence_sequence(losses: Losses, alpha: float) -> Interval:
    """Of the candidate's mean loss minus the stable one: a confidence sequence, right at all looks but for `alpha`.

    It holds every difference that no gambler has refuted (Waudby-Smith and Ramdas 2024, section 4). Each wealth falls,
    or rises, with the margin it bets on, so the two ends are found by halving.
    """
    enough = math.log(2 / alpha)
    low = _find_interval_end(lambda margin: _compute_loss_evidence(losses, margin, 1) >= enough, -1.0, 1.0)
    high = _find_interval_end(lambda margin: _compute_loss_evidence(losses, margin, -1) >= enough, 1.0, -1.0)
    return Interval(low, high)


def _find_interval_end(is_refuted: Callable[[float], bool], refuted: float, unrefuted: float) -> float:
    """Where refuted margins end, coming from `refuted`; that one itself where none is refuted."""
    if not is_refuted(refuted):
        return refuted
    for _ in range(BISECTION_STEPS):
        middle = (refuted + unrefuted) / 2
        refuted, unrefuted = (middle, unrefuted) if is_refuted(middle) else (refuted, middle)
    return refuted


def _compute_loss_evidence(losses: Losses, margin: float, side: int) -> float:
    """Log e-value; with `side` 1 against "exceeds by `margin` at most", with -1 against "by `margin` at least"."""
    return _compute_log_mean([_compute_loss_wealth(losses, margin, side * fraction) for fraction in BET_FRACTIONS])


def _compute_loss_wealth(losses: Losses, margin: float, fraction: float) -> float:
    """As `_compute_log_wealth`, where a caller's loss takes the place of an event."""
    weight = losses.weight
    bet = fraction / (1 / (1 - weight) + margin if fraction > 0 else 1 / weight - margin)
    candidate = sum(count * math.log1p(bet * (loss / weight - margin)) for loss, count in losses.candidate.items())
    stable = sum(count * math.log1p(-bet * (loss / (1 - weight) + margin)) for loss, count in losses.stable.items())
    return candidate + stable


def compute_mean_evidence(evidence: Iterable[float]) -> float:
    """Log of the mean of e-values, which is an e-value against all of their hypotheses being true at once."""
    return _compute_log_mean(list(evidence))


def compute_share_difference(periods: Sequence[PeriodCounts]) -> float:
    """Share of the candidate minus that of the stable slot, over all periods; 0 where one of them has no request."""
    candidate = _compute_share(sum(p.candidate_events for p in periods), sum(p.candidate for p in periods))
    stable = _compute_share(sum(p.stable_events for p in periods), sum(p.stable for p in periods))
    return 0.0 if candidate is None or stable is None else candidate - stable


def _compute_share(events: int, requests: int) -> float | None:
    return events / requests if requests else None


def _compute_log_wealth(periods: Sequence[PeriodCounts], margin: float, fraction: float) -> float:
    """Of a gambler with this fraction; a positive one bets on a larger difference than `margin`, a negative on less."""
    wealth = 0.0
    for period in periods:
        candidate, stable, other = _compute_log_growth(period.weight, margin, fraction)
        wealth += period.candidate_events * candidate + period.stable_events * stable + period.others * other
    return wealth


@lru_cache(maxsize=4096)
def _compute_log_growth(weight: float, margin: float, fraction: float) -> tuple[float, float, float]:
    """By what the log wealth grows with a candidate's event, a stable slot's event, and a request without one."""
    gain, loss = 1 / weight - margin, 1 / (1 - weight) + margin
    bet = fraction / (loss if fraction > 0 else gain)  # so that no single request can take all the wealth
    return math.log1p(bet * gain), math.log1p(-bet * loss), math.log1p(-bet * margin)


def _compute_log_mean(logs: Sequence[float]) -> float:
    largest = max(logs)
    return largest + math.log(sum(math.exp(each - largest) for each in logs) / len(logs))
