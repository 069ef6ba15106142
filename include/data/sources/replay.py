"""The replay: the rows of one shipped file, dealt without replacement and in a seeded order into days of the past.

The rows are real; the ids and the days are ours. All days lie wholly in the past, so that unpausing a DAG ingests
nothing by itself. A scenario changes later days openly: only a person who asks for it by name gets one, and its name
goes into the snapshot's description. The whole file is held in memory, which suits an example and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING

from include.data.sources.base import MAX_BATCH_ROWS, Source, WholeDay, resolve_path
from include.data.spec import ReplaySource
from include.kernel.errors import DataRefused, RequestInvalid

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from include.data.sources.base import Budget


class Replay(Source):
    def __init__(self, spec: ReplaySource, id_column: str, scenario: str | None = None) -> None:
        """Raises `RequestInvalid` when there is no such scenario."""
        self._spec = spec
        self._id_column = id_column
        self._scenario = scenario or ""
        self._change = _choose_scenario(scenario)

    def list_parts(self, day: date) -> list[WholeDay]:
        return [WholeDay(self._spec.path, lambda budget: self._read_day(day))]

    def make_budget(self) -> Budget:
        from include.data.sources.base import Budget

        return Budget(math.inf)  # the file is the project's own

    def _read_day(self, day: date) -> Iterator[pa.RecordBatch]:
        rows = self._deal(day)
        if rows is not None:
            yield from _convert_to_arrow(rows).to_batches(max_chunksize=MAX_BATCH_ROWS)

    def describe(self, day: date) -> str:
        scenario = f"?scenario={self._scenario}" if self._scenario else ""
        return f"replay:{self._spec.path}{scenario}"

    def _deal(self, day: date) -> pl.DataFrame | None:
        import numpy as np
        import polars as pl

        index = (day - self._spec.first_day).days
        rows = self._read()
        if not 0 <= index < self._spec.days:
            return None
        order = np.random.default_rng(self._spec.seed).permutation(len(rows))
        dealt = self._change(rows[np.array_split(order, self._spec.days)[index]])
        ids = [f"A{day:%Y%m%d}-{number:04d}" for number in range(len(dealt))]
        return dealt.insert_column(0, pl.Series(self._id_column, ids, dtype=pl.String))

    def _read(self) -> pl.DataFrame:
        import polars as pl

        path = resolve_path(self._spec.path)
        try:
            return pl.read_csv(path, infer_schema_length=None, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            cause = str(error).splitlines()[0]
            raise DataRefused(f"{path} cannot be read ({cause}); set source.path to the replay's file.") from error


def _convert_to_arrow(rows: pl.DataFrame) -> pa.Table:
    from polars import CompatLevel

    table = rows.to_arrow(compat_level=CompatLevel.oldest())
    return table.cast(_flatten_schema(table.schema))


def _flatten_schema(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    large = pa.large_string()
    return pa.schema([field.with_type(pa.string()) if field.type == large else field for field in schema])


def _keep_rows(rows: pl.DataFrame) -> pl.DataFrame:
    return rows


def _apply_new_market(rows: pl.DataFrame) -> pl.DataFrame:
    """Loans grow by a third, and three relations turn round: seniority, income and records now speak the other way.

    Mirroring a column's values keeps every row's outcome and changes what the column says about it, so a model that
    learned the old relation cannot rank these applicants.
    """
    import polars as pl

    return rows.with_columns(
        Amount=(pl.col("Amount") * 1.35).round(),
        Price=(pl.col("Price") * 1.35).round(),
        Seniority=48 - pl.col("Seniority"),
        Income=(30_000 / pl.col("Income").clip(lower_bound=40)).round(),
        Records=pl.col("Records").replace({"yes": "no", "no": "yes"}),
    )


SCENARIOS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {"new_market": _apply_new_market}


def _choose_scenario(name: str | None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    if not name:
        return _keep_rows
    if name not in SCENARIOS:
        raise RequestInvalid(f"There is no scenario {name!r}; choose one of {', '.join(SCENARIOS)} or leave it empty.")
    return SCENARIOS[name]
