"""The manifest: one typed, frozen document that holds every threshold of the pipeline.

DAG files read it at parse time, so it needs nothing but pydantic and yaml. Every model below forbids unknown fields: a
typo is an error with a suggestion, never a silently ignored setting. The manifest's hash goes onto every model,
blessing and release, so that a decision can always be traced to the numbers it was taken by.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from include.alerting.core import alerts
from include.data.core import row_rules
from include.kernel.errors import ManifestInvalid
from include.kernel.job import JOBS
from include.model.blessing.approval import Ask
from include.model.explanation import reason_codes

DEFAULT_PATH = Path(__file__).resolve().parent / "pipeline.yaml"

Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=0)]
Severity = Literal["critical", "warning"]
CellRule = Literal["complete", "unique", "in_range", "in_set", "matches", "known_values", "mean_shift", "mix_shift"]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class BoundedSource(Section):
    """What every source has: a bound on what one day may unfold to, so that no delivery can fill the machine."""

    max_gib: Annotated[float, Field(gt=0)] = Field(
        16.0, description="GiB the rows of one day may take in memory form; a delivery that unfolds to more is refused"
    )


class ReplaySource(BoundedSource):
    """Deals the rows of one CSV, in a seeded order, into days of the past."""

    kind: Literal["replay"]
    path: str = Field(description="one CSV of all rows; without a leading / it starts at the project")
    first_day: date = Field(description="the day the first rows are dealt to")
    days: Count = Field(description="how many days the rows are dealt into")
    seed: int = Field(0, description="the order in which rows are dealt")

    @property
    def place(self) -> str:
        return self.path


class FilesSource(BoundedSource):
    """One or more CSV or Parquet files a day on a disk."""

    kind: Literal["files"]
    path: str = Field(description="pattern holding {day}, such as data/{day}.csv or data/{day:%Y/%m/%d}/*.parquet")

    @property
    def place(self) -> str:
        return self.path

    @model_validator(mode="after")
    def _names_a_day(self) -> FilesSource:
        _check_pattern(self.path, "a files source needs {day} in its path, such as data/{day}.csv")
        return self


class S3Source(BoundedSource):
    """One or more CSV or Parquet objects a day in a bucket; endpoint, region and keys are an Airflow Connection."""

    kind: Literal["s3"]
    uri: str = Field(description="pattern holding {day}, such as s3://bucket/prefix/{day}/*.parquet")
    connect_timeout_s: Annotated[float, Field(gt=0)] = Field(5.0, description="seconds until a connection must stand")
    read_timeout_s: Annotated[float, Field(gt=0)] = Field(30.0, description="seconds without a byte of an answer")
    attempts: Count = Field(5, description="tries of one request, the first one counted; the waits grow, with jitter")

    @property
    def place(self) -> str:
        return self.uri

    @model_validator(mode="after")
    def _names_a_bucket_and_a_day(self) -> S3Source:
        if not re.match(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.", self.uri):
            raise ValueError("an s3 source needs a uri such as s3://bucket/prefix/{day}/*.parquet")
        _check_pattern(self.uri, "an s3 source needs {day} in its uri, such as s3://bucket/prefix/{day}/*.parquet")
        return self


Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$]{0,62}$")]


class PostgresSource(BoundedSource):
    """The rows of one table whose interval column lies in the day, in UTC; the server is an Airflow Connection."""

    kind: Literal["postgres"]
    table: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_$]{0,62}\.)?[A-Za-z_][A-Za-z0-9_$]{0,62}$")] = Field(
        description="table or view, such as lending.applications"
    )
    interval_column: Identifier = Field(description="date or timestamp column that says which day a row belongs to")
    columns: tuple[Identifier, ...] = Field((), description="columns that are read; empty means all of the table")
    connect_timeout_s: Annotated[int, Field(ge=2)] = Field(10, description="seconds until a connection must stand")
    statement_timeout_s: Annotated[float, Field(gt=0)] = Field(600.0, description="seconds one statement may take")
    fetch_rows: Annotated[int, Field(ge=1, le=65_536)] = Field(16_384, description="rows of one round trip")
    slices: Annotated[int, Field(ge=1, le=96)] = Field(
        1,
        description="equal spans of the day, each a query of its own, that fan_out.validation can deal out; worth it "
        "where interval_column is a time with an index",
    )

    @property
    def place(self) -> str:
        return self.table


SourceSpec = Annotated[ReplaySource | FilesSource | S3Source | PostgresSource, Field(discriminator="kind")]


def _check_pattern(pattern: str, otherwise: str) -> None:
    """Two days must be two places, and the reader must be told by the ending."""
    try:
        places = {pattern.format(day=day) for day in (date(2026, 1, 2), date(2026, 2, 1), date(2027, 1, 1))}
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(f"{pattern!r} is no pattern ({error}); {otherwise}") from error
    if len(places) < 3:
        raise ValueError(otherwise)
    if not pattern.endswith((".csv", ".parquet")):
        raise ValueError(f"{pattern!r} must end in .csv or .parquet, which says how it is read")


class LabelSpec(Section):
    column: str
    positive: str | int = Field(description="the class whose probability is served, as the data spells it")
    negative: str | int
    delay_days: Days = Field(description="days after which the outcome of an application is known")

    @property
    def kind(self) -> Literal["number", "category"]:
        """Classes that are whole numbers make a number of the label."""
        return "number" if isinstance(self.positive, int) and isinstance(self.negative, int) else "category"


class CellRules(Section):
    """What the cells of one column may hold, and which of its rules only warn."""

    min: float | None = Field(None, description="smallest number allowed")
    max: float | None = Field(None, description="largest number allowed")
    values: tuple[str, ...] = Field((), description="the only categories allowed; empty: any")
    matches: str | None = Field(None, description="regular expression that the whole cell of a category must match")
    unique: bool = Field(False, description="no value may come twice in a day")
    max_missing: Share = Field(0.0, description="share of missing values a day may have; at 0 each one is a bad row")
    severity: Severity = Field("critical", description="critical: bad cells are quarantined or refused; warning: named")
    warn_on: tuple[CellRule, ...] = Field((), description="rules of this column that only warn")

    @model_validator(mode="after")
    def _possible(self) -> CellRules:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be larger than max")
        if self.matches is not None:
            regular_expression(self.matches)
        return self


class ColumnSpec(CellRules):
    """One input column. The model is trained on exactly these columns."""

    kind: Literal["number", "category"]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ColumnSpec:
        _fits(self.kind, self)
        return self


class ExtraSpec(CellRules):
    """A column that is under contract and kept, but is no input of the model."""

    kind: Literal["number", "category", "timestamp"]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ExtraSpec:
        _fits(self.kind, self)
        return self


def _fits(kind: str, rules: CellRules) -> None:
    if kind != "number" and (rules.min is not None or rules.max is not None):
        raise ValueError(
            f"a {kind} has values, not min and max" if kind == "category" else f"a {kind} has no min and max"
        )
    if kind != "category" and (rules.values or rules.matches):
        has = "min and max, not values" if kind == "number" else "no values"
        raise ValueError(f"a {kind} has {has} or a pattern to match" if rules.matches else f"a {kind} has {has}")


def regular_expression(text: str) -> str:
    """`text` if every engine reads it alike; a cell must match it whole. Raises `ValueError` naming the trouble."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(text)
            re.compile(rf"\A(?:{text})\Z")
    except (re.error, Warning) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    foreign = re.search(
        r"(?<!\\)(?:\\\\)*(\^|\$|\\[AZ1-9]|[*+?}]\+|\(\?(?:[=!>(]|<[=!]|P=))", re.sub(r"\[\^", "[", text)
    )
    if foreign:
        raise ValueError(
            f"{foreign[1]!r} in {text!r} is not allowed: the whole cell is matched, so leave anchors, look-arounds, "
            "references and possessive repetitions out"
        )
    return text


