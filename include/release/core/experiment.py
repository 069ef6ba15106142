"""Is the challenger better for the people it decides about? Two versions, callers dealt by their key, and outcomes.

A shadow and a canary say that a release does no harm; an experiment says that it is worth having. Each caller is dealt
to one of the two by the hash of its key and stays there. Callers are what is dealt at random, so callers are what is
counted: of each, the first prediction since the experiment began, once it has an outcome. A caller who asks a hundred
times would otherwise count as a hundred, and every interval would be too narrow.

What is compared is a loss between 0 and 1, the mean over callers; lower is better:

    cost        what the decision cost by `gate.cost`, in units of the dearer mistake
    errors      the decision missed the outcome
    positive    the outcome was the positive class
    negative    the outcome was the negative class

The interval of the difference is a confidence sequence: it holds at all looks together with probability 1 - alpha
(include/kernel/inference/e_values.py), so one may look daily and stop when it is clear. The challenger is promoted when
all of the interval says better, and discarded when all of it says worse, or when the deadline comes first: an equal
model is not worth a change.

What no test mends: where only one decision leads to an outcome (nobody knows whether a denied applicant would have
paid), the callers with an outcome are not those who were dealt. Where the versions deny unlike shares of them, it
shows: the outcomes are then not split as the callers were, and such outcomes prove nothing (a sample ratio mismatch:
Fabijan et al. 2019, KDD). Where they deny as many, but others, it does not show.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from include.kernel.inference import e_values
from include.kernel.inference.e_values import Interval, Losses
from include.kernel.words.verdicts import Verdict

Metric = Literal["cost", "errors", "positive", "negative"]


class ExperimentSpec(Protocol):
    """The manifest's `experiment`."""

    @property
    def share(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def min_outcomes(self) -> int: ...
    @property
    def alpha(self) -> float: ...


class CostSpec(Protocol):
    """The manifest's `gate.cost`."""

    @property
    def false_approval(self) -> float: ...
    @property
    def false_denial(self) -> float: ...


@dataclass(frozen=True)
class Arm:
    """Callers of one version with an outcome, by decision and outcome; positive is decided for the positive class."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @property
    def callers(self) -> int:
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative


@dataclass(frozen=True)
class Judgement:
    """`lift` is by how much the challenger's loss is lower, with its interval: above 0 is better."""

    verdict: Verdict
    why: str
    report: Mapping[str, Any]


def judge(challenger: Arm, champion: Arm, spec: ExperimentSpec, cost: CostSpec) -> Judgement:
    """PASSED where the challenger is proven better on `min_outcomes` callers of each, FAILED where proven worse."""
    arms = {
        name: _count_losses(arm, spec.metric, cost)
        for name, arm in (("challenger", challenger), ("champion", champion))
    }
    losses = Losses(spec.share / 100, arms["challenger"], arms["champion"])
    difference = e_values.compute_confidence_sequence(losses, spec.alpha)
    lift = Interval(-difference.high, -difference.low)
    means = {name: _compute_mean_loss(values) for name, values in arms.items()}
    report = {
        "metric": spec.metric,
        "alpha": spec.alpha,
        "callers": {"challenger": challenger.callers, "champion": champion.callers},
        "loss": means,
        "lift": means["champion"] - means["challenger"],
        "relative": (means["champion"] - means["challenger"]) / means["champion"] if means["champion"] else None,
        "interval": [lift.low, lift.high],
    }
    verdict, why = _decide_verdict(lift, challenger.callers, champion.callers, spec)
    return Judgement(verdict, f"{why}: {_describe_report(report)}", {**report, "verdict": verdict.value})


def _decide_verdict(lift: Interval, challengers: int, champions: int, spec: ExperimentSpec) -> tuple[Verdict, str]:
    callers = min(challengers, champions)
    if e_values.compute_weight_evidence(challengers, champions, spec.share / 100) >= -math.log(spec.alpha):
        share = challengers / (challengers + champions)
        reason = f"{share:.0%} of the callers with an outcome are the challenger's and not {spec.share}%"
        return Verdict.PENDING, f"{reason}, so they are not those who were dealt and prove nothing"
    if lift.high < 0:
        return Verdict.FAILED, "the challenger is worse"
    if callers < spec.min_outcomes:
        return Verdict.PENDING, f"{callers} of {spec.min_outcomes} callers with an outcome"
    if lift.low > 0:
        return Verdict.PASSED, "the challenger is better"
    return Verdict.PENDING, "no difference is proven"


def _describe_report(report: Mapping[str, Any]) -> str:
    low, high = report["interval"]
    callers = sum(report["callers"].values())
    return f"{report['metric']} lower by {report['lift']:.3f} ({low:.3f} to {high:.3f}) over {callers} callers"


def _count_losses(arm: Arm, metric: Metric, cost: CostSpec) -> dict[float, int]:
    """Loss -> callers who have it."""
    dearer = max(cost.false_approval, cost.false_denial)
    worth = {
        "cost": (0.0, cost.false_denial / dearer, cost.false_approval / dearer, 0.0),
        "errors": (0.0, 1.0, 1.0, 0.0),
        "positive": (1.0, 0.0, 1.0, 0.0),
        "negative": (0.0, 1.0, 0.0, 1.0),
    }[metric]
    callers_by_loss: dict[float, int] = {}
    counts = (arm.true_positive, arm.false_positive, arm.false_negative, arm.true_negative)
    for loss, count in zip(worth, counts, strict=True):
        callers_by_loss[loss] = callers_by_loss.get(loss, 0) + count
    return callers_by_loss


def _compute_mean_loss(losses: Mapping[float, int]) -> float:
    callers = sum(losses.values())
    return sum(loss * count for loss, count in losses.items()) / callers if callers else 0.0
