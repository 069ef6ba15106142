"""What a slot has answered so far, from the text it tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING

from include.release.core.canary import Traffic
from include.serving.words import slot_metrics as words
from include.serving.words.slot_metrics import Family

if TYPE_CHECKING:
    from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Counted:
    """Counters of one version in one process; `started` (seconds since 1970) tells two processes apart."""

    started: float
    traffic: Traffic


def counted(text: str, version: str) -> Counted | None:
    """None where the text lacks a counter, so that nobody takes a renamed metric for a quiet slot."""
    from prometheus_client.parser import text_string_to_metric_families  # of canaries alone; a rollback is in a hurry

    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    try:
        started = next(sample.value for sample in samples if sample.name == words.STARTED)
        own = [sample for sample in samples if sample.labels.get(words.VERSION) == version]
        return Counted(started, _traffic(own))
    except (StopIteration, KeyError, ValueError):
        return None


def together(processes: Sequence[Counted | None]) -> Counted | None:
    """Several processes as one, which has begun anew when any of them has; None where one of them is not known."""
    known = [each for each in processes if each]
    if not known or len(known) < len(processes):
        return None
    return Counted(sum(each.started for each in known), reduce(_sum, (each.traffic for each in known)))


def _sum(one: Traffic, two: Traffic) -> Traffic:
    return Traffic(
        one.requests + two.requests,
        one.errors + two.errors,
        tuple(map(add, one.latency, two.latency)),
        tuple(map(add, one.scores, two.scores)),
        one.decisions + two.decisions,
    )


def _traffic(own: list[Sample]) -> Traffic:
    answers = [each for each in _samples(own, words.REQUESTS) if each.labels[words.PATH] in words.PREDICTING]
    failed = [each for each in answers if each.labels[words.STATUS].startswith(words.FAILED)]
    good = [each for each in answers if each.labels[words.STATUS].startswith(words.OK)]  # 4xx is the caller's
    return Traffic(
        requests=_total(good) + _total(failed),
        errors=_total(failed),
        latency=_bins(own, words.LATENCY, words.LATENCY_S),
        scores=_bins(own, words.SCORE, words.SCORES),
        decisions=_decisions(own),
    )


def _decisions(own: list[Sample]) -> int:
    """How many were a yes. Raises `KeyError` where rows were scored and none was decided: then a word has changed."""
    decided = _samples(own, words.DECISIONS)
    known = {word: _total(e for e in decided if e.labels[words.DECISION] == word) for word in (words.YES, words.NO)}
    if sum(known.values()) != _total(decided) or (not decided and _total(_samples(own, words.SCORE))):
        raise KeyError(words.DECISION)
    return known[words.YES]


def _samples(own: list[Sample], family: Family) -> list[Sample]:
    return [sample for sample in own if sample.name == family.samples[0]]


def _total(samples: Iterable[Sample]) -> int:
    return int(sum(sample.value for sample in samples))


def _bins(own: list[Sample], family: Family, bounds: tuple[float, ...]) -> tuple[int, ...]:
    """Counts between neighbouring bounds and beyond the last; a bound that is not there is a KeyError."""
    below: dict[float, float] = {}
    for sample in _samples(own, family):
        bound = float(sample.labels["le"])
        below[bound] = below.get(bound, 0) + sample.value
    cumulative = [0.0, *(below[bound] for bound in bounds), below[float("inf")]]
    return tuple(int(high - low) for low, high in pairwise(cumulative))
