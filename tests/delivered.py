"""Small days for tests: as a source delivers them, as a Parquet file, and with the description that goes with it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from include.data.core.snapshots import Snapshot
from include.data.sources.open import open_source
from include.data.store.content import read_content
from include.manifest import Manifest

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


def read_day(manifest: Manifest, day: date, scenario: str | None = None) -> pd.DataFrame:
    """The rows of `day` from the manifest's source as one DataFrame; text that holds nothing but numbers is numbers."""
    batches = list(open_source(manifest, scenario).read_batches(day))
    frame: pd.DataFrame = pa.Table.from_batches(batches).to_pandas() if batches else pd.DataFrame()
    for name in frame.columns.intersection(list(manifest.contract.columns)):
        if manifest.contract.columns[name].kind == "number":
            frame[name] = _numbers(frame[name])
    return frame


def _numbers(column: pd.Series) -> pd.Series:
    try:
        return pd.to_numeric(column)
    except (TypeError, ValueError):
        return column
