"""Which dialect the clients of a path speak, and so in what shape they read a refusal."""

from collections.abc import Mapping
from typing import Protocol

from include.serving.exchange import Answer, ParsedRequest, Problem, RenderedResponse
from include.serving.protocols import mlflow_scoring, native, open_inference
from include.serving.slot.input_schema import InputSchema


class Dialect(Protocol):
    """A module of this package that speaks to clients."""

    def parse(
        self, body: bytes, headers: Mapping[str, str], schema: InputSchema, max_rows: int
    ) -> ParsedRequest | Problem: ...

    def render(self, answer: Answer, parsed: ParsedRequest) -> RenderedResponse: ...

    def refuse(self, problem: Problem) -> RenderedResponse:
        """The problem in the shape this dialect's clients read; the status is the caller's."""
        ...


def choose_dialect(path: str) -> Dialect:
    if path == "/v2" or path.startswith("/v2/"):
        return open_inference
    return mlflow_scoring if path in ("/invocations", "/ping", "/version") else native
