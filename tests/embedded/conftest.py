"""A stack of its own for each test: a home in tmp_path and ports nobody else has."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from include.embedded.configuration.settings import EmbeddedSettings
from include.embedded.stack import strays
from include.embedded.stack.stack import Stack
from tests.ground import PORTS, free_ports


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
