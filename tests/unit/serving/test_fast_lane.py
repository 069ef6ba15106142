"""The fast lane answers what the usual way answers, and leaves to it what is special."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from include.model import artifact, compiling
from include.serving.app import create_app, serve_slot
from include.serving.endpoint import LONG_BODY, Service
from include.serving.fast_lane import FastLane, fast_lane
from include.serving.scoring import Asked
from include.serving.settings import Settings
from include.serving.slot import Loaded
from tests.model_server import model_server
from tests.unit import credit
from tests.unit.serving.conftest import stage_in

ROW = credit.rows()[0]
GOOD = json.dumps({"row": ROW}).encode()
INSTANCES = json.dumps({"dataframe_records": [ROW]}).encode()
COMMON = [(b"date", b"today")]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with model_server(tmp_path_factory.mktemp("server")) as url:
        yield url


REQUESTS = {
    "one row": ("/predict", GOOD),
    "rows": ("/predict?a=b", json.dumps({"rows": credit.rows()[:5]}).encode()),
    "too many for the event loop": ("/predict", json.dumps({"rows": credit.rows()[:70]}).encode()[:LONG_BODY]),
    "no body": ("/predict", b""),
    "no JSON": ("/predict", b"{"),
    "an unknown column": ("/predict", json.dumps({"row": {**ROW, "Shoes": 1}}).encode()),
    "MLflow's dialect": ("/invocations", INSTANCES),
    "a model that is not held": ("/v2/models/other/infer", b"{}"),
    "a path that is none": ("/predictions", GOOD),
}


@pytest.mark.parametrize(("path", "body"), REQUESTS.values(), ids=REQUESTS)
def test_a_body_that_came_whole_is_answered_as_one_that_came_in_chunks(url: str, path: str, body: bytes) -> None:
    """Chunks have no length that is known before, so they always go the usual way."""
    told = {"content-type": "application/json", "x-request-id": "mine"}
    with httpx.Client(base_url=url, trust_env=False) as client:
        whole = client.post(path, content=body, headers=told)
        chunks = client.post(path, content=iter([body[:9], body[9:]]), headers=told)
    assert (whole.status_code, whole.content) == (chunks.status_code, chunks.content)
    assert {**whole.headers, "date": ""} == {**chunks.headers, "date": ""}


def test_every_request_is_counted_once(url: str) -> None:
    def counted() -> float:
        lines = httpx.get(f"{url}/metrics", trust_env=False).text.splitlines()
        name = 'evergreen_requests_total{path="/predict",slot="blue",status="200",version="3"}'
        return float(next((line.split()[-1] for line in lines if line.startswith(name)), 0))

    before = counted()
    with httpx.Client(base_url=url, trust_env=False) as client:
        for body in (GOOD, iter([GOOD]), GOOD):
            assert client.post("/predict", content=body).is_success
    assert counted() == before + 3


# --- the lane by itself ----------------------------------------------------------------------------------------------


Make = Callable[..., tuple[FastLane, Service]]


@pytest.fixture
def lane(tmp_path: Path) -> Make:
    def made(compiled: bool = True, **told: str) -> tuple[FastLane, Service]:
        trained, source = credit.trained("boosting"), tmp_path / "source"
        if compiled:
            artifact.save_compiled(compiling.compiled(trained.pipeline), trained.meta, source)
        else:
            artifact.save(trained.pipeline, trained.meta, source)
        stage_in(tmp_path, source, "blue")
        settings = Settings(slot="blue", serving_dir=tmp_path, port=1, unblessed="allow", **told)
        service = serve_slot(settings)
        found = fast_lane(create_app(settings, service), service)
        assert found
        return found, service

    return made


def ask(lane: FastLane, body: bytes = GOOD, **headers: str) -> bytes | None:
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return lane.answer("/predict", sent, body, time.monotonic(), COMMON)


async def turn() -> None:
    await asyncio.sleep(0)


async def test_one_request_a_turn_is_answered_at_once(lane: Make) -> None:
    one, _ = lane()
    first = ask(one, x_request_id="mine")
    assert first and first.startswith(b"HTTP/1.1 200 OK\r\ndate: today\r\n") and b"x-request-id: mine\r\n" in first
    assert ask(one) is None
    await turn()
    assert ask(one)


async def test_what_is_wrong_with_a_body_is_told_at_once(lane: Make) -> None:
    one, _ = lane()
    answer = ask(one, b"[]")
    assert answer and answer.startswith(b"HTTP/1.1 422 ")


async def test_while_others_wait_it_is_a_task(lane: Make) -> None:
    one, service = lane()
    service.scorer.waiting = 1
    assert ask(one) is None


async def test_a_deadline_that_has_passed_is_a_task(lane: Make) -> None:
    one, _ = lane()
    assert ask(one, x_evergreen_timeout_ms="0") is None


async def test_a_model_that_takes_long_or_fails_is_a_task(lane: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    generic, _ = lane(compiled=False)
    assert ask(generic) is None
    one, service = lane()
    monkeypatch.setattr(type(service.holder.slot.model), "predict_proba", lambda self, rows: rows.nonsense)  # type: ignore[union-attr]
    assert ask(one) is None
    assert service.scorer.waiting == 0


async def test_a_generic_model_is_waited_for_once_its_calls_are_known_to_be_short_and_nobody_shares_them(
    lane: Make,
) -> None:
    one, service = lane(compiled=False)
    held = service.holder.slot
    assert isinstance(held, Loaded)

    async def scored(requests: int) -> None:
        now = time.monotonic()
        asked = [Asked(str(number), None, now + 10, now) for number in range(requests)]
        rows = held.inputs.checked([ROW])
        assert isinstance(rows, list)
        await asyncio.gather(*(service.scorer.score(held, rows, each) for each in asked))

    for _ in range(100):  # some twenty, but the machine may pause
        await scored(1)
        if answer := ask(one):
            break
    assert answer and answer.startswith(b"HTTP/1.1 200 OK\r\n")
    await turn()
    assert ask(one, json.dumps({"rows": [ROW] * 64}).encode()) is None, "they take as much longer"
    await turn()
    assert ask(one)
    await scored(2)
    assert ask(one) is None, "two came together"
    await scored(1)
    assert ask(one)


async def test_only_short_predictions_of_known_length_take_it_and_none_while_the_server_leaves(lane: Make) -> None:
    one, service = lane()
    short = [(b"content-length", b"10")]
    assert one.may_take("/predict", short) and one.may_take("/v2/models/credit/infer", short)
    assert not one.may_take("/predict-and-explain", short)
    assert not one.may_take("/feedback", short)
    assert not one.may_take("/predict", [])
    assert not one.may_take("/predict", [(b"content-length", str(LONG_BODY + 1).encode())])
    assert not one.may_take("/predict", [(b"content-length", "\N{SUPERSCRIPT TWO}".encode())])
    service.holder.draining = True
    assert not one.may_take("/predict", short)


def test_there_is_none_where_clients_need_tokens(tmp_path: Path) -> None:
    settings = Settings(slot="blue", serving_dir=tmp_path, port=1, api_tokens="team:0123456789abcdef")
    service = serve_slot(settings)
    assert fast_lane(create_app(settings, service), service) is None
