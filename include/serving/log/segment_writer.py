"""The thread that turns what was answered into segments, so that a prediction never waits for a disk or a bucket.

    offer        any thread: one append to a deque, or False when the bound is reached
    collect      a few hundred rows at a time become a record batch, on the spool too; then the thread sleeps a moment,
                 because the interpreter's lock it held is the one predictions need
    write        some thousand of them become a row group of a Parquet file
    seal         full, old, of another day or of another model: the file is whole
    store        the bytes go to their place under a name nobody else has; what is refused is tried again, ever later

Every row that was offered is either waiting, written or lost, and lost ones are counted by reason. Waiting rows are
bounded whatever stage they are in. A thread and no process: building batches takes a microsecond or two a row of the
interpreter's time, and compressing and writing is done without its lock.

What a kill takes: SIGTERM nothing, if the place or the spool can be written. SIGKILL the rows of the last `TICK`, or
fewer than `FEW` of the last `MAX_POLLS` of them, which are not on the spool yet; without a spool, those of the last
`flush_s` and what waited for its place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from include.feedback.core.prediction_records import (
    Kind,
    Stream,
    build_segment_key,
    build_segment_name,
    compute_backoff_s,
)
from include.feedback.segments import Segments
from include.feedback.spec import LogSpec
from include.kernel.errors import EvergreenError
from include.serving.log import record_batches
from include.serving.log.spool import Spool, SpoolFile

log = logging.getLogger(__name__)
TICK = 0.05  # seconds between two looks at what was offered
FEW, MAX_POLLS = (
    64,
    4,
)  # fewer rows wait up to so many looks for more: a batch of one costs half as much as one of fifty
PAUSE_S = 0.002  # seconds the thread sleeps after a slice, so that others get the interpreter's lock
SLICE = 256  # rows that become one batch: a millisecond, with the lock given away in between (see SWITCH_S)
MAX_BATCHES = 16  # batches that are joined into one, since a batch of one row takes as much memory as fifty rows
ROW_GROUP_ROWS = 4096  # rows of a row group: some four milliseconds of a core
ADOPT_INTERVAL_S = 60.0  # seconds between two looks for what a dead server left
DAY = 86_400_000_000  # microseconds


class Encoder(Protocol):
    """Knows the columns of a record and how to fill them."""

    @property
    def columns(self) -> Mapping[str, Kind]: ...

    def encode(self, items: Sequence[LogEntry]) -> dict[str, list[Any]]: ...


class LogCounters(Protocol):
    def count_written(self, rows: int) -> None: ...
    def count_lost(self, rows: int, reason: str) -> None: ...
    def count_refused(self) -> None: ...
    def watch_waiting(self, read_rows: Callable[[], float]) -> None: ...


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What was offered at once: `at` in microseconds since 1970, and content that its encoder understands."""

    at: int
    encoder: Encoder
    rows: int
    content: tuple[Any, ...]


@dataclass
class Segment:
    key: str
    day: int
    encoder: Encoder
    schema: pa.Schema
    began: float
    spool: SpoolFile | None
    file: record_batches.ParquetFile
    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.rows += batch.num_rows
        if sum(each.num_rows for each in self.batches) >= ROW_GROUP_ROWS:
            self._write()
        elif len(self.batches) >= MAX_BATCHES:
            self.batches = self._join_batches().to_batches()

    def finish(self) -> bytes:
        if self.batches:
            self._write()
        return self.file.finish()

    def _write(self) -> None:
        self.file.add(self._join_batches())
        self.batches = []

    def _join_batches(self) -> pa.Table:
        return pa.Table.from_batches(self.batches, schema=self.schema).combine_chunks()


@dataclass(frozen=True)
class SealedSegment:
    key: str
    data: bytes
    rows: int
    spool: SpoolFile | None


