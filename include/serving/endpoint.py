"""What every predicting route does: read the body, parse it, score, record, render. The dialect is the only difference.

An endpoint takes the slot once, when the request begins, so that columns, model and answer belong to one version even
when the slot is swapped meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from include.core.manifest import ServingSpec
from include.serving.holder import Holder
from include.serving.metrics import Metrics
from include.serving.protocols import Dialect, Parsed, Rendered
from include.serving.scoring import Answer, Asked, Scorer
from include.serving.settings import Settings
from include.serving.slot import Loaded
from include.serving.validation import Problem, Row

if TYPE_CHECKING:
    from include.serving.prediction_log import PredictionLog

# called with every parsed request once its answer is known: who asked, rows, answer, status, seconds since it came
Record = Callable[[Asked, Sequence[Row], Answer | Problem, int, float], None]
TIMEOUTS = ("x-evergreen-timeout-ms", "x-envoy-expected-rq-timeout-ms")


def forget(asked: Asked, rows: Sequence[Row], answer: Answer | Problem, status: int, seconds: float) -> None:
    """Records nothing."""


@dataclass(frozen=True)
class Service:
    """What the endpoints of one server share."""

    settings: Settings
    spec: ServingSpec
    holder: Holder
    scorer: Scorer
    metrics: Metrics
    record: Record = forget
    log: PredictionLog | None = None


class Endpoint:
    """One predicting route: `await endpoint(request)`."""

    def __init__(self, service: Service, dialect: Dialect) -> None:
        self._service = service
        self._dialect = dialect

    async def __call__(self, request: Request) -> Response:
        slot = self._service.holder.slot
        if not isinstance(slot, Loaded):
            return self._refusal(Problem(503, slot.why))
        asked = asked_by(request, self._service.spec)
        parsed = await self._parsed(request, slot)
        if isinstance(parsed, Problem):
            return self._refusal(parsed)
        answer = await self._service.scorer.score(slot, parsed.rows, asked)
        return self._answered(slot, asked, parsed, answer)

    async def _parsed(self, request: Request, slot: Loaded) -> Parsed | Problem:
        settings = self._service.settings
        body = await read_body(request, settings.max_body_bytes)
        if isinstance(body, Problem):
            return body
        return self._dialect.parse(body, request.headers, slot.inputs, settings.max_rows)

    def _answered(self, slot: Loaded, asked: Asked, parsed: Parsed, answer: Answer | Problem) -> Response:
        status = answer.status if isinstance(answer, Problem) else 200
        self._service.record(asked, parsed.rows, answer, status, time.monotonic() - asked.received)
        if isinstance(answer, Problem):
            return self._refusal(answer)
        self._service.metrics.predicted(answer.version, answer.probabilities, slot.inputs.unseen(parsed.rows))
        return respond(self._dialect.render(answer, parsed))

    def _refusal(self, problem: Problem) -> Response:
        return respond(self._dialect.refuse(problem), problem.status)


def respond(rendered: Rendered, status: int = 200) -> Response:
    return Response(rendered.body, status, dict(rendered.headers) or None, rendered.content_type)


def asked_by(request: Request, spec: ServingSpec) -> Asked:
    """The deadline is the manifest's, or sooner when the caller or the proxy says it will not wait that long."""
    received, headers = time.monotonic(), request.headers
    told = [int(value) for value in map(headers.get, TIMEOUTS) if value and value.isascii() and value.isdigit()]
    patience = min([spec.deadline_ms, *told]) / 1000
    return Asked(request.scope["state"]["request_id"], headers.get("x-evergreen-key"), received + patience, received)


async def read_body(request: Request, limit: int) -> bytes | Problem:
    """Reads nothing of a body announced as too long, and stops at the limit of one that was announced as shorter."""
    too_long = Problem(413, f"The body may hold {limit} bytes at most; send fewer rows.")
    announced, body = request.headers.get("content-length", ""), bytearray()
    if announced.isdecimal() and int(announced) > limit:
        return too_long
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                return too_long
    except ClientDisconnect:
        return Problem(400, "The body ended early.")
    return bytes(body)
