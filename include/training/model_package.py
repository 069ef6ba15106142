"""From a fitted candidate to the files that serve it, and what is worth knowing of it beside them.

The artifact has the form that serves (include.model.export), golden rows and the baseline that a monitor compares with;
beside it lie the rows it knows of, the trials that led to it, a SHAP summary and a network's INT8 variant.
"""

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
from include.model.export import ExportResult
from include.monitoring import baselines
from include.registry.mlflow_registry import SERVING
from include.training import shap_summary
from include.training.fitting import Candidate
from include.training.tracking import FinishedRun
from include.training.training_plan import Training

log = logging.getLogger(__name__)
GOLDEN_ROWS = 32
PROBE_ROWS = 500
NETWORKS = ("torch_mlp",)
INT8_DIRECTORY = "serving-int8"


def package_candidate(training: Training, candidate: Candidate, scratch: Path) -> FinishedRun:
    """What MLflow is told of a candidate, its files in `scratch`. Raises `Permanent` when no form serves the same."""
    rows, label = training.rows, training.manifest.label.column
    saved = _save_artifact(training, candidate, scratch / SERVING)
    beside = _measure_extras(training, candidate, scratch)
    seen = lineage.build_lineage(training.days, training.request.as_of).model_dump(mode="json")
    Path(scratch, lineage.FILE).write_text(json.dumps(seen, indent=1))
    return FinishedRun(
        name=f"{candidate.kind} as of {training.request.as_of}",
        tags={**training.build_tags(candidate.kind), "evergreen.digest": saved.digest, **saved.tags},
        params={"candidate": candidate.kind, **candidate.tuned.params, "rows": len(rows.truth)},
        metrics=candidate.metrics | beside,
        files=scratch,
        table=rows.inputs.assign(**{label: rows.truth}),
        meta=saved.meta,
    )


def _measure_extras(training: Training, candidate: Candidate, scratch: Path) -> dict[str, float]:
    """What is worth knowing beside the model: microseconds a row, the trials that led to it, its INT8 variant."""
    rows = _list_probe_rows(training)
    model = artifact.load(scratch / SERVING)
    measured = {"row_us": measure_row_us(model, rows)}
    if candidate.tuned.trials:
        (scratch / "trials.json").write_text(json.dumps(candidate.tuned.trials, indent=1))
    if count := training.manifest.train.explain_rows:
        shap_summary.write_summary(scratch / SERVING, _list_records(training.newest.inputs.head(count)), scratch)
    if candidate.kind in NETWORKS:
        measured |= _write_int8(training, _build_servable(training, candidate), scratch / INT8_DIRECTORY, rows)
    return measured


def _write_int8(
    training: Training, model: ServableModel, directory: Path, rows: list[dict[str, Any]]
) -> dict[str, float]:
    tolerance = training.manifest.train.int8_tolerance
    variant = export.write_int8(model, directory, rows, tolerance)
    log.info("INT8: %d of %d bytes, at most %.4f off", variant.size, variant.full_size, variant.worst)
    measured = {
        "conforms": float(variant.is_within_tolerance(tolerance)),
        "row_us": measure_row_us(artifact.load(directory), rows),
    }
    return {f"int8_{name}": float(value) for name, value in (asdict(variant) | measured).items()}


def measure_row_us(model: Model, rows: list[dict[str, Any]]) -> float:
    """Median microseconds of one row at a time."""
    took = []
    for row in rows[:200]:
        began = time.perf_counter()
        model.predict_proba([row])
        took.append(time.perf_counter() - began)
    return float(np.median(took)) * 1e6


def _save_artifact(training: Training, candidate: Candidate, directory: Path) -> ExportResult:
    """The serving artifact with golden rows and the baseline. Raises `Permanent` when no form of it serves the same."""
    model = _build_servable(training, candidate)
    directory.mkdir()
    baseline = baselines.make(training.newest, model, since=training.days.holdout[0].day)
    directory.joinpath(baselines.FILE).write_text(baseline.render_json())
    spec = training.manifest.train
    against = export.Reference(training.rows.inputs, spec.explain_background, spec.seed)
    return export.write(model, directory, _list_probe_rows(training), against)


def _build_servable(training: Training, candidate: Candidate) -> ServableModel:
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
    return export.add_golden_rows(
        ServableModel(meta, candidate.pipeline), _list_records(training.rows.inputs.head(GOLDEN_ROWS))
    )


def _list_probe_rows(training: Training) -> list[dict[str, Any]]:
    """Rows that decide whether a compiled form may serve: the newest, which it was not fitted on, and the oldest."""
    return _list_records(training.newest.inputs.head(PROBE_ROWS)) + _list_records(training.rows.inputs.head(PROBE_ROWS))


def _list_records(inputs: Any) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: missing is None."""
    rows = inputs.astype(object).to_dict("records")
    return [{name: _replace_nan(value) for name, value in row.items()} for row in rows]


def _replace_nan(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and np.isnan(value)) else value
