"""The list of bad input: what arrives, and what the one sentence about it must say.

A case damages a good day. It must end with the exit code and the kind of error that say whether trying again is worth
it, and its sentence must name the file (or object, or table), the column or row where there is one, and the fix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pyarrow as pa

from tests.proofs.delivery import ARROW, DAY, Row, as_csv, as_parquet, rows_of

FILE = f"{DAY}.csv"
PARQUET = f"{DAY}.parquet"
WHOLE = "deliver the file again, whole"
BROKEN = "of the contract and was not published"
FIX = "Fix the delivery, or the contract section of the manifest"


@dataclass(frozen=True)
class Case:
    name: str
    content: Callable[[], bytes]
    told: tuple[str, ...]
    suffix: str = "csv"
    exit: int = 65
    kind: str = "DataRefused"
    contract: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    peak_mib: float = 1228.8  # the bound on memory, 1.2 GiB
    good: Callable[[], bytes] | None = None  # the delivery that mends it, where the usual one would not


def changed(number: int, **cells: Any) -> list[Row]:
    rows = rows_of()
    rows[number] |= cells
    return rows


def everywhere(**cells: Any) -> list[Row]:
    return [row | cells for row in rows_of()]


def renamed(old: str, new: str) -> list[Row]:
    return [{new if name == old else name: value for name, value in row.items()} for row in rows_of()]


def without(*columns: str) -> list[Row]:
    return [{name: value for name, value in row.items() if name not in columns} for row in rows_of()]


def text(content: str | bytes, old: str, new: str, count: int = 1) -> bytes:
    whole = content if isinstance(content, str) else content.decode()
    assert old in whole
    return whole.replace(old, new, count).encode()


def retyped(name: str, kind: pa.DataType) -> pa.Schema:
    return ARROW.set(ARROW.get_field_index(name), pa.field(name, kind))


def zoneless() -> bytes:
    return as_csv([row | {"at": f"{row['at']:%Y-%m-%d %H:%M:%S}"} for row in rows_of()])


def flipped() -> bytes:
    """One bit of a page, in a file whose writer left checksums."""
    raw = bytearray(as_parquet(rows_of(), write_page_checksum=True, compression="none"))
    raw[raw.index(b"C0803-1-00042")] ^= 1
    return bytes(raw)


def text_bomb() -> bytes:
    """A hundred gigabytes of text, said once."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000), pa.array(["x" * 100_000]))
    return _table(pa.table({"plan": texts}))


def row_bomb() -> bytes:
    """Fifty million rows of nothing in a few hundred bytes."""
    return _table(pa.table({name: pa.nulls(50_000_000, pa.float64()) for name in ("tenure", "spend")}))


def _table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    import pyarrow.parquet as pq

    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def good() -> bytes:
    return as_csv(rows_of())


def cut(content: bytes, keep: float) -> bytes:
    return content[: int(len(content) * keep)]


