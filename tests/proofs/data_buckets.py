"""S3 on both ends: days that are read from a bucket, and snapshots that are published into one."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

from tests import counterparts
from tests.counterparts import S3Server
from tests.fault_proxy import Fault, fault_proxy
from tests.proofs.data_crashes import both_publish
from tests.proofs.data_proof import Proof
from tests.proofs.delivery import DAY, BucketPipeline, as_csv, as_parquet, rows_of
from tests.proofs.outcomes import Named, must


class Bucket:
    """One bucket of the shared S3 server, and a pipeline that reads from it."""

    def __init__(self, proof: Proof, server: S3Server, suffix: str = "csv", url: str = "") -> None:
        self.pipeline = proof.pipeline(suffix)
        self.name = f"lake-{self.pipeline.home.name}"
        self.client = server.client()
        self.client.create_bucket(Bucket=self.name)
        uri = f"s3://{self.name}/in/{{day}}.{suffix}"
        quick = {"connect_timeout_s": 1.0, "read_timeout_s": 1.0, "attempts": 2}
        self.pipeline.source = {"kind": "s3", "uri": uri, **quick}
        self.pipeline.environment = server.environment() | ({"AWS_ENDPOINT_URL_S3": url} if url else {})
        self.pipeline.configure()
        self.key = f"in/{DAY}.{suffix}"
        self.uri = f"s3://{self.name}/{self.key}"

    def put(self, body: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=self.key, Body=body)


def a_bucket_that_fails(proof: Proof, server: S3Server, action: Any, told: str) -> None:
    with fault_proxy(server.url) as proxy:
        bucket = Bucket(proof, server, url=proxy.url)
        bucket.put(as_csv(rows_of()))
        proxy.faults = [Fault(action, f"GET /{bucket.name}/{bucket.key}")]
        before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
        proof.refused(bucket.pipeline, ended, before, 75, "ServiceUnavailable", bucket.uri, told, "try again later")
        must(sum(done == action for _, done in proxy.log) == 2, f"was not asked twice: {proxy.log}")
        proxy.faults = [Fault(action, f"GET /{bucket.name}/{bucket.key}", times=1)]
        proof.recovers(bucket.pipeline)  # one broken answer, and then a whole one


def a_multipart_upload_under_way(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server)
    whole = as_csv(rows_of())
    name = {"Bucket": bucket.name, "Key": bucket.key}
    upload = bucket.client.create_multipart_upload(**name)["UploadId"]
    tag = bucket.client.upload_part(**name, UploadId=upload, PartNumber=1, Body=whole)["ETag"]
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    must((ended.exit, ended.verdict) == (0, "no"), f"{ended.exit} {ended.verdict}: {ended.log}")
    must(bucket.pipeline.published() == before, "published half an upload")
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    bucket.client.complete_multipart_upload(**name, UploadId=upload, MultipartUpload=parts)
    proof.recovers(bucket.pipeline)


def withdrawn_keys(proof: Proof) -> None:
    with counterparts.s3_server() as server:  # its own: it looks at everybody's keys now
        bucket = Bucket(proof, server)
        bucket.put(as_csv(rows_of()))
        keys, renewed = server.reader(), server.reader()
        bucket.pipeline.environment = server.environment(**keys)
        with server.check_keys():
            server.revoke(keys)
            before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
            told = (bucket.uri, "refused the keys (403", "Airflow Connection evergreen_s3")
            proof.refused(bucket.pipeline, ended, before, 65, "AccessRefused", *told)
            must(keys["AWS_SECRET_ACCESS_KEY"] not in ended.told + ended.log, "tells the key")
            bucket.pipeline.environment = server.environment(**renewed)
            proof.recovers(bucket.pipeline)


def a_bucket_nobody_made(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server)
    bucket.client.delete_bucket(Bucket=bucket.name)
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    proof.refused(bucket.pipeline, ended, before, 65, "DataRefused", bucket.uri, "does not exist; create it")
    bucket.client.create_bucket(Bucket=bucket.name)
    bucket.put(as_csv(rows_of()))
    proof.recovers(bucket.pipeline)


def an_object_nobody_delivered(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server)
    ended = bucket.pipeline.ingest()
    must((ended.exit, ended.verdict) == (0, "no"), f"{ended.exit} {ended.verdict}: {ended.log}")
    bucket.put(as_csv(rows_of()))
    proof.recovers(bucket.pipeline)


def a_truncated_object(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server, "parquet")
    bucket.put(as_parquet(rows_of())[:-100])
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    proof.refused(bucket.pipeline, ended, before, 65, "DataRefused", bucket.uri, "cannot be read", "again, whole")
    bucket.put(as_parquet(rows_of()))
    proof.recovers(bucket.pipeline)


def no_s3_server(proof: Proof, server: S3Server) -> None:
    bucket = Bucket(proof, server, url="http://127.0.0.1:9")
    bucket.put(as_csv(rows_of()))
    before, ended = bucket.pipeline.published(), bucket.pipeline.ingest()
    proof.refused(bucket.pipeline, ended, before, 75, "ServiceUnavailable", bucket.uri, "cannot be reached")
    bucket.pipeline.environment = server.environment()
    proof.recovers(bucket.pipeline)


# --- snapshots in a bucket --------------------------------------------------------------------------------------------


def in_a_bucket(proof: Proof, server: S3Server, url: str = "") -> BucketPipeline:
    """A pipeline whose snapshots go to an empty bucket, by way of `url` where that is given."""
    pipeline = BucketPipeline(proof.new_home())
    pipeline.environment = server.environment() | ({"AWS_ENDPOINT_URL_S3": url} if url else {})
    pipeline.place(f"snapshots-{pipeline.home.name}", server.client())
    pipeline.deliver(rows_of())
    return pipeline


def a_store_that_fails(proof: Proof, server: S3Server, where: str) -> None:
    """S3 is busy for good at this point of publishing: nothing counts, and the next run finishes the work."""
    with fault_proxy(server.url) as proxy:
        pipeline = in_a_bucket(proof, server, proxy.url)
        proxy.faults = [Fault("503", f"PUT /snapshots-{pipeline.home.name}/credit/{where}")]
        ended = pipeline.ingest()
        must((ended.exit, ended.kind) == (75, "ServiceUnavailable"), f"{ended.exit} {ended.kind}: {ended.log[-600:]}")
        must("answered 503 (SlowDown) to every attempt; try again later" in ended.told, f"says {ended.told}")
        must(pipeline.snapshots() == [] and pipeline.leftovers() == [], f"left {pipeline.leftovers()}")
        proxy.faults = []
        proof.recovers(pipeline)


def count_requests(proof: Proof, server: S3Server) -> int:
    """Requests of one undisturbed run that write to the bucket; what it leaves is what every other run must leave."""
    with fault_proxy(server.url) as proxy:
        pipeline = in_a_bucket(proof, server, proxy.url)
        must(pipeline.ingest().exit == 0, "the run to count in failed")
        proof.bucket_names = set(pipeline.published())
        return sum(_is_write(line) for line, _ in proxy.log)


def _is_write(line: str) -> bool:
    return line.startswith(("PUT", "POST", "DELETE"))


def killed_at_request(proof: Proof, server: S3Server, at: int, when: str) -> None:
    """Before the bucket sees the request, or after it obeyed and before the answer comes back."""
    with fault_proxy(server.url) as proxy:
        pipeline = in_a_bucket(proof, server, proxy.url)
        process, seen = pipeline.start(), 0

        def watch(now: str, line: str) -> None:
            nonlocal seen
            seen += now == when and _is_write(line)
            if seen == at and now == when and process.poll() is None:
                process.kill()
                process.wait()
                if when == "before":
                    raise ConnectionResetError

        proxy.watch = watch
        ended = pipeline.ended(process)
        must(ended.exit == -signal.SIGKILL, f"was not killed but ended with {ended.exit}")
        proxy.watch = lambda now, line: None
        found = {each.id for each in pipeline.snapshots()}
        must(found <= {proof.good_id}, f"a half-published day: {found}")
        proof.recovers(pipeline)
        names = set(pipeline.published())
        must(names == proof.bucket_names, f"differs from an undisturbed run: {sorted(names ^ proof.bucket_names)}")


def two_publishers_in_a_bucket(proof: Proof, server: S3Server, same: bool) -> None:
    first, second = in_a_bucket(proof, server), in_a_bucket(proof, server)
    second.environment = first.environment
    second.deliver(rows_of(seed=1 if same else 2))
    both_publish(first, second)


def of_buckets(proof: Proof, server: S3Server) -> list[Named]:
    return [
        ("S3: timeouts", partial(a_bucket_that_fails, proof, server, "silence", "cannot be reached (Read timeout")),
        ("S3: 503", partial(a_bucket_that_fails, proof, server, "503", "answered 503 (SlowDown) to every attempt")),
        ("S3: connections reset", partial(a_bucket_that_fails, proof, server, "reset", "cannot be reached")),
        ("S3: a body that ends early", partial(a_bucket_that_fails, proof, server, "cut", "came damaged 2 times")),
        ("S3: a bit turned on the way", partial(a_bucket_that_fails, proof, server, "flip", "came damaged 2 times")),
        ("S3: partial multipart upload", partial(a_multipart_upload_under_way, proof, server)),
        ("S3: withdrawn keys", partial(withdrawn_keys, proof)),
        ("S3: unknown bucket", partial(a_bucket_nobody_made, proof, server)),
        ("S3: unknown key", partial(an_object_nobody_delivered, proof, server)),
        ("S3: truncated Parquet", partial(a_truncated_object, proof, server)),
        ("S3: no server", partial(no_s3_server, proof, server)),
    ]


def of_stores(proof: Proof, server: S3Server) -> list[Named]:
    requests = count_requests(proof, server)
    proof.figures["kill_requests"] = 2 * requests
    stories: list[Named] = [
        ("store in S3: two publishers of the same rows", partial(two_publishers_in_a_bucket, proof, server, True)),
        ("store in S3: two publishers of different rows", partial(two_publishers_in_a_bucket, proof, server, False)),
    ]
    for where in ("files", "snapshots", "days"):
        stories.append((f"store in S3: 503 at {where}", partial(a_store_that_fails, proof, server, where)))
    for at, when in ((at, when) for at in range(1, requests + 1) for when in ("before", "after")):
        name = f"store in S3: kill -9 {when} request {at} of {requests}"
        stories.append((name, partial(killed_at_request, proof, server, at, when)))
    return stories
