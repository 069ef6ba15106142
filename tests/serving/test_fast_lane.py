"""The fast lane answers what the usual way answers, and leaves to it what is special."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from include.model import artifact
from include.model.compiled import compiling
from include.serving.app import create_app
from include.serving.endpoints.prediction import LONG_BODY, Endpoint
from include.serving.predict.batching import Batcher
from include.serving.predict.scoring import MAX_INLINE_ROWS
from include.serving.service import Service
from include.serving.settings import Settings
from include.serving.transport.fast_path import TOGETHER, FastPath, FastRequest, build_fast_path
from include.serving.wiring import open_service
from tests import credit
from tests.model_server import model_server
from tests.serving.conftest import stage_in

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


Make = Callable[..., tuple[FastPath, Service]]


@pytest.fixture
def lane(tmp_path: Path) -> Make:
    def made(compiled: bool = True, **told: str) -> tuple[FastPath, Service]:
        trained, source = credit.trained("boosting"), tmp_path / "source"
        if compiled:
            artifact.save_compiled(compiling.compile_pipeline(trained.pipeline), trained.meta, source)
        else:
            artifact.save(trained.pipeline, trained.meta, source)
        stage_in(tmp_path, source, "blue")
        settings = Settings(slot="blue", serving_dir=tmp_path, port=1, unblessed="allow", **told)
        service = open_service(settings)
        found = build_fast_path(create_app(service), service)
        assert found
        return found, service

    return made


class Client:
    """A connection: what it was sent, by request; `anew` are those that are to be tasks."""

    common = COMMON

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.anew = 0
        self.waiting: FastRequest | None = None

    def is_awaiting(self, request: FastRequest) -> bool:
        return self.waiting is request

    def answer(self, request: FastRequest, data: bytes) -> None:
        self.waiting = None
        self.answers.append(data)

    def begin_anew(self, request: FastRequest) -> None:
        self.waiting = None
        self.anew += 1


def offer(lane: FastPath, body: bytes = GOOD, **headers: str) -> Client:
    """A request that is whole, on a connection of its own."""
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    client, now = Client(), time.monotonic()
    client.waiting = FastRequest(client, "/predict", sent, now, bytearray(body), now)
    lane.offer(client.waiting)
    return client


def ask(lane: FastPath, body: bytes = GOOD, **headers: str) -> bytes | None:
    """The answer of the same turn; None where the request is begun anew."""
    lane._rested = 0.0  # however soon after the last one: it is alone
    client = offer(lane, body, **headers)
    assert client.anew == 1 - len(client.answers), "one of the two, and at once"
    return client.answers[0] if client.answers else None


async def turn() -> None:
    await asyncio.sleep(0)


async def test_one_that_comes_alone_is_answered_before_the_next_is_looked_at(lane: Make) -> None:
    one, _ = lane()
    first = ask(one, x_request_id="mine")
    assert first and first.startswith(b"HTTP/1.1 200 OK\r\ndate: today\r\n") and b"x-request-id: mine\r\n" in first


async def test_those_that_come_behind_it_in_the_same_turn_share_one_call_of_the_model(lane: Make) -> None:
    one, service = lane()
    alone = offer(one)
    behind = [offer(one, x_request_id=str(number)) for number in range(3)]
    assert len(alone.answers) == 1 and one.waiting == 3 and not any(each.answers for each in behind)
    calls = batches(service)
    await turn()
    assert [each.answers[0].count(b"x-request-id: %d\r\n" % number) for number, each in enumerate(behind)] == [1] * 3
    assert (one.waiting, batches(service) - calls) == (0, 1)
    first = offer(one)
    assert not first.answers, "where many came, more are expected"
    await turn()
    assert first.answers and offer(one).answers == []


def batches(service: Service) -> int:
    lines = service.metrics.render().decode().splitlines()
    return int(float(next(line.split()[-1] for line in lines if line.startswith("evergreen_batch_rows_count"))))


async def test_more_than_fit_into_a_turn_are_answered_in_the_next_one(lane: Make) -> None:
    one, _ = lane()
    offer(one)
    many = [offer(one) for _ in range(TOGETHER + 1)]
    await turn()
    assert [len(each.answers) for each in many] == [1] * TOGETHER + [0]
    await turn()
    assert many[-1].answers


async def test_whoever_hung_up_meanwhile_is_counted_and_left_alone(lane: Make) -> None:
    one, service = lane()
    offer(one)
    gone, stays = offer(one), offer(one)
    gone.waiting = None
    await turn()
    assert (gone.answers, gone.anew, len(stays.answers)) == ([], 0, 1)
    assert 'path="/predict",slot="blue",status="499"' in service.metrics.render().decode()


async def test_what_is_wrong_with_a_body_is_told_at_once_and_harms_nobody_else(lane: Make) -> None:
    one, _ = lane()
    answer = ask(one, b"[]")
    assert answer and answer.startswith(b"HTTP/1.1 422 ")
    bad, good = offer(one, b"{"), offer(one)
    await turn()
    assert bad.answers[0].startswith(b"HTTP/1.1 400 ") and good.answers[0].startswith(b"HTTP/1.1 200 ")


async def test_a_deadline_that_has_passed_is_a_task(lane: Make) -> None:
    one, _ = lane()
    assert ask(one, x_evergreen_timeout_ms="0") is None


async def test_more_rows_than_the_event_loop_takes_are_a_task(lane: Make) -> None:
    one, _ = lane()
    assert ask(one, json.dumps({"rows": credit.rows()[: MAX_INLINE_ROWS + 1]}).encode()) is None


async def test_a_model_that_takes_long_or_fails_is_a_task(lane: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    generic, _ = lane(compiled=False)
    slow = offer(generic)
    await turn()
    assert slow.anew == 1
    one, service = lane()
    monkeypatch.setattr(type(service.current_model.slot.model), "predict_proba", lambda self, rows: rows.nonsense)  # type: ignore[union-attr]
    assert ask(one) is None
    assert service.scorer.waiting == 0


async def test_our_own_failure_loses_nobody(lane: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = lane()
    monkeypatch.setattr(Endpoint, "record_and_render", lambda *_: 1 / 0)
    assert ask(one) is None
    monkeypatch.undo()
    assert ask(one)


async def test_a_generic_model_is_waited_for_where_it_is_quick_and_one_asks(
    lane: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = lane(compiled=False)
    monkeypatch.setattr(Batcher, "is_quick", lambda self, rows: rows <= 4)
    alone = offer(one)
    assert not alone.answers, "others may have come while the model was asked"
    await turn()
    assert alone.answers[0].startswith(b"HTTP/1.1 200 OK\r\n")
    large = offer(one, json.dumps({"rows": [ROW] * 5}).encode())
    await turn()
    assert large.anew == 1
    together = [offer(one), offer(one)]
    await turn()
    assert [each.anew for each in together] == [1, 1]


async def test_only_short_predictions_of_known_length_take_it_and_none_while_the_server_leaves(lane: Make) -> None:
    one, service = lane()
    short = [(b"content-length", b"10")]
    assert one.may_take("/predict", short) and one.may_take("/v2/models/credit/infer", short)
    assert not one.may_take("/predict-and-explain", short)
    assert not one.may_take("/feedback", short)
    assert not one.may_take("/predict", [])
    assert not one.may_take("/predict", [(b"content-length", str(LONG_BODY + 1).encode())])
    assert not one.may_take("/predict", [(b"content-length", "\N{SUPERSCRIPT TWO}".encode())])
    service.current_model.is_shutting_down = True
    assert not one.may_take("/predict", short)


def test_there_is_none_where_clients_need_tokens(tmp_path: Path) -> None:
    settings = Settings(slot="blue", serving_dir=tmp_path, port=1, api_tokens="team:0123456789abcdef")
    service = open_service(settings)
    assert build_fast_path(create_app(service), service) is None
