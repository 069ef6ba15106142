"""What routes of every kind do with HTTP: read headers and a body, know the request's id, and write an answer."""

import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import Request, Response

from include.serving.exchange import Problem, RenderedResponse
from include.serving.words.headers import REQUEST_ID

Handler = Callable[[Request], Awaitable[Response]]
RawHeaders = Sequence[tuple[bytes, bytes]]  # headers as they came, names in lower case
ID = REQUEST_ID.encode()
FORGERY = re.compile(r"[^A-Za-z0-9._-]")


def respond(rendered: RenderedResponse, status: int = 200) -> Response:
    return Response(rendered.body, status, dict(rendered.headers) or None, rendered.content_type)


def refuse(rendered: RenderedResponse, problem: Problem) -> Response:
    """The problem, in the shape its reader knows, with the header that says when to come again."""
    response = respond(rendered, problem.status)
    if problem.retry_after is not None:
        response.headers["retry-after"] = str(problem.retry_after)
    return response


def decode_headers(raw_headers: RawHeaders) -> dict[str, str]:
    """By lower-case name, the first of equal ones; the framework's own search the list at every look."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(raw_headers)}


def read_request_id(scope: Mapping[str, Any]) -> str:
    """The caller's id without anything that could forge a log line or a header; a new one if nothing is left."""
    raw = next((value for name, value in scope["headers"] if name == ID), b"")
    return FORGERY.sub("", raw.decode("latin-1"))[:64] or f"{random.getrandbits(128):032x}"


async def read_body(request: Request, headers: Mapping[str, str], limit: int) -> bytes | Problem:
    """Reads nothing of a body announced as too long, and stops at the limit of one that was announced as shorter."""
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:18]) > limit:
        return _refuse_length(limit)
    body, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return Problem(400, "The body ended early.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            return _refuse_length(limit)
    return bytes(body)


def _refuse_length(limit: int) -> Problem:
    return Problem(413, f"The body may hold {limit} bytes at most; send fewer rows.")