class RowCount(Section):
    min: Count
    max: Count

    @model_validator(mode="after")
    def _possible(self) -> RowCount:
        if self.min > self.max:
            raise ValueError("min must not be larger than max")
        return self


class RowRule(Section):
    """A rule across the columns of one row, such as `Amount <= Price`."""

    check: str = Field(description="columns, numbers, texts, + - *, comparisons, and, or, not")
    severity: Severity = "critical"

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, given: Any) -> Any:
        return {"check": given} if isinstance(given, str) else given

    @field_validator("check")
    @classmethod
    def _is_understood(cls, check: str) -> str:
        row_rules.parse(check)
        return check


class EventTime(Section):
    """When a row happened. It must lie within the day that is ingested, in UTC."""

    column: str
    zone: Literal["required", "none"] = Field(
        "required", description="required: every time carries its offset or Z; none: no time does, and all are UTC"
    )
    late_hours: Annotated[float, Field(ge=0)] = Field(0.0, description="hours before the day a row may have happened")
    severity: Severity = "critical"


class ShiftBound(Section):
    """How far a day may lie from the reference, which is the newest snapshot before it; beyond that, sampling noise."""

    mean: Annotated[float, Field(gt=0)] = Field(
        description="shift of a number's mean, in reference standard deviations"
    )
    mix: Annotated[float, Field(gt=0)] = Field(
        description="Kullback-Leibler divergence of a category's shares, in nats"
    )
    z: Annotated[float, Field(ge=0)] = Field(4.0, description="standard errors of noise allowed on top of a shift")
    severity: Severity = "warning"


class ContractSpec(Section):
    id: str = Field(description="column that names a row: unique, never missing, not a model input")
    unique_days: Days = Field(0, description="other published days in which an id must not stand already; 0: none")
    rows: RowCount = Field(description="rows a day may have; fewer or more means a broken delivery")
    columns: dict[str, ColumnSpec] = Field(min_length=1, description="exactly the inputs of the model")
    extras: dict[str, ExtraSpec] = Field({}, description="columns under contract that are no inputs of the model")
    checks: tuple[RowRule, ...] = Field((), description="rules across columns; a row that misses a cell is not judged")
    event_time: EventTime | None = Field(
        None, description="the column that says when a row happened, and its zone rule"
    )
    shift: ShiftBound | None = Field(None, description="bound on how far a day may lie from the one before")
    unknown_columns: Literal["refuse", "warn"] = Field("warn", description="columns the contract does not declare")
    new_values: Literal["refuse", "warn"] = Field(
        "warn", description="values the reference did not have, in a category without listed values"
    )
    max_quarantined: Share = Field(0.0, description="share of bad rows set aside, above which the day is refused")
    data_docs: Literal["live", "always", "never"] = Field(
        "live", description="which days get a page of Data Docs (seconds each); a refused day does unless never"
    )

    @property
    def declared(self) -> dict[str, ColumnSpec | ExtraSpec]:
        """Inputs, then extras; the column of the event time is declared by its section."""
        times: dict[str, ExtraSpec] = {}
        if self.event_time and self.event_time.column not in {**self.columns, **self.extras}:
            times[self.event_time.column] = ExtraSpec(kind="timestamp")
        return {**self.columns, **self.extras, **times}

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ContractSpec:
        twice = sorted({*self.columns} & {*self.extras})
        if twice:
            raise ValueError(f"{twice[0]!r} stands under columns and under extras; keep one")
        if self.event_time and self.declared[self.event_time.column].kind != "timestamp":
            raise ValueError(f"event_time.column {self.event_time.column!r} must be declared as a timestamp")
        return self


class SearchRange(Section):
    """Where a parameter is searched. Two whole numbers search whole numbers."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="search by ratio, for what spans several powers of ten; low must be above 0")

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _can_be_searched(self) -> SearchRange:
        if self.low >= self.high:
            raise ValueError("low must be smaller than high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 when log is set")
        return self


class TuningSpec(Section):
    """The budget of a search and where it looks. Without trials the candidates' parameters are what counts."""

    trials: Annotated[int, Field(ge=0)] = Field(0, description="trials of one candidate; 0 searches nothing")
    seconds: Annotated[float, Field(gt=0)] = Field(
        120, description="seconds of one study (fan_out.tuning) after which no new trial of it starts"
    )
    pruner: Literal["median", "none"] = Field("median", description="median: gives up what is worse than half of all")
    space: dict[str, dict[str, SearchRange]] = Field({}, description="candidate -> parameter -> range")


