"""The server as it runs: a process of its own, asked over HTTP; and, where a process adds nothing, in this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from include.serving.app import create_app
from include.serving.settings import Settings
from include.serving.wiring import open_service
from tests import credit

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def process(directory: Path, slot: str = "blue") -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    port = _free_port()
    told = {"EVERGREEN_SLOT": slot, "EVERGREEN_SERVING_DIR": str(directory), "EVERGREEN_PORT": str(port)}
    with (directory / f"{slot}.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "include.serving"], cwd=ROOT, env={**os.environ, **told}, stderr=log
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        try:
            _await_health(client, server)
            yield client, server
        finally:
            server.kill()
            server.wait()


@pytest.fixture
def client(stage: Any, tmp_path: Path) -> TestClient:
    stage("blue")
    return _in_process(tmp_path, max_body_bytes=2000, max_rows=10)


def test_a_slot_process_serves_what_the_training_computed(stage: Any, tmp_path: Path) -> None:
    stage("blue")
    rows = credit.rows()[:200]
    with process(tmp_path) as (client, server):
        answer = client.post("/predict", json={"rows": rows}, headers={"x-request-id": "r-1"})
        assert answer.status_code == 200
        served = [prediction["probability"] for prediction in answer.json()["predictions"]]
        assert served == pytest.approx(credit.trained("boosting").predict_proba(rows), abs=1e-12)
        assert _names(answer) == ("3", "blue", "r-1")
        server.send_signal(signal.SIGTERM)
        assert server.wait(5) in (0, -signal.SIGTERM)


def test_a_tampered_slot_stays_up_says_why_and_recovers_with_the_artifact(stage: Any, tmp_path: Path) -> None:
    model_file = tmp_path / "artifacts" / stage("blue") / "model.skops"
    original = model_file.read_bytes()
    model_file.write_bytes(original[:-1] + b"x")
    with process(tmp_path) as (client, _):
        ready = client.get("/ready")
        assert ready.status_code == 503 and "has the digest" in ready.json()["error"]["message"]
        assert client.get("/health").status_code == 200
        assert "has the digest" in (tmp_path / "blue.log").read_text()
    model_file.write_bytes(original)
    assert _in_process(tmp_path).get("/ready").status_code == 200


def test_an_empty_slot_is_alive_and_not_ready(tmp_path: Path) -> None:
    client = _in_process(tmp_path, slot="green")
    assert client.get("/health").status_code == 200
    for answer in (client.get("/ready"), client.post("/predict", json={"row": {}})):
        assert answer.status_code == 503
        assert answer.json() == {"error": {"message": "The slot is empty; stage a release into it."}}
        assert _names(answer)[:2] == ("none", "green")
    assert client.get("/model").json()["state"] == "empty"


def test_an_empty_slot_does_not_load_scikit_learn(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from include.serving.app import create_app;"
        "from include.serving.settings import Settings; from include.serving.wiring import open_service;"
        f"create_app(open_service(Settings(slot='blue', serving_dir=Path({str(tmp_path)!r}), port=0)));"
        "print([name for name in ('sklearn', 'pandas', 'mlflow', 'airflow', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_one_row_is_answered_with_probability_label_and_decision(client: TestClient) -> None:
    answer = client.post("/predict", json={"row": credit.rows()[0]}).json()
    probability = float(credit.trained("boosting").predict_proba(credit.rows()[:1])[0])
    expected = {"probability": pytest.approx(probability), "label": "good", "decision": False}
    assert answer == {"version": "3", "slot": "blue", "served_by": "model", "predictions": [expected]}


def test_the_model_describes_itself_without_its_golden_rows(client: TestClient) -> None:
    told = client.get("/model").json()
    assert (told["state"], told["name"], told["version"], told["slot"]) == ("loaded", "credit", "3", "blue")
    assert {"digest", "generation", "threshold", "columns", "loaded_at"} <= set(told) and "golden" not in told


def _socket(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 80))


def test_a_body_announced_as_too_long_is_not_waited_for(stage: Any, tmp_path: Path) -> None:
    stage("blue")
    with (
        process(tmp_path) as (client, _),
        socket.create_connection((client.base_url.host, client.base_url.port)) as sock,
    ):
        sock.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000000\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 413 ")


BAD: list[tuple[str, int, bytes]] = [
    ("no JSON", 400, b"s3cret"),
    ("too large", 413, b'{"rows": "' + b"s3cret" * 1000 + b'"}'),
    ("wrong type", 422, b'{"row": {"Age": "s3cret"}}'),
    ("unknown column", 422, b'{"row": {"s3cret-": 1}}'),
    ("a required value missing", 422, b'{"row": {"Age": 31337}}'),
]


@pytest.mark.parametrize(("what", "status", "body"), BAD, ids=[case[0] for case in BAD])
def test_a_refusal_carries_the_headers_and_nothing_of_the_request(
    what: str, status: int, body: bytes, client: TestClient
) -> None:
    answer = client.post("/predict", content=body, headers={"x-request-id": "abc"})
    assert answer.status_code == status
    assert set(answer.json()["error"]) >= {"message"}
    assert "s3cret" not in answer.text and "31337" not in answer.text
    assert _names(answer) == ("3", "blue", "abc")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/predict", 405)])
def test_a_wrong_address_is_answered_in_the_same_shape(method: str, path: str, status: int, client: TestClient) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status and answer.json()["error"]["message"].endswith("what this server holds.")
    assert _names(answer)[:2] == ("3", "blue")


def test_a_crash_of_the_model_is_an_answer_with_headers(client: TestClient, monkeypatch: Any) -> None:
    monkeypatch.setattr("include.model.features.apply", lambda *_: 1 / 0)
    answer = client.post("/predict", json={"row": {"Amount": 1}})
    assert answer.status_code == 500 and "log has the reason" in answer.json()["error"]["message"]
    assert _names(answer)[:2] == ("3", "blue")


@pytest.mark.parametrize(("sent", "echoed"), [("a b;c\x7f", "abc"), ("x" * 300, "x" * 64)])
def test_a_request_id_is_echoed_without_what_could_forge_a_line(sent: str, echoed: str, client: TestClient) -> None:
    assert client.get("/health", headers={"x-request-id": sent}).headers["x-request-id"] == echoed


def test_a_request_without_an_id_gets_one(client: TestClient) -> None:
    first, second = (client.get("/health").headers["x-request-id"] for _ in range(2))
    assert first != second and len(first) == 32


def test_metrics_tell_requests_scores_and_unseen_categories_by_version_and_slot(client: TestClient) -> None:
    client.post("/predict", json={"rows": [{"Amount": 1, "Job": "clown"}, {"Amount": 2}]})
    client.post("/predict", content=b"no")
    client.get("/made/up")
    text = client.get("/metrics").text
    for path, status in (("/predict", 200), ("/predict", 400), ("other", 404)):
        assert f'evergreen_requests_total{{path="{path}",slot="blue",status="{status}",version="3"}} 1.0' in text
    assert 'evergreen_score_count{slot="blue",version="3"} 2.0' in text
    assert 'evergreen_unseen_categories_total{column="Job",slot="blue",version="3"} 1.0' in text
    assert 'evergreen_ready{slot="blue",version="3"} 1.0' in text


def _in_process(directory: Path, slot: str = "blue", **limits: int) -> TestClient:
    told = {"slot": slot, "serving_dir": directory, "port": 0, **limits}
    return TestClient(create_app(open_service(Settings.model_validate(told))), raise_server_exceptions=False)


def _names(answer: httpx.Response) -> tuple[str, str, str]:
    headers = answer.headers
    return headers["x-evergreen-version"], headers["x-evergreen-slot"], headers["x-request-id"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_health(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and server.poll() is None:
        try:
            client.get("/health")
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"the server did not come up, exit code {server.poll()}")
