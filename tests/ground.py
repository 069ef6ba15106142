"""Real small things that tests of several folders share: free ports, a small manifest, stacks of their own."""

from __future__ import annotations

import io
import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from rich.console import Console

from include.embedded.configuration.settings import EmbeddedSettings, ProgramName
from include.embedded.stack import strays
from include.embedded.stack.stack import Stack
from include.manifest import DEFAULT_PATH

Seen = TypeVar("Seen")
_luck = random.SystemRandom()  # a test that seeds `random` must not make two runs pick the same
PORTS = tuple(name for name in EmbeddedSettings.model_fields if name.endswith("_port"))

# The example in small: all rows in four days, weak but quick candidates, a soak of one second.
SMALL: dict[str, Any] = {
    "source.days": 4,
    "label.delay_days": 1,
    "train.window_days": 4,
    "train.holdout_days": 1,
    "train.candidates": {"logistic": {"C": 1.0}, "boosting": {"max_iter": 20}},
    "gate.resamples": 200,
    "gate.floor_auc": 0.6,
    "serving.ready_timeout_s": 150,  # on a machine that is five times busier than ours
    "serving.max_latency_ms": 15_000,
    "serving.smoke_rows": 5,
    "release.soak_s": 1.0,
    "release.soak_interval_s": 0.1,
}


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, picked from below those the kernel lends to clients (32768 and up on Linux).

    A port of the kernel's own choosing may be lent to some client before the server it is meant for has started.
    Parallel workers pick from blocks of their own, and at random, since other test runs may be on the machine.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    block = list(range(20_000 + worker * 1_500, 21_500 + worker * 1_500))
    _luck.shuffle(block)
    picked = list(itertools.islice(filter(_is_free, block), count))
    assert len(picked) == count, "the machine has no free port left"
    return picked


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: one that just ended is no reason
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_manifest(path: Path, changes: Mapping[str, Any]) -> Path:
    """The shipped manifest with some fields, named "section.field", set to something else.

    A page of Data Docs costs seconds; a test that wants one says so.
    """
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content["contract"]["data_docs"] = "never"
    for name, value in changes.items():
        *sections, field = name.split(".")
        place = content
        for section in sections:
            place = place[section]
        place[field] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def wait_for(look: Callable[[], Seen], seconds: float = 150) -> Seen:
    """The first answer of `look` that is true; what goes wrong meanwhile on the wire counts as not yet.

    The default is for a machine that other tests keep busy: starting a slot takes two seconds alone, and once took 25.
    """
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
def stack(home: Path, *names: ProgramName, **more: Any) -> Iterator[Stack]:
    """An embedded stack of these programs on ports of its own; nothing of it outlives the block."""
    ports: dict[str, Any] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    settings = EmbeddedSettings(home=home / "home", programs=names, deadline=480, **ports, **more)
    made = Stack(settings, Console(file=io.StringIO(), width=200))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        assert strays.find(settings.home) == []