class TrainSpec(Section):
    window_days: Count = Field(description="matured days a training looks back on")
    holdout_days: Count = Field(description="the newest days of the window: they judge and are never trained on")
    calibration_days: Days = Field(0, description="the days before the holdout: they calibrate, and are not trained on")
    entity: str | None = Field(
        None, description="column naming whom a row is about; nobody is in two parts, the later part keeps them"
    )
    min_rows: Count = Field(description="labelled rows below which no training starts")
    seed: int
    candidates: dict[str, dict[str, float | int | str]] = Field(min_length=1, description="pipeline -> its parameters")
    features: str | None = Field(None, description="optional feature function, module:function, DataFrame -> DataFrame")
    tuning: TuningSpec = TuningSpec()
    calibration: Literal["none", "sigmoid", "isotonic"] = Field(
        "sigmoid", description="map from score to probability; isotonic wants some thousand rows"
    )
    explain_rows: Annotated[int, Field(ge=0)] = Field(
        0, description="rows of a SHAP summary; 0 draws none. The import alone takes four seconds and 300 MB"
    )
    explain_background: Annotated[int, Field(ge=0, le=500)] = Field(
        0,
        description="real training rows kept in the artifact, which a network or a pipeline of your own is explained "
        "against; 0 keeps nobody's row and uses one of medians and most frequent values",
    )
    int8_tolerance: Share = Field(
        0.05, description="how far a probability of the INT8 variant of a network may lie from the network's"
    )

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> TrainSpec:
        if self.holdout_days + self.calibration_days >= self.window_days:
            raise ValueError("holdout_days and calibration_days together must be smaller than window_days")
        unknown = sorted(set(self.tuning.space) - set(self.candidates))
        if unknown:
            raise ValueError(f"tuning.space names {unknown[0]}, which is not among the candidates")
        return self


class BacktestSpec(Section):
    """A walk-forward backtest: trainings of the past, each judged by the days that followed it."""

    follow_days: Count = Field(7, description="days after a past training that judge it, as if it had served them")


class CostSpec(Section):
    """What a wrong decision costs, in any one currency; only the ratio matters."""

    false_approval: Annotated[float, Field(gt=0)]
    false_denial: Annotated[float, Field(gt=0)]


Reaction = Literal["block", "warn"]
# What may be softened. The data, the floors, the champion, the schema and the policy always block.
Soft = Literal["classic", "stability", "overfit", "calibration", "slices", "fairness", "leakage", "infra"]


class WhenSpec(Section):
    """What a check that did not pass does to the release: stop it, or stand in the report as a warning."""

    refused: Reaction = Field("block", description="when the check's answer is no")
    inconclusive: Reaction = Field("block", description="when the rows cannot tell")


class ClassicSpec(Section):
    """The four that most teams ask for, at the threshold of the costs; each interval's lower end must reach it."""

    f1_ratio: Annotated[float, Field(gt=0)] = Field(description="challenger's F1 over the champion's")
    precision: Share = Field(description="share of those called positive who are")
    specificity: Share = Field(
        description="share of the negative who are called so; with sensitivity it keeps the balance"
    )
    sensitivity: Share = Field(description="share of the positive who are called so")


class StabilitySpec(Section):
    max_fold_sd: Share = Field(description="standard deviation of the cross-validation folds' AUCs, at most")


class OverfitSpec(Section):
    max_gap: Share = Field(description="AUC on the training rows minus AUC on the holdout, at most")


class CalibrationSpec(Section):
    bins: Annotated[int, Field(ge=2, le=100)] = Field(description="equally filled bins of the score")
    max_error: Share = Field(description="expected calibration error, corrected for noise, at most")


class SliceSpec(Section):
    """Judged for each slice of `groups`: against the champion, or against the floor for the first model."""

    min_rows: Count = Field(description="rows below which a slice has no verdict")
    min_class_rows: Annotated[int, Field(ge=2)] = Field(description="the same for the rows of each class")
    auc_margin: Share = Field(description="AUC a slice may lose against the champion")
    floor_auc: Share = Field(description="AUC of a slice of the first model, at least")


class FairnessSpec(Section):
    """Over the groups of each protected column, by fairlearn's definitions."""

    favourable: Literal["positive", "negative"] = Field(description="the decision people hope for")
    min_rows: Count = Field(description="rows of the favourable class below which a group is left out")
    parity_ratio: Share = Field(description="lowest over highest rate of favourable decisions (four-fifths rule)")
    opportunity_difference: Share = Field(description="spread of that rate among those who deserve it, at most")


class LeakageSpec(Section):
    max_auc: Share = Field(description="AUC of any single input above which it is taken for the label in disguise")


class InfraSpec(Section):
    """What the artifact may cost where it is served."""

    parity: Annotated[float, Field(gt=0)] = Field(
        description="golden rows, served minus trained probability, at most; a network declares 1e-5 of itself"
    )
    max_p99_ms: Annotated[float, Field(gt=0)] = Field(description="99th percentile of one row's time, milliseconds")
    max_rss_mb: Annotated[float, Field(gt=0)] = Field(description="resident memory of the server, MiB")
    max_size_mb: Annotated[float, Field(gt=0)] = Field(description="the artifact's files, MiB")
    explain: bool = Field(
        False, description="the golden rows must be explained too; trees and networks then cost some seconds more"
    )


