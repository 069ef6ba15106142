"""Requests that wait for the model at the same time are asked of it in one call, whose price is mostly its fixed part.

What is queued when the model is free is the next batch; nothing waits for more to come. So a single client pays
nothing for it, and the batch grows by itself under load. Servers that wait for a batch by a timer lose that time at low
load (measured at one connection: BentoML nine, MLServer three times slower than without batching).

A compiled model is asked on the event loop: tens of microseconds, less than a change of threads costs. A generic one,
which takes milliseconds, has one thread of its own, so that probes are answered meanwhile; more threads would only
fight for the interpreter's lock. While its clients come one by one even that thread is a detour (4 % of the requests a
second), and a probe can wait for a call of some milliseconds: see `is_quick`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.serving.exchange import Row

Predict = Callable[[Sequence[Row]], NDArray[np.float64]]
TOLERANCE = 1e-6  # float32 runtimes add up to a little more than 1
DECAY = 0.9  # weight of the past in the pace, batch by batch
PRIOR_ROWS = 10.0  # that took no time: one early stall of the machine says little about a model
DEADLINE_SHARE = 0.1  # of the deadline that one batch may take
QUICK_S = 0.02  # of a model's call that the event loop may wait for
INITIAL_CALL_S = 0.1  # what a call is taken for before some have been measured


class DeadlineExceeded(Exception):
    """The deadline passed before the model was asked or had answered."""


class RowsFailed(Exception):
    """The model fails on this request's rows, and answers others."""


class ModelFailed(Exception):
    """The model fails on rows it is known to answer, too."""


@dataclass(slots=True)
class _QueuedRequest:
    rows: Sequence[Row]
    deadline: float
    future: asyncio.Future[list[float]]


class Batcher:
    """Collects requests for one model. `thread` is where it is asked; None is the event loop itself.

    `control` is a row the model is known to answer: by it a bad model is told from a bad row. `measured` is called with
    the rows of every batch.
    """

    def __init__(
        self,
        predict: Predict,
        control: Row,
        max_rows: int,
        record_batch: Callable[[int], None] = lambda rows: None,
        thread: Executor | None = None,
    ) -> None:
        self._predict, self._control, self._max_rows = predict, control, max_rows
        self._record_batch, self._thread = record_batch, thread
        self._queue: deque[_QueuedRequest] = deque()
        self._busy = False
        self._seconds, self._rows = 0.0, PRIOR_ROWS
        self._call_s, self._was_alone = (
            INITIAL_CALL_S,
            True,
        )  # the longest of late; whether the last one was for one request

    def is_quick(self, rows: int) -> bool:
        """Whether the event loop may ask the model for so many rows itself: it is at rest, each of its last calls was
        short, and nobody shared the last one, for together requests cost a fraction.

        A call that takes long after all holds up the loop and its probes once; then the thread is asked again.
        """
        short = max(self._call_s, rows * self.pace) <= QUICK_S
        return short and self._was_alone and not self._busy

    @property
    def pace(self) -> float:
        """Seconds a row takes, of late; 0 before the first."""
        return self._seconds / self._rows

    async def submit(self, rows: Sequence[Row], deadline: float) -> list[float]:
        """A probability for each row. Raises `DeadlineExceeded` (deadline: monotonic seconds), `RowsFailed` or
        `ModelFailed`.
        """
        loop = asyncio.get_running_loop()
        waiting = _QueuedRequest(rows, deadline, loop.create_future())
        self._queue.append(waiting)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._drain)
        if self._thread is None:
            return await waiting.future
        alarm = loop.call_later(deadline - time.monotonic(), _settle, waiting.future, DeadlineExceeded())
        try:
            return await waiting.future
        finally:
            alarm.cancel()

    def predict_now(self, requests: Sequence[Sequence[Row]]) -> list[list[float] | Exception]:
        """What each is answered, past the queue and on this thread: probabilities, `RowsFailed` or `ModelFailed`."""
        results, seconds = ask(self._predict, requests, self._control)
        self._update_pace(sum(map(len, requests)), seconds, len(requests))
        return results

    def _drain(self) -> None:
        batch = self._take_batch()
        requests = [waiting.rows for waiting in batch]
        if not batch:
            self._busy = False
        elif self._thread is None:
            self._deliver(batch, *ask(self._predict, requests, self._control))
        else:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._thread, ask, self._predict, requests, self._control)
            future.add_done_callback(lambda done: self._deliver(batch, *done.result()))

    def _take_batch(self) -> list[_QueuedRequest]:
        """Who is still waiting, until the batch is full: by rows, or by the time it would take."""
        now, rows = time.monotonic(), 0
        batch: list[_QueuedRequest] = []
        while self._queue and (
            not batch or rows + len(self._queue[0].rows) <= self._compute_room(batch[0].deadline - now)
        ):
            waiting = self._queue.popleft()
            if waiting.future.done():  # its client is gone, or it was late
                continue
            if waiting.deadline <= now:
                waiting.future.set_exception(DeadlineExceeded())
                continue
            batch.append(waiting)
            rows += len(waiting.rows)
        return batch

    def _compute_room(self, seconds: float) -> float:
        return min(self._max_rows, DEADLINE_SHARE * seconds / self.pace) if self.pace else self._max_rows

    def _deliver(self, batch: list[_QueuedRequest], results: list[list[float] | Exception], seconds: float) -> None:
        self._update_pace(sum(len(waiting.rows) for waiting in batch), seconds, len(batch))
        for waiting, result in zip(batch, results, strict=True):
            _settle(waiting.future, result)
        if self._queue:
            asyncio.get_running_loop().call_soon(self._drain)
        else:
            self._busy = False

    def _update_pace(self, rows: int, seconds: float, requests: int) -> None:
        self._seconds, self._rows = DECAY * self._seconds + seconds, DECAY * self._rows + rows
        self._call_s, self._was_alone = max(seconds, DECAY * self._call_s), requests == 1
        self._record_batch(rows)


