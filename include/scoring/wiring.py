"""Where scored days lie, and a served artifact, by the environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from include.data.wiring import open_snapshot_store
from include.kernel.environment import read_setting

if TYPE_CHECKING:
    from include.scoring.score_store import ScoreStore


def open_score_store() -> ScoreStore:
    """Results of batch scoring, beside the snapshots."""
    from include.scoring.score_store import ScoreStore

    return ScoreStore(open_snapshot_store().objects)


def find_served_artifact(digest: str) -> Path | None:
    """The copy of an artifact that the slots of this machine load, not verified; None where there is none."""
    directory = Path(os.environ.get("EVERGREEN_SERVING_DIR") or "/nowhere") / "artifacts" / digest
    return directory if directory.is_dir() else None


def find_score_pages() -> Path:
    """Where the pages of scored days are drawn: beside the monitor's reports, where links on tasks lead."""
    return Path(read_setting("EVERGREEN_STORE")) / "reports" / "scores"
