"""A disk of verified copies, and of the signed documents that allow them: a slot comes back with the registry down.

<root>/artifacts/<digest>/      verified copies
<root>/blessings/<hash>.json    the envelopes, which a slot verifies before it loads
"""

import json
from pathlib import Path
from typing import Any

from include.kernel.files import write_atomic
from include.model.blessing.blessing import compute_envelope_digest
from include.model.integrity.artifact_integrity import copy_verified
from include.release.targets.base import ArtifactStore
from include.serving.words.slot_files import ARTIFACTS, locate_artifact, locate_blessing


class ArtifactDisk(ArtifactStore):
    _root: Path

    def find_artifact(self, digest: str) -> Path | None:
        path = locate_artifact(self._root, digest)
        return path if path.is_dir() else None

    def read_golden_rows(self, digest: str) -> list[dict[str, Any]]:
        path = locate_artifact(self._root, digest) / "artifact.json"
        return list(json.loads(path.read_text())["golden"])

    def _keep_artifact(self, artifact: Path, digest: str) -> None:
        copy_verified(artifact, self._root / ARTIFACTS, digest)

    def _keep_envelope(self, envelope: str | None) -> str | None:
        """The hash by which an envelope lies in blessings/; there before anything names it."""
        if envelope is None:
            return None
        digest = compute_envelope_digest(envelope)
        write_atomic(locate_blessing(self._root, digest), envelope)
        return digest

    def _read_envelope_file(self, digest: str | None) -> str | None:
        """The envelope; None where it lies no more."""
        path = locate_blessing(self._root, str(digest))
        return path.read_text() if path.exists() else None
