"""Trains every candidate of the manifest on what was known as of a day, logs each to MLflow, and names the best.

The best is chosen by cross-validation on the training days alone; the holdout is left untouched for the gate. Runs are
keyed by the request's run key: a retry finds the finished runs of its predecessor and deletes the unfinished ones.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from include.adapters import factory
from include.adapters.registry_mlflow import KEY_TAG, SERVING
from include.core import drift, gate, lineage
from include.core.errors import Permanent, RequestInvalid
from include.core.job import JobRequest, JobResult
from include.core.ledger import Entry
from include.core.manifest import Manifest
from include.core.snapshots import Split, split
from include.jobs import dataset
from include.jobs.dataset import SCORE, Rows
from include.model import artifact, conformance, pipelines, trust
from include.model.artifact import ArtifactMeta, Golden, ServableModel
from include.model.features import apply
from include.model.schema import Column, describe

log = logging.getLogger(__name__)
FOLDS = 5
GOLDEN_ROWS = 32


@dataclass(frozen=True)
class Candidate:
    kind: str
    pipeline: Any
    metrics: dict[str, float]


@dataclass(frozen=True)
class Training:
    """What all candidates of one training share."""

    request: JobRequest
    manifest: Manifest
    days: Split
    columns: tuple[Column, ...]
    rows: Rows
    newest: Rows

    def tags(self, kind: str) -> dict[str, str]:
        return {
            KEY_TAG: f"{self.request.run_key}:{kind}",
            "evergreen.intent": self.request.intent.value,
            "evergreen.as_of": str(self.request.as_of),
            "evergreen.manifest": self.manifest.digest,
            "evergreen.code": factory.code_digest(),
            "evergreen.data": ",".join(day[:12] for day in self.days.ids),
        }


def run(request: JobRequest, manifest: Manifest) -> JobResult:
    """Params: `columns` (train on these only), `reason`. Raises `NotEnoughData`, `ServiceUnavailable`."""
    training = _prepare(request, manifest)
    registry = factory.registry()
    with registry.client() as client:
        mlflow.set_tracking_uri(registry.uri)
        experiment = mlflow.set_experiment(manifest.name).experiment_id
        runs = {kind: _once(client, experiment, training, kind) for kind in manifest.train.candidates}
    best = min(runs, key=lambda kind: runs[kind]["metrics"]["cv_brier"])
    _note(training, runs[best]["run_id"])
    outputs = {"best": best, "experiment_id": experiment, "candidates": runs, "snapshots": list(training.days.ids)}
    told = ", ".join(f"{kind} Brier {runs[kind]['metrics']['cv_brier']:.4f}" for kind in runs)
    summary = f"trained on {len(training.rows.truth)} rows known as of {request.as_of}; {told}; best: {best}"
    outputs |= {"run_id": runs[best]["run_id"], "url": registry.run_url(experiment, runs[best]["run_id"])}
    return JobResult(job="train", run_key=request.run_key, summary=summary, outputs=outputs)


def _prepare(request: JobRequest, manifest: Manifest) -> Training:
    days = split(factory.store().history(), request.as_of, manifest.label, manifest.train)
    only = _only(request, manifest)
    inputs = dataset.columns(manifest, only)
    rows = dataset.part(manifest, days, "train", inputs)
    newest = dataset.part(manifest, days, "holdout", inputs)
    return Training(request, manifest, days, describe(rows.inputs, inputs), rows, newest)


def _only(request: JobRequest, manifest: Manifest) -> list[str]:
    chosen = list(request.params.get("columns") or [])
    unknown = sorted(set(chosen) - set(manifest.contract.columns))
    if unknown:
        known = ", ".join(manifest.contract.columns)
        raise RequestInvalid(f"params.columns names {', '.join(unknown)}; the contract has {known}.")
    return chosen


def _once(client: Any, experiment: str, training: Training, kind: str) -> dict[str, Any]:
    """The finished MLflow run of this candidate, trained now unless a predecessor finished it."""
    key = training.tags(kind)[KEY_TAG]
    for found in client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'"):
        if found.info.status == "FINISHED":
            log.info("%s was trained already (run %s)", kind, found.info.run_id)
            return {"run_id": found.info.run_id, "metrics": dict(found.data.metrics)}
        client.delete_run(found.info.run_id)
    return _log(training, _fit(training, kind))


def _fit(training: Training, kind: str) -> Candidate:
    spec, rows = training.manifest.train, training.rows
    inputs, classes = apply(spec.features, rows.inputs), rows.truth.astype(int)
    pipeline = pipelines.build(kind, describe(inputs), spec.candidates[kind], spec.seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=spec.seed)
    out_of_fold = cross_val_predict(pipeline, inputs, classes, cv=folds, method="predict_proba")[:, 1]
    pipeline.fit(inputs, classes)
    found = gate.metrics(rows.truth, out_of_fold, training.manifest.gate)
    log.info("%s: %s", kind, ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
    areas = gate.fold_areas(rows.truth, out_of_fold, (held for _, held in folds.split(inputs, classes)))
    folded = {f"cv_auc_fold_{number}": area for number, area in enumerate(areas, 1)}  # the gate asks how they differ
    return Candidate(kind, pipeline, {f"cv_{name}": value for name, value in found.items()} | folded)


def _log(training: Training, candidate: Candidate) -> dict[str, Any]:
    rows, spec = training.rows, training.manifest.train
    name = f"{candidate.kind} as of {training.request.as_of}"
    with mlflow.start_run(run_name=name, tags=training.tags(candidate.kind)) as active:
        mlflow.log_params({"candidate": candidate.kind, **spec.candidates[candidate.kind], "rows": len(rows.truth)})
        mlflow.log_metrics(candidate.metrics)
        table = rows.inputs.assign(**{training.manifest.label.column: rows.truth})
        told = mlflow.data.from_pandas(table, name=f"known-{training.request.as_of}")  # type: ignore[attr-defined]
        mlflow.log_input(told, context="training")
        with tempfile.TemporaryDirectory() as scratch:
            digest = _save(training, candidate, Path(scratch))
            mlflow.log_artifacts(scratch, SERVING)
        mlflow.set_tag("evergreen.digest", digest)
        mlflow.log_dict(lineage.seen(training.days, training.request.as_of).model_dump(mode="json"), lineage.FILE)
        _log_model(candidate, apply(spec.features, rows.inputs), rows.truth)
    return {"run_id": active.info.run_id, "metrics": candidate.metrics}


def _log_model(candidate: Candidate, inputs: Any, truth: Any) -> None:
    """The same pipeline as an MLflow model, for people and tools that speak MLflow."""
    signature = mlflow.models.infer_signature(inputs.head(50), candidate.pipeline.predict_proba(inputs.head(50))[:, 1])
    mlflow.sklearn.log_model(
        candidate.pipeline,
        name="model",
        signature=signature,
        input_example=inputs.head(3),
        skops_trusted_types=list(trust.EXTRA_TRUSTED),
        pip_requirements=["scikit-learn", "skops", "pandas"],  # inferring them takes ten seconds
    )


def _save(training: Training, candidate: Candidate, directory: Path) -> str:
    """The serving artifact with golden rows and the baseline; raises `Permanent` when it would not serve the same."""
    meta = _meta(training)
    model = ServableModel(meta, candidate.pipeline)
    sample = _records(training.rows.inputs.head(GOLDEN_ROWS))
    scores = model.predict_proba(sample)
    golden = tuple(Golden(row=row, probability=float(p)) for row, p in zip(sample, scores, strict=True))
    directory.joinpath("baseline.json").write_text(_baseline(training, model))
    digest = artifact.save(candidate.pipeline, meta.model_copy(update={"golden": golden}), directory)
    problems = conformance.check(model, directory, sample)
    if problems:
        raise Permanent(f"The {candidate.kind} artifact does not conform to its pipeline: {'; '.join(problems)}")
    return digest


def _meta(training: Training) -> ArtifactMeta:
    manifest = training.manifest
    return ArtifactMeta(
        name=manifest.name,
        columns=training.columns,
        positive=str(manifest.label.positive),
        negative=str(manifest.label.negative),
        threshold=manifest.gate.threshold,
        features=manifest.train.features,
    )


def _baseline(training: Training, model: ServableModel) -> str:
    """Profiles of inputs and scores as JSON: what the monitor compares later days with.

    Of the holdout days, never of their labels: they are the newest, and scores of rows a model was fitted on are too
    sure of themselves.
    """
    profiles = {c.name: _profile(training, c) for c in training.columns}
    scores = model.predict_frame(training.newest.inputs)
    profiles[SCORE] = drift.profile_numbers(scores.tolist(), training.manifest.monitor.bins)
    return json.dumps({name: profile.as_dict() for name, profile in profiles.items()})


def _profile(training: Training, column: Column) -> drift.Profile:
    values = training.newest.inputs[column.name].tolist()
    if column.kind == "category":
        return drift.profile_categories(values)
    return drift.profile_numbers(values, training.manifest.monitor.bins)


def _records(inputs: Any) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: missing is None."""
    rows = inputs.astype(object).to_dict("records")
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and np.isnan(value)) else value


def _note(training: Training, run_id: str) -> None:
    request = training.request
    entry = Entry(
        what="model.trained",
        subject=run_id,
        who=f"train {request.run_key}",
        why=str(request.params.get("reason") or "asked for"),
        details={"as_of": str(request.as_of), "intent": request.intent.value, **training.tags("best")},
        key=f"trained-{request.run_key}",
    )
    factory.ledger().append(entry)
