"""Four ingested days and a real MLflow server, under a model name of each test's own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import mlflow
import pandas as pd
import pytest

from include.data.core.snapshots import Snapshot, compute_known_on
from include.data.store.content import read_content
from include.data.store.snapshot_store import SnapshotStore
from include.jobs.__main__ import run
from include.kernel.files import open_scratch_directory
from include.kernel.job import Intent, JobRequest, JobResult
from include.manifest import Manifest
from include.registry.mlflow_registry import MlflowRegistry
from tests import edge
from tests.delivered import read_day

FIRST = date(2026, 8, 1)
LAST = FIRST + timedelta(days=4)  # four days and one for the labels


def publish(
    store: SnapshotStore, manifest: Manifest, day: date, scenario: str | None = None, as_of: date | None = None
) -> None:
    """A day without Great Expectations, whose work is tested elsewhere."""
    publish_rows(store, manifest, day, read_day(manifest, day, scenario), as_of)


def publish_rows(
    store: SnapshotStore, manifest: Manifest, day: date, rows: pd.DataFrame, as_of: date | None = None
) -> None:
    with open_scratch_directory(edge.work_room()) as room:
        rows.to_parquet(room / "rows.parquet", index=False)
        content = read_content(room / "rows.parquet")
        snapshot = Snapshot(
            id=content.id,
            day=day,
            rows=content.rows,
            columns=content.columns,
            source="test",
            manifest=manifest.digest,
            expectations=1,
            known_on=compute_known_on(day, as_of or day),
        )
        store.publish(snapshot, room / "rows.parquet")


@pytest.fixture
def place(small: Callable[..., Manifest], mlflow_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manifest]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    manifest = small(name=f"credit-{uuid.uuid4().hex[:8]}")
    for number in range(4):
        publish(edge.store(), manifest, FIRST + timedelta(days=number))
    yield manifest
    mlflow.set_tracking_uri(None)


@pytest.fixture
def ask() -> Callable[..., JobResult]:
    """Runs a job in this process."""

    def asked(job: str, key: str = "k", as_of: date = LAST, intent: str = "live", **params: Any) -> JobResult:
        return run(JobRequest(job=job, run_key=key, as_of=as_of, intent=Intent(intent), params=params))

    return asked


@pytest.fixture
def registry(place: Manifest) -> MlflowRegistry:
    return edge.registry()


def go_live(registry: MlflowRegistry, run_id: str, key: str = "k") -> str:
    """What bless and promote do, without the gate."""
    version = registry.register(run_id, f"runs:/{run_id}/model", key)
    registry.promote(version)
    return version
