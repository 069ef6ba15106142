"""What a target is tested on. Every test here takes `serving`: real processes, empty as after the first `make up`.

Another target joins the suite by bringing the same small handle: `target`, `ask`, `kill`, `stop` and `start_all`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from include.kernel.words.colours import Colour
from include.manifest import Manifest
from include.release.core.rollout import DesiredState, Step
from include.release.service.driver import ReleaseDriver
from tests import credit
from tests.counterparts import S3Server, s3_server
from tests.ground import wait_for
from tests.served import Serving, Trained


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    """A real S3 server over HTTP, for all tests of a file."""
    with s3_server() as running:
        yield running


@pytest.fixture
def buckets(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same, in force by the environment."""
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    return moto


@pytest.fixture
def wish(serving: Serving, trained: Trained) -> Callable[..., DesiredState]:
    def wished(version: str, by: str = "a test", kind: Any = "deploy") -> DesiredState:
        return serving.want(trained.release(version), kind, by)

    return wished


@pytest.fixture
def staged(serving: Serving, trained: Trained, wish: Callable[..., DesiredState]) -> Callable[..., DesiredState]:
    """A version that is wanted, in a slot, and ready."""

    def put(version: str, colour: Colour = "blue", by: str = "a test") -> DesiredState:
        wanted = wish(version, by)
        serving.target.install_release(colour, wanted, trained.root / version)
        wait_for(lambda: serving.target.observe().get_slot(colour).ready)
        return wanted

    return put


@pytest.fixture
def one_is_live(serving: Serving, trained: Trained, wish: Callable[..., DesiredState]) -> None:
    """Version 1 serves from the blue slot, alone, as generation 1."""
    serving.go_live("blue", wish("1", by="an earlier run"), trained.root / "1")


@pytest.fixture
def rollout(serving: Serving, trained: Trained, small: Callable[..., Manifest]) -> Callable[..., ReleaseDriver]:
    """A driver for the real target; its registry is a shelf of artifacts, its smoke rows are real ones."""

    def made(rows: int = 10, **changes: Any) -> ReleaseDriver:
        return ReleaseDriver(serving.target, trained, small(**changes), credit.rows()[:rows])

    return made


class Load(list[int]):
    """The statuses that clients were answered with so far, and the versions that answered."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: list[str | None] = []

    def has_grown(self, since: int) -> bool:
        return len(self) > since + 5


@pytest.fixture
def load(serving: Serving) -> Iterator[Load]:
    """Two clients that ask through the proxy until the test is over."""
    seen, done = Load(), threading.Event()

    def client() -> None:
        for row in itertools.cycle(credit.rows()):
            if done.is_set():
                return
            answer = serving.ask(row)
            seen.append(answer.status_code)
            seen.versions.append(answer.headers.get("x-evergreen-version"))

    asking = [threading.Thread(target=client) for _ in range(2)]
    for each in asking:
        each.start()
    yield seen
    done.set()
    for each in asking:
        each.join()


@pytest.fixture
def release(rollout: Callable[..., ReleaseDriver], wish: Callable[..., DesiredState]) -> Callable[..., list[Step]]:
    """Wants a version and follows the machine to its end; gives the steps without repetitions."""

    def released(version: str, by: str = "a test", kind: str = "deploy", **changes: Any) -> list[Step]:
        wanted = wish(version, by, kind)
        steps = [step for step, _ in rollout(**changes).run(wanted.generation)]
        return [step for number, step in enumerate(steps) if number == 0 or step != steps[number - 1]]

    return released
