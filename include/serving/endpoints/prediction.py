"""What every predicting route does: read the body, parse it, score, record, render. The dialect is the only difference.

An endpoint takes the slot once, when the request begins, so that columns, model and answer belong to one version even
when the slot is swapped meanwhile.
"""

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import anyio.to_thread
from fastapi import Request, Response

from include.feedback.core.prediction_records import CALLER_HEADER
from include.serving.exchange import Answer, ParsedRequest, Problem, RequestContext, Row
from include.serving.protocols.dialects import Dialect
from include.serving.service import Service
from include.serving.slot.contents import Loaded
from include.serving.spec import ServingSpec
from include.serving.wire import decode_headers, read_body, refuse, respond
from include.serving.words.headers import COPY, TIMEOUT_MS

LONG_BODY = 1 << 14  # bytes, some sixty rows: half a millisecond to parse
TIMEOUT_HEADERS = (TIMEOUT_MS, "x-envoy-expected-rq-timeout-ms")


class Endpoint:
    """One predicting route: `await endpoint(request)`; the fast lane calls `read` and `answered` itself."""

    answers_at_once: ClassVar[bool] = True

    def __init__(self, service: Service, dialect: Dialect) -> None:
        self._service = service
        self._dialect = service.wrap_dialect(dialect) if service.wrap_dialect else dialect

    async def __call__(self, request: Request) -> Response:
        slot = self._service.current_model.slot
        if not isinstance(slot, Loaded):
            return self.render_refusal(Problem(503, slot.why))
        headers = decode_headers(request.scope["headers"])
        context = build_context(request.scope["state"]["request_id"], headers, self._service.spec, time.monotonic())
        parsed = await self._parse(request, headers, slot)
        if isinstance(parsed, Problem):
            return self.render_refusal(parsed)
        request.scope["state"]["rows"] = parsed.rows
        answer = await self._score(slot, parsed.rows, context)
        return await self._conclude(slot, context, parsed, answer)

    def read(self, slot: Loaded, path: str, headers: Mapping[str, str], body: bytes) -> ParsedRequest | Problem:
        """A whole body at once; `path` may name what this slot does not hold."""
        return self._dialect.parse(body, headers, slot.inputs, self._service.settings.max_rows)

    async def _score(self, slot: Loaded, rows: Sequence[Row], context: RequestContext) -> Answer | Problem:
        return await self._service.scorer.score(slot, rows, context)

    async def _conclude(
        self, slot: Loaded, context: RequestContext, parsed: ParsedRequest, answer: Answer | Problem
    ) -> Response:
        """What is done with an answer; explaining does more."""
        return self.record_and_render(slot, context, parsed, answer)

    async def _parse(self, request: Request, headers: Mapping[str, str], slot: Loaded) -> ParsedRequest | Problem:
        """A long body is parsed beside the event loop, so that probes and small requests are answered meanwhile."""
        settings = self._service.settings
        body = await read_body(request, headers, settings.max_body_bytes)
        if isinstance(body, Problem):
            return body
        if len(body) <= LONG_BODY:
            return self._dialect.parse(body, headers, slot.inputs, settings.max_rows)
        return await anyio.to_thread.run_sync(
            self._dialect.parse, body, headers, slot.inputs, settings.max_rows, limiter=self._service.parsers
        )

    def record_and_render(
        self, slot: Loaded, context: RequestContext, parsed: ParsedRequest, answer: Answer | Problem
    ) -> Response:
        """Records and counts an answer, and renders it."""
        status = answer.status if isinstance(answer, Problem) else 200
        self._service.record(context, parsed.rows, answer, status, time.monotonic() - context.received)
        if isinstance(answer, Problem):
            return self.render_refusal(answer)
        self._count(slot, answer, parsed.rows)
        return respond(self._dialect.render(answer, parsed))

    def _count(self, slot: Loaded, answer: Answer, rows: Sequence[Row]) -> None:
        self._service.metrics.record_scores(answer.version, answer.probabilities, slot.inputs.count_anomalies(rows))
        self._service.metrics.count_decisions(answer.version, answer.decisions)

    def render_refusal(self, problem: Problem) -> Response:
        return refuse(self._dialect.refuse(problem), problem)


def build_context(request_id: str, headers: Mapping[str, str], spec: ServingSpec, received: float) -> RequestContext:
    """The deadline is the manifest's, or sooner when the caller or the proxy says it will not wait that long."""
    timeout_ms = spec.deadline_ms
    for name in TIMEOUT_HEADERS:
        header = headers.get(name)
        if header and header.isascii() and header.isdigit():
            timeout_ms = min(timeout_ms, int(header[:9]))
    return RequestContext(
        request_id, headers.get(CALLER_HEADER), received + timeout_ms / 1000, received, COPY in headers
    )
