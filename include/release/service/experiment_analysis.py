"""One look at an experiment: deal the callers by their key, count what became of them, and ask for the verdict.

It begins a moment after the route was written, when requests that were dealt otherwise are over. What is noted is when
that was, and what the last look found, for people to read while it goes on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.kernel.errors import RequestInvalid
from include.kernel.words.verdicts import EXPERIMENT
from include.release.core import experiment
from include.release.core.experiment import Judgement
from include.release.core.rollout import Observed, Verdict, Wanted
from include.release.spec import ExperimentSpec, ReleaseManifest

if TYPE_CHECKING:
    from include.release.service.experiment_outcomes import ExperimentOutcomes
    from include.release.targets.base import ServingTarget

SETTLE_S = 1.0


def look(
    target: ServingTarget, wanted: Wanted, seen: Observed, manifest: ReleaseManifest, outcomes: ExperimentOutcomes
) -> None:
    """Takes the run one look further; records the verdict, with its report, once there is one."""
    spec = _spec(manifest, wanted)
    if (seen.route.share, seen.route.sticky) != (spec.share, True):
        target.split(wanted, share=spec.share, sticky=True)
    noted = target.progress(wanted.generation, EXPERIMENT)
    settled = datetime.now(UTC) + timedelta(seconds=manifest.serving.deadline_ms / 1000 + SETTLE_S)
    noted = {"began": settled.isoformat(), **noted, "looks": noted.get("looks", 0) + 1}
    judgement = _judged(noted, wanted, seen, manifest, outcomes)
    target.note(wanted.generation, EXPERIMENT, {**noted, "report": judgement.report})
    verdict, why = judgement.verdict, judgement.why
    if verdict is Verdict.PENDING and noted["looks"] >= spec.looks:
        verdict, why = Verdict.FAILED, f"undecided after {spec.looks} looks: {why}"
    if verdict is not Verdict.PENDING:
        target.record(wanted.generation, EXPERIMENT, verdict, why, dict(judgement.report))


def _spec(manifest: ReleaseManifest, wanted: Wanted) -> ExperimentSpec:
    """As the manifest says now, but for the share that was wished: it must not change under the callers."""
    if manifest.experiment is None:
        raise RequestInvalid(
            f"Generation {wanted.generation} is an experiment, but the manifest has lost its section experiment; put "
            "it back, or deploy what serves to end it."
        )
    return manifest.experiment.model_copy(update={"share": wanted.plan.experiment})


def _judged(
    noted: dict[str, Any], wanted: Wanted, seen: Observed, manifest: ReleaseManifest, outcomes: ExperimentOutcomes
) -> Judgement:
    champion = seen.live.release
    assert champion is not None  # the machine begins no experiment without one
    arms = outcomes.arms(datetime.fromisoformat(noted["began"]), wanted.release.version, champion.version)
    found = experiment.judge(arms[0], arms[1], _spec(manifest, wanted), manifest.gate.cost)
    if found.verdict is Verdict.PASSED and not seen.slot(seen.idle).ready:
        return Judgement(Verdict.PENDING, f"{found.why}, but its slot is not ready", found.report)
    return found
