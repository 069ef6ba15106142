"""Upkeep of the prediction log: many small segments of a past day become one, and days past their time are removed.

A day is compacted when it is over. The large segment carries, in the file itself, the names of those it replaces; they
are removed once it is stored. A kill between the two leaves both, which no reader notices, since it counts each record
once, and the next upkeep finishes. Segments that arrive late, from a server that was cut off, are joined by the next
one. Rows pass through in batches of one segment; segments with unlike columns stay apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from include.feedback.core.prediction_records import Stream, expired
from include.feedback.segments import Segments
from include.kernel.errors import DataRefused
from include.kernel.files import storing

REPLACES = b"evergreen.replaces"
STREAMS: tuple[Stream, ...] = ("predictions", "feedback")
FEW = 2  # segments of a day that are not worth a rewrite


@dataclass(frozen=True)
class Upkeep:
    """What was done: days, and segments before and after."""

    compacted_days: int = 0
    replaced: int = 0
    written: int = 0
    expired_days: int = 0


def keep_up(segments: Segments, today: date, keep_days: int, room: Path) -> Upkeep:
    """Compacts every day before `today` and removes what is older than `keep_days` (0: nothing). Safe to repeat.

    `room` is an empty directory on the store's disk. Raises what the place raises, and `DataRefused` for a damaged
    segment.
    """
    total = Upkeep()
    for stream in STREAMS:
        days = segments.days(stream)
        gone = expired(days, today, keep_days)
        for day in gone:
            _remove(segments, days.pop(day))
        past = [(day, keys) for day, keys in days.items() if day < today]
        done = [compact(segments, stream, day, keys, room) for day, keys in past]
        total = Upkeep(
            total.compacted_days + sum(1 for written, _ in done if written),
            total.replaced + sum(replaced for _, replaced in done),
            total.written + sum(written for written, _ in done),
            total.expired_days + len(gone),
        )
    return total


def compact(segments: Segments, stream: Stream, day: date, keys: Sequence[str], room: Path) -> tuple[int, int]:
    """Segments written and replaced."""
    files = {key: _file(segments, key, room) for key in keys}
    stale = {old for path in files.values() for old in _replaces(path)} & set(files)
    _remove(segments, stale)  # what a killed upkeep left
    alike: dict[str, list[str]] = {}
    for key in sorted(set(files) - stale):
        alike.setdefault(str(_meta(files[key]).schema.to_arrow_schema().remove_metadata()), []).append(key)
    groups = [group for group in alike.values() if len(group) > FEW]
    for group in groups:
        _replace(segments, stream, day, {key: files[key] for key in group}, room)
    for path in files.values():
        if path.parent == room:
            path.unlink(missing_ok=True)
    return len(groups), sum(map(len, groups))


def _replace(segments: Segments, stream: Stream, day: date, files: dict[str, Path], room: Path) -> None:
    name = f"compact-{hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()[:16]}"
    draft = room / f"{name}.parquet"
    with storing(draft):
        _join(list(files.items()), draft)
    segments.place.keep(f"{stream}/{day}/{name}.parquet", draft)
    draft.unlink()
    _remove(segments, files)


def _join(files: Sequence[tuple[str, Path]], draft: Path) -> None:
    schema = _meta(files[0][1]).schema.to_arrow_schema().remove_metadata()
    named = schema.with_metadata({REPLACES: json.dumps([key for key, _ in files])})
    with pq.ParquetWriter(draft, named, compression="zstd") as writer:
        for key, path in files:
            with _refusing(key):
                for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches():
                    writer.write_batch(batch.cast(named))


def _replaces(path: Path) -> list[str]:
    found = (_meta(path).metadata or {}).get(REPLACES)
    return list(json.loads(found)) if found else []


def _meta(path: Path) -> Any:
    with _refusing(str(path)):
        return pq.read_metadata(path)


@contextmanager
def _refusing(key: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataRefused(f"The segment {key} cannot be read ({why}); remove it.") from error


def _file(segments: Segments, key: str, room: Path) -> Path:
    path = segments.place.local(key, room)
    if path is None:
        raise DataRefused(f"The segment {key} was removed meanwhile; run one upkeep at a time.")
    return path


def _remove(segments: Segments, keys: Iterable[str]) -> None:
    for key in keys:
        segments.place.remove(key)
