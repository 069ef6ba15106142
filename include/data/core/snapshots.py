"""Snapshots and point-in-time selection: what a training may know as of a day.

A snapshot is one validated day, immutable and named by its content. A day may have several: a late correction becomes
a new version and never replaces an old one. Each version is entered with the day from which it is known, so that
`as_of` can be answered for the past as it was then: a day that had not arrived is absent, a day that was corrected
later is seen uncorrected. Three rules, each in one place:

* `known_on`: rows are known from the day after their own, or from the `as_of` of the run that delivers them if that is
  later. The `as_of` of a backfilled run is the end of its own interval: backfilled history counts as known when it
  happened, and trainings of the past may use it. A day delivered again today is known from today.
* `entered`: what is known stays known. Other rows for a day need a later knowledge day than the version they correct.
* `select_visible`: of every day the last version known as of then; a label besides is known `delay_days` after its day.

The grain is a day: `as_of` means at its end. Selection works on the snapshots' own descriptions alone; no row is read
before it is known to be needed.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from include.data.spec import LabelSpec, WindowSpec
from include.kernel.errors import DataRefused, NotEnoughData
from include.kernel.job import Intent

Part = Literal["train", "calibration", "holdout"]
CONTRACT_REPORT = "contract.json"  # kept beside the rows: every expectation with what was found


class StoredFile(BaseModel):
    """One file of a snapshot: its name, its size in bytes, and the MD5 under which DVC, and so the store, keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size: int
    md5: str


class Snapshot(BaseModel):
    """The description that stands beside the rows. `id` is the sha256 of rows and schema in canonical form.

    `known_on` is no part of the stored description, which never changes: the same rows may come to count again. The
    store reads it from the day's history.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    day: date
    rows: int
    columns: tuple[str, ...]
    types: tuple[str, ...] = Field((), description="logical types of `columns`, in their order")
    interval: tuple[datetime, datetime] | None = Field(
        None, description="when the rows happened; the end is not part of it"
    )
    source: str
    quarantined: int = Field(0, description="delivered rows that were set aside and are not among `rows`")
    manifest: str = Field(description="sha256 of the manifest whose contract the rows passed")
    code: str = Field("", description="sha256 of the code that let them pass")
    expectations: int = Field(description="rules of the contract that were run")
    warnings: tuple[str, ...] = Field((), description="broken rules that only warn")
    files: tuple[StoredFile, ...] = Field((), description="filled in by the store")
    known_on: date | None = None

    @property
    def known_from(self) -> date:
        """Without a word about it: the day after its own."""
        return self.known_on or compute_known_on(self.day, self.day)


class Version(BaseModel):
    """One line in the history of a day: from `known_on`, this snapshot is what the day holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    known_on: date


def compute_known_on(day: date, as_of: date) -> date:
    """From when rows of `day` that a run of `as_of` delivers count as known: never before the day has ended."""
    return max(day + timedelta(days=1), as_of)


def enter_version(history: Sequence[Version], new: Version, day: date, intent: Intent) -> tuple[Version, ...]:
    """The history of `day`, oldest first, with `new` in it; unchanged when the same rows are known already.

    Raises `DataRefused` when `new` would change what a past day knew. A live run may correct a day on the very day it
    became known, since `as_of` means at the end of a day; a historical one may not, for it is repeated at any time.
    """
    if not history:
        return (new,)
    newest = history[-1]
    if new.id == newest.id or (new.known_on <= newest.known_on and new.id in {old.id for old in history}):
        return tuple(history)
    if new.known_on < newest.known_on or (new.known_on == newest.known_on and intent is not Intent.LIVE):
        raise DataRefused(
            f"{day} now holds other rows than snapshot {newest.id[:12]}, known since {newest.known_on}, and the past "
            f"is not rewritten: to correct the day, run ingest for it with as_of after {newest.known_on}."
        )
    return (*history, new)


