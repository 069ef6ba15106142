"""What was predicted for whom, and what became of it: two streams of records that wait for nobody.

`append` is called when an answer is ready. It costs a microsecond or two, never blocks and never raises: a prediction
is worth more than its record. What the log cannot take is lost and counted (`evergreen_log_lost_rows_total`), so a gap
is known, not guessed. Outcomes that callers send back are the other way round: nobody waits for the answer, so what
cannot be taken is refused, and the caller tries again.

Hiding columns, sampling and shape are decided in `include.feedback.core.prediction_records`; how records get to their
place in `segment_writer`. Hiding is done before a record is written anywhere, the spool included.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.feedback.core.prediction_records import (
    CALLER,
    FEATURE,
    FEEDBACK,
    Kind,
    Layout,
    checked_secret,
    hashed,
    layout,
    sampled,
)
from include.feedback.spec import LogSpec
from include.serving.exchange import Outcome
from include.serving.log.segment_writer import Counts, Item, SegmentWriter
from include.serving.log.spool import Spool
from include.serving.slot.contents import Loaded, Slot

if TYPE_CHECKING:
    from include.feedback.segments import Segments
    from include.serving.exchange import Answer, Asked, Problem
    from include.serving.slot.current_model import Holder

log = logging.getLogger(__name__)
LONGEST = 256  # characters of a text that are kept, or a caller could fill the memory
ANSWERED = ("version", "digest", "slot", "served_by")
EACH = {"score": "probabilities", "label": "labels", "decision": "decisions"}
REMEMBERED = 10_000  # hashes kept, since categories repeat


class PredictionRows:
    """Encodes answered requests. Its state is a cache of hashes; only the writing thread uses it."""

    def __init__(self, shape: Layout, secret: bytes) -> None:
        self.columns: Mapping[str, Kind] = shape.columns
        self._shape, self._secret = shape, secret
        self._known: dict[tuple[str, Any], str | None] = {}

    def values(self, items: Sequence[Item]) -> dict[str, list[Any]]:
        rows = [row for item in items for row in item.content[1]]
        names = list(self._shape.features)
        columns = dict(zip(names, _columns(names, rows), strict=True))
        inputs = {FEATURE + name: self._kept(name, column) for name, column in columns.items()}
        who = {"key": self._keys(rows), "caller": self._callers(items)}
        return {**_envelopes(items), **_answers(items), **who, **inputs}

    def _callers(self, items: Sequence[Item]) -> list[str | None]:
        keys = [item.content[0].key for item in items]
        return _spread(items, [self._hashed(CALLER, key[:LONGEST]) if key and self._secret else None for key in keys])

    def _keys(self, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
        key = self._shape.key
        if key is None:
            return [None] * len(rows)
        return self._kept(key, [row.get(key) for row in rows])

    def _kept(self, name: str, found: list[Any]) -> list[Any]:
        """A column as it is written."""
        if name in self._shape.hashed:
            return [self._hashed(name, value) for value in found]
        if self._shape.features.get(name) == "number":
            return found
        short = None not in found and max(map(len, found), default=0) <= LONGEST
        return found if short else [value and value[:LONGEST] for value in found]

    def _hashed(self, name: str, value: Any) -> str | None:
        if (name, value) not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[name, value] = hashed(self._secret, name, value)
        return self._known[name, value]


def _columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A list for each name. A row that another model's schema checked, for it was replaced meanwhile, may lack some."""
    try:
        whole = [[row[name] for name in names] for row in rows]
    except KeyError:
        whole = [[row.get(name) for name in names] for row in rows]
    return [list(column) for column in zip(*whole, strict=True)] or [[] for _ in names]


def _spread(items: Sequence[Item], values: Iterable[Any]) -> list[Any]:
    """One value for each row, of what all rows of a request share."""
    return list(chain.from_iterable(map(repeat, values, (item.rows for item in items))))


def _envelopes(items: Sequence[Item]) -> dict[str, list[Any]]:
    """What all rows of a request share; the number of each in its request."""
    return {
        "request_id": _spread(items, [item.content[0].id for item in items]),
        "at": _spread(items, [item.at for item in items]),
        "status": _spread(items, [item.content[3] for item in items]),
        "latency_ms": _spread(items, [item.content[4] * 1e3 for item in items]),
        "row": [row for item in items for row in range(item.rows)],
    }


