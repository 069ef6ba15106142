"""A task's context as Airflow builds it, and a small world behind the hook: real files, no servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.execution_time.context import OutletEventAccessors
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from include.alerting.outbox import Outbox
from include.alerting.wiring import open_outbox
from include.data.store.snapshot_store import SnapshotStore
from include.data.wiring import open_snapshot_store
from include.kernel.errors import NotBlessed
from include.kernel.ledger_file import LocalLedger
from include.manifest import Manifest, read_manifest
from include.model.blessing.blessing import Blessing, verify
from include.release.targets.local.target import LocalTarget
from include.release.targets.local.traffic import LocalAddresses
from tests import blessed

MIDNIGHT = datetime(2026, 8, 20, tzinfo=UTC)


@dataclass
class Run:
    """As much of a DagRun as a task may see of it."""

    run_type: str = "manual"
    dag_id: str = "a_dag"
    run_id: str = "a_run"
    run_after: datetime = MIDNIGHT


@dataclass
class Event:
    extra: Mapping[str, Any]
    timestamp: datetime = MIDNIGHT


def context(*events: Event, params: Mapping[str, Any] | None = None, asset: Any = "an asset", **run: Any) -> Any:
    return {
        "dag_run": Run(**run),
        "params": dict(params or {}),
        "triggering_asset_events": {asset: list(events)} if events else {},
        "outlet_events": OutletEventAccessors(),
    }


def event(hours: int = 0, **extra: Any) -> Event:
    return Event(extra, MIDNIGHT + timedelta(hours=hours))


class ShelfRegistry:
    """Versions by their run, signed blessings in a dictionary, a champion in a field."""

    def __init__(self) -> None:
        self.blessings: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.papers: dict[str, dict[str, str]] = {}
        self.champion: str | None = None
        self.marked: list[str] = []

    def register(self, run_id: str, source: str) -> str:
        return self.versions.setdefault(run_id, str(len(self.versions) + 1))

    def read_run(self, run_id: str) -> tuple[dict[str, str], str, str]:
        return {"candidate": "boosting", "rows": "1600"}, f"http://mlflow/{run_id}", ""

    def describe(self, version: str, run_id: str, description: str, papers: Mapping[str, str]) -> None:
        self.papers[version] = dict(papers)

    def bless(self, version: str, envelope: str) -> None:
        self.blessings[version] = envelope

    def has_blessed(self, version: str, key: Ed25519PrivateKey = blessed.KEY, **changes: Any) -> str:
        """The envelope of a version that an earlier training left here."""
        content = blessed.document(**{"version": version, "digest": version * 64, "gate": "it is better", **changes})
        self.blessings[version] = blessed.envelope(content, key)
        return self.blessings[version]

    def fetch_blessing(self, version: str) -> str:
        if version not in self.blessings:
            raise NotBlessed(f"Version {version} carries no blessing.")
        return self.blessings[version]

    def promote(self, version: str) -> None:
        self.champion = version
        self.marked.clear()

    def mark_soaking(self, version: str) -> None:
        self.marked.append(version)

    def build_version_url(self, version: str) -> str:
        return f"http://mlflow/{version}"


@dataclass
class SmallWorld:
    """What ConnectionsHook gives, on files in a directory; the slots' processes are absent."""

    root: Path
    shelf: ShelfRegistry = field(default_factory=ShelfRegistry)
    driver: Any = None
    upkeep: Any = None

    @property
    def manifest(self) -> Manifest:
        return read_manifest()

    def open_registry(self) -> ShelfRegistry:
        return self.shelf

    def open_ledger(self) -> LocalLedger:
        return LocalLedger(self.root / "ledger.jsonl")

    def open_outbox(self) -> Outbox:
        return open_outbox(self.manifest)

    def open_snapshot_store(self) -> SnapshotStore:
        return open_snapshot_store()

    def open_target(self) -> LocalTarget:
        nobody = "http://127.0.0.1:9"
        return LocalTarget(
            self.root / "serving", LocalAddresses(nobody, nobody, {"blue": nobody, "green": nobody}, nobody)
        )

    def open_driver(self) -> Any:
        return self.driver

    def open_reconciler(self) -> Any:
        return self.upkeep

    def read_signing_key(self) -> Ed25519PrivateKey:
        return blessed.KEY

    def verify_blessing(self, version: str, envelope: str, digest: str | None = None) -> Blessing:
        return verify(envelope, {blessed.keyid(blessed.KEY): blessed.KEY.public_key()}, "credit-risk", version, digest)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallWorld:
    """Stands in for ConnectionsHook wherever an operator asks for it."""
    made = SmallWorld(tmp_path)
    monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / "store"))
    for module in ("announce", "approval", "gate", "reconcile", "registry", "rollout", "scoring"):
        monkeypatch.setattr(f"evergreen.operators.{module}.ConnectionsHook", lambda: made)
    return made


@pytest.fixture(autouse=True)
def executable_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow refuses `execute` outside its task runner; this is its own switch for tests."""
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
