"""What a request gets when there is too much of it, when it takes too long, and when the model fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from include.model.artifact import ArtifactMeta
from include.model.schema import Column
from include.serving.exchange import Answer, Problem, RequestContext
from include.serving.metrics import Metrics
from include.serving.predict.circuit_breaker import CircuitBreaker
from include.serving.predict.scoring import Scorer
from include.serving.slot.contents import Loaded, SlotFile
from include.serving.slot.current_model import CurrentModel
from include.serving.spec import BreakerSpec, ServingSpec

META = ArtifactMeta(
    name="m", columns=(Column(name="p", kind="number"),), positive="bad", negative="good", threshold=0.5
)


@dataclass
class Model:
    """Answers `p` of a row, or fails; counts how often it was asked."""

    meta: ArtifactMeta = META
    broken: bool = False
    asked: int = 0
    gate: threading.Event = field(default_factory=threading.Event)

    def predict_proba(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        self.asked += 1
        assert self.gate.wait(10)
        if self.broken:
            raise RuntimeError("down")
        return np.array([row["p"] or 0.0 for row in rows], dtype=np.float64)

    def predict_frame(self, table: Any) -> NDArray[np.float64]:
        raise NotImplementedError


def held(version: str, model: Model | None = None) -> Loaded:
    model = model or Model()
    model.gate.set()
    return Loaded(SlotFile(version=version, digest=version * 64, generation=int(version)), model, datetime.now(UTC))


def scorer_of(slot: Loaded, previous: Loaded | None = None, **spec: Any) -> Scorer:
    behaviour = ServingSpec.model_validate({"breaker": {"failures": 3, "reset_s": 0.2}, **spec})
    return Scorer(CurrentModel("blue", slot, previous=previous), behaviour, Metrics("blue"))


def asked(seconds: float = 5.0) -> RequestContext:
    now = time.monotonic()
    return RequestContext("r", None, now + seconds, now)


async def outcome(scorer: Scorer, slot: Loaded, p: float = 0.7, seconds: float = 5.0) -> Answer | Problem:
    return await scorer.score(slot, [{"p": p}], asked(seconds))


def status(found: Answer | Problem) -> int:
    return found.status if isinstance(found, Problem) else 200


async def test_an_answer_names_version_label_and_decision() -> None:
    slot = held("3")
    assert await outcome(scorer_of(slot), slot) == Answer("3", "blue", "3" * 64, [0.7], ["bad"], [True], "model")


async def test_beyond_the_bound_a_request_is_refused_at_once_and_accepted_again_later() -> None:
    slot = held("3")
    scorer = scorer_of(slot, queue_rows=4)
    slot.model.gate.clear()  # type: ignore[attr-defined]
    waiting = [asyncio.create_task(outcome(scorer, slot)) for _ in range(4)]
    await asyncio.sleep(0.01)
    refused = await outcome(scorer, slot)
    assert isinstance(refused, Problem) and (refused.status, refused.retry_after) == (503, 1)
    slot.model.gate.set()  # type: ignore[attr-defined]
    assert [status(found) for found in await asyncio.gather(*waiting)] == [200] * 4
    assert scorer.waiting == 0 and status(await outcome(scorer, slot)) == 200


async def test_how_many_rows_a_request_has_of_late_is_known_before_the_next_is_read() -> None:
    slot = held("3")
    scorer = scorer_of(slot)
    for rows, low, high in ((50, 45, 50), (1, 1, 6)):
        for _ in range(60):
            await scorer.score(slot, [{"p": 0.7}] * rows, asked())
        assert low <= scorer.mean_rows <= high


async def test_too_late_is_504() -> None:
    slot = held("3")
    scorer = scorer_of(slot)
    slot.model.gate.clear()  # type: ignore[attr-defined]
    assert status(await outcome(scorer, slot, seconds=0.05)) == 504
    slot.model.gate.set()  # type: ignore[attr-defined]


async def test_a_model_that_keeps_failing_is_left_alone_and_tried_again() -> None:
    slot = held("3", model := Model(broken=True))
    scorer = scorer_of(slot)
    assert [status(await outcome(scorer, slot)) for _ in range(3)] == [500] * 3
    before, resting = model.asked, await outcome(scorer, slot)
    assert isinstance(resting, Problem) and (resting.status, resting.retry_after) == (503, 1)
    assert model.asked == before
    model.broken = False
    await asyncio.sleep(0.25)
    assert [status(await outcome(scorer, slot)) for _ in range(3)] == [200] * 3


async def test_the_rule_answers_in_the_models_place_and_says_so() -> None:
    slot = held("3", Model(broken=True))
    scorer = scorer_of(slot, fallback={"rule": 0.9})
    found = [await outcome(scorer, slot) for _ in range(5)]
    assert {(f.served_by, f.probabilities[0], f.labels[0]) for f in found if isinstance(f, Answer)} == {
        ("rule", 0.9, "bad")
    }


async def test_the_previous_version_answers_in_the_models_place_and_names_itself() -> None:
    slot, before = held("3", Model(broken=True)), held("2")
    found = await outcome(scorer_of(slot, before, fallback="previous"), slot)
    assert isinstance(found, Answer) and (found.served_by, found.version, found.probabilities) == (
        "previous",
        "2",
        [0.7],
    )


async def test_when_the_fallback_fails_too_that_is_said() -> None:
    slot, before = held("3", Model(broken=True)), held("2", Model(broken=True))
    assert status(await outcome(scorer_of(slot, before, fallback="previous"), slot)) == 500


@pytest.mark.parametrize(("cache_rows", "calls"), [(0, 2), (10, 1)])
async def test_a_row_asked_again_is_computed_again_unless_the_cache_is_on(cache_rows: int, calls: int) -> None:
    slot = held("3", model := Model())
    scorer = scorer_of(slot, cache_rows=cache_rows)
    first, second = await outcome(scorer, slot), await outcome(scorer, slot)
    assert first == second and model.asked == calls


async def test_the_cache_forgets_the_oldest_and_knows_models_apart() -> None:
    slot, other = held("3", model := Model()), held("4", beside := Model())
    scorer = scorer_of(slot, cache_rows=2)
    for p in (0.1, 0.2, 0.3, 0.1):
        await outcome(scorer, slot, p)
    assert model.asked == 4
    await outcome(scorer, other, 0.1)
    assert beside.asked == 1


async def test_the_breaker_lets_one_try_through_each_time() -> None:
    breaker = CircuitBreaker(BreakerSpec(failures=2, reset_s=10))
    breaker.record_failure(0.0)
    assert breaker.admit(0.1)
    breaker.record_failure(0.2)
    assert [breaker.admit(now) for now in (0.3, 10.1, 10.2, 10.3, 20.1, 20.3)] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert breaker.compute_retry_after(20.4) == 10
    breaker.record_success()
    assert breaker.admit(20.5) and breaker.admit(20.6)


async def test_a_request_the_model_would_not_reach_in_time_is_refused_at_once() -> None:
    slot = held("3")
    scorer = scorer_of(slot)
    slot.model.gate.clear()  # type: ignore[attr-defined]
    threading.Timer(0.6, slot.model.gate.set).start()  # type: ignore[attr-defined]
    many = [asyncio.create_task(scorer.score(slot, [{"p": 0.7}] * 10, asked())) for _ in range(2)]
    await asyncio.gather(*many)  # now a row is known to take some 20 ms
    waiting = asyncio.create_task(scorer.score(slot, [{"p": 0.7}] * 60, asked()))
    await asyncio.sleep(0)
    assert status(await outcome(scorer, slot, seconds=0.5)) == 503
    assert status(await outcome(scorer, slot, seconds=60)) == 200
    assert status(await waiting) == 200
