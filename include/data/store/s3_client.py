"""One way to an S3 server, and one translation of what can go wrong there.

Endpoint, region and keys come from boto3's own environment variables (AWS_ENDPOINT_URL_S3, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), so that a role of the machine works as well. In a task
they are rendered from the Airflow Connection below. Retries with growing, jittered waits are botocore's; they end after
`attempts`, and a task's own retry comes later. boto3 is imported on first use: hooks read the Connection's name here.
"""

import os
from typing import Any, Final

from include.kernel.errors import AccessRefused, DataRefused, EvergreenError, RequestInvalid, ServiceUnavailable

CONNECTION: Final = "evergreen_s3"
REFUSED_CODES = {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
BUSY_CODES = {"RequestTimeout", "SlowDown", "ThrottlingException", "TooManyRequestsException"}


def make_client(connect_timeout_s: float = 5.0, read_timeout_s: float = 30.0, attempts: int = 5) -> Any:
    """A boto3 S3 client. Objects are checked against the checksum they were stored with, where they have one."""
    import boto3
    from botocore.config import Config

    return boto3.Session().client(  # a session of its own: boto3's default one keeps the first keys it saw
        "s3",
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        config=Config(
            connect_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": attempts},
        ),
    )


def translate_error(error: Exception, place: str) -> EvergreenError:
    """What boto3 raised about `place` (an s3:// URI), as the house's error: one sentence with the fix, and no key."""
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError

    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return AccessRefused(f"There are no keys for {place}; create the Airflow Connection {CONNECTION}.")
    if isinstance(error, ClientError):
        return _translate_answer(error, place)
    return ServiceUnavailable(f"{place} cannot be reached ({_join_lines(error)}); start its server or try again later.")


def _translate_answer(error: Any, place: str) -> EvergreenError:
    code, status = str(error.response["Error"].get("Code")), error.response["ResponseMetadata"]["HTTPStatusCode"]
    if status in (401, 403) or code in REFUSED_CODES:
        return AccessRefused(
            f"{place} refused the keys ({status} {code}); renew those of the Airflow Connection {CONNECTION}, or give "
            "their user the right to list, read and (for snapshots) write there."
        )
    if code == "NoSuchBucket":
        where = "in the manifest or in EVERGREEN_SNAPSHOTS"
        return DataRefused(f"The bucket of {place} does not exist; create it, or correct its name {where}.")
    if status >= 500 or status == 429 or code in BUSY_CODES:
        return ServiceUnavailable(f"{place} answered {status} ({code}) to every attempt; try again later.")
    return RequestInvalid(f"{place} answered {status} ({code}); correct it in the manifest, or the region.")


def _join_lines(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
