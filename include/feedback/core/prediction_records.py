"""What one served prediction leaves behind: its columns, its place, what of it is hidden, and which copy counts.

A record is one row of one request. Its columns are the fixed ones below and the inputs, each as `feature.<name>`, so
that an input may be called whatever it likes. Records lie in Parquet segments:

    predictions/<day>/<segment>.parquet        the day in UTC on which the answers were given
    feedback/<day>/<segment>.parquet           the day on which the outcomes were received

A segment's name says when it was begun, by which slot and by which process, and counts; no two writers ever choose the
same one. Segments are written once and never changed, so a reader needs no lock, and a writer that repeats itself
after a kill finds its work done.

A proxy that asks twice sends the same request id, and then both servers may have answered: of the records of one id and
row the last one that was answered counts, for that is the answer the caller kept. This is decided when records are
read, since the two copies may lie with two processes.

`caller` is the keyed hash of the key that a caller sent along (`x-evergreen-key`), by which an experiment deals it to
one of two versions. Without the secret of the hashes it is not kept at all.

Hiding: a dropped column is never written. A hashed one is written as a keyed hash, equal for equal values of that
column and different for another column or key. Without the key nobody can find the value by trying all of them, which a
plain hash of an age or a name would allow in a second.
"""

import hmac
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal

from include.feedback.spec import LogSpec
from include.kernel.errors import RequestInvalid

Kind = Literal["text", "number", "integer", "flag", "time"]
Stream = Literal["predictions", "feedback"]
ServedBy = Literal["model", "rule", "previous"]  # what in a model's place answered, and nobody is judged by

BY_MODEL: Final = "model"

FEATURE_PREFIX: Final = "feature."
CALLER_HEADER: Final = "x-evergreen-key"  # the header
PREDICTION: Final[Mapping[str, Kind]] = {
    "request_id": "text",
    "row": "integer",
    "key": "text",
    "caller": "text",
    "at": "time",
    "version": "text",
    "digest": "text",
    "slot": "text",
    "score": "number",
    "decision": "flag",
    "label": "text",
    "served_by": "text",
    "latency_ms": "number",
    "status": "integer",
}
FEEDBACK: Final[Mapping[str, Kind]] = {
    "request_id": "text",
    "row": "integer",
    "label": "text",
    "happened": "time",
    "received": "time",
}
MIN_KEY_BYTES = 16
SEGMENT_KEY = re.compile(
    r"\A(?P<stream>predictions|feedback)/(?P<day>\d{4}-\d\d-\d\d)/(?P<name>[A-Za-z0-9_.-]+)\.parquet\Z"
)


@dataclass(frozen=True)
class ServingStatistics:
    """Answers of one version in the prediction log: requests, failed ones, and milliseconds by (p95, p99)."""

    requests: int
    failed: int
    latency_ms: tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """The columns of a prediction's record and how each input is written; `key` names the caller's own id of a row."""

    features: Mapping[str, Kind]
    hashed: frozenset[str] = frozenset()
    key: str | None = None

    @property
    def columns(self) -> dict[str, Kind]:
        return {**PREDICTION, **{FEATURE_PREFIX + name: kind for name, kind in self.features.items()}}


def build_layout(inputs: Mapping[str, Literal["number", "category"]], spec: LogSpec, key: str | None) -> Layout:
    """`inputs` are the model's columns by name. A hashed column is text, whatever it was."""
    kept = {name: kind for name, kind in inputs.items() if name not in spec.drop}
    kinds: dict[str, Kind] = {
        name: "number" if kind == "number" and name not in spec.hash else "text" for name, kind in kept.items()
    }
    return Layout(kinds, frozenset(spec.hash), None if key in spec.drop else key)


def require_secret(spec: LogSpec, secret: str | None) -> bytes:
    """The key of the hashes. Raises `RequestInvalid` when the manifest hashes a column and there is none."""
    if spec.hash and len((secret or "").encode()) < MIN_KEY_BYTES:
        raise RequestInvalid(
            f"serving.log.hash names {spec.hash[0]!r}, but EVERGREEN_LOG_KEY is not set to a secret of at least "
            f"{MIN_KEY_BYTES} bytes; set it (openssl rand -hex 32), or name the column under serving.log.drop."
        )
    return (secret or "").encode()


def hash_value(secret: bytes, column: str, value: float | str | None) -> str | None:
    """HMAC-SHA256 over column and value, 32 hex digits of it. What is missing stays missing."""
    if value is None:
        return None
    text = value if isinstance(value, str) else repr(float(value))
    return hmac.digest(secret, f"{column}\0{text}".encode(errors="surrogatepass"), "sha256").hex()[:32]


def is_sampled(request_id: str, share: float) -> bool:
    """Whether a request is logged: decided by its id, so that all rows and all copies of it share one fate."""
    return share >= 1 or zlib.crc32(request_id.encode()) < share * 2**32


def build_segment_name(began: datetime, writer: str, boot: str, number: int) -> str:
    """`writer` is the slot or whatever writes, `boot` a random name of its process."""
    return f"{began.astimezone(UTC):%Y%m%dT%H%M%S}-{writer}-{boot}-{number:06d}"


def build_segment_key(stream: Stream, day: date, name: str) -> str:
    return f"{stream}/{day}/{name}.parquet"


def parse_segment_day(key: str) -> date | None:
    """The day of a segment's key; None for any other file that lies there."""
    match = SEGMENT_KEY.match(key)
    return date.fromisoformat(match["day"]) if match else None


def list_expired_days(days: Iterable[date], today: date, keep_days: int) -> list[date]:
    """Days whose records may no longer be kept; with `keep_days` 0 there are none."""
    return sorted(day for day in days if keep_days and day < today - timedelta(days=keep_days))


def compute_backoff_s(failures: int) -> float:
    """Seconds until a place that refused is asked again: doubling, half a minute at most."""
    return float(min(30, 2 ** min(failures, 5)))
