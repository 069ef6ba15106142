"""One pass over the rows of a part of a day: which of them break which rule, and the sums the rules about the day need.

A row is marked by itself, so a day can be marked part by part and on several machines: marks are put one behind the
other, sums and counts are added. Sums of floats depend on the order of adding; it is always that of the rows inside a
part and then that of the parts, whoever marked them, so one machine and twenty find the same mean to the last bit.

What looks beyond a row (values that come twice, how many rows there are, the verdict) is left to who has the whole day.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import polars as pl
from polars import selectors

from include.data.core.contract import Expectation
from include.data.landing.landed_rows import LandedRows
from include.data.validation import column_casts
from include.data.validation.column_casts import ColumnCast

BATCH_ROWS = 131_072  # rows; one batch of 20 columns is some 20 MB


@dataclass(frozen=True)
class RowChecks:
    """`bad` has a column a rule about rows (named by its place in the list), true where a row breaks it.

    `sums` are (sum, values) of the columns whose mean is compared, `counts` the rows of each expected value.
    """

    bad: pl.DataFrame
    sums: Mapping[str, tuple[float, int]]
    counts: Mapping[str, Mapping[str, int]]
    has_nan: bool = False  # some cell is NaN, which is published as missing

    def dump(self) -> bytes:
        """One line of JSON, and the marks as an Arrow file."""
        head = json.dumps({"sums": self.sums, "counts": self.counts, "untidy": self.has_nan})
        file = io.BytesIO()
        self.bad.write_ipc(file, compression="zstd")
        return head.encode() + b"\n" + file.getvalue()


def load(dumped: bytes) -> RowChecks:
    head, _, file = dumped.partition(b"\n")
    head_fields = json.loads(head)
    sums = {name: (float(total), int(count)) for name, (total, count) in head_fields["sums"].items()}
    return RowChecks(pl.read_ipc(io.BytesIO(file)), sums, head_fields["counts"], head_fields["untidy"])


def read_batches(rows: LandedRows, columns: Sequence[ColumnCast]) -> Iterator[pl.DataFrame]:
    """These columns, at most `BATCH_ROWS` rows at a time."""
    return chain.from_iterable(read_parts(rows, columns))


def read_parts(rows: LandedRows, columns: Sequence[ColumnCast]) -> Iterator[Iterator[pl.DataFrame]]:
    """The same a part of the delivery."""
    names = [cell.name for cell in columns]
    for part in rows.read_fragments(names, BATCH_ROWS):
        yield (cast(pl.DataFrame, pl.from_arrow(batch)).select(names) for batch in part)


def check_rows(raws: Iterable[pl.DataFrame], casts: Sequence[ColumnCast], rules: Sequence[Expectation]) -> RowChecks:
    """Marks the rows of a part, delivered with the columns `there`."""
    marks = {
        str(n): told for n, rule in enumerate(rules) if (told := column_casts.build_row_check(rule, casts)) is not None
    }
    asked = [told.fill_null(False).alias(name) for name, told in marks.items()]
    found, totals, untidy = [], _Totals.build(rules, casts), False
    for raw in raws:
        typed = raw.select(expression for cell in casts for expression in cell.list_expressions())
        found.append(typed.select(asked) if asked else pl.DataFrame())
        totals.add(typed)
        untidy = untidy or _has_nan(raw)
    return RowChecks(pl.concat(found) if found else pl.DataFrame(), totals.sums, totals.counts, untidy)


def merge(parts: Sequence[RowChecks]) -> RowChecks:
    """The marks of a day from those of its parts, in their order; parts without rows say nothing."""
    bad = [part.bad for part in parts if part.bad.width]
    sums: dict[str, tuple[float, int]] = {}
    counts: dict[str, dict[str, int]] = {}
    for part in parts:
        for name, (total, count) in part.sums.items():
            before = sums.get(name, (0.0, 0))
            sums[name] = (before[0] + total, before[1] + count)
        for name, found in part.counts.items():
            _add(counts.setdefault(name, {}), found)
    ordered = {name: dict(sorted(found.items())) for name, found in counts.items()}
    return RowChecks(pl.concat(bad) if bad else pl.DataFrame(), sums, ordered, any(part.has_nan for part in parts))


def count_values(values: pl.Series) -> dict[str, int]:
    found = values.drop_nulls().value_counts()
    return dict(zip(found.to_series(0).to_list(), found.to_series(1).to_list(), strict=True))


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for value, count in more.items():
        counts[value] = counts.get(value, 0) + count


def _has_nan(raw: pl.DataFrame) -> bool:
    floats = raw.select(selectors.float().is_nan().any())
    return any(floats.row(0)) if floats.width else False


@dataclass
class _Totals:
    """Running sums and counts for the rules that compare a day with another one."""

    sums: dict[str, tuple[float, int]]
    counts: dict[str, dict[str, int]]
    expected: dict[str, tuple[str, ...]]

    @classmethod
    def build(cls, rules: Sequence[Expectation], casts: Sequence[ColumnCast]) -> _Totals:
        names = {cell.name for cell in casts}
        about = [rule for rule in rules if rule.column in names]
        means = {str(rule.column): (0.0, 0) for rule in about if rule.rule == "mean_shift"}
        mixes = {str(rule.column): tuple(rule.arguments["shares"]) for rule in about if rule.rule == "mix_shift"}
        return cls(means, {name: {} for name in mixes}, mixes)

    def add(self, typed: pl.DataFrame) -> None:
        for name, (total, count) in self.sums.items():
            self.sums[name] = (total + float(typed[name].sum()), count + typed[name].count())
        for name, values in self.expected.items():
            _add(self.counts[name], count_values(typed[name].filter(typed[name].is_in(list(values)))))
