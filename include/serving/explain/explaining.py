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
    from include.model.explanation.attribution import Attribution, Explainer, RowExplanation
    from include.model.explanation.explanation import Explanation
    from include.serving.exchange import Answer
    from include.serving.metrics import Metrics
    from include.serving.slot.current_model import CurrentModel
    from include.serving.spec import ExplainSpec

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[3]
MAX_IN_FLIGHT = 2
STUCK_S = 10.0  # a question takes milliseconds; a process that is silent for so long is ended
START_S = 60.0
LAST_PAUSE_S = 30.0
STARTING = "The explainer is starting, which takes some seconds; ask again."
ENDED = "The explainer ended and starts again; ask again."


class ExplainerEnded(Exception):
    """The explainer's process is gone."""


class ExplanationRefused(Exception):
    """There is no explanation, and asking again would change nothing."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class ExplainerProcess:
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
                env=_build_environment(),
            )
        self.pid = self._process.pid
        self.ready = False
        self.ended = False
        self._retired = False
        self._callers = 0
        self._turns = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._transport: asyncio.WriteTransport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._handshake: asyncio.Future[dict[str, Any]] | None = None

    async def ask(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Raises `ExplainerEnded`, `ExplanationRefused`; a caller that gives up leaves the others' order as it is."""
        self._callers += 1
        try:
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(_consume_exception)
            await asyncio.shield(self._opening)
            return await self._answer(rows)
        finally:
            self._callers -= 1
            if self._retired and not self._callers:
                self.stop()

    async def _answer(self, rows: Sequence[Row]) -> dict[str, Any]:
        await self._turns.acquire()
        if self.ended or self._transport is None:
            self._turns.release()  # wakes the next one, who finds the same
            raise ExplainerEnded
        answer = asyncio.get_running_loop().create_future()
        self._pending.append((answer, time.monotonic()))
        self._transport.write(pack(rows))
        result: dict[str, Any] = await answer
        return result

    async def _open(self) -> None:
        """Waits until the process says that it is ready; then its answers are taken as they come."""
        loop = asyncio.get_running_loop()
        self._handshake = loop.create_future()
        try:
            self._transport, _ = await loop.create_unix_connection(
                lambda: MessageProtocol(self._receive, self._handle_loss), sock=self._channel
            )
            greeting = await asyncio.wait_for(self._handshake, START_S)
        except (EOFError, OSError, TimeoutError) as error:
            self.stop()
            raise ExplainerEnded from error
        if "refused" in greeting:
            self.stop()
            raise ExplanationRefused(Problem(500, greeting["refused"]))
        self.ready = True

    def _receive(self, message: dict[str, Any]) -> None:
        """The first message says whether it can explain; the others are answers, in the order of the questions."""
        if self._handshake and not self._handshake.done():
            return self._handshake.set_result(message)
        answer, _ = self._pending.popleft()
        self._turns.release()
        return None if answer.done() else answer.set_result(message)

    def _handle_loss(self) -> None:
        if self._handshake and not self._handshake.done():
            self._handshake.set_exception(EOFError())
        if not self.ended:
            log.warning("the explainer %d has ended", self.pid)
        self.stop()

    def retire(self) -> None:
        """Ends with its last answer: another version is served from now on."""
        self._retired = True
        if not self._callers:
            self.stop()

    def stop_if_stuck(self) -> None:
        if self._pending and time.monotonic() - self._pending[0][1] > STUCK_S:
            log.warning("the explainer %d says nothing and is ended", self.pid)
            self.stop()

    def stop(self) -> None:
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
        for answer, _ in self._pending:
            if not answer.done():
                answer.set_exception(ExplainerEnded())

    def __del__(self) -> None:
        with suppress(Exception):  # the loop it belonged to may be gone
            self.stop()


def _build_environment() -> dict[str, str]:
    """Ours without its secrets and settings; the mark by which a stack finds what belongs to it travels on."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVERGREEN_")}
    mark = {name: value for name, value in os.environ.items() if name == "EVERGREEN_STACK"}
    return inherited | mark | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def _consume_exception(task: asyncio.Task[None]) -> None:
    """A start that failed is told to those who wait; when all of them gave up, it is no error of the loop's."""
    if not task.cancelled():
        task.exception()


