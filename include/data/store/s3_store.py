"""A bucket as the place of the snapshot store.

S3 shows an object only when it is whole, so what is atomic on a disk by rename is atomic here by itself. What must be
written once is written with If-None-Match, what is exchanged with If-Match on the ETag that was read; both are checked
by the server. Large files go up in parts. A failed upload is aborted at once; parts of a killed one cost money and are
never seen, and the next large upload aborts them when they are older than any upload can take.

Files come down into a cache on the local disk, under names that say what is in them, so a cached file can be damaged
but never out of date; a damaged one is fetched again. The cache may be deleted at any time.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError

from include.data.store import s3_client
from include.data.store.snapshot_store import ObjectStore, SnapshotStore, StoredObject, compute_md5
from include.kernel.errors import RequestInvalid, ServiceUnavailable
from include.kernel.files import open_scratch_directory, translate_write_errors

PART_BYTES = 16 * 2**20
DOWNLOAD_ATTEMPTS = 3
ABANDONED_AFTER = timedelta(days=1)  # no upload takes that long: a job is killed after jobs.timeout_minutes
LOST_CODES = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404"}


class S3ObjectStore(ObjectStore):
    """`uri` is s3://bucket or s3://bucket/prefix. Raises what `s3.explained` makes of S3's answers."""

    def __init__(self, uri: str, cache: Path, client: Any = None) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        if not self.uri.startswith("s3://") or not self._bucket:
            raise RequestInvalid(f"EVERGREEN_SNAPSHOTS is {uri!r}; set it to a directory or to s3://bucket/prefix.")
        self._prefix = f"{prefix}/" if prefix else ""
        self._cache = cache
        self._client = client or s3_client.make_client()

    def read(self, key: str) -> StoredObject | None:
        with self._translate_errors(key):
            try:
                answer = self._client.get_object(**self._build_arguments(key))
            except self._client.exceptions.NoSuchKey:
                return None
            return StoredObject(answer["Body"].read(), answer["ETag"])

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        condition = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        with self._translate_errors(key):
            try:
                self._client.put_object(**self._build_arguments(key), Body=data, **condition)
            except ClientError as error:
                if error.response["Error"]["Code"] not in LOST_CODES:
                    raise
                return False
        return True

    def keep(self, key: str, file: Path) -> None:
        size = file.stat().st_size
        with self._translate_errors(key):
            if self._fetch_size(key) == size:
                return
            if size > PART_BYTES:
                self._abort_abandoned()
            self._client.upload_file(str(file), self._bucket, self._prefix + key, Config=_build_transfer_config())

    def _fetch_size(self, key: str) -> int | None:
        try:
            return int(self._client.head_object(**self._build_arguments(key))["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] not in LOST_CODES:
                raise
            return None

    def _abort_abandoned(self) -> None:
        before = datetime.now(UTC) - ABANDONED_AFTER
        pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for upload in (each for page in pages for each in page.get("Uploads", ()) if each["Initiated"] < before):
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def fetch(self, key: str, md5: str) -> Path | None:
        path = self._cache / key
        if path.exists() and compute_md5(path) == md5:
            return path
        with translate_write_errors(path), self._translate_errors(key):
            if self._fetch_size(key) is None:
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_scratch_directory(self._cache / "scratch") as room:
                os.replace(self._download(key, md5, room / "file"), path)
        return path

    def _download(self, key: str, md5: str, path: Path) -> Path:
        """boto3 repeats what broke off; what came whole and wrong is repeated here."""
        for left in reversed(range(DOWNLOAD_ATTEMPTS)):
            try:
                self._client.download_file(self._bucket, self._prefix + key, str(path), Config=_build_transfer_config())
            except FlexibleChecksumError:
                if not left:
                    raise
                continue
            if compute_md5(path) == md5:
                break
        return path

    def add(self, key: str, data: bytes) -> None:
        """Stores `data` under a new key; a key that is there already is left as it is."""
        if not self.write(key, data, None) and self._fetch_size(key) is None:
            raise ServiceUnavailable(f"{self.uri}/{key} was being written by somebody else; try again.")

    def fetch_into(self, key: str, workspace: Path) -> Path | None:
        path = workspace / key.replace("/", "_")
        with translate_write_errors(path), self._translate_errors(key):
            if self._fetch_size(key) is None:
                return None
            self._client.download_file(self._bucket, self._prefix + key, str(path), Config=_build_transfer_config())
        return path

    def remove(self, key: str) -> None:
        with self._translate_errors(key):
            self._client.delete_object(**self._build_arguments(key))

    def list_keys(self, prefix: str) -> list[str]:
        with self._translate_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            return [each["Key"].removeprefix(self._prefix) for page in pages for each in page.get("Contents", ())]

    def _build_arguments(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error

        place = f"{self.uri}/{key}"
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise s3_client.translate_error(error, place) from error
        except Boto3Error as error:  # of an upload or download in parts; its cause is the one to tell
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ClientError | BotoCoreError):
                raise s3_client.translate_error(cause, place) from error
            raise ServiceUnavailable(f"{place} broke off ({' '.join(str(error).split())}); try again later.") from error


def _build_transfer_config() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)


class S3SnapshotStore(SnapshotStore):
    def __init__(self, uri: str, cache: Path) -> None:
        super().__init__(S3ObjectStore(uri, cache))
