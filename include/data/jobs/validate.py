"""Reads and checks a shard of a day's parts, and keeps what it found for `ingest`: one of several such tasks at once.

It decides nothing. A part that cannot be read leaves nothing behind and is left to `ingest`, which meets the refusal
itself, in the order of delivery, and tells it as it would without this job. So a day has one verdict and one sentence,
however many machines read it. A day in a single part gives this job nothing to do: reading it here and again there
would take longer than reading it once.
"""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import date
from pathlib import Path

from include.data.core.contract import Expectation
from include.data.sources.base import Part, Source
from include.data.sources.open import open_source
from include.data.spec import DataManifest
from include.data.validation.landed_parts import LandedParts
from include.data.validation.reference_day import compared, day_of
from include.data.wiring import find_work_room, open_snapshot_store, open_work_units
from include.kernel.code_digest import INGESTING, digest_code
from include.kernel.errors import Permanent
from include.kernel.files import scratch, storing
from include.kernel.job import JobRequest, JobResult
from include.kernel.work_units import Shard, asked

log = logging.getLogger(__name__)


def open_parts(day: date, manifest: DataManifest) -> LandedParts:
    """Where parts of `day` are kept between this job and `ingest`."""
    units = open_work_units(manifest.fan_out.keep_days)
    return LandedParts(open_snapshot_store().objects, units, day, digest_code(*INGESTING))


def run(request: JobRequest, manifest: DataManifest) -> JobResult:
    """Params: `day` (ISO date), `scenario` (replay source only), `shard` and `shards`. Raises what is temporary."""
    day, shard = day_of(request), asked(request)
    with closing(open_source(manifest, request.params.get("scenario") or None)) as source:
        parts = source.parts(day)
        if len(parts) < 2:
            return _result(request, "no", f"{day} was not delivered in parts; ingest reads it alone", 0, [])
        rules = compared(day, request.as_of, manifest, open_snapshot_store()).rules()
        kept, place = open_parts(day, manifest), find_work_room()
        refused = [
            told for part in shard.share(parts) if (told := _checked(source, part, kept, place, manifest, rules))
        ]
    return _told(request, shard, day, len(parts), refused)


def _checked(
    source: Source, part: Part, kept: LandedParts, place: Path, manifest: DataManifest, rules: list[Expectation]
) -> str | None:
    """Sees to it that the part is kept. Its refusal, where it cannot be read."""
    with scratch(place) as room, storing(room):
        try:
            landed = kept.find(part, room) or kept.land(part, source.budget(), room)
        except Permanent as refusal:
            log.warning("left to ingest: %s", refusal)
            return str(refusal)
        kept.mark(landed, manifest, rules)
        log.info("%s: %d rows are read and checked", part.name, landed.rows.count if landed.rows else 0)
    return None


def _told(request: JobRequest, shard: Shard, day: date, parts: int, refused: list[str]) -> JobResult:
    share = len(shard.share(range(parts)))
    left = f"; left to ingest: {' '.join(refused)}" if refused else ""
    summary = f"shard {shard}: {share - len(refused)} of {parts} parts of {day} are read and checked{left}"
    return _result(request, "yes", summary, share, refused)


def _result(request: JobRequest, verdict: str, summary: str, share: int, refused: list[str]) -> JobResult:
    outputs = {"parts": share, "refused": len(refused)}
    told = {"job": request.job, "run_key": request.run_key, "verdict": verdict, "summary": summary, "outputs": outputs}
    return JobResult.model_validate(told)
