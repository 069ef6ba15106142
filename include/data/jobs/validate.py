"""Reads and checks a shard of a day's parts, and keeps what it found for `ingest`: one of several such tasks at once.

It decides nothing. A part that cannot be read leaves nothing behind and is left to `ingest`, which meets the refusal
itself, in the order of delivery, and tells it as it would without this job. So a day has one verdict and one sentence,
however many machines read it. A day in a single part gives this job nothing to do: reading it here and again there
would take longer than reading it once.
"""

import logging
from contextlib import closing
from datetime import date
from pathlib import Path

from include.data.core.contract import Expectation
from include.data.sources.base import DeliveryPart, Source
from include.data.sources.open import open_source
from include.data.spec import DataManifest
from include.data.validation.landed_parts import LandedParts
from include.data.validation.reference_day import compare_day, parse_day
from include.data.wiring import find_work_room, open_snapshot_store, open_work_units
from include.kernel.code_digest import INGESTING, compute_code_digest
from include.kernel.errors import Permanent
from include.kernel.files import open_scratch_directory, translate_write_errors
from include.kernel.job import JobRequest, JobResult
from include.kernel.work_units import Shard, read_shard

log = logging.getLogger(__name__)


def open_parts(day: date, manifest: DataManifest) -> LandedParts:
    """Where parts of `day` are kept between this job and `ingest`."""
    units = open_work_units(manifest.fan_out.keep_days)
    code, declared = compute_code_digest(*INGESTING), manifest.declared_columns
    return LandedParts(open_snapshot_store().objects, units, day, code, declared)


def run(request: JobRequest, manifest: DataManifest) -> JobResult:
    """Params: `day` (ISO date), `scenario` (replay source only), `shard` and `shards`. Raises what is temporary."""
    day, shard = parse_day(request), read_shard(request)
    with closing(open_source(manifest, request.params.get("scenario") or None)) as source:
        parts = source.list_parts(day)
        if len(parts) < 2:
            return _build_result(request, "no", f"{day} was not delivered in parts; ingest reads it alone", 0, [])
        rules = compare_day(day, request.as_of, manifest, open_snapshot_store()).build_rules()
        landed_parts, scratch_root = open_parts(day, manifest), find_work_room()
        refused = [
            told
            for part in shard.select_share(parts)
            if (told := _check_part(source, part, landed_parts, scratch_root, manifest, rules))
        ]
    return _describe_result(request, shard, day, len(parts), refused)


def _check_part(
    source: Source,
    part: DeliveryPart,
    landed_parts: LandedParts,
    scratch_root: Path,
    manifest: DataManifest,
    rules: list[Expectation],
) -> str | None:
    """Sees to it that the part is kept. Its refusal, where it cannot be read."""
    with open_scratch_directory(scratch_root) as workspace, translate_write_errors(workspace):
        try:
            landed = landed_parts.find(part, workspace) or landed_parts.land(part, source.make_budget(), workspace)
        except Permanent as refusal:
            log.warning("left to ingest: %s", refusal)
            return str(refusal)
        landed_parts.keep_checks(landed, manifest, rules)
        log.info("%s: %d rows are read and checked", part.name, landed.rows.count if landed.rows else 0)
    return None


def _describe_result(request: JobRequest, shard: Shard, day: date, parts: int, refusals: list[str]) -> JobResult:
    share = len(shard.select_share(range(parts)))
    left = f"; left to ingest: {' '.join(refusals)}" if refusals else ""
    summary = f"shard {shard}: {share - len(refusals)} of {parts} parts of {day} are read and checked{left}"
    return _build_result(request, "yes", summary, share, refusals)


def _build_result(request: JobRequest, verdict: str, summary: str, share: int, refusals: list[str]) -> JobResult:
    outputs = {"parts": share, "refused": len(refusals)}
    fields = {
        "job": request.job,
        "run_key": request.run_key,
        "verdict": verdict,
        "summary": summary,
        "outputs": outputs,
    }
    return JobResult.model_validate(fields)
