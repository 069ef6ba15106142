"""The snapshot store when S3 misbehaves: faults come from a proxy between boto3 and a real S3 server."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.data.store import s3_client, s3_store
from include.data.store.s3_store import S3ObjectStore, S3SnapshotStore
from include.kernel.errors import AccessRefused, DataRefused, RequestInvalid, ServiceUnavailable
from tests.counterparts import S3Server
from tests.delivered import DAY, described, rows, written
from tests.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.ground import wait_for

ROOT = Path(__file__).resolve().parents[2]
MEBIBYTE = 2**20


@pytest.fixture
def proxy(buckets: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """In front of the server, and in force; patience is short so that a test is."""
    with fault_proxy(buckets.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        patient = s3_client.make_client
        monkeypatch.setattr(s3_client, "make_client", lambda: patient(read_timeout_s=0.5, attempts=3))
        yield between


@pytest.fixture
def bucket(moto: S3Server) -> str:
    name = f"snapshots-{uuid.uuid4().hex}"
    moto.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def store(proxy: FaultProxy, bucket: str, tmp_path: Path) -> S3SnapshotStore:
    return S3SnapshotStore(f"s3://{bucket}/risk", tmp_path / "cache")


def publish(store: S3SnapshotStore, tmp_path: Path, income: float = 1.0) -> bool:
    path = written(rows(income), tmp_path, f"{uuid.uuid4().hex}.parquet")
    return store.publish(described(path), path)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """More than two parts."""
    path = tmp_path / "large.parquet"
    path.write_bytes(os.urandom(MEBIBYTE) * 33)
    return path


@pytest.mark.parametrize("fault", ["503", "reset", "silence"])
@pytest.mark.parametrize("request_line", ["GET", "PUT", "HEAD"])
def test_what_passes_within_the_attempts_is_not_noticed(store, proxy, tmp_path, fault, request_line):
    proxy.faults = [Fault(fault, request_line, times=2)]
    assert publish(store, tmp_path) is True
    assert [found.rows for found in store.list_snapshots()] == [1]


@pytest.mark.parametrize("fault", ["503", "reset", "silence"])
def test_what_does_not_pass_is_temporary_and_the_next_publisher_finishes(store, proxy, bucket, tmp_path, fault):
    proxy.faults = [Fault(fault, f"/days/{DAY}.json", times=6), Fault(fault, "/days/")]
    with pytest.raises(ServiceUnavailable, match=rf"s3://{bucket}/risk/days/{DAY}\.json .*; .*again"):
        publish(store, tmp_path)
    proxy.faults = []
    assert store.list_snapshots() == []
    assert publish(store, tmp_path) is True


def test_an_answer_that_was_lost_after_the_write_adds_nothing_twice(store, proxy, tmp_path):
    proxy.faults = [Fault("cut", f"PUT /{store.build_uri(described(written(rows(1.0), tmp_path)))[5:]}", times=1)]
    publish(store, tmp_path)
    assert publish(store, tmp_path) is False
    assert len(store.read_history()) == 1


def test_a_day_that_comes_damaged_is_fetched_again(store, proxy, bucket, tmp_path):
    publish(store, tmp_path)
    for fault in ("cut", "flip"):
        proxy.faults = [Fault(fault, f"GET /{bucket}/risk/files/", times=1)]
        assert store.read_rows(store.list_snapshots())["Income"].tolist() == [1.0]
        clear(store)


def clear(store: S3SnapshotStore) -> None:
    for path in Path(store._objects._cache).rglob("files/md5/*/*"):  # type: ignore[attr-defined]
        path.unlink()


def test_a_cached_file_that_was_damaged_is_fetched_again_and_a_damaged_object_is_named(store, bucket, moto, tmp_path):
    publish(store, tmp_path)
    [snapshot] = store.list_snapshots()
    cached = store.fetch_file(snapshot)
    cached.write_bytes(b"damaged")
    assert store.read_rows([snapshot])["Income"].tolist() == [1.0]
    md5 = snapshot.files[0].md5
    moto.client().put_object(Bucket=bucket, Key=f"risk/files/md5/{md5[:2]}/{md5[2:]}", Body=b"damaged")
    clear(store)
    with pytest.raises(DataRefused, match="is not what was published; remove it and s3://"):
        store.fetch_file(snapshot)


def uploads(moto: S3Server, bucket: str) -> list[Any]:
    return moto.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])


def test_a_large_file_goes_up_in_parts_and_comes_back_the_same(proxy, bucket, large, tmp_path):
    objects = S3ObjectStore(f"s3://{bucket}/risk", tmp_path / "cache")
    objects.keep("files/large", large)
    assert any("partNumber=3" in line for line, _ in proxy.log)
    md5 = hashlib.md5(large.read_bytes()).hexdigest()
    back = objects.fetch("files/large", md5)
    assert back is not None and back.read_bytes() == large.read_bytes()
    proxy.log.clear()
    objects.keep("files/large", large)
    assert not any(line.startswith(("PUT", "POST")) for line, _ in proxy.log)


def test_an_upload_that_fails_half_way_is_aborted_and_leaves_nothing_to_see(proxy, bucket, moto, large, tmp_path):
    objects = S3ObjectStore(f"s3://{bucket}/risk", tmp_path / "cache")
    proxy.faults = [Fault("503", "partNumber=2")]
    with pytest.raises(ServiceUnavailable, match=r"s3://.*files/large answered 503"):
        objects.keep("files/large", large)
    assert uploads(moto, bucket) == []
    assert objects.list_keys("files/") == []


UPLOADER = """
import sys
from pathlib import Path
from include.data.store.s3_store import S3ObjectStore
S3ObjectStore(sys.argv[1], Path(sys.argv[2])).keep("files/large", Path(sys.argv[3]))
"""


def test_parts_of_an_uploader_that_was_killed_are_never_seen_and_swept_by_a_later_upload(
    proxy, bucket, moto, large, tmp_path, monkeypatch
):
    place = f"s3://{bucket}/risk"
    proxy.faults = [Fault("silence", "partNumber=3")]
    uploader = subprocess.Popen([sys.executable, "-c", UPLOADER, place, str(tmp_path / "cache"), str(large)], cwd=ROOT)
    wait_for(lambda: any("partNumber=3" in line for line, _ in proxy.log), 60)
    uploader.send_signal(signal.SIGKILL)
    uploader.wait()
    proxy.faults = []
    objects = S3ObjectStore(place, tmp_path / "cache")
    assert len(uploads(moto, bucket)) == 1 and objects.list_keys("files/") == []
    objects.keep("files/large", large)  # moto says of every upload that it began in 2010
    assert uploads(moto, bucket) == []
    assert objects.list_keys("files/") == ["files/large"]


def test_keys_that_were_revoked_are_for_good_and_name_the_connection(store, moto, tmp_path, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "revoked", "AWS_SECRET_ACCESS_KEY": "revoked"}.items():
        monkeypatch.setenv(name, value)
    refused = S3SnapshotStore(store._objects.uri, tmp_path / "cache")
    with moto.check_keys(), pytest.raises(AccessRefused, match="evergreen_s3"):
        refused.list_snapshots()


def test_a_bucket_that_does_not_exist_is_for_good_and_named(proxy, tmp_path):
    store = S3SnapshotStore("s3://nowhere-at-all/risk", tmp_path / "cache")
    with pytest.raises(DataRefused, match="The bucket of s3://nowhere-at-all/risk"):
        store.list_snapshots()
    with pytest.raises(DataRefused, match="The bucket of s3://nowhere-at-all/risk"):
        publish(store, tmp_path)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x"])
def test_a_place_that_is_no_bucket_is_refused(uri, tmp_path):
    with pytest.raises(RequestInvalid, match=r"EVERGREEN_SNAPSHOTS is .*; set it to a directory or to s3"):
        S3ObjectStore(uri, tmp_path)


def test_a_bucket_without_a_prefix_will_do(proxy, bucket, tmp_path):
    store = S3SnapshotStore(f"s3://{bucket}/", tmp_path / "cache")
    publish(store, tmp_path)
    assert store.find_newest_day() == DAY


def test_the_parts_are_smaller_than_the_tests_large_file(large):
    assert large.stat().st_size > s3_store.PART_BYTES * 2
