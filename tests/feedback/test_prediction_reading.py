"""Reading the prediction log: what counts, what joins, what was known; and that upkeep changes nothing of it."""

from __future__ import annotations

import io
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from include import manifest
from include.data.store.local_store import LocalObjectStore, LocalSnapshotStore
from include.feedback import log_repair
from include.feedback.core.prediction_records import FEEDBACK, PREDICTION, hash_value
from include.feedback.predictions import COLUMN_TYPES, Predictions
from include.feedback.segments import Segments
from include.kernel.errors import Conflict, DataRefused
from include.manifest import Manifest
from tests.delivered import described, written
from tests.ground import write_manifest

DAY = date(2026, 8, 1)
NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)
SECRET = "a secret of sixteen bytes"


class Log:
    """A store with a log: written segment by segment, read as one."""

    def __init__(self, root: Path, **changes: Any) -> None:
        root.mkdir(exist_ok=True)
        self.root, self.segments, self.store = root, Segments(LocalObjectStore(root)), LocalSnapshotStore(root)
        path = write_manifest(root / "pipeline.yaml", {"label.delay_days": 3, **changes})
        self.manifest: Manifest = manifest.load(path)
        self.number = 0

    def predicted(self, *rows: dict[str, Any], day: date = DAY) -> str:
        whole = {"row": 0, "at": NOON, "score": 0.5, "version": "3", "status": 200, "feature.Income": 1.0}
        return self._add(
            "predictions", day, [{**whole, **row} for row in rows], {**PREDICTION, "feature.Income": "number"}
        )

    def told(self, *rows: dict[str, Any], day: date = DAY) -> str:
        whole = {"row": 0, "received": NOON, "happened": None}
        return self._add("feedback", day, [{**whole, **row} for row in rows], FEEDBACK)

    def _add(self, stream: str, day: date, rows: list[dict[str, Any]], columns: Any) -> str:
        extra = {name: pl.String() for row in rows for name in row if name not in columns}
        schema = {**{name: COLUMN_TYPES[kind] for name, kind in columns.items()}, **extra}
        wide = [{name: row.get(name) for name in schema} for row in rows]
        file, self.number = io.BytesIO(), self.number + 1
        pl.DataFrame(wide, schema=schema).write_parquet(file)
        key = f"{stream}/{day}/segment-{self.number:03d}.parquet"
        self.segments.place.add(key, file.getvalue())
        return key

    def ingested(self, day: date, *rows: tuple[str, str], known: date | None = None) -> None:
        ids, labels = zip(*rows, strict=True)
        table = pa.table({"application_id": list(ids), "Status": list(labels), "Income": [1.0] * len(ids)})
        path = written(table, self.root / "work", f"{day}-{len(ids)}-{known}.parquet")
        self.store.publish(described(path, day, known), path)

    def reader(self, secret: str | None = None) -> Predictions:
        return Predictions(self.segments, self.store, self.manifest, self.root / "room", secret)

    def read(self, until: date = DAY, as_of: date | None = None, **more: Any) -> pl.DataFrame:
        return pl.concat(list(self.reader(SECRET).read_parts(DAY, until, as_of, **more)))

    def upkeep(self, today: date = DAY + timedelta(days=9), keep_days: int = 0) -> log_repair.RepairReport:
        room = self.root / "scratch"
        room.mkdir(exist_ok=True)
        return log_repair.repair_log(self.segments, today, keep_days, room)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_an_empty_log_is_one_empty_part_with_all_columns(log):
    found = log.read()
    assert found.is_empty() and {*PREDICTION, "outcome", "outcome_from", "outcome_at"} <= set(found.columns)


def test_of_two_answers_to_one_request_the_last_one_counts_and_an_answer_counts_before_none(log):
    later = NOON + timedelta(seconds=1)
    log.predicted({"request_id": "a", "score": 0.1}, {"request_id": "b", "score": 0.3}, {"request_id": "a", "row": 1})
    log.predicted({"request_id": "a", "score": 0.2, "at": later}, {"request_id": "b", "score": None, "at": later})
    found = log.read().sort("request_id", "row")
    assert found.select("request_id", "row", "score").rows() == [("a", 0, 0.2), ("a", 1, 0.5), ("b", 0, 0.3)]


