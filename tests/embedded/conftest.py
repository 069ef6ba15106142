"""A stack of its own for each test: a home in tmp_path and ports nobody else has."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from include.embedded import strays
from include.embedded.settings import EmbeddedSettings
from include.embedded.stack import Stack

PORTS = tuple(name for name in EmbeddedSettings.model_fields if name.endswith("_port"))


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


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[EmbeddedSettings]:
    """Envoy alone: it starts in a quarter of a second. Nothing of it outlives the test."""
    ports: dict[str, Any] = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    made = EmbeddedSettings(home=tmp_path / "home", programs=("envoy",), deadline=20, **ports)
    yield made
    strays.clear(made.home, grace=1)


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def stack(settings: EmbeddedSettings, printed: io.StringIO) -> Callable[[], Stack]:
    """A fresh look at the same home, as each command of the Makefile has."""
    return lambda: Stack(settings, Console(file=printed, width=200))
