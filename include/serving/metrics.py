"""What a slot tells Prometheus. Own registry: two servers in one test process do not share counters.

Every sample carries version and slot, so that old and new stand side by side on one graph during a release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from include.serving.exchange import InputAnomalies
from include.serving.histogram import Histogram
from include.serving.routes import POLICY
from include.serving.slot.contents import Loaded, Slot
from include.serving.words import slot_metrics as words
from include.serving.words.slot_metrics import MetricFamily

PATHS = frozenset(POLICY)


class Metrics:
    def __init__(self, colour: str) -> None:
        self.registry = CollectorRegistry()
        self._colour, self._counters = colour, dict[tuple[Counter, tuple[str, ...]], Counter]()
        ProcessCollector(registry=self.registry)
        self._requests = self._make_counter(words.REQUESTS)
        self._latency, self._seconds = self._make_histogram(words.LATENCY), self._make_histogram(words.REQUEST_SECONDS)
        self._scores, self._decisions = self._make_histogram(words.SCORE), self._make_counter(words.DECISIONS)
        self._batches = self._make_histogram(words.BATCH_ROWS).labels(colour)
        self._fallback = self._make_counter(words.FALLBACK)
        self._queue, self._breaker = self._make_gauge(words.QUEUE_ROWS), self._make_gauge(words.BREAKER_OPEN)
        self._unseen, self._missing = self._make_counter(words.UNSEEN), self._make_counter(words.MISSING)
        self._out_of_range = self._make_counter(words.OUT_OF_RANGE)
        self._explanations, self._not_additive = (
            self._make_counter(words.EXPLANATIONS),
            self._make_counter(words.NOT_ADDITIVE),
        )
        self._explain_seconds = self._make_histogram(words.EXPLAIN_SECONDS)
        self._explainer_starts = self._make_counter(words.EXPLAINER_STARTS)
        self._ready, self._info = self._make_gauge(words.READY), self._make_gauge(words.MODEL_INFO)
        self._log = {
            "written": self._make_counter(words.LOG_WRITTEN),
            "lost": self._make_counter(words.LOG_LOST),
            "refused": self._make_counter(words.LOG_REFUSED),
        }
        self._log_waiting = self._make_gauge(words.LOG_WAITING)

    def _find_counter(self, family: Counter, labels: tuple[str, ...]) -> Counter:
        """The client library's own search takes a lock at each request."""
        counter = self._counters.get((family, labels))
        if counter is None:
            counter = self._counters[family, labels] = family.labels(*labels)
        return counter

    def _make_counter(self, family: MetricFamily) -> Counter:
        return Counter(family.name, family.documentation, family.labels, registry=self.registry)

    def _make_gauge(self, family: MetricFamily) -> Gauge:
        return Gauge(family.name, family.documentation, family.labels, registry=self.registry)

    def _make_histogram(self, family: MetricFamily) -> Histogram:
        return Histogram(family.name, family.documentation, family.labels, family.bounds, self.registry)

    def count_answer(self, version: str, path: str, status: int, seconds: float) -> None:
        """A label must not grow with what callers invent: unknown paths are one."""
        route = path if path in PATHS else words.OTHER
        labels = (version, self._colour, route, str(status))
        self._find_counter(self._requests, labels).inc()
        if route in words.PREDICTING:
            self._seconds.labels(*labels).add(seconds)
            self._latency.labels(version, self._colour).add(seconds)
        if route == words.EXPLAIN:
            self._explain_seconds.labels(version, self._colour).add(seconds)

    def count_explanation(self, version: str, outcome: str) -> None:
        """`outcome`: explained, or refused_ and the status."""
        self._explanations.labels(version, self._colour, outcome).inc()

    def count_not_additive(self, version: str) -> None:
        self._not_additive.labels(version, self._colour).inc()

    def count_explainer_start(self) -> None:
        self._explainer_starts.labels(self._colour).inc()

    def record_scores(self, version: str, probabilities: Sequence[float], anomalies: InputAnomalies) -> None:
        self._scores.labels(version, self._colour).add_all(probabilities)
        for (column, kind), count in anomalies.items():
            if kind == "unseen":
                self._unseen.labels(version, self._colour, column).inc(count)
            elif kind == "missing":
                self._missing.labels(version, self._colour, column).inc(count)
            else:
                self._out_of_range.labels(version, self._colour, column, kind).inc(count)

    def count_decisions(self, version: str, decisions: Sequence[bool]) -> None:
        """true: at or above the threshold."""
        yes = sum(decisions)
        for decision, count in ((words.YES, yes), (words.NO, len(decisions) - yes)):
            if count:
                self._find_counter(self._decisions, (version, self._colour, decision)).inc(count)

    def record_batch(self, rows: int) -> None:
        self._batches.add(rows)

    def count_fallback(self, version: str, served_by: str) -> None:
        self._fallback.labels(version, self._colour, served_by).inc()

    def watch(self, queue: Callable[[], float], breaker: Callable[[], float]) -> None:
        """What is asked when the metrics are read: rows not answered yet, and whether a breaker is open."""
        self._queue.labels(self._colour).set_function(queue)
        self._breaker.labels(self._colour).set_function(breaker)

    def publish_slot(self, slot: Slot) -> None:
        """What was held before is no longer told; its counts are."""
        self._ready.clear()
        self._info.clear()
        labels = (slot.file.version if slot.file else "none", self._colour)
        self._ready.labels(*labels).set(isinstance(slot, Loaded))
        if isinstance(slot, Loaded):
            file = slot.file
            self._info.labels(*labels, slot.model.meta.name, file.digest, str(file.generation)).set(1)

    def make_log_metrics(self, stream: str) -> LogMetrics:
        """The counts of one stream of the prediction log: `predictions` or `feedback`."""
        return LogMetrics(self._log, self._log_waiting, (stream, self._colour))

    def render(self) -> bytes:
        return generate_latest(self.registry)


class LogMetrics:
    """Every row that was offered to the log is written, lost or waiting."""

    def __init__(self, counters: Mapping[str, Counter], waiting: Gauge, labels: tuple[str, str]) -> None:
        self._counters, self._waiting, self._labels = counters, waiting, labels
        for name in ("written", "refused"):
            counters[name].labels(*labels)  # zero is a sample too

    def count_written(self, rows: int) -> None:
        self._counters["written"].labels(*self._labels).inc(rows)

    def count_lost(self, rows: int, reason: str) -> None:
        self._counters["lost"].labels(*self._labels, reason).inc(rows)

    def count_refused(self) -> None:
        self._counters["refused"].labels(*self._labels).inc()

    def watch_waiting(self, read_rows: Callable[[], float]) -> None:
        self._waiting.labels(*self._labels).set_function(read_rows)
