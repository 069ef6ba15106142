"""Upkeep of the prediction log: many small segments of a past day become one, and days past their time are removed.

A day is compacted when it is over. The large segment carries, in the file itself, the names of those it replaces; they
are removed once it is stored. A kill between the two leaves both, which no reader notices, since it counts each record
once, and the next upkeep finishes. Segments that arrive late, from a server that was cut off, are joined by the next
one. Rows pass through in batches of one segment; segments with unlike columns stay apart.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from include.feedback.core.prediction_records import Stream, list_expired_days
from include.feedback.segments import Segments
from include.kernel.errors import DataRefused
from include.kernel.files import translate_write_errors

REPLACES = b"evergreen.replaces"
STREAMS: tuple[Stream, ...] = ("predictions", "feedback")
MAX_LEFT_SEGMENTS = 2  # segments of a day that are not worth a rewrite


@dataclass(frozen=True)
class RepairReport:
    """What was done: days, and segments before and after."""

    compacted_days: int = 0
    replaced: int = 0
    written: int = 0
    expired_days: int = 0


def repair_log(segments: Segments, today: date, keep_days: int, workspace: Path) -> RepairReport:
    """Compacts every day before `today` and removes what is older than `keep_days` (0: nothing). Safe to repeat.

    `room` is an empty directory on the store's disk. Raises what the place raises, and `DataRefused` for a damaged
    segment.
    """
    total = RepairReport()
    for stream in STREAMS:
        days = segments.list_days(stream)
        expired_days = list_expired_days(days, today, keep_days)
        for day in expired_days:
            _remove(segments, days.pop(day))
        past_days = [(day, keys) for day, keys in days.items() if day < today]
        compacted = [compact(segments, stream, day, keys, workspace) for day, keys in past_days]
        total = RepairReport(
            total.compacted_days + sum(1 for written, _ in compacted if written),
            total.replaced + sum(replaced for _, replaced in compacted),
            total.written + sum(written for written, _ in compacted),
            total.expired_days + len(expired_days),
        )
    return total


def compact(segments: Segments, stream: Stream, day: date, keys: Sequence[str], workspace: Path) -> tuple[int, int]:
    """Segments written and replaced."""
    files = {key: _fetch_segment(segments, key, workspace) for key in keys}
    stale = {old for path in files.values() for old in _read_replaced_keys(path)} & set(files)
    _remove(segments, stale)  # what a killed upkeep left
    by_schema: dict[str, list[str]] = {}
    for key in sorted(set(files) - stale):
        by_schema.setdefault(str(_read_metadata(files[key]).schema.to_arrow_schema().remove_metadata()), []).append(key)
    groups = [group for group in by_schema.values() if len(group) > MAX_LEFT_SEGMENTS]
    for group in groups:
        _replace(segments, stream, day, {key: files[key] for key in group}, workspace)
    for path in files.values():
        if path.parent == workspace:
            path.unlink(missing_ok=True)
    return len(groups), sum(map(len, groups))


def _replace(segments: Segments, stream: Stream, day: date, files: dict[str, Path], workspace: Path) -> None:
    name = f"compact-{hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()[:16]}"
    draft = workspace / f"{name}.parquet"
    with translate_write_errors(draft):
        _join(list(files.items()), draft)
    segments.place.keep(f"{stream}/{day}/{name}.parquet", draft)
    draft.unlink()
    _remove(segments, files)


def _join(files: Sequence[tuple[str, Path]], draft: Path) -> None:
    schema = _read_metadata(files[0][1]).schema.to_arrow_schema().remove_metadata()
    named = schema.with_metadata({REPLACES: json.dumps([key for key, _ in files])})
    with pq.ParquetWriter(draft, named, compression="zstd") as writer:
        for key, path in files:
            with _translate_read_errors(key):
                for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches():
                    writer.write_batch(batch.cast(named))


def _read_replaced_keys(path: Path) -> list[str]:
    replaced = (_read_metadata(path).metadata or {}).get(REPLACES)
    return list(json.loads(replaced)) if replaced else []


def _read_metadata(path: Path) -> Any:
    with _translate_read_errors(str(path)):
        return pq.read_metadata(path)


@contextmanager
def _translate_read_errors(key: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        detail = " ".join(str(error).split())[:200]
        raise DataRefused(f"The segment {key} cannot be read ({detail}); remove it.") from error


def _fetch_segment(segments: Segments, key: str, workspace: Path) -> Path:
    path = segments.place.fetch_into(key, workspace)
    if path is None:
        raise DataRefused(f"The segment {key} was removed meanwhile; run one upkeep at a time.")
    return path


def _remove(segments: Segments, keys: Iterable[str]) -> None:
    for key in keys:
        segments.place.remove(key)
