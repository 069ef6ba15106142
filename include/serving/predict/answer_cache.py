"""Answers kept for rows that are asked again. Off by default: few services see the same row twice, and a cache hides
how fast the model is.

A key is the model's digest and every value of the row, so an answer can neither outlive its model nor stand for a row
that differs. Only the model's own answers are kept, not those of a fallback.
"""

from collections import OrderedDict
from collections.abc import Sequence

from include.serving.exchange import Row

Key = tuple[object, ...]


class AnswerCache:
    """The answers to the `most` rows that were asked for last."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._probabilities: OrderedDict[Key, float] = OrderedDict()

    def get(self, digest: str, rows: Sequence[Row]) -> list[float] | None:
        """All answers, or None when one is not known."""
        keys = [_build_key(digest, row) for row in rows]
        if not all(key in self._probabilities for key in keys):
            return None
        for key in keys:
            self._probabilities.move_to_end(key)
        return [self._probabilities[key] for key in keys]

    def put(self, digest: str, rows: Sequence[Row], probabilities: Sequence[float]) -> None:
        for row, probability in zip(rows, probabilities, strict=True):
            self._probabilities[_build_key(digest, row)] = probability
        while len(self._probabilities) > self._max_rows:
            self._probabilities.popitem(last=False)


def _build_key(digest: str, row: Row) -> Key:
    return (digest, *row.values())  # complete rows, always in the order of the columns