class MessageProtocol(asyncio.Protocol):
    """JSON behind its length: `on_message` gets each message in the turn of the loop it came in, `lost` the end of
    them.
    """

    def __init__(self, on_message: Callable[[dict[str, Any]], None], on_end: Callable[[], None]) -> None:
        self._on_message, self._on_end, self._buffer = on_message, on_end, bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while (end := self._find_end()) <= len(self._buffer):
                message = from_json(bytes(self._buffer[LENGTH.size : end]))
                del self._buffer[:end]
                self._on_message(message)
        except (ValueError, IndexError):  # nothing that was asked for
            self._on_end()

    def _find_end(self) -> int:
        """Of the first message; beyond all bytes before its length is known."""
        return LENGTH.size + LENGTH.unpack_from(self._buffer)[0] if len(self._buffer) >= LENGTH.size else sys.maxsize

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end()


class ArtifactExplainer:
    """Explains one artifact, by itself or by a process that it keeps alive."""

    def __init__(self, directory: Path, digest: str, metrics: Metrics) -> None:
        self._directory, self.digest, self._metrics = directory, digest, metrics
        self.document: Explanation | None = None
        self.refusal: Problem | None = None
        self._local_explainer: Explainer | None = None
        self._process: ExplainerProcess | None = None
        self._failures, self._pause_until = 0, 0.0
        self._reading: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts the process now, if this artifact needs one."""
        self._read()
        if self.document and not self._local_explainer:
            self._start()

    async def ask(self, rows: Sequence[Row]) -> Attribution:
        """Raises `ExplainerEnded`, `ExplanationRefused`."""
        from include.model.explanation.attribution import Attribution

        await self._load_document()
        if self.refusal:
            raise ExplanationRefused(self.refusal)
        if self._local_explainer:
            return self._explain_here(rows)
        answer = await self._ask_process(rows)
        if "failed" in answer:
            raise ExplanationRefused(Problem(500, answer["failed"]))
        return Attribution(answer["base"], np.array(answer["contributions"], dtype=float), np.array(answer["score"]))

    def _explain_here(self, rows: Sequence[Row]) -> Attribution:
        from include.model.explanation.attribution import TooLarge

        try:
            assert self._local_explainer
            return self._local_explainer(rows)
        except TooLarge as error:
            raise ExplanationRefused(Problem(422, str(error))) from error

    @property
    def is_starting(self) -> bool:
        return self._process is not None and not self._process.ready

    def compute_retry_after(self) -> int:
        """Seconds until it is worth asking again."""
        return max(1, math.ceil(self._pause_until - time.monotonic()))

    def stop_if_stuck(self) -> None:
        if self._process:
            self._process.stop_if_stuck()

    def retire(self) -> None:
        if self._process:
            self._process.retire()

    async def _load_document(self) -> None:
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
            files = artifact_integrity.read_verified(self._directory, self.digest)
            document, meta = explanation.read(files), artifact.read_meta(files)
            if document is None:
                self.refusal = Problem(409, attribution.describe_missing(meta.name))
            elif document.method == "linear":
                self._local_explainer = attribution.build_explainer(files, artifact.open_artifact(files))
            self.document = document
        except ArtifactRejected as error:
            self.refusal = Problem(500, str(error))

    async def _ask_process(self, rows: Sequence[Row]) -> dict[str, Any]:
        process = self._ensure_process()
        try:
            answer = await process.ask(rows)
        except ExplanationRefused as error:
            self.refusal = error.problem
            raise
        except ExplainerEnded:
            self._record_failure(process)
            raise
        self._failures = 0
        return answer

    def _ensure_process(self) -> ExplainerProcess:
        if self._process and self._process.ended:
            self._record_failure(self._process)
        return self._process or self._start()

    def _start(self) -> ExplainerProcess:
        """Raises `ExplainerEnded` while a process that keeps ending has its pause."""
        if time.monotonic() < self._pause_until:
            raise ExplainerEnded
        self._metrics.count_explainer_start()
        try:
            self._process = ExplainerProcess(self._directory, self.digest)
        except OSError as error:  # no memory or no process left: not our request's fault, and not the server's end
            log.warning("the explainer does not start: %s", error)
            self._record_failure(None)
            raise ExplainerEnded from error
        return self._process

    def _record_failure(self, process: ExplainerProcess | None) -> None:
        if process is not self._process:
            return  # somebody who waited with us has said so
        self._process = None
        self._pause_until = time.monotonic() + min(LAST_PAUSE_S, 2.0**self._failures - 1)
        self._failures += 1


class ExplanationService:
    """Explains answers of the version that is served; one desk, replaced when the slot is swapped."""

    def __init__(self, artifacts: Path, spec: ExplainSpec, current_model: CurrentModel, metrics: Metrics) -> None:
        self._artifacts, self._spec, self._current_model, self._metrics = artifacts, spec, current_model, metrics
        self._explainer: ArtifactExplainer | None = None
        self._waiting = 0

    def begin(self) -> None:
        """After a load or a swap: the process starts with the server where the manifest says so."""
        if self._spec.start == "ready" and isinstance(self._current_model.slot, Loaded):
            self._select_explainer(self._current_model.slot).begin()

    async def explain(
        self, loaded: Loaded, rows: Sequence[Row], answer: Answer, deadline: float
    ) -> list[RowExplanation] | Problem:
        """`deadline` is in monotonic seconds. Never raises."""
        result = self._find_refusal(loaded, rows, answer) or await self._explain_rows(loaded, rows, answer, deadline)
        outcome = "explained" if isinstance(result, list) else f"refused_{result.status}"
        self._metrics.count_explanation(answer.version, outcome)
        return result

    async def _explain_rows(
        self, loaded: Loaded, rows: Sequence[Row], answer: Answer, deadline: float
    ) -> list[RowExplanation] | Problem:
        explainer = self._select_explainer(loaded)
        self._waiting += len(rows)
        try:
            attributed = await self._ask(explainer, rows, deadline)
        finally:
            self._waiting -= len(rows)
        return (
            attributed
            if isinstance(attributed, Problem)
            else self._verify_attributed(explainer, loaded, attributed, answer)
        )

    def _find_refusal(self, loaded: Loaded, rows: Sequence[Row], answer: Answer) -> Problem | None:
        if self._spec.start == "off":
            return Problem(409, "Explanations are switched off; set serving.explain.start to lazy.")
        if answer.served_by != "model":
            return Problem(
                503, "Not the model answered but its fallback, which explains nothing; ask again.", retry_after=1
            )
        if self._waiting + len(rows) > self._spec.queue_rows:
            return Problem(503, "Too many rows wait to be explained; ask again.", retry_after=1)
        if loaded is not self._current_model.slot:
            return Problem(503, "The version was replaced by another one; ask again.", retry_after=1)
        return None

    async def _ask(self, explainer: ArtifactExplainer, rows: Sequence[Row], deadline: float) -> Attribution | Problem:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await explainer.ask(rows)
        except TimeoutError:
            explainer.stop_if_stuck()
            return self._refuse_late(explainer)
        except ExplainerEnded:
            return Problem(503, ENDED, retry_after=explainer.compute_retry_after())
        except ExplanationRefused as refused:
            return refused.problem

    def _refuse_late(self, explainer: ArtifactExplainer) -> Problem:
        if explainer.is_starting:
            return Problem(503, STARTING, retry_after=2)
        return Problem(503, "The explanation was not ready in time; ask again with fewer rows.", retry_after=1)

    def _select_explainer(self, loaded: Loaded) -> ArtifactExplainer:
        digest = loaded.file.digest
        if self._explainer is None or self._explainer.digest != digest:
            if self._explainer:
                self._explainer.retire()
            self._explainer = ArtifactExplainer(self._artifacts / digest, digest, self._metrics)
        return self._explainer

    def _verify_attributed(
        self, explainer: ArtifactExplainer, loaded: Loaded, attributed: Attribution, answer: Answer
    ) -> list[RowExplanation] | Problem:
        from include.model.explanation.attribution import NotAdditive, build_explanations

        assert explainer.document
        try:
            return build_explanations(explainer.document, loaded.model.meta, attributed, answer.probabilities)
        except NotAdditive as error:
            log.error("an explanation is withheld: %s", error)
            self._metrics.count_not_additive(answer.version)
            return Problem(500, str(error))
