"""The manifest's sections about training: candidates, their search, and the backtest."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from include.data.spec import WindowSpec
from include.kernel.spec import Count, Section, Share
from include.monitoring.spec import MonitoringManifest


class SearchRange(Section):
    """Where a parameter is searched. Two whole numbers search whole numbers."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="search by ratio, for what spans several powers of ten; low must be above 0")

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _check_searchable(self) -> SearchRange:
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


class TrainSpec(WindowSpec):
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
    def _check_known_candidates(self) -> TrainSpec:
        unknown = sorted(set(self.tuning.space) - set(self.candidates))
        if unknown:
            raise ValueError(f"tuning.space names {unknown[0]}, which is not among the candidates")
        return self


class BacktestSpec(Section):
    """A walk-forward backtest: trainings of the past, each judged by the days that followed it."""

    follow_days: Count = Field(7, description="days after a past training that judge it, as if it had served them")


class TrainingManifest(MonitoringManifest):
    """The manifest as far as training is concerned, and the baseline that a training leaves to the monitor."""

    train: TrainSpec
    backtest: BacktestSpec = Field(default_factory=BacktestSpec)

    @property
    def studies(self) -> int:
        """How many studies each candidate that is searched is dealt to; 0 where none is."""
        spec = self.train.tuning
        return min(self.fan_out.tuning, spec.trials) if any(spec.space.values()) else 0
