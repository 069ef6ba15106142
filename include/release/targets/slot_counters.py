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
from include.serving.words.slot_metrics import MetricFamily

if TYPE_CHECKING:
    from prometheus_client.samples import Sample


@dataclass(frozen=True)
class SlotCounters:
    """Counters of one version in one process; `started` (seconds since 1970) tells two processes apart."""

    started: float
    traffic: Traffic


def parse_counters(text: str, version: str) -> SlotCounters | None:
    """None where the text lacks a counter, so that nobody takes a renamed metric for a quiet slot."""
    from prometheus_client.parser import text_string_to_metric_families  # of canaries alone; a rollback is in a hurry

    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    try:
        started = next(sample.value for sample in samples if sample.name == words.STARTED)
        version_samples = [sample for sample in samples if sample.labels.get(words.VERSION) == version]
        return SlotCounters(started, _count_traffic(version_samples))
    except (StopIteration, KeyError, ValueError):
        return None


def merge_counters(processes: Sequence[SlotCounters | None]) -> SlotCounters | None:
    """Several processes as one, which has begun anew when any of them has; None where one of them is not known."""
    readable = [counters for counters in processes if counters]
    if not readable or len(readable) < len(processes):
        return None
    return SlotCounters(
        sum(counters.started for counters in readable),
        reduce(_add_traffic, (counters.traffic for counters in readable)),
    )


def _add_traffic(left: Traffic, right: Traffic) -> Traffic:
    return Traffic(
        left.requests + right.requests,
        left.errors + right.errors,
        tuple(map(add, left.latency, right.latency)),
        tuple(map(add, left.scores, right.scores)),
        left.decisions + right.decisions,
    )


def _count_traffic(samples: list[Sample]) -> Traffic:
    answers = [
        sample for sample in _select_samples(samples, words.REQUESTS) if sample.labels[words.PATH] in words.PREDICTING
    ]
    failed = [sample for sample in answers if sample.labels[words.STATUS].startswith(words.FAILED)]
    good = [sample for sample in answers if sample.labels[words.STATUS].startswith(words.OK)]  # 4xx is the caller's
    return Traffic(
        requests=_add_samples(good) + _add_samples(failed),
        errors=_add_samples(failed),
        latency=_count_bins(samples, words.LATENCY, words.LATENCY_S),
        scores=_count_bins(samples, words.SCORE, words.SCORES),
        decisions=_count_decisions(samples),
    )


def _count_decisions(samples: list[Sample]) -> int:
    """How many were a yes. Raises `KeyError` where rows were scored and none was decided: then a word has changed."""
    decided = _select_samples(samples, words.DECISIONS)
    counts = {
        word: _add_samples(e for e in decided if e.labels[words.DECISION] == word) for word in (words.YES, words.NO)
    }
    if sum(counts.values()) != _add_samples(decided) or (
        not decided and _add_samples(_select_samples(samples, words.SCORE))
    ):
        raise KeyError(words.DECISION)
    return counts[words.YES]


def _select_samples(samples: list[Sample], family: MetricFamily) -> list[Sample]:
    return [sample for sample in samples if sample.name == family.samples[0]]


def _add_samples(samples: Iterable[Sample]) -> int:
    return int(sum(sample.value for sample in samples))


def _count_bins(samples: list[Sample], family: MetricFamily, bounds: tuple[float, ...]) -> tuple[int, ...]:
    """Counts between neighbouring bounds and beyond the last; a bound that is not there is a KeyError."""
    below: dict[float, float] = {}
    for sample in _select_samples(samples, family):
        bound = float(sample.labels["le"])
        below[bound] = below.get(bound, 0) + sample.value
    cumulative = [0.0, *(below[bound] for bound in bounds), below[float("inf")]]
    return tuple(int(high - low) for low, high in pairwise(cumulative))
