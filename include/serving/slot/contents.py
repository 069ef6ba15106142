"""What a slot holds, read at start and at a reload: a loaded model, nothing, or something broken with the reason why.

A broken slot is a state and not a crash: a process manager would restart a crash for ever, while a server that answers
503 with a sentence can be asked what is wrong and leaves the other slot to carry the traffic.

The order is the safety: the blessing's signature first (see admission), then the digest of the artifact's bytes, then
what artifact.json says, and only then does a model runtime parse anything, from the very bytes that were checked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.kernel.errors import ArtifactRejected, Permanent
from include.model.blessing.blessing import Blessing
from include.serving.slot.admission import Admission
from include.serving.slot.input_schema import InputSchema
from include.serving.words.slot_files import BLESSINGS, locate_artifact, locate_slot_file

if TYPE_CHECKING:
    from include.model.artifact import Model
    from include.model.schema import Kind

log = logging.getLogger(__name__)


class SlotFile(BaseModel):
    """slots/<slot>.json. The version goes into a header and the digest into a path: hence the patterns."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    generation: int = Field(ge=0)
    blessing: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the document that allowed it")


@dataclass(frozen=True)
class Loaded:
    file: SlotFile
    model: Model
    loaded_at: datetime
    blessing: Blessing | None = None  # verified; None where none is asked for
    unneeded: Mapping[str, Kind] | None = (
        None  # columns that callers may send beside the model's; the holder knows them
    )

    @cached_property
    def categories(self) -> dict[str, frozenset[str]]:
        """Those that training saw, by column."""
        return {column.name: frozenset(column.categories) for column in self.model.meta.columns}

    @cached_property
    def inputs(self) -> InputSchema:
        return InputSchema(self.model.meta.columns, self.model.meta.name, self.file.version, self.unneeded)


@dataclass(frozen=True)
class Empty:
    file: None = None
    why: str = "The slot is empty; stage a release into it."


@dataclass(frozen=True)
class Broken:
    why: str
    file: SlotFile | None = None


Slot = Loaded | Empty | Broken


def load(serving_dir: Path, colour: str, admission: Admission | None = None) -> Slot:
    """Never raises: whatever is wrong becomes `Broken` and a line in the log. Without `admission` nothing is loaded."""
    path = locate_slot_file(serving_dir, colour)
    try:
        content = path.read_bytes()
        if not content.strip():  # what a kubelet makes of an annotation that is not there
            return Empty()
        file = SlotFile.model_validate_json(content)
    except FileNotFoundError:
        return Empty()
    except (OSError, ValidationError):
        return _make_broken(f"The slot file {path.name} cannot be read; stage the release again.", None)
    return _load_release(file, serving_dir, admission or Admission())


def _load_release(file: SlotFile, serving_dir: Path, admission: Admission) -> Slot:
    try:
        blessing = admission.verify_blessing(serving_dir / BLESSINGS, file.blessing, file.version, file.digest)
        model = _warm_model(locate_artifact(serving_dir, file.digest), file.digest, blessing, admission)
        return Loaded(file, model, datetime.now(UTC), blessing)
    except Permanent as error:
        return _make_broken(str(error), file)
    except Exception as error:
        log.exception("the model of version %s cannot be loaded", file.version, extra={"reason": str(error)})
        return _make_broken(f"The model cannot be loaded: {type(error).__name__}.", file)


def _warm_model(directory: Path, digest: str, blessing: Blessing | None, admission: Admission) -> Model:
    # imported here, so that an empty slot starts in a second and without scikit-learn's memory
    from include.model import artifact, conformance
    from include.model.integrity import artifact_integrity

    if directory.is_symlink():
        raise ArtifactRejected(f"The artifact {directory.name} is a symbolic link; stage the release again.")
    files = artifact_integrity.read_verified(directory, digest)
    meta = artifact.read_meta(files)
    admission.check_model(blessing, meta.name)
    if meta.path == "generic":
        admission.check_version(meta.sklearn_version)
    model = artifact.open_artifact(files)
    problem = conformance.check_golden(model)
    if problem:
        raise ArtifactRejected(problem)
    model.predict_proba([{}])  # warm also without golden rows
    return model


def _make_broken(why: str, file: SlotFile | None) -> Broken:
    log.error("slot is broken: %s", why)
    return Broken(why, file)