def _settle(future: asyncio.Future[list[float]], result: list[float] | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def ask(
    predict: Predict, requests: Sequence[Sequence[Row]], control: Row
) -> tuple[list[list[float] | Exception], float]:
    """What each request gets, probabilities or an exception, and the seconds it took.

    A batch that fails is asked again request by request, so a row that breaks the model harms its own request alone.
    """
    began = time.perf_counter()
    try:
        results = _split_results(_predict_probabilities(predict, [row for rows in requests for row in rows]), requests)
    except Exception as error:
        alone = len(requests) == 1
        results = (
            [_classify_failure(predict, control, error)]
            if alone
            else [ask(predict, [r], control)[0][0] for r in requests]
        )
    return results, time.perf_counter() - began


def _predict_probabilities(predict: Predict, rows: Sequence[Row]) -> list[float]:
    probabilities: list[float] = predict(rows).tolist()
    if len(probabilities) != len(rows) or not all(
        -TOLERANCE <= probability <= 1 + TOLERANCE for probability in probabilities
    ):
        raise ValueError("the model answers with something that is no probability")
    return [min(max(probability, 0.0), 1.0) for probability in probabilities]


def _split_results(probabilities: list[float], requests: Sequence[Sequence[Any]]) -> list[list[float] | Exception]:
    if len(requests) == 1:
        return [probabilities]
    results: list[list[float] | Exception] = []
    first = 0
    for rows in requests:
        results.append(probabilities[first : first + len(rows)])
        first += len(rows)
    return results


def _classify_failure(predict: Predict, control: Row, error: Exception) -> Exception:
    """The cause is kept without its message, which may quote a row."""
    kind: type[Exception] = RowsFailed
    try:
        _predict_probabilities(predict, [control])
    except Exception:
        kind = ModelFailed
    location = _locate_error(error)
    return kind(f"{type(error).__name__} at {location}")


def _locate_error(error: Exception) -> str:
    step = error.__traceback__
    while step and step.tb_next:
        step = step.tb_next
    return f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}" if step else "an unknown place"
