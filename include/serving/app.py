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
from include.serving.endpoints.description import describe_slot
from include.serving.endpoints.explanation import ExplainEndpoint
from include.serving.endpoints.feedback import add_feedback
from include.serving.endpoints.interop import add_mlflow, add_open_inference
from include.serving.endpoints.prediction import Endpoint
from include.serving.endpoints.recent import RecentAnswersRoute
from include.serving.endpoints.reloading import Reload
from include.serving.exchange import Problem, Row
from include.serving.explain.explaining import ExplanationService
from include.serving.log.recent_answers import RecentAnswerBuffer
from include.serving.metrics import Metrics
from include.serving.openapi import docs_page
from include.serving.openapi.document import build_openapi as build_document
from include.serving.predict.scoring import Scorer
from include.serving.protocols import native
from include.serving.protocols.dialects import choose_dialect
from include.serving.service import Recorder, Service
from include.serving.settings import Settings
from include.serving.slot import contents as slots
from include.serving.slot.admission import Admission, build_admission
from include.serving.slot.contents import Broken, Loaded, Slot
from include.serving.slot.current_model import CurrentModel
from include.serving.spec import ServingManifest, ServingSpec
from include.serving.transport.guard import Guard
from include.serving.transport.middleware import ServingMiddleware
from include.serving.transport.telemetry import RequestLog
from include.serving.wire import Handler
from include.serving.words.recent import PATH as RECENT
from include.serving.words.slot_files import ARTIFACTS

if TYPE_CHECKING:
    from include.data.spec import GroupsSpec
    from include.feedback.segments import Segments
    from include.serving.exchange import Answer, RequestContext
    from include.serving.log.prediction_log import PredictionLog
    from include.serving.transport.telemetry import Tracing


def create_app(service: Service, tracing: Tracing | None = None) -> ServingMiddleware:
    service = tracing.wrap_service(service) if tracing else service
    framework = FastAPI(
        title="Evergreen model server",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_make_lifespan(service),
    )
    framework.add_exception_handler(HTTPException, _handle_error)
    framework.add_exception_handler(Exception, _handle_error)
    admission = build_admission(service.settings, service.spec)
    _add_probes(framework, service, admission)
    add_feedback(framework, service)
    _add_description(framework, service)
    framework.add_api_route("/admin/reload", Reload(service, admission), methods=["POST"], response_model=None)
    framework.add_api_route(RECENT, RecentAnswersRoute(service.recent_answers), methods=["POST"], response_model=None)
    guard = Guard(service.settings, service.spec.rate_limit, choose_dialect)
    handlers, request_log = _add_predict_routes(framework, service), RequestLog(service.spec)
    return ServingMiddleware(
        framework, handlers, service.current_model, service.metrics, guard, request_log, service.spec.cors_origins
    )


def build_service(
    settings: Settings, manifest: ServingManifest | None, open_segments: Callable[[], Segments] | None
) -> Service:
    """Loads what slot file and manifest say. `open_place` opens where the prediction log goes; None: there is no log.

    Raises `RequestInvalid` when the manifest hides columns of the log by a secret that is not set.
    """
    spec = manifest.serving if manifest else ServingSpec()
    slot = slots.load(settings.serving_dir, settings.slot, build_admission(settings, spec))
    previous = _load_previous(settings, spec, slot) if spec.fallback == "previous" else None
    key, groups = (manifest.contract.id, manifest.groups) if manifest else (None, None)
    contract = {name: column.kind for name, column in manifest.contract.columns.items()} if manifest else None
    current_model = CurrentModel(settings.slot, slot, key, spec.fallback == "previous", previous, contract)
    return _assemble(settings, spec, current_model, groups, open_segments)


def build_broken_service(settings: Settings, why: str) -> Service:
    """A manifest that cannot be read cannot say what to hide, so nothing is logged, also after a reload."""
    spec = ServingSpec(log=LogSpec(enabled=False))
    return _assemble(settings, spec, CurrentModel(settings.slot, Broken(why)), None, None)


def _assemble(
    settings: Settings,
    spec: ServingSpec,
    current_model: CurrentModel,
    groups: GroupsSpec | None,
    open_segments: Callable[[], Segments] | None,
) -> Service:
    metrics = Metrics(settings.slot)
    metrics.publish_slot(current_model.slot)
    log = (
        _open_log(settings, spec.log, current_model, metrics, open_segments)
        if open_segments and spec.log.enabled
        else None
    )
    recent_answers = RecentAnswerBuffer(
        groups, lambda: current_model.slot.categories if isinstance(current_model.slot, Loaded) else {}
    )
    return Service(
        settings,
        spec,
        current_model,
        Scorer(current_model, spec, metrics),
        metrics,
        recent_answers,
        _make_recorder(log, recent_answers),
        log,
    )


