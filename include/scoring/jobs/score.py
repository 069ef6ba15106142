"""Scores whole snapshots with one version, a part at a time: memory holds one part, and a kill loses one.

Which version and which snapshots was said when the run began, so a retry goes on with exactly those, whatever went live
meanwhile. What is there already is looked at and not made again: a run that finds its result whole loads no model. The
artifact is the very one that was blessed, by its digest: the copy the slots load, or else that of the registry.

A compiled model is fed whole columns: for the example's 13 columns that takes a thirtieth of the time of a DataFrame
(65,536 rows on one core: 0.02 s instead of 0.6 s). Any other pipeline gets the DataFrame it was trained on.
"""

import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from include.data.core.snapshots import Snapshot, select_visible
from include.data.spec import DataManifest
from include.data.store.content import open_parquet
from include.data.store.snapshot_store import SnapshotStore
from include.data.wiring import open_snapshot_store
from include.kernel.errors import ArtifactRejected, DataRefused
from include.kernel.files import write_atomic
from include.kernel.job import JobRequest, JobResult
from include.model import artifact, conformance
from include.model.artifact import ArtifactMeta, CompiledModel, Model
from include.model.compiled.encoding import Floats
from include.model.integrity.artifact_integrity import read_verified
from include.registry.mlflow_registry import MlflowRegistry
from include.registry.wiring import open_registry
from include.scoring.core import scoring
from include.scoring.core.scoring import BINS, PART_ROWS, PinnedDay, PinnedRun, ScoredPart, Scores, ScoreSummary
from include.scoring.score_page import render_score_page
from include.scoring.score_store import ScoreStore
from include.scoring.wiring import find_score_pages, find_served_artifact, open_score_store

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: DataManifest) -> JobResult:
    """Param: `pinned`, as `include.scoring.core.scoring.PinnedRun`. Raises `DataRefused`, `ArtifactRejected`,
    `RequestInvalid`.
    """
    pinned, store, score_store = scoring.parse_pinned(request.params), open_snapshot_store(), open_score_store()
    history = {(snapshot.day, snapshot.id): snapshot for snapshot in store.read_history()}
    days = [_find_snapshot(history, day) for day in pinned.days]
    done = {
        day: scores
        for day in days
        if (scores := score_store.read_result(day.day, pinned.version, _build_key(day, pinned)))
    }
    missing, scored_parts = [day for day in days if day not in done], 0
    if missing:
        model = _load_model(pinned, open_registry(manifest.name))
        for day in missing:
            done[day], scored = _score_day(day, pinned, model, manifest, store, score_store)
            scored_parts += scored
    results = [done[day] for day in days]
    for scores in results:
        log.info("%s", scores.sentence)
    page_path = _publish(results, select_visible(history.values(), request.as_of), score_store, find_score_pages())
    return _build_job_result(request, results, scored_parts, page_path, score_store)


def _find_snapshot(history: dict[tuple[date, str], Snapshot], pinned_day: PinnedDay) -> Snapshot:
    snapshot = history.get((pinned_day.day, pinned_day.snapshot))
    if snapshot is None:
        raise DataRefused(
            f"{pinned_day.day} has no snapshot {pinned_day.snapshot[:12]} in this store; point "
            "EVERGREEN_SNAPSHOTS to the "
            "store it was chosen from, or start the run anew."
        )
    return snapshot


def _build_key(day: Snapshot, pinned: PinnedRun) -> str:
    return scoring.build_result_key(day.id, pinned.version, pinned.digest)


def _load_model(pinned: PinnedRun, registry: MlflowRegistry) -> Model:
    """The model of exactly this digest. Raises `ArtifactRejected` when it does not compute its golden rows."""
    model = artifact.open_artifact(_read_artifact(pinned, registry))
    if problem := conformance.check_golden(model):
        raise ArtifactRejected(problem)
    log.info("version %s, %s (%s)", pinned.version, model.meta.runtime, model.meta.path)
    return model


def _read_artifact(pinned: PinnedRun, registry: MlflowRegistry) -> Mapping[str, bytes]:
    """The verified artifact: the slots' own copy on this machine, or a download."""
    served = find_served_artifact(pinned.digest)
    if served is not None:
        try:
            return read_verified(served, pinned.digest)
        except ArtifactRejected as error:
            log.warning("%s The registry is asked instead.", error)
    with tempfile.TemporaryDirectory(prefix="evergreen-score-") as scratch:
        return read_verified(registry.fetch(pinned.version, Path(scratch)), pinned.digest)


def _score_day(
    day: Snapshot,
    pinned: PinnedRun,
    model: Model,
    manifest: DataManifest,
    store: SnapshotStore,
    score_store: ScoreStore,
) -> tuple[Scores, int]:
    """The whole result and how many of its parts were scored just now."""
    key, meta, scored_parts = _build_key(day, pinned), model.meta, 0
    scoring.require_columns(day, manifest.contract.id, (column.name for column in meta.columns))
    prefix, records = scoring.locate_result(day.day, pinned.version, key), list[ScoredPart]()
    for part, table in zip(scoring.split_into_parts(day.rows), _read_tables(day, meta, manifest, store), strict=True):
        record = score_store.read_part(prefix, key, part)
        if record is None:
            data, tally = _score_part(table, pinned, model, manifest)
            record, scored_parts = score_store.write_part(prefix, key, part, data, tally), scored_parts + 1
            log.info("%s of %s: %d rows", part.name, day.day, part.rows)
        records.append(record)
    scores = _build_result(day, pinned, meta, manifest, records)
    score_store.write_result(scores)
    return scores, scored_parts


