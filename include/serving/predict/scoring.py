"""From validated rows to an answer. The only way to the model, whatever protocol asked.

Here stands what keeps a server honest under load and fault: a bound on what is accepted, a deadline, and a breaker in
front of a model that fails. Each ends in an answer that says so: 503 with Retry-After for "not now", 504 for "too
late", and the fallback's answer is marked as nobody's prediction but its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from include.feedback.core.prediction_records import BY_MODEL, ServedBy
from include.serving.exchange import Answer, Asked, Problem, Row
from include.serving.predict.answer_cache import AnswerCache
from include.serving.predict.batching import Batcher, Late, ModelFailed, RowsFailed
from include.serving.predict.circuit_breaker import Breaker
from include.serving.spec import RuleSpec, ServingSpec

if TYPE_CHECKING:
    from include.serving.metrics import Metrics
    from include.serving.slot.contents import Loaded
    from include.serving.slot.current_model import Holder

log = logging.getLogger(__name__)
LARGE = 64  # rows of one request that are not scored on the event loop: a millisecond, and other requests wait
RECENT = 20  # requests that the running mean of rows looks back on
HEADROOM = 0.7  # of the time left, which the rows in front may take for a request to be accepted
BUSY = Problem(503, "The server has as many requests as it can answer in time; try again.", retry_after=1)
LATE = Problem(504, "The request could not be answered before its deadline; send fewer rows, or allow more time.")
FAILED = Problem(500, "The model fails on these rows; the server's log has the reason.")


class Lane:
    """One loaded model with its queue and its breaker."""

    def __init__(self, held: Loaded, spec: ServingSpec, metrics: Metrics, thread: ThreadPoolExecutor) -> None:
        model, golden = held.model, held.model.meta.golden
        control: Row = golden[0].row if golden else dict.fromkeys(held.inputs.columns)
        self.held, self.breaker = held, Breaker(spec.breaker)
        self._large = Batcher(model.predict_proba, control, spec.batch_rows, metrics.batch, thread)
        compiled = model.meta.path == "compiled"
        self._small = Batcher(model.predict_proba, control, spec.batch_rows, metrics.batch) if compiled else self._large
        self._compiled = compiled

    def is_quick(self, requests: int, rows: int = 1) -> bool:
        """Whether the event loop may wait for the model's answer to so many requests."""
        return self._compiled or (requests == 1 and self._large.is_quick(rows))

    def batcher(self, rows: int) -> Batcher:
        return self._small if rows <= LARGE else self._large


