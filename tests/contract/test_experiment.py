"""Experiments on real slots behind a real proxy: real callers, real feedback, the real log."""

from __future__ import annotations

import itertools
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from include.data.store.local_store import LocalObjectStore, LocalSnapshotStore
from include.feedback.segments import Segments
from include.release.core.rollout import ReleasePlan, Step
from include.release.service.driver import ReleaseDriver
from include.release.service.experiment_outcomes import ExperimentOutcomes
from tests import credit, ground
from tests.ground import wait_for
from tests.served import Serving

CALLERS = [f"caller-{number}" for number in range(150)]
CLEARED = [Step.EXPERIMENT, Step.WITHDRAW, Step.DISCARD, Step.REJECTED]
OTHER = {"good": "bad", "bad": "good"}


@pytest.fixture(scope="module")
def running_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Slots whose log reaches its place in a moment."""
    root = tmp_path_factory.mktemp("experiment")
    path = ground.write_manifest(root / "pipeline.yaml", {"serving.log": {"flush_s": 0.5}})
    with ground.stack(root, "envoy", "slot-blue", "slot-green", manifest=path) as stack:
        yield Serving(stack)


class Callers:
    """Ask one after the other, again and again, and say what became of each answer as `truth` has it."""

    def __init__(self, serving: Serving) -> None:
        self.truth: Callable[[str, str], bool] = lambda version, caller: True  # whether the decision was right
        self.sides: dict[str, set[str]] = defaultdict(set)
        self.answers = 0
        self._serving, self._done = serving, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(trust_env=False, timeout=10, base_url=self._serving.addresses.proxy) as client:
            for caller, row in zip(itertools.cycle(CALLERS), itertools.cycle(credit.rows()), strict=False):
                if self._done.is_set():
                    return
                try:
                    self._ask(client, caller, row)
                except httpx.HTTPError:  # a test kills the proxy
                    continue

    def _ask(self, client: httpx.Client, caller: str, row: dict[str, Any]) -> None:
        answer = client.post("/predict", json={"rows": [row]}, headers={"x-evergreen-key": caller})
        if answer.status_code != 200:
            return
        version, said = answer.json()["version"], answer.json()["predictions"][0]["label"]
        if answer.headers["x-evergreen-route"].endswith(".sticky"):
            self.sides[caller].add(version)
        label = said if self.truth(version, caller) else OTHER[said]
        outcome = {"request_id": answer.headers["x-request-id"], "label": label}
        client.post("/feedback", json={"outcomes": [outcome]})
        self.answers += 1


@pytest.fixture
def callers(serving: Serving) -> Iterator[Callers]:
    with Callers(serving) as asking:
        yield asking


@pytest.fixture
def wanted(serving, trained, one_is_live):
    return serving.want(trained.release("2"), by="next", plan=ReleasePlan(experiment=40))


@pytest.fixture
def driver(serving, trained, small) -> Callable[..., ReleaseDriver]:
    def made(**changes: Any) -> ReleaseDriver:
        spec = {"metric": "errors", "min_outcomes": 20, "look_s": 0.5, "deadline_days": 200 / 86_400} | changes
        manifest, place = small(experiment=spec), serving.stack.settings.store_dir
        outcomes = ExperimentOutcomes(Segments(LocalObjectStore(place)), LocalSnapshotStore(place), manifest)
        return ReleaseDriver(serving.target, trained, manifest, credit.rows()[:10], lambda: outcomes)

    return made


def number_of(caller: str) -> int:
    return zlib.crc32(caller.encode())


def ways_end(taken: list[Step]) -> list[Step]:
    return [step for number, step in enumerate(taken) if number == 0 or step != taken[number - 1]][-4:]


def test_a_better_challenger_is_promoted_and_no_caller_ever_changed_sides_though_the_proxy_was_killed(
    serving, wanted, driver, callers
):
    callers.truth = lambda version, caller: version == "2" or number_of(caller) % 5 == 0
    taken: list[Step] = []
    while not taken or not taken[-1].is_terminal:  # a run that is killed after every look
        taken.append(driver().advance(wanted.generation))
        if taken[-1] is Step.EXPERIMENT and taken.count(Step.EXPERIMENT) == 2:
            wait_for(lambda: len(callers.sides) == len(CALLERS))
            serving.kill("envoy")
        if taken[-1].is_polled:
            before = callers.answers
            wait_for(lambda before=before: callers.answers > before + 20)
    assert ways_end(taken) == [Step.EXPERIMENT, Step.SWITCH, Step.SOAK, Step.DONE]
    told = serving.target.read_verdicts(wanted.generation)["experiment"]
    assert told["why"].startswith("the challenger is better: errors lower by ")
    assert told["report"]["interval"][0] > 0 and min(told["report"]["callers"].values()) >= 20
    assert serving.answers_with("2")
    assert {len(versions) for versions in callers.sides.values()} == {1} and len(callers.sides) == len(CALLERS)
    challenged = sum(versions == {"2"} for versions in callers.sides.values())
    assert 30 < challenged < 90  # five standard deviations around 40 per cent


def test_an_equal_challenger_is_discarded_at_the_deadline(serving, wanted, driver, callers):
    callers.truth = lambda version, caller: number_of(caller) % 2 == 0
    taken = [step for step, _ in driver(deadline_days=25 / 86_400).run(wanted.generation)]
    assert ways_end(taken) == CLEARED
    why = serving.target.read_verdicts(wanted.generation)["experiment"]["why"]
    assert why.startswith("undecided after 50 looks: ")
    assert serving.answers_with("1") and serving.target.observe().green.release is None


def test_a_worse_challenger_is_ended_as_soon_as_that_is_proven(serving, wanted, driver, callers):
    callers.truth = lambda version, caller: version == "1"
    taken = [step for step, _ in driver(min_outcomes=10_000).run(wanted.generation)]
    assert ways_end(taken) == CLEARED
    assert serving.target.read_verdicts(wanted.generation)["experiment"]["why"].startswith("the challenger is worse")
    assert serving.answers_with("1")


def test_while_a_slot_is_down_the_other_answers_its_callers_and_afterwards_they_are_back_on_their_side(
    serving, one_is_live, staged
):
    serving.target.split(staged("2", "green"), share=40, sticky=True)

    def sides() -> dict[str, str]:
        answers = {caller: serving.ask(headers={"x-evergreen-key": caller}) for caller in CALLERS}
        assert {answer.status_code for answer in answers.values()} == {200}
        return {caller: answer.json()["version"] for caller, answer in answers.items()}

    before = sides()
    assert set(before.values()) == {"1", "2"} and sides() == before
    serving.kill("slot-green")
    sides()
    wait_for(lambda: sides() == before)
