"""A day read and checked by several tasks, and by one: the same snapshot, the same report, the same refusal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.data.sources.base import Budget
from include.data.sources.files import Files
from include.jobs.__main__ import run
from include.kernel.errors import Conflict, DataRefused, EvergreenError, RequestInvalid
from include.kernel.job import Intent, JobRequest, JobResult
from include.kernel.work_units import Shard, list_shards
from include.manifest import DEFAULT_PATH, load
from tests import edge
from tests.delivered import read_day
from tests.killed import killed

DAY, BEFORE = date(2026, 8, 2), date(2026, 8, 1)
TASKS = 3
Cut = list[pd.DataFrame]


@pytest.fixture(scope="module")
def days() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The day before, and the day."""
    manifest = load(DEFAULT_PATH)
    return read_day(manifest, BEFORE), read_day(manifest, DAY)


@dataclass(frozen=True)
class World:
    """One delivery, ingested into a store of its own for each number of tasks."""

    small: Callable[..., Any]
    root: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def place(self) -> Path:
        return self.root / "in"

    def deliver(self, number: int, rows: pd.DataFrame | pa.Table | str, day: date = DAY, ending: str = "csv") -> Path:
        path = self.place / str(day) / f"part-{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(rows, pa.Table):
            pq.write_table(rows, path)
        else:
            path.write_text(rows if isinstance(rows, str) else rows.to_csv(index=False))
        return path

    def enter(self, tasks: int, store: str = "", ending: str = "csv", **changes: Any) -> None:
        source = {"kind": "files", "path": f"{self.place}/{{day}}/*.{ending}"} | changes.pop("source", {})
        self.small(source=source, **{"fan_out.validation": tasks, "contract.max_quarantined": 0.05, **changes})
        self.monkeypatch.setenv("EVERGREEN_STORE", str(self.root / (store or f"store-{tasks}")))

    def told(self, tasks: int, validated: bool = True, **options: Any) -> dict[str, Any]:
        """Everything that is left of the day: by one process, or by `tasks` and then one."""
        self.enter(tasks, **options)
        if (self.place / str(BEFORE)).exists():
            ask("ingest", BEFORE)
        if tasks > 1 and validated:
            for shard in list_shards(tasks):
                ask("validate", **shard.params)
        return left()


def request(job: str, day: date = DAY, **params: Any) -> JobRequest:
    return JobRequest(
        job=job, run_key="k", as_of=day + timedelta(days=1), intent=Intent.LIVE, params={"day": str(day), **params}
    )


def ask(job: str, day: date = DAY, **params: Any) -> JobResult:
    return run(request(job, day, **params))


def left() -> dict[str, Any]:
    """The sentence `ingest` ends with, and every byte it publishes."""
    try:
        told: dict[str, Any] = {"summary": ask("ingest").summary}
    except EvergreenError as refusal:
        return {"refusal": str(refusal), "kind": type(refusal), "published": DAY in edge.store().list_days()}
    store = edge.store()
    snapshot = next((each for each in store.list_snapshots() if each.day == DAY), None)
    if snapshot is None:
        return told
    described = snapshot.model_dump(mode="json", exclude={"manifest"})  # it says how many tasks there may be
    return told | {
        "snapshot": described,
        **{f.name: store.fetch_file(snapshot, f.name).read_bytes() for f in snapshot.files},
    }


