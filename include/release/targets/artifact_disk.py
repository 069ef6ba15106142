"""A disk of verified copies, and of the signed documents that allow them: a slot comes back with the registry down.

<root>/artifacts/<digest>/      verified copies
<root>/blessings/<hash>.json    the envelopes, which a slot verifies before it loads
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from include.kernel.files import write_atomic
from include.model.blessing.blessing import envelope_digest
from include.model.integrity.artifact_integrity import copy_verified
from include.release.targets.base import ArtifactStore
from include.serving.words.slot_files import ARTIFACTS, artifact_path, blessing_path


class ArtifactDisk(ArtifactStore):
    _root: Path

    def has_artifact(self, digest: str) -> Path | None:
        path = artifact_path(self._root, digest)
        return path if path.is_dir() else None

    def golden(self, digest: str) -> list[dict[str, Any]]:
        path = artifact_path(self._root, digest) / "artifact.json"
        return list(json.loads(path.read_text())["golden"])

    def _keep_artifact(self, artifact: Path, digest: str) -> None:
        copy_verified(artifact, self._root / ARTIFACTS, digest)

    def _kept(self, envelope: str | None) -> str | None:
        """The hash by which an envelope lies in blessings/; there before anything names it."""
        if envelope is None:
            return None
        paper = envelope_digest(envelope)
        write_atomic(blessing_path(self._root, paper), envelope)
        return paper

    def _read_paper(self, name: str | None) -> str | None:
        """The envelope; None where it lies no more."""
        place = blessing_path(self._root, str(name))
        return place.read_text() if place.exists() else None
