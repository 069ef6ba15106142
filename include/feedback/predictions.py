"""What was predicted, once each, with what became of it: a day range of the prediction log, in parts of bounded size.

A part holds whole requests: they are dealt by a hash of their id, so copies of a request and its outcomes meet in one
part, however many days and segments they lie in, and no part needs to know another. The log is read once for each part;
that is the price of memory that does not grow with the range. A range is one part until it has `PART_ROWS` rows.

Which copy counts: of one id and row the last one that was answered (see `include.feedback.core.prediction_records`). A
copy that came after midnight takes the prediction along to its day. The outcome is what callers sent to /feedback, the
last word counting, or else the label that was ingested under the row's own id, the one that became known last. `as_of`
hides what was not known by then: outcomes received later, days ingested later, labels that had not matured.

Which is the last is said by times, and where those are equal by the place in the log: no engine promises that rows stay
in the order of their files.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from include.data.core.snapshots import Snapshot, select_matured
from include.data.store.snapshot_store import SnapshotStore
from include.feedback.core.prediction_records import (
    FEEDBACK,
    PREDICTION,
    Kind,
    ServingStatistics,
    Stream,
    hash_value,
    require_secret,
)
from include.feedback.segments import Segments
from include.feedback.spec import FeedbackManifest
from include.kernel.errors import Conflict, DataRefused

PART_ROWS = 250_000
RETRY_WINDOW = timedelta(minutes=1)  # how long after an answer a proxy may still ask again
INGEST_SLACK = timedelta(days=1)  # rows are ingested under the day they were predicted on, or one off
COLUMN_TYPES: Mapping[Kind, pl.DataType] = {
    "text": pl.String(),
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "flag": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}
PLACE, DAY = "(place)", "(day)"  # of a row in all segments that are read; of the snapshot a label was ingested with
FILE, MAX_ROWS = "(file)", 2**40  # the segment a row stands in; more rows than any segment has
OUTCOME_TYPES = {"outcome": pl.String(), "outcome_from": pl.String(), "outcome_at": pl.Datetime("us", "UTC")}


class Predictions:
    """Reads the log of one place. Segments of a bucket are copied into the directory `room`, which the caller removes.

    Raises `Conflict` when segments were compacted while they were read, `DataRefused` for one that is damaged.
    """

    def __init__(
        self,
        segments: Segments,
        store: SnapshotStore,
        manifest: FeedbackManifest,
        workspace: Path,
        secret: str | None = None,
    ) -> None:
        """`secret` is EVERGREEN_LOG_KEY; only needed when the manifest hashes the rows' own id."""
        self._segments, self._store, self._manifest, self._workspace = segments, store, manifest, workspace
        self._secret = secret

    def list_days(self) -> list[date]:
        """Days that have predictions, oldest first."""
        return list(self._segments.list_days("predictions"))

    def read_parts(
        self, since: date, until: date, as_of: date | None = None, part_rows: int = PART_ROWS
    ) -> Iterator[pl.DataFrame]:
        """Rows predicted from `since` to `until`, both included.

        Columns: those of the record, `feature.<name>`, and `outcome`, `outcome_from` ("feedback" or "ingested") and
        `outcome_at` (when it was received), which are null while it is not known. A column that only some segments have
        is null elsewhere; one that is hashed in some is text in all.
        """
        with self._translate_read_errors():
            requests = self._scan("predictions", since, until + timedelta(days=1), PREDICTION)
            requests = requests.filter(pl.col("at") < _compute_midnight(until) + timedelta(days=1) + RETRY_WINDOW)
            outcomes = self._scan_outcomes(since, as_of)
            labels = self._scan_labels(since, until, as_of)
            count = int(requests.select(pl.len()).collect(engine="streaming").item())
            part_count = max(1, -(-count // part_rows))
            for number in range(part_count):
                part = _deduplicate_records(_select_part(requests, number, part_count)).filter(
                    pl.col("at") < _compute_midnight(until) + timedelta(days=1)
                )
                yield self._join_outcomes(part, _select_part(outcomes, number, part_count), labels)

    def summarize_serving(self, version: str, since: date, until: date) -> ServingStatistics | None:
        """How requests to `version` were answered on these days, both included; None where there is none.

        A request counts once, with its slowest row; one that a proxy sent twice counts as often as it was answered.
        """
        with self._translate_read_errors():
            rows = self._scan("predictions", since, until, PREDICTION).filter(pl.col("version") == version)
            requests = rows.group_by("request_id", "slot").agg(pl.col("status", "latency_ms").max())
            statistics = requests.select(
                requests=pl.len(),
                failed=(pl.col("status") >= 500).sum(),
                p95=pl.col("latency_ms").quantile(0.95),
                p99=pl.col("latency_ms").quantile(0.99),
            ).collect(engine="streaming")
        summary = statistics.row(0, named=True)
        if not summary["requests"] or summary["p99"] is None:
            return None
        return ServingStatistics(summary["requests"], summary["failed"], (summary["p95"], summary["p99"]))

    @contextmanager
    def _translate_read_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise Conflict(f"Segments of {self._segments.place.uri} were compacted meanwhile; read again.") from error
        except PolarsError as error:
            place, why = self._segments.place.uri, " ".join(str(error).split())[:300]
            raise DataRefused(
                f"The prediction log in {place} cannot be read ({why}); remove what is damaged."
            ) from error

    def _scan(self, stream: Stream, since: date, until: date, columns: Mapping[str, Kind]) -> pl.LazyFrame:
        days = self._segments.list_days(stream)
        keys = [key for day, found in days.items() if since <= day <= until for key in found]
        return _merge_segments([self._fetch_segment(key) for key in keys], columns)

    def _fetch_segment(self, key: str) -> Path:
        path = self._segments.place.fetch_into(key, self._workspace)
        if path is None:
            raise FileNotFoundError(key)
        return path

    def _scan_outcomes(self, since: date, as_of: date | None) -> pl.LazyFrame:
        """What callers sent since the predictions, by request and row."""
        return self._scan("feedback", since, as_of or date.max, FEEDBACK)

    def _scan_labels(self, since: date, until: date, as_of: date | None) -> pl.LazyFrame:
        """The ingested labels of about these days: key, label, and from when they count as known."""
        history = self._store.read_history()
        known = select_matured(history, as_of or date.max, self._manifest.label)
        wanted = [each for each in known if since - INGEST_SLACK <= each.day <= until + INGEST_SLACK]
        empty = pl.LazyFrame(schema={"key": pl.String, "label": pl.String, "known": COLUMN_TYPES["time"], DAY: pl.Date})
        return pl.concat([empty, *map(self._scan_snapshot_labels, wanted)])

    def _scan_snapshot_labels(self, snapshot: Snapshot) -> pl.LazyFrame:
        key, label = self._manifest.contract.id, self._manifest.label
        known = _compute_midnight(max(snapshot.known_from, snapshot.day + timedelta(days=label.delay_days)))
        return pl.scan_parquet(self._store.fetch_file(snapshot), glob=False).select(
            pl.col(key).cast(pl.String).alias("key"),
            pl.col(label.column).cast(pl.String).alias("label"),
            pl.lit(known, COLUMN_TYPES["time"]).alias("known"),
            pl.lit(snapshot.day, pl.Date).alias(DAY),
        )

    def _join_outcomes(self, part: pl.LazyFrame, outcomes: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
        """The part with its outcomes; only what belongs to it is taken from the others."""
        rows = part.collect(engine="streaming")
        latest = outcomes.sort("received", "happened", PLACE).unique(
            ["request_id", "row"], keep="last", maintain_order=True
        )
        named = latest.select("request_id", "row", pl.col("label").alias("told"), "received")
        ingested = self._find_ingested_labels(rows, labels)
        joined = rows.join(named.collect(engine="streaming"), ["request_id", "row"], "left").join(
            ingested, "key", "left"
        )
        sent = pl.col("told").is_not_null()
        return joined.with_columns(
            outcome=pl.coalesce("told", "ingested"),
            outcome_from=pl.when(sent)
            .then(pl.lit("feedback"))
            .when(pl.col("ingested").is_not_null())
            .then(pl.lit("ingested")),
            outcome_at=pl.coalesce("received", "known"),
        ).drop("told", "received", "ingested", "known")

    def _find_ingested_labels(self, rows: pl.DataFrame, labels: pl.LazyFrame) -> pl.DataFrame:
        keys = rows.lazy().select("key").drop_nulls().unique()
        labelled = self._hash_keys(labels).join(keys, "key", "semi").collect(engine="streaming")
        latest = labelled.sort("known", DAY, "label").unique("key", keep="last", maintain_order=True)
        return latest.drop(DAY).rename({"label": "ingested"})

    def _hash_keys(self, labels: pl.LazyFrame) -> pl.LazyFrame:
        """The ids as the log has them."""
        spec, name = self._manifest.serving.log, self._manifest.contract.id
        if name not in spec.hash:
            return labels
        secret = require_secret(spec, self._secret)
        return labels.with_columns(
            pl.col("key").map_elements(lambda value: hash_value(secret, name, value), return_dtype=pl.String)
        )


def _merge_segments(paths: list[Path], columns: Mapping[str, Kind]) -> pl.LazyFrame:
    """Segments with unlike columns as one; files of one schema are scanned together, since a day has few schemas."""
    by_schema: dict[tuple[tuple[str, pl.DataType], ...], list[Path]] = {}
    for path in paths:
        by_schema.setdefault(tuple(pl.read_parquet_schema(path).items()), []).append(path)
    merged = {name: COLUMN_TYPES[kind] for name, kind in columns.items()}
    for schema in by_schema:
        for name, kind in schema:
            merged[name] = kind if merged.get(name, kind) == kind else pl.String()
    frames = [pl.LazyFrame(schema={**merged, PLACE: pl.UInt64})]
    ordinals = {str(path): number for number, path in enumerate(paths)}
    for schema, files in by_schema.items():
        has = dict(schema)
        casts = [
            (pl.col(name) if name in has else pl.lit(None)).cast(kind).alias(name) for name, kind in merged.items()
        ]
        scan = pl.scan_parquet(files, glob=False, row_index_name=PLACE, include_file_paths=FILE)
        ordinal = pl.col(FILE).replace_strict(ordinals, return_dtype=pl.UInt64)
        frames.append(scan.select(*casts, (ordinal * MAX_ROWS + pl.col(PLACE).cast(pl.UInt64)).alias(PLACE)))
    return pl.concat(frames)


def _select_part(frame: pl.LazyFrame, number: int, part_count: int) -> pl.LazyFrame:
    return frame if part_count == 1 else frame.filter(pl.col("request_id").hash(seed=0) % part_count == number)


def _deduplicate_records(frame: pl.LazyFrame) -> pl.LazyFrame:
    """One record of each id and row, in the order of the answers: the last that was answered, else the last."""
    answered = pl.col("score").is_not_null()
    one = frame.with_columns(answered.alias("(answered)")).sort("(answered)", "at", PLACE)
    return (
        one.unique(["request_id", "row"], keep="last", maintain_order=True)
        .drop("(answered)", PLACE)
        .sort("at", "request_id", "row")
    )


def _compute_midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
