"""The server's side of explanations: who explains the version served now, and what may be shown of the answer.

A linear model is explained here, in microseconds. Everything else asks the explainer's process (see explainer), which
is started by the first question that needs it, started again when it has ended, and never waited for beyond a request's
deadline: the predict path shares nothing with it but a core.

Two questions are in the process at once, so that it never waits for us; the others wait here, where a deadline takes
them out again. An answer is shown after the server has checked it itself against the probability it serves.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic_core import from_json

from include.kernel.errors import ArtifactRejected
from include.serving.exchange import Problem, Row
from include.serving.explain.explainer import LENGTH, pack
from include.serving.slot.contents import Loaded

if TYPE_CHECKING:
    from include.model.explanation.attribution import Attributed, Explained, Explainer
    from include.model.explanation.explanation import Explanation
    from include.serving.exchange import Answer
    from include.serving.metrics import Metrics
    from include.serving.slot.current_model import Holder
    from include.serving.spec import ExplainSpec

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[3]
AT_ONCE = 2
STUCK_S = 10.0  # a question takes milliseconds; a process that is silent for so long is ended
START_S = 60.0
LAST_PAUSE_S = 30.0
STARTING = "The explainer is starting, which takes some seconds; ask again."
ENDED = "The explainer ended and starts again; ask again."


class Ended(Exception):
    """The explainer's process is gone."""


