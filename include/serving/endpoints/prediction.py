"""What every predicting route does: read the body, parse it, score, record, render. The dialect is the only difference.

An endpoint takes the slot once, when the request begins, so that columns, model and answer belong to one version even
when the slot is swapped meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

import anyio.to_thread
from fastapi import Request, Response

from include.feedback.core.prediction_records import CALLER
from include.serving.exchange import Answer, Asked, Parsed, Problem, Row
from include.serving.protocols.dialects import Dialect
from include.serving.service import Service
from include.serving.slot.contents import Loaded
from include.serving.spec import ServingSpec
from include.serving.wire import headers_of, read_body, refuse, respond
from include.serving.words.headers import COPY, TIMEOUT_MS

LONG_BODY = 1 << 14  # bytes, some sixty rows: half a millisecond to parse
TIMEOUTS = (TIMEOUT_MS, "x-envoy-expected-rq-timeout-ms")


class Endpoint:
    """One predicting route: `await endpoint(request)`; the fast lane calls `read` and `answered` itself."""

    answers_at_once: ClassVar[bool] = True

    def __init__(self, service: Service, dialect: Dialect) -> None:
        self._service = service
        self._dialect = service.wrap_dialect(dialect) if service.wrap_dialect else dialect

    async def __call__(self, request: Request) -> Response:
        slot = self._service.holder.slot
        if not isinstance(slot, Loaded):
            return self.refusal(Problem(503, slot.why))
        headers = headers_of(request.scope["headers"])
        asked = asked_by(request.scope["state"]["request_id"], headers, self._service.spec, time.monotonic())
        parsed = await self._parsed(request, headers, slot)
        if isinstance(parsed, Problem):
            return self.refusal(parsed)
        request.scope["state"]["rows"] = parsed.rows
        answer = await self._scored(slot, parsed.rows, asked)
        return await self._concluded(slot, asked, parsed, answer)

    def read(self, slot: Loaded, path: str, headers: Mapping[str, str], body: bytes) -> Parsed | Problem:
        """A whole body at once; `path` may name what this slot does not hold."""
        return self._dialect.parse(body, headers, slot.inputs, self._service.settings.max_rows)

    async def _scored(self, slot: Loaded, rows: Sequence[Row], asked: Asked) -> Answer | Problem:
        return await self._service.scorer.score(slot, rows, asked)

    async def _concluded(self, slot: Loaded, asked: Asked, parsed: Parsed, answer: Answer | Problem) -> Response:
        """What is done with an answer; explaining does more."""
        return self.answered(slot, asked, parsed, answer)

    async def _parsed(self, request: Request, headers: Mapping[str, str], slot: Loaded) -> Parsed | Problem:
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

    def answered(self, slot: Loaded, asked: Asked, parsed: Parsed, answer: Answer | Problem) -> Response:
        """Records and counts an answer, and renders it."""
        status = answer.status if isinstance(answer, Problem) else 200
        self._service.record(asked, parsed.rows, answer, status, time.monotonic() - asked.received)
        if isinstance(answer, Problem):
            return self.refusal(answer)
        self._counted(slot, answer, parsed.rows)
        return respond(self._dialect.render(answer, parsed))

    def _counted(self, slot: Loaded, answer: Answer, rows: Sequence[Row]) -> None:
        self._service.metrics.predicted(answer.version, answer.probabilities, slot.inputs.oddities(rows))
        self._service.metrics.decided(answer.version, answer.decisions)

    def refusal(self, problem: Problem) -> Response:
        return refuse(self._dialect.refuse(problem), problem)


def asked_by(request_id: str, headers: Mapping[str, str], spec: ServingSpec, received: float) -> Asked:
    """The deadline is the manifest's, or sooner when the caller or the proxy says it will not wait that long."""
    patience = spec.deadline_ms
    for name in TIMEOUTS:
        told = headers.get(name)
        if told and told.isascii() and told.isdigit():
            patience = min(patience, int(told[:9]))
    return Asked(request_id, headers.get(CALLER), received + patience / 1000, received, COPY in headers)
