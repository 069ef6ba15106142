"""The routes that clients of other servers expect: MLflow's and those of the Open Inference Protocol.

They are thin: what is read and answered is the dialects' business, and what is ready the holder's. A path names a model
and a version, and this server holds one of each, so every other name is a 404 that says which is held.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from pydantic_core import to_json

from include.serving import VERSION
from include.serving.endpoints.prediction import Endpoint
from include.serving.exchange import ParsedRequest, Problem, RenderedResponse
from include.serving.protocols import mlflow_scoring, open_inference
from include.serving.service import Service
from include.serving.slot.contents import Loaded
from include.serving.wire import Handler, respond
from include.serving.words.slot_metrics import INFER

if TYPE_CHECKING:
    from include.serving.slot.current_model import CurrentModel

MODEL = "/v2/models/{name}"
VERSIONED = MODEL + "/versions/{version}"
ADDRESS = re.compile(r"\A/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?/infer\Z")


def add_mlflow(framework: FastAPI, service: Service) -> dict[str, Handler]:
    """/invocations, /ping and /version; answers the route that predicts."""
    endpoint = Endpoint(service, mlflow_scoring)
    framework.add_api_route("/invocations", endpoint, methods=["POST"], response_model=None)

    @framework.get("/ping")
    async def ping() -> Response:
        if service.current_model.refusal:
            return respond(mlflow_scoring.refuse(Problem(503, service.current_model.refusal)), 503)
        return Response("\n", media_type="text/plain")

    @framework.get("/version")
    async def get_version() -> Response:
        return Response(mlflow_scoring.MLFLOW_VERSION, media_type="text/plain")

    return {"/invocations": endpoint}


def add_open_inference(framework: FastAPI, service: Service) -> dict[str, Handler]:
    """Everything under /v2; answers the route that predicts."""
    infer = InferEndpoint(service, open_inference)
    for path in (MODEL, VERSIONED):
        framework.add_api_route(f"{path}/infer", infer, methods=["POST"], response_model=None)
    _add_health(framework, service.current_model)
    _add_metadata(framework, service.current_model)
    return {INFER: infer}


class InferEndpoint(Endpoint):
    """An `infer` route: the model is named by the path."""

    async def __call__(self, request: Request) -> Response:
        problem = self._check_address(request.scope["path"])
        return self.render_refusal(problem) if problem else await super().__call__(request)

    def read(self, slot: Loaded, path: str, headers: Mapping[str, str], body: bytes) -> ParsedRequest | Problem:
        return self._check_address(path) or super().read(slot, path, headers, body)

    def _check_address(self, path: str) -> Problem | None:
        address = ADDRESS.match(path)
        if address is None:  # another path that begins and ends alike
            return Problem(404, "Not Found; see /model for what this server holds.")
        return check_address(self._service.current_model, address["name"], address["version"])


def check_address(current_model: CurrentModel, name: str, version: str | None) -> Problem | None:
    """A 404 for a model that is not held; None also for a slot that holds nothing, which is told elsewhere."""
    slot = current_model.slot
    if not isinstance(slot, Loaded):
        return None
    return open_inference.check_model(name, version, slot.model.meta.name, slot.file.version)


def _add_health(framework: FastAPI, current_model: CurrentModel) -> None:
    @framework.get("/v2/health/live")
    async def get_liveness() -> Response:
        return _respond_json({"live": True})

    @framework.get("/v2/health/ready")
    async def get_readiness() -> Response:
        return _check_readiness(current_model) or _respond_json({"ready": True})

    @framework.get(f"{MODEL}/ready")
    @framework.get(f"{VERSIONED}/ready")
    async def get_model_readiness(name: str, version: str | None = None) -> Response:
        problem = check_address(current_model, name, version)
        return (
            (_refuse(problem) if problem else None)
            or _check_readiness(current_model)
            or _respond_json({"name": name, "ready": True})
        )


def _add_metadata(framework: FastAPI, current_model: CurrentModel) -> None:
    @framework.get("/v2")
    async def get_server() -> Response:
        return _respond_json(open_inference.build_server_metadata(VERSION))

    @framework.get(MODEL)
    @framework.get(VERSIONED)
    async def get_model(name: str, version: str | None = None) -> Response:
        slot = current_model.slot
        if not isinstance(slot, Loaded):
            return _refuse(Problem(503, slot.why))
        problem = check_address(current_model, name, version)
        return _refuse(problem) if problem else _respond_json(_build_metadata(slot))


def _build_metadata(slot: Loaded) -> dict[str, Any]:
    return open_inference.build_model_metadata(slot.model.meta, slot.file.version)


def _check_readiness(current_model: CurrentModel) -> Response | None:
    return _refuse(Problem(503, current_model.refusal)) if current_model.refusal else None


def _respond_json(content: dict[str, Any]) -> Response:
    return respond(RenderedResponse(to_json(content)))


def _refuse(problem: Problem) -> Response:
    return respond(open_inference.refuse(problem), problem.status)
