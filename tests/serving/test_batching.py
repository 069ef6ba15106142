"""Requests share a call of the model, and neither its failures nor each other's rows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from include.serving.exchange import Row
from include.serving.predict.batching import Batcher, DeadlineExceeded, ModelFailed, RowsFailed, ask

CONTROL: Row = {"p": 0.5}


class Model:
    """Answers each row's own `p`, remembers its batches, waits where it is told to, and breaks on a row of poison."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def __call__(self, rows: Sequence[Row]) -> np.ndarray[Any, Any]:
        assert self.gate.wait(10)
        if self.broken or any(row.get("poison") for row in rows):
            raise ZeroDivisionError("s3cret")
        self.batches.append(len(rows))
        return np.array([row["p"] for row in rows], dtype=float)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def soon(seconds: float = 10) -> float:
    return time.monotonic() + seconds


async def test_what_waits_at_the_same_time_is_one_batch_and_everybody_gets_his_own() -> None:
    model = Model()
    batcher = Batcher(model, CONTROL, 100)
    sent = [[{"p": i / 100}, {"p": i / 200}] for i in range(30)]
    found = await asyncio.gather(*(batcher.submit(rows, soon()) for rows in sent))
    assert found == [[row["p"] for row in rows] for rows in sent]
    assert model.batches == [60]


async def test_a_batch_ends_where_it_is_full_and_a_long_request_stays_whole() -> None:
    model = Model()
    batcher = Batcher(model, CONTROL, 5)
    await asyncio.gather(*(batcher.submit([CONTROL] * rows, soon()) for rows in (2, 2, 2, 9)))
    assert sorted(model.batches) == [2, 4, 9]


async def test_the_thread_drains_what_came_while_it_worked(thread: ThreadPoolExecutor) -> None:
    model = Model()
    batcher = Batcher(model, CONTROL, 100, thread=thread)
    model.gate.clear()
    first = asyncio.create_task(batcher.submit([CONTROL], soon()))
    await asyncio.sleep(0.05)  # the thread has it now, and waits
    rest = [asyncio.create_task(batcher.submit([CONTROL], soon())) for _ in range(20)]
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(first, *rest)
    assert model.batches == [1, 20]


@pytest.mark.parametrize("apart", [False, True])
async def test_a_row_that_breaks_the_model_harms_its_own_request_alone(apart: bool, thread: ThreadPoolExecutor) -> None:
    batcher = Batcher(Model(), CONTROL, 100, thread=thread if apart else None)
    rows: list[list[Row]] = [[{"p": 0.1}], [{"p": 0.2}, {"poison": 1.0}], [{"p": 0.3}]]
    found = await asyncio.gather(*(batcher.submit(each, soon()) for each in rows), return_exceptions=True)
    assert (found[0], found[2]) == ([0.1], [0.3])
    assert isinstance(found[1], RowsFailed)
    assert "ZeroDivisionError at" in str(found[1]) and "s3cret" not in str(found[1])


async def test_a_model_that_fails_on_a_row_it_knows_has_failed_itself() -> None:
    model = Model()
    model.broken = True
    with pytest.raises(ModelFailed):
        await Batcher(model, CONTROL, 100).submit([{"p": 0.1}], soon())


@pytest.mark.parametrize("wrong", [[float("nan")], [1.5], [-0.1], [0.5, 0.5]])
def test_an_answer_that_is_no_probability_is_a_failure(wrong: list[float]) -> None:
    [result], _ = ask(lambda rows: np.array(wrong), [[CONTROL]], CONTROL)
    assert isinstance(result, ModelFailed)


async def test_a_client_that_leaves_takes_nobody_with_it(thread: ThreadPoolExecutor) -> None:
    model = Model()
    batcher = Batcher(model, CONTROL, 100, thread=thread)
    model.gate.clear()
    asked = [asyncio.create_task(batcher.submit([{"p": i / 10}], soon())) for i in range(5)]
    await asyncio.sleep(0.05)
    asked[0].cancel()  # its batch is being computed
    asked[3].cancel()  # it is still queued
    model.gate.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [found[i] for i in (1, 2, 4)] == [[0.1], [0.2], [0.4]]
    assert all(isinstance(found[i], asyncio.CancelledError) for i in (0, 3))


async def test_a_deadline_ends_the_wait_for_a_slow_model(thread: ThreadPoolExecutor) -> None:
    model = Model()
    batcher = Batcher(model, CONTROL, 100, thread=thread)
    model.gate.clear()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await batcher.submit([CONTROL], soon(0.1))
    assert time.monotonic() - began < 2
    model.gate.set()
    assert await batcher.submit([CONTROL], soon()) == [0.5]


async def test_a_request_past_its_deadline_is_not_computed() -> None:
    model = Model()
    with pytest.raises(DeadlineExceeded):
        await Batcher(model, CONTROL, 100).submit([CONTROL], time.monotonic() - 1)
    assert model.batches == []


def test_a_model_is_quick_once_enough_calls_were_short_and_while_nobody_shares_them() -> None:
    batcher = Batcher(lambda rows: np.full(len(rows), 0.5), {}, 100)

    def calls(count: int, seconds: float, requests: int = 1) -> None:
        for _ in range(count):
            batcher._update_pace(requests, seconds, requests)

    assert not batcher.is_quick(1), "nothing is known"
    calls(5, 0.005)
    assert not batcher.is_quick(1)
    calls(20, 0.005)
    assert batcher.is_quick(1) and not batcher.is_quick(5), "five rows take five times as long, as far as is known"
    calls(1, 0.005, requests=2)
    assert not batcher.is_quick(1), "together they are cheaper"
    calls(1, 0.005)
    assert batcher.is_quick(1)
    calls(1, 0.5)
    assert not batcher.is_quick(1), "one long call is remembered for a while"
    calls(40, 0.005)
    assert batcher.is_quick(1)
