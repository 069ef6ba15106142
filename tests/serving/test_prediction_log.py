"""The log in one process: real files, a real thread; the place fails by being a file where a directory should be."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from include.data.store.local_store import LocalObjectStore
from include.feedback.core.prediction_records import Layout
from include.feedback.segments import Segments
from include.feedback.spec import LogSpec
from include.kernel.errors import RequestInvalid
from include.model.schema import Column
from include.serving.exchange import Answer, Outcome, Problem, RequestContext
from include.serving.log.prediction_log import PredictionEncoder, PredictionLog
from include.serving.log.segment_writer import FEW, MAX_POLLS, ROW_GROUP_ROWS, LogEntry, SegmentWriter
from include.serving.log.spool import Spool
from include.serving.slot.contents import Loaded, SlotFile
from include.serving.slot.current_model import CurrentModel
from tests.ground import wait_for

COLUMNS = (Column(name="Income", kind="number"), Column(name="Home", kind="category"))
SECRET = "a secret of more than sixteen bytes"


class Counts:
    """Real counting, by result."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.look: Callable[[], float] = lambda: 0

    def count_written(self, rows: int) -> None:
        self.rows["written"] += rows

    def count_lost(self, rows: int, reason: str) -> None:
        self.rows[reason] += rows

    def count_refused(self) -> None:
        self.rows["refused"] += 1

    def watch_waiting(self, read_rows: Callable[[], float]) -> None:
        self.look = read_rows


def slot(*columns: Column, version: str = "3") -> Loaded:
    model: Any = SimpleNamespace(meta=SimpleNamespace(columns=columns))
    return Loaded(SlotFile(version=version, digest="d" * 64, generation=1), model, datetime.now(UTC))


class Logged:
    """A log with its place, its counts and the slot it belongs to."""

    def __init__(self, root: Path, spool: bool = True, **spec: Any) -> None:
        self.root, self.counts = root / "store", {"predictions": Counts(), "feedback": Counts()}
        self.holder = CurrentModel("blue", slot(*COLUMNS), key="customer")
        self.spec = LogSpec(**{"flush_s": 60.0, "buffer_rows": 10_000, "rows_per_segment": 5000, **spec})
        self.log = PredictionLog(
            self.spec, self.holder, lambda: Segments(LocalObjectStore(self.root)), self.counts.__getitem__,
            secret=SECRET, spool=root / "spool" if spool else None,
        )  # fmt: skip

    def predict(self, request: str, *rows: dict[str, Any], score: float = 0.25, version: str = "3") -> None:
        asked, number = RequestContext(request, None, 0.0, 0.0), len(rows)
        answer = Answer(version, "blue", "d" * 64, [score] * number, ["good"] * number, [False] * number)
        self.log.append(asked, rows, answer, 200, 0.002)

    def table(self, stream: str = "predictions") -> pl.DataFrame:
        return pl.read_parquet(sorted(self.root.glob(f"{stream}/*/*.parquet")))


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[..., Logged]]:
    made: list[Logged] = []

    def make(**more: Any) -> Logged:
        made.append(Logged(tmp_path, **more))
        made[-1].log.start()
        return made[-1]

    yield make
    for each in made:
        each.log.close()


ROW = {"Income": 1200.0, "Home": "rent"}


def test_a_prediction_is_written_with_all_its_fields_under_its_day(logged):
    one = logged()
    one.predict("r-1", {**ROW, "customer": "C7"}, {"Income": None, "Home": None})
    one.log.close()
    [path] = one.root.glob("predictions/*/*.parquet")
    assert path.parent.name == f"{datetime.now(UTC):%Y-%m-%d}" and "-blue-" in path.name
    first, second = one.table().to_dicts()
    assert timedelta(0) <= datetime.now(UTC) - first.pop("at") < timedelta(minutes=1)
    assert first == {
        "request_id": "r-1", "row": 0, "key": "C7", "caller": None, "version": "3", "digest": "d" * 64, "slot": "blue",
        "score": 0.25, "decision": False, "label": "good", "served_by": "model", "latency_ms": 2.0, "status": 200,
        "feature.Income": 1200.0, "feature.Home": "rent",
    }  # fmt: skip
    assert (second["row"], second["key"], second["feature.Income"], second["feature.Home"]) == (1, None, None, None)
    assert one.counts["predictions"].rows == {"written": 2} and one.counts["predictions"].look() == 0


def test_a_request_that_could_not_be_answered_is_written_without_an_answer(logged):
    one = logged()
    one.log.append(RequestContext("r-9", None, 0.0, 0.0), [ROW], Problem(503, "The queue is full."), 503, 0.1)
    one.log.close()
    [row] = one.table().to_dicts()
    assert (row["status"], row["score"], row["version"], row["feature.Home"]) == (503, None, None, "rent")


def test_a_segment_is_written_when_it_is_full_or_old_without_being_asked(logged):
    one = logged(rows_per_segment=10)
    for number in range(10):
        one.predict(f"r-{number}", ROW)
    wait_for(lambda: one.counts["predictions"].rows["written"] == 10)
    two = logged(flush_s=0.3)
    two.predict("r-old", ROW)
    wait_for(lambda: two.counts["predictions"].rows["written"] == 1)


