"""The manifest's sections about data: where it comes from, what it may look like, which days a training knows."""

from __future__ import annotations

import re
import warnings
from datetime import date
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from include.data import row_rules
from include.kernel.spec import BaseManifest, Count, Days, Section, Severity, Share

CellRule = Literal["complete", "unique", "in_range", "in_set", "matches", "known_values", "mean_shift", "mix_shift"]


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
    def _check_day_pattern(self) -> FilesSource:
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
    def _check_uri(self) -> S3Source:
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

    @model_validator(mode="before")
    @classmethod
    def _spell_booleans(cls, given: Any) -> Any:
        """Two booleans are the classes of a boolean column; one beside a word is a word that YAML took for one."""
        if not isinstance(given, dict):
            return given
        booleans = [name for name in ("positive", "negative") if isinstance(given.get(name), bool)]
        if len(booleans) == 1:
            raise ValueError(
                f"{booleans[0]} is a boolean, for YAML takes yes, no, on and off for one; put the word in quotes, "
                f'such as {booleans[0]}: "no"'
            )
        return {**given, **{name: str(given[name]).lower() for name in booleans}}

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
    def _check_bounds(self) -> CellRules:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be larger than max")
        if self.matches is not None:
            check_regular_expression(self.matches)
        return self


class ColumnSpec(CellRules):
    """One input column. The model is trained on exactly these columns."""

    kind: Literal["number", "category"]

    @model_validator(mode="after")
    def _check_kind(self) -> ColumnSpec:
        _check_kind_rules(self.kind, self)
        return self


class ExtraSpec(CellRules):
    """A column that is under contract and kept, but is no input of the model."""

    kind: Literal["number", "category", "timestamp"]

    @model_validator(mode="after")
    def _check_kind(self) -> ExtraSpec:
        _check_kind_rules(self.kind, self)
        return self


def _check_kind_rules(kind: str, rules: CellRules) -> None:
    if kind != "number" and (rules.min is not None or rules.max is not None):
        raise ValueError(
            f"a {kind} has values, not min and max" if kind == "category" else f"a {kind} has no min and max"
        )
    if kind != "category" and (rules.values or rules.matches):
        has = "min and max, not values" if kind == "number" else "no values"
        raise ValueError(f"a {kind} has {has} or a pattern to match" if rules.matches else f"a {kind} has {has}")


def check_regular_expression(text: str) -> str:
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
    def _check_bounds(self) -> RowCount:
        if self.min > self.max:
            raise ValueError("min must not be larger than max")
        return self


class RowRule(Section):
    """A rule across the columns of one row, such as `Amount <= Price`."""

    check: str = Field(description="columns, numbers, texts, + - *, comparisons, and, or, not")
    severity: Severity = "critical"

    @model_validator(mode="before")
    @classmethod
    def _expand_short_form(cls, given: Any) -> Any:
        return {"check": given} if isinstance(given, str) else given

    @field_validator("check")
    @classmethod
    def _check_rule(cls, check: str) -> str:
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
    def _check_declarations(self) -> ContractSpec:
        twice = sorted({*self.columns} & {*self.extras})
        if twice:
            raise ValueError(f"{twice[0]!r} stands under columns and under extras; keep one")
        if self.event_time and self.declared[self.event_time.column].kind != "timestamp":
            raise ValueError(f"event_time.column {self.event_time.column!r} must be declared as a timestamp")
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


class WindowSpec(Section):
    """Which days a training may know, and how they are dealt to its parts."""

    window_days: Count = Field(description="matured days a training looks back on")
    holdout_days: Count = Field(description="the newest days of the window: they judge and are never trained on")
    calibration_days: Days = Field(0, description="the days before the holdout: they calibrate, and are not trained on")
    entity: str | None = Field(
        None, description="column naming whom a row is about; nobody is in two parts, the later part keeps them"
    )
    min_rows: Count = Field(description="labelled rows below which no training starts")

    @model_validator(mode="after")
    def _check_window(self) -> WindowSpec:
        if self.holdout_days + self.calibration_days >= self.window_days:
            raise ValueError("holdout_days and calibration_days together must be smaller than window_days")
        return self


class GroupsSpec(Section):
    """Whom the gate looks at apart. Columns of the contract; a number is cut into bands."""

    business: tuple[str, ...] = Field((), description="slices that must not get worse")
    protected: tuple[str, ...] = Field((), description="slices that must not get worse, and be treated alike")
    bands: dict[str, tuple[float, ...]] = Field(default_factory=dict, description="number -> rising inner cuts")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.business, *self.protected)))

    @model_validator(mode="after")
    def _check_cuts(self) -> GroupsSpec:
        for column, cuts in self.bands.items():
            if not cuts or any(low >= high for low, high in pairwise(cuts)):
                raise ValueError(f"bands.{column} must hold rising cuts, such as [30, 45]")
        return self


class DataManifest(BaseManifest):
    """The manifest as far as data is concerned."""

    source: SourceSpec
    label: LabelSpec
    contract: ContractSpec
    train: WindowSpec
    fan_out: FanOutSpec = Field(default_factory=FanOutSpec)

    @property
    def declared_columns(self) -> frozenset[str] | None:
        """What a delivery must hold as the manifest says; whatever else it holds can never stop a day.

        None, for all of it, where the contract refuses a day for a column that nobody declared.
        """
        if self.contract.unknown_columns == "refuse":
            return None
        entity = [self.train.entity] if self.train.entity else []
        return frozenset((self.contract.id, self.label.column, *self.contract.declared, *entity))
