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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from include.adapters import factory
from include.adapters.registry_mlflow import KEY_TAG, SERVING
from include.core import lineage
from include.core.errors import RequestInvalid
from include.core.job import JobRequest, JobResult, run_key
from include.core.ledger import Entry
from include.core.manifest import Manifest
from include.core.snapshots import Split, split
from include.jobs import baselines, dataset, explain, fitting
from include.jobs.dataset import Rows
from include.jobs.fitting import Candidate
from include.jobs.tracking import Finished, forget, log_run
from include.model import artifact, export
from include.model.artifact import ArtifactMeta, Model, ServableModel
from include.model.export import Exported
from include.model.schema import Column, describe

log = logging.getLogger(__name__)
GOLDEN_ROWS = 32
PROBES = 500
NETWORKS = ("torch_mlp",)
INT8 = "serving-int8"


@dataclass(frozen=True)
class Training:
    """What all candidates of one training share."""

    request: JobRequest
    manifest: Manifest
    days: Split
    columns: tuple[Column, ...]
    rows: Rows
    later: Rows | None
    newest: Rows

    @property
    def key(self) -> str:
        """What decides about the model: the rows by their snapshots and parts, the code, the manifest, the window."""
        parts = [",".join(snapshot.id for snapshot in self.days.part(name)) for name in lineage.PARTS]
        names = ",".join(column.name for column in self.columns)
        asked = (str(self.request.as_of), self.request.intent.value, names)
        return run_key(factory.code_digest(), self.manifest.digest, *asked, *parts)

    def tags(self, kind: str) -> dict[str, str]:
        return {
            KEY_TAG: f"{self.key}:{kind}",
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
    later = dataset.part(manifest, days, "calibration", inputs) if days.calibration else None
    newest = dataset.part(manifest, days, "holdout", inputs)
    return Training(request, manifest, days, describe(rows.inputs, inputs), rows, later, newest)


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
        forget(client, experiment, found.info.run_id)
    return _trained(experiment, training, kind)


def _trained(experiment: str, training: Training, kind: str) -> dict[str, Any]:
    journal = factory.studies() / f"{training.key}-{kind}.journal"
    candidate = fitting.fit(kind, training.manifest, training.rows, training.later, journal)
    done = _log(experiment, training, candidate)
    for file in (journal, journal.with_suffix(".lock")):  # the run holds the trials now
        file.unlink(missing_ok=True)
    return done


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
        explain.write(scratch / SERVING, _records(training.newest.inputs.head(count)), scratch)
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
        what="model.trained",
        subject=run_id,
        who=f"train {request.run_key}",
        why=str(request.params.get("reason") or "asked for"),
        details={"as_of": str(request.as_of), "intent": request.intent.value, **training.tags("best")},
        key=f"trained-{request.run_key}",
    )
    factory.ledger().append(entry)
