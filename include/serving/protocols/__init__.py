"""What clients may speak. Each dialect is one pure module: bytes to rows, an answer to bytes; none of them scores.

So a model gets no second path to it by getting a second protocol, and a dialect is tested without a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from include.serving.predict.scoring import Answer
    from include.serving.predict.validation import InputSchema, Problem, Row


@dataclass(frozen=True, slots=True)
class Parsed:
    """Validated rows, and what the answer must repeat or contain by the dialect's rules (`wanted`)."""

    rows: list[Row]
    wanted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Dialect(Protocol):
    """A module of this package."""

    def parse(
        self, body: bytes, headers: Mapping[str, str], schema: InputSchema, max_rows: int
    ) -> Parsed | Problem: ...

    def render(self, answer: Answer, parsed: Parsed) -> Rendered: ...

    def refuse(self, problem: Problem) -> Rendered:
        """The problem in the shape this dialect's clients read; the status is the caller's."""
        ...
