"""The manifest's sections about releases: strategy, shadow, canary, experiment."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from include.alerting.spec import AlertingManifest
from include.cluster.spec import ClusterManifest
from include.gate.spec import GateManifest
from include.kernel.spec import Count, Section, Share


class BoundsSpec(Section):
    """Shares of requests, 0 to 1: candidate minus stable slot."""

    tolerated: Annotated[float, Field(ge=0, lt=1)] = Field(description="a difference up to this is nobody's fault")
    limit: Annotated[float, Field(gt=0, lt=1)] = Field(description="proven to be smaller, the candidate is good enough")

    @model_validator(mode="after")
    def _check_order(self) -> BoundsSpec:
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
    def _check_rising(self) -> CanarySpec:
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
    def max_analyses(self) -> int:
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
    def max_analyses(self) -> int:
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


class ReleaseManifest(GateManifest, ClusterManifest, AlertingManifest):
    """The manifest as far as releasing is concerned."""

    release: ReleaseSpec
    experiment: ExperimentSpec | None = Field(
        None, description="how an experiment is done; null: nobody can ask for one"
    )
