"""Real small things that tests of several folders share: free ports, a small manifest, stacks, releases."""

from __future__ import annotations

import io
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from rich.console import Console

from include.adapters import envoy_routes
from include.adapters.files import write_atomic
from include.adapters.serving_local import LocalAddresses, LocalTarget
from include.core.manifest import DEFAULT_PATH
from include.core.rollout import COLOURS, Colour, Release, Route
from include.embedded import strays
from include.embedded.settings import EmbeddedSettings, ProgramName
from include.embedded.stack import Stack
from include.model import artifact
from include.model.artifact import Golden, ServableModel
from tests.unit import credit

Seen = TypeVar("Seen")
PORTS = tuple(name for name in EmbeddedSettings.model_fields if name.endswith("_port"))

# The example in small: all rows in four days, weak but quick candidates, a soak of half a second.
SMALL: dict[str, Any] = {
    "source.days": 4,
    "label.delay_days": 1,
    "train.window_days": 4,
    "train.holdout_days": 1,
    "train.candidates": {"logistic": {"C": 1.0}, "boosting": {"max_iter": 20}},
    "gate.resamples": 200,
    "gate.floor_auc": 0.6,
    "serving.ready_timeout_s": 20,
    "serving.max_latency_ms": 3000,
    "serving.smoke_rows": 5,
    "release.soak_s": 0.5,
    "release.soak_interval_s": 0.1,
}


def free_ports(count: int) -> list[int]:
    """All held at once while they are picked, so that no two are the same."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def write_manifest(path: Path, changes: Mapping[str, Any]) -> Path:
    """The shipped manifest with some fields, named "section.field", set to something else."""
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    for name, value in changes.items():
        *sections, field = name.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[field] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def wait_for(look: Callable[[], Seen], seconds: float = 20) -> Seen:
    """The first answer of `look` that is true; what goes wrong meanwhile on the wire counts as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (httpx.HTTPError, OSError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"it did not happen within {seconds:g} s")


@contextmanager
def stack(home: Path, *names: ProgramName) -> Iterator[Stack]:
    """An embedded stack of these programs on ports of its own; nothing of it outlives the block."""
    ports: dict[str, Any] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    settings = EmbeddedSettings(home=home / "home", programs=names, deadline=60, **ports)
    made = Stack(settings, Console(file=io.StringIO(), width=200))
    try:
        made.up()
        yield made
    finally:
        made.down()
        assert strays.find(settings.home) == []


class Serving:
    """The local serving target with real processes behind it, and what an outage does to them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.root = stack.settings.serving_dir
        self.addresses = LocalAddresses(
            stack.settings.serving_url,
            {"blue": stack.settings.blue_url, "green": stack.settings.green_url},
            stack.environment()["EVERGREEN_SUPERVISOR_URL"],
        )
        self.target = LocalTarget(self.root, self.addresses)
        self._client = httpx.Client(trust_env=False, timeout=5)

    def ask(self, row: Mapping[str, Any] | None = None) -> httpx.Response:
        """One prediction through the proxy, as a client would ask for it."""
        return self._client.post(f"{self.addresses.proxy}/predict", json={"rows": [dict(row or credit.rows()[0])]})

    def answers_with(self, version: str) -> bool:
        answer = self.ask()
        return answer.status_code == 200 and answer.json()["version"] == version

    def kill(self, program: ProgramName) -> None:
        """SIGKILL by the process manager, which then restarts what it still wants."""
        self.stack.supervisor.rpc.signalProcess(program, "KILL")

    def stop(self, program: ProgramName) -> None:
        self.stack.supervisor.rpc.stopProcess(program)

    def start_all(self) -> None:
        """What a test stopped, runs again."""
        self.stack.up()

    def forget(self) -> None:
        for name in ("wanted.json", "verdicts", "artifacts"):
            _remove(self.root / name)
        write_atomic(self.root / "route" / "routes.yaml", envoy_routes.render(Route()))
        for colour in COLOURS:
            self._empty(colour)
        wait_for(lambda: self.ask().headers["x-evergreen-generation"] == "0")

    def _empty(self, colour: Colour) -> None:
        content = self.root / "slots" / f"{colour}.json"
        if content.exists():
            content.unlink()
            self.stop("slot-blue" if colour == "blue" else "slot-green")
            self.stack.supervisor.start("slot-blue" if colour == "blue" else "slot-green")
        wait_for(lambda: self._client.get(f"{self.addresses.slots[colour]}/model").json()["version"] is None)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


class Trained:
    """Artifacts of the example data by version, as a registry hands them out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._save("1", credit.trained("logistic"))
        self._save("2", credit.trained("boosting"))
        self._save("extra-column", _asking_for_more(credit.trained("logistic")))
        self._damage(self._save("unloadable", credit.trained("logistic")))

    def _save(self, version: str, model: ServableModel) -> Path:
        artifact.save(model.pipeline, model.meta, self.root / version)
        return self.root / version

    @staticmethod
    def _damage(place: Path) -> None:
        """Broken before the digest is taken: it arrives as it was sent, and cannot be loaded."""
        (place / "model.skops").write_bytes(b"this was a model")

    def release(self, version: str) -> Release:
        return Release(version, artifact.digest(self.root / version))

    def fetch(self, version: str, destination: Path) -> Path:
        return Path(shutil.copytree(self.root / version, destination / "artifact"))


def _asking_for_more(model: ServableModel) -> ServableModel:
    """A model that demands a column no client sends; its own golden rows carry it, so only real rows find out."""
    column = model.meta.columns[0].model_copy(update={"name": "Salary", "nullable": False})
    golden = tuple(Golden(row={**g.row, "Salary": 1.0}, probability=g.probability) for g in model.meta.golden)
    meta = model.meta.model_copy(update={"columns": (*model.meta.columns, column), "golden": golden})
    return ServableModel(meta, model.pipeline)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