class Refused(Exception):
    """There is no explanation, and asking again would change nothing."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Process:
    """One explainer's process, started when this is made; `ask` may be called by many at once."""

    def __init__(self, directory: Path, digest: str) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-W", "ignore", "-m", "include.serving.explain.explainer"]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(directory), digest],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=_environment(),
            )
        self.pid = self._process.pid
        self.ready = False
        self.ended = False
        self._retired = False
        self._callers = 0
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asked: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.WriteTransport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._hello: asyncio.Future[dict[str, Any]] | None = None

    async def ask(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Raises `Ended`, `Refused`; a caller that gives up leaves the others' order as it is."""
        self._callers += 1
        try:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(_heard)
            await asyncio.shield(self._opening)
            return await self._answer(rows)
        finally:
            self._callers -= 1
            if self._retired and not self._callers:
                self.end()

    async def _answer(self, rows: Sequence[Row]) -> dict[str, Any]:
        await self._turns.acquire()
        if self.ended or self._transport is None:
            self._turns.release()  # wakes the next one, who finds the same
            raise Ended
        answer = asyncio.get_running_loop().create_future()
        self._asked.append((answer, time.monotonic()))
        self._transport.write(pack(rows))
        found: dict[str, Any] = await answer
        return found

    async def _open(self) -> None:
        """Waits until the process says that it is ready; then its answers are taken as they come."""
        loop = asyncio.get_running_loop()
        self._hello = loop.create_future()
        try:
            self._transport, _ = await loop.create_unix_connection(
                lambda: Messages(self._said, self._lost), sock=self._channel
            )
            said = await asyncio.wait_for(self._hello, START_S)
        except (EOFError, OSError, TimeoutError) as error:
            self.end()
            raise Ended from error
        if "refused" in said:
            self.end()
            raise Refused(Problem(500, said["refused"]))
        self.ready = True

    def _said(self, message: dict[str, Any]) -> None:
        """The first message says whether it can explain; the others are answers, in the order of the questions."""
        if self._hello and not self._hello.done():
            return self._hello.set_result(message)
        answer, _ = self._asked.popleft()
        self._turns.release()
        return None if answer.done() else answer.set_result(message)

    def _lost(self) -> None:
        if self._hello and not self._hello.done():
            self._hello.set_exception(EOFError())
        if not self.ended:
            log.warning("the explainer %d has ended", self.pid)
        self.end()

    def retire(self) -> None:
        """Ends with its last answer: another version is served from now on."""
        self._retired = True
        if not self._callers:
            self.end()

    def end_if_stuck(self) -> None:
        if self._asked and time.monotonic() - self._asked[0][1] > STUCK_S:
            log.warning("the explainer %d says nothing and is ended", self.pid)
            self.end()

    def end(self) -> None:
        """Kills it, if it still lives, and tells everybody who waits."""
        if self.ended:
            return
        self.ended = True
        self._process.kill()
        self._process.wait()
        if self._transport:
            self._transport.close()
        else:
            self._channel.close()
        self._turns.release()
        for answer, _ in self._asked:
            if not answer.done():
                answer.set_exception(Ended())

    def __del__(self) -> None:
        with suppress(Exception):  # the loop it belonged to may be gone
            self.end()


def _environment() -> dict[str, str]:
    """Ours without its secrets and settings; the mark by which a stack finds what belongs to it travels on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EVERGREEN_")}
    mark = {name: value for name, value in os.environ.items() if name == "EVERGREEN_STACK"}
    return kept | mark | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def _heard(task: asyncio.Task[None]) -> None:
    """A start that failed is told to those who wait; when all of them gave up, it is no error of the loop's."""
    if not task.cancelled():
        task.exception()


class Messages(asyncio.Protocol):
    """JSON behind its length: `heard` gets each message in the turn of the loop it came in, `lost` the end of them."""

    def __init__(self, heard: Callable[[dict[str, Any]], None], lost: Callable[[], None]) -> None:
        self._heard, self._lost, self._bytes = heard, lost, bytearray()

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        try:
            while (end := self._end()) <= len(self._bytes):
                message = from_json(bytes(self._bytes[LENGTH.size : end]))
                del self._bytes[:end]
                self._heard(message)
        except (ValueError, IndexError):  # nothing that was asked for
            self._lost()

    def _end(self) -> int:
        """Of the first message; beyond all bytes before its length is known."""
        return LENGTH.size + LENGTH.unpack_from(self._bytes)[0] if len(self._bytes) >= LENGTH.size else sys.maxsize

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


class Desk:
    """Explains one artifact, by itself or by a process that it keeps alive."""

    def __init__(self, directory: Path, digest: str, metrics: Metrics) -> None:
        self._directory, self.digest, self._metrics = directory, digest, metrics
        self.document: Explanation | None = None
        self.refusal: Problem | None = None
        self._own: Explainer | None = None
        self._process: Process | None = None
        self._failures, self._pause_until = 0, 0.0
        self._reading: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts the process now, if this artifact needs one."""
        self._read()
        if self.document and not self._own:
            self._start()

    async def ask(self, rows: Sequence[Row]) -> Attributed:
        """Raises `Ended`, `Refused`."""
        from include.model.explanation.attribution import Attributed

        await self._known()
        if self.refusal:
            raise Refused(self.refusal)
        if self._own:
            return self._explained_here(rows)
        said = await self._said(rows)
        if "failed" in said:
            raise Refused(Problem(500, said["failed"]))
        return Attributed(said["base"], np.array(said["contributions"], dtype=float), np.array(said["score"]))

    def _explained_here(self, rows: Sequence[Row]) -> Attributed:
        from include.model.explanation.attribution import TooLarge

        try:
            assert self._own
            return self._own(rows)
        except TooLarge as error:
            raise Refused(Problem(422, str(error))) from error

    @property
    def starting(self) -> bool:
        return self._process is not None and not self._process.ready

    def pause(self) -> int:
        """Seconds until it is worth asking again."""
        return max(1, math.ceil(self._pause_until - time.monotonic()))

    def end_if_stuck(self) -> None:
        if self._process:
            self._process.end_if_stuck()

    def retire(self) -> None:
        if self._process:
            self._process.retire()

    async def _known(self) -> None:
        """The artifact's files are read and hashed in a thread: some megabytes."""
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(self._read))
        await asyncio.shield(self._reading)

    def _read(self) -> None:
        from include.model import artifact
        from include.model.explanation import attribution, explanation
        from include.model.integrity import artifact_integrity

        if self.document or self.refusal:
            return
        try:
            files = artifact_integrity.verified(self._directory, self.digest)
            document, meta = explanation.read(files), artifact.read_meta(files)
            if document is None:
                self.refusal = Problem(409, attribution.missing(meta.name))
            elif document.method == "linear":
                self._own = attribution.explainer(files, artifact.opened(files))
            self.document = document
        except ArtifactRejected as error:
            self.refusal = Problem(500, str(error))

    async def _said(self, rows: Sequence[Row]) -> dict[str, Any]:
        process = self._living()
        try:
            said = await process.ask(rows)
        except Refused as error:
            self.refusal = error.problem
            raise
        except Ended:
            self._failed(process)
            raise
        self._failures = 0
        return said

    def _living(self) -> Process:
        if self._process and self._process.ended:
            self._failed(self._process)
        return self._process or self._start()

    def _start(self) -> Process:
        """Raises `Ended` while a process that keeps ending has its pause."""
        if time.monotonic() < self._pause_until:
            raise Ended
        self._metrics.explainer_started()
        try:
            self._process = Process(self._directory, self.digest)
        except OSError as error:  # no memory or no process left: not our request's fault, and not the server's end
            log.warning("the explainer does not start: %s", error)
            self._failed(None)
            raise Ended from error
        return self._process

    def _failed(self, process: Process | None) -> None:
        if process is not self._process:
            return  # somebody who waited with us has said so
        self._process = None
        self._pause_until = time.monotonic() + min(LAST_PAUSE_S, 2.0**self._failures - 1)
        self._failures += 1