class GateSpec(Section):
    """A section that is left out, or null, switches its checks off; the report then has no line of them."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(description="of every interval, two-sided")
    resamples: Annotated[int, Field(ge=200)] = Field(description="bootstrap resamples")
    seed: int
    min_rows: Count = Field(description="holdout rows below which the verdict is inconclusive")
    floor_auc: Share = Field(description="the AUC interval's lower end must reach it")
    floor_ap: Share | None = Field(None, description="the same for average precision")
    floor_f1: Share | None = Field(None, description="the same for F1 at the costs' threshold")
    auc_margin: Share = Field(description="AUC a challenger may lose against the champion (non-inferiority)")
    superiority: Literal["cost", "brier", "auc"] = Field(description="what a challenger must be better at")
    cost: CostSpec
    classic: ClassicSpec | None = None
    stability: StabilitySpec | None = None
    overfit: OverfitSpec | None = None
    calibration: CalibrationSpec | None = None
    slices: SliceSpec | None = None
    fairness: FairnessSpec | None = None
    leakage: LeakageSpec | None = None
    infra: InfraSpec | None = None
    policy: str | None = Field(None, description="a Rego file that may add denials; a path from the project")
    approval: Ask = Field("never", description="when a person is asked: never, on an inconclusive gate, or always")
    approval_hours: Annotated[float, Field(gt=0)] = Field(
        24, description="hours a person has to answer; no answer fails the training's run"
    )
    when: dict[Soft, WhenSpec] = Field(default_factory=dict, description="what blocks and what warns; unnamed blocks")

    @property
    def threshold(self) -> float:
        """The probability of the positive class from which a denial is cheaper (Elkan 2001, eq. 2)."""
        return self.cost.false_denial / (self.cost.false_denial + self.cost.false_approval)


class GroupsSpec(Section):
    """Whom the gate looks at apart. Columns of the contract; a number is cut into bands."""

    business: tuple[str, ...] = Field((), description="slices that must not get worse")
    protected: tuple[str, ...] = Field((), description="slices that must not get worse, and be treated alike")
    bands: dict[str, tuple[float, ...]] = Field(default_factory=dict, description="number -> rising inner cuts")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.business, *self.protected)))

    @model_validator(mode="after")
    def _rising(self) -> GroupsSpec:
        for column, cuts in self.bands.items():
            if not cuts or any(low >= high for low, high in pairwise(cuts)):
                raise ValueError(f"bands.{column} must hold rising cuts, such as [30, 45]")
        return self


class CardSpec(Section):
    """What a model card says that no measurement can: plain sentences, by the people who answer for the model."""

    intended_use: str = Field("", description="what the model decides or advises, about whom, for whom")
    out_of_scope: str = Field("", description="uses that nobody has checked, or that are wrong")
    limits: tuple[str, ...] = Field((), description="what a user should know before trusting a number")
    contact: str = Field("", description="whom to write to")


class BreakerSpec(Section):
    """When the model is no longer asked because it fails, and when it is tried again."""

    failures: Count = Field(5, description="failed model calls in a row that open the breaker")
    reset_s: Annotated[float, Field(gt=0)] = Field(10, description="seconds until one request tries the model again")


class RuleSpec(Section):
    """The same answer for everybody: for a lender, the probability that sends each application to an officer."""

    rule: Annotated[float, Field(ge=0, le=1)] = Field(description="probability answered in the model's place")


class RateLimit(Section):
    """For each API token by itself."""

    per_second: Annotated[float, Field(gt=0)] = Field(description="requests a second, on average")
    burst: Count = Field(description="requests at once, after a pause")


class LogSpec(Section):
    """The prediction log: Parquet segments in the snapshot store, written beside the predictions."""

    enabled: bool = Field(True, description="without EVERGREEN_STORE or EVERGREEN_SNAPSHOTS there is no log either")
    sample: Share = Field(1.0, description="share of requests that are logged, chosen by their id")
    rows_per_segment: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        50_000, description="rows after which a segment is written; a row takes about 200 bytes of memory until then"
    )
    flush_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds after which a segment is written though it has fewer rows"
    )
    buffer_rows: Count = Field(
        100_000, description="rows that wait in memory at most; further ones are lost and counted"
    )
    keep_days: Days = Field(0, description="days after which records are deleted; 0 keeps them")
    drop: tuple[str, ...] = Field((), description="inputs, or the id, that are never written")
    hash: tuple[str, ...] = Field((), description="inputs, or the id, written as HMAC-SHA256 under EVERGREEN_LOG_KEY")

    @model_validator(mode="after")
    def _possible(self) -> LogSpec:
        both = sorted({*self.drop} & {*self.hash})
        if both:
            raise ValueError(f"{both[0]!r} stands under drop and under hash; keep one")
        if self.rows_per_segment > self.buffer_rows:
            raise ValueError("rows_per_segment must not be larger than buffer_rows")
        return self


class ReasonSpec(Section):
    """What people are told when this column moved the risk; without it, code and sentence come from its name."""

    code: Annotated[str, Field(pattern=r"^\w[\w.-]{0,63}$")] | None = Field(
        None, description="stable name of the reason"
    )
    text: str | None = Field(None, description="the sentence when the column raised the risk")
    lowered: str | None = Field(None, description="the sentence when it lowered the risk")


class ExplainSpec(Section):
    """/predict-and-explain. A linear model is explained by the server itself, others by a process of their own."""

    start: Literal["lazy", "ready", "off"] = Field(
        "lazy", description="when that process starts: with the first question, with the server, never; it takes 300 MB"
    )
    queue_rows: Count = Field(512, description="rows waiting to be explained; beyond them, 503 + Retry-After")
    max_rows: Count = Field(100, description="rows of one request; trees take 0.2 ms each, a forest of 200 about 20")
    top_reasons: Annotated[int, Field(ge=0)] = Field(4, description="reasons told of each direction, at most")
    adverse: Literal["positive", "negative"] = Field("positive", description="the class nobody hopes for")


class ObjectivesSpec(Section):
    """What callers of the model server are promised; alerts are held against these numbers."""

    availability: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.999, description="share of predictions answered without a 5xx, over 30 days"
    )
    error_rate: Share = Field(0.01, description="share of 5xx over five minutes, at most")
    p95_ms: Annotated[float, Field(gt=0)] = Field(
        100, description="95th percentile of a prediction over five minutes, milliseconds, at most"
    )
    p99_ms: Annotated[float, Field(gt=0)] = Field(250, description="the same of the 99th")


class ServingSpec(Section):
    """How a release is tried, and how the model server behaves; a server without a manifest has these defaults."""

    smoke_rows: Count = Field(20, description="golden rows asked of a staged release")
    parity: Annotated[float, Field(gt=0)] = Field(1e-6, description="served minus expected probability, at most")
    max_latency_ms: Annotated[float, Field(gt=0)] = Field(500, description="slowest smoke request, milliseconds")
    ready_timeout_s: Annotated[float, Field(gt=0)] = Field(45, description="seconds a staged slot has to become ready")
    deadline_ms: Count = Field(4000, description="milliseconds to an answer or a 504; below the proxy's 5 s a try")
    queue_rows: Count = Field(1024, description="rows accepted and not yet answered; beyond them, 503 + Retry-After")
    batch_rows: Count = Field(256, description="rows of several requests scored in one call of the model, at most")
    read_timeout_s: Annotated[float, Field(gt=0)] = Field(
        8, description="seconds a caller has to send a request, and to take its answer"
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        1, description="seconds requests are still accepted after SIGTERM; Envoy looks at /ready every half second"
    )
    breaker: BreakerSpec = BreakerSpec()
    fallback: Literal["none", "previous"] | RuleSpec = Field(
        "none", description="who answers when the model fails: nobody (503), the version before, or {rule: 0.5}"
    )
    version_skew: Literal["refuse", "warn"] = Field(
        "refuse", description="a pipeline fitted by another minor version of scikit-learn than the server's"
    )
    cache_rows: Annotated[int, Field(ge=0)] = Field(0, description="answers kept for rows asked again; 0 is off")
    request_log: Share = Field(0.0, description="share of good answers that leave a line; failed ones always do")
    logged_features: tuple[str, ...] = Field((), description="columns whose values those lines may hold; none else")
    rate_limit: RateLimit | None = Field(None, description="beyond it an API token is answered 429 + Retry-After")
    explain: ExplainSpec = ExplainSpec()
    objectives: ObjectivesSpec = ObjectivesSpec()
    reasons: dict[str, ReasonSpec] = Field({}, description="column of the contract -> its reason code and sentences")
    log: LogSpec = LogSpec()


class BoundsSpec(Section):
    """Shares of requests, 0 to 1: candidate minus stable slot."""

    tolerated: Annotated[float, Field(ge=0, lt=1)] = Field(description="a difference up to this is nobody's fault")
    limit: Annotated[float, Field(gt=0, lt=1)] = Field(description="proven to be smaller, the candidate is good enough")

    @model_validator(mode="after")
    def _apart(self) -> BoundsSpec:
        if self.tolerated >= self.limit:
            raise ValueError("tolerated must lie below limit, or nothing could ever be decided")
        return self


class CanarySpec(Section):
    """The candidate beside the stable slot, on live requests. What the numbers mean: include/release/core/canary.py."""

    weights: Annotated[tuple[Annotated[int, Field(ge=1, le=99)], ...], Field(min_length=1)] = Field(
        (5, 25, 50), description="per cent of the requests the candidate gets, one after the other"
    )
    min_requests: Count = Field(200, description="answered by the candidate at each weight")
    false_abort: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.01, description="chance that a release as good as the stable one is ended, over a whole canary"
    )
    false_pass: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="chance that one question is passed by a release beyond its limit"
    )
    look_s: Annotated[float, Field(gt=0)] = Field(2.0, description="seconds between two looks at the counters")
    looks: Count = Field(300, description="looks at one weight; undecided after them, the release is taken back")
    errors: BoundsSpec = BoundsSpec(tolerated=0.0, limit=0.01)
    latency: BoundsSpec = Field(
        BoundsSpec(tolerated=0.0, limit=0.1), description="answers slower than 1.25 times the stable slot's"
    )
    scores: BoundsSpec = Field(BoundsSpec(tolerated=0.05, limit=0.15), description="above any twentieth of 0 to 1")
    decisions: BoundsSpec = Field(BoundsSpec(tolerated=0.03, limit=0.1), description="rate of the positive label")

    @model_validator(mode="after")
    def _rising(self) -> CanarySpec:
        if any(low >= high for low, high in pairwise(self.weights)):
            raise ValueError("weights must rise, such as [5, 25, 50]")
        return self


class ShadowSpec(Section):
    """Copies of the live requests for the candidate, whose answers nobody gets. See include/release/core/shadow.py."""

    enabled: bool | None = Field(None, description="null: before a canary, and not in a blue-green release")
    min_requests: Count = Field(200, description="requests compared; the verdict falls once there are so many")
    look_s: Annotated[float, Field(gt=0)] = Field(1.0, description="seconds between two looks at both slots' answers")
    deadline_s: Annotated[float, Field(gt=0)] = Field(
        600, description="seconds of looks; a release that has too few requests by then is taken back"
    )
    max_errors: Share = Field(0.01, description="share of the requests only the live slot answered, at most")
    max_flips: Share = Field(0.25, description="share of the rows decided otherwise, at most")
    max_score_delta: Share = Field(0.15, description="mean distance of a row's two scores, at most")
    max_latency_ratio: Annotated[float, Field(ge=1)] = Field(
        2.5, description="90th percentile of the candidate over the live slot's, at most; both share the machine"
    )
    slice_rows: Count = Field(50, description="rows below which a slice of groups has no verdict")
    slice_flips: Share = Field(0.4, description="share of a slice's rows decided otherwise, at most")

    @property
    def looks(self) -> int:
        """Looks and not seconds are counted: a run that was away must not end anybody's patience."""
        return max(1, math.ceil(self.deadline_s / self.look_s))