@pytest.fixture
def world(small: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(small, tmp_path, monkeypatch)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from the source, as they are."""
    seen: list[str] = []
    read = Files.read

    def noted(self: Files, path: Path, budget: Budget) -> Iterator[pa.RecordBatch]:
        seen.append(path.name)
        yield from read(self, path, budget)

    monkeypatch.setattr(Files, "read", noted)
    return seen


def cut(rows: pd.DataFrame, count: int = 3) -> Cut:
    size = -(-len(rows) // count)
    return [rows.iloc[start : start + size] for start in range(0, len(rows), size)]


def good(parts: Cut) -> Cut:
    return parts


def bad_rows(parts: Cut) -> Cut:
    """In the second part: a cell that is none, one out of bounds, and a row that repeats one of the first."""
    second = parts[1].astype(object).reset_index(drop=True)
    second.loc[0, "Age"], second.loc[2, "Age"] = 17, "old"
    second.loc[4, "application_id"] = parts[0]["application_id"].iloc[7]
    return [parts[0], second, parts[2]]


def id_of_the_day_before(parts: Cut) -> Cut:
    third = parts[2].reset_index(drop=True)
    third.loc[3, "application_id"] = f"A{BEFORE:%Y%m%d}-0004"
    return [parts[0], parts[1], third]


def broken(parts: Cut) -> Cut:
    return [parts[0], parts[1].assign(Age=3), parts[2]]


def shifted(parts: Cut) -> Cut:
    return [part.assign(Income=part["Income"] * 9.7, Home="parents") for part in parts]


def narrower(parts: Cut) -> Cut:
    return [parts[0], parts[1].drop(columns="Income"), parts[2]]


def another_order(parts: Cut) -> Cut:
    return [parts[0], parts[1][parts[1].columns[::-1]].assign(Age=3), parts[2]]


def empty_second(parts: Cut) -> Cut:
    return [parts[0], parts[1].iloc[:0], parts[2]]


def empty_first(parts: Cut) -> Cut:
    return [parts[0].iloc[:0], parts[1], parts[2]]


def none_at_all(parts: Cut) -> Cut:
    return [part.iloc[:0] for part in parts]


def undeclared(parts: Cut) -> Cut:
    return [part.assign(Extra=range(len(part))) for part in parts]


DELIVERIES = [
    good, bad_rows, id_of_the_day_before, broken, shifted, narrower, another_order, empty_second, empty_first,
    none_at_all, undeclared,
]  # fmt: skip


@pytest.mark.parametrize("change", DELIVERIES, ids=lambda change: change.__name__)
def test_three_tasks_and_one_leave_the_same_bytes_and_tell_the_same_sentence(world, days, change):
    world.deliver(0, days[0], BEFORE)
    for number, part in enumerate(change(cut(days[1]))):
        world.deliver(number, part)
    assert world.told(TASKS) == world.told(1)


def garbled(text: str) -> str:
    return text.replace("\n", ",7\n", 4)


@pytest.mark.parametrize("second", ["", "a,b\n1", garbled], ids=["empty file", "cut", "ragged"])
def test_a_file_that_cannot_be_read_is_left_to_ingest_which_refuses_it_as_ever(world, days, second, reads):
    parts = cut(days[1])
    world.deliver(0, parts[0])
    world.deliver(1, second(parts[1].to_csv(index=False)) if callable(second) else second)
    world.deliver(2, parts[2])
    world.enter(TASKS)
    told = [ask("validate", **shard.params) for shard in list_shards(TASKS)]
    assert [result.outputs for result in told] == [{"parts": 1, "refused": number % 2} for number in range(3)]
    reads.clear()
    shared = left()
    assert reads == ["part-1.csv"] and "part-1.csv" in shared["refusal"] and shared["refusal"] in told[1].summary
    assert shared == world.told(1) and shared["kind"] is DataRefused and shared["published"] is False


def test_ingest_reads_no_file_that_was_read_and_marks_no_row_that_was_marked(world, days, reads):
    for number, part in enumerate(cut(days[1], 5)):
        world.deliver(number, part)
    world.enter(TASKS)
    told = [ask("validate", **shard.params).summary for shard in list_shards(TASKS)]
    assert told[0] == "shard 1 of 3: 2 of 5 parts of 2026-08-02 are read and checked"
    assert sorted(reads) == [f"part-{number}.csv" for number in range(5)]
    again = [ask("validate", **shard.params).summary for shard in list_shards(TASKS)]
    assert again == told and len(reads) == 5
    ask("ingest")
    assert len(reads) == 5
    assert edge.store().objects.list_keys("pieces/") == []  # the snapshot has the rows


def test_what_no_task_got_to_ingest_does_itself(world, days, reads):
    for number, part in enumerate(cut(days[1])):
        world.deliver(number, part)
    world.enter(TASKS)
    ask("validate", **Shard(1, TASKS).params)
    reads.clear()
    shared = left()
    assert reads == ["part-0.csv", "part-2.csv"]
    assert shared == world.told(1)


def kept(kind: str) -> list[Path]:
    return sorted((Path(os.environ["EVERGREEN_STORE"]) / "pieces" / kind / str(DAY)).iterdir())


@pytest.mark.parametrize("kind", ["landed", "landed-rows", "marks"])
@pytest.mark.parametrize("harm", ["turned", "cut", "gone"])
def test_a_damaged_piece_is_none_and_made_again(world, days, kind, harm, reads):
    for number, part in enumerate(bad_rows(cut(days[1]))):
        world.deliver(number, part)
    world.enter(TASKS)
    for shard in list_shards(TASKS):
        ask("validate", **shard.params)
    assert len(kept(kind)) == 3
    for piece in kept(kind)[:2]:
        whole = piece.read_bytes()
        piece.unlink()
        if harm != "gone":
            piece.write_bytes(whole[:-9] + (b"" if harm == "cut" else bytes([whole[-9] ^ 1]) + whole[-8:]))
    reads.clear()
    ask("validate", **Shard(0, 1).params)  # a retry mends them
    assert len(reads) == (0 if kind == "marks" else 2)
    assert left() == world.told(1)


@pytest.mark.parametrize("kind", ["landed", "landed-rows", "marks"])
def test_ingest_does_without_what_is_damaged(world, days, kind):
    for number, part in enumerate(bad_rows(cut(days[1]))):
        world.deliver(number, part)
    world.enter(TASKS)
    for shard in list_shards(TASKS):
        ask("validate", **shard.params)
    for piece in kept(kind):
        piece.chmod(0o644)
        piece.write_bytes(b"half of")
    assert left() == world.told(1)


def test_a_file_delivered_anew_is_another_part_and_the_old_one_is_not_used(world, days, reads):
    for number, part in enumerate(cut(days[1])):
        world.deliver(number, part)
    world.enter(TASKS)
    for shard in list_shards(TASKS):
        ask("validate", **shard.params)
    world.deliver(1, bad_rows(cut(days[1]))[1])
    reads.clear()
    shared = left()
    assert reads == ["part-1.csv"] and shared["snapshot"]["quarantined"] == 4
    assert shared == world.told(1)


def test_a_file_that_changes_while_a_task_reads_it_is_read_again_later(world, days, monkeypatch):
    parts = cut(days[1])
    for number, part in enumerate(parts):
        world.deliver(number, part)
    world.enter(TASKS)
    read = Files.read

    def overtaken(self: Files, path: Path, budget: Budget) -> Iterator[pa.RecordBatch]:
        yield from read(self, path, budget)
        os.replace(world.deliver(9, parts[2]), path)

    with monkeypatch.context() as patched, pytest.raises(Conflict, match=r"part-0\.csv changed while it was read"):
        patched.setattr(Files, "read", overtaken)
        ask("validate", **Shard(0, TASKS).params)
    assert edge.store().objects.list_keys("pieces/") == []


def test_rules_that_changed_cost_the_checking_and_not_the_reading(world, days, reads):
    for number, part in enumerate(cut(days[1])):
        world.deliver(number, part)
    world.enter(TASKS)
    for shard in list_shards(TASKS):
        ask("validate", **shard.params)
    world.deliver(0, days[0], BEFORE)
    ask("ingest", BEFORE)  # from now on, there is a day to compare with
    reads.clear()
    shared = left()
    assert reads == []
    assert shared == world.told(1)


def test_a_day_is_too_large_for_three_as_for_one(world, days):
    for number, part in enumerate(cut(days[1])):
        world.deliver(number, part)
    size = sum(batch.nbytes for batch in Files(world_source(world)).read_batches(DAY))
    for room in (0.3, 0.7, 0.95, 1.05):
        bound = {"source": {"max_gib": room * size / 2**30}}
        shared = world.told(TASKS, store=f"three-{room}", **bound)
        assert shared == world.told(1, store=f"one-{room}", **bound)
        assert ("unfolds to more than source.max_gib" in shared.get("refusal", "")) == (room < 1)


def world_source(world: World) -> Any:
    world.enter(1)
    return edge.manifest().source


def test_a_checksum_beside_a_file_counts_though_the_file_was_read_before_it_came(world, days):
    for number, part in enumerate(cut(days[1])):
        world.deliver(number, part)
    world.enter(TASKS)
    for shard in list_shards(TASKS):
        ask("validate", **shard.params)
    (world.place / str(DAY) / "part-1.csv.sha256").write_text(f"{'0' * 64}  part-1.csv\n")
    shared = left()
    assert "is not the file part-1.csv.sha256 was written for" in shared["refusal"]
    assert shared == world.told(1)


def test_typed_files_with_an_empty_column_and_missing_numbers_are_joined_as_ever(world, days):
    """Parquet keeps types, so a column that is empty throughout has none, and NaN is not missing."""
    for number, part in enumerate(cut(days[1])):
        table = pa.Table.from_pandas(part, preserve_index=False)
        if number == 1:
            place = table.schema.get_field_index("Assets")
            table = table.set_column(place, "Assets", pa.nulls(len(table)))
        world.deliver(number, table.replace_schema_metadata(None), ending="parquet")
    assert world.told(TASKS, ending="parquet") == world.told(1, ending="parquet")


def test_typed_files_that_are_what_they_should_be_become_the_same_one_file(world, days):
    """Nothing has to be changed or set aside, so what was landed is what is published."""
    world.deliver(0, days[1])
    world.enter(1, store="as-it-should-be")
    ask("ingest")
    store = edge.store()
    rows = pq.read_table(store.fetch_file(store.list_snapshots()[0])).replace_schema_metadata(None)
    for number in range(3):
        world.deliver(number, rows.slice(number * 40, 40), ending="parquet")
    assert world.told(TASKS, ending="parquet") == world.told(1, ending="parquet")


@given(data=st.data())
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_a_day_is_cut_and_shared_it_ends_the_same(world, days, data):
    rows = days[1].astype(object).reset_index(drop=True)
    for number in data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)):
        rows.loc[number, "Age"] = data.draw(st.sampled_from([17, "old", None, "NaN", "inf"]))
    edges = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=1, max_size=4)))
    for old in (world.place / str(DAY)).glob("*"):
        old.unlink()
    for number, (begin, end) in enumerate(zip([0, *edges], [*edges, len(rows)], strict=True)):
        world.deliver(number, rows.iloc[begin:end])
    tasks, name = data.draw(st.integers(2, 4)), os.urandom(4).hex()
    assert world.told(tasks, store=f"{name}-many") == world.told(1, store=f"{name}-one")


@pytest.mark.parametrize(
    "function",
    [
        "include.data.validation.landed_parts.land",
        "include.data.validation.landed_parts.compute_md5",
        "include.data.validation.row_checks.check_rows",
    ],
)
def test_a_task_killed_at_work_costs_the_part_it_was_at_and_nothing_else(world, days, reads, function):
    """At its second part: before the rows are read, before they are kept, and before they are marked."""
    for number, part in enumerate(bad_rows(cut(days[1]))):
        world.deliver(number, part)
    world.enter(TASKS)
    module, name = function.rsplit(".", 1)
    killed(request("validate"), module, name, 2, world.root / "result.json")
    shared = left()
    assert reads == ["part-1.csv", "part-2.csv"][function.endswith("check_rows") :]
    assert shared == world.told(1)
    assert list(edge.work_room().glob("work-*")) == []


def test_a_day_in_one_part_gives_the_tasks_nothing_to_do(world, days):
    world.deliver(0, days[1])
    world.enter(TASKS)
    told = ask("validate", **Shard(0, TASKS).params)
    assert (told.verdict, told.summary) == ("no", "2026-08-02 was not delivered in parts; ingest reads it alone")
    assert edge.store().objects.list_keys("pieces/") == []
    assert left() == world.told(1)


def test_the_replay_is_one_part(small):
    small(**{"fan_out.validation": TASKS})
    assert ask("validate", **Shard(2, TASKS).params).verdict == "no"


def test_a_shard_there_is_not_is_refused(world):
    world.enter(TASKS)
    with pytest.raises(RequestInvalid, match="validate cannot do shard 3 of 3"):
        ask("validate", shard=3, shards=3)


def test_the_report_counts_rows_from_the_first_of_the_whole_delivery(world, days):
    parts = bad_rows(cut(days[1]))
    for number, part in enumerate(parts):
        world.deliver(number, part)
    shared = world.told(TASKS)
    report = json.loads(shared["contract.json"])
    [age] = [each for each in report if each["expectation"]["rule"] == "in_range" and "Age" in str(each["expectation"])]
    assert f"({len(parts[0]) + 1})" in age["observed"] and age["bad"] == 1
