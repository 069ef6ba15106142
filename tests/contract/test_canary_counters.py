"""What the canary reads of a real server is what that server answered, for each of its four questions.

The server is a process of its own, asked over HTTP on every path that predicts; its text is read by the reader of the
release. Whoever renames a metric or a label on one side alone fails here.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest

from include.kernel.words.verdicts import Verdict
from include.release.core.canary import Period, Traffic, judge
from include.release.targets.slot_counters import SlotCounters, parse_counters
from include.serving.metrics import Metrics
from include.serving.words.slot_metrics import LATENCY_S, SCORES
from tests import credit
from tests.ground import wait_for
from tests.model_server import VERSION, model_server
from tests.release.test_canary import Spec
from tests.serving.spoken import in_rows, records, tensors

ROWS = credit.rows()[:20]
SLOW_S = 0.3
PATHS = {
    "/predict": in_rows,
    "/predict-and-explain": in_rows,
    "/invocations": records,
    "/v2/models/credit/infer": tensors,
}


@dataclass
class Asked:
    """What a client was answered on the paths that predict."""

    url: str
    statuses: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    predictions: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, path: str, content: Any, headers: dict[str, str]) -> httpx.Response:
        began = time.perf_counter()
        answer = httpx.post(f"{self.url}{path}", content=content, headers=headers, trust_env=False, timeout=30)
        self.statuses.append(answer.status_code)
        self.seconds.append(time.perf_counter() - began)
        return answer

    def all_paths(self) -> None:
        """The same rows in every dialect, so that what each answers is known from the plainest of them."""
        for path, spoken in PATHS.items():
            body, headers = spoken(ROWS)
            wait_for(partial(self._answers, path, body, headers), 60)
        told = httpx.post(f"{self.url}/predict", content=in_rows(ROWS)[0], trust_env=False)
        self.statuses.append(told.status_code)
        self.seconds.append(told.elapsed.total_seconds())
        self.predictions += told.json()["predictions"] * (len(PATHS) + 1)

    def _answers(self, path: str, body: bytes, headers: dict[str, str]) -> bool:
        """The explainer is started by its first request, which may be refused with 503."""
        answer = self.ask(path, body, headers)
        assert answer.status_code in (200, 503), answer.text
        return answer.is_success

    def late(self) -> None:
        """Nobody waits for it, so it is an error of the server's: 504."""
        body, headers = in_rows(ROWS)
        assert self.ask("/predict", body, {**headers, "x-evergreen-timeout-ms": "0"}).status_code == 504

    def wrong(self) -> None:
        assert self.ask("/predict", b"{", {"content-type": "application/json"}).status_code in (400, 422)

    def slow(self) -> None:
        """A body that takes its time to come."""

        def parts() -> Iterator[bytes]:
            yield b'{"rows": ['
            time.sleep(SLOW_S)
            yield b"{}]}"

        assert self.ask("/predict", parts(), {"content-type": "application/json"}).status_code in (400, 422)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Asked, Traffic]:
    with model_server(tmp_path_factory.mktemp("server"), "exported") as url:
        asked = Asked(url)
        asked.all_paths()
        for _ in range(3):
            asked.late()
        asked.wrong()
        asked.slow()
        found = parse_counters(httpx.get(f"{url}/metrics", trust_env=False).text, VERSION)
    assert found is not None
    return asked, found.traffic


def test_errors_are_those_that_were_answered(answered: tuple[Asked, Traffic]) -> None:
    asked, traffic = answered
    failed = sum(status >= 500 for status in asked.statuses)
    assert traffic.errors == failed >= 3
    assert traffic.requests == failed + asked.statuses.count(200)


def test_latencies_are_those_of_every_path_and_none_is_longer_than_its_client_waited(
    answered: tuple[Asked, Traffic],
) -> None:
    asked, traffic = answered
    assert sum(traffic.latency) == len(asked.statuses)
    for place, bound in enumerate(LATENCY_S):
        assert sum(traffic.latency[place + 1 :]) <= sum(seconds > bound for seconds in asked.seconds)
    assert sum(traffic.latency[bisect_left(LATENCY_S, SLOW_S) :]) >= 1


def test_scores_are_those_that_were_answered(answered: tuple[Asked, Traffic]) -> None:
    asked, traffic = answered
    bins = [0] * (len(SCORES) + 1)
    for prediction in asked.predictions:
        bins[bisect_left(SCORES, prediction["probability"])] += 1
    assert traffic.scores == tuple(bins)


def test_decisions_are_those_that_were_answered(answered: tuple[Asked, Traffic]) -> None:
    asked, traffic = answered
    decided = sum(prediction["decision"] for prediction in asked.predictions)
    assert 0 < decided < len(asked.predictions)
    assert (traffic.decisions, traffic.scored) == (decided, len(asked.predictions))


def test_a_candidate_that_says_yes_to_all_fails_beside_one_that_says_it_to_a_tenth() -> None:
    """Through the writer's text, with the same scores: a moved threshold shows in nothing but the decisions."""
    candidate, stable = _decided("2", 10_000), _decided("1", 1_000)
    judgement = judge([Period(0.5, candidate.traffic, stable.traffic)], Spec(), is_last=True)
    assert judgement.verdict is Verdict.FAILED and judgement.why.startswith("decisions worse by +90.0%")


def test_decisions_under_a_word_that_nobody_knows_are_not_none_but_unreadable() -> None:
    metrics = Metrics("blue")
    metrics.count_answer("2", "/predict", 200, 0.002)
    metrics.record_scores("2", [0.3], {})
    assert parse_counters(metrics.render().decode(), "2") is None, "scored, and not decided"
    metrics.count_decisions("2", [True])
    text = metrics.render().decode()
    assert parse_counters(text, "2") is not None
    assert parse_counters(text.replace('decision="true"', 'decision="positive"'), "2") is None


def _decided(version: str, yes: int, of: int = 10_000) -> SlotCounters:
    metrics = Metrics("blue")
    for _ in range(of):
        metrics.count_answer(version, "/predict", 200, 0.002)
    metrics.record_scores(version, [0.3] * of, {})
    metrics.count_decisions(version, [True] * yes + [False] * (of - yes))
    found = parse_counters(metrics.render().decode(), version)
    assert found is not None
    return found
