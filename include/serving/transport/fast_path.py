"""Small requests that came whole, from their bytes to the bytes of their answers in one turn of the event loop.

Any other request is a task: it waits for its body, then for the batch it shares with others, and each wait is another
turn of the loop. For one that is here already all of that is overhead, and it is most of the time (measured with the
example's model: 290 us of a core for a request that comes alone, of which the model takes 25). Here what came in one
turn is read, asked of the model in one call, and written.

So the batch grows with the load, as it does for tasks, and nobody waits for it to grow: a request that seems to be the
only one of its turn is answered before the next one is looked at.

What is special goes the usual way, and an answer is the same on both: one of the two must only be faster. So the lane
knows no fallback, no cache, no deadline that has passed and no failure of the model: the request is begun anew as a
task. Where every request has a token, a span or a line in the log, there is no lane.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from include.serving.endpoints.prediction import LONG_BODY, Endpoint, build_context
from include.serving.exchange import Answer, Problem, RequestContext
from include.serving.predict.scoring import MAX_INLINE_ROWS
from include.serving.routes import resolve_route
from include.serving.service import Service
from include.serving.slot.contents import Loaded
from include.serving.transport.middleware import IDENTITY_HEADERS
from include.serving.wire import ID, decode_headers, read_request_id

if TYPE_CHECKING:
    from fastapi import Response

    from include.serving.exchange import ParsedRequest
    from include.serving.transport.middleware import ServingMiddleware

log = logging.getLogger(__name__)
Headers = list[tuple[bytes, bytes]]  # names in lower case
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
APART_S = 50e-6  # a request that comes sooner after the last answer came in the same turn
TOGETHER, TOGETHER_BYTES = 64, 1 << 16  # requests of one turn and their bodies: milliseconds; then answers are sent


class Client(Protocol):
    """A connection, which has one request at a time on the lane."""

    @property
    def common(self) -> Headers:
        """The headers of every answer of this server."""
        ...

    def is_awaiting(self, request: FastRequest) -> bool: ...
    def answer(self, request: FastRequest, data: bytes) -> None: ...
    def begin_anew(self, request: FastRequest) -> None:
        """As a task."""
        ...


@dataclass(slots=True, eq=False)
class FastRequest:
    """Times in monotonic seconds: when it began to come, and when it was whole."""

    client: Client
    path: str
    headers: Headers
    began: float
    body: bytearray = field(default_factory=bytearray)
    came: float = 0.0


@dataclass(slots=True)
class _ReadRequest:
    request: FastRequest
    endpoint: Endpoint
    context: RequestContext
    parsed: ParsedRequest


def build_fast_path(app: ServingMiddleware, service: Service) -> FastPath | None:
    """None where requests have tokens, or lines in the log."""
    if app.must_inspect:
        return None
    endpoints = {
        path: each for path, each in app.handlers.items() if isinstance(each, Endpoint) and each.answers_at_once
    }
    return FastPath(service, endpoints)


class FastPath:
    """`endpoints` by route, those that can answer at once."""

    def __init__(self, service: Service, endpoints: Mapping[str, Endpoint]) -> None:
        self._service, self._endpoints = service, endpoints
        self._longest = min(LONG_BODY, service.settings.max_body_bytes)
        self._waiting: deque[FastRequest] = deque()
        self._is_due, self._was_alone, self._rested = False, True, 0.0

    @property
    def waiting(self) -> int:
        """Requests that wait for the end of this turn."""
        return len(self._waiting)

    def may_take(self, path: str, headers: Headers) -> bool:
        """Whether it is worth while to wait for the body of such a POST here."""
        if resolve_route(path) not in self._endpoints or self._service.current_model.is_shutting_down:
            return False
        if self._service.spec.cors_origins and any(name == b"origin" for name, _ in headers):
            return False
        length = next((value for name, value in headers if name == b"content-length"), b"")
        return length.isdigit() and int(length[:18]) <= self._longest

    def offer(self, request: FastRequest) -> None:
        """A request that is whole."""
        self._waiting.append(request)
        if self._is_due:
            return
        if self._was_alone and request.came - self._rested > APART_S and self._is_instant:
            self.turn()
        else:
            self._schedule()

    @property
    def _is_instant(self) -> bool:
        """A generic model takes milliseconds: whoever came meanwhile must be seen, and share the next call."""
        slot = self._service.current_model.slot
        return isinstance(slot, Loaded) and slot.model.meta.path == "compiled"

    def _schedule(self) -> None:
        self._is_due = True
        asyncio.get_running_loop().call_soon(self.turn)

    def turn(self) -> None:
        """Answers what waits, or the first of it."""
        self._is_due = False
        requests = self._take_batch()
        self._was_alone = len(requests) <= 1
        try:
            self._answer(requests)
        except Exception:
            log.exception("requests failed on the fast lane and go the usual way")
            _leave(requests)
        self._rested = time.monotonic()
        if self._waiting:
            self._schedule()

    def _take_batch(self) -> list[FastRequest]:
        batch: list[FastRequest] = []
        bodies = 0
        while self._waiting and len(batch) < TOGETHER and bodies < TOGETHER_BYTES:
            batch.append(self._waiting.popleft())
            bodies += len(batch[-1].body)
        return batch

    def _answer(self, requests: Sequence[FastRequest]) -> None:
        """Only a failure of our own between record and bytes leaves a record behind, and the task makes it again."""
        slot, scorer = self._service.current_model.slot, self._service.scorer
        if not isinstance(slot, Loaded) or not scorer.is_free(slot, len(requests)):
            return _leave(requests)
        read = [found for each in requests if (found := self._read(slot, each))]
        answers = scorer.score_now(slot, [each.parsed.rows for each in read])
        for each, answer in zip(read, answers, strict=True):
            self._conclude(slot, each, answer)

    def _read(self, slot: Loaded, request: FastRequest) -> _ReadRequest | None:
        """None for what needs no prediction any more, or not from here."""
        endpoint, headers = self._endpoints[resolve_route(request.path)], decode_headers(request.headers)
        context = build_context(
            read_request_id({"headers": request.headers}), headers, self._service.spec, request.came
        )
        if not request.client.is_awaiting(request):
            self._count(request, 499)  # it is gone; so do proxies count that
        elif context.deadline <= time.monotonic():
            request.client.begin_anew(request)
        elif isinstance(parsed := endpoint.read(slot, request.path, headers, bytes(request.body)), Problem):
            self._send(request, context.id, endpoint.render_refusal(parsed))
        elif len(parsed.rows) > MAX_INLINE_ROWS:
            request.client.begin_anew(request)
        else:
            return _ReadRequest(request, endpoint, context, parsed)
        return None

    def _conclude(self, slot: Loaded, read: _ReadRequest, answer: Answer | None) -> None:
        if answer is None:
            read.request.client.begin_anew(read.request)
        else:
            response = read.endpoint.record_and_render(slot, read.context, read.parsed, answer)
            self._send(read.request, read.context.id, response)

    def _send(self, request: FastRequest, name: str, response: Response) -> None:
        current_model = self._service.current_model
        identity = (
            (IDENTITY_HEADERS[0], current_model.version.encode()),
            (IDENTITY_HEADERS[1], current_model.colour.encode()),
        )
        headers = (*request.client.common, *response.raw_headers, *identity, (ID, name.encode()))
        request.client.answer(request, encode_response(response, headers))
        self._count(request, response.status_code)

    def _count(self, request: FastRequest, status: int) -> None:
        seconds = time.monotonic() - request.began
        self._service.metrics.count_answer(
            self._service.current_model.version, resolve_route(request.path), status, seconds
        )


def _leave(requests: Iterable[FastRequest]) -> None:
    for each in requests:
        if each.client.is_awaiting(each):
            each.client.begin_anew(each)


def encode_response(response: Response, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"%s%s\r\n%s" % (STATUS_LINES[response.status_code], lines, response.body)
