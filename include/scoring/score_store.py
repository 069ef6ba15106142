"""Results of batch scoring in the snapshot store, under a prefix of their own (names: include.scoring.core.scoring).

Everything is written by the store's one atomic write, so a part is there whole or not at all. A part counts when its
record does and its bytes are what the record says; one that was damaged is written again, over the damaged one. Two
runs that score the same write the same bytes, and it does not matter who is first.
"""

import hashlib
from datetime import date
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from include.data.store.snapshot_store import ObjectStore
from include.kernel.errors import Conflict
from include.scoring.core import scoring
from include.scoring.core.scoring import Part, ScoredPart, Scores, ScoreSummary

RESULT_FILE = "scores.json"
Document = TypeVar("Document", bound=BaseModel)


class ScoreStore:
    """Raises `Conflict`, and what its objects raise."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def build_uri(self, day: date, version: str, key: str) -> str:
        return f"{self._objects.uri}/{scoring.locate_result(day, version, key)}"

    def read_result(self, day: date, version: str, key: str) -> Scores | None:
        """The finished result; None when there is none, or none that can be read."""
        scores = self._read_document(Scores, f"{scoring.locate_result(day, version, key)}/{RESULT_FILE}")
        return scores if scores and scores.key == key else None

    def read_part(self, prefix: str, key: str, part: Part) -> ScoredPart | None:
        """The record of a part that is there, once its bytes hold; None when it has to be scored."""
        record = self._read_document(ScoredPart, f"{prefix}/{part.record}")
        if record is None or (record.key, record.part) != (key, part):
            return None
        stored = self._objects.read(f"{prefix}/{part.name}")
        return record if stored and _hash_bytes(stored.data) == record.sha256 else None

    def write_part(self, prefix: str, key: str, part: Part, data: bytes, tally: ScoreSummary) -> ScoredPart:
        """The Parquet file first, then its record."""
        record = ScoredPart(key=key, part=part, sha256=_hash_bytes(data), tally=tally)
        self._put(f"{prefix}/{part.name}", data)
        self._put(f"{prefix}/{part.record}", _encode_json(record))
        return record

    def write_result(self, scores: Scores) -> None:
        self._put(
            f"{scoring.locate_result(scores.day, scores.version, scores.key)}/{RESULT_FILE}", _encode_json(scores)
        )

    def _read_document(self, kind: type[Document], key: str) -> Document | None:
        stored = self._objects.read(key)
        try:
            return kind.model_validate_json(stored.data) if stored else None
        except ValidationError:
            return None  # it is made again, from what it stands for

    def _put(self, key: str, data: bytes) -> None:
        """These bytes under this name, whatever was there."""
        stored = self._objects.read(key)
        if stored and stored.data == data:
            return
        if self._objects.write(key, data, stored.tag if stored else None):
            return
        other = self._objects.read(key)
        if other is None or other.data != data:
            raise Conflict(f"{self._objects.uri}/{key} is being written by another run too; try again.")


def _encode_json(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=1).encode()


def _hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
