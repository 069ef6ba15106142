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
from include.serving.exchange import Answer, Problem, RequestContext, Row
from include.serving.predict.answer_cache import AnswerCache
from include.serving.predict.batching import Batcher, DeadlineExceeded, ModelFailed, RowsFailed
from include.serving.predict.circuit_breaker import CircuitBreaker
from include.serving.spec import RuleSpec, ServingSpec

if TYPE_CHECKING:
    from include.serving.metrics import Metrics
    from include.serving.slot.contents import Loaded
    from include.serving.slot.current_model import CurrentModel

log = logging.getLogger(__name__)
MAX_INLINE_ROWS = (
    64  # rows of one request that are not scored on the event loop: a millisecond, and other requests wait
)
MEAN_WINDOW = 20  # requests that the running mean of rows looks back on
HEADROOM = 0.7  # of the time left, which the rows in front may take for a request to be accepted
BUSY = Problem(503, "The server has as many requests as it can answer in time; try again.", retry_after=1)
LATE = Problem(504, "The request could not be answered before its deadline; send fewer rows, or allow more time.")
FAILED = Problem(500, "The model fails on these rows; the server's log has the reason.")


class ModelQueue:
    """One loaded model with its queue and its breaker."""

    def __init__(self, loaded: Loaded, spec: ServingSpec, metrics: Metrics, thread: ThreadPoolExecutor) -> None:
        model, golden = loaded.model, loaded.model.meta.golden
        control: Row = golden[0].row if golden else dict.fromkeys(loaded.inputs.columns)
        self.loaded, self.breaker = loaded, CircuitBreaker(spec.breaker)
        self._large = Batcher(model.predict_proba, control, spec.batch_rows, metrics.record_batch, thread)
        compiled = model.meta.path == "compiled"
        self._small = (
            Batcher(model.predict_proba, control, spec.batch_rows, metrics.record_batch) if compiled else self._large
        )
        self._compiled = compiled

    def is_quick(self, requests: int, rows: int = 1) -> bool:
        """Whether the event loop may wait for the model's answer to so many requests."""
        return self._compiled or (requests == 1 and self._large.is_quick(rows))

    def choose_batcher(self, rows: int) -> Batcher:
        return self._small if rows <= MAX_INLINE_ROWS else self._large


