"""Scores whole snapshots with one version, a part at a time: memory holds one part, and a kill loses one.

Which version and which snapshots was said when the run began, so a retry goes on with exactly those, whatever went live
meanwhile. What is there already is looked at and not made again: a run that finds its result whole loads no model. The
artifact is the very one that was blessed, by its digest: the copy the slots load, or else that of the registry.

A compiled model is fed whole columns: for the example's 13 columns that takes a thirtieth of the time of a DataFrame
(65,536 rows on one core: 0.02 s instead of 0.6 s). Any other pipeline gets the DataFrame it was trained on.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl

from include.data.core.snapshots import Snapshot, visible
from include.data.spec import DataManifest
from include.data.store.content import parquet
from include.data.store.snapshot_store import ContentStore
from include.data.wiring import open_snapshot_store
from include.kernel.errors import ArtifactRejected, DataRefused
from include.kernel.files import write_atomic
from include.kernel.job import JobRequest, JobResult
from include.model import artifact, conformance
from include.model.artifact import ArtifactMeta, CompiledModel, Model
from include.model.compiled.encoding import Floats
from include.model.integrity.artifact_integrity import verified
from include.registry.mlflow_registry import MlflowRegistry
from include.registry.wiring import open_registry
from include.scoring.core import scoring
from include.scoring.core.scoring import BINS, PART_ROWS, Pinned, PinnedDay, ScoredPart, Scores, Tally
from include.scoring.score_page import page
from include.scoring.score_store import ScoreStore
from include.scoring.wiring import find_score_pages, find_served_artifact, open_score_store

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: DataManifest) -> JobResult:
    """Param: `pinned`, as `include.scoring.core.scoring.Pinned`. Raises `DataRefused`, `ArtifactRejected`,
    `RequestInvalid`.
    """
    pinned, store, kept = scoring.pinned(request.params), open_snapshot_store(), open_score_store()
    history = {(each.day, each.id): each for each in store.history()}
    days = [_known(history, day) for day in pinned.days]
    done = {day: scores for day in days if (scores := kept.whole(day.day, pinned.version, _key(day, pinned)))}
    missing, made = [day for day in days if day not in done], 0
    if missing:
        model = _model(pinned, open_registry(manifest.name))
        for day in missing:
            done[day], scored = _scored(day, pinned, model, manifest, store, kept)
            made += scored
    results = [done[day] for day in days]
    for scores in results:
        log.info("%s", scores.sentence)
    place = _publish(results, visible(history.values(), request.as_of), kept, find_score_pages())
    return _told(request, results, made, place, kept)


def _known(history: dict[tuple[date, str], Snapshot], wanted: PinnedDay) -> Snapshot:
    found = history.get((wanted.day, wanted.snapshot))
    if found is None:
        raise DataRefused(
            f"{wanted.day} has no snapshot {wanted.snapshot[:12]} in this store; point EVERGREEN_SNAPSHOTS to the "
            "store it was chosen from, or start the run anew."
        )
    return found


def _key(day: Snapshot, pinned: Pinned) -> str:
    return scoring.key(day.id, pinned.version, pinned.digest)


def _model(pinned: Pinned, registry: MlflowRegistry) -> Model:
    """The model of exactly this digest. Raises `ArtifactRejected` when it does not compute its golden rows."""
    model = artifact.opened(_files(pinned, registry))
    if problem := conformance.golden(model):
        raise ArtifactRejected(problem)
    log.info("version %s, %s (%s)", pinned.version, model.meta.runtime, model.meta.path)
    return model


def _files(pinned: Pinned, registry: MlflowRegistry) -> Mapping[str, bytes]:
    """The verified artifact: the slots' own copy on this machine, or a download."""
    served = find_served_artifact(pinned.digest)
    if served is not None:
        try:
            return verified(served, pinned.digest)
        except ArtifactRejected as error:
            log.warning("%s The registry is asked instead.", error)
    with tempfile.TemporaryDirectory(prefix="evergreen-score-") as scratch:
        return verified(registry.fetch(pinned.version, Path(scratch)), pinned.digest)


def _scored(
    day: Snapshot, pinned: Pinned, model: Model, manifest: DataManifest, store: ContentStore, kept: ScoreStore
) -> tuple[Scores, int]:
    """The whole result and how many of its parts were scored just now."""
    key, meta, made = _key(day, pinned), model.meta, 0
    scoring.must_have(day, manifest.contract.id, (column.name for column in meta.columns))
    place, records = scoring.place(day.day, pinned.version, key), list[ScoredPart]()
    for part, table in zip(scoring.parts(day.rows), _tables(day, meta, manifest, store), strict=True):
        record = kept.part(place, key, part)
        if record is None:
            data, tally = _part(table, pinned, model, manifest)
            record, made = kept.keep_part(place, key, part, data, tally), made + 1
            log.info("%s of %s: %d rows", part.name, day.day, part.rows)
        records.append(record)
    scores = _whole(day, pinned, meta, manifest, records)
    kept.finish(scores)
    return scores, made


def _tables(day: Snapshot, meta: ArtifactMeta, manifest: DataManifest, store: ContentStore) -> Iterator[pl.DataFrame]:
    wanted = list(dict.fromkeys([manifest.contract.id, *(column.name for column in meta.columns)]))
    with parquet(store.file(day)) as file:
        for batch in file.iter_batches(PART_ROWS, columns=wanted, use_threads=False):
            yield cast(pl.DataFrame, pl.from_arrow(batch))


def _part(table: pl.DataFrame, pinned: Pinned, model: Model, manifest: DataManifest) -> tuple[bytes, Tally]:
    """The Parquet file of these rows' scores, and what they come to."""
    scores, meta = _probabilities(model, table), model.meta
    positive = scores >= meta.threshold
    made = pl.DataFrame({manifest.contract.id: table[manifest.contract.id], "score": scores, "decision": positive})
    made = made.select(
        manifest.contract.id,
        "score",
        pl.when("decision").then(pl.lit(meta.positive)).otherwise(pl.lit(meta.negative)).alias("label"),
        "decision",
        pl.lit(pinned.version).alias("version"),
        pl.lit(pinned.digest).alias("digest"),
    )
    out = io.BytesIO()
    made.write_parquet(out, compression="zstd", row_group_size=PART_ROWS)
    return out.getvalue(), _tally(scores, positive)


def _probabilities(model: Model, table: pl.DataFrame) -> Floats:
    if isinstance(model, CompiledModel):
        return model.answer(model.encoder.batch(table))
    import pandas as pd

    from include.model.schema import conform

    values = {column.name: table[column.name].to_list() for column in model.meta.columns}
    return model.predict_frame(conform(pd.DataFrame(values, dtype=object), model.meta.columns))


def _tally(scores: Floats, positive: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Tally:
    bins = np.minimum((scores * BINS).astype(np.intp), BINS - 1)
    return Tally(
        rows=len(scores),
        positives=int(positive.sum()),
        total=float(scores.sum()),
        histogram=tuple(np.bincount(bins, minlength=BINS).tolist()),
    )


def _whole(
    day: Snapshot, pinned: Pinned, meta: ArtifactMeta, manifest: DataManifest, records: list[ScoredPart]
) -> Scores:
    return Scores(
        key=_key(day, pinned),
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
        tally=scoring.total([record.tally for record in records]),
        parts=tuple(records),
    )


def _publish(results: list[Scores], seen: list[Snapshot], kept: ScoreStore, pages: Path) -> Path:
    """Draws a page a day; gives that of the last one."""
    for scores in results:
        place = pages / str(scores.day) / f"version-{scores.version}-{scores.key}.html"
        write_atomic(place, page(scores, _before(scores, seen, kept)))
    return place


def _before(scores: Scores, seen: list[Snapshot], kept: ScoreStore) -> Scores | None:
    """What the same version said of the newest day before that it has scored, if it is among the last seven."""
    earlier = [each for each in seen if each.day < scores.day][-7:]
    found = (
        kept.whole(each.day, scores.version, scoring.key(each.id, scores.version, scores.digest))
        for each in reversed(earlier)
    )
    return next((each for each in found if each), None)


def _told(request: JobRequest, results: list[Scores], made: int, place: Path, kept: ScoreStore) -> JobResult:
    rows, last = sum(each.rows for each in results), results[-1]
    summary = last.sentence if len(results) == 1 else f"{rows} rows of {len(results)} days scored; {last.sentence}"
    uris = [kept.uri(each.day, each.version, each.key) for each in results]
    outputs = {
        "version": last.version,
        "digest": last.digest,
        "days": [str(each.day) for each in results],
        "snapshots": [each.snapshot for each in results],
        "uris": uris,
        "rows": rows,
        "parts": sum(len(each.parts) for each in results),
        "parts_scored": made,
        "mean": last.tally.mean,
        "share": last.tally.share,
        "page": str(place),
    }
    return JobResult(job="score", run_key=request.run_key, summary=summary, outputs=outputs)
