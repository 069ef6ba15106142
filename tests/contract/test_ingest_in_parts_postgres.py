"""A day of a table, read in slices by several machines at several moments, and put together as one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from include.data.sources.base import POSTGRES_VARIABLE, Budget
from include.data.sources.postgres import Postgres, split_day
from include.data.wiring import open_snapshot_store
from include.jobs.__main__ import run
from include.kernel.errors import DataRefused
from include.kernel.job import Intent, JobRequest, JobResult
from include.kernel.work_units import list_shards
from include.manifest import DEFAULT_PATH, Manifest, load
from tests.counterparts import Database, database
from tests.delivered import read_day

DAY = date(2026, 8, 2)
TASKS, SLICES = 3, 5
TABLE = "applications"
Ask = Callable[..., JobResult]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """A day's rows, each a quarter of an hour after the one before; one is bad, and one repeats an id."""
    found = read_day(load(DEFAULT_PATH), DAY).astype(object).iloc[:96]
    found.loc[25, "Age"], found.loc[90, "application_id"] = 17, found.loc[3, "application_id"]
    began = datetime.combine(DAY, datetime.min.time())
    return found.assign(at=[began + timedelta(minutes=15 * number) for number in range(len(found))])


@pytest.fixture(scope="module")
def running() -> Iterator[Database]:
    with database() as server:
        yield server