class Explaining:
    """Explains answers of the version that is served; one desk, replaced when the slot is swapped."""

    def __init__(self, artifacts: Path, spec: ExplainSpec, holder: Holder, metrics: Metrics) -> None:
        self._artifacts, self._spec, self._holder, self._metrics = artifacts, spec, holder, metrics
        self._desk: Desk | None = None
        self._waiting = 0

    def begin(self) -> None:
        """After a load or a swap: the process starts with the server where the manifest says so."""
        if self._spec.start == "ready" and isinstance(self._holder.slot, Loaded):
            self._of(self._holder.slot).begin()

    async def explain(
        self, held: Loaded, rows: Sequence[Row], answer: Answer, deadline: float
    ) -> list[Explained] | Problem:
        """`deadline` is in monotonic seconds. Never raises."""
        told = self._not_now(held, rows, answer) or await self._told(held, rows, answer, deadline)
        outcome = "explained" if isinstance(told, list) else f"refused_{told.status}"
        self._metrics.explained(answer.version, outcome)
        return told

    async def _told(
        self, held: Loaded, rows: Sequence[Row], answer: Answer, deadline: float
    ) -> list[Explained] | Problem:
        desk = self._of(held)
        self._waiting += len(rows)
        try:
            found = await self._asked(desk, rows, deadline)
        finally:
            self._waiting -= len(rows)
        return found if isinstance(found, Problem) else self._settled(desk, held, found, answer)

    def _not_now(self, held: Loaded, rows: Sequence[Row], answer: Answer) -> Problem | None:
        if self._spec.start == "off":
            return Problem(409, "Explanations are switched off; set serving.explain.start to lazy.")
        if answer.served_by != "model":
            return Problem(
                503, "Not the model answered but its fallback, which explains nothing; ask again.", retry_after=1
            )
        if self._waiting + len(rows) > self._spec.queue_rows:
            return Problem(503, "Too many rows wait to be explained; ask again.", retry_after=1)
        if held is not self._holder.slot:
            return Problem(503, "The version was replaced by another one; ask again.", retry_after=1)
        return None

    async def _asked(self, desk: Desk, rows: Sequence[Row], deadline: float) -> Attributed | Problem:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await desk.ask(rows)
        except TimeoutError:
            desk.end_if_stuck()
            return self._late(desk)
        except Ended:
            return Problem(503, ENDED, retry_after=desk.pause())
        except Refused as refused:
            return refused.problem

    def _late(self, desk: Desk) -> Problem:
        if desk.starting:
            return Problem(503, STARTING, retry_after=2)
        return Problem(503, "The explanation was not ready in time; ask again with fewer rows.", retry_after=1)

    def _of(self, held: Loaded) -> Desk:
        digest = held.file.digest
        if self._desk is None or self._desk.digest != digest:
            if self._desk:
                self._desk.retire()
            self._desk = Desk(self._artifacts / digest, digest, self._metrics)
        return self._desk

    def _settled(self, desk: Desk, held: Loaded, found: Attributed, answer: Answer) -> list[Explained] | Problem:
        from include.model.explanation.attribution import NotAdditive, settle

        assert desk.document
        try:
            return settle(desk.document, held.model.meta, found, answer.probabilities)
        except NotAdditive as error:
            log.error("an explanation is withheld: %s", error)
            self._metrics.not_additive(answer.version)
            return Problem(500, str(error))