class ExperimentSpec(Section):
    """Two versions beside each other until the outcomes decide. See include/release/core/experiment.py."""

    version: str | None = Field(
        None, description="the version whose deployment is an experiment; null: where the form of deploy says so"
    )
    share: Annotated[int, Field(ge=1, le=99)] = Field(50, description="per cent of the callers the challenger answers")
    metric: Literal["cost", "errors", "positive", "negative"] = Field(
        "cost", description="mean loss of a caller: cost of the decision, missed outcomes, or outcomes of one class"
    )
    min_outcomes: Count = Field(200, description="callers with an outcome, of each version, before one can be promoted")
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        0.05, description="chance that the interval of the lift is wrong at any look; half of it, that it promotes"
    )
    look_s: Annotated[float, Field(gt=0)] = Field(60.0, description="seconds between two looks at the outcomes")
    deadline_days: Annotated[float, Field(gt=0)] = Field(
        14, description="days of looks; a challenger that is not proven better by then is discarded"
    )

    @property
    def looks(self) -> int:
        """Looks and not days are counted: a run that was away must not end anybody's patience."""
        return max(1, math.ceil(self.deadline_days * 86_400 / self.look_s))


class ReleaseSpec(Section):
    strategy: Literal["blue_green", "canary"] = Field(
        "blue_green", description="canary: rising shares of the live requests before all of them"
    )
    shadow: ShadowSpec = ShadowSpec()
    soak_s: Annotated[float, Field(ge=0)] = Field(description="seconds a new live release is watched")
    soak_interval_s: Annotated[float, Field(gt=0)] = Field(description="seconds between two probes while soaking")
    max_soak_failures: Annotated[int, Field(ge=0)] = Field(description="failed probes a soak survives")
    approval: Literal["never", "before_switch"] = Field(
        "never", description="before_switch: a person says yes before a deployment gets all requests"
    )
    approval_hours: Annotated[float, Field(gt=0)] = Field(24.0, description="how long the question stays open")
    silence: Literal["refuse", "switch"] = Field("refuse", description="what no answer within them means")
    abandoned_s: Annotated[float, Field(gt=0)] = Field(
        900.0, description="seconds without a look after which nobody is taken to follow a release that has not ended"
    )
    settle_s: Annotated[float, Field(ge=0)] = Field(
        120.0, description="seconds after a release's last look in which reconcile leaves the rest to its own run"
    )
    canary: CanarySpec = CanarySpec()

    @property
    def has_shadow(self) -> bool:
        return self.strategy == "canary" if self.shadow.enabled is None else self.shadow.enabled


