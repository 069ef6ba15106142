"""What passes between the rooms of the server: rows, who asks for them, what is answered, and why something is refused.

Plain data, and nothing of the server is imported here: so protocols, model and log share these words without knowing
each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from include.feedback.core.prediction_records import BY_MODEL, ServedBy

Row = dict[str, float | str | None]
InputAnomalies = dict[tuple[str, str], int]  # (column, "unseen" | "missing" | "low" | "high") -> values


@dataclass(frozen=True)
class Problem:
    """Why a request is refused: a status, a sentence, and where."""

    status: int
    message: str
    row: int | None = None
    field: str | None = None
    retry_after: int | None = None  # seconds; a header of the answer

    @property
    def location(self) -> dict[str, Any]:
        return {name: value for name in ("row", "field") if (value := getattr(self, name)) is not None}

    def build_document(self) -> dict[str, Any]:
        return {"error": {"message": self.message, **self.location}}


class RequestRefused(Exception):
    """A `Problem` found deep inside a protocol; the protocol's `parse` catches it."""

    def __init__(self, status: int, message: str, row: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(status, message, row, field)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Who asks: the request's id, the caller's key, and when (monotonic seconds) it came and must be answered.

    A copy is what a shadow gets: nobody waits for its answer.
    """

    id: str
    key: str | None
    deadline: float
    received: float
    copy: bool = False


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """Validated rows, and what the answer must repeat or contain by the dialect's rules (`wanted`)."""

    rows: list[Row]
    answer_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One probability, label and decision for each row, and which model, or what in its place, they came from."""

    version: str
    slot: str
    digest: str
    probabilities: list[float]
    labels: list[str]
    decisions: list[bool]
    served_by: ServedBy = BY_MODEL


@dataclass(frozen=True, slots=True)
class RenderedResponse:
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row of one request; `happened` in microseconds since 1970, None if the caller did not say."""

    request_id: str
    row: int
    label: str
    happened: int | None
