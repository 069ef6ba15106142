"""The words of a slot's /metrics, once: who writes them and who reads them import the same names.

The server writes; a release's canary, the rules of Prometheus and the dashboards read. A reader that spells a label
by itself counts nothing, and nothing complains: a canary once waited for `decision="positive"` where the server wrote
"true", and could not see decisions. What Python reads is imported from here; what YAML and JSON spell is held to it by
tests/monitoring/test_metric_words.py. Nothing but the standard library: the reader shall not pay for the server.
"""

from dataclasses import dataclass
from typing import Final, Literal

VERSION, SLOT, PATH, STATUS = "version", "slot", "path", "status"
DECISION, COLUMN, SIDE, OUTCOME = "decision", "column", "side", "outcome"
SERVED_BY, STREAM, REASON = "served_by", "stream", "reason"
WHO: Final = (VERSION, SLOT)

PREDICT, EXPLAIN = "/predict", "/predict-and-explain"
INVOCATIONS = "/invocations"
INFER = "/v2/models/{name}/infer"  # stands for every model and version a path may name
PREDICTING: Final = (PREDICT, EXPLAIN, INVOCATIONS, INFER)  # the paths whose answers are predictions
OTHER = "other"  # all paths that the server does not have: a label must not grow with what callers invent

YES, NO = "true", "false"  # the values of `decision`: at or above the threshold, or below
LOW, HIGH = "low", "high"  # of `side`
OK, FAILED = "2", "5"  # how the status of an answer begins, and of one that is the server's fault

LATENCY_STEP = 1.25
LATENCY_S = tuple(round(0.0002 * LATENCY_STEP**step, 7) for step in range(48))  # 0.2 ms to 7 s: upper bounds, seconds
SCORES = tuple(step / 20 for step in range(1, 20))  # upper bounds; the last bin ends at 1
SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
BATCHES = tuple(2**power for power in range(0, 11))

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class MetricFamily:
    """One metric: the name under which it is registered, what it tells, and its labels."""

    kind: Kind
    name: str
    documentation: str
    labels: tuple[str, ...] = WHO
    bounds: tuple[float, ...] = ()

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which its values are read; that of a histogram's buckets comes first."""
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
        return tuple(self.name + ending for ending in endings[self.kind])


REQUESTS = MetricFamily("counter", "evergreen_requests", "Answers by path and status", (*WHO, PATH, STATUS))
LATENCY = MetricFamily(
    "histogram", "evergreen_predict_seconds", "Time to answer on a path that predicts", WHO, LATENCY_S
)
REQUEST_SECONDS = MetricFamily(
    "histogram", "evergreen_request_seconds", "Time to answer", (*WHO, PATH, STATUS), SECONDS
)
SCORE = MetricFamily("histogram", "evergreen_score", "Served probabilities", WHO, (*SCORES, 1.0))
DECISIONS = MetricFamily("counter", "evergreen_decisions", "Answers by decision", (*WHO, DECISION))
BATCH_ROWS = MetricFamily("histogram", "evergreen_batch_rows", "Rows in one call of the model", (SLOT,), BATCHES)
FALLBACK = MetricFamily("counter", "evergreen_fallback", "Answers in the model's place", (*WHO, SERVED_BY))
QUEUE_ROWS = MetricFamily("gauge", "evergreen_queue_rows", "Rows not answered yet", (SLOT,))
BREAKER_OPEN = MetricFamily("gauge", "evergreen_breaker_open", "1 while the model is left alone", (SLOT,))
UNSEEN = MetricFamily("counter", "evergreen_unseen_categories", "Values not seen in training", (*WHO, COLUMN))
MISSING = MetricFamily("counter", "evergreen_missing_values", "Values that were not given", (*WHO, COLUMN))
OUT_OF_RANGE = MetricFamily("counter", "evergreen_out_of_range", "Numbers beyond the training's", (*WHO, COLUMN, SIDE))
EXPLANATIONS = MetricFamily(
    "counter", "evergreen_explanations", "Requests by what became of their explanation", (*WHO, OUTCOME)
)
NOT_ADDITIVE = MetricFamily("counter", "evergreen_not_additive", "Explanations withheld, for they missed the score")
EXPLAIN_SECONDS = MetricFamily(
    "histogram", "evergreen_explain_seconds", "Time to answer /predict-and-explain", WHO, SECONDS
)
EXPLAINER_STARTS = MetricFamily("counter", "evergreen_explainer_starts", "Starts of the explainer's process", (SLOT,))
READY = MetricFamily("gauge", "evergreen_ready", "1 when the slot answers")
MODEL_INFO = MetricFamily("gauge", "evergreen_model_info", "Which model", (*WHO, "name", "digest", "generation"))
LOG_WRITTEN = MetricFamily("counter", "evergreen_log_written_rows", "Rows stored", (STREAM, SLOT))
LOG_LOST = MetricFamily("counter", "evergreen_log_lost_rows", "Rows never stored", (STREAM, SLOT, REASON))
LOG_REFUSED = MetricFamily("counter", "evergreen_log_refused", "Times the log's place refused", (STREAM, SLOT))
LOG_WAITING = MetricFamily("gauge", "evergreen_log_waiting_rows", "Rows not stored yet", (STREAM, SLOT))
FAMILIES: Final = tuple(found for found in dict(globals()).values() if isinstance(found, MetricFamily))

# the client library's own: what tells two processes of a slot apart, and how much memory one holds
STARTED, RESIDENT = "process_start_time_seconds", "process_resident_memory_bytes"
