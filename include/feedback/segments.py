"""Where segments lie: the snapshot store's directory or bucket, under prefixes of their own.

No description stands beside a segment and no index lists them: the listing of the place is the index, since a segment
appears whole or not at all. The price is a listing a read; a day holds few segments once it is compacted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Protocol

from include.feedback.core.prediction_records import Stream, day_of_segment


class Place(Protocol):
    """What a directory or bucket must be able to do for segments. All of it is atomic, key by key."""

    uri: str

    def add(self, key: str, data: bytes) -> None:
        """Stores `data` unless the key is there already: then it is the same segment, written before a kill."""
        ...

    def keep(self, key: str, file: Path) -> None:
        """The same for a file, however large."""
        ...

    def local(self, key: str, room: Path) -> Path | None:
        """A file with the object's bytes, to be read only, in `room` if it must be fetched; None when it is gone."""
        ...

    def remove(self, key: str) -> None:
        """Also when it is gone."""
        ...

    def keys(self, prefix: str) -> list[str]: ...


class Segments:
    """Raises what its place raises: `StorageUnavailable`, `ServiceUnavailable`, `AccessRefused`."""

    def __init__(self, place: Place) -> None:
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
