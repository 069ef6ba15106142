"""A load client that costs less than what it measures: one process, one thread, requests rendered before the start.

    python -m tests.load http://127.0.0.1:8080/predict --body row.json --connections 16 --seconds 5
    python -m tests.load http://127.0.0.1:8080/predict --body row.json --rate 2000 --seconds 60

Two kinds of load. Closed: every connection sends its next request when the last one is answered; it finds the
capacity. Open (`rate`): requests are due at fixed moments, whatever the server does, and latency counts from the moment
a request was due, not from when a connection became free for it. So a stall is paid by all who came during it, and the
percentiles are free of coordinated omission.

It is no general HTTP client: answers need a Content-Length, nothing is retried, nothing follows redirects. A client
library would cost more than the servers under test: httpx manages 1,500 requests a second on a core, this 30,000.
(`include.embedded.commands.traffic` stays beside it: the demo's live traffic is a few requests a second for as long as
it takes, shown by version, and has no use for a process and a plan.)
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

RECONNECT_S = 0.02
SWEEP_S = 0.1
SPIN_S = 0.002  # before a due moment the loop polls instead of sleeping: its timers are good for a millisecond
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Plan:
    """What to send and for how long; it ends after `seconds` or `most` requests, whichever comes first."""

    url: str
    bodies: Sequence[bytes]  # sent in turn, over and over
    connections: int = 1
    seconds: float = 5.0
    most: int = 5_000_000
    rate: float | None = None  # requests a second; None: closed loop
    timeout_s: float = 10.0  # of one request, and of all that are open at the end
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    method: str = "POST"
    keep: bool = False  # the bodies of the answers
    counted: str | None = None  # an answer header whose values are counted
    kept: Sequence[str] = ()  # answer headers whose values are kept for each answer
    stop: Path | None = None  # a file whose appearance ends the load before its time
    spin_s: float = SPIN_S  # 0: a due moment is missed by a millisecond or so, and half a core is saved

    def rendered(self) -> list[bytes]:
        """The bytes of each request."""
        place = urlsplit(self.url)
        path = f"{place.path or '/'}{'?' + place.query if place.query else ''}"
        lines = [f"{self.method} {path} HTTP/1.1", f"host: {place.netloc}"]
        head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in self.headers.items())])
        return [f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body for body in self.bodies]


@dataclass(frozen=True)
class Result:
    """What was answered, in the order of the answers; moments are of time.monotonic, all in seconds."""

    began: float
    seconds: float  # from the first request to the last answer
    due: NDArray[np.float64]  # when each answered request was due (closed loop: sent)
    latency: NDArray[np.float64]  # from due to the last byte
    status: NDArray[np.uint16]
    which: NDArray[np.uint32]  # the place of each request's body in plan.bodies
    failures: list[tuple[float, str]]  # requests without an answer: when, and why
    bodies: list[bytes]
    counted: Counter[str]
    kept: list[tuple[str, ...]]  # for each answer the headers of plan.kept

    @property
    def answered(self) -> int:
        return len(self.latency)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def statuses(self) -> Counter[int]:
        return Counter(self.status.tolist())

    @property
    def failed(self) -> int:
        """Everything that was not answered with 200."""
        return len(self.failures) + int((self.status != 200).sum())

    def ms(self, percentile: float) -> float:
        return float(np.percentile(self.latency, percentile)) * 1000 if self.answered else float("nan")

    def summary(self) -> dict[str, Any]:
        return {
            "answered": self.answered,
            "failed": self.failed,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "failures": dict(Counter(why for _, why in self.failures)),
            "per_second": round(self.per_second, 1),
            **{f"p{p:g}_ms": round(self.ms(p), 3) for p in (50, 90, 99, 99.9, 100)},
            **({"counted": dict(self.counted)} if self.counted else {}),
        }


def run(plan: Plan) -> Result:
    """The whole load, in this process."""
    import uvloop

    gc.collect()
    gc.disable()  # nothing here makes cycles, and a collection would be somebody's latency
    try:
        return uvloop.run(_Load(plan).run())
    finally:
        gc.enable()


def process(cpu: int | None = None) -> ProcessPoolExecutor:
    """A process for loads: `process().submit(run, plan).result()`; with `cpu` it runs on that core alone."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _settle, (cpu,))