class Split(BaseModel):
    """The days of one training, in time: `train`, then `calibration` (may be empty), then `holdout`.

    Every label is known as of the training's day. With `entity`, a column, rows are also parted by it: see
    `find_dropped_entities`.
    """

    model_config = ConfigDict(frozen=True)

    train: tuple[Snapshot, ...]
    calibration: tuple[Snapshot, ...] = ()
    holdout: tuple[Snapshot, ...]
    entity: str | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(snapshot.id for snapshot in (*self.train, *self.calibration, *self.holdout))

    def get_part(self, name: Part) -> tuple[Snapshot, ...]:
        found: tuple[Snapshot, ...] = getattr(self, name)
        return found

    def list_later_days(self, name: Part) -> tuple[Snapshot, ...]:
        """The days of the parts after this one."""
        after = {"train": (*self.calibration, *self.holdout), "calibration": self.holdout, "holdout": ()}
        return after[name]


def find_dropped_entities(own: Iterable[Hashable], later: Iterable[Hashable]) -> set[Hashable]:
    """The entities a part gives up, because a later part has rows of them too.

    The later part wins: the holdout stays as the world delivered it, and what is dropped are the oldest rows. None is
    no entity and is never given up.
    """
    return (set(own) & set(later)) - {None}


def name_entity(value: object) -> str:
    """One name for one entity in whatever type a day delivered it: 7, 7.0 and "7" are the same."""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal) or not math.isfinite(value):
        return str(value)
    return str(math.floor(value)) if value == math.floor(value) else str(value)


def select_visible(history: Iterable[Snapshot], as_of: date) -> list[Snapshot]:
    """Of every day the version known as of `as_of`, oldest day first; a later entry counts before an earlier one."""
    newest: dict[date, Snapshot] = {}
    for one in history:
        if one.known_from <= as_of and (one.day not in newest or newest[one.day].known_from <= one.known_from):
            newest[one.day] = one
    return [newest[day] for day in sorted(newest)]


def filter_matured(snapshots: Iterable[Snapshot], as_of: date, label: LabelSpec) -> list[Snapshot]:
    """Those of these snapshots whose labels are known as of `as_of`."""
    return [snapshot for snapshot in snapshots if snapshot.day + timedelta(days=label.delay_days) <= as_of]


def select_matured(history: Iterable[Snapshot], as_of: date, label: LabelSpec) -> list[Snapshot]:
    """Visible snapshots whose labels are known as of `as_of`, oldest first."""
    return filter_matured(select_visible(history, as_of), as_of, label)


def compute_horizon(history: Iterable[Snapshot]) -> date | None:
    """The first day as of which everything in the history is known."""
    return max((snapshot.known_from for snapshot in history), default=None)


def count_labelled_rows(history: Iterable[Snapshot], as_of: date, label: LabelSpec, since: date | None = None) -> int:
    """Rows with a known label; with `since`, only those of days that had none as of then."""
    history = tuple(history)
    before = {snapshot.day for snapshot in select_matured(history, since, label)} if since else set()
    return sum(snapshot.rows for snapshot in select_matured(history, as_of, label) if snapshot.day not in before)


def split(history: Iterable[Snapshot], as_of: date, label: LabelSpec, train: WindowSpec) -> Split:
    """The last `window_days` matured days: the newest `holdout_days` judge, the `calibration_days` before calibrate.

    Raises `NotEnoughData` when there are fewer days or rows than the manifest asks for.
    """
    window = select_matured(history, as_of, label)[-train.window_days :]
    rows = sum(snapshot.rows for snapshot in window)
    aside = train.holdout_days + train.calibration_days
    if len(window) <= aside or rows < train.min_rows:
        raise NotEnoughData(
            f"As of {as_of} only {rows} labelled rows on {len(window)} days are known; train.min_rows asks for "
            f"{train.min_rows} rows on more than {aside} days: ingest more days or lower train.min_rows."
        )
    judging = len(window) - train.holdout_days
    fitting = judging - train.calibration_days
    parts = tuple(window[:fitting]), tuple(window[fitting:judging]), tuple(window[judging:])
    return Split(train=parts[0], calibration=parts[1], holdout=parts[2], entity=train.entity)
