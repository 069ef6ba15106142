"""What a slot has answered so far, from the text it tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING

from include.release.core.canary import LATENCY_S, SCORES, Traffic

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

ANSWERS = ("/predict", "/predict-and-explain", "/invocations", "/v2/models/{name}/infer")


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
        started = next(sample.value for sample in samples if sample.name == "process_start_time_seconds")
        own = [sample for sample in samples if sample.labels.get("version") == version]
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
    answers = [each for each in own if each.name == "evergreen_requests_total" and each.labels["path"] in ANSWERS]
    known = [each for each in answers if each.labels["status"][0] in "25"]  # 4xx is the caller's
    return Traffic(
        requests=_total(known),
        errors=_total(each for each in known if each.labels["status"][0] == "5"),
        latency=_bins(own, "evergreen_predict_seconds", LATENCY_S),
        scores=_bins(own, "evergreen_score", SCORES),
        decisions=_total(
            e for e in own if e.name == "evergreen_decisions_total" and e.labels["decision"] == "positive"
        ),
    )


def _total(samples: Iterable[Sample]) -> int:
    return int(sum(sample.value for sample in samples))


def _bins(own: list[Sample], name: str, bounds: tuple[float, ...]) -> tuple[int, ...]:
    """Counts between neighbouring bounds and beyond the last; a bound that is not there is a KeyError."""
    below: dict[float, float] = {}
    for sample in own:
        if sample.name == f"{name}_bucket":
            bound = float(sample.labels["le"])
            below[bound] = below.get(bound, 0) + sample.value
    cumulative = [0.0, *(below[bound] for bound in bounds), below[float("inf")]]
    return tuple(int(high - low) for low, high in pairwise(cumulative))
