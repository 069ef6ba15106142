"""The manifest's section about the model server."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from include.data.spec import GroupsSpec
from include.feedback.spec import FeedbackManifest, LoggingSpec
from include.kernel.spec import Count, Section, Share


def _check_origin(text: str) -> str:
    if not re.fullmatch(r"\*|https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]+)?", text):
        raise ValueError("write it as browsers do, such as https://app.example.org, without path or capitals; or '*'")
    return text


Origin = Annotated[str, AfterValidator(_check_origin)]


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


class ServingSpec(LoggingSpec):
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
    cors_origins: tuple[Origin, ...] = Field(
        (), description="pages whose scripts may ask, such as https://app.example.org; '*' for all of the web"
    )
    explain: ExplainSpec = ExplainSpec()
    objectives: ObjectivesSpec = ObjectivesSpec()
    reasons: dict[str, ReasonSpec] = Field({}, description="column of the contract -> its reason code and sentences")


class ServingManifest(FeedbackManifest):
    """The manifest as far as the model server is concerned."""

    groups: GroupsSpec = Field(default_factory=GroupsSpec)
    serving: ServingSpec