def test_a_copy_after_midnight_takes_the_prediction_to_its_own_day(log):
    midnight = datetime(2026, 8, 2, tzinfo=UTC)
    log.predicted({"request_id": "a", "at": midnight - timedelta(seconds=1)}, {"request_id": "b"})
    log.predicted({"request_id": "a", "at": midnight + timedelta(seconds=1)}, day=DAY + timedelta(days=1))
    assert log.read()["request_id"].to_list() == ["b"]
    assert log.read(until=DAY + timedelta(days=1))["request_id"].to_list() == ["b", "a"]


def test_feedback_joins_by_request_and_row_and_its_last_word_counts(log):
    log.predicted({"request_id": "a"}, {"request_id": "a", "row": 1}, {"request_id": "b"})
    log.told({"request_id": "a", "row": 1, "label": "bad"}, {"request_id": "nobody", "label": "bad"})
    log.told({"request_id": "a", "row": 1, "label": "good", "received": NOON + timedelta(days=4)}, day=date(2026, 8, 5))
    assert log.read()["outcome"].to_list() == [None, "good", None]
    known = log.read(as_of=date(2026, 8, 3))
    assert known["outcome"].to_list() == [None, "bad", None]
    assert known["outcome_from"].to_list() == [None, "feedback", None] and known["outcome_at"][1] == NOON


def test_ingested_labels_join_by_the_rows_own_id_once_they_have_matured_and_feedback_goes_first(log):
    log.predicted(*({"request_id": name, "key": f"A{name}"} for name in "abc"), {"request_id": "d"})
    log.ingested(DAY, ("Aa", "bad"), ("Ab", "good"), ("Az", "bad"))
    log.told({"request_id": "b", "label": "bad"})
    assert log.read(as_of=date(2026, 8, 3))["outcome"].to_list() == [None, "bad", None, None]
    found = log.read(as_of=date(2026, 8, 4))
    assert found["outcome"].to_list() == ["bad", "bad", None, None]
    assert found["outcome_from"].to_list() == ["ingested", "feedback", None, None]
    assert found["outcome_at"][0] == datetime(2026, 8, 4, tzinfo=UTC)


def test_hashed_ids_join_under_the_secret(tmp_path):
    log = Log(tmp_path, **{"serving.log": {"hash": ["application_id"]}})
    log.predicted({"request_id": "a", "key": hash_value(SECRET.encode(), "application_id", "Aa")})
    log.ingested(DAY, ("Aa", "bad"))
    assert log.read()["outcome"].to_list() == ["bad"]


def test_segments_with_other_columns_or_kinds_are_read_as_one(log):
    log.predicted({"request_id": "a", "feature.Age": "x"})
    log.predicted({"request_id": "b", "feature.Income": 7.0})
    log._add("predictions", DAY, [{"request_id": "c", "row": 0, "at": NOON, "feature.Income": "e3b0"}], PREDICTION)
    found = log.read().sort("request_id")
    assert found["feature.Age"].to_list() == ["x", None, None]
    assert found["feature.Income"].to_list() == ["1.0", "7.0", "e3b0"]


