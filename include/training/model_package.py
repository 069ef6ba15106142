"""From a fitted candidate to the files that serve it, and what is worth knowing of it beside them.

The artifact has the form that serves (include.model.export), golden rows and the baseline that a monitor compares with;
beside it lie the rows it knows of, the trials that led to it, a SHAP summary and a network's INT8 variant.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from include.data.core import lineage
from include.model import artifact, export
from include.model.artifact import ArtifactMeta, Model, ServableModel
from include.model.export import Exported
from include.monitoring import baselines
from include.registry.mlflow_registry import SERVING
from include.training import shap_summary
from include.training.fitting import Candidate
from include.training.tracking import Finished
from include.training.training_plan import Training

log = logging.getLogger(__name__)
GOLDEN_ROWS = 32
PROBES = 500
NETWORKS = ("torch_mlp",)
INT8 = "serving-int8"


def package(training: Training, candidate: Candidate, scratch: Path) -> Finished:
    """What MLflow is told of a candidate, its files in `scratch`. Raises `Permanent` when no form serves the same."""
    rows, label = training.rows, training.manifest.label.column
    saved = save(training, candidate, scratch / SERVING)
    beside = _beside(training, candidate, scratch)
    seen = lineage.seen(training.days, training.request.as_of).model_dump(mode="json")
    Path(scratch, lineage.FILE).write_text(json.dumps(seen, indent=1))
    return Finished(
        name=f"{candidate.kind} as of {training.request.as_of}",
        tags={**training.tags(candidate.kind), "evergreen.digest": saved.digest, **saved.tags},
        params={"candidate": candidate.kind, **candidate.tuned.params, "rows": len(rows.truth)},
        metrics=candidate.metrics | beside,
        files=scratch,
        table=rows.inputs.assign(**{label: rows.truth}),
        meta=saved.meta,
    )


def _beside(training: Training, candidate: Candidate, scratch: Path) -> dict[str, float]:
    """What is worth knowing beside the model: microseconds a row, the trials that led to it, its INT8 variant."""
    rows = _probes(training)
    model = artifact.load(scratch / SERVING)
    found = {"row_us": row_us(model, rows)}
    if candidate.tuned.trials:
        (scratch / "trials.json").write_text(json.dumps(candidate.tuned.trials, indent=1))
    if count := training.manifest.train.explain_rows:
        shap_summary.write(scratch / SERVING, to_records(training.newest.inputs.head(count)), scratch)
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


def save(training: Training, candidate: Candidate, directory: Path) -> Exported:
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
    return export.with_golden(
        ServableModel(meta, candidate.pipeline), to_records(training.rows.inputs.head(GOLDEN_ROWS))
    )


def _probes(training: Training) -> list[dict[str, Any]]:
    """Rows that decide whether a compiled form may serve: the newest, which it was not fitted on, and the oldest."""
    return to_records(training.newest.inputs.head(PROBES)) + to_records(training.rows.inputs.head(PROBES))


def to_records(inputs: Any) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: missing is None."""
    rows = inputs.astype(object).to_dict("records")
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and np.isnan(value)) else value
