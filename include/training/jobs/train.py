"""Trains every candidate of the manifest on what was known as of a day, logs each to MLflow, and names the best.

The best is chosen by cross-validation on the training days alone; the holdout is left untouched for the gate.

A training is known by a key over its data, code, manifest, window and intent (see `Training.key`). The same key is the
same model, byte by byte, so it is trained once: whoever asks again, by a retry or another run, gets the run that is
there. A run that a killed predecessor left unfinished is deleted first. Intent is part of the key so that a model which
a backtest made is never the one that goes live, though both are equal.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from include import factory
from include.data.core import lineage
from include.kernel.job import JobRequest, JobResult
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.manifest import Manifest
from include.model import artifact, export
from include.model.artifact import ArtifactMeta, Model, ServableModel
from include.model.export import Exported
from include.monitoring import baselines
from include.registry.mlflow_registry import KEY_TAG, SERVING
from include.training import fitting, shap_summary, studies
from include.training.fitting import Candidate
from include.training.tracking import Finished, forget, log_run
from include.training.training_plan import Training, prepare

log = logging.getLogger(__name__)
GOLDEN_ROWS = 32
PROBES = 500
NETWORKS = ("torch_mlp",)
INT8 = "serving-int8"


def run(request: JobRequest, manifest: Manifest) -> JobResult:
    """Params: `columns` (train on these only), `reason`. Raises `NotEnoughData`, `ServiceUnavailable`."""
    training = prepare(request, manifest)
    rows = len(training.rows.truth)  # what cannot be read is refused before anybody else is asked
    registry = factory.registry()
    with registry.client() as client:
        mlflow.set_tracking_uri(registry.uri)
        experiment = mlflow.set_experiment(manifest.name).experiment_id
        runs = {kind: _once(client, experiment, training, kind) for kind in manifest.train.candidates}
    factory.pieces().sweep(studies.KIND, request.as_of)
    best = min(runs, key=lambda kind: runs[kind]["metrics"]["cv_brier"])
    _note(training, runs[best]["run_id"])
    outputs = {"best": best, "experiment_id": experiment, "candidates": runs, "snapshots": list(training.days.ids)}
    told = ", ".join(f"{kind} Brier {runs[kind]['metrics']['cv_brier']:.4f}" for kind in runs)
    summary = f"trained on {rows} rows known as of {request.as_of}; {told}; best: {best}"
    outputs |= {"run_id": runs[best]["run_id"], "url": registry.run_url(experiment, runs[best]["run_id"])}
    return JobResult(job="train", run_key=request.run_key, summary=summary, outputs=outputs)


def _once(client: Any, experiment: str, training: Training, kind: str) -> dict[str, Any]:
    """The finished MLflow run of this candidate, trained now unless a predecessor finished it."""
    key = training.tags(kind)[KEY_TAG]
    for found in client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'"):
        if found.info.status == "FINISHED":
            log.info("%s was trained already (run %s)", kind, found.info.run_id)
            return {"run_id": found.info.run_id, "metrics": dict(found.data.metrics)}
        forget(client, experiment, found.info.run_id)
    return _trained(experiment, training, kind)


def _trained(experiment: str, training: Training, kind: str) -> dict[str, Any]:
    tuned = studies.tuned(training, kind)
    return _log(experiment, training, fitting.fit(kind, training.manifest, training.rows, training.later, tuned))


def _log(experiment: str, training: Training, candidate: Candidate) -> dict[str, Any]:
    rows, label = training.rows, training.manifest.label.column
    with tempfile.TemporaryDirectory() as scratch:
        saved = _save(training, candidate, Path(scratch) / SERVING)
        beside = _beside(training, candidate, Path(scratch))
        seen = lineage.seen(training.days, training.request.as_of).model_dump(mode="json")
        Path(scratch, lineage.FILE).write_text(json.dumps(seen, indent=1))
        done = Finished(
            name=f"{candidate.kind} as of {training.request.as_of}",
            tags={**training.tags(candidate.kind), "evergreen.digest": saved.digest, **saved.tags},
            params={"candidate": candidate.kind, **candidate.tuned.params, "rows": len(rows.truth)},
            metrics=candidate.metrics | beside,
            files=Path(scratch),
            table=rows.inputs.assign(**{label: rows.truth}),
            meta=saved.meta,
        )
        return {"run_id": log_run(experiment, done), "metrics": dict(done.metrics)}


def _beside(training: Training, candidate: Candidate, scratch: Path) -> dict[str, float]:
    """What is worth knowing beside the model: microseconds a row, the trials that led to it, its INT8 variant."""
    rows = _probes(training)
    model = artifact.load(scratch / SERVING)
    found = {"row_us": row_us(model, rows)}
    if candidate.tuned.trials:
        (scratch / "trials.json").write_text(json.dumps(candidate.tuned.trials, indent=1))
    if count := training.manifest.train.explain_rows:
        shap_summary.write(scratch / SERVING, _records(training.newest.inputs.head(count)), scratch)
    if candidate.kind in NETWORKS:
        found |= _int8(training, _servable(training, candidate), scratch / INT8, rows)
    return found


def _int8(training: Training, model: ServableModel, place: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    tolerance = training.manifest.train.int8_tolerance
    found = export.write_int8(model, place, rows, tolerance)
    log.info("INT8: %d of %d bytes, at most %.4f off", found.size, found.full_size, found.worst)
    told = {"conforms": float(found.conforms(tolerance)), "row_us": row_us(artifact.load(place), rows)}
    return {f"int8_{name}": float(value) for name, value in (asdict(found) | told).items()}


def row_us(model: Model, rows: list[dict[str, Any]]) -> float:
    """Median microseconds of one row at a time."""
    took = []
    for row in rows[:200]:
        began = time.perf_counter()
        model.predict_proba([row])
        took.append(time.perf_counter() - began)
    return float(np.median(took)) * 1e6


def _save(training: Training, candidate: Candidate, directory: Path) -> Exported:
    """The serving artifact with golden rows and the baseline. Raises `Permanent` when no form of it serves the same."""
    model = _servable(training, candidate)
    directory.mkdir()
    baseline = baselines.make(training.newest, model, since=training.days.holdout[0].day)
    directory.joinpath(baselines.FILE).write_text(baseline.text())
    spec = training.manifest.train
    against = export.Reference(training.rows.inputs, spec.explain_background, spec.seed)
    return export.write(model, directory, _probes(training), against)


def _servable(training: Training, candidate: Candidate) -> ServableModel:
    manifest = training.manifest
    meta = ArtifactMeta(
        name=manifest.name,
        framework="torch" if candidate.kind in NETWORKS else "sklearn",
        columns=training.columns,
        positive=str(manifest.label.positive),
        negative=str(manifest.label.negative),
        threshold=manifest.gate.threshold,
        features=manifest.train.features,
        calibration=candidate.calibration,
    )
    return export.with_golden(ServableModel(meta, candidate.pipeline), _records(training.rows.inputs.head(GOLDEN_ROWS)))


def _probes(training: Training) -> list[dict[str, Any]]:
    """Rows that decide whether a compiled form may serve: the newest, which it was not fitted on, and the oldest."""
    return _records(training.newest.inputs.head(PROBES)) + _records(training.rows.inputs.head(PROBES))


def _records(inputs: Any) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: missing is None."""
    rows = inputs.astype(object).to_dict("records")
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and np.isnan(value)) else value


def _note(training: Training, run_id: str) -> None:
    request = training.request
    entry = Entry(
        what=kinds.MODEL_TRAINED,
        subject=run_id,
        who=f"train {request.run_key}",
        why=str(request.params.get("reason") or "asked for"),
        details={"as_of": str(request.as_of), "intent": request.intent.value, **training.tags("best")},
        key=f"trained-{request.run_key}",
    )
    factory.ledger().append(entry)
