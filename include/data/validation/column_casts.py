"""Cells as polars expressions: how a delivered column gets the type of its contract, and which rows break a rule.

A column arrives typed (Parquet, SQL) or as text (CSV). Either way it leaves as float64, text or a UTC time, and what
cannot be read as that is marked in a column beside it, so that a bad cell is a bad row and never a crash. NaN is
missing; an infinity is a value, and breaks the rule `finite`. A boolean is the number 0 or 1, or the category `true` or
`false`. Integers are no categories: a column that changed its type was changed by somebody, and is named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl
import pyarrow as pa

from include.data import row_rules
from include.data.core.contract import TIME_TEXT, ZONE_TEXT, Expectation, choose_label_kind
from include.data.spec import DataManifest

Kind = Literal["number", "integer", "category", "id", "timestamp"]
UTC_TIME = pl.Datetime("us", "UTC")
ARROW_TYPES: dict[str, pa.DataType] = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "category": pa.string(),
    "id": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
}
BROKEN_SUFFIX, UNZONED_SUFFIX = "\x00broken", "\x00unzoned"  # suffixes no column of a file carries


@dataclass(frozen=True)
class ColumnCast:
    """One column: its name, the kind its contract gives it (None: not declared) and the type it was delivered in."""

    name: str
    kind: Kind | None
    delivered: pa.DataType

    @property
    def arrow(self) -> pa.DataType:
        return ARROW_TYPES[self.kind] if self.kind else self.delivered

    @property
    def text(self) -> bool:
        kind = self.delivered.value_type if pa.types.is_dictionary(self.delivered) else self.delivered
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))

    @property
    def readable(self) -> bool:
        """Whether a column of this type can hold cells of this kind at all."""
        given = self.delivered
        boolean = pa.types.is_boolean(given)
        number = boolean or pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_decimal(given)
        fits = {
            "number": number,
            "integer": number,
            "category": boolean,
            "id": pa.types.is_integer(given),
            "timestamp": pa.types.is_timestamp(given),
        }
        return self.text or pa.types.is_null(given) or bool(self.kind and fits[self.kind])

    def build_cast(self) -> pl.Expr:
        """The column in the type of its contract; null where it is missing or cannot be read."""
        column = pl.col(self.name)
        if not self.readable:
            return pl.repeat(None, pl.len(), dtype=POLARS_TYPES[self.kind or "category"]).alias(self.name)
        match self.kind:
            case "number":
                return column.cast(pl.Float64, strict=False).fill_nan(None)
            case "integer":
                return _cast_to_integer(column.cast(pl.Float64, strict=False).fill_nan(None))
            case "timestamp":
                return _cast_to_time(column) if self.text else _convert_to_utc(column, self.delivered)
        return column.cast(pl.String)

    def list_expressions(self) -> Iterator[pl.Expr]:
        """The typed column, and beside it what a rule needs to know of the delivered one."""
        yield self.build_cast()
        if self.may_break:
            yield self._build_broken_flag().alias(self.name + BROKEN_SUFFIX)
        if self.kind == "timestamp":
            yield self._build_unzoned_flag().alias(self.name + UNZONED_SUFFIX)

    @property
    def may_break(self) -> bool:
        """Whether a cell can be delivered that is none of its kind; a float column holds numbers by its type."""
        return not self.readable or self.kind == "integer" or (self.text and self.kind in ("number", "timestamp"))

    def _build_broken_flag(self) -> pl.Expr:
        given = pl.col(self.name).is_not_null()
        if pa.types.is_floating(self.delivered):
            given = given & pl.col(self.name).is_not_nan()
        elif self.text and self.kind in ("number", "integer"):
            given = given & pl.col(self.name).cast(pl.Float64, strict=False).is_nan().fill_null(False).not_()
        return given & self.build_cast().is_null()

    def _build_unzoned_flag(self) -> pl.Expr:
        if self.text:
            return ~pl.col(self.name).cast(pl.String).str.contains(f"{ZONE_TEXT}$")
        zoned = pa.types.is_timestamp(self.delivered) and self.delivered.tz is not None
        return pl.when(pl.col(self.name).is_not_null()).then(pl.lit(not zoned))


POLARS_TYPES: dict[str, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "category": pl.String(),
    "id": pl.String(),
    "timestamp": UTC_TIME,
}


def list_casts(schema: pa.Schema, manifest: DataManifest) -> list[ColumnCast]:
    """The columns as they will be published: id, label, inputs, extras, then what nobody declared, as it came."""
    contract, label = manifest.contract, manifest.label
    kinds: dict[str, Kind] = {contract.id: "id", label.column: choose_label_kind(label)}
    kinds |= {name: spec.kind for name, spec in contract.declared.items()}
    known = [ColumnCast(name, kind, schema.field(name).type) for name, kind in kinds.items() if name in schema.names]
    return known + [ColumnCast(name, None, schema.field(name).type) for name in schema.names if name not in kinds]


def build_row_check(rule: Expectation, casts: Sequence[ColumnCast]) -> pl.Expr | None:
    """True where a row breaks `rule`; None when the rule is not about single rows, or its column is not there."""
    cells = {cell.name: cell for cell in casts}
    if rule.rule == "holds":
        return _build_rule_check(rule.arguments["check"], cells)
    if rule.column not in cells:
        return None
    cell, column, given = cells[rule.column], pl.col(rule.column), rule.arguments
    broken = pl.col(cell.name + BROKEN_SUFFIX) if cell.may_break else None
    match rule.rule:
        case "typed":
            return broken
        case "complete":
            return column.is_null() if broken is None else column.is_null() & ~broken
        case "finite":
            return column.is_infinite()
        case "in_range":
            return _build_range_check(column, given["min"], given["max"])
        case "in_set" | "known_values":
            return ~column.is_in(
                pl.Series(list(given["values"]), dtype=POLARS_TYPES[cell.kind or "category"]).implode()
            )
        case "matches":
            return ~column.str.contains(wrap_pattern(given["pattern"]))
        case "zoned":
            return (
                pl.col(cell.name + UNZONED_SUFFIX)
                if given["zone"] == "required"
                else ~pl.col(cell.name + UNZONED_SUFFIX)
            )
        case "in_day":
            return (column < pl.lit(given["since"], UTC_TIME)) | (column >= pl.lit(given["until"], UTC_TIME))
    return None


def wrap_pattern(pattern: str) -> str:
    """`pattern` for the whole of a cell."""
    return f"^(?:{pattern})$"


def hash_column(name: str) -> pl.Expr:
    """64 bits of each value, null where there is none: enough to find the few candidates for a repeated value."""
    return pl.when(pl.col(name).is_not_null()).then(pl.col(name).hash(seed=0)).alias(name)


def convert_to_text(cell: ColumnCast) -> pl.Expr:
    """The delivered cell as text. What has no text of its own (bytes, durations) is shown as Python prints it."""
    given = cell.delivered
    plain = cell.text or pa.types.is_primitive(given) or pa.types.is_decimal(given) or pa.types.is_null(given)
    plain = plain and not pa.types.is_duration(given)
    column = pl.col(cell.name)
    return column.cast(pl.String, strict=False) if plain else column.map_elements(str, return_dtype=pl.String)


def _build_range_check(column: pl.Expr, low: float | None, high: float | None) -> pl.Expr:
    below = column < low if low is not None else pl.lit(False)
    return below | (column > high) if high is not None else below


def _build_rule_check(check: str, cells: dict[str, ColumnCast]) -> pl.Expr | None:
    tree = row_rules.parse(check)
    named = row_rules.list_columns(tree)
    if any(name not in cells for name in named):
        return None
    numbers = [name for name in named if cells[name].kind in ("number", "integer")]
    judged = pl.all_horizontal(
        *(pl.col(name).is_not_null() for name in named), *(pl.col(name).is_finite() for name in numbers)
    )
    holds: pl.Expr = row_rules.evaluate(tree, pl.col)
    return judged & ~holds


def _cast_to_integer(column: pl.Expr) -> pl.Expr:
    """Whole numbers as such, null for any other."""
    return pl.when(column.is_finite() & (column == column.floor())).then(column).cast(pl.Int64, strict=False)


def _cast_to_time(column: pl.Expr) -> pl.Expr:
    """ISO 8601 text as UTC. A time without an offset counts as UTC; whether that is allowed is another rule."""
    text = column.cast(pl.String)
    text = pl.when(text.str.contains(f"^(?:{TIME_TEXT})$")).then(text.str.replace(" ", "T", literal=True))
    text = text.str.replace(r"([+-]\d{2})$", "${1}:00").str.replace(r"([+-]\d{2})(\d{2})$", "${1}:${2}")
    zoned = pl.when(text.str.contains(f"{ZONE_TEXT}$")).then(text).otherwise(text + "Z")
    return zoned.str.replace("Z$", "+00:00").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)


def _convert_to_utc(column: pl.Expr, delivered: pa.DataType) -> pl.Expr:
    if pa.types.is_null(delivered):
        return column.cast(UTC_TIME)
    moment = column.dt.cast_time_unit("us")
    return moment.dt.convert_time_zone("UTC") if delivered.tz else moment.dt.replace_time_zone("UTC")
