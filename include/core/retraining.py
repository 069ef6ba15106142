"""Whether to retrain, as a pure function that gives every reason.

Three answers. `no` ends the run. `wait` is for a drift whose labels are not known yet: training at once would teach the
new model nothing about the new world, so the run waits, in data time, for labels to mature.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from include.core.manifest import RetrainingSpec

Trigger = Literal["schedule", "drift", "manual"]


@dataclass(frozen=True)
class Facts:
    """What is known at the moment of the decision; all days are data days."""

    trigger: Trigger
    triggered: date
    as_of: date
    last_trained: date | None
    labels: int
    new_labels: int
    releasing: bool = False


@dataclass(frozen=True)
class Decision:
    verdict: Literal["yes", "no", "wait"]
    reasons: tuple[str, ...]

    @property
    def sentence(self) -> str:
        return "; ".join(self.reasons) + "."


def decide(facts: Facts, policy: RetrainingSpec, min_rows: int) -> Decision:
    """A person's word is enough; schedule and drift must have enough new labels, no cooldown, no release under way.

    `min_rows` is the manifest's train.min_rows: without that many labelled rows nobody gets a training.
    """
    if facts.labels < min_rows:
        return Decision("no", (f"{facts.labels} labelled rows of the {min_rows} a training needs are known",))
    if facts.trigger == "manual":
        return Decision("yes", ("a person asked for it",))
    if facts.last_trained is None:
        return Decision("yes", ("no model was ever trained",))
    obstacles = _obstacles(facts, policy)
    if not obstacles:
        return Decision("yes", (f"{facts.trigger}: {facts.new_labels} labelled rows the last training has not seen",))
    return Decision("wait" if _may_wait(facts, policy) else "no", obstacles)


def _obstacles(facts: Facts, policy: RetrainingSpec) -> tuple[str, ...]:
    assert facts.last_trained is not None
    age = (facts.as_of - facts.last_trained).days
    found = []
    if facts.releasing:
        found.append("a release is under way")
    if age < policy.cooldown_days:
        found.append(f"the last training was {age} data days ago, the cooldown is {policy.cooldown_days}")
    if facts.new_labels < policy.min_new_labels:
        found.append(f"{facts.new_labels} new labelled rows of the {policy.min_new_labels} asked for are known")
    return tuple(found)


def _may_wait(facts: Facts, policy: RetrainingSpec) -> bool:
    patience = timedelta(days=policy.wait_for_labels_days)
    return facts.trigger == "drift" and facts.as_of <= facts.triggered + patience
