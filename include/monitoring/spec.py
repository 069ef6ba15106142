"""The manifest's section about monitoring."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from include.alerting.spec import AlertingManifest
from include.gate.spec import GateManifest
from include.kernel.spec import Count, Section, Share


class Persistence(Section):
    k: Count
    n: Count

    @model_validator(mode="after")
    def _check_possible(self) -> Persistence:
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


class MonitoringManifest(GateManifest, AlertingManifest):
    """The manifest as far as watching the live version is concerned."""

    monitor: MonitorSpec