def _make_recorder(log: PredictionLog | None, recent_answers: RecentAnswerBuffer) -> Recorder:
    """The log holds what was served: the answer to a copy was not."""

    def record(
        context: RequestContext, rows: Sequence[Row], answer: Answer | Problem, status: int, seconds: float
    ) -> None:
        recent_answers.append(context, rows, answer, seconds)
        if log and not context.copy:
            log.append(context, rows, answer, status, seconds)

    return record


def _load_previous(settings: Settings, spec: ServingSpec, slot: Slot) -> Loaded | None:
    """The version before, which a release leaves in the other slot."""
    beside = slots.load(settings.serving_dir, other(settings.slot), build_admission(settings, spec))
    if isinstance(slot, Loaded) and isinstance(beside, Loaded) and beside.file.generation < slot.file.generation:
        return beside
    return None


def _open_log(
    settings: Settings,
    spec: LogSpec,
    current_model: CurrentModel,
    metrics: Metrics,
    open_segments: Callable[[], Segments],
) -> PredictionLog:
    from include.serving.log.prediction_log import PredictionLog

    return PredictionLog(
        spec,
        current_model,
        open_segments,
        metrics.make_log_metrics,
        secret=settings.log_key.get_secret_value() if settings.log_key else None,
        spool=settings.serving_dir / "spool",
    )


def _make_lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def run_log(_: FastAPI) -> AsyncIterator[None]:
        if service.log:
            service.log.start()
        yield
        if service.log:
            await anyio.to_thread.run_sync(service.log.close)

    return run_log


def _add_predict_routes(framework: FastAPI, service: Service) -> dict[str, Handler]:
    """The routes that predict, by path; each is the framework's too, where the OpenAPI document finds it."""
    handlers: dict[str, Handler] = {"/predict": Endpoint(service, native)}
    handlers["/predict-and-explain"] = _build_explain_endpoint(service)
    for path, endpoint in handlers.items():
        framework.add_api_route(path, endpoint, methods=["POST"], response_model=None)
    return handlers | add_mlflow(framework, service) | add_open_inference(framework, service)


def _build_explain_endpoint(service: Service) -> ExplainEndpoint:
    artifacts = service.settings.serving_dir / ARTIFACTS
    explanation_service = ExplanationService(artifacts, service.spec.explain, service.current_model, service.metrics)
    explanation_service.begin()
    service.current_model.on_swap.append(explanation_service.begin)
    return ExplainEndpoint(service, explanation_service)


def _add_probes(framework: FastAPI, service: Service, admission: Admission) -> None:
    current_model = service.current_model

    @framework.get("/health")
    async def get_health() -> Response:
        return JSONResponse({"status": "alive"})

    @framework.get("/ready")
    async def get_readiness() -> Response:
        if current_model.refusal or not isinstance(current_model.slot, Loaded):
            return _refuse(Problem(503, current_model.refusal or "The slot is not loaded."))
        file = current_model.slot.file
        return JSONResponse({"status": "ready", "version": file.version, "digest": file.digest})

    @framework.get("/model")
    async def get_model() -> Response:
        return JSONResponse(describe_slot(current_model.colour, current_model.slot, admission))

    @framework.get("/metrics")
    async def scrape() -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")


def _add_description(framework: FastAPI, service: Service) -> None:
    def build_held_document() -> dict[str, Any]:
        slot, settings = service.current_model.slot, service.settings
        tokens = bool(settings.api_tokens or settings.api_tokens_file)
        return build_document(slot if isinstance(slot, Loaded) else None, settings.max_rows, tokens)

    @framework.get("/openapi.json")
    async def get_openapi() -> Response:
        return JSONResponse(build_held_document())

    @framework.get("/docs")
    async def get_docs() -> Response:
        return HTMLResponse(
            docs_page.render_page(build_held_document()), headers={"content-security-policy": docs_page.POLICY}
        )


def _refuse(problem: Problem) -> Response:
    return JSONResponse(problem.build_document(), status_code=problem.status)


async def _handle_error(request: Request, error: Exception) -> Response:
    status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
    if status == 500:
        message = "The server failed on this request; its log has the reason."
    else:
        message = f"{getattr(error, 'detail', 'Error')}; see /model for what this server holds."
    rendered = choose_dialect(request.url.path).refuse(Problem(status, message))
    return Response(rendered.body, status, headers, rendered.content_type)