def _read_tables(
    day: Snapshot, meta: ArtifactMeta, manifest: DataManifest, store: SnapshotStore
) -> Iterator[pl.DataFrame]:
    names = list(dict.fromkeys([manifest.contract.id, *(column.name for column in meta.columns)]))
    with open_parquet(store.fetch_file(day)) as file:
        for batch in file.iter_batches(PART_ROWS, columns=names, use_threads=False):
            yield cast(pl.DataFrame, pl.from_arrow(batch))


def _score_part(
    table: pl.DataFrame, pinned: PinnedRun, model: Model, manifest: DataManifest
) -> tuple[bytes, ScoreSummary]:
    """The Parquet file of these rows' scores, and what they come to."""
    scores, meta = _predict_probabilities(model, table), model.meta
    positive = scores >= meta.threshold
    output = pl.DataFrame({manifest.contract.id: table[manifest.contract.id], "score": scores, "decision": positive})
    output = output.select(
        manifest.contract.id,
        "score",
        pl.when("decision").then(pl.lit(meta.positive)).otherwise(pl.lit(meta.negative)).alias("label"),
        "decision",
        pl.lit(pinned.version).alias("version"),
        pl.lit(pinned.digest).alias("digest"),
    )
    out = io.BytesIO()
    output.write_parquet(out, compression="zstd", row_group_size=PART_ROWS)
    return out.getvalue(), _summarise_scores(scores, positive)


def _predict_probabilities(model: Model, table: pl.DataFrame) -> Floats:
    if isinstance(model, CompiledModel):
        return model.answer(model.encoder.encode_batch(table))
    import pandas as pd

    from include.model.schema import conform

    values = {column.name: table[column.name].to_list() for column in model.meta.columns}
    return model.predict_frame(conform(pd.DataFrame(values, dtype=object), model.meta.columns))


def _summarise_scores(scores: Floats, positive: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> ScoreSummary:
    bins = np.minimum((scores * BINS).astype(np.intp), BINS - 1)
    return ScoreSummary(
        rows=len(scores),
        positives=int(positive.sum()),
        total=float(scores.sum()),
        histogram=tuple(np.bincount(bins, minlength=BINS).tolist()),
    )


def _build_result(
    day: Snapshot, pinned: PinnedRun, meta: ArtifactMeta, manifest: DataManifest, records: list[ScoredPart]
) -> Scores:
    return Scores(
        key=_build_key(day, pinned),
        model=meta.name,
        version=pinned.version,
        digest=pinned.digest,
        day=day.day,
        snapshot=day.id,
        id=manifest.contract.id,
        positive=meta.positive,
        negative=meta.negative,
        threshold=meta.threshold,
        rows=day.rows,
        tally=scoring.merge_summaries([record.tally for record in records]),
        parts=tuple(records),
    )


def _publish(results: list[Scores], visible_days: list[Snapshot], score_store: ScoreStore, pages: Path) -> Path:
    """Draws a page a day; gives that of the last one."""
    for scores in results:
        page_path = pages / str(scores.day) / f"version-{scores.version}-{scores.key}.html"
        write_atomic(page_path, render_score_page(scores, _find_previous(scores, visible_days, score_store)))
    return page_path


def _find_previous(scores: Scores, visible_days: list[Snapshot], score_store: ScoreStore) -> Scores | None:
    """What the same version said of the newest day before that it has scored, if it is among the last seven."""
    earlier = [snapshot for snapshot in visible_days if snapshot.day < scores.day][-7:]
    previous = (
        score_store.read_result(
            snapshot.day, scores.version, scoring.build_result_key(snapshot.id, scores.version, scores.digest)
        )
        for snapshot in reversed(earlier)
    )
    return next((snapshot for snapshot in previous if snapshot), None)


def _build_job_result(
    request: JobRequest, results: list[Scores], scored_parts: int, page_path: Path, score_store: ScoreStore
) -> JobResult:
    rows, last = sum(result.rows for result in results), results[-1]
    summary = last.sentence if len(results) == 1 else f"{rows} rows of {len(results)} days scored; {last.sentence}"
    uris = [score_store.build_uri(result.day, result.version, result.key) for result in results]
    outputs = {
        "version": last.version,
        "digest": last.digest,
        "days": [str(result.day) for result in results],
        "snapshots": [result.snapshot for result in results],
        "uris": uris,
        "rows": rows,
        "parts": sum(len(result.parts) for result in results),
        "parts_scored": scored_parts,
        "mean": last.tally.mean,
        "share": last.tally.share,
        "page": str(page_path),
    }
    return JobResult(job="score", run_key=request.run_key, summary=summary, outputs=outputs)
