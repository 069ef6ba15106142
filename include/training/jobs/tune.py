"""Makes its share of a training's studies, for the job `train` to find: one of several mapped tasks.

It decides nothing: which parameters are best is said by `train`, which makes the studies that are missing.
"""

import logging

from include.kernel import work_units
from include.kernel.job import JobRequest, JobResult
from include.training import fitting, studies
from include.training.core import search
from include.training.fitting import CandidateFailed
from include.training.spec import TrainingManifest
from include.training.wiring import plan_training

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: TrainingManifest) -> JobResult:
    """Params: `columns`, as those of `train`; `shard` of `shards`. Raises `NotEnoughData`, `RequestInvalid`."""
    shard = work_units.read_shard(request)
    assigned, training = shard.select_share(studies.list_studies(manifest)), plan_training(request, manifest)
    studied = []
    for kind, part in assigned:
        try:
            with fitting.explain_failure(kind):
                studied.append((kind, studies.complete_study(training, kind, part)))
        except CandidateFailed as error:  # told again by `train`, which may have others
            log.warning("%s", error)
    losses = [trial.loss for _, study in studied for trial in study if trial.state == "complete"]
    listed = ", ".join(f"{len(study)} trials of {kind}" for kind, study in studied) or "nothing to search"
    summary = f"{shard}: {listed}" + (f"; lowest loss {min(filter(None, losses)):.5f}" if any(losses) else "")
    outputs = {
        "training": training.key,
        "studies": len(studied),
        "trials": len(search.list_trials([study for _, study in studied])),
    }
    return JobResult(job="tune", run_key=request.run_key, summary=summary, outputs=outputs)