@pytest.mark.parametrize("part_rows", [1, 7, 40, 1000])
def test_parts_of_any_size_hold_whole_requests_and_together_the_same_rows(log, part_rows):
    for number in range(5):
        log.predicted(*({"request_id": f"r{number}-{each}", "row": row} for each in range(10) for row in range(2)))
        log.told({"request_id": f"r{number}-3", "label": "bad"})
    parts = list(log.reader().read_parts(DAY, DAY, part_rows=part_rows))
    assert len(parts) == max(1, -(-100 // part_rows))
    homes: dict[str, int] = {}
    for number, part in enumerate(parts):
        assert all(homes.setdefault(request, number) == number for request in part["request_id"])
    whole = pl.concat(parts)
    assert len(whole) == 100 and whole["outcome"].drop_nulls().to_list() == ["bad"] * 5


def test_upkeep_leaves_one_segment_a_day_and_the_same_predictions(log):
    for number in range(6):
        log.predicted({"request_id": f"a{number}"}, {"request_id": "twice", "score": number / 10})
        log.told({"request_id": f"a{number}", "label": "bad"})
    before = log.read()
    done = log.upkeep()
    assert (done.compacted_days, done.replaced, done.written) == (2, 12, 2)
    assert [len(keys) for keys in log.segments.list_days("predictions").values()] == [1]
    assert log.read().sort("request_id").equals(before.sort("request_id"))
    assert log.upkeep() == log_repair.RepairReport()


def test_a_segment_that_comes_late_joins_the_others_at_the_next_upkeep(log):
    for number in range(4):
        log.predicted({"request_id": f"a{number}"})
    log.upkeep()
    log.predicted({"request_id": "late"})
    log.predicted({"request_id": "later"})
    assert log.upkeep().replaced == 3 and len(log.read()) == 6


def test_today_is_left_to_its_writers_and_what_is_past_its_time_is_removed(log):
    for day in range(1, 5):
        for _ in range(3):
            log.predicted({"request_id": f"d{day}"}, day=date(2026, 8, day))
    log.told({"request_id": "d1", "label": "bad"})
    done = log.upkeep(today=date(2026, 8, 4), keep_days=2)
    assert (done.expired_days, done.compacted_days) == (2, 2)
    assert {day.day: len(keys) for day, keys in log.segments.list_days("predictions").items()} == {2: 1, 3: 1, 4: 3}
    assert log.segments.list_days("feedback") == {}


class Dies(LocalObjectStore):
    """A place where the process dies at the n-th change."""

    def __init__(self, root: Path, after: int) -> None:
        super().__init__(root)
        self.left = after

    def _live(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def keep(self, key: str, file: Path) -> None:
        self._live()
        super().keep(key, file)

    def remove(self, key: str) -> None:
        self._live()
        super().remove(key)


@pytest.mark.parametrize("after", range(7))
def test_upkeep_that_dies_anywhere_loses_and_doubles_nothing_and_the_next_one_finishes(log, after):
    for number in range(5):
        log.predicted({"request_id": f"a{number}"})
    log.segments.place = Dies(log.root, after)
    if after < 6:
        with pytest.raises(KeyboardInterrupt):
            log.upkeep()
    log.segments.place = LocalObjectStore(log.root)
    assert sorted(log.read()["request_id"]) == [f"a{number}" for number in range(5)]
    log.upkeep()
    assert len(log.segments.list_keys("predictions", [DAY])) == 1 and len(log.read()) == 5


def test_a_damaged_segment_is_named_and_one_that_vanishes_meanwhile_is_a_conflict(log):
    key = log.predicted({"request_id": "a"})
    parts = log.reader().read_parts(DAY, DAY)
    file = log.root / key
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"PAR1 is not enough")
    with pytest.raises(DataRefused, match=r"cannot be read .*; remove what is damaged"):
        log.read()
    file.write_bytes(content)
    next(parts)

    class Vanishing(LocalObjectStore):
        def fetch_into(self, key: str, workspace: Path) -> Path | None:
            return None

    log.segments.place = Vanishing(log.root)
    with pytest.raises(Conflict, match="read again"):
        log.read()


def test_how_a_version_s_requests_were_answered_is_told_by_request_and_not_by_row(log: Log) -> None:
    log.predicted(*({"request_id": f"r{n}", "row": row, "latency_ms": float(n)} for n in range(100) for row in (0, 1)))
    log.predicted({"request_id": "failed", "score": None, "status": 503, "latency_ms": 500.0})
    log.predicted({"request_id": "other", "version": "4", "status": 500, "latency_ms": 9e9})
    found = log.reader().summarize_serving("3", DAY, DAY)
    assert found is not None
    assert (found.requests, found.failed) == (101, 1)
    assert found.latency_ms[0] == pytest.approx(95, abs=1) and found.latency_ms[1] == pytest.approx(99, abs=1)
    assert log.reader().summarize_serving("9", DAY, DAY) is None


class TestTheLastWord:
    """Thousands of keys in several files and row groups: the engine's order of rows decides nothing, in any run."""

    KEYS = 20_000

    def many(self, log: Log) -> None:
        rows = pl.DataFrame({"request_id": [f"r{n}" for n in range(self.KEYS)]}).with_columns(
            key="A" + pl.col("request_id"), row=pl.lit(0), at=pl.lit(NOON), score=0.5, version=pl.lit("3"), status=200
        )
        schema = {name: COLUMN_TYPES[kind] for name, kind in PREDICTION.items()}
        whole = [pl.col(name) if name in rows.columns else pl.lit(None).alias(name) for name in schema]
        self.write(log, "predictions", rows.select(whole).cast(schema), "p")

    def write(self, log: Log, stream: str, rows: pl.DataFrame, name: str) -> None:
        file = io.BytesIO()
        rows.write_parquet(file, row_group_size=1000)
        log.segments.place.add(f"{stream}/{DAY}/{name}.parquet", file.getvalue())

    def test_of_labels_ingested_several_times_the_one_known_last_counts(self, log):
        self.many(log)
        draw = random.Random(5)
        for number in range(3):  # the day that was corrected last is not the newest day
            ids = [f"Ar{n}" for n in range(self.KEYS)]
            draw.shuffle(ids)
            day, known = DAY + timedelta(days=number % 2), DAY + timedelta(days=20 + number)
            label = "good" if number == 2 else "bad"
            log.ingested(day, *((name, label) for name in ids), known=known)
        for _ in range(3):
            assert log.read(until=DAY)["outcome"].value_counts().rows() == [("good", self.KEYS)]

    def test_of_outcomes_received_at_one_moment_the_one_that_was_sent_last_counts_before_and_after_upkeep(self, log):
        self.many(log)
        for name, label in (("a", "bad"), ("b", "bad"), ("c", "good")):
            told = pl.DataFrame({"request_id": [f"r{n}" for n in range(self.KEYS)]}).select(
                "request_id",
                row=pl.lit(0, pl.Int64),
                label=pl.lit(label),
                happened=pl.lit(None, COLUMN_TYPES["time"]),
                received=pl.lit(NOON, COLUMN_TYPES["time"]),
            )
            self.write(log, "feedback", told.sample(fraction=1.0, shuffle=True, seed=3), name)
        for _ in range(2):
            assert log.read()["outcome"].value_counts().rows() == [("good", self.KEYS)]
            log.upkeep()

    def test_when_it_happened_decides_between_outcomes_received_at_one_moment(self, log):
        log.predicted({"request_id": "a"})
        log.told(
            {"request_id": "a", "label": "good", "happened": NOON - timedelta(hours=1)},
            {"request_id": "a", "label": "bad", "happened": NOON - timedelta(hours=2)},
        )
        assert log.read()["outcome"].to_list() == ["good"]

    def test_segments_of_unlike_columns_keep_their_order(self, log):
        """b and d are of a server that knew no `happened`; of equal times the last segment counts."""
        self.many(log)
        for name, label in zip("abcde", ("bad", "bad", "bad", "bad", "good"), strict=True):
            told = pl.DataFrame({"request_id": ["r1"], "row": [0], "label": [label]}).with_columns(
                received=pl.lit(NOON, COLUMN_TYPES["time"])
            )
            if name not in "bd":
                told = told.with_columns(happened=pl.lit(None, COLUMN_TYPES["time"]))
            self.write(log, "feedback", told, name)
        assert log.read().filter(pl.col("request_id") == "r1")["outcome"].to_list() == ["good"]
