"""A training of the past makes the model of then: in processes of their own, with later knowledge in between."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from include.data.core.snapshots import split
from include.kernel.job import REQUEST_VARIABLE, RESULT_VARIABLE, Intent, JobRequest, JobResult
from tests import edge
from tests.job_world import FIRST, publish

ROOT = Path(__file__).resolve().parents[2]
AS_OF = FIRST + timedelta(days=3)  # of four days, three are labelled by then


def trained(place: Path, intent: Intent) -> JobResult:
    """The job as the operator starts it."""
    request = JobRequest(job="train", run_key=intent.value, as_of=AS_OF, intent=intent)
    told = {REQUEST_VARIABLE: request.model_dump_json(), RESULT_VARIABLE: str(place / f"{intent.value}.json")}
    command = [sys.executable, "-W", "ignore", "-m", "include.jobs"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **told}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return JobResult.model_validate_json((place / f"{intent.value}.json").read_text())


def digests(registry, result: JobResult) -> dict[str, str]:
    runs = {kind: run["run_id"] for kind, run in result.outputs["candidates"].items()}
    with registry.open_client() as client:
        return {kind: client.get_run(run_id).data.tags["evergreen.digest"] for kind, run_id in runs.items()}


def test_a_historical_training_reproduces_the_digest_of_then_whatever_became_known_since(place, registry, tmp_path):
    then = trained(tmp_path, Intent.LIVE)
    later = FIRST + timedelta(days=20)
    for number in range(2):  # two days the model saw are corrected
        publish(edge.store(), place, FIRST + timedelta(days=number), "new_market", as_of=later)
    now = trained(tmp_path, Intent.HISTORICAL)
    assert now.outputs["run_id"] != then.outputs["run_id"]  # it was really trained again
    assert now.outputs["snapshots"] == then.outputs["snapshots"]
    assert digests(registry, now) == digests(registry, then)
    assert not set(split(edge.store().read_history(), later, place.label, place.train).ids[:2]) & set(
        then.outputs["snapshots"]
    )
