"""Where segments lie: the snapshot store's directory or bucket, under prefixes of their own.

No description stands beside a segment and no index lists them: the listing of the place is the index, since a segment
appears whole or not at all. The price is a listing a read; a day holds few segments once it is compacted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

from include.feedback.core.prediction_records import Stream, parse_segment_day

if TYPE_CHECKING:
    from include.data.store.snapshot_store import ObjectStore


class Segments:
    """Raises what its place raises: `StorageUnavailable`, `ServiceUnavailable`, `AccessRefused`."""

    def __init__(self, place: ObjectStore) -> None:
        self.place = place

    def list_days(self, stream: Stream) -> dict[date, list[str]]:
        """Day -> its segments' keys, both in order. Other files are left alone."""
        keys_by_day: dict[date, list[str]] = {}
        for key in sorted(self.place.list_keys(f"{stream}/")):
            day = parse_segment_day(key)
            if day:
                keys_by_day.setdefault(day, []).append(key)
        return keys_by_day

    def list_keys(self, stream: Stream, days: Iterable[date]) -> list[str]:
        """The segments of these days."""
        return [
            key
            for day in sorted(days)
            for key in sorted(self.place.list_keys(f"{stream}/{day}/"))
            if parse_segment_day(key)
        ]
