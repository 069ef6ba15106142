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
from include.serving.exchange import Parsed, Problem, Rendered
from include.serving.protocols import mlflow_scoring, open_inference
from include.serving.service import Service
from include.serving.slot.contents import Loaded
from include.serving.wire import Handler, respond
from include.serving.words.slot_metrics import INFER

if TYPE_CHECKING:
    from include.serving.slot.current_model import Holder

MODEL = "/v2/models/{name}"
VERSIONED = MODEL + "/versions/{version}"
ADDRESS = re.compile(r"\A/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?/infer\Z")


def add_mlflow(framework: FastAPI, service: Service) -> dict[str, Handler]:
    """/invocations, /ping and /version; answers the route that predicts."""
    endpoint = Endpoint(service, mlflow_scoring)
    framework.add_api_route("/invocations", endpoint, methods=["POST"], response_model=None)

    @framework.get("/ping")
    async def ping() -> Response:
        if service.holder.refusal:
            return respond(mlflow_scoring.refuse(Problem(503, service.holder.refusal)), 503)
        return Response("\n", media_type="text/plain")

    @framework.get("/version")
    async def version() -> Response:
        return Response(mlflow_scoring.SPOKEN, media_type="text/plain")

    return {"/invocations": endpoint}


def add_open_inference(framework: FastAPI, service: Service) -> dict[str, Handler]:
    """Everything under /v2; answers the route that predicts."""
    infer = InferEndpoint(service, open_inference)
    for path in (MODEL, VERSIONED):
        framework.add_api_route(f"{path}/infer", infer, methods=["POST"], response_model=None)
    _add_health(framework, service.holder)
    _add_metadata(framework, service.holder)
    return {INFER: infer}


class InferEndpoint(Endpoint):
    """An `infer` route: the model is named by the path."""

    async def __call__(self, request: Request) -> Response:
        problem = self._misdirected(request.scope["path"])
        return self.refusal(problem) if problem else await super().__call__(request)

    def read(self, slot: Loaded, path: str, headers: Mapping[str, str], body: bytes) -> Parsed | Problem:
        return self._misdirected(path) or super().read(slot, path, headers, body)

    def _misdirected(self, path: str) -> Problem | None:
        address = ADDRESS.match(path)
        if address is None:  # another path that begins and ends alike
            return Problem(404, "Not Found; see /model for what this server holds.")
        return wrong_address(self._service.holder, address["name"], address["version"])


def wrong_address(holder: Holder, name: str, version: str | None) -> Problem | None:
    """A 404 for a model that is not held; None also for a slot that holds nothing, which is told elsewhere."""
    slot = holder.slot
    if not isinstance(slot, Loaded):
        return None
    return open_inference.missing_model(name, version, slot.model.meta.name, slot.file.version)


def _add_health(framework: FastAPI, holder: Holder) -> None:
    @framework.get("/v2/health/live")
    async def live() -> Response:
        return _json({"live": True})

    @framework.get("/v2/health/ready")
    async def ready() -> Response:
        return _unready(holder) or _json({"ready": True})

    @framework.get(f"{MODEL}/ready")
    @framework.get(f"{VERSIONED}/ready")
    async def model_ready(name: str, version: str | None = None) -> Response:
        problem = wrong_address(holder, name, version)
        return (_refusal(problem) if problem else None) or _unready(holder) or _json({"name": name, "ready": True})


def _add_metadata(framework: FastAPI, holder: Holder) -> None:
    @framework.get("/v2")
    async def server() -> Response:
        return _json(open_inference.server_metadata(VERSION))

    @framework.get(MODEL)
    @framework.get(VERSIONED)
    async def model(name: str, version: str | None = None) -> Response:
        slot = holder.slot
        if not isinstance(slot, Loaded):
            return _refusal(Problem(503, slot.why))
        problem = wrong_address(holder, name, version)
        return _refusal(problem) if problem else _json(_metadata(slot))


def _metadata(slot: Loaded) -> dict[str, Any]:
    return open_inference.model_metadata(slot.model.meta, slot.file.version)


def _unready(holder: Holder) -> Response | None:
    return _refusal(Problem(503, holder.refusal)) if holder.refusal else None


def _json(content: dict[str, Any]) -> Response:
    return respond(Rendered(to_json(content)))


def _refusal(problem: Problem) -> Response:
    return respond(open_inference.refuse(problem), problem.status)
