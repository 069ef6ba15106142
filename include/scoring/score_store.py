"""Results of batch scoring in the snapshot store, under a prefix of their own (names: include.scoring.core.scoring).

Everything is written by the store's one atomic write, so a part is there whole or not at all. A part counts when its
record does and its bytes are what the record says; one that was damaged is written again, over the damaged one. Two
runs that score the same write the same bytes, and it does not matter who is first.
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from include.data.store.snapshot_store import Objects
from include.kernel.errors import Conflict
from include.scoring.core import scoring
from include.scoring.core.scoring import Part, ScoredPart, Scores, Tally

WHOLE = "scores.json"
Document = TypeVar("Document", bound=BaseModel)


class ScoreStore:
    """Raises `Conflict`, and what its objects raise."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def uri(self, day: date, version: str, key: str) -> str:
        return f"{self._objects.uri}/{scoring.place(day, version, key)}"

    def whole(self, day: date, version: str, key: str) -> Scores | None:
        """The finished result; None when there is none, or none that can be read."""
        found = self._document(Scores, f"{scoring.place(day, version, key)}/{WHOLE}")
        return found if found and found.key == key else None

    def part(self, place: str, key: str, part: Part) -> ScoredPart | None:
        """The record of a part that is there, once its bytes hold; None when it has to be scored."""
        record = self._document(ScoredPart, f"{place}/{part.record}")
        if record is None or (record.key, record.part) != (key, part):
            return None
        found = self._objects.read(f"{place}/{part.name}")
        return record if found and _sha256(found.data) == record.sha256 else None

    def keep_part(self, place: str, key: str, part: Part, data: bytes, tally: Tally) -> ScoredPart:
        """The Parquet file first, then its record."""
        record = ScoredPart(key=key, part=part, sha256=_sha256(data), tally=tally)
        self._put(f"{place}/{part.name}", data)
        self._put(f"{place}/{part.record}", _json(record))
        return record

    def finish(self, scores: Scores) -> None:
        self._put(f"{scoring.place(scores.day, scores.version, scores.key)}/{WHOLE}", _json(scores))

    def _document(self, kind: type[Document], key: str) -> Document | None:
        found = self._objects.read(key)
        try:
            return kind.model_validate_json(found.data) if found else None
        except ValidationError:
            return None  # it is made again, from what it stands for

    def _put(self, key: str, data: bytes) -> None:
        """These bytes under this name, whatever was there."""
        found = self._objects.read(key)
        if found and found.data == data:
            return
        if self._objects.write(key, data, found.tag if found else None):
            return
        other = self._objects.read(key)
        if other is None or other.data != data:
            raise Conflict(f"{self._objects.uri}/{key} is being written by another run too; try again.")


def _json(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=1).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