def test_a_dropped_column_is_written_nowhere_and_a_hashed_one_only_as_a_keyed_hash(logged, tmp_path):
    one = logged(drop=("Home",), hash=("Income", "customer"))
    one.predict("r-1", {**ROW, "customer": "C7"}, {**ROW, "customer": "C8"}, {"Income": None, "Home": "rent"})
    spooled = wait_for(lambda: next(iter((tmp_path / "spool").glob("predictions@*")), None))
    wait_for(lambda: b"r-1" in spooled.read_bytes())
    kept = spooled.read_bytes()
    one.log.close()
    for content in (kept, *(file.read_bytes() for file in one.root.rglob("*.parquet"))):
        assert content and not [word for word in (b"rent", b"C7", struct.pack("<d", 1200.0)) if word in content]
    table = one.table()
    assert "feature.Home" not in table.columns
    hashes = table["feature.Income"].to_list()
    assert hashes[0] == hashes[1] and len(hashes[0]) == 32 and hashes[2] is None
    assert table["key"].n_unique() == 3 and table["key"][2] is None


def test_a_manifest_that_hashes_without_a_secret_is_refused_in_one_sentence(tmp_path):
    for secret in (None, "short"):
        with pytest.raises(RequestInvalid, match=r"hash names 'Income', but EVERGREEN_LOG_KEY .*; set it .*\.$"):
            PredictionLog(
                LogSpec(hash=("Income",)), CurrentModel("blue", slot()), lambda: Segments(LocalObjectStore(tmp_path)),
                {"predictions": Counts(), "feedback": Counts()}.__getitem__, secret=secret,
            )  # fmt: skip


def test_a_callers_key_is_kept_as_a_keyed_hash_and_without_a_secret_not_at_all(logged, tmp_path):
    one = logged()
    for request, caller in (("r-1", "ann"), ("r-2", "bob"), ("r-3", "ann"), ("r-4", None)):
        answer = Answer("3", "blue", "d" * 64, [0.25, 0.25], ["good"] * 2, [False] * 2)
        one.log.append(RequestContext(request, caller, 0.0, 0.0), [ROW, ROW], answer, 200, 0.002)
    one.log.close()
    callers = one.table().sort("request_id", "row")["caller"].to_list()
    assert callers[0] == callers[1] == callers[4] == callers[5] != callers[2]
    assert callers[6:] == [None, None] and "ann" not in callers[0] and len(callers[0]) == 32
    item = LogEntry(0, None, 1, (RequestContext("r", "ann", 0.0, 0.0), [ROW], None, 503, 0.1))
    assert PredictionEncoder(Layout({}), b"").encode([item])["caller"] == [None]


def test_a_sample_takes_whole_requests_by_their_id_and_twice_the_same(logged):
    one = logged(sample=0.3)
    for number in range(1000):
        one.predict(f"request-{number}", ROW, ROW)
        one.predict(f"request-{number}", ROW, ROW)
    one.log.close()
    counts = one.table().group_by("request_id").len()
    assert 200 < len(counts) < 400 and set(counts["len"]) == {4}


def test_what_has_no_room_is_lost_and_counted_and_the_rest_is_written_when_the_place_is_back(logged):
    one = logged(buffer_rows=100, rows_per_segment=50)
    one.root.write_text("a file where the store should be")
    for number in range(300):
        one.predict(f"r-{number}", ROW)
    counts = one.counts["predictions"]
    wait_for(lambda: counts.rows["refused"] >= 1)
    assert counts.rows["full"] == 200 and counts.look() == 100
    one.root.unlink()
    wait_for(lambda: counts.rows["written"] >= 50)  # what is left fills no segment, if the thread came between
    one.predict("r-after", ROW)
    one.log.close(60)
    assert counts.rows["written"] == 101 and counts.rows["full"] == 200
    assert set(one.table()["request_id"]) == {*(f"r-{number}" for number in range(100)), "r-after"}


def test_rows_that_do_not_fit_are_counted_and_hold_up_nothing(logged):
    one = logged()
    one.predict("r-bad", {"Income": "much", "Home": "rent"})
    wait_for(lambda: one.counts["predictions"].rows["unfit"] == 1)
    one.predict("r-good", ROW)
    one.log.close()
    assert one.table()["request_id"].to_list() == ["r-good"]


def test_a_long_segment_is_written_by_row_groups_in_the_order_of_its_rows(logged):
    one = logged(rows_per_segment=10_000)
    for number in range(9000):
        one.predict(f"r-{number}", ROW)
    one.log.close()
    [path] = one.root.glob("predictions/*/*.parquet")
    groups = pq.ParquetFile(path).metadata
    sizes = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert len(sizes) == 3 and min(sizes[:2]) >= ROW_GROUP_ROWS
    assert one.table()["request_id"].to_list() == [f"r-{number}" for number in range(9000)]