class Outbox:
    """Sealed segments on their way; the oldest first, with growing waits while their place refuses them."""

    def __init__(self, open_segments: Callable[[], Segments], counts: LogCounters) -> None:
        self._open_segments, self._counts = open_segments, counts
        self._segments: Segments | None = None
        self._waiting: deque[SealedSegment] = deque()
        self._failures, self._retry_at = 0, 0.0

    def add(self, sealed: SealedSegment) -> None:
        self._waiting.append(sealed)

    def send(self, now: float) -> int:
        """Stores what it can; how many rows that were. `now` in monotonic seconds, infinite for one last try."""
        rows = 0
        while self._waiting and now >= self._retry_at and self.save(self._waiting[0].key, self._waiting[0].data):
            sealed = self._waiting.popleft()
            rows += sealed.rows
            if sealed.spool:
                sealed.spool.remove()
        return rows

    def save(self, key: str, data: bytes) -> bool:
        try:
            self._segments = self._segments or self._open_segments()
            self._segments.place.add(key, data)
        except Exception as error:
            self._note(error)
            return False
        if self._failures:
            log.warning("the prediction log is written again")
        self._failures, self._retry_at = 0, 0.0
        return True

    def _note(self, error: Exception) -> None:
        if not self._failures:  # once an outage, not once a try
            expected = isinstance(error, EvergreenError | OSError)
            log.warning("the prediction log waits: %s", error, exc_info=None if expected else error)
        self._counts.count_refused()
        self._failures += 1
        self._retry_at = time.monotonic() + compute_backoff_s(self._failures)

    def leave(self) -> tuple[int, int]:
        """Gives up; the rows that are left on the spool for the next server, and those that are lost."""
        left = {True: 0, False: 0}
        for sealed in self._waiting:
            left[sealed.spool is not None] += sealed.rows
            if sealed.spool:
                sealed.spool.leave()
        return left[True], left[False]


