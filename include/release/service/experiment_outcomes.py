"""What became of the callers of an experiment, counted from the prediction log.

The log is read anew at every look, from the day the experiment began: outcomes arrive for old predictions, in any order
and through several doors, and whoever counts from the start cannot count twice. A look of a long experiment therefore
costs a scan of its days; `experiment.look_s` says how often.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from include.data.store.snapshot_store import SnapshotStore
from include.feedback.core.prediction_records import BY_MODEL
from include.feedback.predictions import Predictions
from include.feedback.segments import Segments
from include.release.core.experiment import Arm
from include.release.spec import ReleaseManifest


class ExperimentOutcomes:
    """`secret` is EVERGREEN_LOG_KEY. Raises what reading the log raises."""

    def __init__(
        self, segments: Segments, store: SnapshotStore, manifest: ReleaseManifest, secret: str | None = None
    ) -> None:
        self._segments, self._store, self._manifest, self._secret = segments, store, manifest, secret

    def count_arms(self, since: datetime, *versions: str) -> tuple[Arm, ...]:
        """The callers of each version: of each caller the first prediction since then, once it has an outcome."""
        with tempfile.TemporaryDirectory() as directory:
            reader = Predictions(self._segments, self._store, self._manifest, Path(directory), self._secret)
            parts = reader.read_parts(since.date(), datetime.now(UTC).date())
            firsts = [_select_first(part.filter(pl.col("at") >= since)) for part in parts]
        callers = _select_first(pl.concat(firsts)) if firsts else None
        return tuple(self._count_arm(callers, version) for version in versions)

    def _count_arm(self, callers: pl.DataFrame | None, version: str) -> Arm:
        if callers is None:
            return Arm()
        positive = str(self._manifest.label.positive)
        outcomes = callers.filter(pl.col("version") == version, pl.col("outcome").is_not_null())
        is_positive = outcomes["outcome"] == positive
        is_approved = outcomes["decision"]
        return Arm(
            int((is_approved & is_positive).sum()),
            int((is_approved & ~is_positive).sum()),
            int((~is_approved & is_positive).sum()),
            int((~is_approved & ~is_positive).sum()),
        )


def _select_first(rows: pl.DataFrame) -> pl.DataFrame:
    """The first prediction of each caller; what answered in a model's place is nobody's."""
    identified = rows.filter(pl.col("caller").is_not_null(), pl.col("decision").is_not_null())
    selected = identified.select("caller", "version", "at", "request_id", "row", "decision", "outcome", "served_by")
    selected = selected.filter(pl.col("served_by") == BY_MODEL)
    return selected.sort("at", "request_id", "row").unique("caller", keep="first", maintain_order=True)
