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

from include.feedback.core.prediction_records import is_sampled
from include.kernel.words.colours import other
from include.kernel.words.verdicts import SHADOWED, Verdict
from include.release.core import shadow
from include.release.core.rollout import DesiredState, ObservedStatus
from include.release.core.shadow import Judgement, ScoreShift, ShadowAnswer, ShadowComparison
from include.release.spec import ReleaseManifest
from include.serving.words.recent import RecentAnswer, RecentAnswers

if TYPE_CHECKING:
    from include.release.targets.base import ServingTarget

SETTLE_S = 1.0  # after its deadline an answer is on its way, and after a route was written the proxy's threads take it
Progress = dict[str, Any]


def analyse_shadow(
    target: ServingTarget, desired: DesiredState, observed: ObservedStatus, manifest: ReleaseManifest
) -> None:
    """Takes the run one look further; records the verdict, with its report, once there is one."""
    if not observed.route.mirror:
        target.split(desired, mirror=True)
    spec, previous = manifest.release.shadow, target.read_progress(desired.generation, SHADOWED)
    progress, judgement = _compare_answers(target, observed, previous, manifest)
    comparison = _parse_comparison(progress)
    target.record_progress(desired.generation, SHADOWED, progress)
    judgement = judgement or shadow.judge(comparison, spec)
    if judgement.verdict is Verdict.PENDING and progress["looks"] >= spec.max_analyses:
        judgement = Judgement(Verdict.FAILED, f"undecided after {spec.max_analyses} looks: {judgement.why}")
    if judgement.verdict is not Verdict.PENDING:
        target.record_verdict(
            desired.generation, SHADOWED, judgement.verdict, judgement.why, shadow.build_report(comparison)
        )


def _compare_answers(
    target: ServingTarget, observed: ObservedStatus, previous: Progress, manifest: ReleaseManifest
) -> tuple[Progress, Judgement | None]:
    """How far the shadow has come, and a verdict where the comparison need not be asked."""
    progress = {"after": 0, "compared": asdict(ShadowComparison()), **previous, "looks": previous.get("looks", 0) + 1}
    candidate = target.fetch_recent_answers(observed.idle, {"ids": []})
    if candidate is None or candidate["process"] != progress.setdefault("candidate", candidate["process"]):
        return progress, Judgement(Verdict.FAILED, "the candidate's process ended, or does not answer")
    age = manifest.serving.deadline_ms / 1000 + SETTLE_S
    live = target.fetch_recent_answers(other(observed.idle), {"after": progress["after"], "older_than_s": age})
    if live is None:
        return progress, Judgement(Verdict.PENDING, "the live slot's answers cannot be read")
    if live["process"] != progress.setdefault("live", live["process"]):
        return {**progress, "live": live["process"], "after": 0}, None  # started anew, and numbers its answers anew
    answers = live["answers"]
    partner = (
        target.fetch_recent_answers(observed.idle, {"ids": [answer["id"] for answer in answers]})
        if answers
        else candidate
    )
    if partner is None or partner["process"] != progress["candidate"]:
        return progress, None  # the next look finds out
    addition = shadow.compare(_iterate_pairs(answers, partner))
    progress["after"] = max([progress["after"], *(answer["number"] for answer in answers)])
    return {**progress, "compared": asdict(_parse_comparison(progress) + addition)}, None


def _iterate_pairs(
    answers: list[RecentAnswer], partner: RecentAnswers
) -> Iterator[tuple[ShadowAnswer, ShadowAnswer | None]]:
    candidates = {answer["id"]: answer for answer in partner["answers"]}
    for live in answers:
        candidate = candidates.get(live["id"])
        if "scores" not in live or live["repeated"] or (candidate and candidate["repeated"]):
            continue
        if candidate or (
            live["age_s"] + SETTLE_S < partner["complete_for_s"] and is_sampled(live["id"], partner["share"])
        ):
            yield _build_answer(live), _build_answer(candidate) if candidate else None


def _build_answer(answer: RecentAnswer) -> ShadowAnswer:
    slices = tuple(map(tuple, answer.get("slices", ())))
    return ShadowAnswer(answer["seconds"], tuple(answer.get("scores", ())), tuple(answer.get("decisions", ())), slices)


def _parse_comparison(progress: Progress) -> ShadowComparison:
    content = progress["compared"]
    bins = {name: tuple(content[name]) for name in ("live", "candidate")}
    slices = {name: ScoreShift(**shift) for name, shift in content["slices"].items()}
    return ShadowComparison(**{**content, "all": ScoreShift(**content["all"]), "slices": slices, **bins})
