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

from include.kernel.errors import RequestInvalid
from include.kernel.job import JobRequest, JobResult
from include.kernel.ledger import Entry
from include.kernel.wiring import open_ledger
from include.kernel.words import ledger_kinds as kinds
from include.model.features import check_row_wise
from include.registry.mlflow_registry import KEY_TAG, MlflowRegistry
from include.registry.wiring import open_registry
from include.training import fitting, studies
from include.training.fitting import CandidateFailed
from include.training.model_package import package_candidate
from include.training.spec import TrainingManifest
from include.training.tracking import delete_run, log_run
from include.training.training_plan import Training
from include.training.wiring import plan_training

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: TrainingManifest) -> JobResult:
    """Params: `columns` (train on these only), `reason`. Raises `NotEnoughData`, `ServiceUnavailable`."""
    training = plan_training(request, manifest)
    rows = training.rows  # what cannot be read or trained on is refused before anybody else is asked
    empty = fitting.prepare(None, manifest, rows).empty
    check_row_wise(manifest.train.features, rows.inputs)
    registry = open_registry(manifest.name)
    with registry.open_client() as client:
        mlflow.set_tracking_uri(registry.uri)
        experiment = _open_experiment(client, registry)
        runs, failed = _train_all(client, experiment, training)
    training.units.sweep(studies.KIND, request.as_of)
    best = min(runs, key=lambda kind: runs[kind]["metrics"]["cv_brier"])
    open_ledger().append(_build_entry(training, runs[best]["run_id"]))
    outputs = {"best": best, "experiment_id": experiment, "candidates": runs, "snapshots": training.snapshot_ids}
    outputs |= {"failed": failed} if failed else {}
    scores = ", ".join(f"{kind} Brier {runs[kind]['metrics']['cv_brier']:.4f}" for kind in runs)
    summary = f"trained on {len(rows.truth)} rows known as of {request.as_of}; {scores}; best: {best}"
    summary += f"; without {', '.join(empty)}, of which the training rows hold no values" if empty else ""
    summary = "; ".join([summary, *(sentence.rstrip(".") for sentence in failed.values())])
    outputs |= {"run_id": runs[best]["run_id"], "url": registry.build_run_url(experiment, runs[best]["run_id"])}
    return JobResult(job="train", run_key=request.run_key, summary=summary, outputs=outputs)


def _open_experiment(client: Any, registry: MlflowRegistry) -> str:
    """The id of the model's experiment, made when there is none. Raises `RequestInvalid` when somebody deleted it."""
    found = client.get_experiment_by_name(registry.name)
    if found and found.lifecycle_stage == "deleted":
        raise RequestInvalid(
            f"The MLflow experiment {registry.name!r} at {registry.uri} was deleted; restore it with `mlflow "
            f"experiments restore --experiment-id {found.experiment_id}`, or delete it for good with `mlflow gc`."
        )
    return str(mlflow.set_experiment(registry.name).experiment_id)


def _train_all(client: Any, experiment: str, training: Training) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The runs by candidate, and a sentence for each that cannot be trained. Raises `CandidateFailed` when none can."""
    runs: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for kind in training.manifest.train.candidates:
        try:
            runs[kind] = _train_once(client, experiment, training, kind)
        except CandidateFailed as error:
            failed[kind] = str(error)
            log.warning("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
    if not runs:
        raise CandidateFailed(" ".join(failed.values()))
    return runs, failed


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
    with tempfile.TemporaryDirectory() as scratch:
        with fitting.explain_failure(kind):
            tuned = studies.choose_params(training, kind)
            candidate = fitting.fit_candidate(kind, training.manifest, training.rows, training.later, tuned)
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
