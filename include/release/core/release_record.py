"""What a release writes beside its target, as JSON and back: the wish, the route, and the verdicts as evidence.

Pure, so that a target whose records lie in annotations and one whose records lie in files cannot read them differently.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from include.kernel.words import verdicts
from include.release.core.rollout import Colour, Evidence, Plan, Release, Route, Verdict, Wanted


def wanted_of(content: Mapping[str, Any]) -> Wanted:
    """What `dataclasses.asdict` made of a wish, also by a version of ours that knew fewer fields of a plan."""
    plan = content.get("plan") or {}
    read = {
        "release": Release(**content["release"]),
        "plan": Plan(**{**plan, "weights": tuple(plan.get("weights", ()))}),
    }
    return Wanted(**{**content, **read})


def evidence_of(own: Mapping[str, Verdict], tried: Mapping[str, Verdict]) -> Evidence:
    """`own`: the verdicts of a generation by their part; `tried`: those of the generation that is on trial."""
    numbered = (own.get(verdicts.name_canary(number)) for number in itertools.count(1))
    return Evidence(
        accepted=own.get(verdicts.ACCEPTED, Verdict.PENDING),
        shadowed=own.get(verdicts.SHADOWED, Verdict.PENDING),
        canary=tuple(itertools.takewhile(lambda verdict: verdict is not None, numbered)),  # type: ignore[arg-type]
        experiment=own.get(verdicts.EXPERIMENT, Verdict.PENDING),
        approved=own.get(verdicts.APPROVED, Verdict.PENDING),
        soaked=own.get(verdicts.SOAKED, Verdict.PENDING),
        trial=tried.get(verdicts.SOAKED, Verdict.PENDING),
        recovered=tried.get(verdicts.RECOVERED, Verdict.PENDING),
    )


def is_same_wish(known: Wanted, evidence: Evidence, release: Release, kind: str, by: str) -> bool:
    """A second run for an unfinished release joins the first, so that evidence is not split between the two."""
    ended = evidence.turned_down or evidence.soaked is not Verdict.PENDING
    joins = known.by == by or (known.kind == "deploy" and not ended)
    return (known.release, known.kind) == (release, kind) and joins


def alone(route: Route, wanted: Wanted) -> Route:
    """All traffic stays at the live slot, and nobody stands by."""
    return replace(route, standby=None, share=0, mirror=False, sticky=False, generation=wanted.generation)


def switched(route: Route, colour: Colour, wanted: Wanted) -> Route:
    """All traffic to `colour`. A deployment is on trial, with what served before as its standby; a rollback is not."""
    if wanted.kind == "rollback":
        return Route(colour, generation=wanted.generation)
    standby = route.live if route.live != colour else None
    return Route(colour, standby, wanted.generation, trial=wanted.generation)
