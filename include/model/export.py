"""Which form of a trained model serves: the compiled one if it computes the same, else the pipeline itself.

The question is put to the finished directory, not to the plan: the artifact is written, loaded back and compared on
real and awkward rows (see conformance). So "it should convert" is never an argument, and the reason of a fallback is
kept in artifact.json, where /model shows it.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from include.kernel.errors import ArtifactRejected, Permanent
from include.model import artifact, conformance
from include.model.artifact import ArtifactMeta, Golden, ServableModel
from include.model.compiled import compiling
from include.model.compiled.compiling import NotCompilable
from include.model.explanation import explanation
from include.model.schema import build_frame

log = logging.getLogger(__name__)
Row = Mapping[str, Any]
GENERIC_REASON = "the pipeline serves by itself, because "


@dataclass(frozen=True)
class ExportResult:
    """What was written."""

    digest: str
    meta: ArtifactMeta

    @property
    def tags(self) -> dict[str, str]:
        return {"evergreen.runtime": self.meta.runtime, "evergreen.runtime.why": self.meta.why}


@dataclass(frozen=True)
class Reference:
    """What explanations compare a row with: a table of input columns (pandas); `sample` rows of it may be kept."""

    inputs: Any
    sample: int = 0
    seed: int = 0


def write(
    model: ServableModel, directory: Path, rows: Sequence[Row], reference: Reference | None = None
) -> ExportResult:
    """Writes the form that serves and what explains it; `rows` decide about the form, besides the awkward ones.

    Without a `reference` explanations compare with `rows`. Raises `Permanent` when neither form computes what the
    model computes.
    """
    _write_form(model, directory, rows)
    against = reference or Reference(build_frame(rows, model.meta.columns))
    explanation.write(model, directory, against.inputs, against.sample, against.seed)
    return ExportResult(artifact.compute_digest(directory), artifact.read_meta(directory))


def _write_form(model: ServableModel, directory: Path, rows: Sequence[Row]) -> None:
    reason = _write_compiled(model, directory, rows)
    if reason is None:
        return
    if model.meta.framework == "torch":
        raise Permanent(f"The network cannot serve, because {reason.rstrip('.')}; a network has no other form.")
    log.info("no compiled form: %s", reason)
    generic = ServableModel(model.meta.model_copy(update={"why": f"{GENERIC_REASON}{reason}"}), model.pipeline)
    problems = _write_or_discard(
        generic, directory, rows, lambda: artifact.save(model.pipeline, generic.meta, directory)
    )
    if problems:
        raise Permanent(f"The artifact does not conform to its pipeline: {' '.join(problems)}")


def _write_compiled(model: ServableModel, directory: Path, rows: Sequence[Row]) -> str | None:
    """None when the compiled form lies in `directory`, else why it does not."""
    if model.meta.features:
        return f"the feature function {model.meta.features} is code and cannot be compiled"
    if artifact.find_positive_index(model.pipeline, model.meta.positive) != 1:
        return "its positive class is not the second one"
    try:
        form = compiling.compile_pipeline(model.pipeline)
    except NotCompilable as error:
        return str(error)
    meta = model.meta.model_copy(update={"why": f"the {form.runtime} form computes what the pipeline computes"})
    problems = _write_or_discard(model, directory, rows, lambda: artifact.save_compiled(form, meta, directory))
    return f"its {form.runtime} form does not conform: {' '.join(problems)}" if problems else None


def _write_or_discard(model: ServableModel, directory: Path, rows: Sequence[Row], save: Callable[[], str]) -> list[str]:
    """The problems of what `save` wrote; nothing of it is left when there are any."""
    before = {path.name for path in directory.iterdir()}
    try:
        save()
        problems = conformance.check(model, directory, rows)
    except ArtifactRejected as error:
        problems = [str(error)]
    for path in directory.iterdir() if problems else ():
        if path.name not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return problems


def add_golden_rows(model: ServableModel, rows: Sequence[dict[str, Any]]) -> ServableModel:
    """The model with these rows and its probabilities for them as golden rows."""
    scores = model.predict_proba(rows)
    golden = tuple(Golden(row=row, probability=float(p)) for row, p in zip(rows, scores, strict=True))
    return ServableModel(model.meta.model_copy(update={"golden": golden}), model.pipeline)


@dataclass(frozen=True)
class QuantizedVariant:
    """An INT8 variant against its model: bytes of both files, distance of probabilities, share of other decisions."""

    size: int
    full_size: int
    worst: float
    mean: float
    other_decisions: float

    def is_within_tolerance(self, tolerance: float) -> bool:
        return self.worst <= tolerance


def write_int8(model: ServableModel, directory: Path, rows: Sequence[Row], tolerance: float) -> QuantizedVariant:
    """Writes the INT8 variant of a network: an artifact of its own, with the golden rows of the network.

    Dynamic quantization scales by what is in a batch, so the distance is taken row by row, as clients ask. `tolerance`
    is declared, not promised: see `Quantized.conforms`. Raises `NotCompilable` for a model that is no network.
    """
    full = compiling.compile_pipeline(model.pipeline)
    small = compiling.quantize_model(full)
    meta = model.meta.model_copy(update={"precision": "int8", "tolerance": tolerance, "why": "8-bit weights"})
    artifact.save_compiled(small, meta, directory)
    explanation.write(model, directory, build_frame(rows, model.meta.columns))
    variant, threshold = artifact.load(directory), meta.threshold
    expected = model.predict_proba(rows)
    actual = np.concatenate([variant.predict_proba([row]) for row in rows])
    distances, other = np.abs(expected - actual), np.mean((expected >= threshold) != (actual >= threshold))
    return QuantizedVariant(
        len(small.data), len(full.data), float(distances.max()), float(distances.mean()), float(other)
    )
