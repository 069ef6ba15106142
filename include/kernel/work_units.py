"""Work units: small results of a part of a job's work, named by their content, that any process may make.

A job that can be spread over machines is cut into work units. It is known by everything that decides about it, so it
does not matter who makes it: a mapped task beside the job, an earlier attempt that was killed, or the job itself, which
makes what is missing when it comes to it. Spreading therefore costs no correctness: a task that was lost, retried or
skipped costs the time of its work units, and one machine ends with what twenty end with.

    pieces/<kind>/<day>/<key>      one line of JSON that says whose bytes follow, and the bytes

A work unit stands under a day of the data so that old ones can be told by their names. What is damaged, or stands under
another's name, is no work unit, and is made again.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

from include.kernel.errors import RequestInvalid
from include.kernel.job import JobRequest

FORMAT = "evergreen-piece-1"
PREFIX = "pieces"
Work = TypeVar("Work")


@dataclass(frozen=True)
class WorkUnit:
    """`key` is the sha256, hex, over the kind and all that decides about the work unit."""

    kind: str
    day: date
    key: str

    @property
    def place(self) -> str:
        return f"{PREFIX}/{self.kind}/{self.day}/{self.key}"

    @property
    def _head(self) -> dict[str, str]:
        return {"form": FORMAT, "kind": self.kind, "day": str(self.day), "key": self.key}

    def wrap(self, content: bytes) -> bytes:
        """What is stored: the content behind a line that names the work unit and the content's sha256."""
        head = {**self._head, "sha256": hashlib.sha256(content).hexdigest()}
        return json.dumps(head).encode() + b"\n" + content

    def unwrap(self, stored: bytes) -> bytes | None:
        """The content; None when these bytes are damaged, or another's."""
        _, _, content = stored.partition(b"\n")
        return content if stored == self.wrap(content) else None


def build_work_unit(kind: str, day: date, *decides: str) -> WorkUnit:
    """`decides`: the digests of inputs, code and settings, and which part of the work it is."""
    return WorkUnit(kind, day, hashlib.sha256(json.dumps([kind, str(day), *decides]).encode()).hexdigest())


def list_expired(places: Iterable[str], today: date, keep_days: int) -> list[str]:
    """Of these places, those whose day is more than `keep_days` before `today`."""
    oldest = str(today - timedelta(days=keep_days))
    return [place for place in places if place.split("/")[2] < oldest]


@dataclass(frozen=True)
class Shard:
    """One of `of` tasks that share some work; `index` counts from 0."""

    index: int
    count: int

    def select_share(self, work: Sequence[Work]) -> Sequence[Work]:
        """Every `of`-th: the shares of all shards are the work, each part once, and differ by one part at most."""
        return work[self.index :: self.count]

    @property
    def params(self) -> dict[str, int]:
        """As a job is told."""
        return {"shard": self.index, "shards": self.count}

    def __str__(self) -> str:
        return f"{self.index + 1} of {self.count}"


def list_shards(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


def read_shard(request: JobRequest) -> Shard:
    """The shard a request names; without a name it is all of the work. Raises `RequestInvalid`."""
    index, of = request.params.get("shard", 0), request.params.get("shards", 1)
    if not (isinstance(index, int) and isinstance(of, int) and 0 <= index < of):
        raise RequestInvalid(
            f"{request.job} cannot do shard {index!r} of {of!r}; params.shard counts from 0 to params.shards - 1."
        )
    return Shard(index, of)
