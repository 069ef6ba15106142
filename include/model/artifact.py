"""The artifact: a directory with `artifact.json` (what the model is), `model.skops` (the model) and what travels along.

Everything the server needs to answer is inside: columns, labels, threshold and golden rows with the probabilities the
training saw. So a server needs no registry and no training code, and can prove after loading that it computes the same.
The trade-off of skops over pickle: only types we name can be saved. In return loading a file cannot run its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import sklearn
import skops.io as sio
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.core.errors import ArtifactRejected, Permanent
from include.model import features, trust
from include.model.canonical import canonical
from include.model.schema import Column, frame
from include.model.sealed import copy_verified, digest, verify

__all__ = ["ArtifactMeta", "Golden", "ServableModel", "copy_verified", "digest", "load", "save", "verify"]

META = "artifact.json"
MODEL = "model.skops"


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
    framework: Literal["sklearn"] = "sklearn"
    columns: tuple[Column, ...] = Field(min_length=1)
    positive: str
    negative: str
    threshold: float = Field(ge=0, le=1)
    features: str | None = None
    golden: tuple[Golden, ...] = ()
    sklearn_version: str = sklearn.__version__

    def label(self, probability: float) -> str:
        return self.positive if probability >= self.threshold else self.negative


@dataclass(frozen=True)
class ServableModel:
    """A fitted pipeline with its description: rows in, probability of the positive class out."""

    meta: ArtifactMeta
    pipeline: Any

    def predict_proba(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        return self.predict_frame(frame(rows, self.meta.columns))

    def predict_frame(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """The same for a table that `schema.frame` or `schema.conform` built."""
        probabilities = self.pipeline.predict_proba(features.apply(self.meta.features, table))
        chosen: NDArray[np.float64] = np.asarray(probabilities, dtype=np.float64)[:, self._positive]
        return chosen

    @property
    def _positive(self) -> int:
        return _positive_index(self.pipeline, self.meta.positive)


def save(model: Any, meta: ArtifactMeta, directory: Path) -> str:
    """Writes the artifact and answers its digest. A model the server would refuse is refused here already."""
    data = canonical(bytes(sio.dumps(model)))
    trust.check(data)
    _positive_index(model, meta.positive)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MODEL).write_bytes(data)
    (directory / META).write_text(meta.model_dump_json(indent=2) + "\n")
    return digest(directory)


def load(directory: Path) -> ServableModel:
    """Raises `ArtifactRejected` with one sentence when anything in it is not what it should be."""
    meta = read_meta(directory)
    pipeline = trust.read(_bytes(directory / MODEL))
    _positive_index(pipeline, meta.positive)
    try:
        features.resolve(meta.features)
    except Permanent as error:
        raise ArtifactRejected(str(error)) from error
    return ServableModel(meta, pipeline)


def read_meta(directory: Path) -> ArtifactMeta:
    """artifact.json alone, without the model."""
    try:
        return ArtifactMeta.model_validate_json(_bytes(directory / META))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ArtifactRejected(f"{META} is not valid at {place}: {first['msg']}.") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactRejected(f"The artifact has no readable {path.name}: {error.strerror}.") from error


def _positive_index(pipeline: Any, positive: str) -> int:
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