def test_a_segment_whose_row_group_cannot_be_written_is_lost_and_counted_and_the_next_is_whole(logged, monkeypatch):
    one = logged()
    with monkeypatch.context() as broken:
        broken.setattr(pq.ParquetWriter, "write_table", lambda *_: (_ for _ in ()).throw(MemoryError()))
        for number in range(ROW_GROUP_ROWS):
            one.predict(f"r-{number}", ROW)
        wait_for(lambda: one.counts["predictions"].rows["unfit"] == ROW_GROUP_ROWS)
    one.predict("r-after", ROW)
    one.log.close()
    assert one.counts["predictions"].rows["written"] == 1 and one.table()["request_id"].to_list() == ["r-after"]


def test_a_model_with_other_columns_begins_another_segment(logged):
    one = logged()
    one.predict("r-1", ROW)
    one.holder.swap(slot(Column(name="Age", kind="number"), version="4"))
    one.predict("r-2", {"Age": 40.0}, version="4")
    one.log.close()
    tables = [pl.read_parquet(path) for path in sorted(one.root.glob("predictions/*/*"))]
    assert ["feature.Age" in table.columns for table in tables] == [False, True]
    assert [table["version"].to_list() for table in tables] == [["3"], ["4"]]


def test_two_writers_of_one_moment_never_choose_the_same_name(logged):
    first, second = logged(), logged()
    first.predict("r-1", ROW)
    second.predict("r-2", ROW)
    first.log.close()
    second.log.close()
    assert len(list(first.root.glob("predictions/*/*"))) == 2


def test_with_the_place_gone_for_good_the_spool_keeps_what_the_next_server_writes(logged):
    one = logged()
    one.root.write_text("a file where the store should be")
    one.predict("r-1", ROW)
    one.log.close()
    assert one.counts["predictions"].rows["shutdown"] == 0
    one.root.unlink()
    two = logged()
    wait_for(lambda: two.counts["predictions"].rows["written"] == 1)
    assert two.table()["request_id"].to_list() == ["r-1"]
    assert not list((two.root.parent / "spool").iterdir())


def test_without_a_spool_what_could_not_be_written_is_lost_at_shutdown_and_counted(logged):
    one = logged(spool=False)
    one.root.write_text("a file where the store should be")
    one.predict("r-1", ROW, ROW)
    one.log.close()
    assert one.counts["predictions"].rows["shutdown"] == 2


def test_outcomes_are_kept_and_refused_when_there_is_no_room(logged):
    one = logged(buffer_rows=2, rows_per_segment=2)
    happened = datetime(2026, 8, 1, 12, tzinfo=UTC)
    micros = int(happened.timestamp() * 1e6)
    assert one.log.offer_outcomes([Outcome("r-1", 0, "bad", micros), Outcome("r-1", 1, "good", None)])
    assert not one.log.offer_outcomes([Outcome("r-2", number, "bad", None) for number in range(3)])
    one.log.close()
    first, second = one.table("feedback").to_dicts()
    assert (first["request_id"], first["row"], first["label"], first["happened"]) == ("r-1", 0, "bad", happened)
    assert second["happened"] is None and second["received"] == first["received"]


def test_an_append_never_raises_and_costs_microseconds(logged):
    one = logged()
    one.log.append(None, [ROW], None, 200, 0.0)  # type: ignore[arg-type]
    best = min(_seconds_of(lambda: [one.predict("r", ROW) for _ in range(500)]) / 500 for _ in range(5))
    assert best < 20e-6
    one.log.close()


def _seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Endless:
    """Whenever its rows are written, another one is offered, as under a steady load."""

    def __init__(self) -> None:
        self.columns = {"row": "integer"}
        self.batches: list[int] = []
        self.writer: SegmentWriter | None = None

    def encode(self, items):
        self.batches.append(len(items))
        assert self.writer and self.writer.offer(LogEntry(0, self, 1, ()))
        return {"row": [0] * len(items)}


def test_what_comes_while_a_batch_is_made_waits_for_the_next_look(tmp_path):
    encoder = Endless()
    place = Segments(LocalObjectStore(tmp_path / "store"))
    writer = SegmentWriter("predictions", ("blue", "1"), LogSpec(), lambda: place, Counts(), Spool(None))
    encoder.writer = writer
    for _ in range(5):
        writer.offer(LogEntry(0, encoder, 1, ()))
    for _ in range(2 * MAX_POLLS):
        writer._poll()
    assert encoder.batches == [5, 1]


def test_many_rows_do_not_wait_for_more_and_few_wait_some_looks(tmp_path):
    encoder, place = Endless(), Segments(LocalObjectStore(tmp_path / "store"))
    writer = SegmentWriter("predictions", ("blue", "1"), LogSpec(), lambda: place, Counts(), Spool(None))
    encoder.writer = writer
    for _ in range(FEW):
        writer.offer(LogEntry(0, encoder, 1, ()))
    writer._poll()
    assert encoder.batches == [FEW]
    for _ in range(MAX_POLLS - 2):
        writer._poll()
    assert encoder.batches == [FEW]
    writer._poll()
    assert encoder.batches == [FEW, 1]