class Persistence(Section):
    k: Count
    n: Count

    @model_validator(mode="after")
    def _possible(self) -> Persistence:
        if self.k > self.n:
            raise ValueError("k must not be larger than n")
        return self


class QualitySpec(Section):
    """By how much a share must have risen since the baseline to be worth a warning; chance is excluded apart."""

    missing: Share = Field(0.05, description="rise of the share of missing values of a column")
    out_of_range: Share = Field(0.02, description="rise of the share outside of all values of the baseline")
    outliers: Share = Field(0.02, description="rise of the share 3 interquartile ranges beyond the quartiles")
    new_categories: Share = Field(0.01, description="rise of the share of categories the baseline never saw")
    correlation: Share = Field(0.3, description="change of the rank correlation of two columns")


class PredictionDriftSpec(Section):
    psi: Annotated[float, Field(gt=0)] = Field(0.2, description="population stability index of the scores; critical")
    mean_shift: Share = Field(0.03, description="change of the mean score, in probability; 0.03 is three points")
    decision_rate: Share = Field(0.05, description="change of the share decided as positive")


class LabelDriftSpec(Section):
    rate: Share = Field(0.2, description="change of the positive label's rate, relative to the baseline's")
    calibration_error: Share = Field(0.1, description="expected calibration error on matured rows, noise taken away")


class PerformanceSpec(Section):
    """How far the live model may fall behind its own holdout; chance is excluded apart."""

    drop: Share = Field(0.05, description="fall of accuracy, or of a class's recall; rise of the error in three days")
    spike: Annotated[float, Field(ge=1)] = Field(1.5, description="the newest day's errors over those before it")
    concept_delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.002, description="ADWIN: chance of a false cut in days that did not change"
    )
    concept_days: Count = Field(60, description="matured days since the holdout that ADWIN and DDM look back on")
    concept_rise: Share = Field(0.03, description="rise of the error that such a cut must show to matter")
    estimate_gap: Share = Field(0.05, description="distance of the estimated accuracy from the true one")


class MonitorSpec(Section):
    schedule: str
    window_days: Count = Field(description="ingested days in one window")
    min_rows: Count = Field(description="rows below which a window says 'not enough data'")
    bins: Annotated[int, Field(ge=2, le=100)] = Field(description="quantile bins of a numeric profile")
    psi: Annotated[float, Field(gt=0)] = Field(description="population stability index a feature must reach to count")
    psi_warning: Annotated[float, Field(gt=0)] = Field(
        0.1, description="from which index on a feature is worth a warning"
    )
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="false-alarm budget of each check in one healthy window: its false-discovery rate"
    )
    persistence: Persistence
    predictions: PredictionDriftSpec = PredictionDriftSpec()
    labels: LabelDriftSpec = LabelDriftSpec()
    performance: PerformanceSpec = PerformanceSpec()
    quality: QualitySpec = QualitySpec()
    watch_minutes: Annotated[float, Field(gt=0)] = Field(description="how long one watch run looks for an alarm")


class RetrainingSpec(Section):
    schedule: str
    cooldown_days: Days = Field(description="data days between two trainings")
    min_new_labels: Count = Field(description="labelled rows the last training has not seen")
    wait_for_labels_days: Days = Field(description="data days a drift waits for those labels")
    max_age_days: Count = Field(60, description="data days after which fewer new labelled rows will do")
    monthly_budget: Count = Field(
        6, description="trainings approved in one calendar month of data days; those a person asked for do not count"
    )
    breaker_refusals: Count = Field(2, description="gates refused in a row, after which no training is approved")
    breaker_days: Count = Field(14, description="data days after the last of them until one training is tried again")


class AlertsSpec(Section):
    """Whom to tell is an Airflow Connection; this says what is worth telling there."""

    runbook: str = Field("docs/runbook.md", description="its address; an alert links to a section of it")
    slack: alerts.Severity = Field(alerts.Severity.INFO, description="the lowest severity Slack is told of")
    pagerduty: alerts.Severity = Field(alerts.Severity.CRITICAL, description="the lowest severity PagerDuty is told of")
    email: alerts.Severity = Field(alerts.Severity.WARNING, description="the lowest severity that is mailed")
    timeout_s: Annotated[float, Field(gt=0, le=30)] = Field(3.0, description="seconds one channel may take")
    keep_trying_hours: Annotated[float, Field(gt=0)] = Field(
        24.0, description="hours after which an alert that a channel did not take is given up"
    )


class Resources(Section):
    cpu: str
    memory: str
    extra: dict[str, str] = Field({}, description="further resources by their name, such as nvidia.com/gpu: '1'")


class Toleration(Section):
    """As Kubernetes spells it: a taint of a node that a pod does not mind."""

    key: str
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="none: every effect"
    )


class Placement(Section):
    """Which image a job's pod runs, and on which nodes."""

    image: str | None = Field(None, description="instead of jobs.image")
    node_selector: dict[str, str] = Field({}, description="labels a node must have")
    tolerations: tuple[Toleration, ...] = Field((), description="taints of nodes that do not keep the pod away")
    priority_class: str | None = Field(None, description="PriorityClass of the pod")
    secrets: tuple[str, ...] = Field((), description="Secrets whose keys become variables of the job, by their names")
    timeout_minutes: Count | None = Field(None, description="instead of jobs.timeout_minutes")


