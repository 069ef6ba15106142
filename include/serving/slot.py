"""What a slot holds, read once at start: a loaded model, nothing, or something broken with the reason why.

A broken slot is a state and not a crash: a process manager would restart a crash for ever, while a server that answers
503 with a sentence can be asked what is wrong and leaves the other slot to carry the traffic.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.core.errors import ArtifactRejected
from include.serving.validation import InputSchema

if TYPE_CHECKING:
    from include.model.artifact import Model

log = logging.getLogger(__name__)


class SlotFile(BaseModel):
    """slots/<slot>.json. The version goes into a header and the digest into a path: hence the patterns."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    version: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    generation: int = Field(ge=0)
    blessing: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the document that allowed it")


@dataclass(frozen=True)
class Loaded:
    file: SlotFile
    model: Model
    loaded_at: datetime

    @cached_property
    def inputs(self) -> InputSchema:
        return InputSchema(self.model.meta.columns, self.model.meta.name)


@dataclass(frozen=True)
class Empty:
    file: None = None
    why: str = "The slot is empty; stage a release into it."


@dataclass(frozen=True)
class Broken:
    why: str
    file: SlotFile | None = None


Slot = Loaded | Empty | Broken


def load(serving_dir: Path, colour: str) -> Slot:
    """Never raises: whatever is wrong becomes `Broken` and a line in the log."""
    path = serving_dir / "slots" / f"{colour}.json"
    try:
        file = SlotFile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Empty()
    except (OSError, ValidationError):
        return _broken(f"The slot file {path.name} cannot be read; stage the release again.", None)
    return _filled(file, serving_dir / "artifacts" / file.digest)


def _filled(file: SlotFile, directory: Path) -> Slot:
    try:
        return Loaded(file, _warm_model(directory, file.digest), datetime.now(UTC))
    except ArtifactRejected as error:
        return _broken(str(error), file)
    except Exception as error:
        log.exception("the model of version %s cannot be loaded", file.version)
        return _broken(f"The model cannot be loaded: {type(error).__name__}.", file)


def _warm_model(directory: Path, digest: str) -> Model:
    # imported here, so that an empty slot starts in a second and without scikit-learn's memory
    from include.model import artifact, conformance

    artifact.verify(directory, digest)
    model = artifact.load(directory)
    problem = conformance.golden(model)
    if problem:
        raise ArtifactRejected(problem)
    model.predict_proba([{}])  # warm also without golden rows
    return model


def _broken(why: str, file: SlotFile | None) -> Broken:
    log.error("slot is broken: %s", why)
    return Broken(why, file)
