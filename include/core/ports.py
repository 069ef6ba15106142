"""The ports: what the rest of the house may ask of the world. Adapters implement them, tests bring real small ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Protocol

from include.core.episodes import MonitorReport
from include.core.job import Intent
from include.core.ledger import Entry
from include.core.rollout import Colour, Evidence, Observed, Release, Verdict, Wanted
from include.core.snapshots import Snapshot


class SnapshotStore(Protocol):
    """Validated days. `snapshots` is what counts now, `history` every version with the day it is known from."""

    def publish(
        self,
        snapshot: Snapshot,
        accepted: Path,
        extras: Mapping[str, Path] | None = None,
        *,
        intent: Intent = Intent.LIVE,
    ) -> bool: ...

    def snapshots(self) -> list[Snapshot]: ...
    def history(self) -> list[Snapshot]: ...
    def newest_day(self) -> date | None: ...
    def file(self, snapshot: Snapshot, name: str) -> Path: ...


class Reports(Protocol):
    """What the monitor found, one report a version and day."""

    def write_report(self, report: MonitorReport) -> None: ...
    def reports(self) -> list[MonitorReport]: ...


class Ledger(Protocol):
    def append(self, entry: Entry) -> bool:
        """False when an entry with the same key stands already; then nothing is written."""
        ...

    def entries(self, what: str | None = None) -> Iterable[Entry]: ...


class Registry(Protocol):
    """Model versions, their blessings and the champion. Raises `ServiceUnavailable` when it cannot be reached.

    A blessing is kept as its signed envelope: whoever reads it has to verify it before believing a word.
    """

    def blessing(self, version: str) -> str: ...
    def champion(self) -> str | None: ...
    def promote(self, version: str) -> None: ...
    def fetch(self, version: str, destination: Path) -> Path: ...


class ServingTarget(Protocol):
    """A place that serves releases blue-green. Every method is idempotent; writes are fenced by generation."""

    def wanted(self) -> Wanted | None: ...
    def want(
        self, release: Release, by: str, why: str, kind: str, expected: int | None = None, blessing: str | None = None
    ) -> Wanted: ...
    def observe(self) -> Observed: ...
    def evidence(self, generation: int) -> Evidence: ...
    def record(self, generation: int, part: str, verdict: Verdict, why: str) -> None: ...
    def stage(self, colour: Colour, wanted: Wanted, artifact: Path) -> None: ...
    def switch(self, colour: Colour, wanted: Wanted) -> None: ...
    def retire(self, wanted: Wanted) -> None: ...
    def discard(self, colour: Colour, wanted: Wanted) -> None: ...
