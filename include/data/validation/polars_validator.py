"""Runs the contract on a landed day with polars, batch by batch, and writes what may be published.

The file is read twice at most. The first pass turns every rule about rows into one bit a row, so a day of any size
costs a batch plus a few bits a row in memory; it goes part by part, and what another machine has marked is not read
again. The second writes the accepted rows and the quarantine, and only when a cell has to change or a row to go. A
refused day writes nothing. The verdict stays in `include.data.core.contract`; Great Expectations runs the same list on
a data frame and is the oracle this module is tested against.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from include.data import row_rules
from include.data.core import contract as contracts
from include.data.core.contract import Expectation, Outcome, Reference, Validation
from include.data.landing.landed_rows import LandedRows
from include.data.spec import DataManifest
from include.data.validation import column_casts, duplicates, quarantine_page, row_checks
from include.data.validation.column_casts import ColumnCast
from include.data.validation.row_checks import RowChecks
from include.kernel.errors import ManifestInvalid
from include.kernel.files import link_or_copy

EXAMPLE_CANDIDATES = 20  # bad rows a rule looks at for the examples it names
ACCEPTED, QUARANTINE, PAGE = "accepted.parquet", "quarantine.parquet", "quarantine.html"


@dataclass(frozen=True)
class LandedDay:
    """Landed rows under their contract."""

    landed: LandedRows
    casts: list[ColumnCast]
    rules: list[Expectation]

    @property
    def rows(self) -> int:
        return self.landed.count

    @property
    def declared(self) -> list[ColumnCast]:
        return [cell for cell in self.casts if cell.kind]

    def read_batches(self, columns: Sequence[ColumnCast]) -> Iterator[pl.DataFrame]:
        return row_checks.read_batches(self.landed, columns)


@dataclass(frozen=True)
class Measurement:
    """What one pass found: `marks` has a column a rule about rows (named by its place in the list), true where bad."""

    broken: pl.DataFrame
    means: Mapping[str, float]
    counts: Mapping[str, Mapping[str, int]]
    has_nan: bool = False  # some cell is NaN, which is published as missing

    def count_bad(self, number: int) -> int:
        name = str(number)
        return int(self.broken[name].sum()) if name in self.broken.columns else 0

    def list_first(self, number: int) -> list[int]:
        """Places, from 0, of the first rows that break a rule."""
        return self.broken[str(number)].arg_true().head(EXAMPLE_CANDIDATES).to_list()


def validate(
    landed: Path | LandedRows,
    manifest: DataManifest,
    day: date,
    *,
    directory: Path,
    reference: Path | Reference | None = None,
    published: Sequence[Path] = (),
    place: str | None = None,
    checks: Sequence[RowChecks | None] = (),
) -> Validation:
    """The verdict on the landed rows (Parquet); accepted and quarantined rows become files in `directory`.

    `reference` is the snapshot of an earlier day to compare with, or what `summarise` made of it; `published` are those
    whose ids must not come again, `place` names the delivery in a refusal, `marks` are those that somebody has made of
    fragments of `landed`, None for those still to be made. Nothing is written for a refused day.
    """
    known = summarise(reference, manifest) if isinstance(reference, Path) else reference
    rows = LandedRows.build_from_file(landed) if isinstance(landed, Path) else landed
    landed_day = _open_day(rows, manifest, day, known, bool(published))
    measured = _measure(landed_day, checks or [None] * len(rows.fragments))
    measured = _mark_duplicates(landed_day, measured, published)
    outcomes = tuple(_build_outcome(landed_day, measured, number) for number in range(len(landed_day.rules)))
    bad = _mark_bad_rows(landed_day, measured)
    refusal = contracts.judge_day(
        outcomes, landed_day.rows, int(bad.sum()), manifest, place or f"The delivery of {day}"
    )
    if refusal:
        return Validation(outcomes, landed_day.rows, 0, None, None, refusal, contracts.list_warnings(outcomes))
    return _write_rows(landed_day, measured, bad, outcomes, day, directory)


def _open_day(landed: LandedRows, manifest: DataManifest, day: date, known: Reference | None, dated: bool) -> LandedDay:
    rules = list_rules(manifest, day, known, dated, landed.count)
    return LandedDay(landed, column_casts.list_casts(landed.schema, manifest), rules)


def list_rules(
    manifest: DataManifest, day: date, known: Reference | None, dated: bool, rows: int = 0
) -> list[Expectation]:
    """Every rule for `day`; `dated`: whether ids of earlier days must not come again.

    Only the bounds of the rules about the whole day depend on how many `rows` it has. Raises `ManifestInvalid`.
    """
    contract = manifest.contract
    rules = contracts.list_expectations(contract, manifest.label) + contracts.list_event_time_rules(contract, day)
    rules += [Expectation("new_id", contract.id)] if dated else []
    rules += contracts.list_reference_rules(contract, known, rows)
    _check_patterns(rules)
    return rules


def _check_patterns(rules: Sequence[Expectation]) -> None:
    """The manifest has seen that Python reads a pattern; the engine has a grammar of its own."""
    for rule in rules:
        if rule.rule == "matches":
            try:
                pl.Series([""]).str.contains(column_casts.wrap_pattern(rule.arguments["pattern"]))
            except pl.exceptions.ComputeError as error:
                why = " ".join(str(error).split())[:200]
                raise ManifestInvalid(f"contract: the pattern of {rule.column!r} cannot be used ({why}).") from error


def summarise(reference: Path, manifest: DataManifest) -> Reference | None:
    """Moments of the numbers and counts of the categories of an earlier day, as far as the contract compares them."""
    contract, lazy = manifest.contract, pl.scan_parquet(reference, glob=False)
    there = set(lazy.collect_schema().names())
    specs = {name: spec for name, spec in contract.columns.items() if name in there}
    numbers = [name for name, spec in specs.items() if spec.kind == "number" and contract.shift]
    texts = [name for name, spec in specs.items() if spec.kind == "category" and (contract.shift or not spec.values)]
    moments = {name: _compute_moments(lazy, name) for name in numbers}
    counts = {
        name: row_checks.count_values(lazy.select(name).collect(engine="streaming").to_series()) for name in texts
    }
    return Reference({name: found for name, found in moments.items() if found[2]}, counts)


def _compute_moments(lazy: pl.LazyFrame, name: str) -> tuple[float, float, int]:
    column = pl.col(name)
    asked = lazy.select(column.mean().alias("mean"), column.std().alias("sd"), column.count().alias("n"))
    mean, deviation, count = asked.collect(engine="streaming").row(0)
    return float(mean or 0.0), float(deviation or 0.0), int(count)


def _measure(day: LandedDay, checks: Sequence[RowChecks | None]) -> Measurement:
    """Marks what nobody has marked yet, and puts all parts together."""
    parts = zip(checks, row_checks.read_parts(day.landed, day.declared), strict=True)
    found = [known or row_checks.check_rows(part, day.declared, day.rules) for known, part in parts]
    all_of = row_checks.merge(found)
    means = {name: total / count for name, (total, count) in all_of.sums.items() if count}
    return Measurement(all_of.bad, means, all_of.counts, all_of.has_nan)


def _mark_duplicates(day: LandedDay, measured: Measurement, published: Sequence[Path]) -> Measurement:
    """Adds the marks of the rules about repeated values, which no single batch can see."""
    found: list[pl.Series] = []
    for number, rule in enumerate(day.rules):
        cell = next((cell for cell in day.declared if cell.name == rule.column), None)
        if cell and rule.rule == "unique":
            found.append(duplicates.mark_within(day.landed, cell).alias(str(number)))
        elif cell and rule.rule == "new_id":
            found.append(duplicates.mark_across(day.landed, cell, published).alias(str(number)))
    return replace(measured, broken=measured.broken.with_columns(found))


def _build_outcome(day: LandedDay, measured: Measurement, number: int) -> Outcome:
    rule, names = day.rules[number], {cell.name for cell in day.casts}
    match rule.rule:
        case "row_count":
            enough = rule.arguments["min"] <= day.rows <= rule.arguments["max"]
            return Outcome(rule, enough, str(day.rows))
        case "declared":
            unknown = [cell.name for cell in day.casts if not cell.kind]
            return Outcome(rule, not unknown, ", ".join(map(contracts.quote_cell, unknown)), len(unknown))
        case "exists":
            there = rule.column in names
            observed = "" if there else contracts.describe_missing_column(str(rule.column), day.landed.schema.names)
            return Outcome(rule, there, observed)
        case "mean_shift" | "mix_shift":
            return _judge_shift(rule, measured, names)
    bad = measured.count_bad(number)
    passed = bad == 0 if rule.about_rows else bad <= rule.arguments["max_missing"] * day.rows + 1e-9
    return Outcome(rule, passed, _describe_bad(day, measured, number, bad) if not passed else "", bad)


def _judge_shift(rule: Expectation, measured: Measurement, names: set[str]) -> Outcome:
    name, given = str(rule.column), rule.arguments
    if rule.rule == "mix_shift" and name not in names:
        return Outcome(rule, True)  # a missing column is named by another rule
    if rule.rule == "mix_shift":
        far = contracts.compute_divergence(measured.counts.get(name, {}), given["shares"])
        return Outcome(rule, far <= given["max"], f"{far:.4g}")
    if name not in measured.means:
        return Outcome(rule, name not in names, "no value")
    mean = measured.means[name]
    return Outcome(rule, given["min"] <= mean <= given["max"], f"{mean:.6g}")


def _describe_bad(day: LandedDay, measured: Measurement, number: int, bad: int) -> str:
    """How many rows, which, and what they hold, as delivered."""
    rule, places = day.rules[number], measured.list_first(number)
    names = (
        row_rules.list_columns(row_rules.parse(rule.arguments["check"])) if rule.rule == "holds" else [str(rule.column)]
    )
    rows = _read_rows(day, places, names)
    examples = [
        ", ".join(map(contracts.quote_cell, row)) for row in rows.rows() if any(cell is not None for cell in row)
    ]
    numbers = [place + 1 for place in places]
    told = contracts.describe_bad_rows(bad, day.rows, numbers, list(dict.fromkeys(examples)))
    cell = next((cell for cell in day.declared if cell.name == rule.column), None)
    if rule.rule == "typed" and cell:
        told += contracts.describe_type(rule.arguments["kind"], None if cell.readable else str(cell.delivered))
    return told


def _read_rows(day: LandedDay, places: Sequence[int], names: Sequence[str]) -> pl.DataFrame:
    """These rows as delivered, each cell as text, read batch by batch until the last of them has come."""
    asked, parts, began = [cell for cell in day.casts if cell.name in names], [], 0
    for raw in day.read_batches(asked):
        inside = [place - began for place in places if began <= place < began + raw.height]
        parts.append(raw[inside].select(map(column_casts.convert_to_text, asked)))
        began += raw.height
        if not places or began > max(places):
            break
    return pl.concat(parts)


def _mark_bad_rows(day: LandedDay, measured: Measurement) -> pl.Series:
    """One flag a row: it breaks a critical rule about rows."""
    critical = [
        str(n)
        for n, rule in enumerate(day.rules)
        if rule.about_rows and rule.severity == "critical" and str(n) in measured.broken.columns
    ]
    if not critical:
        return pl.repeat(False, day.rows, eager=True)
    return measured.broken.select(pl.any_horizontal(critical)).to_series()


def _write_rows(
    day: LandedDay, measured: Measurement, bad: pl.Series, outcomes: tuple[Outcome, ...], on: date, directory: Path
) -> Validation:
    warnings, aside, accepted = contracts.list_warnings(outcomes), int(bad.sum()), directory / ACCEPTED
    accepted.unlink(missing_ok=True)
    schema = pa.schema([pa.field(cell.name, cell.arrow) for cell in day.casts])
    if schema.equals(day.landed.schema) and not measured.has_nan and not aside:
        link_or_copy(day.landed.ensure_file(directory), accepted)  # it is already what it should be
        return Validation(outcomes, day.rows, 0, accepted, None, None, warnings)
    rows = _split_rows(day, measured, bad, schema, accepted)
    if rows is None:
        return Validation(outcomes, day.rows, 0, accepted, None, None, warnings)
    pq.write_table(rows.to_arrow(), directory / QUARANTINE)  # a full disk is an OSError here, and not so in polars
    page = quarantine_page.write(directory / PAGE, on, rows.columns, rows.head(quarantine_page.MAX_ROWS).rows(), aside)
    return Validation(outcomes, day.rows, aside, accepted, directory / QUARANTINE, None, warnings, page)


def _split_rows(
    day: LandedDay, measured: Measurement, bad: pl.Series, schema: pa.Schema, accepted: Path
) -> pl.DataFrame | None:
    """Writes the rows that may be published; the others come back, since they are few."""
    texts = [cell.name for cell in day.casts if pa.types.is_string(cell.arrow)]
    parts, began = [], 0
    with pq.ParquetWriter(accepted, schema, compression="snappy", use_dictionary=texts) as writer:
        for raw in day.read_batches(day.casts):
            flags, marks = bad[began : began + raw.height], measured.broken[began : began + raw.height]
            kept = raw.filter(~flags) if flags.any() else raw
            typed = kept.select(cell.build_cast() if cell.kind else pl.col(cell.name) for cell in day.casts)
            writer.write_table(typed.to_arrow().cast(schema))
            if kept is not raw:
                parts.append(
                    _build_quarantine(day, raw.filter(flags), marks.filter(flags), flags.arg_true() + began + 1)
                )
            began += raw.height
    return pl.concat(parts) if parts else None


def _build_quarantine(day: LandedDay, raw: pl.DataFrame, marks: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """(row_number, reasons, every delivered cell as text) of bad rows; row 1 is the first row of data."""
    texts = raw.select(map(column_casts.convert_to_text, day.casts))
    taken: dict[str, str] = {name: f"delivered {name}" for name in ("row_number", "reasons") if name in texts.columns}
    ours = [numbers.cast(pl.Int64).alias("row_number"), _list_reasons(day, marks)]
    return texts.rename(taken).select(*ours, pl.all())


def _list_reasons(day: LandedDay, marks: pl.DataFrame) -> pl.Series:
    told = [
        pl.when(pl.col(name)).then(pl.lit(contracts.explain_bad_row(day.rules[int(name)])))
        for name in marks.columns
        if day.rules[int(name)].about_rows
    ]
    return marks.select(pl.concat_list(told).list.drop_nulls().alias("reasons")).to_series()