class SegmentWriter:
    """One stream of one writer, which is a slot. `place` is called in the thread, on first use."""

    def __init__(
        self,
        stream: Stream,
        writer: tuple[str, str],
        spec: LogSpec,
        open_segments: Callable[[], Segments],
        counts: LogCounters,
        spool: Spool,
    ) -> None:
        """`writer` is the slot and a random name of this process."""
        self._stream, self._writer, self._spec, self._counts, self._spool = stream, writer, spec, counts, spool
        self._outbox = Outbox(open_segments, counts)
        self._offered: deque[LogEntry] = deque()
        self._segment: Segment | None = None
        self._lock, self._waiting = threading.Lock(), 0
        self._number, self._polls, self._adopt_at = 0, 0, 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log-{stream}", daemon=True)
        counts.watch_waiting(lambda: self._waiting)

    def start(self) -> None:
        self._thread.start()

    def offer(self, item: LogEntry) -> bool:
        """False when the bound is reached or the writer is closed: the caller counts the loss, or refuses."""
        with self._lock:  # held for two additions, here and in the thread
            if self._waiting + item.rows > self._spec.buffer_rows or self._closing.is_set():
                return False
            self._waiting += item.rows
        self._offered.append(item)
        return True

    def stop(self) -> None:
        """Takes nothing more, and begins to write what is there."""
        self._closing.set()

    def close(self, seconds: float) -> None:
        """Waits until it is written, `seconds` at most."""
        self.stop()
        if not self._thread.is_alive():
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            log.warning("the %s log was not written within %g s; %d rows wait", self._stream, seconds, self._waiting)

    def _run(self) -> None:
        while not self._closing.wait(TICK):
            self._run_guarded(self._poll)
        self._run_guarded(self._finish)

    def _run_guarded(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong here, the thread lives on and the predictions do not notice."""
        try:
            step()
        except Exception:
            log.exception("the %s log stumbled and goes on", self._stream)

    def _poll(self) -> None:
        self._polls += 1
        if len(self._offered) >= FEW or self._polls % MAX_POLLS == 0:
            self._collect()
        now, segment = time.monotonic(), self._segment
        if segment and now - segment.began >= self._spec.flush_s:
            self._seal()
        self._settle(self._outbox.send(now))
        if now >= self._adopt_at:
            self._adopt_at = now + (ADOPT_INTERVAL_S if self._adopt() else TICK + compute_backoff_s(1))

    def _finish(self) -> None:
        while self._offered:
            self._collect()
        self._seal()
        self._settle(self._outbox.send(float("inf")))
        spooled, dropped = self._outbox.leave()
        if spooled:
            log.warning("%d rows of the %s log stay on the spool for the next server", spooled, self._stream)
        if dropped:
            self._counts.count_lost(dropped, "shutdown")

    def _settle(self, rows: int, lost: str | None = None) -> None:
        if not rows:
            return
        with self._lock:
            self._waiting -= rows
        if lost:
            self._counts.count_lost(rows, lost)
        else:
            self._counts.count_written(rows)

    def _collect(self) -> None:
        """What is there now. What comes meanwhile waits for the next look: a batch of one row costs nearly as much as
        one of a hundred, and under a steady load there would always be one more."""
        left = len(self._offered)
        while left > 0:
            items = self._take_slice()
            left -= len(items)
            try:
                self._take(items)
            except Exception:
                log.exception("rows do not fit the %s log", self._stream)
                self._settle(sum(item.rows for item in items), lost="unfit")
            time.sleep(PAUSE_S)

    def _take_slice(self) -> list[LogEntry]:
        """Items of one day and one encoder; at least one, and not many more rows than `SLICE`."""
        items = [self._offered.popleft()]
        rows, day, encoder = items[0].rows, items[0].at // DAY, items[0].encoder
        while self._offered and rows < SLICE:
            if self._offered[0].at // DAY != day or self._offered[0].encoder is not encoder:
                break
            items.append(self._offered.popleft())
            rows += items[-1].rows
        return items

    def _take(self, items: Sequence[LogEntry]) -> None:
        encoder, day = items[0].encoder, items[0].at // DAY
        if self._segment and (self._segment.encoder is not encoder or self._segment.day != day):
            self._seal()
        segment = self._segment or self._begin(items[0])
        batch = record_batches.build_batch(segment.schema, encoder.columns, encoder.encode(items))
        self._keep(segment, batch)
        try:
            segment.add(batch)
        except Exception:
            return self._forget(segment)
        if segment.rows >= self._spec.rows_per_segment:
            self._seal()

    def _begin(self, first: LogEntry) -> Segment:
        began = datetime.fromtimestamp(first.at / 1e6, UTC)
        self._number += 1
        name = build_segment_name(began, *self._writer, self._number)
        key, schema = (
            build_segment_key(self._stream, began.date(), name),
            record_batches.build_schema(first.encoder.columns),
        )
        file, spool = record_batches.ParquetFile(schema), self._spool.begin(key, schema)
        self._segment = Segment(key, first.at // DAY, first.encoder, schema, time.monotonic(), spool, file)
        return self._segment

    def _keep(self, segment: Segment, batch: pa.RecordBatch) -> None:
        try:
            if segment.spool:
                segment.spool.add(batch)
        except (OSError, pa.ArrowException) as error:  # full: go on without
            log.warning("the spool cannot be written (%s); a killed server loses what it had not stored", error)
            self._drop_spool(segment)

    def _seal(self) -> None:
        segment = self._segment
        if segment is None or not segment.rows:
            return
        try:
            data = segment.finish()
        except Exception:
            return self._forget(segment)
        self._segment = None
        self._outbox.add(SealedSegment(segment.key, data, segment.rows, segment.spool))

    def _forget(self, segment: Segment) -> None:
        """Of a row group that cannot be written nothing can be known; a new segment begins."""
        log.exception("a segment of the %s log cannot be made", self._stream)
        self._segment = None
        self._drop_spool(segment)
        self._settle(segment.rows, lost="unfit")

    def _drop_spool(self, segment: Segment) -> None:
        if segment.spool:
            segment.spool.remove()
            segment.spool = None

    def _adopt(self) -> bool:
        """Stores what servers that died left on the spool. False when their place refuses it now."""
        for key, table, path in self._spool.iterate_orphans(self._stream):
            if table is not None:
                if not self._outbox.save(key, record_batches.encode_parquet(table)):
                    return False
                log.warning("%d rows of a server that died were stored as %s", table.num_rows, key)
                self._counts.count_written(table.num_rows)
            path.unlink(missing_ok=True)
        return True