FILES = [
    Case("zero-byte CSV", lambda: b"", (FILE, "is empty (0 bytes)", WHOLE)),
    Case("cut-off last line", lambda: good()[:-9], (FILE, "its last line has no end, so it was cut off", WHOLE)),
    Case(
        "cut off inside quotation marks",
        lambda: good() + b'C,"2026-08-03T01:00:00Z\n',
        (FILE, "a quotation mark in row 102 is never closed", WHOLE),
    ),
    Case(
        "header shifted: a name is missing",
        lambda: text(good(), "customer,", ""),
        (FILE, "row 2 has 6 cells, but its header has 5; the header, row 1, seems to be shifted"),
    ),
    Case(
        "header shifted: a title above it",
        lambda: b"Customers of today\n" + good(),
        (FILE, "row 2 has 6 cells, but its header has 1; the header, row 1, seems to be shifted"),
    ),
    Case(
        "header shifted: names moved by one column",
        lambda: text(good(), "customer,at,tenure,plan,spend,outcome", "at,tenure,plan,spend,outcome,customer"),
        (FILE.removesuffix(".csv"), "at: typed (kind=timestamp)", "outcome: in set", BROKEN, FIX),
    ),
    Case(
        "ragged row",
        lambda: text(good(), "C0803-1-00042,", "C0803-1-00042,,"),
        (FILE, "row 44 has 7 cells, but its header has 6", WHOLE),
    ),
    Case(
        "bad UTF-8",
        lambda: good().replace(b"basic", b"b\xffsic", 1),
        (FILE, "column 'plan' is not UTF-8 text; deliver the file as UTF-8"),
    ),
    Case(
        "a name twice in the header",
        lambda: text(good(), "tenure,plan", "plan,plan"),
        (FILE, "its header, row 1, names column 'plan' 2 times; deliver it with one name for one column"),
    ),
    Case(
        "separated by semicolons",
        lambda: good().replace(b",", b";"),
        (FILE, "seems to be separated by ';'; deliver it separated by commas"),
    ),
    Case("zero-byte Parquet", lambda: b"", (PARQUET, "is empty (0 bytes)", WHOLE), "parquet"),
    Case(
        "truncated Parquet: no footer",
        lambda: cut(as_parquet(rows_of()), 0.6),
        (PARQUET, "cannot be read", WHOLE),
        "parquet",
    ),
    Case(
        "truncated Parquet: the middle is gone",
        lambda: as_parquet(rows_of())[:500] + as_parquet(rows_of())[1500:],
        (PARQUET, "cannot be read", WHOLE),
        "parquet",
    ),
    Case(
        "byte-flipped Parquet",
        flipped,
        (PARQUET, "column 'customer' in row group 1 of 1 is damaged", WHOLE),
        "parquet",
    ),
    Case(
        "a text said a million times (100 GB unfolded)",
        text_bomb,
        (PARQUET, "unfolds to more than source.max_gib = 16 GiB; deliver a smaller file, or raise the bound"),
        "parquet",
    ),
    Case(
        "fifty million rows in a few bytes",
        row_bomb,
        (PARQUET, "unfolds to more than source.max_gib = 0.5 GiB"),
        "parquet",
        source={"max_gib": 0.5},
    ),
]
COLUMNS = [
    Case("renamed column", lambda: as_csv(renamed("spend", "expense")), ("spend: exists", "no such column", FIX)),
    Case("missing column", lambda: as_csv(without("spend")), ("spend: exists", "no such column", BROKEN, FIX)),
    Case(
        "unknown column, where the contract refuses them",
        lambda: as_csv(everywhere(gift="yes")),
        ("rows: declared", "gift", FIX),
        contract={"unknown_columns": "refuse"},
    ),
    Case(
        "number retyped to words (CSV)",
        lambda: as_csv(changed(41, tenure="four years")),
        ("tenure: typed (kind=number)", "1 of 100 rows (42)", "'four years'", FIX),
    ),
    Case(
        "number retyped to text (Parquet)",
        lambda: as_parquet(everywhere(tenure="many"), retyped("tenure", pa.string())),
        ("tenure: typed (kind=number)", "100 of 100 rows", FIX),
        "parquet",
    ),
    Case(
        "category retyped to codes (Parquet)",
        lambda: as_parquet(everywhere(plan=3), retyped("plan", pa.int64())),
        ("plan: typed (kind=category)", "100 of 100 rows", FIX),
        "parquet",
    ),
    Case(
        "nested column (Parquet)",
        lambda: as_parquet(everywhere(plan=["pro"]), retyped("plan", pa.list_(pa.string()))),
        (PARQUET, "Column 'plan' of", "deliver plain values, one for each row and column"),
        "parquet",
    ),
    Case("new category", lambda: as_csv(changed(7, plan="gold")), ("plan: in set", "1 of 100 rows (8)", "'gold'", FIX)),
    Case("unknown label", lambda: as_csv(changed(7, outcome="died")), ("outcome: in set", "'died'", FIX)),
    Case("missing label", lambda: as_csv(changed(7, outcome="")), ("outcome: complete", "1 of 100 rows (8)", FIX)),
]
VALUES = [
    Case("NaN flood (Parquet)", lambda: as_parquet(everywhere(spend=math.nan)), ("spend: complete",), "parquet"),
    Case("NaN flood (CSV)", lambda: as_csv(everywhere(spend="nan")), ("spend: complete (max_missing=0.2)", FIX)),
    Case(
        "infinity (Parquet)",
        lambda: as_parquet(changed(3, spend=math.inf)),
        ("spend: finite", "1 of 100 rows (4)", FIX),
        "parquet",
    ),
    Case("minus infinity (CSV)", lambda: as_csv(changed(3, spend="-Infinity")), ("spend: finite", "(4)", FIX)),
    Case("1e400", lambda: as_csv(changed(3, spend="1e400")), ("spend: ", "1 of 100 rows (4)", FIX)),
    Case("a number of 5000 digits", lambda: as_csv(changed(3, spend="9" * 5000)), ("spend: ", "(4)", FIX)),
    Case("out of range", lambda: as_csv(changed(3, tenure=-1)), ("tenure: in range", "1 of 100 rows (4)", FIX)),
    Case(
        "mixed time zones: one time without",
        lambda: as_csv(changed(9, at="2026-08-03 00:09:00")),
        ("at: zoned (zone=required)", "1 of 100 rows (10)", FIX),
    ),
    Case(
        "mixed time zones: none agreed, one given",
        lambda: as_csv(
            [row | {"at": f"{row['at']:%Y-%m-%d %H:%M:%S}{'Z' * (n == 9)}"} for n, row in enumerate(rows_of())]
        ),
        ("at: zoned (zone=none)", "1 of 100 rows (10)", FIX),
        contract={"event_time": {"column": "at", "zone": "none"}},
        good=lambda: zoneless(),
    ),
    Case(
        "mixed time zones: an offset that is another day",
        lambda: as_csv(changed(9, at="2026-08-03T00:09:00+05:00")),
        ("at: in day", "1 of 100 rows (10)", FIX),
    ),
    Case(
        "times without a zone (Parquet)",
        lambda: as_parquet(
            [row | {"at": row["at"].replace(tzinfo=None)} for row in rows_of()], retyped("at", pa.timestamp("us"))
        ),
        ("at: zoned (zone=required)", "100 of 100 rows", FIX),
        "parquet",
    ),
    Case("no time at all", lambda: as_csv(changed(9, at="at noon")), ("at: typed (kind=timestamp)", "'at noon'", FIX)),
    Case(
        "a late row of the day before",
        lambda: as_csv(changed(9, at=rows_of()[9]["at"] - timedelta(days=1))),
        ("at: in day", "1 of 100 rows (10)", FIX),
    ),
    Case(
        "an id twice in a day",
        lambda: as_csv(changed(9, customer="C0803-1-00003")),
        ("customer: unique", "2 of 100 rows (4, 10)", FIX),
    ),
    Case("no id", lambda: as_csv(changed(9, customer="")), ("customer: complete", "1 of 100 rows (10)", FIX)),
    Case(
        "ten times the usual volume", lambda: as_csv(rows_of(count=1000)), ("row count (min=20, max=400)", "1000", FIX)
    ),
    Case("too few rows", lambda: as_csv(rows_of(count=5)), ("row count (min=20, max=400)", "found 5", FIX)),
]
INJECTED = '=HYPERLINK("http://x")<script>alert(1)</script>\n\x1b[31mFAKE: all is well'
HOSTILE = "<b>gift\nFAKE: all is well"
INJECTION = [
    Case(
        "formula, HTML, newline and escape codes in a cell",
        lambda: as_csv(changed(9, plan=INJECTED)),
        ("plan: in set", "1 of 100 rows (10)", FIX),
    ),
    Case(
        "HTML in a column's name",
        lambda: as_csv(everywhere(**{"<img src=x onerror=alert(1)>": "1"})),
        ("rows: declared", FIX),
        contract={"unknown_columns": "refuse"},
    ),
    Case(
        "a newline in a column's name",
        lambda: as_csv(everywhere(**{HOSTILE: "1"})),
        (FILE, "its header, row 1, is not plain UTF-8 text"),
    ),
    Case(
        "a newline in a column's name (Parquet)",
        lambda: as_parquet(
            everywhere(**{"<b>gift\nFAKE: all is well": 1}),
            ARROW.append(pa.field("<b>gift\nFAKE: all is well", pa.int64())),
        ),
        ("rows: declared", FIX),
        "parquet",
        contract={"unknown_columns": "refuse"},
    ),
]
CASES = [*FILES, *COLUMNS, *VALUES, *INJECTION]
FORBIDDEN = ("<script", "<img", "<b>", "\x1b", "\nFAKE")  # in anything a person reads