class Scorer:
    def __init__(self, current_model: CurrentModel, spec: ServingSpec, metrics: Metrics) -> None:
        self._current_model, self._spec, self._metrics = current_model, spec, metrics
        self._thread = ThreadPoolExecutor(1, "model")
        self._queues: dict[str, ModelQueue] = {}
        self._cache = AnswerCache(spec.cache_rows) if spec.cache_rows else None
        self.waiting = 0
        self.mean_rows = 1.0  # a running mean
        metrics.watch(lambda: self.waiting, lambda: any(lane.breaker.is_open for lane in self._queues.values()))

    @property
    def is_full(self) -> bool:
        return self.waiting >= self._spec.queue_rows

    def is_free(self, loaded: Loaded, requests: int) -> bool:
        """Whether this model may be asked `at_once`: it does not take long, and nothing speaks against it."""
        queue = self._get_queue(loaded)
        return queue.is_quick(requests) and not queue.breaker.is_open and self._cache is None

    def score_now(self, loaded: Loaded, requests: Sequence[Sequence[Row]]) -> list[Answer | None]:
        """What `score` answers to requests of up to `MAX_INLINE_ROWS` rows, by a model that `is_free`.

        None where it takes longer after all, or the model fails: `score` will see that too, and knows what follows.
        """
        queue, rows = self._get_queue(loaded), max(map(len, requests), default=0)
        if not requests or not queue.is_quick(len(requests), rows):
            return [None] * len(requests)
        results = queue.choose_batcher(rows).predict_now(requests)
        answers = [self._answer_to(loaded, each, what) for each, what in zip(requests, results, strict=True)]
        if any(answers):
            queue.breaker.record_success()
        return answers

    def _answer_to(self, loaded: Loaded, rows: Sequence[Row], result: list[float] | Exception) -> Answer | None:
        if isinstance(result, Exception):
            return None
        self._update_mean_rows(rows)
        return self._answer(loaded, result)

    def _update_mean_rows(self, rows: Sequence[Row]) -> None:
        self.mean_rows += (len(rows) - self.mean_rows) / MEAN_WINDOW

    async def score(self, loaded: Loaded, rows: Sequence[Row], context: RequestContext) -> Answer | Problem:
        """Scores with the model the request began with (`held`)."""
        queue = self._get_queue(loaded)
        self._update_mean_rows(rows)
        cached = self._cache.get(loaded.file.digest, rows) if self._cache else None
        if cached is not None:
            return self._answer(loaded, cached)
        if self.is_full or self.waiting * queue.choose_batcher(len(rows)).pace > HEADROOM * (
            context.deadline - context.received
        ):
            return BUSY
        self.waiting += len(rows)
        try:
            return await self._score_guarded(queue, rows, context)
        finally:
            self.waiting -= len(rows)

    async def _score_guarded(self, queue: ModelQueue, rows: Sequence[Row], context: RequestContext) -> Answer | Problem:
        """Past the breaker to the model; to the fallback when the one or the other says no."""
        if not queue.breaker.admit(time.monotonic()):
            return await self._fall_back(queue, rows, context, _refuse_while_open(queue.breaker))
        try:
            probabilities = await queue.choose_batcher(len(rows)).submit(rows, context.deadline)
        except DeadlineExceeded:
            return LATE
        except (ModelFailed, RowsFailed) as error:
            log.error(
                "request %s: %s of version %s: %s", context.id, type(error).__name__, queue.loaded.file.version, error
            )
            if isinstance(error, ModelFailed):
                queue.breaker.record_failure(time.monotonic())
            return await self._fall_back(queue, rows, context, FAILED)
        queue.breaker.record_success()
        if self._cache:
            self._cache.put(queue.loaded.file.digest, rows, probabilities)
        return self._answer(queue.loaded, probabilities)

    async def _fall_back(
        self, queue: ModelQueue, rows: Sequence[Row], context: RequestContext, problem: Problem
    ) -> Answer | Problem:
        """The fallback's answer, or `otherwise` where there is none or it fails too."""
        rule, previous = self._spec.fallback, self._current_model.previous
        if isinstance(rule, RuleSpec):
            return self._answer(queue.loaded, [rule.rule] * len(rows), "rule")
        if rule == "none" or previous is None or queue.loaded is previous:
            return problem
        try:
            probabilities = await self._get_queue(previous).choose_batcher(len(rows)).submit(rows, context.deadline)
        except (DeadlineExceeded, ModelFailed, RowsFailed):
            return problem
        return self._answer(previous, probabilities, "previous")

    def _get_queue(self, loaded: Loaded) -> ModelQueue:
        """One for each model that is held; those of models that were replaced go when their last request is gone."""
        queue = self._queues.get(loaded.file.digest)
        if queue is None or queue.loaded is not loaded:
            held_ids = {id(self._current_model.slot), id(self._current_model.previous)}
            self._queues = {digest: queue for digest, queue in self._queues.items() if id(queue.loaded) in held_ids}
            queue = self._queues[loaded.file.digest] = ModelQueue(loaded, self._spec, self._metrics, self._thread)
        return queue

    def _answer(self, loaded: Loaded, probabilities: list[float], served_by: ServedBy = BY_MODEL) -> Answer:
        meta, file = loaded.model.meta, loaded.file
        decisions = [probability >= meta.threshold for probability in probabilities]
        labels = [meta.positive if decision else meta.negative for decision in decisions]
        if served_by != BY_MODEL:
            self._metrics.count_fallback(file.version, served_by)
        return Answer(
            file.version, self._current_model.colour, file.digest, probabilities, labels, decisions, served_by
        )


def _refuse_while_open(breaker: CircuitBreaker) -> Problem:
    """While the breaker is open."""
    wait = breaker.compute_retry_after(time.monotonic())
    return Problem(503, "The model fails and is left alone for a while; try again later.", retry_after=wait)
