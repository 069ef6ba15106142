"""The composition root of the model server: one slot, its routes, and the middleware around them.

A release restarts the idle slot instead of reloading it: no half-loaded model, and the memory of the old one is truly
gone. Who predicts and how is in `endpoints`, what stands around every answer in `middleware`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from include.feedback.spec import LogSpec
from include.kernel.words.colours import other
from include.serving.endpoints.description import described
from include.serving.endpoints.explanation import ExplainEndpoint
from include.serving.endpoints.feedback import add_feedback
from include.serving.endpoints.interop import add_mlflow, add_open_inference
from include.serving.endpoints.prediction import Endpoint
from include.serving.endpoints.recent import RecentRoute
from include.serving.endpoints.reloading import Reload
from include.serving.exchange import Problem, Row
from include.serving.explain.explaining import Explaining
from include.serving.log.recent_answers import Recent
from include.serving.metrics import Metrics
from include.serving.openapi import docs_page
from include.serving.openapi.document import document as build_document
from include.serving.predict.scoring import Scorer
from include.serving.protocols import native
from include.serving.protocols.dialects import dialect_of
from include.serving.service import Record, Service
from include.serving.settings import Settings
from include.serving.slot import contents as slots
from include.serving.slot.admission import Admission, told
from include.serving.slot.contents import Broken, Loaded, Slot
from include.serving.slot.current_model import Holder
from include.serving.spec import ServingManifest, ServingSpec
from include.serving.transport.guard import Guard
from include.serving.transport.middleware import Envelope
from include.serving.transport.telemetry import RequestLog
from include.serving.wire import Handler
from include.serving.words.recent import PATH as RECENT
from include.serving.words.slot_files import ARTIFACTS

if TYPE_CHECKING:
    from include.data.spec import GroupsSpec
    from include.feedback.segments import Segments
    from include.serving.exchange import Answer, Asked
    from include.serving.log.prediction_log import PredictionLog
    from include.serving.transport.telemetry import Tracing


def create_app(service: Service, tracing: Tracing | None = None) -> Envelope:
    service = tracing.inside(service) if tracing else service
    framework = FastAPI(
        title="Evergreen model server", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_logging(service)
    )
    framework.add_exception_handler(HTTPException, _plain_error)
    framework.add_exception_handler(Exception, _plain_error)
    admission = told(service.settings, service.spec)
    _add_probes(framework, service, admission)
    add_feedback(framework, service)
    _add_description(framework, service)
    framework.add_api_route("/admin/reload", Reload(service, admission), methods=["POST"], response_model=None)
    framework.add_api_route(RECENT, RecentRoute(service.recent), methods=["POST"], response_model=None)
    guard = Guard(service.settings, service.spec.rate_limit, dialect_of)
    hot, lines = _add_predicting(framework, service), RequestLog(service.spec)
    return Envelope(framework, hot, service.holder, service.metrics, guard, lines)


def build_service(
    settings: Settings, manifest: ServingManifest | None, open_place: Callable[[], Segments] | None
) -> Service:
    """Loads what slot file and manifest say. `open_place` opens where the prediction log goes; None: there is no log.

    Raises `RequestInvalid` when the manifest hides columns of the log by a secret that is not set.
    """
    spec = manifest.serving if manifest else ServingSpec()
    slot = slots.load(settings.serving_dir, settings.slot, told(settings, spec))
    previous = _previous(settings, spec, slot) if spec.fallback == "previous" else None
    key, groups = (manifest.contract.id, manifest.groups) if manifest else (None, None)
    holder = Holder(settings.slot, slot, key, spec.fallback == "previous", previous)
    return _assemble(settings, spec, holder, groups, open_place)


def build_broken_service(settings: Settings, why: str) -> Service:
    """A manifest that cannot be read cannot say what to hide, so nothing is logged, also after a reload."""
    spec = ServingSpec(log=LogSpec(enabled=False))
    return _assemble(settings, spec, Holder(settings.slot, Broken(why)), None, None)


def _assemble(
    settings: Settings,
    spec: ServingSpec,
    holder: Holder,
    groups: GroupsSpec | None,
    open_place: Callable[[], Segments] | None,
) -> Service:
    metrics = Metrics(settings.slot)
    metrics.holds(holder.slot)
    log = _open_log(settings, spec.log, holder, metrics, open_place) if open_place and spec.log.enabled else None
    recent = Recent(groups, lambda: holder.slot.categories if isinstance(holder.slot, Loaded) else {})
    return Service(settings, spec, holder, Scorer(holder, spec, metrics), metrics, recent, _recorder(log, recent), log)


def _recorder(log: PredictionLog | None, recent: Recent) -> Record:
    """The log holds what was served: the answer to a copy was not."""

    def record(asked: Asked, rows: Sequence[Row], answer: Answer | Problem, status: int, seconds: float) -> None:
        recent.append(asked, rows, answer, seconds)
        if log and not asked.copy:
            log.append(asked, rows, answer, status, seconds)

    return record


def _previous(settings: Settings, spec: ServingSpec, slot: Slot) -> Loaded | None:
    """The version before, which a release leaves in the other slot."""
    beside = slots.load(settings.serving_dir, other(settings.slot), told(settings, spec))
    if isinstance(slot, Loaded) and isinstance(beside, Loaded) and beside.file.generation < slot.file.generation:
        return beside
    return None


def _open_log(
    settings: Settings, spec: LogSpec, holder: Holder, metrics: Metrics, open_place: Callable[[], Segments]
) -> PredictionLog:
    from include.serving.log.prediction_log import PredictionLog

    return PredictionLog(
        spec,
        holder,
        open_place,
        metrics.of_log,
        secret=settings.log_key.get_secret_value() if settings.log_key else None,
        spool=settings.serving_dir / "spool",
    )


def _logging(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        if service.log:
            service.log.start()
        yield
        if service.log:
            await anyio.to_thread.run_sync(service.log.close)

    return running


def _add_predicting(framework: FastAPI, service: Service) -> dict[str, Handler]:
    """The routes that predict, by path; each is the framework's too, where the OpenAPI document finds it."""
    hot: dict[str, Handler] = {"/predict": Endpoint(service, native)}
    hot["/predict-and-explain"] = _explained(service)
    for path, endpoint in hot.items():
        framework.add_api_route(path, endpoint, methods=["POST"], response_model=None)
    return hot | add_mlflow(framework, service) | add_open_inference(framework, service)


