"""The manifest's section about the prediction log."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from include.data.spec import DataManifest
from include.kernel.spec import Count, Days, Section, Share


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
    def _check_consistency(self) -> LogSpec:
        both = sorted({*self.drop} & {*self.hash})
        if both:
            raise ValueError(f"{both[0]!r} stands under drop and under hash; keep one")
        if self.rows_per_segment > self.buffer_rows:
            raise ValueError("rows_per_segment must not be larger than buffer_rows")
        return self


class LoggingSpec(Section):
    """The part of `serving` that says what of a prediction is kept."""

    log: LogSpec = LogSpec()


class FeedbackManifest(DataManifest):
    """The manifest as far as logged predictions and their outcomes are concerned."""

    serving: LoggingSpec
