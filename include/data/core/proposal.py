"""A first contract from a sample: what was seen, with room around it, as YAML a person edits.

A sample is no contract: it shows neither what is impossible nor what is rare. So ranges are wider than what was seen
(zero stays a lower end), shares of missing values are doubled, and every line says what it was taken from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from include.data.core.contract import shown
from include.kernel.errors import RequestInvalid

LISTED = 20  # a category with more values than this is left open
LABELS = ("label", "target", "outcome", "status", "class", "y")


@dataclass(frozen=True)
class Seen:
    """One column of the sample; `values` in the order of their frequency, at most LISTED and one more."""

    name: str
    kind: Literal["number", "category", "timestamp", "unusable"]
    missing: float
    distinct: int
    low: float = 0.0
    high: float = 0.0
    values: tuple[str, ...] = ()


def propose(seen: Sequence[Seen], rows: int, label: str | None, source: str) -> str:
    """The `contract` section as YAML with comments. Raises `RequestInvalid` when it finds no id or no label."""
    truth = _label(seen, label)
    key = _id([column for column in seen if column.name != truth], rows)
    rest = [column for column in seen if column.name not in (key, truth)]
    inputs = [column for column in rest if _is_input(column, rows)]
    extras = [column for column in rest if column not in inputs and column.kind != "unusable"]
    lines = [
        f"# Proposed from {shown(source)}, {rows} rows.",
        "# Read every line: a sample shows neither what is impossible nor what is rare.",
        "contract:",
        f"  id: {_flow(key)}",
        f"  rows: {{min: {max(1, rows // 5)}, max: {rows * 5}}}   # {rows} seen",
        "  max_quarantined: 0.01",
        "  columns:",
        *(_line(column) for column in inputs),
    ]
    lines += ["  extras:   # kept under contract, no inputs of the model", *map(_line, extras)] if extras else []
    unusable = [f"  # {shown(column.name)} is left out: nothing usable was seen in it" for column in rest]
    lines += [line for line, column in zip(unusable, rest, strict=True) if column.kind == "unusable"]
    return "\n".join([*lines, f"# The label is {shown(truth)}; say in the label section which class is positive.", ""])


def _id(seen: Sequence[Seen], rows: int) -> str:
    unique = [column for column in seen if column.distinct == rows and not column.missing and _names_rows(column)]
    named = sorted(unique, key=lambda column: "id" not in column.name.lower())
    if not named:
        raise RequestInvalid("No column of the sample is unique and complete; deliver one that names the rows.")
    return named[0].name


def _names_rows(column: Seen) -> bool:
    return column.kind == "category" or (column.kind == "number" and "id" in column.name.lower())


def _label(seen: Sequence[Seen], asked: str | None) -> str:
    names = [column.name for column in seen]
    if asked and asked in names:
        return asked
    found = [name for name in names if name.lower() in LABELS]
    if asked or not found:
        raise RequestInvalid(
            f"The sample has no label column{f' {asked!r}' if asked else ' that could be guessed'}; "
            f"name one of {', '.join(map(shown, names))} by LABEL=."
        )
    return found[0]


def _is_input(column: Seen, rows: int) -> bool:
    """A text that hardly ever comes twice is a note or a name, and no model learns from it."""
    if column.kind == "category":
        return column.distinct <= max(LISTED, rows // 2)
    return column.kind == "number"


def _line(column: Seen) -> str:
    spec: dict[str, Any] = {"kind": column.kind}
    told = f"{column.distinct} different values"
    if column.kind == "number":
        spec |= {"min": lower(column.low, column.high), "max": upper(column.low, column.high)}
        told = f"{column.low:g} to {column.high:g}"
    elif column.kind == "category" and column.distinct <= LISTED:
        spec["values"] = list(column.values)
    if column.missing:
        spec["max_missing"] = room_for(column.missing)
        told += f", {column.missing:.1%} missing"
    return f"    {_flow(column.name)}: {_flow(spec)}   # {told}"


def room_for(share: float) -> float:
    """Twice the share of missing values that was seen, rounded up to five hundredths."""
    return min(1.0, math.ceil(round(share * 40, 9)) / 20)


def lower(low: float, high: float) -> float:
    """Zero when nothing below it was seen; else as far below as the values reach, in a round number."""
    return 0.0 if low >= 0 else -_round_up(-low + (high - low))


def upper(low: float, high: float) -> float:
    room = high + (high - min(low, 0.0)) if high > 0 else 0.0
    return _round_up(room) if room > 0 else 0.0


def _round_up(value: float) -> float:
    """To the next 1, 2 or 5 times a power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 0.0
    base = 10.0 ** math.floor(math.log10(value))
    return next(base * step for step in (1, 2, 5, 10, 20) if base * step >= value)


def _flow(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )
