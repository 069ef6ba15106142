"""Batch scoring, decided: what a run scores, what its result is called, and what the result comes to.

A result is known by what it is made of: the snapshot's id and the artifact's digest. Whoever asks for the same again,
by a retry, a backfill or a second run at the same moment, means the same files and finds them; nobody has to ask
whether a result is out of date. A result is cut into parts of a fixed number of rows, so a run that was killed goes on
behind the last whole part. The cut is a constant and no setting: it decides the bytes, so it belongs to the form.

    scores/<day>/version-<version>-<key>/
        part-00000.parquet      the rows of one part
        part-00000.json         its record: written after it, and without one it does not count
        scores.json             the whole result: written last, so what has one is whole
"""

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.data.core.snapshots import Snapshot, select_visible
from include.kernel.errors import DataRefused, RequestInvalid
from include.kernel.job import build_run_key

RESULT_FORM = "evergreen-scores-1"  # part of the key: what would give other bytes must have another name
PART_ROWS = 32_768  # rows scored at a time, and lost to a kill at most
BINS = 20  # of the histogram, over scores from 0 to 1
RESULT_COLUMNS = ("score", "label", "decision", "version", "digest")  # of a result, behind the id
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PinnedDay(_Document):
    day: date
    snapshot: Sha256


class PinnedRun(_Document):
    """What one run scores and with what, said once at its start: retries read it and ask nobody again."""

    version: Version
    digest: Sha256 = Field(description="of the artifact, as the version's blessing says")
    days: tuple[PinnedDay, ...] = Field(min_length=1)


class Part(_Document):
    """`rows` rows from row number `first` on, counted from 0."""

    index: int
    first: int
    rows: int

    @property
    def name(self) -> str:
        return f"part-{self.index:05}.parquet"

    @property
    def record(self) -> str:
        return f"part-{self.index:05}.json"


class ScoreSummary(_Document):
    """What a number of scores come to. `positives` are the decisions for the label's positive class."""

    rows: int = 0
    positives: int = 0
    total: float = Field(0.0, description="sum of the scores")
    histogram: tuple[int, ...] = Field((0,) * BINS, min_length=BINS, max_length=BINS)

    @property
    def mean(self) -> float:
        return self.total / self.rows if self.rows else math.nan

    @property
    def share(self) -> float:
        return self.positives / self.rows if self.rows else math.nan


class ScoredPart(_Document):
    """The record of a part: it stands for exactly these bytes of exactly this part."""

    key: str
    part: Part
    sha256: Sha256 = Field(description="of the Parquet file")
    tally: ScoreSummary


class Scores(_Document):
    """The content of scores.json. Nothing in it depends on who made it or when, so it is made only once."""

    form: str = RESULT_FORM
    key: str
    model: str
    version: Version
    digest: Sha256
    day: date
    snapshot: Sha256
    id: str = Field(description="name of the id column")
    positive: str
    negative: str
    threshold: float
    rows: int
    tally: ScoreSummary
    parts: tuple[ScoredPart, ...]

    @property
    def sentence(self) -> str:
        return (
            f"{self.rows} rows of {self.day} scored with version {self.version}: {self.tally.positives} {self.positive}"
            f" ({self.tally.share:.1%}), mean score {self.tally.mean:.4f}"
        )


def parse_pinned(params: dict[str, Any]) -> PinnedRun:
    """What a job's params say. Raises `RequestInvalid`."""
    try:
        return PinnedRun.model_validate(params["pinned"])
    except KeyError:
        raise RequestInvalid("score needs params.pinned: a version, its digest, and days with snapshots.") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field_path = ".".join(("params", "pinned", *map(str, problem["loc"])))
        raise RequestInvalid(
            f"score was asked for something it cannot read: {field_path}: {problem['msg']}."
        ) from error


def choose_days(
    history: Iterable[Snapshot],
    as_of: date,
    requested: tuple[date | None, date | None] = (None, None),
    announced: Collection[date] = (),
    own: date | None = None,
) -> list[Snapshot]:
    """The days to score, oldest first, each as it was known as of `as_of`; empty when none of them is there.

    `requested` is a first and a last day (or one of them alone) and has the first word; then the days that
    the triggering events announce; then the run's own day; else it is the newest day there is. Raises `RequestInvalid`.
    """
    visible_days, bounds = select_visible(history, as_of), [day for day in requested if day]
    if bounds and bounds[0] > bounds[-1]:
        raise RequestInvalid(f"The range from {bounds[0]} until {bounds[-1]} ends before it begins; swap its days.")
    if bounds:
        return [snapshot for snapshot in visible_days if bounds[0] <= snapshot.day <= bounds[-1]]
    chosen_days = set(announced) or ({own} if own else {snapshot.day for snapshot in visible_days[-1:]})
    return [snapshot for snapshot in visible_days if snapshot.day in chosen_days]


def split_into_parts(rows: int) -> list[Part]:
    """The cut of a snapshot of `rows` rows; none for an empty one."""
    firsts = range(0, rows, PART_ROWS)
    return [Part(index=index, first=first, rows=min(PART_ROWS, rows - first)) for index, first in enumerate(firsts)]


def build_result_key(snapshot: str, version: str, digest: str) -> str:
    """The name of a result, 16 hex digits."""
    return build_run_key(RESULT_FORM, snapshot, version, digest)


def locate_result(day: date, version: str, key: str) -> str:
    return f"scores/{day}/version-{version}-{key}"


def require_columns(snapshot: Snapshot, id_column: str, inputs: Iterable[str]) -> None:
    """Raises `DataRefused` when the snapshot cannot be scored, or its id would hide a column of the result."""
    missing = [name for name in (id_column, *inputs) if name not in snapshot.columns]
    if missing:
        raise DataRefused(
            f"Snapshot {snapshot.id[:12]} of {snapshot.day} has no column {', '.join(missing)}, which the model reads: "
            "ingest the day again under the manifest, or score it with another version."
        )
    if id_column in RESULT_COLUMNS:
        raise DataRefused(f"contract.id is {id_column!r}, as a column of every result is called; rename the id column.")


def merge_summaries(summaries: Sequence[ScoreSummary]) -> ScoreSummary:
    """The tally of all parts together. The sum is exact, so the order of the parts does not matter."""
    return ScoreSummary(
        rows=sum(summary.rows for summary in summaries),
        positives=sum(summary.positives for summary in summaries),
        total=math.fsum(summary.total for summary in summaries),
        histogram=tuple(sum(counts) for counts in zip(*(summary.histogram for summary in summaries), strict=True))
        if summaries
        else (0,) * BINS,
    )
