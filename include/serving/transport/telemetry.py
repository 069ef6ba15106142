"""What the server says of its requests while it runs: lines in the log, and spans where a collector is named.

Requests are about people, so a line tells who answered what in which time, and never a value of a row unless the
manifest names the column (serving.logged_features). Every failed answer (5xx) leaves a line, at most some ten a second,
with the number of those left out; of the others only a share, none by default, since a line costs as much as a
prediction.

Traces are OpenTelemetry's, sent by OTLP over HTTP when OTEL_EXPORTER_OTLP_ENDPOINT is set. Then the parts of a request
are wrapped when the server is put together; without it nothing is imported and no request pays for a question.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from include.serving import VERSION
from include.serving.routes import find_route_name
from include.serving.transport.token_bucket import take
from include.serving.words import headers as words

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from include.serving.exchange import Row
    from include.serving.protocols.dialects import Dialect
    from include.serving.service import Service
    from include.serving.spec import ServingSpec

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FAILURES_A_SECOND, FAILURES_AT_ONCE = 10.0, 50
requests = logging.getLogger("evergreen.requests")


class RequestLog:
    """Lines about answered requests. `share` is that of the good ones."""

    def __init__(self, spec: ServingSpec) -> None:
        self.share = spec.request_log
        self._features = spec.logged_features
        self._full_at, self._left_out = 0.0, 0

    def tell(self, scope: Scope, status: int, version: str, seconds: float) -> None:
        if status < 500 and random.random() >= self.share:
            return
        if status >= 500 and not self._may_log_failure():
            return
        state = scope["state"]
        fields = {
            "request_id": state["request_id"],
            "route": find_route_name(scope["path"]),
            "status": status,
            "version": version,
            "ms": round(seconds * 1000, 3),
            **({"caller": state["caller"]} if "caller" in state else {}),
            **self._select_features(state.get("rows")),
            **self._take_suppressed(),
        }
        requests.log(logging.ERROR if status >= 500 else logging.INFO, "answered %d", status, extra=fields)

    def _may_log_failure(self) -> bool:
        self._full_at, wait = take(self._full_at, time.monotonic(), FAILURES_A_SECOND, FAILURES_AT_ONCE)
        self._left_out += wait > 0
        return wait == 0

    def _take_suppressed(self) -> dict[str, int]:
        left_out, self._left_out = self._left_out, 0
        return {"left_out": left_out} if left_out else {}

    def _select_features(self, rows: Sequence[Row] | None) -> dict[str, Any]:
        """Of the first row, the columns the manifest names."""
        if not self._features or not rows:
            return {}
        return {"features": {name: rows[0].get(name) for name in self._features}}


# --- traces --------------------------------------------------------------------------------------------------------


def make_tracing(colour: str, environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """None where no collector is named; then OpenTelemetry is not even imported."""
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return Tracing(colour) if any(map(environ.get, ENDPOINTS)) and not disabled else None


class Tracing:
    """Spans `POST /predict` > validate, score, log. No span holds a value of a row, nor an exception's text."""

    def __init__(self, colour: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        defaults = {"service.name": "evergreen-model-server", "service.version": VERSION, "evergreen.slot": colour}
        resource = Resource.create({**defaults, **_read_service_name()})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("include.serving")
        self._propagator = TraceContextTextMapPropagator()

    def wrap_app(self, app: ASGIApp) -> ASGIApp:
        """The app with a span around each request, continuing the caller's trace (W3C traceparent)."""

        async def call_traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                return await self._run_traced(app, scope, receive, send)
            return await app(scope, receive, self._flush_at_shutdown(send))

        return call_traced

    async def _run_traced(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import SpanKind

        method, route = scope["method"], find_route_name(scope["path"])
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            await app(scope, receive, _wrap_send(span, send))

    def _flush_at_shutdown(self, send: Send) -> Send:
        """What was not sent yet is sent before the server says that it has shut down."""

        async def send_last(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await anyio.to_thread.run_sync(self._provider.shutdown)
            await send(message)

        return send_last

    def wrap_call(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def call_traced(*args: Any) -> Any:
            with self._start_span(name):
                return call(*args)

        return call_traced

    def wrap_service(self, service: Service) -> Service:
        """The service whose model and log have spans of their own."""
        scorer: Any = _TracedScorer(service.scorer, self)
        return replace(
            service, scorer=scorer, record=self.wrap_call("log", service.record), wrap_dialect=self.wrap_dialect
        )

    def wrap_dialect(self, dialect: Dialect) -> Dialect:
        """The dialect whose parsing has a span."""
        read: Any = _TracedDialect(dialect, self.wrap_call("validate", dialect.parse))
        return read  # type: ignore[no-any-return]

    def _start_span(self, name: str) -> Any:
        return self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)


class _TracedScorer:
    """A scorer in all but its `score`."""

    def __init__(self, scorer: Any, tracing: Tracing) -> None:
        self._scorer, self._tracing = scorer, tracing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    async def score(self, *args: Any) -> Any:
        with self._tracing._start_span("score"):
            return await self._scorer.score(*args)


class _TracedDialect:
    """A dialect in all but its `parse`."""

    def __init__(self, dialect: Dialect, parse: Callable[..., Any]) -> None:
        self._dialect, self.parse = dialect, parse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dialect, name)


def _read_service_name() -> dict[str, str]:
    """What the standard's own variable says of the service goes first."""
    name = os.environ.get("OTEL_SERVICE_NAME")
    return {"service.name": name} if name else {}


def _wrap_send(span: Any, send: Send) -> Send:
    from opentelemetry.trace import StatusCode

    async def send_noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            span.set_attribute("http.response.status_code", message["status"])
            for name, header in (("version", words.VERSION), ("slot", words.SLOT), ("request_id", words.REQUEST_ID)):
                span.set_attribute(f"evergreen.{name}", headers.get(header.encode(), b"").decode())
            if message["status"] >= 500:
                span.set_status(StatusCode.ERROR)
        await send(message)

    return send_noted
