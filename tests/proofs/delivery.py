"""A pipeline of its own for every case of a proof: manifest, deliveries, store; and the real job, started as a process.

The data is generated: customers who stay or leave. Nothing here knows how ingest works; it starts the command an
operator would start, reads its exit code and its result, and looks at the disk.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from include.data.core.snapshots import Snapshot
from include.data.store.content import read_content
from include.data.store.local_store import LocalSnapshotStore
from include.data.store.s3_store import S3SnapshotStore
from include.data.store.snapshot_store import SnapshotStore
from tests.ground import write_manifest

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2026, 8, 3)
Row = dict[str, Any]
CONTRACT: dict[str, Any] = {
    "id": "customer",
    "unique_days": 7,
    "rows": {"min": 20, "max": 400},
    "columns": {
        "tenure": {"kind": "number", "min": 0, "max": 120},
        "plan": {"kind": "category", "values": ["basic", "plus", "pro"]},
        "spend": {"kind": "number", "min": 0, "max": 5000, "max_missing": 0.2},
    },
    "event_time": {"column": "at"},
    "data_docs": "never",
}
LABEL = {"column": "outcome", "positive": "left", "negative": "stayed", "delay_days": 1}
ARROW = pa.schema(
    [
        ("customer", pa.string()),
        ("at", pa.timestamp("us", "UTC")),
        ("tenure", pa.int64()),
        ("plan", pa.string()),
        ("spend", pa.float64()),
        ("outcome", pa.string()),
    ]
)


def rows_of(day: date = DAY, count: int = 100, seed: int = 1) -> list[Row]:
    """A good day."""
    dice, began = random.Random(f"{day}{seed}"), datetime.combine(day, time(), UTC)
    return [
        {
            "customer": f"C{day:%m%d}-{seed}-{number:05d}",
            "at": began + timedelta(seconds=number * 60),
            "tenure": dice.randint(0, 120),
            "plan": dice.choice(["basic", "plus", "pro"]),
            "spend": None if number % 11 == 0 else round(dice.uniform(0, 5000), 2),
            "outcome": dice.choice(["left", "stayed"]),
        }
        for number in range(count)
    ]


def as_csv(rows: list[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[Row], schema: pa.Schema = ARROW, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, **options)
    return sink.getvalue()


@dataclass(frozen=True)
class Ended:
    """How one run of the job ended. `told` is the sentence it left, `log` what it printed, `peak_mib` its memory."""

    exit: int
    told: str
    kind: str
    outputs: Mapping[str, Any]
    verdict: str
    log: str
    peak_mib: float


@dataclass
class Pipeline:
    home: Path
    suffix: str = "csv"
    contract: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    store: Path = field(init=False)

    def __post_init__(self) -> None:
        self.store, self.inbox, self.tmp = self.home / "store", self.home / "in", self.home / "tmp"
        for place in (self.inbox, self.tmp, self.home / "results"):
            place.mkdir(parents=True, exist_ok=True)
        self.configure()

    def configure(self) -> None:
        files = {"kind": "files", "path": f"{self.inbox}/{{day}}.{self.suffix}"}
        changes = {
            "source": dict(self.source) or files,
            "contract": {**CONTRACT, **self.contract},
            "label": LABEL,
            "groups": {},
        }
        write_manifest(self.home / "pipeline.yaml", changes)

    def deliver(self, content: bytes | list[Row], day: date = DAY) -> None:
        if isinstance(content, list):
            content = as_parquet(content) if self.suffix == "parquet" else as_csv(content)
        (self.inbox / f"{day}.{self.suffix}").write_bytes(content)

    def withdraw(self, day: date = DAY) -> None:
        (self.inbox / f"{day}.{self.suffix}").unlink(missing_ok=True)

    # --- the job ------------------------------------------------------------------------------------------------------

    def start(
        self,
        day: date = DAY,
        as_of: date | None = None,
        intent: str = "live",
        command: tuple[str, ...] = ("-m", "include.jobs"),
        **more: str,
    ) -> subprocess.Popen[str]:
        request = {
            "job": "ingest",
            "run_key": "proof",
            "as_of": str(as_of or day + timedelta(days=1)),
            "intent": intent,
            "params": {"day": str(day)},
        }
        foreign = ("AIRFLOW_", "AWS_", "EVERGREEN_", "MLFLOW_", "PG")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {
            "EVERGREEN_MANIFEST": str(self.home / "pipeline.yaml"),
            "EVERGREEN_STORE": str(self.store),
            "EVERGREEN_JOB_REQUEST": json.dumps(request),
            "EVERGREEN_JOB_RESULT": str(self.result),
            "TMPDIR": str(self.tmp),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1,localhost",
            "POLARS_MAX_THREADS": "2",
            "OMP_NUM_THREADS": "1",
        }
        self.result.unlink(missing_ok=True)
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", *command],
            cwd=ROOT,
            env={**environment, **self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self, process: subprocess.Popen[str], seconds: float = 240) -> Ended:
        log, _ = process.communicate(timeout=seconds)
        found = json.loads(self.result.read_text()) if self.result.exists() else {}
        return Ended(
            exit=process.returncode,
            told=found.get("error", found.get("summary", "")),
            kind=found.get("kind", ""),
            outputs=found.get("outputs", {}),
            verdict=found.get("verdict", ""),
            log=log,
            peak_mib=0.0,
        )

    def ingest(self, day: date = DAY, **more: Any) -> Ended:
        return self.ended(self.start(day, **more))

    def weighed(self, day: date = DAY) -> Ended:
        """The same, with the peak memory of this very child."""
        process = self.start(day)
        assert process.stdout is not None
        log = process.stdout.read()  # to its end: then the child is gone, or about to
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return replace(self.ended(process), log=log, peak_mib=usage.ru_maxrss / 1024)

    @property
    def result(self) -> Path:
        return self.home / "results" / "result.json"

    # --- the disk -----------------------------------------------------------------------------------------------------

    def published(self) -> dict[str, str]:
        """Every object of the store by its digest; whatever an event, a snapshot or a pointer would leave is in it."""
        files = (path for path in self.store.rglob("*") if path.is_file() and not self._is_room(path))
        return {
            str(path.relative_to(self.store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
        }

    def _is_room(self, path: Path) -> bool:
        return path.name == ".lock" or path.relative_to(self.store).parts[0] == "scratch"

    def leftovers(self) -> list[str]:
        """What nobody will ever read."""
        rooms = [path for path in (self.store / "scratch").glob("*") if path.name != ".lock"]
        drafts = [path for path in self.store.rglob(".*") if path.name != ".lock"]
        results = [path for path in (self.home / "results").iterdir() if path.suffix != ".json" or path.name[0] == "."]
        return sorted(str(path.relative_to(self.home)) for path in [*rooms, *drafts, *results, *self.tmp.iterdir()])

    def opened(self) -> SnapshotStore:
        return LocalSnapshotStore(self.store)

    def snapshots(self) -> list[Snapshot]:
        """All versions; each is read back and must hold what its name says."""
        store = self.opened()
        found = store.read_history()
        for snapshot in found:
            assert read_content(store.fetch_file(snapshot)).id == snapshot.id, (
                f"{snapshot.day} is not what it is called"
            )
        return found


class BucketPipeline(Pipeline):
    """The same with its snapshots in a bucket. Needs the server's variables in this process too, to look at it."""

    def place(self, bucket: str, client: Any) -> None:
        client.create_bucket(Bucket=bucket)
        self._bucket, self._client = bucket, client
        self.environment = {**self.environment, "EVERGREEN_SNAPSHOTS": f"s3://{bucket}/credit"}

    def published(self) -> dict[str, str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        return {entry["Key"]: entry["ETag"] for page in pages for entry in page.get("Contents", ())}

    def opened(self) -> SnapshotStore:
        return S3SnapshotStore(f"s3://{self._bucket}/credit", cache=self.home / "looked-at")
