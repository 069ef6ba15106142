"""What a client can hold open, and what it is told under load and at the end: one real server, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from tenacity import retry, stop_after_delay, wait_fixed

from include.manifest import DEFAULT_PATH
from include.model import artifact
from include.model.compiled import compiling
from tests import credit, load
from tests.serving.conftest import stage_in

ROOT = Path(__file__).resolve().parents[2]
QUEUE_ROWS = 6
BEHAVIOUR = {"read_timeout_s": 1.5, "drain_s": 1.5, "queue_rows": QUEUE_ROWS}
BODY = json.dumps({"row": credit.rows()[0]}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\ncontent-length: %d\r\n\r\n"


class Server:
    """A model server's process."""

    def __init__(self, directory: Path, manifest: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        told = {"SLOT": "blue", "SERVING_DIR": directory, "PORT": self.port, "MANIFEST": manifest}
        env = {**os.environ, **{f"EVERGREEN_{name}": str(value) for name, value in told.items()}}
        self.process = subprocess.Popen([sys.executable, "-m", "include.serving"], cwd=ROOT, env=env)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False)

    @retry(stop=stop_after_delay(60), wait=wait_fixed(0.05), reraise=True)
    def await_ready(self) -> None:
        assert self.http.get("/ready").status_code == 200

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=8)

    def end(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A serving directory with a compiled model, and a manifest that is quick to lose its patience."""
    place, trained = tmp_path_factory.mktemp("serving"), credit.trained("boosting")
    artifact.save_compiled(compiling.compile_pipeline(trained.pipeline), trained.meta, place / "source")
    stage_in(place, place / "source", "blue")
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content["serving"] |= BEHAVIOUR
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content))
    return place


def started(place: Path) -> Iterator[Server]:
    server = Server(place, place / "pipeline.yaml")
    try:
        server.await_ready()
        yield server
    finally:
        server.end()


server = pytest.fixture(started, scope="module", name="server")
leaving = pytest.fixture(started, name="leaving")


def everything(sock: socket.socket) -> bytes:
    """What comes until the server closes; a timeout if it does not."""
    found = b""
    while chunk := sock.recv(65536):
        found += chunk
    return found


HALF_OPEN = {
    "nothing at all": (b"", b""),
    "half a request line": (b"POST /pre", b"408"),
    "half a head": (b"POST /predict HTTP/1.1\r\nhost: x\r\n", b"408"),
    "half a body": (HEAD % 100 + b'{"row"', b"408"),
    "a chunk and no more": (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"408",
    ),
    "a second request's half": (HEAD % len(BODY) + BODY + b"POST /predict HT", b"408"),
}


@pytest.mark.parametrize(("sent", "told"), HALF_OPEN.values(), ids=HALF_OPEN)
def test_a_request_that_never_ends_is_closed(sent: bytes, told: bytes, server: Server) -> None:
    began = time.monotonic()
    with server.connect() as sock:
        sock.sendall(sent)
        found = everything(sock)
    assert time.monotonic() - began < 5
    last = found.rpartition(b"HTTP/1.1 ")[2]
    assert last.startswith(told) and (not told or b"x-evergreen-version: 3" in last)


def test_a_byte_now_and_then_buys_no_time(server: Server) -> None:
    began = time.monotonic()
    with server.connect() as sock, pytest.raises(OSError):
        while time.monotonic() - began < 6:
            sock.sendall(b"P")
            time.sleep(0.1)
        pytest.fail("it is still open")


WRONG = {
    "no HTTP": (b"\x16\x03\x01\r\n\r\n", b"400"),
    "a length that is none": (b"POST /predict HTTP/1.1\r\ncontent-length: ten\r\n\r\n", b"400"),
    "a negative length": (b"POST /predict HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
    "two lengths": (b"POST /predict HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde", b"400"),
    "a length and chunks": (
        b"POST /predict HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"400",
    ),
    "an endless head": (b"POST /predict HTTP/1.1\r\n" + b"x: " + b"y" * 100_000, b"431"),
    "a body announced as too long": (HEAD % 10**10 + b"{", b"413"),
}


@pytest.mark.parametrize(("sent", "status"), WRONG.values(), ids=WRONG)
def test_what_is_no_good_request_is_told_so_at_once(sent: bytes, status: bytes, server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(sent)
        head, _, body = sock.recv(65536).partition(b"\r\n\r\n")
        body = body or sock.recv(65536)
    assert head.startswith(b"HTTP/1.1 " + status) and json.loads(body)["error"]["message"]
    assert b"x-evergreen-version: 3" in head


def test_requests_in_one_packet_are_answered_in_their_order(server: Server) -> None:
    with server.connect() as sock:
        wrong = HEAD.replace(b"mine", b"second") % 2 + b"{}"
        sock.sendall(HEAD % len(BODY) + BODY + wrong + b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")
        found = everything(sock)
    answers = found.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"422", b"200"]
    assert b"x-request-id: mine" in answers[0] and b"x-request-id: second" in answers[1]


def test_beyond_the_queue_requests_are_refused_and_probes_and_the_rest_are_answered(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/predict"
    found = load.run(load.Plan(url, [BODY], connections=64, seconds=2, keep=True))
    assert set(found.statuses) == {200, 503} and not found.failures
    assert found.statuses[200] > 50
    refused = json.loads(next(body for body, status in zip(found.bodies, found.status, strict=True) if status == 503))
    assert "try again" in refused["error"]["message"]
    assert server.http.post("/predict", content=BODY).status_code == 200
    counted = 'evergreen_requests_total{path="/predict",slot="blue",status="503",version="3"}'
    told = next(line for line in server.http.get("/metrics").text.splitlines() if line.startswith(counted))
    assert float(told.split()[-1]) >= found.statuses[503]


def test_a_refusal_says_when_to_come_again_and_keeps_the_connection(server: Server) -> None:
    sockets = [server.connect() for _ in range(60)]
    refused = []
    while not refused:  # until so many come at once
        for sock in sockets:
            sock.sendall(HEAD % len(BODY) + BODY)
        answers = [sock.recv(65536) for sock in sockets]
        refused = [each for each in zip(sockets, answers, strict=True) if each[1].startswith(b"HTTP/1.1 503")]
    for sock, answer in refused:
        assert b"retry-after: 1" in answer and b"x-request-id: mine" in answer
        sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    for sock in sockets:
        sock.close()


def test_after_sigterm_ready_says_no_while_requests_are_answered_until_the_port_closes(leaving: Server) -> None:
    half = leaving.connect()
    half.sendall(HEAD % len(BODY) + BODY[:10])  # in flight all the while
    leaving.process.send_signal(signal.SIGTERM)
    await_drain(leaving)
    told = leaving.http.post("/predict", content=BODY)
    assert (told.status_code, told.headers["connection"]) == (200, "close")
    assert told.headers["x-envoy-immediate-health-check-fail"] == "true"
    half.sendall(BODY[10:])
    assert half.recv(65536).startswith(b"HTTP/1.1 200")
    half.close()
    assert leaving.process.wait(10) in (0, -signal.SIGTERM)
    with pytest.raises(httpx.ConnectError):
        leaving.http.get("/health")


@retry(stop=stop_after_delay(1), wait=wait_fixed(0.02), reraise=True)
def await_drain(server: Server) -> None:
    answer = server.http.get("/ready")
    assert answer.status_code == 503 and "shutting down" in answer.json()["error"]["message"]
