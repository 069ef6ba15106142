"""One client's connection: uvicorn's own, with an end to everything a client can hold open, and a cheap way to say no.

uvicorn waits for ever for the rest of a request or for an answer to be fetched (measured: 300 of 300 half-open
connections still there after 30 s). Here a request has a time to arrive, and an answer one to be taken.

When the queue is full, a prediction is refused before its body is kept or a task begins for it. Under many times the
capacity even that adds up, so a refusal waits a moment that grows with the number of connections, and all refusals
are at most REFUSALS a second. A client cannot ask again before it has its answer, so this slows
down who overloads us, and nobody else.

It overrides uvicorn's callbacks, which are not promised to stay; tests over real sockets hold what is built on them.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from include.serving.exchange import Problem
from include.serving.predict.scoring import BUSY
from include.serving.protocols.dialects import choose_dialect
from include.serving.routes import resolve_route
from include.serving.transport.fast_path import FastRequest
from include.serving.wire import ID, read_request_id
from include.serving.words.headers import SLOT, VERSION

if TYPE_CHECKING:
    from collections.abc import Collection

    from include.serving.service import Service
    from include.serving.transport.fast_path import FastPath, Headers

REFUSALS = 3000  # a second at most; each costs about a third of an answer
LONGEST_PAUSE = 1.0  # seconds
LONGEST_HEAD = 1 << 16  # bytes of a request line and headers
SPARE_FILES = 128  # descriptors that are no connections
PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
ANSWER, CONTINUE = b"HTTP/1.1 ", b"HTTP/1.1 100 "
SLOW = Problem(408, "The request did not arrive in time; send it at once.")
LONG_HEAD = Problem(431, f"The headers may hold {LONGEST_HEAD} bytes at most.")
MALFORMED = Problem(400, "This is no valid HTTP request.")


class ConnectionPolicy:
    """What all connections of a server share: when to refuse, and the bytes to do it with."""

    def __init__(self, service: Service, predicting: Collection[str], fast: FastPath | None = None) -> None:
        self._service, self._predicting = service, predicting
        self.fast = fast
        self._refusals: dict[tuple[int, str, str], tuple[bytes, bytes]] = {}
        self.read_timeout_s = service.spec.read_timeout_s
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most_connections = max(1, files - SPARE_FILES)

    def is_full(self, tasks: int) -> bool:
        """By the rows that those under way will probably hold: once a body is parsed, most of its cost is paid."""
        scorer, requests = self._service.scorer, tasks + (self.fast.waiting if self.fast else 0)
        return requests * scorer.mean_rows >= self._service.spec.queue_rows or scorer.is_full

    def is_predict_path(self, path: str) -> bool:
        return resolve_route(path) in self._predicting

    def render_refusal(self, problem: Problem, path: str, headers: list[tuple[bytes, bytes]], began: float) -> bytes:
        """The whole answer; it is counted as every other one."""
        version, route = self._service.current_model.version, resolve_route(path)
        self._service.metrics.count_answer(version, route, problem.status, time.monotonic() - began)
        head, body = self._refusals.get((problem.status, version, route)) or self._render(problem, version, route)
        return b"%s%s: %s\r\n\r\n%s" % (head, ID, read_request_id({"headers": headers}).encode(), body)

    def _render(self, problem: Problem, version: str, route: str) -> tuple[bytes, bytes]:
        rendered = choose_dialect(route).refuse(problem)
        stays = problem.retry_after is not None
        lines = [
            f"HTTP/1.1 {problem.status} {PHRASES[problem.status]}",
            f"content-type: {rendered.content_type}",
            f"content-length: {len(rendered.body)}",
            f"{VERSION}: {version}",
            f"{SLOT}: {self._service.current_model.colour}",
            f"retry-after: {problem.retry_after}" if stays else "connection: close",
        ]
        written = "".join(f"{line}\r\n" for line in lines).encode(), rendered.body
        self._refusals[problem.status, version, route] = written
        return written


class JoinedTransport:
    """A transport that sends the head of an answer together with what follows it in the same turn of the event loop:
    one system call less, and one packet less that wakes the client. A head that nothing follows goes at the turn's end:
    that of a HEAD, and of an answer whose body is still being made."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._head = transport, loop, b""

    def write(self, data: bytes) -> None:
        if not self._head and data.startswith(ANSWER) and data.endswith(b"\r\n\r\n") and not data.startswith(CONTINUE):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(self._head + data)
        self._head = b""

    def _flush(self) -> None:
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    def __init__(self, policy: ConnectionPolicy, **options: Any) -> None:
        super().__init__(**options)
        self._policy = policy
        self._head_bytes = 0
        self._reading_since = self._writing_since = 0.0
        self._refused_path: str | None = None
        self._refusal: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._fast: FastRequest | None = None  # a request that is on the fast lane, or still comes there
        self._idle_since = 0.0  # its last answer; uvicorn's own timer for it would be most of that answer's price
        self.headers = []
        self.url = b""

    # --- a connection and its end ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", JoinedTransport(transport, self.loop))
        self._reading_since = time.monotonic()
        if len(self.connections) > self._policy.most_connections:
            self._close_with(BUSY)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fast = None
        super().connection_lost(exc)
        if self._refusal:
            self._refusal.cancel()
        if self._task and not self._task.done() and self._policy.is_predict_path(self.scope["path"]):
            self._task.cancel()  # nobody is left to read the prediction

    def sweep(self, now: float) -> None:
        """Called every second: ends what a client holds open without doing its part."""
        if self._writing_since and now - self._writing_since > self._policy.read_timeout_s:
            self.transport.abort()
        elif self._reading_since and now - self._reading_since > self._policy.read_timeout_s:
            self._close_with(SLOW)
        elif self._idle_since and now - self._idle_since > self.timeout_keep_alive:
            self.timeout_keep_alive_handler()

    def _close_with(self, problem: Problem) -> None:
        """Says why, where a request has begun that has no answer yet, and closes."""
        answering = self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started
        reading_body = self._fast is not None or (self.cycle is not None and not self.cycle.response_started)
        begun = self._head_bytes or reading_body or problem in (BUSY, MALFORMED)
        if begun and not answering and not self.transport.is_closing():
            self.transport.write(self._policy.render_refusal(problem, "", self.headers, self._reading_since))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._close_with(MALFORMED)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing_since = time.monotonic()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writing_since = 0.0

    # --- a request ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes:  # still in the head
            self._head_bytes += len(data)
            if self._head_bytes > LONGEST_HEAD:
                self._close_with(LONG_HEAD)

    def on_message_begin(self) -> None:
        self._refuse()  # a request behind a refused one must not be answered before it
        while self._fast is not None and self._policy.fast is not None:  # nor before one on the fast lane
            self._policy.fast.turn()
        super().on_message_begin()
        self._head_bytes, self._reading_since, self._idle_since = 1, time.monotonic(), 0.0

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.parser.get_method() == b"POST":
            path = self.url.partition(b"?")[0].decode("ascii", "replace")
            if self._policy.is_full(len(self.tasks)) and self._policy.is_predict_path(path):
                self._refused_path = path
                return
            if self._may_be_fast(path):
                self._fast = FastRequest(self, path, self.headers, self._reading_since)
                return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._fast is not None:
            self._fast.body += body
        elif self._refused_path is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        began, self._reading_since = self._reading_since, 0.0
        if self._fast is not None and self._policy.fast is not None:
            self._fast.came = time.monotonic()
            return self._policy.fast.offer(self._fast)
        if self._refused_path is None:
            super().on_message_complete()
            return
        self._refused_since = began
        pause = min(LONGEST_PAUSE, len(self.connections) / REFUSALS)
        self._refusal = self.loop.call_later(pause, self._refuse)

    def _may_be_fast(self, path: str) -> bool:
        if self._policy.fast is None or self.flow.write_paused or self.expect_100_continue or b"%" in self.url:
            return False
        lasting = self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()
        return lasting and not self.parser.should_upgrade() and self._policy.fast.may_take(path, self.headers)

    @property
    def common(self) -> Headers:
        return self.server_state.default_headers

    def is_awaiting(self, request: FastRequest) -> bool:
        return self._fast is request

    def answer(self, request: FastRequest, data: bytes) -> None:
        self._fast, self._idle_since = None, time.monotonic()
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.transport.write(data)

    def begin_anew(self, request: FastRequest) -> None:
        """The usual way, with what has come of the body."""
        self._fast = None
        super().on_headers_complete()
        if request.body:
            super().on_body(bytes(request.body))
        if request.came:
            super().on_message_complete()

    def shutdown(self) -> None:
        """A request that has begun to arrive is still answered, and as a task."""
        if self._fast is not None:
            self.begin_anew(self._fast)
        super().shutdown()

    def _refuse(self) -> None:
        """Sends the refusal that is due, if there is one; the connection stays."""
        if self._refused_path is None or self._refusal is None:
            return
        path, self._refused_path = self._refused_path, None
        self._refusal.cancel()
        self._refusal = None
        if not self.transport.is_closing():
            self.transport.write(self._policy.render_refusal(BUSY, path, self.headers, self._refused_since))
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._task = self.loop.create_task(cycle.run_asgi(app))
        self._task.add_done_callback(self.tasks.discard)
        self.tasks.add(self._task)
