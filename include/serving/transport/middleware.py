"""Around every answer, errors too: who answered, the request's id, and the count.

Plain ASGI around the framework, so that also a 404 and a crash say which version and slot they came from. That is what
a release is judged by.

The predicting routes are answered from here by one look-up. They stand in the framework too, for the OpenAPI document
and the 405, but its middleware and router would cost more than the model does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.serving.exchange import Problem
from include.serving.protocols.dialects import choose_dialect
from include.serving.routes import resolve_route
from include.serving.wire import ID, Handler, read_request_id
from include.serving.words.headers import GENERATION, REQUEST_ID, SLOT, VERSION

if TYPE_CHECKING:
    from include.serving.metrics import Metrics
    from include.serving.slot.current_model import CurrentModel
    from include.serving.transport.guard import Guard
    from include.serving.transport.telemetry import RequestLog

log = logging.getLogger(__name__)
CRASHED = Problem(500, "The server failed on this request; its log has the reason.")
# the connection is not to be used again, and Envoy is to send no more without waiting for its next look at /ready
SHUTDOWN_HEADERS = [(b"connection", b"close"), (b"x-envoy-immediate-health-check-fail", b"true")]
IDENTITY_HEADERS = (VERSION.encode(), SLOT.encode())
SCRIPT_HEADERS = (VERSION, SLOT, REQUEST_ID, GENERATION, "retry-after", "inference-header-content-length")


class ServingMiddleware:
    """`handlers`: what POSTs to these paths are answered by; everything else goes to the framework. `origins`: of pages
    whose scripts may ask this server."""

    def __init__(
        self,
        framework: FastAPI,
        handlers: Mapping[str, Handler],
        current_model: CurrentModel,
        metrics: Metrics,
        guard: Guard,
        request_log: RequestLog,
        origins: Sequence[str] = (),
    ) -> None:
        self._request_log = request_log
        self.framework = framework
        self.handlers = handlers
        self._guard = guard
        self._current_model = current_model
        self._metrics = metrics
        self._dispatch: ASGIApp = _allow_origins(self._route, origins) if origins else self._route

    @property
    def must_inspect(self) -> bool:
        """Whether requests have tokens, or lines in the log."""
        return self._guard.asks_clients or self._request_log.share > 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self.framework(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = _normalise(scope)
        started, status, version, request = time.perf_counter(), 0, self._current_model.version, read_request_id(scope)
        scope.setdefault("state", {})["request_id"] = request
        identity = self._list_headers(version, request)

        async def send_stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *identity]
            await send(message)

        try:
            await self._dispatch(scope, receive, send_stamped)
        except asyncio.CancelledError:
            log.debug("request %s: nobody waits for its answer any more", request)
        except Exception:
            log.exception("a request failed", extra={"request_id": request})
            if not status:
                await _send_crash(send_stamped, scope["path"])
        # a client that hung up got no answer: 499, as proxies count it
        seconds = time.perf_counter() - started
        self._metrics.count_answer(version, resolve_route(scope["path"]), status or 499, seconds)
        if status >= 500 or self._request_log.share:
            self._request_log.tell(scope, status or 499, version, seconds)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._guard.check_request(scope)
        if response is None:
            handler = self.handlers.get(resolve_route(scope["path"])) if scope["method"] == "POST" else None
            if handler is None:
                return await self.framework(scope, receive, send)
            response = await handler(Request(scope, receive))
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body})

    def _list_headers(self, version: str, request: str) -> list[tuple[bytes, bytes]]:
        headers = [
            (IDENTITY_HEADERS[0], version.encode()),
            (IDENTITY_HEADERS[1], self._current_model.colour.encode()),
            (ID, request.encode()),
        ]
        return [*headers, *SHUTDOWN_HEADERS] if self._current_model.is_shutting_down else headers


def _allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """What a browser asks for before and beside a request of a page from elsewhere; it asks before it shows a token."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=SCRIPT_HEADERS,
    )


def _normalise(scope: Scope) -> Scope:
    """A HEAD is answered as the GET that it stands for, and a path with a slash at its end as the one without: the
    framework knows no HEAD, and would redirect to whatever host the request named. uvicorn sends a HEAD no body."""
    method, path = "GET" if scope["method"] == "HEAD" else scope["method"], scope["path"]
    return {**scope, "method": method, "path": path.rstrip("/") or "/"}


async def _send_crash(send: Send, path: str) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": choose_dialect(path).refuse(CRASHED).body})
