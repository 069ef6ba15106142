"""Small days for tests of the store: rows as a Parquet file, and the description that goes with it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from include.adapters.content import read_content
from include.core.snapshots import Snapshot

DAY = date(2026, 8, 1)


def rows(*incomes: float | None) -> pa.Table:
    ids = [f"A{number}" for number in range(len(incomes))]
    return pa.table({"id": ids, "Income": pa.array(incomes, pa.float64()), "Home": ["own"] * len(incomes)})


def written(table: pa.Table, directory: Path, name: str = "accepted.parquet") -> Path:
    """A new file; one that was published must not be written again."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.unlink(missing_ok=True)
    pq.write_table(table, path)
    return path


def described(path: Path, day: date = DAY, known_on: date | None = None) -> Snapshot:
    content = read_content(path)
    return Snapshot(
        id=content.id,
        day=day,
        rows=content.rows,
        columns=content.columns,
        types=content.types,
        source="test",
        manifest="m",
        expectations=1,
        known_on=known_on,
    )