@pytest.fixture
def server(running: Database, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    types = {name: "float8" for name, spec in load(DEFAULT_PATH).contract.columns.items() if spec.kind == "number"}
    columns = ", ".join(f'"{name}" {types.get(name, "timestamp" if name == "at" else "text")}' for name in rows)
    with running.connect() as connection:
        connection.execute(f"CREATE TABLE {TABLE} ({columns})")
        with connection.cursor() as cursor, cursor.copy(f"COPY {TABLE} FROM STDIN") as copy:
            for row in rows.astype(object).where(rows.notna(), None).itertuples(index=False):
                copy.write_row(row)
    monkeypatch.setenv(POSTGRES_VARIABLE, running.dsn("postgres", "", "postgres"))
    yield running
    with running.connect() as connection:
        connection.execute(f"DROP TABLE {TABLE}")


@pytest.fixture
def ask(server: Database, small: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a job with so many tasks and slices, in a store of these."""

    def asked(job: str, tasks: int, slices: int = SLICES, **params: int) -> JobResult:
        columns = ["application_id", "Status", *load(DEFAULT_PATH).contract.columns]
        source = {"kind": "postgres", "table": TABLE, "interval_column": "at", "columns": columns, "slices": slices}
        small(source=source, **{"fan_out.validation": tasks, "contract.max_quarantined": 0.05})
        monkeypatch.setenv("EVERGREEN_STORE", str(tmp_path / f"store-{tasks}-{slices}"))
        as_of, told = DAY + timedelta(days=1), {"day": str(DAY), **params}
        return run(JobRequest(job=job, run_key="k", as_of=as_of, intent=Intent.LIVE, params=told))

    return asked


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which slices are read, as they are."""
    seen: list[int] = []
    fetched = Postgres.fetch_batches

    def noted(self: Postgres, connection: Any, span: Any, budget: Budget) -> Iterator[pa.RecordBatch]:
        seen.extend([split_day(DAY, SLICES).index(span)] if span in split_day(DAY, SLICES) else [])
        yield from fetched(self, connection, span, budget)

    monkeypatch.setattr(Postgres, "fetch_batches", noted)
    return seen


def validated(ask: Ask) -> None:
    for shard in list_shards(TASKS):
        assert ask("validate", TASKS, **shard.params).outputs["refused"] == 0


def published() -> tuple[str, str, list[tuple[str, str]], int]:
    [snapshot] = open_snapshot_store().list_snapshots()
    return snapshot.id, snapshot.source, [(file.name, file.md5) for file in snapshot.files], snapshot.quarantined


def test_slices_read_by_several_are_the_day_that_one_reads(ask: Ask, read: list[int]) -> None:
    validated(ask)
    assert sorted(read) == list(range(SLICES))
    read.clear()
    ask("ingest", TASKS)
    assert read == []
    shared = published()
    ask("ingest", 1)
    assert published() == shared and shared[3] == 3
    ask("ingest", 1, slices=1)
    assert published()[:2] == shared[:2]  # the same rows in the same order, in other batches


CHANGES = [
    ('UPDATE {} SET "Income" = "Income" + 1 WHERE at = \'2026-08-02 12:00\'', [2]),
    ("UPDATE {} SET at = '2026-08-02 00:01' WHERE at = '2026-08-02 23:00'", [0, 4]),
    ("DELETE FROM {} WHERE at >= '2026-08-02 06:00' AND at < '2026-08-02 08:00'", [1]),
    ('ALTER TABLE {} ALTER "Age" TYPE int', list(range(SLICES))),
    ("UPDATE {} SET \"Home\" = '' WHERE at < '2026-08-02 01:00'", [0]),
]


@pytest.mark.parametrize(("change", "again"), CHANGES)
def test_a_slice_that_changed_since_it_was_read_is_read_again_and_no_other(
    ask: Ask, server: Database, read: list[int], change: str, again: list[int]
) -> None:
    validated(ask)
    with server.connect() as connection:
        connection.execute(change.format(TABLE))
    read.clear()
    sentences = []
    for tasks in (TASKS, 1):
        try:
            ask("ingest", tasks)
            sentences.append(str(published()))
        except DataRefused as refusal:
            sentences.append(str(refusal))
    assert read == [*again, *range(SLICES)]
    assert sentences[0] == sentences[1]


def test_all_slices_of_a_day_are_of_one_moment(ask: Ask, server: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that moves from the last slice to the first while the second is read is neither lost nor read twice."""
    fetched = Postgres.fetch_batches

    def overtaken(self: Postgres, connection: Any, span: Any, budget: Budget) -> Iterator[pa.RecordBatch]:
        if span == split_day(DAY, SLICES)[1]:
            with server.connect() as other:
                other.execute(f"UPDATE {TABLE} SET at = '2026-08-02 00:01' WHERE at = '2026-08-02 23:45'")
        yield from fetched(self, connection, span, budget)

    with monkeypatch.context() as patched:
        patched.setattr(Postgres, "fetch_batches", overtaken)
        ask("ingest", 1)
    one = published()
    ask("ingest", TASKS)
    assert one[0] != published()[0] and one[3] == published()[3]
    with server.connect() as connection:
        connection.execute(f"UPDATE {TABLE} SET at = '2026-08-02 23:45' WHERE at = '2026-08-02 00:01'")
    ask("ingest", 1, slices=1)
    assert published()[0] == one[0]


def test_a_slice_the_server_cannot_give_is_left_to_ingest(ask: Ask, server: Database) -> None:
    with server.connect() as connection:
        connection.execute(f"ALTER TABLE {TABLE} RENAME TO held")
        connection.execute(
            f'CREATE VIEW {TABLE} AS SELECT *, CASE WHEN at > \'2026-08-02 12:00\' THEN 1 / ("Age" - "Age") END bad'
            " FROM held"
        )
        connection.execute(f'ALTER VIEW {TABLE} RENAME COLUMN "Age" TO aged')
        connection.execute(f'ALTER VIEW {TABLE} RENAME COLUMN bad TO "Age"')
    try:
        told = [ask("validate", TASKS, **shard.params).outputs["refused"] for shard in list_shards(TASKS)]
        assert sum(told) == 3
        refusals = []
        for tasks in (TASKS, 1):
            with pytest.raises(DataRefused, match="division by zero") as refused:
                ask("ingest", tasks)
            refusals.append(str(refused.value))
        assert refusals[0] == refusals[1]
    finally:
        with server.connect() as connection:
            connection.execute(f"DROP VIEW {TABLE}")
            connection.execute(f"ALTER TABLE held RENAME TO {TABLE}")


def test_the_spans_of_a_day_follow_each_other_and_are_the_day() -> None:
    for count in (1, 2, 7, 96):
        found = split_day(DAY, count)
        assert len(found) == count and all(a[1] == b[0] for a, b in pairwise(found))
        assert found[0][0] == datetime(2026, 8, 2) and found[-1][1] == datetime(2026, 8, 3)
