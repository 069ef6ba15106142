"""The artifact: a directory with `artifact.json` (what the model is), the model, and what travels along.

Everything the server needs to answer is inside: columns, labels, threshold, calibration and golden rows with the
probabilities the training saw. So a server needs no registry and no training code, and can prove after loading that it
computes the same. The model has one of two forms, and artifact.json says which and why:

    compiled   `model.onnx` or `model.treelite` with `encoding.json`: no DataFrame, no scikit-learn, microseconds a row
    generic    `model.skops`: any pipeline of ours, also behind a feature function; a DataFrame a request

Neither can run code when it is loaded: the compiled files are tables, and of skops only types we name are read. That is
the trade-off against pickle. What the generic path needs is imported when such an artifact is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.kernel.errors import ArtifactRejected, Permanent
from include.model.calibration import Calibration
from include.model.compiled import runtimes
from include.model.compiled.encoding import Encoder, Encoding
from include.model.integrity.artifact_integrity import compute_digest, copy_verified, read_contents, verify
from include.model.schema import Column, build_frame

if TYPE_CHECKING:
    import pandas as pd

    from include.model.compiled.compiling import CompiledForm

__all__ = [
    "ArtifactMeta",
    "CompiledModel",
    "Golden",
    "Model",
    "ServableModel",
    "compute_digest",
    "copy_verified",
    "load",
    "open_artifact",
    "save",
    "save_compiled",
    "verify",
    "write_meta",
]

META_FILE = "artifact.json"
MODEL_FILE = "model.skops"
ENCODING_FILE = "encoding.json"
Files: TypeAlias = Mapping[str, bytes]  # by the name relative to the artifact's directory
Document = TypeVar("Document", bound=BaseModel)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Golden(_Document):
    """A row and the probability the training computed for it."""

    row: dict[str, float | str | None]
    probability: float = Field(ge=0, le=1)


class ArtifactMeta(_Document):
    """The content of artifact.json. `columns` are the inputs, before the feature function."""

    format: Literal[1] = 1
    name: str
    framework: Literal["sklearn", "torch"] = "sklearn"
    columns: tuple[Column, ...] = Field(min_length=1)
    positive: str
    negative: str
    threshold: float = Field(ge=0, le=1)
    features: str | None = None
    calibration: Calibration = Calibration()
    golden: tuple[Golden, ...] = ()
    runtime: Literal["skops", "onnx", "treelite"] = "skops"
    precision: Literal["full", "int8"] = "full"
    tolerance: float = Field(1e-6, ge=0, description="how far a golden row's probability may lie from the training's")
    why: str = Field("", description="why this form serves and not the other")
    sklearn_version: str = Field(default_factory=lambda: version("scikit-learn"))

    @property
    def path(self) -> Literal["compiled", "generic"]:
        return "generic" if self.runtime == "skops" else "compiled"

    def choose_label(self, probability: float) -> str:
        return self.positive if probability >= self.threshold else self.negative


class Model(Protocol):
    """Rows in, probability of the positive class out, whatever the form."""

    @property
    def meta(self) -> ArtifactMeta: ...
    def predict_proba(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]: ...
    def predict_frame(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """The same for a table that `schema.frame` or `schema.conform` built."""
        ...


@dataclass(frozen=True)
class ServableModel:
    """The generic form: a fitted pipeline with its description."""

    meta: ArtifactMeta
    pipeline: Any

    def predict_proba(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        return self.predict_frame(build_frame(rows, self.meta.columns))

    def predict_frame(self, table: pd.DataFrame) -> NDArray[np.float64]:
        return self.meta.calibration(self.score_frame(table))

    def score_frame(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """Scores (n,) before calibration."""
        from include.model import features

        probabilities = self.pipeline.predict_proba(features.apply(self.meta.features, table))
        return np.asarray(probabilities, dtype=np.float64)[:, self._positive]

    @property
    def _positive(self) -> int:
        return find_positive_index(self.pipeline, self.meta.positive)


@dataclass(frozen=True)
class CompiledModel:
    """The compiled form: encoding, runtime and calibration, on numpy alone."""

    meta: ArtifactMeta
    encoder: Encoder
    score: runtimes.Score

    def predict_proba(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        return self.answer(self.encoder.encode_rows(rows))

    def predict_frame(self, table: pd.DataFrame) -> NDArray[np.float64]:
        return np.concatenate([self.answer(matrix) for matrix in self.encoder.iterate_frame(table)])

    def answer(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities (n,) of an encoded matrix (n, width)."""
        return self.meta.calibration(self.score_matrix(matrix))

    def score_matrix(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Scores (n,) before calibration."""
        return self.score(matrix.astype(self.encoder.dtype, copy=False))


def save(model: Any, meta: ArtifactMeta, directory: Path) -> str:
    """Writes the generic form and answers its digest. A model the server would refuse is refused here already."""
    import skops.io as sio

    from include.model.integrity import skops_allowlist
    from include.model.integrity.deterministic_zip import make_deterministic

    data = make_deterministic(bytes(sio.dumps(model)))
    skops_allowlist.check(data)
    find_positive_index(model, meta.positive)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MODEL_FILE).write_bytes(data)
    return write_meta(meta, directory)


def save_compiled(model: CompiledForm, meta: ArtifactMeta, directory: Path) -> str:
    """Writes the compiled form and answers its digest."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / runtimes.MODEL_FILES[model.runtime]).write_bytes(model.data)
    (directory / ENCODING_FILE).write_text(model.encoding.model_dump_json(indent=1) + "\n")
    tolerance = max(meta.tolerance, model.tolerance)
    return write_meta(meta.model_copy(update={"runtime": model.runtime, "tolerance": tolerance}), directory)


def load(directory: Path) -> Model:
    """The model in a directory that its owner vouches for. Raises `ArtifactRejected` as `open_artifact` does."""
    return open_artifact(read_contents(directory))


def open_artifact(files: Files) -> Model:
    """The model in these files. Raises `ArtifactRejected` with one sentence when anything in it is not what it should
    be. A server passes what `artifact_integrity.read_verified` gave it."""
    meta = _parse_document(ArtifactMeta, files, META_FILE)
    if meta.runtime == "skops":
        return _load_generic(meta, _read_file(files, MODEL_FILE))
    encoding = _parse_document(Encoding, files, ENCODING_FILE)
    needed = {*encoding.numbers.names, *encoding.categories.values}
    unknown = sorted(needed - {column.name for column in meta.columns})
    if unknown:
        raise ArtifactRejected(f"{ENCODING_FILE} reads the column {unknown[0]!r}, which {META_FILE} does not have.")
    score = runtimes.open_model(meta.runtime, _read_file(files, runtimes.MODEL_FILES[meta.runtime]), encoding.width)
    return CompiledModel(meta, Encoder(encoding), score)


def read_meta(source: Path | Files) -> ArtifactMeta:
    """artifact.json alone, without the model."""
    return _parse_document(ArtifactMeta, read_contents(source) if isinstance(source, Path) else source, META_FILE)


def _load_generic(meta: ArtifactMeta, data: bytes) -> ServableModel:
    from include.model import features
    from include.model.integrity import skops_allowlist

    pipeline = skops_allowlist.read(data)
    find_positive_index(pipeline, meta.positive)
    try:
        features.resolve(meta.features)
    except Permanent as error:
        raise ArtifactRejected(str(error)) from error
    return ServableModel(meta, pipeline)


def write_meta(meta: ArtifactMeta, directory: Path) -> str:
    """Writes artifact.json beside a model and answers the digest of it all."""
    (directory / META_FILE).write_text(meta.model_dump_json(indent=2) + "\n")
    return compute_digest(directory)


def _parse_document(kind: type[Document], files: Files, name: str) -> Document:
    try:
        return kind.model_validate_json(_read_file(files, name))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ArtifactRejected(f"{name} is not valid at {location}: {first['msg']}.") from error


def _read_file(files: Files, name: str) -> bytes:
    try:
        return files[name]
    except KeyError as error:
        raise ArtifactRejected(f"The artifact has no readable {name}; stage the release again.") from error


def find_positive_index(pipeline: Any, positive: str) -> int:
    """Where the positive class stands; a model trained on 0/1 has it second."""
    try:
        classes = [str(label) for label in pipeline.classes_]
    except AttributeError as error:
        raise ArtifactRejected("The model is not a fitted classifier.") from error
    if len(classes) == 2 and positive in classes:
        return classes.index(positive)
    if classes in (["0", "1"], ["False", "True"]):
        return 1
    raise ArtifactRejected(f"The model does not tell {positive!r} from one other class.")