class JobsSpec(Section):
    """What a job may use. Everything but the time and the tries concerns pods alone."""

    image: str
    namespace: str
    timeout_minutes: Count = Field(60, description="minutes after which a job is killed")
    late_minutes: Count = Field(
        180, description="minutes after it was queued at which people are told that a run has not ended"
    )
    resources: dict[str, Resources] = Field(description="job name (or default) -> requests and limits")
    per_job: dict[str, Placement] = Field({}, description="job name (or default) -> image, nodes, secrets, time")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="Never: images are put onto the nodes by hand"
    )
    image_pull_secrets: tuple[str, ...] = Field((), description="Secrets that open the registry")
    service_account: str = Field("evergreen-job", description="account of the pods; it may do nothing")
    store_claim: str | None = Field(
        None, description="PersistentVolumeClaim mounted at /store; none where EVERGREEN_SNAPSHOTS is a bucket"
    )
    start_minutes: Count = Field(10, description="minutes a pod may wait for a node and for its start")
    pull_minutes: Count = Field(3, description="minutes after which an image that cannot be pulled is given up")
    keep_hours: Count = Field(48, description="hours a pod that failed stays to be looked at")

    def resources_of(self, job: str) -> Resources:
        return self.resources.get(job, self.resources["default"])

    def placement_of(self, job: str) -> Placement:
        """What a job says of its own; what it leaves out is said by `default`."""
        general, own = self.per_job.get("default", Placement()), self.per_job.get(job, Placement())
        return general.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})

    def minutes_of(self, job: str) -> int:
        return self.placement_of(job).timeout_minutes or self.timeout_minutes

    @model_validator(mode="after")
    def _has_default(self) -> JobsSpec:
        if "default" not in self.resources:
            raise ValueError("resources needs a 'default' entry")
        for name in sorted({*self.resources} - {*JOBS, "default"}):
            near = difflib.get_close_matches(name, JOBS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(JOBS)}"
            raise ValueError(f"resources names {name!r}, which is no job; {hint}")
        return self


class FanOutSpec(Section):
    """Over how many tasks at once the work of one job is spread: processes on one machine, pods on a cluster.

    With 1 a DAG has no task for it. What a task did not get to, the job itself does, so only time depends on them.
    """

    tuning: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="studies a candidate's trials are dealt to, searched at once; each knows its own trials alone, so "
        "another number finds other parameters. At most train.tuning.trials are made",
    )
    validation: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="tasks that read and check a day's files, or slices of a table, at once before `ingest`"
    )
    profiles: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="tasks that measure the days of the monitor's windows at once"
    )
    keep_days: Count = Field(
        90, description="days of data after which what was made for a day is removed; asked for again, it is made again"
    )


class ClusterSpec(Section):
    """The Kubernetes API server: how patiently it is asked."""

    attempts: Count = Field(6, description="tries of one request, the first one counted")
    timeout_s: Annotated[float, Field(gt=0)] = Field(10.0, description="seconds until a connection, and an answer")
    longest_wait_s: Annotated[float, Field(gt=0)] = Field(
        15.0, description="seconds between two tries at most, also where the server asks for more (Retry-After)"
    )
    watch_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds one watch lasts; then the pod is read anew, so no lost event can go unnoticed"
    )
    replicas: Count = Field(2, description="pods of a slot, so that one may die")
    gateway: str | None = Field(None, description="HTTPRoute that is the route; none: the selector of a Service is")
    virtual_service: str | None = Field(None, description="Istio's VirtualService that is the route, in its place")

    @property
    def can_split(self) -> bool:
        """Whether the route has weights and mirrors."""
        return bool(self.gateway or self.virtual_service)

    @model_validator(mode="after")
    def _has_one_route(self) -> ClusterSpec:
        if self.gateway and self.virtual_service:
            raise ValueError("gateway and virtual_service name two routes, and one object must be the record; keep one")
        return self


