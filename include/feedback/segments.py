"""Where segments lie: the snapshot store's directory or bucket, under prefixes of their own.

No description stands beside a segment and no index lists them: the listing of the place is the index, since a segment
appears whole or not at all. The price is a listing a read; a day holds few segments once it is compacted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

from include.feedback.core.prediction_records import Stream, day_of_segment

if TYPE_CHECKING:
    from include.data.store.snapshot_store import Objects


class Segments:
    """Raises what its place raises: `StorageUnavailable`, `ServiceUnavailable`, `AccessRefused`."""

    def __init__(self, place: Objects) -> None:
        self.place = place

    def days(self, stream: Stream) -> dict[date, list[str]]:
        """Day -> its segments' keys, both in order. Other files are left alone."""
        found: dict[date, list[str]] = {}
        for key in sorted(self.place.keys(f"{stream}/")):
            day = day_of_segment(key)
            if day:
                found.setdefault(day, []).append(key)
        return found

    def keys(self, stream: Stream, days: Iterable[date]) -> list[str]:
        """The segments of these days."""
        return [
            key for day in sorted(days) for key in sorted(self.place.keys(f"{stream}/{day}/")) if day_of_segment(key)
        ]
