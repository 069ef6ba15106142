"""The S3 source against moto's server process over HTTP, with a proxy between them that breaks answers on demand."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.data.landing.landing import FILE_KEY
from include.data.sources.base import MAX_BATCH_ROWS
from include.data.sources.s3 import S3
from include.data.spec import S3Source
from include.kernel.errors import AccessRefused, Conflict, DataRefused, ServiceUnavailable
from tests import counterparts
from tests.counterparts import S3Server
from tests.fault_proxy import Fault, FaultProxy, fault_proxy

DAY = date(2026, 8, 1)
BUCKET = "lake"
Put = Callable[..., None]


@pytest.fixture
def put(buckets: S3Server) -> Iterator[Put]:
    """An empty bucket; writes objects into it."""
    client = buckets.client()
    client.create_bucket(Bucket=BUCKET)

    def put_object(key: str, body: bytes, **more: Any) -> None:
        client.put_object(Bucket=BUCKET, Key=key, Body=body, **more)

    yield put_object
    buckets.forget()


@pytest.fixture
def proxy(moto: S3Server, put: Put, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(moto.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


def source(uri: str = "s3://lake/in/{day}/*.csv", **more: Any) -> S3:
    quick = {"connect_timeout_s": 1.0, "read_timeout_s": 1.0, "attempts": 2}
    return S3(S3Source.model_validate({"kind": "s3", "uri": uri, **quick, **more}))


def rows(found: S3, day: date = DAY) -> list[dict[str, Any]]:
    return [row for batch in found.read_batches(day) for row in batch.to_pylist()]


def parquet(count: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [f"A{number}" for number in range(count)], "n": list(range(count))}), sink)
    return sink.getvalue()


def test_objects_are_read_in_the_order_of_their_keys_and_no_deeper_than_the_pattern(put: Put) -> None:
    put(f"in/{DAY}/b.csv", b"id,n\n3,\n")
    put(f"in/{DAY}/a.csv", b"id,n\n1,7\n2,8\n")
    put(f"in/{DAY}/deeper/c.csv", b"id,n\n9,9\n")
    put(f"in/{DAY}/c.txt", b"no table")
    put("in/2026-08-02/a.csv", b"id,n\n9,9\n")
    found = rows(source())
    assert found == [{"id": "1", "n": "7"}, {"id": "2", "n": "8"}, {"id": "3", "n": None}]
    assert [batch.schema.metadata for batch in source().read_batches(DAY)] == [
        {FILE_KEY: f"s3://lake/in/{DAY}/{name}.csv".encode()} for name in "ab"
    ]
    etag = hashlib.md5(b"id,n\n3,\n").hexdigest()
    assert source().describe(DAY).split()[1] == f"s3://lake/in/{DAY}/b.csv?size=8&etag={etag}"


def test_more_objects_than_one_page_of_a_listing_are_all_found(put: Put) -> None:
    for number in range(1003):
        put(f"in/{DAY}/{number:04d}.csv", b"id\n%d\n" % number)
    assert source().describe(DAY).startswith(f"s3://lake/in/{DAY}/*.csv?files=1003&size=")


def test_parquet_keeps_its_types_and_comes_in_bounded_batches(put: Put) -> None:
    put(f"in/{DAY}.parquet", parquet(150_000))
    batches = list(source("s3://lake/in/{day}.parquet").read_batches(DAY))
    assert sum(batch.num_rows for batch in batches) == 150_000
    assert max(batch.num_rows for batch in batches) <= MAX_BATCH_ROWS
    assert batches[0].schema.remove_metadata() == pa.schema([("id", pa.string()), ("n", pa.int64())])


def test_a_day_without_an_object_was_not_delivered(put: Put) -> None:
    assert rows(source()) == [] and rows(source("s3://lake/{day}.csv")) == []


def test_a_multipart_upload_is_seen_when_it_is_complete_and_not_before(put: Put, moto: S3Server) -> None:
    client, key = moto.client(), f"in/{DAY}/a.csv"
    parts = [b"id,n\n" + b"1,2\n" * 1_400_000, b"3,4\n"]  # S3 wants five MiB of every part but the last
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    tags = []
    for number, part in enumerate(parts, 1):
        assert rows(source()) == []
        name = {"Bucket": BUCKET, "Key": key, "UploadId": upload, "PartNumber": number}
        tags.append({"PartNumber": number, "ETag": client.upload_part(Body=part, **name)["ETag"]})
    client.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": tags})
    batches = list(source().read_batches(DAY))
    assert sum(batch.num_rows for batch in batches) == 1_400_001
    assert "-2" in source().describe(DAY)


def test_a_busy_server_is_asked_again_and_a_lasting_503_is_told(put: Put, proxy: FaultProxy) -> None:
    put(f"in/{DAY}/a.csv", b"id\n1\n")
    proxy.faults = [Fault("503", "GET /lake?list", 1), Fault("503", f"GET /lake/in/{DAY}/a.csv", 1)]
    assert rows(source()) == [{"id": "1"}]
    assert [done for _, done in proxy.log] == ["503", "handed on", "503", "handed on"]
    proxy.faults = [Fault("503", "GET /lake/in")]
    with pytest.raises(ServiceUnavailable, match=rf"^s3://lake/in/{DAY}/a\.csv answered 503 \(SlowDown\) to every"):
        rows(source())


@pytest.mark.parametrize("action", ["silence", "reset", "cut", "flip"])
def test_one_broken_answer_costs_one_more_attempt_and_no_row(put: Put, proxy: FaultProxy, action: Any) -> None:
    put(f"in/{DAY}/a.csv", b"id\n1\n2\n")
    proxy.faults = [Fault(action, "GET /lake/in", 1)]
    assert rows(source()) == [{"id": "1"}, {"id": "2"}]
    assert [done for _, done in proxy.log] == ["handed on", action, "handed on"]


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("silence", "cannot be reached (Read timeout"),
        ("reset", "cannot be reached (Connection was closed"),
        ("cut", "came damaged 2 times ("),
        ("flip", "came damaged 2 times ("),
    ],
)
def test_a_server_that_stays_broken_gives_one_sentence_and_no_row(
    put: Put, proxy: FaultProxy, action: Any, told: str
) -> None:
    put(f"in/{DAY}/a.csv", b"id\n1\n2\n")
    proxy.faults = [Fault(action, "GET /lake/in")]
    with pytest.raises(ServiceUnavailable) as caught:
        rows(source())
    assert str(caught.value).startswith(f"s3://lake/in/{DAY}/a.csv {told}")
    assert "\n" not in str(caught.value)


def test_a_turned_bit_is_found_by_the_parts_of_a_multipart_object_too(
    put: Put, moto: S3Server, proxy: FaultProxy
) -> None:
    client, key = moto.client(), f"in/{DAY}/a.csv"
    client.upload_fileobj(io.BytesIO(b"id\n" + b"1\n" * 6_000_000), BUCKET, key)  # boto3 itself sends it in parts
    assert sum(batch.num_rows for batch in source(read_timeout_s=10.0).read_batches(DAY)) == 6_000_000
    proxy.faults = [Fault("flip", "GET /lake/in")]
    with pytest.raises(ServiceUnavailable, match="came damaged 2 times"):
        rows(source(read_timeout_s=10.0))


def test_withdrawn_keys_are_told_with_the_connection_that_holds_them(
    put: Put, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"in/{DAY}/a.csv", b"id\n1\n")
    keys = moto.reader()
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with moto.check_keys():
        assert rows(source()) == [{"id": "1"}]
        moto.revoke(keys)
        with pytest.raises(AccessRefused, match=r"refused the keys \(403 InvalidAccessKeyId\).*evergreen_s3") as caught:
            rows(source())
    assert keys["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_without_keys_the_connection_to_create_is_named(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in counterparts.NOBODY_S_KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AccessRefused, match="create the Airflow Connection evergreen_s3"):
        rows(source())


def test_an_unknown_bucket_is_told_by_its_place(put: Put) -> None:
    with pytest.raises(DataRefused, match=r"The bucket of s3://sea/2026-08-01.csv does not exist"):
        rows(source("s3://sea/{day}.csv"))


def test_a_server_that_is_down_is_worth_another_try(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(ServiceUnavailable, match=r"s3://lake/in/2026-08-01/\*\.csv cannot be reached"):
        rows(source())


def test_an_object_that_is_replaced_between_listing_and_reading_is_no_mix(put: Put, moto: S3Server) -> None:
    put(f"in/{DAY}/a.csv", b"id\n1\n")
    put(f"in/{DAY}/b.csv", b"id\n2\n")
    batches = source().read_batches(DAY)
    assert next(batches).to_pylist() == [{"id": "1"}]
    put(f"in/{DAY}/b.csv", b"id\n3\n")
    with pytest.raises(Conflict, match=r"b\.csv was replaced or deleted while it was read; try again"):
        next(batches)


def test_a_damaged_object_is_told_by_its_uri(put: Put) -> None:
    put(f"in/{DAY}.parquet", parquet(50)[:-30])
    with pytest.raises(DataRefused, match=rf"^s3://lake/in/{DAY}\.parquet cannot be read .*; deliver the file again"):
        rows(source("s3://lake/in/{day}.parquet"))
