"""What a slot tells Prometheus. Own registry: two servers in one test process do not share counters.

Every sample carries version and slot, so that old and new stand side by side on one graph during a release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from include.serving.exchange import Oddities
from include.serving.histogram import Tallies
from include.serving.routes import POLICY
from include.serving.slot.contents import Loaded, Slot
from include.serving.words import slot_metrics as words
from include.serving.words.slot_metrics import Family

PATHS = frozenset(POLICY)


class Metrics:
    def __init__(self, colour: str) -> None:
        self.registry = CollectorRegistry()
        self._colour = colour
        ProcessCollector(registry=self.registry)
        self._requests = self._counter(words.REQUESTS)
        self._answered: dict[tuple[str, str, int], Counter] = {}
        self._latency, self._seconds = self._histogram(words.LATENCY), self._histogram(words.REQUEST_SECONDS)
        self._scores, self._decisions = self._histogram(words.SCORE), self._counter(words.DECISIONS)
        self._batches = self._histogram(words.BATCH_ROWS).labels(colour)
        self._fallback = self._counter(words.FALLBACK)
        self._queue, self._breaker = self._gauge(words.QUEUE_ROWS), self._gauge(words.BREAKER_OPEN)
        self._unseen, self._missing = self._counter(words.UNSEEN), self._counter(words.MISSING)
        self._out_of_range = self._counter(words.OUT_OF_RANGE)
        self._explained, self._not_additive = self._counter(words.EXPLANATIONS), self._counter(words.NOT_ADDITIVE)
        self._explain_seconds = self._histogram(words.EXPLAIN_SECONDS)
        self._explainer_starts = self._counter(words.EXPLAINER_STARTS)
        self._ready, self._info = self._gauge(words.READY), self._gauge(words.MODEL_INFO)
        self._log = {
            "written": self._counter(words.LOG_WRITTEN),
            "lost": self._counter(words.LOG_LOST),
            "refused": self._counter(words.LOG_REFUSED),
        }
        self._log_waiting = self._gauge(words.LOG_WAITING)

    def _counter(self, family: Family) -> Counter:
        return Counter(family.name, family.told, family.labels, registry=self.registry)

    def _gauge(self, family: Family) -> Gauge:
        return Gauge(family.name, family.told, family.labels, registry=self.registry)

    def _histogram(self, family: Family) -> Tallies:
        return Tallies(family.name, family.told, family.labels, family.bounds, self.registry)

    def answered(self, version: str, path: str, status: int, seconds: float) -> None:
        """A label must not grow with what callers invent: unknown paths are one."""
        known = path if path in PATHS else words.OTHER
        counter = self._answered.get((version, known, status))
        if counter is None:
            counter = self._requests.labels(version, self._colour, known, str(status))
            self._answered[version, known, status] = counter
        counter.inc()
        if known in words.PREDICTING:
            self._seconds.labels(version, self._colour, known, str(status)).add(seconds)
            self._latency.labels(version, self._colour).add(seconds)
        if known == words.EXPLAIN:
            self._explain_seconds.labels(version, self._colour).add(seconds)

    def explained(self, version: str, outcome: str) -> None:
        """`outcome`: explained, or refused_ and the status."""
        self._explained.labels(version, self._colour, outcome).inc()

    def not_additive(self, version: str) -> None:
        self._not_additive.labels(version, self._colour).inc()

    def explainer_started(self) -> None:
        self._explainer_starts.labels(self._colour).inc()

    def predicted(self, version: str, probabilities: Sequence[float], oddities: Oddities) -> None:
        self._scores.labels(version, self._colour).add_all(probabilities)
        for (column, oddity), count in oddities.items():
            if oddity == "unseen":
                self._unseen.labels(version, self._colour, column).inc(count)
            elif oddity == "missing":
                self._missing.labels(version, self._colour, column).inc(count)
            else:
                self._out_of_range.labels(version, self._colour, column, oddity).inc(count)

    def decided(self, version: str, decisions: Sequence[bool]) -> None:
        """true: at or above the threshold."""
        yes = sum(decisions)
        for decision, count in ((words.YES, yes), (words.NO, len(decisions) - yes)):
            if count:
                self._decisions.labels(version, self._colour, decision).inc(count)

    def batch(self, rows: int) -> None:
        self._batches.add(rows)

    def fell_back(self, version: str, served_by: str) -> None:
        self._fallback.labels(version, self._colour, served_by).inc()

    def watch(self, queue: Callable[[], float], breaker: Callable[[], float]) -> None:
        """What is asked when the metrics are read: rows not answered yet, and whether a breaker is open."""
        self._queue.labels(self._colour).set_function(queue)
        self._breaker.labels(self._colour).set_function(breaker)

    def holds(self, slot: Slot) -> None:
        """What was held before is no longer told; its counts are."""
        self._ready.clear()
        self._info.clear()
        who = (slot.file.version if slot.file else "none", self._colour)
        self._ready.labels(*who).set(isinstance(slot, Loaded))
        if isinstance(slot, Loaded):
            file = slot.file
            self._info.labels(*who, slot.model.meta.name, file.digest, str(file.generation)).set(1)

    def of_log(self, stream: str) -> LogMetrics:
        """The counts of one stream of the prediction log: `predictions` or `feedback`."""
        return LogMetrics(self._log, self._log_waiting, (stream, self._colour))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class LogMetrics:
    """Every row that was offered to the log is written, lost or waiting."""

    def __init__(self, counters: Mapping[str, Counter], waiting: Gauge, who: tuple[str, str]) -> None:
        self._counters, self._waiting, self._who = counters, waiting, who
        for name in ("written", "refused"):
            counters[name].labels(*who)  # zero is a sample too

    def written(self, rows: int) -> None:
        self._counters["written"].labels(*self._who).inc(rows)

    def lost(self, rows: int, reason: str) -> None:
        self._counters["lost"].labels(*self._who, reason).inc(rows)

    def refused(self) -> None:
        self._counters["refused"].labels(*self._who).inc()

    def waiting(self, look: Callable[[], float]) -> None:
        self._waiting.labels(*self._who).set_function(look)
