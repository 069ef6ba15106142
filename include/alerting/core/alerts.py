"""What people are told: one alert is one thing that happened, in words, with a link to what to do about it.

An alert is told once for its key, however often a task is retried or a monitor sees the same thing. So the key holds
whatever makes it another event (a generation, a day, an episode), and never the time of telling.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Severity(StrEnum):
    """How soon somebody should look: when there is time, today, now. The words are those of PagerDuty's events."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    def is_at_least(self, minimum: Severity) -> bool:
        order = list(Severity)
        return order.index(self) >= order.index(minimum)


class Alert(BaseModel):
    """`runbook` is the anchor of a section of docs/runbook.md, as GitHub makes it of the section's title."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity
    title: str = Field(min_length=1, max_length=200, description="one line: what happened to what")
    text: str = Field(description="who, why and by which evidence; plain text, several lines")
    runbook: str = Field(pattern=r"^[a-z0-9-]+$", description="anchor of the section that says what to do")
    key: str = Field(min_length=1, max_length=255, description="the same key is told once")

    def link(self, runbook: str) -> str:
        """The address of the section, in the runbook that lies at `runbook`."""
        return f"{runbook}#{self.runbook}"
