"""Land, validate, publish: one day's rows become an immutable snapshot, or nothing at all.

One job and not three, because starting a process takes longer than validating a day. Whatever is not
published yet lies in a room of the job's own, which is swept when the job dies.
"""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from include.adapters import factory
from include.adapters.content import Content, read_content
from include.adapters.files import scratch
from include.adapters.sources import open_source, read_day
from include.adapters.validator_polars import validate
from include.core.errors import DataRefused, RequestInvalid
from include.core.job import JobRequest, JobResult
from include.core.manifest import Manifest
from include.core.snapshots import Snapshot, known_on

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: Manifest) -> JobResult:
    """Params: `day` (ISO date), `scenario` (replay source only). Raises `DataRefused` when the contract is broken."""
    day, scenario = _day(request), request.params.get("scenario") or None
    rows = read_day(manifest, day, scenario)
    if rows.empty:
        return _result(request, "no", f"no rows were delivered for {day}; nothing was published", {"day": str(day)})
    log.info("landed %d rows of %s%s", len(rows), day, f" under scenario {scenario}" if scenario else "")
    with scratch(factory.work_room()) as room:
        rows.to_parquet(room / "landed.parquet", index=False)
        accepted, expected = _validated(room, day, manifest)
        snapshot = _described(read_content(accepted), request, day, scenario, manifest, expected)
        changed = factory.store().publish(snapshot, accepted, intent=request.intent)
    outputs = {**snapshot.model_dump(mode="json", exclude={"columns", "types"}), "uri": factory.store().uri(snapshot)}
    news = "published" if changed else "already published, nothing rewritten"
    summary = (
        f"{len(rows)} rows of {day} passed {snapshot.expectations} expectations: snapshot {snapshot.id[:12]} {news}"
    )
    return _result(request, "yes", summary, {**outputs, "changed": changed})


def _day(request: JobRequest) -> date:
    try:
        return date.fromisoformat(str(request.params["day"]))
    except (KeyError, ValueError) as error:
        raise RequestInvalid("ingest needs params.day as an ISO date, such as 2026-08-01.") from error


def _validated(room: Path, day: date, manifest: Manifest) -> tuple[Path, int]:
    """The rows that passed, and the number of expectations."""
    place = f"{day} of {manifest.source.place}"
    found = validate(room / "landed.parquet", manifest, day, directory=room, place=place)
    if found.refusal or found.accepted is None:
        raise DataRefused(found.refusal)
    return found.accepted, len(found.outcomes)


def _described(
    content: Content, request: JobRequest, day: date, scenario: str | None, manifest: Manifest, rules: int
) -> Snapshot:
    begin = datetime.combine(day, time(), UTC)
    return Snapshot(
        id=content.id,
        day=day,
        rows=content.rows,
        columns=content.columns,
        types=content.types,
        interval=(begin, begin + timedelta(days=1)),
        source=open_source(manifest, scenario).describe(day),
        manifest=manifest.digest,
        code=factory.code_digest(),
        expectations=rules,
        known_on=known_on(day, request.as_of),
    )


def _result(request: JobRequest, verdict: str, summary: str, outputs: dict[str, object]) -> JobResult:
    return JobResult.model_validate(
        {"job": "ingest", "run_key": request.run_key, "verdict": verdict, "summary": summary, "outputs": outputs}
    )
