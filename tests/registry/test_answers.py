"""Every answer of MLflow is absent, refused, away or not understood: by MLflow's real client, over a port."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from include.kernel.errors import AccessRefused, EvergreenError, NotBlessed, RequestInvalid, ServiceUnavailable
from include.registry import mlflow_registry
from include.registry.mlflow_registry import MlflowRegistry
from tests.ground import free_ports

LOGIN = "<!doctype html><title>Sign in</title>" + "<p>long</p>" * 200


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
    monkeypatch.setattr(mlflow_registry, "CLIENT_TIMEOUTS", mlflow_registry.CLIENT_TIMEOUTS | once)


@contextmanager
def answering(status: int, body: str, kind: str = "text/html") -> Iterator[str]:
    """The address of a server that answers all requests so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def said(code: str) -> str:
    return json.dumps({"error_code": code, "message": f"told by {code}"})


ANSWERS = [
    (401, LOGIN, AccessRefused, "refuses us (401): set MLFLOW_TRACKING_USERNAME"),
    (403, "Invalid Host header", AccessRefused, "refuses us (403)"),
    (403, said("PERMISSION_DENIED"), AccessRefused, "refuses us (PERMISSION_DENIED)"),
    (401, said("UNAUTHENTICATED"), AccessRefused, "refuses us (UNAUTHENTICATED)"),
    (200, LOGIN, RequestInvalid, "is no MLflow (status 200, no JSON); correct MLFLOW_TRACKING_URI"),
    (404, LOGIN, RequestInvalid, "is no MLflow (status 404, no JSON)"),
    (502, LOGIN, ServiceUnavailable, "does not answer"),  # MLflow's client has tried again by then, and says no status
    (503, "", ServiceUnavailable, "does not answer"),
    (500, said("INTERNAL_ERROR"), ServiceUnavailable, "does not answer"),
    (429, said("REQUEST_LIMIT_EXCEEDED"), ServiceUnavailable, "does not answer"),
    (501, LOGIN, ServiceUnavailable, "something answers 501; the task retries by itself"),
    (400, said("TEMPORARILY_UNAVAILABLE"), ServiceUnavailable, "told by TEMPORARILY_UNAVAILABLE"),
    (400, said("INVALID_PARAMETER_VALUE"), RequestInvalid, "told by INVALID_PARAMETER_VALUE"),
    (404, said("RESOURCE_DOES_NOT_EXIST"), RequestInvalid, "has no version '3'"),
]
CALLS: dict[str, Callable[[MlflowRegistry], object]] = {
    "fetch_blessing": lambda registry: registry.fetch_blessing("3"),
    "find_champion": lambda registry: registry.find_champion(),
    "list_soaking": lambda registry: registry.list_soaking(),
    "promote": lambda registry: registry.promote("3"),
    "register": lambda registry: registry.register("run", "source", "key"),
}


@pytest.mark.parametrize(("status", "body", "kind", "told"), ANSWERS)
def test_what_is_answered_is_one_sentence_of_its_kind(
    status: int, body: str, kind: type[EvergreenError], told: str
) -> None:
    with answering(status, body, "application/json" if body.startswith("{") else "text/html") as url:
        with pytest.raises(kind) as raised:
            CALLS["fetch_blessing"](MlflowRegistry("credit", url))
        sentence = str(raised.value)
        assert told in sentence and url in sentence
        assert "\n" not in sentence and len(sentence) < 400 and "<title>" not in sentence


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("status", "kind"), [(401, AccessRefused), (200, RequestInvalid), (502, ServiceUnavailable)])
def test_whatever_is_called_a_proxys_page_is_no_trace(call: str, status: int, kind: type[EvergreenError]) -> None:
    with answering(status, LOGIN) as url, pytest.raises(kind):
        CALLS[call](MlflowRegistry("credit", url))


def test_nobody_there_is_away() -> None:
    with pytest.raises(ServiceUnavailable, match="does not answer; start it"):
        CALLS["fetch_blessing"](MlflowRegistry("credit", f"http://127.0.0.1:{free_ports(1)[0]}"))


@pytest.mark.parametrize("version", ["v2", "latest", "", "2.0", "-1", "../2", "1e3", "champion"])
def test_what_is_no_version_is_told_before_anybody_is_asked(version: str) -> None:
    with pytest.raises(RequestInvalid, match="is no version of credit: write its number, such as 3"):
        MlflowRegistry("credit", "http://127.0.0.1:9").fetch_blessing(version)


def test_a_version_that_was_deleted_is_told_by_the_real_server(mlflow_url: str) -> None:
    registry = MlflowRegistry("credit-answers", mlflow_url)
    with pytest.raises(RequestInvalid, match="credit-answers has no version '7'"):
        registry.fetch_blessing("7")
    with registry.open_client() as client:
        run_id = client.create_run("0").info.run_id
    version = registry.register(run_id, f"runs:/{run_id}/model")
    with pytest.raises(NotBlessed):
        registry.fetch_blessing(version)
    with registry.open_client() as client:
        client.delete_model_version(registry.name, version)
    with pytest.raises(RequestInvalid, match=f"has no version '{version}'"):
        registry.fetch_blessing(version)
