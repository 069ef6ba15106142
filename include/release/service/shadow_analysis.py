"""One look at a shadow: copy the live requests, fetch what both slots answered to the same ones, and compare.

The live slot is asked for its newest answers that are old enough for the candidate to have answered too, then the
candidate for the same request ids. What was compared is kept as sums, so nothing has to be remembered from look to look
but those and the number of the last answer seen; a killed run loses one look. Not every request is compared under heavy
traffic, but which ones does not depend on how they were answered.

Only an answer that must be there and is not counts as the candidate's error: it came after the copying had begun, and
the candidate has kept all of that time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from include.feedback.core.prediction_records import sampled
from include.kernel.words.verdicts import SHADOWED
from include.release.core import shadow
from include.release.core.rollout import Observed, Verdict, Wanted, other
from include.release.core.shadow import Compared, Judgement, Moved, Told
from include.release.spec import ReleaseManifest
from include.serving.words.recent import RecentAnswer, RecentAnswers

if TYPE_CHECKING:
    from include.release.targets.base import ServingTarget

SETTLE_S = 1.0  # after its deadline an answer is on its way, and after a route was written the proxy's threads take it
Noted = dict[str, Any]


def look(target: ServingTarget, wanted: Wanted, seen: Observed, manifest: ReleaseManifest) -> None:
    """Takes the run one look further; records the verdict, with its report, once there is one."""
    if not seen.route.mirror:
        target.split(wanted, mirror=True)
    spec, before = manifest.release.shadow, target.progress(wanted.generation, SHADOWED)
    noted, judgement = _looked(target, seen, before, manifest)
    compared = _compared(noted)
    target.note(wanted.generation, SHADOWED, noted)
    judgement = judgement or shadow.judge(compared, spec)
    if judgement.verdict is Verdict.PENDING and noted["looks"] >= spec.looks:
        judgement = Judgement(Verdict.FAILED, f"undecided after {spec.looks} looks: {judgement.why}")
    if judgement.verdict is not Verdict.PENDING:
        target.record(wanted.generation, SHADOWED, judgement.verdict, judgement.why, shadow.report(compared))


def _looked(
    target: ServingTarget, seen: Observed, before: Noted, manifest: ReleaseManifest
) -> tuple[Noted, Judgement | None]:
    """How far the shadow has come, and a verdict where the comparison need not be asked."""
    noted = {"after": 0, "compared": asdict(Compared()), **before, "looks": before.get("looks", 0) + 1}
    candidate = target.recent(seen.idle, {"ids": []})
    if candidate is None or candidate["process"] != noted.setdefault("candidate", candidate["process"]):
        return noted, Judgement(Verdict.FAILED, "the candidate's process ended, or does not answer")
    age = manifest.serving.deadline_ms / 1000 + SETTLE_S
    live = target.recent(other(seen.idle), {"after": noted["after"], "older_than_s": age})
    if live is None:
        return noted, Judgement(Verdict.PENDING, "the live slot's answers cannot be read")
    if live["process"] != noted.setdefault("live", live["process"]):
        return {**noted, "live": live["process"], "after": 0}, None  # started anew, and numbers its answers anew
    answers = live["answers"]
    partner = target.recent(seen.idle, {"ids": [each["id"] for each in answers]}) if answers else candidate
    if partner is None or partner["process"] != noted["candidate"]:
        return noted, None  # the next look finds out
    new = shadow.compare(_pairs(answers, partner))
    noted["after"] = max([noted["after"], *(each["number"] for each in answers)])
    return {**noted, "compared": asdict(_compared(noted) + new)}, None


def _pairs(answers: list[RecentAnswer], partner: RecentAnswers) -> Iterator[tuple[Told, Told | None]]:
    known = {each["id"]: each for each in partner["answers"]}
    for live in answers:
        found = known.get(live["id"])
        if "scores" not in live or live["repeated"] or (found and found["repeated"]):
            continue
        if found or (live["age_s"] + SETTLE_S < partner["complete_for_s"] and sampled(live["id"], partner["share"])):
            yield _told(live), _told(found) if found else None


def _told(answer: RecentAnswer) -> Told:
    slices = tuple(map(tuple, answer.get("slices", ())))
    return Told(answer["seconds"], tuple(answer.get("scores", ())), tuple(answer.get("decisions", ())), slices)


def _compared(noted: Noted) -> Compared:
    kept = noted["compared"]
    bins = {name: tuple(kept[name]) for name in ("live", "candidate")}
    slices = {name: Moved(**moved) for name, moved in kept["slices"].items()}
    return Compared(**{**kept, "all": Moved(**kept["all"]), "slices": slices, **bins})
