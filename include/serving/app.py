"""The composition root of the model server: one slot, its routes, and the envelope around them.

A release restarts the idle slot instead of reloading it: no half-loaded model, and the memory of the old one is truly
gone. Who predicts and how is in `endpoint`, what stands around every answer in `envelope`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from include import factory, manifest
from include.feedback.spec import LogSpec
from include.kernel.errors import ManifestInvalid
from include.kernel.words.colours import other
from include.serving import slot as slots
from include.serving.admission import Admission, told
from include.serving.description import described
from include.serving.endpoint import Endpoint, Record, Service
from include.serving.explain.explain_endpoint import ExplainEndpoint
from include.serving.explain.explaining import Explaining
from include.serving.log.feedback_endpoint import add_feedback
from include.serving.log.recent_answers import Recent, RecentRoute
from include.serving.metrics import Metrics
from include.serving.openapi import docs_page
from include.serving.openapi.document import document as build_document
from include.serving.predict.current_model import Holder
from include.serving.predict.scoring import Scorer
from include.serving.predict.validation import Problem, Row
from include.serving.protocols import native
from include.serving.protocols.dialects import dialect_of
from include.serving.protocols.interop import add_mlflow, add_open_inference
from include.serving.reloading import Reload
from include.serving.settings import Settings
from include.serving.slot import Broken, Loaded, Slot
from include.serving.spec import ServingSpec
from include.serving.transport.guard import Guard
from include.serving.transport.middleware import Envelope, Handler
from include.serving.transport.telemetry import RequestLog
from include.serving.words.recent import PATH as RECENT
from include.serving.words.slot_files import ARTIFACTS

if TYPE_CHECKING:
    from include.serving.log.prediction_log import PredictionLog
    from include.serving.predict.scoring import Answer, Asked
    from include.serving.transport.telemetry import Tracing


def create_app(settings: Settings, service: Service | None = None, tracing: Tracing | None = None) -> Envelope:
    """Raises `RequestInvalid` when the manifest hides columns of the prediction log by a secret that is not set."""
    service = service or serve_slot(settings)
    service = tracing.inside(service) if tracing else service
    framework = FastAPI(
        title="Evergreen model server", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_logging(service)
    )
    framework.add_exception_handler(HTTPException, _plain_error)
    framework.add_exception_handler(Exception, _plain_error)
    admission = told(settings, service.spec)
    _add_probes(framework, service, admission)
    add_feedback(framework, service)
    _add_description(framework, service)
    framework.add_api_route("/admin/reload", Reload(service, admission), methods=["POST"], response_model=None)
    framework.add_api_route(RECENT, RecentRoute(service.recent), methods=["POST"], response_model=None)
    guard = Guard(settings, service.spec.rate_limit, dialect_of)
    hot, lines = _add_predicting(framework, service), RequestLog(service.spec)
    return Envelope(framework, hot, service.holder, service.metrics, guard, lines)


def serve_slot(settings: Settings) -> Service:
    """Loads what slot file and manifest say; a manifest that cannot be read breaks the slot, with its sentence."""
    try:
        known = manifest.load(settings.manifest) if settings.manifest else None
        spec, key = (known.serving, known.contract.id) if known else (ServingSpec(), None)
        slot = slots.load(settings.serving_dir, settings.slot, told(settings, spec))
    except ManifestInvalid as error:
        # a manifest that cannot be read cannot say what to hide, so nothing is logged, also after a reload
        known, spec, key, slot = None, ServingSpec(log=LogSpec(enabled=False)), None, Broken(str(error))
    metrics = Metrics(settings.slot)
    metrics.holds(slot)
    keeps = spec.fallback == "previous"
    holder = Holder(settings.slot, slot, key, keeps, _previous(settings, spec, slot) if keeps else None)
    log = _opened_log(settings, spec.log, holder, metrics)
    recent = Recent(
        known.groups if known else None, lambda: holder.slot.categories if isinstance(holder.slot, Loaded) else {}
    )
    record = _recorder(log, recent)
    return Service(settings, spec, holder, Scorer(holder, spec, metrics), metrics, recent, record, log)


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


def _opened_log(settings: Settings, spec: LogSpec, holder: Holder, metrics: Metrics) -> PredictionLog | None:
    if not spec.enabled or not factory.has_snapshots():
        return None
    from include.serving.log.prediction_log import PredictionLog  # brings pyarrow: 35 MB

    return PredictionLog(
        spec,
        holder,
        lambda: factory.segments(attempts=1),
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