class Scorer:
    def __init__(self, holder: Holder, spec: ServingSpec, metrics: Metrics) -> None:
        self._holder, self._spec, self._metrics = holder, spec, metrics
        self._thread = ThreadPoolExecutor(1, "model")
        self._lanes: dict[str, Lane] = {}
        self._cache = AnswerCache(spec.cache_rows) if spec.cache_rows else None
        self.waiting = 0
        self.rows_a_request = 1.0  # a running mean
        metrics.watch(lambda: self.waiting, lambda: any(lane.breaker.is_open for lane in self._lanes.values()))

    @property
    def is_full(self) -> bool:
        return self.waiting >= self._spec.queue_rows

    def is_free(self, held: Loaded, requests: int) -> bool:
        """Whether this model may be asked `at_once`: it does not take long, and nothing speaks against it."""
        lane = self._lane(held)
        return lane.is_quick(requests) and not lane.breaker.is_open and self._cache is None

    def at_once(self, held: Loaded, requests: Sequence[Sequence[Row]]) -> list[Answer | None]:
        """What `score` answers to requests of up to `LARGE` rows, by a model that `is_free`.

        None where it takes longer after all, or the model fails: `score` will see that too, and knows what follows.
        """
        lane, rows = self._lane(held), max(map(len, requests), default=0)
        if not requests or not lane.is_quick(len(requests), rows):
            return [None] * len(requests)
        said = lane.batcher(rows).at_once(requests)
        found = [self._answer_to(held, each, what) for each, what in zip(requests, said, strict=True)]
        if any(found):
            lane.breaker.succeeded()
        return found

    def _answer_to(self, held: Loaded, rows: Sequence[Row], found: list[float] | Exception) -> Answer | None:
        if isinstance(found, Exception):
            return None
        self._counted(rows)
        return self._answer(held, found)

    def _counted(self, rows: Sequence[Row]) -> None:
        self.rows_a_request += (len(rows) - self.rows_a_request) / RECENT

    async def score(self, held: Loaded, rows: Sequence[Row], asked: Asked) -> Answer | Problem:
        """Scores with the model the request began with (`held`)."""
        lane = self._lane(held)
        self._counted(rows)
        known = self._cache.get(held.file.digest, rows) if self._cache else None
        if known is not None:
            return self._answer(held, known)
        if self.is_full or self.waiting * lane.batcher(len(rows)).pace > HEADROOM * (asked.deadline - asked.received):
            return BUSY
        self.waiting += len(rows)
        try:
            return await self._through(lane, rows, asked)
        finally:
            self.waiting -= len(rows)

    async def _through(self, lane: Lane, rows: Sequence[Row], asked: Asked) -> Answer | Problem:
        """Past the breaker to the model; to the fallback when the one or the other says no."""
        if not lane.breaker.admits(time.monotonic()):
            return await self._instead(lane, rows, asked, _resting(lane.breaker))
        try:
            probabilities = await lane.batcher(len(rows)).submit(rows, asked.deadline)
        except Late:
            return LATE
        except (ModelFailed, RowsFailed) as error:
            log.error("request %s: %s of version %s: %s", asked.id, type(error).__name__, lane.held.file.version, error)
            if isinstance(error, ModelFailed):
                lane.breaker.failed(time.monotonic())
            return await self._instead(lane, rows, asked, FAILED)
        lane.breaker.succeeded()
        if self._cache:
            self._cache.put(lane.held.file.digest, rows, probabilities)
        return self._answer(lane.held, probabilities)

    async def _instead(self, lane: Lane, rows: Sequence[Row], asked: Asked, otherwise: Problem) -> Answer | Problem:
        """The fallback's answer, or `otherwise` where there is none or it fails too."""
        rule, previous = self._spec.fallback, self._holder.previous
        if isinstance(rule, RuleSpec):
            return self._answer(lane.held, [rule.rule] * len(rows), "rule")
        if rule == "none" or previous is None or lane.held is previous:
            return otherwise
        try:
            found = await self._lane(previous).batcher(len(rows)).submit(rows, asked.deadline)
        except (Late, ModelFailed, RowsFailed):
            return otherwise
        return self._answer(previous, found, "previous")

    def _lane(self, held: Loaded) -> Lane:
        """One for each model that is held; those of models that were replaced go when their last request is gone."""
        lane = self._lanes.get(held.file.digest)
        if lane is None or lane.held is not held:
            kept = {id(self._holder.slot), id(self._holder.previous)}
            self._lanes = {digest: lane for digest, lane in self._lanes.items() if id(lane.held) in kept}
            lane = self._lanes[held.file.digest] = Lane(held, self._spec, self._metrics, self._thread)
        return lane

    def _answer(self, held: Loaded, probabilities: list[float], served_by: ServedBy = BY_MODEL) -> Answer:
        meta, file = held.model.meta, held.file
        decisions = [probability >= meta.threshold for probability in probabilities]
        labels = [meta.positive if decision else meta.negative for decision in decisions]
        if served_by != BY_MODEL:
            self._metrics.fell_back(file.version, served_by)
        return Answer(file.version, self._holder.colour, file.digest, probabilities, labels, decisions, served_by)


def _resting(breaker: Breaker) -> Problem:
    """While the breaker is open."""
    wait = breaker.retry_after(time.monotonic())
    return Problem(503, "The model fails and is left alone for a while; try again later.", retry_after=wait)