def _answers(items: Sequence[Item]) -> dict[str, list[Any]]:
    """What was answered; nothing where nothing could be."""
    answers = [item.content[2] for item in items]
    shared = {name: _spread(items, [getattr(each, name, None) for each in answers]) for name in ANSWERED}
    return shared | {name: _each(items, values) for name, values in EACH.items()}


def _each(items: Sequence[Item], name: str) -> list[Any]:
    """A list of the answer, which has one value for each row."""
    answers = ((item.content[2], item.rows) for item in items)
    return list(chain.from_iterable(getattr(each, name) if each else repeat(None, rows) for each, rows in answers))


class OutcomeRows:
    """Encodes what callers sent to /feedback."""

    columns: Mapping[str, Kind] = FEEDBACK

    def values(self, items: Sequence[Item]) -> dict[str, list[Any]]:
        outcomes: list[Outcome] = [outcome for item in items for outcome in item.content]
        return {
            "request_id": [each.request_id for each in outcomes],
            "row": [each.row for each in outcomes],
            "label": [each.label for each in outcomes],
            "happened": [each.happened for each in outcomes],
            "received": [item.at for item in items for _ in item.content],
        }


class PredictionLog:
    """Both streams of one slot. Raises `RequestInvalid` when the manifest hashes columns and there is no secret."""

    def __init__(
        self,
        spec: LogSpec,
        holder: Holder,
        place: Callable[[], Segments],
        counts: Callable[[str], Counts],
        *,
        secret: str | None = None,
        spool: Path | None = None,
    ) -> None:
        """`counts` makes the metrics of a stream by its name; `spool` is a directory that survives this process."""
        self._spec, self._secret = spec, checked_secret(spec, secret)
        self._holder, self._slot = holder, holder.slot
        self._rows = self._encoder(holder.slot)
        self._outcomes = OutcomeRows()
        writer, self._counts = (holder.colour, uuid.uuid4().hex[:12]), counts("predictions")
        self._writers = (
            SegmentWriter("predictions", writer, spec, place, self._counts, Spool(spool)),
            SegmentWriter("feedback", writer, spec, place, counts("feedback"), Spool(spool)),
        )
        self._predictions, self._feedback = self._writers

    def start(self) -> None:
        for writer in self._writers:
            writer.start()

    def append(
        self, asked: Asked, rows: Sequence[Mapping[str, Any]], answer: Answer | Problem, status: int, seconds: float
    ) -> None:
        """Rows of one validated request, and what they were answered with; nothing of it may be changed afterwards."""
        try:
            if self._holder.slot is not self._slot:
                self._swapped()
            if self._spec.sample < 1 and not sampled(asked.id, self._spec.sample):
                return
            content = (asked, rows, answer if status < 400 else None, status, seconds)
            item = Item(time.time_ns() // 1000, self._rows, len(rows), content)
            if not self._predictions.offer(item):
                self._counts.lost(len(rows), "full")
        except Exception:  # a record is never worth a prediction
            log.exception("the prediction log failed")

    def _swapped(self) -> None:
        """Another model may have other columns; its records begin another segment."""
        self._slot = self._holder.slot
        self._rows = self._encoder(self._slot)

    def _encoder(self, slot: Slot) -> PredictionRows:
        columns = slot.model.meta.columns if isinstance(slot, Loaded) else ()
        shape = layout({column.name: column.kind for column in columns}, self._spec, self._holder.key)
        return PredictionRows(shape, self._secret)

    def feedback(self, outcomes: Sequence[Outcome]) -> bool:
        """False when there is no room for them now."""
        item = Item(time.time_ns() // 1000, self._outcomes, len(outcomes), tuple(outcomes))
        return self._feedback.offer(item)

    def close(self, seconds: float = 5.0) -> None:
        """Writes what waits, both streams at once, within about `seconds`; afterwards nothing is taken."""
        for writer in self._writers:
            writer.stop()
        for writer in self._writers:
            writer.close(seconds)
