"""Snapshots and point-in-time selection: what a training may know as of a day.

A snapshot is one validated day, immutable and named by its content. Selection works on the snapshots' own descriptions
alone; no row is read before it is known to be needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from pydantic import BaseModel, ConfigDict

from include.core.errors import NotEnoughData
from include.core.manifest import LabelSpec, TrainSpec


class Snapshot(BaseModel):
    """The description that stands beside the rows. `id` is the sha256 of rows and schema in canonical form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    day: date
    rows: int
    columns: tuple[str, ...]
    source: str
    manifest: str
    expectations: int


class Split(BaseModel):
    """The days of one training: `train` strictly before `holdout`, every label known as of the training's day."""

    model_config = ConfigDict(frozen=True)

    train: tuple[Snapshot, ...]
    holdout: tuple[Snapshot, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(snapshot.id for snapshot in (*self.train, *self.holdout))


def visible(snapshots: Iterable[Snapshot], as_of: date) -> list[Snapshot]:
    """Snapshots of days up to and including `as_of`, oldest first."""
    return sorted((s for s in snapshots if s.day <= as_of), key=lambda s: s.day)


def matured(snapshots: Iterable[Snapshot], as_of: date, label: LabelSpec) -> list[Snapshot]:
    """Visible snapshots whose labels are known as of `as_of`, oldest first."""
    return visible(snapshots, as_of - timedelta(days=label.delay_days))


def labelled_rows(snapshots: Iterable[Snapshot], as_of: date, label: LabelSpec, since: date | None = None) -> int:
    """Rows with a known label; with `since`, only those whose label became known after that day."""
    known = matured(snapshots, as_of, label)
    if since is not None:
        known = known[len(matured(known, since, label)) :]
    return sum(snapshot.rows for snapshot in known)


def split(snapshots: Iterable[Snapshot], as_of: date, label: LabelSpec, train: TrainSpec) -> Split:
    """The last `window_days` matured days, the newest `holdout_days` of them set aside to judge.

    Raises `NotEnoughData` when there are fewer days or rows than the manifest asks for.
    """
    window = matured(snapshots, as_of, label)[-train.window_days :]
    rows = sum(snapshot.rows for snapshot in window)
    if len(window) <= train.holdout_days or rows < train.min_rows:
        raise NotEnoughData(
            f"As of {as_of} only {rows} labelled rows on {len(window)} days are known; train.min_rows asks for "
            f"{train.min_rows} rows on more than {train.holdout_days} days: ingest more days or lower train.min_rows."
        )
    return Split(train=tuple(window[: -train.holdout_days]), holdout=tuple(window[-train.holdout_days :]))