def _settle(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


class _Load:
    """Who sends what, and what came of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = plan.rendered()
        place = urlsplit(plan.url)
        self._address = (place.hostname or "127.0.0.1", place.port or 80)
        self.mark = _mark(plan.counted) if plan.counted else None
        self._marks = [_mark(name) for name in plan.kept]
        self._kept: list[tuple[str, ...]] = []
        self._due, self._latency, self._status, self._which = array("d"), array("d"), array("H"), array("L")
        self._failures: list[tuple[float, str]] = []
        self._bodies: list[bytes] = []
        self._counted: Counter[str] = Counter()
        self._connections: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()  # due, but no connection was free
        self._sent = 0
        self._tasks: list[asyncio.Task[None]] = []  # the loop itself holds tasks weakly
        self._began = self._last = 0.0
        self._ended = self._stopped = False

    async def run(self) -> Result:
        self._loop = asyncio.get_running_loop()
        await asyncio.gather(*(self._connect() for _ in range(self.plan.connections)))
        self._began = self._last = time.monotonic()
        self._sweep()
        await (self._closed() if self.plan.rate is None else self._open(self.plan.rate))
        await self._drained()
        return self._result()

    async def _closed(self) -> None:
        while self._idle and not self._over():  # it may be told to end before it begins
            self._next(self._idle.popleft())
        while not self._over():
            await asyncio.sleep(SWEEP_S / 2)

    async def _open(self, rate: float) -> None:
        count = min(int(rate * self.plan.seconds), self.plan.most)
        for number in range(count):
            due = self._began + number / rate
            while (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left - self.plan.spin_s if left > self.plan.spin_s else 0)
            if self._stopped:
                return
            self._arrive(due)

    def _arrive(self, due: float) -> None:
        if self._idle:
            self._send(self._idle.popleft(), due)
        else:
            self._waiting.append(due)

    def _over(self) -> bool:
        return self._stopped or self._sent >= self.plan.most or time.monotonic() - self._began >= self.plan.seconds

    def free(self, connection: _Connection) -> None:
        """A connection without a request: it takes the one that waits longest, or in a closed loop the next one."""
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self.plan.rate is None and self._began and not self._ended:
            self._next(connection)
        else:
            self._idle.append(connection)

    def _next(self, connection: _Connection) -> None:
        if self._over():
            self._idle.append(connection)
        else:
            self._send(connection, time.monotonic())

    def _send(self, connection: _Connection, due: float) -> None:
        place = self._sent % len(self.requests)
        self._sent += 1
        connection.ask(self.requests[place], place, due)

    def answered(self, due: float, place: int, status: int, head: bytes, body: bytes) -> None:
        self._last = now = time.monotonic()
        self._due.append(due)
        self._latency.append(now - due)
        self._status.append(status)
        self._which.append(place)
        if self.plan.keep:
            self._bodies.append(body)
        if self.mark:
            self._counted[_header(head, self.mark)] += 1
        if self._marks:
            self._kept.append(tuple(_header(head, mark) for mark in self._marks))

    def failed(self, why: str) -> None:
        self._failures.append((time.monotonic(), why))

    def lost(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._ended:
            self._tasks.append(self._loop.create_task(self._connect()))

    async def _connect(self) -> None:
        """Tries until it is connected or the load is over: a server that is down is a finding, not an end."""
        while not self._ended:
            try:
                await self._loop.create_connection(lambda: _Connection(self), *self._address)
                return
            except OSError as error:
                if self._began and not self._over():
                    self.failed(f"no connection: {type(error).__name__}")
                elif not self._began:
                    raise
                await asyncio.sleep(RECONNECT_S)

    def opened(self, connection: _Connection) -> None:
        self._connections.append(connection)
        self.free(connection)

    def _sweep(self) -> None:
        """What waits longer than the timeout is given up, sent or not; and whether the load was told to end."""
        self._stopped = self._stopped or bool(self.plan.stop and self.plan.stop.exists())
        oldest = time.monotonic() - self.plan.timeout_s
        while self._waiting and self._waiting[0] < oldest:
            self._waiting.popleft()
            self.failed("not sent in time")
        for connection in [each for each in self._connections if each.due is not None and each.due < oldest]:
            connection.give_up("timeout")
        if not self._ended:
            self._loop.call_later(SWEEP_S, self._sweep)

    async def _drained(self) -> None:
        while self._waiting or any(each.due is not None for each in self._connections):
            await asyncio.sleep(0.001)
        self._ended = True
        for connection in [*self._connections]:
            connection.close()

    def _result(self) -> Result:
        return Result(
            self._began,
            self._last - self._began,
            np.array(self._due),
            np.array(self._latency),
            np.array(self._status, dtype=np.uint16),
            np.array(self._which, dtype=np.uint32),
            self._failures,
            self._bodies,
            self._counted,
            self._kept,
        )


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._place = 0
        self.due: float | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._load.opened(self)

    def ask(self, request: bytes, place: int, due: float) -> None:
        self.due, self._place = due, place
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            return
        head = data[: end + 2].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0 or self.due is None:
            return self.give_up("an answer without content-length" if at < 0 else "an answer nobody asked for")
        whole = end + 4 + int(head[at + 17 : head.find(b"\r", at + 17)])
        if len(data) < whole:
            self._buffer = data
            return
        self._answered(head, data[end + 4 : whole])

    def _answered(self, head: bytes, body: bytes) -> None:
        assert self.due is not None
        due, self.due, self._buffer = self.due, None, b""
        self._load.answered(due, self._place, int(head[9:12]), head, body)
        if b"\r\nconnection: close" in head:
            self._transport.close()
        else:
            self._load.free(self)

    def give_up(self, why: str) -> None:
        self.due = None
        self._load.failed(why)
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self.due is not None:
            self.due = None
            self._load.failed("connection lost")
        self._load.lost(self)

    def close(self) -> None:
        self._transport.close()


def _mark(name: str) -> bytes:
    return f"\r\n{name.lower()}: ".encode()


def _header(head: bytes, mark: bytes) -> str:
    at = head.find(mark)
    return head[at + len(mark) : head.find(b"\r", at + 2)].decode("latin-1") if at >= 0 else "none"


def main() -> None:
    asked = argparse.ArgumentParser(description="Load on one URL; the last line is JSON.")
    asked.add_argument("url")
    asked.add_argument("--body", type=Path, required=True, help="a file; its lines are sent in turn")
    asked.add_argument("--connections", type=int, default=16)
    asked.add_argument("--seconds", type=float, default=5)
    asked.add_argument("--rate", type=float, help="requests a second; without it a closed loop")
    asked.add_argument("--cpu", type=int, help="the core to run on")
    given = asked.parse_args()
    _settle(given.cpu)
    bodies = [line for line in given.body.read_bytes().splitlines() if line]
    plan = Plan(given.url, bodies, given.connections, given.seconds, rate=given.rate)
    try:
        print(json.dumps(run(plan).summary()))
    except ConnectionRefusedError:
        sys.exit(f"Nothing answers at {given.url}; start the server first.")


if __name__ == "__main__":
    main()
