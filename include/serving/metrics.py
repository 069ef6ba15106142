"""What a slot tells Prometheus. Own registry: two servers in one test process do not share counters.

Every sample carries version and slot, so that old and new stand side by side on one graph during a release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from include.serving.guard import POLICY
from include.serving.slot import Loaded, Slot

PATHS = frozenset(POLICY)
WHO = ("version", "slot")
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
LOG = ("stream", "slot")
SCORES = tuple(step / 20 for step in range(1, 21))


class Metrics:
    def __init__(self, colour: str) -> None:
        self.registry = CollectorRegistry()
        self._colour = colour
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "evergreen_requests", "Answers by path and status", (*WHO, "path", "status"), registry=self.registry
        )
        self._latency = Histogram(
            "evergreen_predict_seconds", "Time to answer /predict", WHO, buckets=SECONDS, registry=self.registry
        )
        self._scores = Histogram("evergreen_score", "Served probabilities", WHO, buckets=SCORES, registry=self.registry)
        self._unseen = Counter(
            "evergreen_unseen_categories", "Values not seen in training", (*WHO, "column"), registry=self.registry
        )
        self._ready = Gauge("evergreen_ready", "1 when the slot answers", WHO, registry=self.registry)
        self._log = {
            "written": Counter("evergreen_log_written_rows", "Rows stored", LOG, registry=self.registry),
            "lost": Counter("evergreen_log_lost_rows", "Rows never stored", (*LOG, "reason"), registry=self.registry),
            "refused": Counter("evergreen_log_refused", "Times the log's place refused", LOG, registry=self.registry),
        }
        self._log_waiting = Gauge("evergreen_log_waiting_rows", "Rows not stored yet", LOG, registry=self.registry)
        self._info = Gauge(
            "evergreen_model_info", "Which model", (*WHO, "name", "digest", "generation"), registry=self.registry
        )

    def answered(self, version: str, path: str, status: int, seconds: float) -> None:
        """A label must not grow with what callers invent: unknown paths are one."""
        known = path if path in PATHS else "other"
        self._requests.labels(version, self._colour, known, str(status)).inc()
        if path == "/predict":
            self._latency.labels(version, self._colour).observe(seconds)

    def predicted(self, version: str, probabilities: Iterable[float], unseen: Mapping[str, int]) -> None:
        scores = self._scores.labels(version, self._colour)
        for probability in probabilities:
            scores.observe(probability)
        for column, count in unseen.items():
            self._unseen.labels(version, self._colour, column).inc(count)

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
