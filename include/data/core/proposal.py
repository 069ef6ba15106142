"""A first contract from a sample: what was seen, with room around it, as YAML a person edits.

A sample is no contract: it shows neither what is impossible nor what is rare. So ranges are wider than what was seen
(zero stays a lower end), shares of missing values are doubled, and every line says what it was taken from.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from include.data.core.contract import quote_cell
from include.kernel.errors import RequestInvalid

MAX_LISTED_VALUES = 20  # a category with more values than this is left open
LABEL_NAMES = ("label", "target", "outcome", "status", "class", "y")


@dataclass(frozen=True)
class ColumnProfile:
    """One column of the sample; `values` in the order of their frequency, at most LISTED and one more."""

    name: str
    kind: Literal["number", "category", "timestamp", "unusable"]
    missing: float
    distinct: int
    low: float = 0.0
    high: float = 0.0
    whole: bool = False  # whether all numbers are whole ones
    values: tuple[str, ...] = ()


def propose(columns: Sequence[ColumnProfile], rows: int, label: str | None, source: str) -> str:
    """The `contract` section as YAML with comments. Raises `RequestInvalid` when it finds no id or no label."""
    truth = _choose_label(columns, label)
    key = _choose_id([column for column in columns if column.name != truth], rows)
    rest = [column for column in columns if column.name not in (key, truth)]
    inputs = [column for column in rest if _is_input(column, rows)]
    extras = [column for column in rest if column not in inputs and column.kind != "unusable"]
    lines = [
        f"# Proposed from {quote_cell(source)}, {rows} rows.",
        "# Read every line: a sample shows neither what is impossible nor what is rare.",
        "contract:",
        f"  id: {_render_flow(key)}",
        f"  rows: {{min: {max(1, rows // 5)}, max: {rows * 5}}}   # {rows} seen",
        "  max_quarantined: 0.01",
        "  columns:",
        *(_render_column(column) for column in inputs),
    ]
    lines += (
        ["  extras:   # kept under contract, no inputs of the model", *map(_render_column, extras)] if extras else []
    )
    unusable = [f"  # {quote_cell(column.name)} is left out: nothing usable was seen in it" for column in rest]
    lines += [line for line, column in zip(unusable, rest, strict=True) if column.kind == "unusable"]
    return "\n".join(
        [*lines, f"# The label is {quote_cell(truth)}; say in the label section which class is positive.", ""]
    )


def _choose_id(columns: Sequence[ColumnProfile], rows: int) -> str:
    unique = [column for column in columns if column.distinct == rows and not column.missing and _can_name_rows(column)]
    named = sorted(unique, key=lambda column: (not _is_named_id(column.name), column.kind != "category"))
    if not named:
        raise RequestInvalid("No column of the sample is unique and complete; deliver one that names the rows.")
    return named[0].name


def _can_name_rows(column: ColumnProfile) -> bool:
    return column.kind == "category" or column.whole


def _is_named_id(name: str) -> bool:
    """Whether `id` or `key` stands in the name as a word of its own: customer_id, customerId, ID; not width."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return any(word.lower() in ("id", "ids", "key", "uuid") for word in words)


def _choose_label(columns: Sequence[ColumnProfile], requested: str | None) -> str:
    names = [column.name for column in columns]
    if requested and requested in names:
        return requested
    found = [name for name in names if name.lower() in LABEL_NAMES]
    if requested or not found:
        raise RequestInvalid(
            f"The sample has no label column{f' {requested!r}' if requested else ' that could be guessed'}; "
            f"name one of {', '.join(map(quote_cell, names))} by LABEL=."
        )
    return found[0]


def _is_input(column: ColumnProfile, rows: int) -> bool:
    """A text that hardly ever comes twice is a note or a name, and no model learns from it."""
    if column.kind == "category":
        return column.distinct <= max(MAX_LISTED_VALUES, rows // 2)
    return column.kind == "number"


def _render_column(column: ColumnProfile) -> str:
    spec: dict[str, Any] = {"kind": column.kind}
    told = f"{column.distinct} different values"
    if column.kind == "number":
        spec |= {
            "min": compute_lower_bound(column.low, column.high),
            "max": compute_upper_bound(column.low, column.high),
        }
        told = f"{column.low:g} to {column.high:g}"
    elif column.kind == "category" and column.distinct <= MAX_LISTED_VALUES:
        spec["values"] = list(column.values)
    if column.missing:
        spec["max_missing"] = compute_max_missing(column.missing)
        told += f", {column.missing:.1%} missing"
    return f"    {_render_flow(column.name)}: {_render_flow(spec)}   # {told}"


def compute_max_missing(share: float) -> float:
    """Twice the share of missing values that was seen, rounded up to five hundredths."""
    return min(1.0, math.ceil(round(share * 40, 9)) / 20)


def compute_lower_bound(low: float, high: float) -> float:
    """Zero when nothing below it was seen; else as far below as the values reach, in a round number."""
    return 0.0 if low >= 0 else -_round_up(-low + (high - low))


def compute_upper_bound(low: float, high: float) -> float:
    room = high + (high - min(low, 0.0)) if high > 0 else 0.0
    return _round_up(room) if room > 0 else 0.0


def _round_up(value: float) -> float:
    """To the next 1, 2 or 5 times a power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 0.0
    base = 10.0 ** math.floor(math.log10(value))
    return next(base * step for step in (1, 2, 5, 10, 20) if base * step >= value)


def _render_flow(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )
