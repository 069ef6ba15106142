"""Trains every candidate of the manifest on what was known as of a day, logs each to MLflow, and names the best.

The best is chosen by cross-validation on the training days alone; the holdout is left untouched for the gate.

A training is known by a key over its data, code, manifest, window and intent (see `Training.key`). The same key is the
same model, byte by byte, so it is trained once: whoever asks again, by a retry or another run, gets the run that is
there. A run that a killed predecessor left unfinished is deleted first. Intent is part of the key so that a model which
a backtest made is never the one that goes live, though both are equal.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import mlflow

from include.kernel.job import JobRequest, JobResult
from include.kernel.ledger import Entry
from include.kernel.wiring import open_ledger
from include.kernel.words import ledger_kinds as kinds
from include.registry.mlflow_registry import KEY_TAG
from include.registry.wiring import open_registry
from include.training import fitting, studies
from include.training.fitting import Candidate
from include.training.model_package import package_candidate
from include.training.spec import TrainingManifest
from include.training.tracking import delete_run, log_run
from include.training.training_plan import Training
from include.training.wiring import plan_training

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: TrainingManifest) -> JobResult:
    """Params: `columns` (train on these only), `reason`. Raises `NotEnoughData`, `ServiceUnavailable`."""
    training = plan_training(request, manifest)
    rows = len(training.rows.truth)  # what cannot be read is refused before anybody else is asked
    registry = open_registry(manifest.name)
    with registry.open_client() as client:
        mlflow.set_tracking_uri(registry.uri)
        experiment = mlflow.set_experiment(manifest.name).experiment_id
        runs = {kind: _train_once(client, experiment, training, kind) for kind in manifest.train.candidates}
    training.units.sweep(studies.KIND, request.as_of)
    best = min(runs, key=lambda kind: runs[kind]["metrics"]["cv_brier"])
    open_ledger().append(_build_entry(training, runs[best]["run_id"]))
    outputs = {"best": best, "experiment_id": experiment, "candidates": runs, "snapshots": training.snapshot_ids}
    scores = ", ".join(f"{kind} Brier {runs[kind]['metrics']['cv_brier']:.4f}" for kind in runs)
    summary = f"trained on {rows} rows known as of {request.as_of}; {scores}; best: {best}"
    outputs |= {"run_id": runs[best]["run_id"], "url": registry.build_run_url(experiment, runs[best]["run_id"])}
    return JobResult(job="train", run_key=request.run_key, summary=summary, outputs=outputs)


def _train_once(client: Any, experiment: str, training: Training, kind: str) -> dict[str, Any]:
    """The finished MLflow run of this candidate, trained now unless a predecessor finished it."""
    key = training.build_tags(kind)[KEY_TAG]
    for finished in client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'"):
        if finished.info.status == "FINISHED":
            log.info("%s was trained already (run %s)", kind, finished.info.run_id)
            return {"run_id": finished.info.run_id, "metrics": dict(finished.data.metrics)}
        delete_run(client, experiment, finished.info.run_id)
    return _train_candidate(experiment, training, kind)


def _train_candidate(experiment: str, training: Training, kind: str) -> dict[str, Any]:
    tuned = studies.choose_params(training, kind)
    return _log_candidate(
        experiment, training, fitting.fit_candidate(kind, training.manifest, training.rows, training.later, tuned)
    )


def _log_candidate(experiment: str, training: Training, candidate: Candidate) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        done = package_candidate(training, candidate, Path(scratch))
        return {"run_id": log_run(experiment, done), "metrics": dict(done.metrics)}


def _build_entry(training: Training, run_id: str) -> Entry:
    request = training.request
    return Entry(
        what=kinds.MODEL_TRAINED,
        subject=run_id,
        who=f"train {request.run_key}",
        why=str(request.params.get("reason") or "asked for"),
        details={"as_of": str(request.as_of), "intent": request.intent.value, **training.build_tags("best")},
        key=f"trained-{request.run_key}",
    )
