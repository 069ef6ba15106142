"""CSV and Parquet objects in a bucket, one or more a day, by a pattern that holds {day} and may hold wildcards.

An object is copied to a nameless file on the local disk first and read only when size and checksum are right: a body
that ended early must not become a short day. The copy has no name, so a killed job leaves nothing behind. One object is
on the disk at a time. The order of a day is the order of its keys. S3 shows an upload only when it is complete, so a
multipart upload under way, or given up, is never seen.

Checked are the size of the listing, the checksum S3 keeps (botocore does that) and the ETag, where it is an MD5: of the
object, or of the MD5s of its parts, whose size S3 tells. Under KMS it is neither.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError

from include.data.sources import delivered_files
from include.data.sources.base import Budget, Declared, DeliveryPart, Source
from include.data.spec import S3Source
from include.data.store import s3_client
from include.kernel.errors import Conflict, ServiceUnavailable

if TYPE_CHECKING:
    import pyarrow as pa

COPY_BYTES = 2**20


@dataclass(frozen=True)
class ListedObject:
    bucket: str
    key: str
    size: int
    etag: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        return f"size={self.size}&etag={self.etag}"


@dataclass(frozen=True)
class DeliveredObject(DeliveryPart):
    source: S3
    listed: ListedObject

    @property
    def name(self) -> str:
        return self.listed.uri

    def find_identity(self) -> str:
        return self.listed.identity

    def read(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        return self.source.read(self.listed, budget)


class S3(Source):
    def __init__(self, spec: S3Source, declared: Declared = None) -> None:
        self._spec, self._declared = spec, declared
        self._client = s3_client.make_client(spec.connect_timeout_s, spec.read_timeout_s, spec.attempts)

    def list_parts(self, day: date) -> list[DeliveredObject]:
        return [DeliveredObject(self, found) for found in self._list_objects(day)]

    def make_budget(self) -> Budget:
        return Budget(self._spec.max_gib)

    def describe(self, day: date) -> str:
        named = [(found.uri, found.size, found.identity) for found in self._list_objects(day)]
        return delivered_files.describe_files(self._spec.uri.format(day=day), named)

    def _list_objects(self, day: date) -> list[ListedObject]:
        """The objects of `day` in the order of their keys."""
        pattern = self._spec.uri.format(day=day)
        bucket, key = pattern.removeprefix("s3://").split("/", 1)
        fixed = re.split(r"[*?[]", key, maxsplit=1)[0]
        with _translate_errors(pattern):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=fixed)
            found = [
                ListedObject(bucket, entry["Key"], entry["Size"], entry["ETag"].strip('"'))
                for page in pages
                for entry in page.get("Contents", ())
            ]
        return sorted((each for each in found if _is_matching_key(each.key, key)), key=lambda each: each.key)

    def read(self, listed: ListedObject, budget: Budget) -> Iterator[pa.RecordBatch]:
        budget.check(listed.uri, listed.size)
        with tempfile.TemporaryFile(prefix="evergreen-") as spool:
            self._copy(listed, spool)
            handle = cast(BinaryIO, spool)
            survey = delivered_files.survey(handle)
            yield from delivered_files.read(handle, listed.uri, survey, budget, self._declared)

    def _copy(self, listed: ListedObject, spool: IO[bytes]) -> None:
        """Raises `ServiceUnavailable` when every attempt came short or damaged."""
        problem = ""
        for _ in range(self._spec.attempts):
            spool.seek(0)
            spool.truncate()
            problem = self._attempt_copy(listed, spool)
            if not problem:
                return
        raise ServiceUnavailable(
            f"{listed.uri} came damaged {self._spec.attempts} times ({problem}); try again later, or upload it again."
        )

    def _attempt_copy(self, listed: ListedObject, spool: IO[bytes]) -> str:
        """Copies the object once. What was wrong with the copy, or nothing."""
        with _translate_errors(listed.uri):
            answer = self._client.get_object(
                Bucket=listed.bucket, Key=listed.key, IfMatch=listed.etag, ChecksumMode="ENABLED"
            )
        try:
            for chunk in answer["Body"].iter_chunks(COPY_BYTES):
                spool.write(chunk)
        except BotoCoreError as error:  # the body broke off, stood still, or is not what its checksum says
            return " ".join(str(error).split())
        spool.flush()
        return self._explain_difference(listed, answer, spool)

    def _explain_difference(self, listed: ListedObject, answer: Any, spool: IO[bytes]) -> str:
        if spool.tell() != listed.size:
            return f"{spool.tell()} of {listed.size} bytes"
        if not re.fullmatch(r"[0-9a-f]{32}(-\d+)?", listed.etag) or "SSEKMSKeyId" in answer:
            return ""
        part = self._fetch_part_size(listed) if "-" in listed.etag else listed.size
        return (
            "" if _compute_etag(spool, part, "-" in listed.etag) == listed.etag else "its ETag does not fit its bytes"
        )

    def _fetch_part_size(self, listed: ListedObject) -> int:
        with _translate_errors(listed.uri):
            first = self._client.head_object(Bucket=listed.bucket, Key=listed.key, PartNumber=1)
        return int(first["ContentLength"])


def _is_matching_key(key: str, pattern: str) -> bool:
    """Whether a key fits, part by part: a wildcard does not reach over a slash, as on a disk."""
    parts, wanted = key.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(_is_matching_part, parts, wanted))


def _is_matching_part(part: str, wanted: str) -> bool:
    """A name with brackets, spelled as it is, is that name."""
    return part == wanted or fnmatchcase(part, wanted)


def _compute_etag(spool: IO[bytes], part_bytes: int, of_parts: bool) -> str:
    spool.seek(0)
    digests = [hashlib.md5(part, usedforsecurity=False) for part in iter(lambda: spool.read(part_bytes), b"")]
    if not of_parts:
        return digests[0].hexdigest() if digests else hashlib.md5(usedforsecurity=False).hexdigest()
    whole = hashlib.md5(b"".join(digest.digest() for digest in digests), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(digests)}"


@contextmanager
def _translate_errors(place: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"].get("Code")
        if status in (404, 412) and code != "NoSuchBucket":
            raise Conflict(f"{place} was replaced or deleted while it was read; try again.") from error
        raise s3_client.translate_error(error, place) from error
    except BotoCoreError as error:
        raise s3_client.translate_error(error, place) from error
