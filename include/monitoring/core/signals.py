"""What monitoring says: one signal a check, subject and measure, whatever was measured and however.

Every signal has the same few fields, so that page, metrics, alerts and policy need to know one shape and no
statistics. A signal carries its own threshold and the action it recommends: who reads it months later, under another
manifest, still sees what it was judged by. `unknown` is an answer of its own: too few rows, labels that are not known
yet, a baseline without the column. It is never counted as healthy and never as an alarm.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Check = Literal[
    "data_quality",
    "schema_drift",
    "feature_drift",
    "prediction_drift",
    "label_drift",
    "performance",
    "concept_drift",
    "estimated_performance",
    "fairness",
    "service",
    "business",
]
Severity = Literal["ok", "unknown", "warning", "critical"]
SCORE = "(score)"  # a subject's name for the model's own output; no column is called so
SEVERITY_RANK: dict[Severity, int] = {"ok": 0, "unknown": 1, "warning": 2, "critical": 3}


class Signal(BaseModel):
    """One measurement and what it means. An interval or a p-value stands beside the value where there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: Check
    subject: str = Field(description="column, slice or part that was measured; (score) is the model's own output")
    measure: str = Field(description="what `value` is: psi, missing share, accuracy, p99 ms, ...")
    value: float | None = Field(None, description="None where it could not be measured")
    low: float | None = Field(None, description="lower end of the interval of `value`")
    high: float | None = Field(None, description="upper end of it")
    p_value: float | None = Field(None, description="of the test that nothing changed")
    threshold: float | None = Field(None, description="the bound of the manifest that `value` is held against")
    severity: Severity
    action: str = Field("", description="what to do about it, in one sentence; empty when all is well")
    details: dict[str, float] = Field(
        {}, description="other measures of the same change, such as ks and jensen_shannon"
    )

    @property
    def raised(self) -> bool:
        return SEVERITY_RANK[self.severity] >= SEVERITY_RANK["warning"]

    @property
    def sentence(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        bound = "" if self.threshold is None else f" (bound {self.threshold:g})"
        return f"{self.severity}: {self.subject}, {self.measure} {value}{bound}. {self.action}".rstrip(" .") + "."


def find_worst_severity(signals: Iterable[Signal]) -> Severity:
    """The gravest severity among them; ok when there is none."""
    return max((signal.severity for signal in signals), key=SEVERITY_RANK.__getitem__, default="ok")


def list_raised(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """The warnings and worse, the gravest first, in the order they came in."""
    return tuple(sorted((s for s in signals if s.raised), key=lambda s: -SEVERITY_RANK[s.severity]))
