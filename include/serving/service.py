"""What the routes of one server share. Put together once, when the server starts, and passed to each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyio import CapacityLimiter

from include.serving.exchange import Answer, Problem, RequestContext, Row

if TYPE_CHECKING:  # the log brings pyarrow, which a server without one does not load
    from include.serving.log.prediction_log import PredictionLog
    from include.serving.log.recent_answers import RecentAnswerBuffer
    from include.serving.metrics import Metrics
    from include.serving.predict.scoring import Scorer
    from include.serving.protocols.dialects import Dialect
    from include.serving.settings import Settings
    from include.serving.slot.current_model import CurrentModel
    from include.serving.spec import ServingSpec

# called with every parsed request once its answer is known: who asked, rows, answer, status, seconds since it came
Recorder = Callable[[RequestContext, Sequence[Row], Answer | Problem, int, float], None]


@dataclass(frozen=True)
class Service:
    """What the endpoints of one server share."""

    settings: Settings
    spec: ServingSpec
    current_model: CurrentModel
    scorer: Scorer
    metrics: Metrics
    recent_answers: RecentAnswerBuffer
    record: Recorder
    log: PredictionLog | None = None
    parsers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))  # of long bodies, at a time
    wrap_dialect: Callable[[Dialect], Dialect] | None = None  # by what observes the parts of a request
