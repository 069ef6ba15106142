"""A small request that has the server to itself, from its bytes to the bytes of its answer in one go.

Any other request is a task: it waits for its body, then for the batch it shares with others. For one that came whole
and alone all of that is overhead, and it is most of the time (measured with the example's model: 290 us of a core, of
which the model takes 25). Here it is a function call.

What is special goes the usual way, and an answer is the same on both: one of the two must only be faster. So the lane
knows no fallback, no cache, no deadline that has passed and no failure of the model: it says None, and the request is
begun anew as a task. Where every request has a token, a span or a line in the log, there is no lane.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from include.serving.endpoint import LONG_BODY, Endpoint, Service
from include.serving.envelope import request_id, route_of

if TYPE_CHECKING:
    from fastapi import Response

    from include.serving.envelope import Envelope

log = logging.getLogger(__name__)
Headers = list[tuple[bytes, bytes]]  # names in lower case
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def fast_lane(app: Envelope, service: Service) -> FastLane | None:
    """None where requests have tokens, or lines in the log."""
    if app.looks_at_each:
        return None
    endpoints = {path: each for path, each in app.hot.items() if isinstance(each, Endpoint) and each.answers_at_once}
    return FastLane(service, endpoints)


class FastLane:
    """`endpoints` by route, those that can answer at once."""

    def __init__(self, service: Service, endpoints: Mapping[str, Endpoint]) -> None:
        self._service, self._endpoints = service, endpoints
        self._longest = min(LONG_BODY, service.settings.max_body_bytes)
        self._taken = False

    def may_take(self, path: str, headers: Headers) -> bool:
        """Whether it is worth while to wait for the body of such a POST here."""
        if route_of(path) not in self._endpoints or self._service.holder.draining:
            return False
        length = next((value for name, value in headers if name == b"content-length"), b"")
        return length.isdigit() and int(length[:18]) <= self._longest

    def answer(self, path: str, headers: Headers, body: bytes, began: float, common: Headers) -> bytes | None:
        """The whole answer, counted and recorded; None when it must be a task, and nothing has happened yet.

        Only a failure of our own between record and bytes leaves a record behind, which the task then makes again.

        `began` in monotonic seconds; `common` are the headers of every answer of this server.
        """
        if self._taken or not self._service.scorer.is_idle:
            return None
        self._take()
        try:
            return self._answer(path, headers, body, began, common)
        except Exception:
            log.exception("a request failed on the fast lane and goes the usual way")
            return None

    def _take(self) -> None:
        """One request a turn of the event loop: more that came in the same turn are cheaper as a batch."""
        self._taken = True
        asyncio.get_running_loop().call_soon(self._free)

    def _free(self) -> None:
        self._taken = False

    def _answer(self, path: str, headers: Headers, body: bytes, began: float, common: Headers) -> bytes | None:
        version, route = self._service.holder.version, route_of(path)
        request = request_id({"headers": headers})
        response = self._endpoints[route].at_once(path, request, headers, body)
        if response is None:
            return None
        who = ((b"x-evergreen-version", version.encode()), (b"x-evergreen-slot", self._colour))
        told = (*common, *response.raw_headers, *who, (b"x-request-id", request.encode()))
        self._service.metrics.answered(version, route, response.status_code, time.monotonic() - began)
        return written(response, told)

    @property
    def _colour(self) -> bytes:
        return self._service.holder.colour.encode()


def written(response: Response, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"%s%s\r\n%s" % (STATUS_LINES[response.status_code], lines, response.body)
