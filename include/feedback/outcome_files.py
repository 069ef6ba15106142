"""Outcomes by file: a CSV or Parquet file with request_id and label, and row and time if there are any.

The same rules as /feedback, checked for all rows before one is written. The segment is named by the file's content, so
the same file given twice, on whatever day, is one segment.
"""

import hashlib
import io
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from include.feedback.core.prediction_records import build_segment_key
from include.feedback.segments import Segments
from include.kernel.errors import DataRefused

REQUIRED_COLUMNS, OPTIONAL_COLUMNS = ("request_id", "label"), ("row", "time")
TIME = pl.Datetime("us", "UTC")


def import_outcomes(path: Path, labels: Collection[str], segments: Segments, now: datetime) -> tuple[int, bool]:
    """Rows of the file, and whether they are new. Raises `DataRefused`: one sentence that names column and row."""
    table = _check_table(_read(path), labels, path, now)
    shaped = table.select("request_id", "row", "label", "happened", pl.lit(now, TIME).alias("received"))
    with open(path, "rb") as file:
        name = f"import-{hashlib.file_digest(file, 'sha256').hexdigest()[:24]}"
    known = [key for keys in segments.list_days("feedback").values() for key in keys]
    if any(key.endswith(f"/{name}.parquet") for key in known):
        return len(shaped), False
    content = io.BytesIO()
    shaped.write_parquet(content)
    segments.place.add(build_segment_key("feedback", now.astimezone(UTC).date(), name), content.getvalue())
    return len(shaped), True


def _read(path: Path) -> pl.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path, glob=False)
        return pl.read_csv(path, infer_schema=False, glob=False)
    except (PolarsError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataRefused(f"{path} cannot be read ({why}); give a CSV with a header, or Parquet.") from error


def _check_table(table: pl.DataFrame, labels: Collection[str], path: Path, now: datetime) -> pl.DataFrame:
    unknown = [name for name in table.columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    missing = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if unknown or missing:
        wrong = f"lacks column {missing[0]!r}" if missing else f"has column {unknown[0]!r}"
        raise DataRefused(f"{path} {wrong}; it needs request_id and label, and may have row and time.")
    typed = _cast_columns(table)
    bad = {
        "request_id": ~pl.col("request_id").str.contains(r"^[A-Za-z0-9._-]{1,64}$"),
        "row": pl.col("row").is_null() | (pl.col("row") < 0),
        "label": ~pl.col("label").is_in(list(labels)),
        "time": (pl.col("(timed)") & pl.col("happened").is_null()) | (pl.col("happened") > now),
    }
    for name, rule in bad.items():
        rows = typed.with_row_index("(row)", 1).filter(rule.fill_null(name != "time"))
        if len(rows):
            raise DataRefused(
                f"{path}, row {rows['(row)'][0]}: {name} must be {_describe_expected(name, labels)}; correct it there."
            )
    return typed


def _cast_columns(table: pl.DataFrame) -> pl.DataFrame:
    row = pl.col("row") if "row" in table.columns else pl.lit("0")
    return table.select(
        pl.col("request_id").cast(pl.String),
        pl.col("label").cast(pl.String),
        row.cast(pl.String).fill_null("0").cast(pl.Int64, strict=False).alias("row"),
        _parse_times(table).alias("happened"),
        (pl.col("time").is_not_null() if "time" in table.columns else pl.lit(False)).alias("(timed)"),
    )


def _parse_times(table: pl.DataFrame) -> pl.Expr:
    """Times with an offset, in UTC; null for what is none."""
    if "time" not in table.columns:
        return pl.lit(None, TIME)
    kind = table.schema["time"]
    if isinstance(kind, pl.Datetime):
        return pl.col("time").dt.convert_time_zone("UTC").cast(TIME) if kind.time_zone else pl.lit(None, TIME)
    text = pl.col("time").cast(pl.String).str.replace(" ", "T", literal=True).str.replace("[zZ]$", "+00:00")
    shaped = pl.when(text.str.contains(r"(\.\d+)?[+-]\d\d:\d\d$")).then(text)
    return shaped.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False).cast(TIME)


def _describe_expected(name: str, labels: Collection[str]) -> str:
    return {
        "request_id": "the x-request-id of an answer",
        "row": "a whole number from 0, the row's place in its request",
        "label": f"one of {', '.join(labels)}",
        "time": "a past time with its offset, such as 2026-08-01T12:00:00Z",
    }[name]
