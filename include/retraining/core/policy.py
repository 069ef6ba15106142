"""Whether to retrain, as a pure function that gives every reason.

Three answers. `no` ends the run. `wait` is for a drift whose obstacles pass by themselves, in data time: labels that
are not known yet (training at once would teach the new model nothing about the new world), a cooldown, a release under
way, a broken delivery. What does not pass by itself is a no at once: the month's budget is spent, the breaker is open,
or a training that came later answers the episode already. A drift that is told no loses little, for the weekly run
asks again.

An approval is an entry of the ledger under its number, so that of any deciders who saw the same number one alone
enters it; the others look again and find the cooldown, the budget and the episode as that approval left them. The
policy therefore counts approvals, not trainings: one that is approved and has not begun yet is as good as done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, NamedTuple

from include.retraining.spec import RetrainingSpec

Trigger = Literal["schedule", "drift", "manual"]


@dataclass(frozen=True)
class Approval:
    """A training that was approved as of a data day; `episode` is the key of the drift it answers."""

    as_of: date
    trigger: Trigger
    episode: str | None = None


@dataclass(frozen=True)
class GateVerdict:
    """What a gate said of a training as of a data day. What a person tries by hand opens no breaker."""

    verdict: str
    as_of: date
    manual: bool = False


@dataclass(frozen=True)
class Facts:
    """What is known at the moment of the decision; all days are data days.

    `performance` says how the live model falls short of its floor on matured labels, and `unvalidated` which data
    broke the contract and was not replaced; None where there is nothing to say.
    """

    trigger: Trigger
    triggered: date
    as_of: date
    last_trained: date | None
    labels: int
    new_labels: int
    releasing: bool = False
    episode: str | None = None
    approvals: tuple[Approval, ...] = ()
    gates: tuple[GateVerdict, ...] = ()
    unvalidated: str | None = None
    performance: str | None = None

    @property
    def last(self) -> date | None:
        """The day of the newest training, made or approved."""
        known = [approval.as_of for approval in self.approvals]
        return max([*known, *([self.last_trained] if self.last_trained else [])], default=None)


@dataclass(frozen=True)
class Decision:
    """`reasons` are those of the verdict: what speaks for a yes, what stands in the way of a no or a wait."""

    verdict: Literal["yes", "no", "wait"]
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return "; ".join(self.reasons) + "."


class Obstacle(NamedTuple):
    reason: str
    is_temporary: bool  # by itself, in data time


def decide(facts: Facts, policy: RetrainingSpec, min_rows: int) -> Decision:
    """A person's word is enough; schedule and drift must have nothing in their way.

    `min_rows` is the manifest's train.min_rows: without that many labelled rows nobody gets a training.
    """
    if facts.labels < min_rows:
        return Decision("no", (f"{facts.labels} labelled rows of the {min_rows} a training needs are known",))
    if facts.trigger == "manual":
        return Decision("yes", ("a person asked for it",))
    if facts.last is None and not facts.unvalidated:
        return Decision("yes", ("no model was ever trained",))
    obstacles = tuple(_list_obstacles(facts, policy))
    if not obstacles:
        return Decision("yes", tuple(_list_reasons(facts, policy)))
    can_wait = _may_wait(facts, policy) and all(obstacle.is_temporary for obstacle in obstacles)
    return Decision("wait" if can_wait else "no", tuple(obstacle.reason for obstacle in obstacles))


def _list_reasons(facts: Facts, policy: RetrainingSpec) -> Iterator[str]:
    if facts.trigger == "drift":
        yield f"drift of {facts.triggered}"
    if facts.performance:
        yield facts.performance
    if _is_overdue(facts, policy):
        yield f"the last training was {_compute_age(facts)} data days ago, at most {policy.max_age_days} are wanted"
    yield f"{facts.trigger}: {facts.new_labels} labelled rows the last training has not seen"


def _list_obstacles(facts: Facts, policy: RetrainingSpec) -> Iterator[Obstacle]:
    if answer := _find_answer(facts):
        yield Obstacle(f"the training approved as of {answer.as_of} answers this drift already", is_temporary=False)
    if facts.releasing:
        yield Obstacle("a release is under way", is_temporary=True)
    if facts.unvalidated:
        yield Obstacle(facts.unvalidated, is_temporary=True)
    if facts.last is not None and _compute_age(facts) < policy.cooldown_days:
        reason = f"the last training was {_compute_age(facts)} data days ago, the cooldown is {policy.cooldown_days}"
        yield Obstacle(reason, is_temporary=True)
    if not _has_enough_new(facts, policy):
        reason = f"{facts.new_labels} new labelled rows of the {policy.min_new_labels} asked for are known"
        yield Obstacle(reason, is_temporary=True)
    if (approved := _count_approvals(facts)) >= policy.monthly_budget:
        reason = (
            f"{approved} trainings were approved in {facts.as_of:%Y-%m}, the monthly budget is {policy.monthly_budget}"
        )
        yield Obstacle(reason, is_temporary=False)
    if breaker_reason := _explain_open_breaker(facts, policy):
        yield Obstacle(breaker_reason, is_temporary=False)


def _compute_age(facts: Facts) -> int:
    """Data days since the newest training; negative when that one was made for a later day."""
    assert facts.last is not None
    return (facts.as_of - facts.last).days


def _is_overdue(facts: Facts, policy: RetrainingSpec) -> bool:
    return facts.last is not None and _compute_age(facts) >= policy.max_age_days


def _has_enough_new(facts: Facts, policy: RetrainingSpec) -> bool:
    return facts.new_labels >= (1 if _is_overdue(facts, policy) else policy.min_new_labels)


def _find_answer(facts: Facts) -> Approval | None:
    """The approval by which this drift is answered: of the same episode, or of another that was seen no earlier.

    The weekly run's training is none: it may have been made before labels of the new world were known.
    """
    if facts.trigger != "drift":
        return None
    same_episode = [a for a in facts.approvals if facts.episode is not None and a.episode == facts.episode]
    later = [a for a in facts.approvals if a.trigger == "drift" and a.as_of >= facts.triggered]
    return next(iter(same_episode or later), None)


def _count_approvals(facts: Facts) -> int:
    month = (facts.as_of.year, facts.as_of.month)
    return sum(a.trigger != "manual" and (a.as_of.year, a.as_of.month) == month for a in facts.approvals)


def _explain_open_breaker(facts: Facts, policy: RetrainingSpec) -> str | None:
    """Why the breaker is open. It half-opens with time: then one training is tried, and its gate decides."""
    refusals = list_trailing_refusals(facts.gates)
    if len(refusals) < policy.breaker_refusals:
        return None
    retry_day = refusals[-1].as_of + timedelta(days=policy.breaker_days)
    if facts.as_of >= retry_day:
        return None
    return f"the gate refused the last {len(refusals)} trainings; the next is tried as of {retry_day}, or by a person"


def list_trailing_refusals(gates: Sequence[GateVerdict]) -> list[GateVerdict]:
    """The refusals since the last gate that passed, oldest first; an inconclusive gate neither adds nor forgives."""
    refusals: list[GateVerdict] = []
    for gate in gates:
        if gate.verdict == "passed":
            refusals.clear()
        elif gate.verdict == "refused" and not gate.manual:
            refusals.append(gate)
    return refusals


def _may_wait(facts: Facts, policy: RetrainingSpec) -> bool:
    patience = timedelta(days=policy.wait_for_labels_days)
    return facts.trigger == "drift" and facts.as_of <= facts.triggered + patience
