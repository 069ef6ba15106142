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

from include.kernel.words.verdicts import name_canary
from include.release.core import canary
from include.release.core.canary import Judgement, Period, Traffic
from include.release.core.rollout import Colour, Observed, Verdict, Wanted, other
from include.release.spec import CanarySpec
from include.release.targets.slot_counters import Counted

if TYPE_CHECKING:
    from include.release.targets.base import ServingTarget

Noted = dict[str, Any]


def look(target: ServingTarget, wanted: Wanted, seen: Observed, spec: CanarySpec) -> None:
    """Takes the run one look further; records the verdict of the weight once there is one."""
    number = len(target.evidence(wanted.generation).canary) + 1
    weight, part = wanted.plan.weights[number - 1], name_canary(number)
    if seen.route.share != weight:
        target.split(wanted, share=weight)
    counted = {role: target.counted(colour) for role, colour in _roles(seen.idle).items()}
    noted = _noted(target.progress(wanted.generation, part), weight, counted)
    target.note(wanted.generation, part, noted)
    judgement = _judged(target, wanted, number, noted, counted["candidate"], spec)
    if judgement.misdealt:
        target.note(wanted.generation, part, {**noted, "first": {}, "since": dict.fromkeys(noted["since"])})
    if judgement.verdict is not Verdict.PENDING:
        target.record(wanted.generation, part, judgement.verdict, f"{weight} %: {judgement.why}")


def _roles(idle: Colour) -> dict[str, Colour]:
    return {"candidate": idle, "stable": other(idle)}


def _noted(before: Noted, weight: int, counted: Mapping[str, Counted | None]) -> Noted:
    """How far this weight has come: looks, the counts it began with, and what was counted since."""
    first = before.get("first", {})
    stable = counted["stable"]
    if stable and first and first["stable"]["started"] != stable.started:
        first = {}  # another process counts there now: what was seen of this weight cannot be continued
    if not first and all(counted.values()):
        first = {role: asdict(each) for role, each in counted.items() if each}
    since = {role: _since(first.get(role), each) for role, each in counted.items()}
    return {"looks": before.get("looks", 0) + 1, "weight": weight, "first": first, "since": since}


def _since(first: Noted | None, now: Counted | None) -> Noted | None:
    if first is None or now is None or first["started"] != now.started:
        return None
    return asdict(now.traffic - _traffic(first["traffic"]))


def _traffic(noted: Noted) -> Traffic:
    return Traffic(**{**noted, "latency": tuple(noted["latency"]), "scores": tuple(noted["scores"])})


def _judged(
    target: ServingTarget, wanted: Wanted, number: int, noted: Noted, candidate: Counted | None, spec: CanarySpec
) -> Judgement:
    if candidate is None or (noted["first"] and noted["first"]["candidate"]["started"] != candidate.started):
        return Judgement(Verdict.FAILED, "the candidate's process ended, or does not answer")
    past = [target.progress(wanted.generation, name_canary(earlier)) for earlier in range(1, number)]
    judgement = canary.judge([*map(_period, past), _period(noted)], spec, number == len(wanted.plan.weights))
    if judgement.verdict is Verdict.PENDING and noted["looks"] >= spec.looks:
        return Judgement(Verdict.FAILED, f"undecided after {spec.looks} looks: {judgement.why}")
    return judgement


def _period(noted: Noted) -> Period:
    since = {role: _traffic(each) if each else None for role, each in noted["since"].items()}
    return Period(noted["weight"] / 100, since["candidate"], since["stable"])
