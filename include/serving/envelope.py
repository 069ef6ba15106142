"""Around every answer, errors too: who answered, the request's id, and the count.

Plain ASGI, below the framework's own error page and above its router, so that also a 404 and a crash say which
version and slot they came from. That is what a release is judged by.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from include.serving.metrics import Metrics

log = logging.getLogger(__name__)
PATHS = frozenset({"/predict", "/health", "/ready", "/model", "/metrics"})
CRASHED = json.dumps({"error": {"message": "The server failed on this request; its log has the reason."}}).encode()


class Envelope:
    def __init__(self, app: ASGIApp, version: str, slot: str, metrics: Metrics) -> None:
        self._app = app
        self._headers = [(b"x-evergreen-version", version.encode()), (b"x-evergreen-slot", slot.encode())]
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status, request = time.perf_counter(), 0, request_id(scope)

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._stamp(message, request)
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except Exception:
            log.exception("request %s failed", request)
            if not status:
                await _send_crash(stamped)
        # a client that hung up got no answer: 499, as proxies count it
        self._metrics.answered(_known(scope["path"]), status or 499, time.perf_counter() - started)

    def _stamp(self, message: MutableMapping[str, Any], request: str) -> None:
        own = [*self._headers, (b"x-request-id", request.encode())]
        message["headers"] = [*message.get("headers", []), *own]


def request_id(scope: Scope) -> str:
    """The caller's id without anything that could forge a log line or a header; a new one if nothing is left."""
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return re.sub(r"[^A-Za-z0-9._-]", "", sent.decode("latin-1"))[:64] or uuid.uuid4().hex


async def _send_crash(send: Send) -> None:
    await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": CRASHED})


def _known(path: str) -> str:
    return path if path in PATHS else "other"  # a label must not grow with what callers invent