class Manifest(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    owner: str
    target: Literal["local", "kubernetes"]
    source: SourceSpec
    label: LabelSpec
    contract: ContractSpec
    train: TrainSpec
    groups: GroupsSpec = Field(default_factory=GroupsSpec)
    backtest: BacktestSpec = Field(default_factory=BacktestSpec)
    gate: GateSpec
    card: CardSpec = Field(default_factory=CardSpec)
    serving: ServingSpec
    release: ReleaseSpec
    experiment: ExperimentSpec | None = Field(
        None, description="how an experiment is done; null: nobody can ask for one"
    )
    monitor: MonitorSpec
    retraining: RetrainingSpec
    alerts: AlertsSpec = AlertsSpec()
    jobs: JobsSpec
    fan_out: FanOutSpec = Field(default_factory=FanOutSpec)
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)

    @property
    def studies(self) -> int:
        """How many studies each candidate that is searched is dealt to; 0 where none is."""
        spec = self.train.tuning
        return min(self.fan_out.tuning, spec.trials) if any(spec.space.values()) else 0

    @model_validator(mode="after")
    def _experiments_are_followed(self) -> Manifest:
        if self.experiment and self.experiment.look_s >= self.release.abandoned_s:
            raise ValueError(
                "experiment.look_s must be smaller than release.abandoned_s, or nobody would be taken to follow it"
            )
        return self

    @model_validator(mode="after")
    def _route_can_do_what_releases_ask(self) -> Manifest:
        if self.target != "kubernetes":
            return self
        if not self.cluster.can_split and (self.release.strategy == "canary" or self.release.has_shadow):
            raise ValueError(
                "release asks for shares or copies of the requests, which the Service of target kubernetes cannot "
                "give; install the Gateway API and set cluster.gateway, or Istio and cluster.virtual_service, or set "
                "release.strategy: blue_green and release.shadow.enabled: false"
            )
        if self.experiment:
            raise ValueError(
                "experiment deals callers by their key, which no route of target kubernetes does; remove it, "
                "or set target: local"
            )
        if self.release.has_shadow and self.cluster.replicas > 1:
            raise ValueError(
                "release.shadow compares the answers of one process with those of one other; set cluster.replicas: 1, "
                "or release.shadow.enabled: false"
            )
        return self

    @model_validator(mode="after")
    def _label_is_no_input(self) -> Manifest:
        if self.contract.id in self.contract.columns:
            raise ValueError(f"contract.columns must not hold the id column {self.contract.id!r}")
        if self.label.positive == self.label.negative:
            raise ValueError("label.positive and label.negative must differ")
        if self.label.column in self.contract.columns:
            raise ValueError(f"contract.columns must not hold the label column {self.label.column!r}")
        return self

    @model_validator(mode="after")
    def _groups_can_be_told_apart(self) -> Manifest:
        for name in self.groups.columns:
            if name not in self.contract.columns:
                near = difflib.get_close_matches(name, self.contract.columns, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"groups names {name!r}, which contract.columns does not have{hint}")
            if self.contract.columns[name].kind == "number" and name not in self.groups.bands:
                raise ValueError(
                    f"groups names the number {name!r}; add its cuts, such as groups.bands.{name}: [30, 45]"
                )
        return self

    @model_validator(mode="after")
    def _log_hides_what_there_is(self) -> Manifest:
        """A typo here would write what should be hidden."""
        known = [*self.contract.columns, self.contract.id]
        for field, names in (("drop", self.serving.log.drop), ("hash", self.serving.log.hash)):
            for name in (name for name in names if name not in known):
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"serving.log.{field} names {name!r}, which is no input and not the id{hint}")
        return self

    @model_validator(mode="after")
    def _reasons_can_be_told_apart(self) -> Manifest:
        for name in self.serving.reasons:
            if name not in self.contract.columns:
                raise ValueError(f"serving.reasons names {name!r}, which contract.columns does not have")
        codes: dict[str, str] = {}
        for name in self.contract.columns:
            own = self.serving.reasons.get(name)
            code = own.code if own and own.code else reason_codes.default_code(name)
            if code in codes:
                raise ValueError(
                    f"serving.reasons gives {codes[code]!r} and {name!r} the code {code!r}; set serving.reasons."
                    f"{name}.code to another one"
                )
            codes[code] = name
        return self

    @model_validator(mode="after")
    def _checks_name_declared_columns(self) -> Manifest:
        for taken in {self.contract.id, self.label.column} & {*self.contract.declared}:
            raise ValueError(f"contract.extras and contract.event_time must not name the id or label column {taken!r}")
        kinds = {name: str(spec.kind) for name, spec in self.contract.declared.items()}
        kinds |= {self.contract.id: "category", self.label.column: self.label.kind}
        for rule in self.contract.checks:
            try:
                row_rules.check_kinds(row_rules.parse(rule.check), kinds)
            except ValueError as error:
                raise ValueError(f"contract.checks: {error}, as in {rule.check!r}") from error
        return self

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON: comments and order in the file do not change it."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def parse(text: str, place: str = "the manifest") -> Manifest:
    """Raises `ManifestInvalid`: one sentence that names the field, the place and the nearest known field."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ManifestInvalid(f"{place} is not valid YAML: {_one_line(error)}; fix the syntax there.") from error
    if not isinstance(content, dict):
        raise ManifestInvalid(f"{place} must be a mapping of sections, but it holds {type(content).__name__}.")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ManifestInvalid(f"{place}: {_explain(error)}") from error


@lru_cache(maxsize=8)
def _load(path: Path, _stamp: int) -> Manifest:
    return parse(path.read_text(), str(path))


def load(path: Path | str = DEFAULT_PATH) -> Manifest:
    """The manifest at `path`, read once per version of the file. Raises `ManifestInvalid`."""
    path = Path(path)
    if not path.is_file():
        raise ManifestInvalid(f"There is no manifest at {path}; set EVERGREEN_MANIFEST to the right file.")
    return _load(path, path.stat().st_mtime_ns)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _explain(error: ValidationError) -> str:
    return " ".join(_sentence(problem) for problem in error.errors(include_url=False))


def _sentence(problem: Any) -> str:
    loc, section = _walk(problem["loc"])
    field = ".".join(loc) or "the document"
    if problem["type"] == "extra_forbidden":
        return f"{field} is not a known setting{_nearest(loc[-1], section) or '; remove it.'}"
    if problem["type"] == "union_tag_invalid":
        tag, known = problem["ctx"]["tag"], re.findall(r"'([^']*)'", problem["ctx"]["expected_tags"])
        return f"{field}.kind: {tag!r} is not known{_nearest(tag, known) or ';'} choose one of {', '.join(known)}."
    if problem["type"] == "union_tag_not_found":
        return f"{field}.kind is missing; add it."
    if problem["type"] == "missing":
        return f"{field} is missing; add it."
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}."


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _walk(loc: tuple[str | int, ...]) -> tuple[list[str], list[str]]:
    """The place as the file spells it, and the settings of the section its last part stands in.

    Where the section is one of several by `kind`, pydantic puts the kind into the place; no file has it there. What
    another section knows is no suggestion.
    """
    place: list[str] = []
    annotation: Any = Manifest
    settings: list[str] = []
    for part in map(str, loc):
        if part in (kinds := _by_kind(annotation)):
            annotation = kinds[part]
            continue
        place.append(part)
        settings = list(getattr(annotation, "model_fields", {}))
        annotation = _inside(annotation, part)
    return place, settings


def _inside(annotation: Any, part: str) -> Any:
    """The type of what stands under `part`: a section's field, a mapping's value or a list's element."""
    if hasattr(annotation, "model_fields"):
        return _bare(annotation.model_fields[part].annotation) if part in annotation.model_fields else None
    choices = [choice for choice in get_args(annotation) if choice is not Ellipsis]
    return _bare(choices[-1]) if choices else None


def _bare(annotation: Any) -> Any:
    """The section itself where it may be null as well."""
    choices = get_args(annotation)
    return choices[0] if len(choices) == 2 and choices[1] is NoneType else annotation


def _by_kind(annotation: Any) -> dict[str, Any]:
    """The members of a union of sections, by their kind; empty for any other type."""
    if get_origin(annotation) not in (Union, UnionType):
        return {}
    members = [member for member in get_args(annotation) if "kind" in getattr(member, "model_fields", {})]
    return {kind: member for member in members for kind in get_args(member.model_fields["kind"].annotation)}
