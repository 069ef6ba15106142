"""What a slot tells Prometheus. Own registry: two servers in one test process do not share counters.

Every sample carries version and slot, so that old and new stand side by side on one graph during a release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from include.release.core.canary import LATENCY_S
from include.serving.exchange import Oddities
from include.serving.histogram import Tallies
from include.serving.routes import POLICY
from include.serving.slot.contents import Loaded, Slot

PATHS = frozenset(POLICY)
PREDICTING = frozenset({"/predict", "/predict-and-explain", "/invocations", "/v2/models/{name}/infer"})
WHO = ("version", "slot")
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
LOG = ("stream", "slot")
SCORES = tuple(step / 20 for step in range(1, 21))
BATCHES = tuple(2**power for power in range(0, 11))


class Metrics:
    def __init__(self, colour: str) -> None:
        self.registry = CollectorRegistry()
        self._colour = colour
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "evergreen_requests", "Answers by path and status", (*WHO, "path", "status"), registry=self.registry
        )
        self._answered: dict[tuple[str, str, int], Counter] = {}
        self._latency = Tallies("evergreen_predict_seconds", "Time to answer /predict", WHO, LATENCY_S, self.registry)
        self._scores = Tallies("evergreen_score", "Served probabilities", WHO, SCORES, self.registry)
        batches = Tallies("evergreen_batch_rows", "Rows in one call of the model", ("slot",), BATCHES, self.registry)
        self._batches = batches.labels(colour)
        self._fallback = Counter(
            "evergreen_fallback", "Answers in the model's place", (*WHO, "served_by"), registry=self.registry
        )
        self._queue = Gauge("evergreen_queue_rows", "Rows not answered yet", ("slot",), registry=self.registry)
        self._breaker = Gauge(
            "evergreen_breaker_open", "1 while the model is left alone", ("slot",), registry=self.registry
        )
        by = (*WHO, "path", "status")
        self._seconds = Tallies("evergreen_request_seconds", "Time to answer", by, SECONDS, self.registry)
        self._count_inputs()
        self._count_explanations()
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

    def _count_inputs(self) -> None:
        """Values that are not as the training saw them, and what was decided."""
        self._unseen = Counter(
            "evergreen_unseen_categories", "Values not seen in training", (*WHO, "column"), registry=self.registry
        )
        self._missing = Counter(
            "evergreen_missing_values", "Values that were not given", (*WHO, "column"), registry=self.registry
        )
        self._out_of_range = Counter(
            "evergreen_out_of_range", "Numbers beyond the training's", (*WHO, "column", "side"), registry=self.registry
        )
        self._decisions = Counter(
            "evergreen_decisions", "Answers by decision", (*WHO, "decision"), registry=self.registry
        )

    def _count_explanations(self) -> None:
        self._explained = Counter(
            "evergreen_explanations",
            "Requests by what became of their explanation",
            (*WHO, "outcome"),
            registry=self.registry,
        )
        self._not_additive = Counter(
            "evergreen_not_additive", "Explanations withheld, for they missed the score", WHO, registry=self.registry
        )
        self._explain_seconds = Tallies(
            "evergreen_explain_seconds", "Time to answer /predict-and-explain", WHO, SECONDS, self.registry
        )
        self._explainer_starts = Counter(
            "evergreen_explainer_starts", "Starts of the explainer's process", ("slot",), registry=self.registry
        )

    def answered(self, version: str, path: str, status: int, seconds: float) -> None:
        """A label must not grow with what callers invent: unknown paths are one."""
        known = path if path in PATHS else "other"
        counter = self._answered.get((version, known, status))
        if counter is None:
            counter = self._requests.labels(version, self._colour, known, str(status))
            self._answered[version, known, status] = counter
        counter.inc()
        if known in PREDICTING:
            self._seconds.labels(version, self._colour, known, str(status)).add(seconds)
        if path == "/predict":
            self._latency.labels(version, self._colour).add(seconds)
        elif path == "/predict-and-explain":
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
        for decision, count in (("true", yes), ("false", len(decisions) - yes)):
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
