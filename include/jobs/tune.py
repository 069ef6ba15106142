"""Makes its share of a training's studies, for the job `train` to find: one of several mapped tasks.

It decides nothing: which parameters are best is said by `train`, which makes the studies that are missing.
"""

from __future__ import annotations

from include.core import pieces, search
from include.core.job import JobRequest, JobResult
from include.core.manifest import Manifest
from include.jobs import studies, training


def run(request: JobRequest, manifest: Manifest) -> JobResult:
    """Params: `columns`, as those of `train`; `shard` of `shards`. Raises `NotEnoughData`, `RequestInvalid`."""
    shard = pieces.asked(request)
    mine, of = shard.share(studies.work(manifest)), training.prepare(request, manifest)
    found = [(kind, studies.study(of, kind, part)) for kind, part in mine]
    losses = [trial.loss for _, study in found for trial in study if trial.state == "complete"]
    told = ", ".join(f"{len(study)} trials of {kind}" for kind, study in found) or "nothing to search"
    summary = f"{shard}: {told}" + (f"; lowest loss {min(filter(None, losses)):.5f}" if any(losses) else "")
    outputs = {"training": of.key, "studies": len(found), "trials": len(search.rows([study for _, study in found]))}
    return JobResult(job="tune", run_key=request.run_key, summary=summary, outputs=outputs)
