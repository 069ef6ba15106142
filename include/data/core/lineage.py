"""Lineage: what a model saw, and which models saw a row.

A training leaves `lineage.json` beside its model: every day by the snapshot it read, and the part the day played. Ids
are of contents, so the answer stays exact when a day is corrected later: the model saw the version named here.
"""

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Final

from pydantic import BaseModel, ConfigDict

from include.data.core.snapshots import Part, Split

FILE: Final = "lineage.json"
PARTS: Final[tuple[Part, ...]] = ("train", "calibration", "holdout")
LONGEST_LIST = 8_000  # characters, what a tag of an MLflow run may have: 615 days
DIGEST_PREFIX = "sha256:"


def describe_snapshots(ids: Sequence[str]) -> str:
    """For a tag: 12 digits a snapshot; of too many the sha256 of that text, and lineage.json has the list."""
    listed = ",".join(snapshot_id[:12] for snapshot_id in ids)
    if len(listed) <= LONGEST_LIST:
        return listed
    return f"{DIGEST_PREFIX}{hashlib.sha256(listed.encode()).hexdigest()} of {len(ids)} snapshots"


def may_include(described: str, snapshot_id: str) -> bool:
    """False when a training that says so did not see the snapshot; otherwise its lineage.json knows."""
    return described.startswith(DIGEST_PREFIX) or snapshot_id[:12] in described.split(",")


class LineageDay(BaseModel):
    """One day as a training saw it: `id` is the snapshot's, `rows` all rows of it, before entities are parted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: date
    id: str
    part: Part
    rows: int


class TrainingLineage(BaseModel):
    """The content of lineage.json. `entity`, when set, is the column by which parts were kept apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    entity: str | None
    days: tuple[LineageDay, ...]

    def find_day(self, snapshot_id: str) -> LineageDay | None:
        return next((seen for seen in self.days if seen.id == snapshot_id), None)

    def list_later_days(self, part: Part) -> tuple[LineageDay, ...]:
        """The days of the parts after `part`: a row whose entity is there was given up by this part."""
        later = PARTS[PARTS.index(part) + 1 :]
        return tuple(seen for seen in self.days if seen.part in later)


def build_lineage(days: Split, as_of: date) -> TrainingLineage:
    found = (
        LineageDay(day=each.day, id=each.id, part=part, rows=each.rows)
        for part in PARTS
        for each in days.get_part(part)
    )
    return TrainingLineage(as_of=as_of, entity=days.entity, days=tuple(found))
