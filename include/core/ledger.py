"""The ledger's entries: who decided what, why, and by which data, code, manifest and model.

Entries are only ever appended. An entry may carry a `key`: a ledger holds each key once, which is how a retried task
avoids saying the same thing twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str = Field(description="noun.verb, such as gate.refused or release.live")
    subject: str = Field(description="what it is about: a model version, a snapshot, an episode")
    who: str = Field(description="DAG and run, or person")
    why: str
    details: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    at: datetime = Field(default_factory=lambda: datetime.now(UTC), description="wall clock, for readers only")
