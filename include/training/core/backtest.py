"""The walk-forward backtest: what trainings of the past would have been worth, fold by fold.

One fold is one past day `as_of`. A model is trained on what was known then and judged by the days that followed it, as
if it had served them; so is the model of the fold before, on the same rows: what would have happened without this
training. Nothing of a fold is known earlier than it would have been: the training sees `as_of`, and the judging days
are taken as they were known when their last label had matured, so a later correction changes no fold.

A fold is a function of data, manifest and code alone. It holds no time of its making and no name of a run, so making
it again writes the same bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from pydantic import BaseModel, ConfigDict, Field

from include.data.core.snapshots import Snapshot, compute_horizon, select_visible
from include.data.spec import LabelSpec
from include.kernel.errors import NotEnoughData


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Record):
    """An estimate with its two-sided interval, at the confidence of the manifest's gate."""

    value: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class ModelEvaluation(Record):
    """One model on the judging rows. `cost` is the expected cost per row at the costs' threshold."""

    as_of: date = Field(description="what its training knew")
    candidate: str
    digest: str = Field(description="of the serving artifact")
    auc: Estimate
    cost: Estimate


class Fold(Record):
    """One past training, and what followed."""

    as_of: date
    first: date = Field(description="first judging day")
    last: date
    rows: int
    positives: int
    trained_rows: int
    trained_on: tuple[str, ...] = Field(description="snapshot ids")
    judged_by: tuple[str, ...] = Field(description="snapshot ids")
    model: ModelEvaluation
    before: ModelEvaluation | None = Field(description="the model of the fold before, on the same rows")
    saved: Estimate | None = Field(description="cost per row that this training saved against the model before")
    manifest: str
    code: str

    @property
    def sentence(self) -> str:
        summary = f"as of {self.as_of}: AUC {self.model.auc.sentence} on {self.rows} rows that followed"
        if self.saved is None:
            return f"{summary}; no model before it to compare with"
        return f"{summary}; cost saved per row against the model before {self.saved.sentence}"


@dataclass(frozen=True)
class JudgingDays:
    """The days that judge a fold, and the day as of which they are judged."""

    days: tuple[Snapshot, ...]
    judged_on: date


def find_judging_days(history: Sequence[Snapshot], as_of: date, label: LabelSpec, follow_days: int) -> JudgingDays:
    """The `follow_days` days from `as_of` on, as they were known when the last of their labels had matured.

    Raises `NotEnoughData` while that day lies ahead of all that is known, or when none of the days was ingested.
    """
    end = as_of + timedelta(days=follow_days)
    judged_on = max(end, end - timedelta(days=1) + timedelta(days=label.delay_days))
    known_until = compute_horizon(history)
    if known_until is None or known_until < judged_on:
        raise NotEnoughData(
            f"The {follow_days} days from {as_of} on and their labels are known on {judged_on} only, and the store "
            f"knows nothing after {known_until}: ingest them, or backfill up to an earlier day."
        )
    days = tuple(snapshot for snapshot in select_visible(history, judged_on) if as_of <= snapshot.day < end)
    if not days:
        raise NotEnoughData(f"None of the {follow_days} days from {as_of} on is known; nothing can judge this fold.")
    return JudgingDays(days, judged_on)


def has_mixed_code(folds: Iterable[Fold]) -> bool:
    """Whether the folds were made by different code, so that they compare more than the data."""
    return len({fold.code for fold in folds}) > 1
