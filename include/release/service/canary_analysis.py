"""One look at a canary: give the candidate its share, count what both slots answered since, and ask for the verdict.

The counters are those the slots tell Prometheus. They only ever grow, so what happened at one weight is the difference
to a count noted when that weight began, and a run that is killed loses nothing but one look. A slot that was started
anew counts from zero: a candidate that did so died on live requests and is turned down, while the stable slot's new
count begins the weight anew, and so does a period whose requests were not dealt by the weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from include.kernel.words.colours import Colour, other
from include.kernel.words.verdicts import Verdict, name_canary
from include.release.core import canary
from include.release.core.canary import Judgement, Period, Traffic
from include.release.core.rollout import DesiredState, ObservedStatus
from include.release.spec import CanarySpec
from include.release.targets.slot_counters import SlotCounters

if TYPE_CHECKING:
    from include.release.targets.base import ServingTarget

Progress = dict[str, Any]


def analyse_canary(target: ServingTarget, desired: DesiredState, observed: ObservedStatus, spec: CanarySpec) -> None:
    """Takes the run one look further; records the verdict of the weight once there is one."""
    number = len(target.read_evidence(desired.generation).canary) + 1
    weight, part = desired.plan.weights[number - 1], name_canary(number)
    if observed.route.share != weight:
        target.split(desired, share=weight)
    counters = {role: target.count_traffic(colour) for role, colour in _assign_roles(observed.idle).items()}
    progress = _update_progress(target.read_progress(desired.generation, part), weight, counters)
    target.record_progress(desired.generation, part, progress)
    judgement = _judge_canary(target, desired, number, progress, counters["candidate"], spec)
    if judgement.has_ratio_mismatch:
        target.record_progress(
            desired.generation, part, {**progress, "first": {}, "since": dict.fromkeys(progress["since"])}
        )
    if judgement.verdict is not Verdict.PENDING:
        target.record_verdict(desired.generation, part, judgement.verdict, f"{weight} %: {judgement.why}")


def _assign_roles(idle: Colour) -> dict[str, Colour]:
    return {"candidate": idle, "stable": other(idle)}


def _update_progress(previous: Progress, weight: int, counters: Mapping[str, SlotCounters | None]) -> Progress:
    """How far this weight has come: looks, the counts it began with, and what was counted since."""
    first = previous.get("first", {})
    stable = counters["stable"]
    if stable and first and first["stable"]["started"] != stable.started:
        first = {}  # another process counts there now: what was seen of this weight cannot be continued
    if not first and all(counters.values()):
        first = {role: asdict(counter) for role, counter in counters.items() if counter}
    since = {role: _count_since(first.get(role), counter) for role, counter in counters.items()}
    return {"looks": previous.get("looks", 0) + 1, "weight": weight, "first": first, "since": since}


def _count_since(first: Progress | None, current: SlotCounters | None) -> Progress | None:
    if first is None or current is None or first["started"] != current.started:
        return None
    return asdict(current.traffic - _parse_traffic(first["traffic"]))


def _parse_traffic(content: Progress) -> Traffic:
    return Traffic(**{**content, "latency": tuple(content["latency"]), "scores": tuple(content["scores"])})


def _judge_canary(
    target: ServingTarget,
    desired: DesiredState,
    number: int,
    progress: Progress,
    candidate: SlotCounters | None,
    spec: CanarySpec,
) -> Judgement:
    if candidate is None or (progress["first"] and progress["first"]["candidate"]["started"] != candidate.started):
        return Judgement(Verdict.FAILED, "the candidate's process ended, or does not answer")
    past = [target.read_progress(desired.generation, name_canary(earlier)) for earlier in range(1, number)]
    judgement = canary.judge(
        [*map(_build_period, past), _build_period(progress)], spec, number == len(desired.plan.weights)
    )
    if judgement.verdict is Verdict.PENDING and progress["looks"] >= spec.looks:
        return Judgement(Verdict.FAILED, f"undecided after {spec.looks} looks: {judgement.why}")
    return judgement


def _build_period(progress: Progress) -> Period:
    since = {role: _parse_traffic(content) if content else None for role, content in progress["since"].items()}
    return Period(progress["weight"] / 100, since["candidate"], since["stable"])
