"""What a release writes beside its target, as JSON and back: the request, the route, and the verdicts as evidence.

Pure, so that a target whose records lie in annotations and one whose records lie in files cannot read them differently.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from include.kernel.words import verdicts
from include.kernel.words.colours import Colour
from include.kernel.words.verdicts import Verdict
from include.release.core.rollout import DesiredState, Evidence, Release, ReleasePlan, Route


def parse_desired_state(content: Mapping[str, Any]) -> DesiredState:
    """What `dataclasses.asdict` made of a request, also by a version of ours that knew fewer fields of a plan."""
    plan = content.get("plan") or {}
    parsed = {
        "release": Release(**content["release"]),
        "plan": ReleasePlan(**{**plan, "weights": tuple(plan.get("weights", ()))}),
    }
    return DesiredState(**{**content, **parsed})


def build_evidence(own_verdicts: Mapping[str, Verdict], trial_verdicts: Mapping[str, Verdict]) -> Evidence:
    """`own`: the verdicts of a generation by their part; `tried`: those of the generation that is on trial."""
    numbered = (own_verdicts.get(verdicts.name_canary(number)) for number in itertools.count(1))
    return Evidence(
        accepted=own_verdicts.get(verdicts.ACCEPTED, Verdict.PENDING),
        shadowed=own_verdicts.get(verdicts.SHADOWED, Verdict.PENDING),
        canary=tuple(itertools.takewhile(lambda verdict: verdict is not None, numbered)),  # type: ignore[arg-type]
        experiment=own_verdicts.get(verdicts.EXPERIMENT, Verdict.PENDING),
        approved=own_verdicts.get(verdicts.APPROVED, Verdict.PENDING),
        soaked=own_verdicts.get(verdicts.SOAKED, Verdict.PENDING),
        trial=trial_verdicts.get(verdicts.SOAKED, Verdict.PENDING),
        recovered=trial_verdicts.get(verdicts.RECOVERED, Verdict.PENDING),
    )


def is_same_request(current: DesiredState, evidence: Evidence, release: Release, kind: str, by: str) -> bool:
    """A second run for an unfinished release joins the first, so that evidence is not split between the two."""
    has_ended = evidence.is_turned_down or evidence.soaked is not Verdict.PENDING
    is_joining = current.by == by or (current.kind == "deploy" and not has_ended)
    return (current.release, current.kind) == (release, kind) and is_joining


def build_isolated_route(route: Route, desired: DesiredState) -> Route:
    """All traffic stays at the live slot, and nobody stands by."""
    return replace(route, standby=None, share=0, mirror=False, sticky=False, generation=desired.generation)


def build_switched_route(route: Route, colour: Colour, desired: DesiredState) -> Route:
    """All traffic to `colour`. A deployment is on trial, with what served before as its standby; a rollback is not."""
    if desired.kind == "rollback":
        return Route(colour, generation=desired.generation)
    standby = route.live if route.live != colour else None
    return Route(colour, standby, desired.generation, trial=desired.generation)
