"""What clients of every kind do with HTTP, over the port: uptime monitors, browsers, old proxies, sloppy addresses."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.responses import StreamingResponse

from include.kernel.errors import ManifestInvalid
from include.manifest import load
from include.serving.settings import Settings
from include.serving.transport.connection import Connection, ConnectionPolicy
from include.serving.wiring import open_service
from tests import credit
from tests.ground import free_ports, wait_for, write_manifest
from tests.model_server import model_server

PAGE = "https://app.example.org"
BODY = {"row": credit.rows()[0]}
GETS = ("/health", "/ready", "/ping", "/version", "/v2", "/v2/health/live", "/v2/health/ready", "/model", "/metrics",
        "/openapi.json", "/docs", "/v2/models/credit", "/v2/models/credit/ready", "/v2/models/credit/versions/3",
        "/v2/models/credit/versions/3/ready", "/v2/models/other", "/nothing")  # fmt: skip


TOKENS = {"EVERGREEN_API_TOKENS": "page:0123456789abcdef"}
TOKEN = {"authorization": "Bearer 0123456789abcdef"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with model_server(tmp_path_factory.mktemp("server"), **TOKENS) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=3, headers=TOKEN) as client:
        yield client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a server that a page may ask."""
    place = tmp_path_factory.mktemp("server")
    manifest = write_manifest(place / "pipeline.yaml", {"serving.cors_origins": [PAGE]})
    with (
        model_server(place, EVERGREEN_MANIFEST=str(manifest), **TOKENS) as url,
        httpx.Client(base_url=url, trust_env=False, headers=TOKEN) as client,
    ):
        yield client


def test_the_list_of_gets_is_whole(client: httpx.Client) -> None:
    described = {path for path, item in client.get("/openapi.json").json()["paths"].items() if "get" in item}
    assert {path.format(name="credit", version="3") for path in described} <= {*GETS}


@pytest.mark.parametrize("path", GETS)
def test_a_head_is_the_head_of_the_get_and_the_connection_goes_on(path: str, url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=3)
    seen = []
    for method in ("HEAD", "GET"):
        connection.request(method, path, headers=TOKEN)
        answer = connection.getresponse()
        seen.append((answer.status, answer.headers["content-type"], answer.headers["x-evergreen-version"]))
        assert bool(answer.read()) is (method == "GET")
    connection.close()
    assert seen[0] == seen[1]


def test_the_head_of_a_post_is_refused_at_once(client: httpx.Client) -> None:
    assert client.head("/predict").status_code == 405


def test_a_head_that_closes_is_answered_before_it_does(url: str) -> None:
    assert speak(url, b"HEAD /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def speak(url: str, request: bytes) -> bytes:
    """All that is answered before the server closes."""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=3) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))


async def test_each_chunk_of_a_streamed_answer_is_sent_when_it_is_made(tmp_path: Path) -> None:
    """The head before there is a body, and the last chunk though it ends as a head does."""
    more = asyncio.Event()

    async def iterate_lines() -> AsyncIterator[str]:
        await more.wait()
        yield "one"

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(iterate_lines())(scope, receive, send)

    [port] = free_ports(1)
    policy = ConnectionPolicy(open_service(Settings(slot="blue", serving_dir=tmp_path, port=port)), ())
    made: Any = partial(Connection, policy)
    server = uvicorn.Server(uvicorn.Config(stream, http=made, port=port, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    await asyncio.to_thread(wait_for, lambda: server.started)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    async with asyncio.timeout(3):
        assert b"chunked" in await reader.readuntil(b"\r\n\r\n")
        more.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n0\r\n\r\n"
    writer.close()
    server.should_exit = True
    await serving


@pytest.mark.parametrize("host", ["evil.example.org", "127.0.0.1"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/predict/"), ("POST", "/predict//"), ("GET", "/ready/"), ("GET", "/v2/"), ("GET", "/v2/models/credit/")],
)
def test_a_slash_at_the_end_changes_nothing_and_leads_nowhere(
    method: str, path: str, host: str, client: httpx.Client
) -> None:
    body = BODY if method == "POST" else None
    told = client.request(method, path, json=body, headers={"host": host})
    same = client.request(method, path.rstrip("/"), json=body)
    assert "location" not in told.headers and told.status_code == same.status_code == 200
    assert told.json() == same.json()


def test_a_slash_at_the_end_opens_no_door(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as stranger:
        assert stranger.post("/predict/", json=BODY).status_code == 401
        assert stranger.post("/admin/reload/").status_code == 403


def test_a_browser_may_ask_from_the_pages_that_are_named(browser: httpx.Client) -> None:
    """It asks first, without a token; then it shows the script the answer, a refusal too."""
    asks = {"origin": PAGE, "access-control-request-method": "POST", "authorization": ""}
    before = browser.options("/predict", headers={**asks, "access-control-request-headers": "authorization,x-key"})
    assert before.status_code == 200 and before.headers["access-control-allow-origin"] == PAGE
    assert before.headers["access-control-allow-headers"] == "authorization,x-key"
    for content, headers, status in ((BODY, {}, 200), ({}, {}, 422), (BODY, {"authorization": ""}, 401)):
        answer = browser.post("/predict", json=content, headers={"origin": PAGE, **headers})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)
        assert "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin", ["app.example.org", "https://app.example.org/", "https://App.example.org", "https://*"]
)
def test_an_origin_that_no_browser_sends_is_no_setting(origin: str, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "pipeline.yaml", {"serving.cors_origins": [origin]})
    with pytest.raises(ManifestInvalid, match=r"serving\.cors_origins.*write it as browsers do"):
        load(path)


def test_a_browser_is_not_told_of_other_pages(browser: httpx.Client) -> None:
    answer = browser.post("/predict", json=BODY, headers={"origin": "https://evil.example.org"})
    assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers
    asks = {"origin": "https://evil.example.org", "access-control-request-method": "POST"}
    assert browser.options("/predict", headers=asks).status_code == 400


def test_without_a_token_the_fast_lane_shows_a_browser_the_same(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "pipeline.yaml", {"serving.cors_origins": ["*"]})
    with model_server(tmp_path, EVERGREEN_MANIFEST=str(manifest)) as url:
        answer = httpx.post(f"{url}/predict", json=BODY, headers={"origin": PAGE}, trust_env=False)
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "*"
        plain = httpx.post(f"{url}/predict", json=BODY, trust_env=False)
        assert plain.json() == answer.json() and "access-control-allow-origin" not in plain.headers


@pytest.mark.parametrize("host", [b"host: x\r\n", b""], ids=["a host", "no host"])
def test_http_1_0_is_answered_by_a_slot_itself(host: bytes, url: str) -> None:
    """So a Service of Kubernetes, which has no proxy of its own, takes it unasked."""
    body = json.dumps(BODY).encode()
    head = b"POST /predict HTTP/1.0\r\n%sauthorization: %s\r\ncontent-length: %d\r\n\r\n"
    answer = speak(url, head % (host, TOKEN["authorization"].encode(), len(body)) + body)
    assert answer.split()[1] == b"200" and b"transfer-encoding" not in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["version"] == "3"
