"""From validated rows to an answer. The only way to the model, whatever protocol asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import anyio.to_thread
from anyio import CapacityLimiter

from include.serving.validation import Problem, Row

if TYPE_CHECKING:
    from include.core.manifest import ServingSpec
    from include.serving.slot import Loaded

ServedBy = Literal["model", "rule", "previous"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks: the request's id, the caller's key, and when (monotonic seconds) it came and must be answered."""

    id: str
    key: str | None
    deadline: float
    received: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One probability, label and decision for each row, and which model, or what in its place, they came from."""

    version: str
    slot: str
    digest: str
    probabilities: list[float]
    labels: list[str]
    decisions: list[bool]
    served_by: ServedBy = "model"


class Scorer:
    def __init__(self, colour: str, spec: ServingSpec) -> None:
        self._colour = colour
        self._spec = spec
        self._one_at_a_time = CapacityLimiter(1)

    async def score(self, held: Loaded, rows: Sequence[Row], asked: Asked) -> Answer | Problem:
        """Scores with the model the request began with (`held`)."""
        scores = await anyio.to_thread.run_sync(held.model.predict_proba, rows, limiter=self._one_at_a_time)
        return self._answer(held, scores.tolist())

    def _answer(self, held: Loaded, probabilities: list[float], served_by: ServedBy = "model") -> Answer:
        meta, file = held.model.meta, held.file
        labels = [meta.label(probability) for probability in probabilities]
        decisions = [probability >= meta.threshold for probability in probabilities]
        return Answer(file.version, self._colour, file.digest, probabilities, labels, decisions, served_by)
