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
    CALLER_HEADER,
    FEATURE_PREFIX,
    FEEDBACK,
    Kind,
    Layout,
    build_layout,
    hash_value,
    is_sampled,
    require_secret,
)
from include.feedback.spec import LogSpec
from include.serving.exchange import Outcome
from include.serving.log.segment_writer import LogCounters, LogEntry, SegmentWriter
from include.serving.log.spool import Spool
from include.serving.slot.contents import Loaded, Slot

if TYPE_CHECKING:
    from include.feedback.segments import Segments
    from include.serving.exchange import Answer, Problem, RequestContext
    from include.serving.slot.current_model import CurrentModel

log = logging.getLogger(__name__)
MAX_TEXT = 256  # characters of a text that are kept, or a caller could fill the memory
ANSWER_FIELDS = ("version", "digest", "slot", "served_by")
ROW_FIELDS = {"score": "probabilities", "label": "labels", "decision": "decisions"}
MAX_HASHES = 10_000  # hashes kept, since categories repeat


class PredictionEncoder:
    """Encodes answered requests. Its state is a cache of hashes; only the writing thread uses it."""

    def __init__(self, shape: Layout, secret: bytes) -> None:
        self.columns: Mapping[str, Kind] = shape.columns
        self._shape, self._secret = shape, secret
        self._hashes: dict[tuple[str, Any], str | None] = {}

    def encode(self, items: Sequence[LogEntry]) -> dict[str, list[Any]]:
        rows = [row for item in items for row in item.content[1]]
        names = list(self._shape.features)
        columns = dict(zip(names, _list_columns(names, rows), strict=True))
        inputs = {FEATURE_PREFIX + name: self._encode_column(name, column) for name, column in columns.items()}
        identity = {"key": self._encode_keys(rows), "caller": self._encode_callers(items)}
        return {**_encode_contexts(items), **_encode_answers(items), **identity, **inputs}

    def _encode_callers(self, items: Sequence[LogEntry]) -> list[str | None]:
        keys = [item.content[0].key for item in items]
        return _repeat_per_row(
            items, [self._hash(CALLER_HEADER, key[:MAX_TEXT]) if key and self._secret else None for key in keys]
        )

    def _encode_keys(self, rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
        key = self._shape.key
        if key is None:
            return [None] * len(rows)
        return self._encode_column(key, [row.get(key) for row in rows])

    def _encode_column(self, name: str, values: list[Any]) -> list[Any]:
        """A column as it is written."""
        if name in self._shape.hashed:
            return [self._hash(name, value) for value in values]
        if self._shape.features.get(name) == "number":
            return values
        short = None not in values and max(map(len, values), default=0) <= MAX_TEXT
        return values if short else [value and value[:MAX_TEXT] for value in values]

    def _hash(self, name: str, value: Any) -> str | None:
        if (name, value) not in self._hashes:
            if len(self._hashes) >= MAX_HASHES:
                self._hashes.clear()
            self._hashes[name, value] = hash_value(self._secret, name, value)
        return self._hashes[name, value]


def _list_columns(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A list for each name. A row that another model's schema checked, for it was replaced meanwhile, may lack some."""
    try:
        whole = [[row[name] for name in names] for row in rows]
    except KeyError:
        whole = [[row.get(name) for name in names] for row in rows]
    return [list(column) for column in zip(*whole, strict=True)] or [[] for _ in names]


def _repeat_per_row(items: Sequence[LogEntry], values: Iterable[Any]) -> list[Any]:
    """One value for each row, of what all rows of a request share."""
    return list(chain.from_iterable(map(repeat, values, (item.rows for item in items))))


def _encode_contexts(items: Sequence[LogEntry]) -> dict[str, list[Any]]:
    """What all rows of a request share; the number of each in its request."""
    return {
        "request_id": _repeat_per_row(items, [item.content[0].id for item in items]),
        "at": _repeat_per_row(items, [item.at for item in items]),
        "status": _repeat_per_row(items, [item.content[3] for item in items]),
        "latency_ms": _repeat_per_row(items, [item.content[4] * 1e3 for item in items]),
        "row": [row for item in items for row in range(item.rows)],
    }


def _encode_answers(items: Sequence[LogEntry]) -> dict[str, list[Any]]:
    """What was answered; nothing where nothing could be."""
    answers = [item.content[2] for item in items]
    shared = {name: _repeat_per_row(items, [getattr(each, name, None) for each in answers]) for name in ANSWER_FIELDS}
    return shared | {name: _flatten(items, values) for name, values in ROW_FIELDS.items()}


def _flatten(items: Sequence[LogEntry], name: str) -> list[Any]:
    """A list of the answer, which has one value for each row."""
    answers = ((item.content[2], item.rows) for item in items)
    return list(chain.from_iterable(getattr(each, name) if each else repeat(None, rows) for each, rows in answers))


class OutcomeEncoder:
    """Encodes what callers sent to /feedback."""

    columns: Mapping[str, Kind] = FEEDBACK

    def encode(self, items: Sequence[LogEntry]) -> dict[str, list[Any]]:
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
        current_model: CurrentModel,
        open_segments: Callable[[], Segments],
        counts: Callable[[str], LogCounters],
        *,
        secret: str | None = None,
        spool: Path | None = None,
    ) -> None:
        """`counts` makes the metrics of a stream by its name; `spool` is a directory that survives this process."""
        self._spec, self._secret = spec, require_secret(spec, secret)
        self._current_model, self._slot = current_model, current_model.slot
        self._prediction_encoder = self._build_encoder(current_model.slot)
        self._outcome_encoder = OutcomeEncoder()
        writer, self._counts = (current_model.colour, uuid.uuid4().hex[:12]), counts("predictions")
        self._writers = (
            SegmentWriter("predictions", writer, spec, open_segments, self._counts, Spool(spool)),
            SegmentWriter("feedback", writer, spec, open_segments, counts("feedback"), Spool(spool)),
        )
        self._predictions, self._feedback = self._writers

    def start(self) -> None:
        for writer in self._writers:
            writer.start()

    def append(
        self,
        context: RequestContext,
        rows: Sequence[Mapping[str, Any]],
        answer: Answer | Problem,
        status: int,
        seconds: float,
    ) -> None:
        """Rows of one validated request, and what they were answered with; nothing of it may be changed afterwards."""
        try:
            if self._current_model.slot is not self._slot:
                self._switch_model()
            if self._spec.sample < 1 and not is_sampled(context.id, self._spec.sample):
                return
            content = (context, rows, answer if status < 400 else None, status, seconds)
            item = LogEntry(time.time_ns() // 1000, self._prediction_encoder, len(rows), content)
            if not self._predictions.offer(item):
                self._counts.count_lost(len(rows), "full")
        except Exception:  # a record is never worth a prediction
            log.exception("the prediction log failed")

    def _switch_model(self) -> None:
        """Another model may have other columns; its records begin another segment."""
        self._slot = self._current_model.slot
        self._prediction_encoder = self._build_encoder(self._slot)

    def _build_encoder(self, slot: Slot) -> PredictionEncoder:
        columns = slot.model.meta.columns if isinstance(slot, Loaded) else ()
        shape = build_layout({column.name: column.kind for column in columns}, self._spec, self._current_model.key)
        return PredictionEncoder(shape, self._secret)

    def offer_outcomes(self, outcomes: Sequence[Outcome]) -> bool:
        """False when there is no room for them now."""
        item = LogEntry(time.time_ns() // 1000, self._outcome_encoder, len(outcomes), tuple(outcomes))
        return self._feedback.offer(item)

    def close(self, seconds: float = 5.0) -> None:
        """Writes what waits, both streams at once, within about `seconds`; afterwards nothing is taken."""
        for writer in self._writers:
            writer.stop()
        for writer in self._writers:
            writer.close(seconds)
