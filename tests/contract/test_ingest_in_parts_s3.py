"""A day of objects in a bucket, read and checked by machines that share nothing but the store's bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from include.data.sources.s3 import S3
from include.data.wiring import open_snapshot_store
from include.jobs.__main__ import run
from include.kernel.errors import DataRefused
from include.kernel.job import Intent, JobRequest, JobResult
from include.kernel.work_units import list_shards
from include.manifest import DEFAULT_PATH, Manifest, load
from tests.counterparts import S3Server
from tests.delivered import read_day

DAY = date(2026, 8, 2)
TASKS = 3
Ask = Callable[..., JobResult]


@pytest.fixture
def lake(buckets: S3Server) -> Iterator[Any]:
    """A day in five objects, of which the second holds a bad row and the last repeats an id of the first."""
    client = buckets.client()
    for bucket in ("lake", "one", "many"):
        client.create_bucket(Bucket=bucket)
    rows = read_day(load(DEFAULT_PATH), DAY).astype(object)
    rows.loc[25, "Age"], rows.loc[100, "application_id"] = 17, rows.loc[3, "application_id"]
    for number in range(5):
        put(client, number, rows.iloc[number * 21 : (number + 1) * 21])
    yield client
    buckets.forget()


def put(client: Any, number: int, rows: pd.DataFrame) -> None:
    client.put_object(Bucket="lake", Key=f"in/{DAY}/{number}.csv", Body=rows.to_csv(index=False).encode())


@pytest.fixture
def ask(small: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a job on a machine of its own, by the machine's name."""

    def asked(job: str, machine: str, bucket: str, tasks: int, **params: int) -> JobResult:
        source = {"kind": "s3", "uri": "s3://lake/in/{day}/*.csv"}
        small(source=source, **{"fan_out.validation": tasks, "contract.max_quarantined": 0.05})
        monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / machine))
        monkeypatch.setenv("EVERGREEN_SNAPSHOTS", f"s3://{bucket}/credit")
        as_of, asked = DAY + timedelta(days=1), {"day": str(DAY), **params}
        return run(JobRequest(job=job, run_key="k", as_of=as_of, intent=Intent.LIVE, params=asked))

    return asked


def published() -> tuple[str, list[tuple[str, str]], int]:
    [snapshot] = open_snapshot_store().list_snapshots()
    return snapshot.id, [(file.name, file.md5) for file in snapshot.files], snapshot.quarantined


def test_machines_that_share_a_bucket_alone_publish_what_one_does(
    lake: Any, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in list_shards(TASKS):
        assert ask("validate", f"machine-{shard.index}", "many", TASKS, **shard.params).outputs["refused"] == 0
    with monkeypatch.context() as patched:
        patched.setattr(S3, "read", None)  # nothing is read from the source any more
        ask("ingest", "machine-3", "many", TASKS)
    shared = published()
    assert open_snapshot_store().objects.list_keys("pieces/") == []
    ask("ingest", "alone", "one", 1)
    assert published() == shared and shared[2] == 3
    assert [path for path in tmp_path.rglob("work-*") if path.is_dir()] == []


def test_an_object_that_is_replaced_or_damaged_is_not_taken_for_what_was_checked(lake: Any, ask: Ask) -> None:
    for shard in list_shards(TASKS):
        ask("validate", f"machine-{shard.index}", "many", TASKS, **shard.params)
    put(lake, 1, read_day(load(DEFAULT_PATH), DAY).iloc[21:42])  # its bad row is a good one now
    damaged = open_snapshot_store().objects.list_keys("pieces/landed-rows/")[0]
    lake.put_object(Bucket="many", Key=f"credit/{damaged}", Body=b"half of")
    ask("ingest", "machine-3", "many", TASKS)
    shared = published()
    ask("ingest", "alone", "one", 1)
    assert published() == shared and shared[2] == 2


def test_an_object_that_cannot_be_read_is_refused_in_the_same_words(lake: Any, ask: Ask) -> None:
    lake.put_object(Bucket="lake", Key=f"in/{DAY}/3.csv", Body=b"a,b\n1,2\n3\n")
    told = [ask("validate", "m", "many", TASKS, **shard.params).outputs["refused"] for shard in list_shards(TASKS)]
    assert told == [1, 0, 0]
    with pytest.raises(DataRefused) as shared:
        ask("ingest", "m", "many", TASKS)
    with pytest.raises(DataRefused) as alone:
        ask("ingest", "alone", "one", 1)
    assert str(shared.value) == str(alone.value) and f"s3://lake/in/{DAY}/3.csv" in str(alone.value)
