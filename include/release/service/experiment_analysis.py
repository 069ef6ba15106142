"""One look at an experiment: deal the callers by their key, count what became of them, and ask for the verdict.

It begins a moment after the route was written, when requests that were dealt otherwise are over. What is noted is when
that was, and what the last look found, for people to read while it goes on.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.kernel.errors import RequestInvalid
from include.kernel.words.verdicts import EXPERIMENT, Verdict
from include.release.core import experiment
from include.release.core.experiment import Judgement
from include.release.core.rollout import DesiredState, ObservedStatus
from include.release.spec import ExperimentSpec, ReleaseManifest

if TYPE_CHECKING:
    from include.release.service.experiment_outcomes import ExperimentOutcomes
    from include.release.targets.base import ServingTarget

SETTLE_S = 1.0


def analyse_experiment(
    target: ServingTarget,
    desired: DesiredState,
    observed: ObservedStatus,
    manifest: ReleaseManifest,
    outcomes: ExperimentOutcomes,
) -> None:
    """Takes the run one look further; records the verdict, with its report, once there is one."""
    spec = _read_spec(manifest, desired)
    if (observed.route.share, observed.route.sticky) != (spec.share, True):
        target.split(desired, share=spec.share, sticky=True)
    progress = target.read_progress(desired.generation, EXPERIMENT)
    begin = datetime.now(UTC) + timedelta(seconds=manifest.serving.deadline_ms / 1000 + SETTLE_S)
    progress = {"began": begin.isoformat(), **progress, "looks": progress.get("looks", 0) + 1}
    judgement = _judge_outcomes(progress, desired, observed, manifest, outcomes)
    target.record_progress(desired.generation, EXPERIMENT, {**progress, "report": judgement.report})
    verdict, why = judgement.verdict, judgement.why
    if verdict is Verdict.PENDING and progress["looks"] >= spec.max_analyses:
        verdict, why = Verdict.FAILED, f"undecided after {spec.max_analyses} looks: {why}"
    if verdict is not Verdict.PENDING:
        target.record_verdict(desired.generation, EXPERIMENT, verdict, why, dict(judgement.report))


def _read_spec(manifest: ReleaseManifest, desired: DesiredState) -> ExperimentSpec:
    """As the manifest says now, but for the share that was asked for: it must not change under the callers."""
    if manifest.experiment is None:
        raise RequestInvalid(
            f"Generation {desired.generation} is an experiment, but the manifest has lost its section experiment; put "
            "it back, or deploy what serves to end it."
        )
    return manifest.experiment.model_copy(update={"share": desired.plan.experiment})


def _judge_outcomes(
    progress: dict[str, Any],
    desired: DesiredState,
    observed: ObservedStatus,
    manifest: ReleaseManifest,
    outcomes: ExperimentOutcomes,
) -> Judgement:
    champion = observed.live.release
    assert champion is not None  # the machine begins no experiment without one
    arms = outcomes.count_arms(datetime.fromisoformat(progress["began"]), desired.release.version, champion.version)
    judgement = experiment.judge(arms[0], arms[1], _read_spec(manifest, desired), manifest.gate.cost)
    if judgement.verdict is Verdict.PASSED and not observed.get_slot(observed.idle).ready:
        return Judgement(Verdict.PENDING, f"{judgement.why}, but its slot is not ready", judgement.report)
    return judgement