def _explained(service: Service) -> ExplainEndpoint:
    artifacts = service.settings.serving_dir / ARTIFACTS
    explaining = Explaining(artifacts, service.spec.explain, service.holder, service.metrics)
    explaining.begin()
    service.holder.on_swap.append(explaining.begin)
    return ExplainEndpoint(service, explaining)


def _add_probes(framework: FastAPI, service: Service, admission: Admission) -> None:
    holder = service.holder

    @framework.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "alive"})

    @framework.get("/ready")
    async def ready() -> Response:
        if holder.refusal or not isinstance(holder.slot, Loaded):
            return _refusal(Problem(503, holder.refusal or "The slot is not loaded."))
        file = holder.slot.file
        return JSONResponse({"status": "ready", "version": file.version, "digest": file.digest})

    @framework.get("/model")
    async def model() -> Response:
        return JSONResponse(described(holder.colour, holder.slot, admission))

    @framework.get("/metrics")
    async def scrape() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_description(framework: FastAPI, service: Service) -> None:
    def documented() -> dict[str, Any]:
        slot, settings = service.holder.slot, service.settings
        tokens = bool(settings.api_tokens or settings.api_tokens_file)
        return build_document(slot if isinstance(slot, Loaded) else None, settings.max_rows, tokens)

    @framework.get("/openapi.json")
    async def document() -> Response:
        return JSONResponse(documented())

    @framework.get("/docs")
    async def page() -> Response:
        return HTMLResponse(docs_page.page(documented()), headers={"content-security-policy": docs_page.POLICY})


def _refusal(problem: Problem) -> Response:
    return JSONResponse(problem.document(), status_code=problem.status)


async def _plain_error(request: Request, error: Exception) -> Response:
    status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
    if status == 500:
        message = "The server failed on this request; its log has the reason."
    else:
        message = f"{getattr(error, 'detail', 'Error')}; see /model for what this server holds."
    rendered = dialect_of(request.url.path).refuse(Problem(status, message))
    return Response(rendered.body, status, headers, rendered.content_type)
