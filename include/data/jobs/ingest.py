"""Land, validate, publish: one day's rows become an immutable snapshot, or nothing at all.

One job and not three, because starting a process takes longer than validating a day. Whatever is not published yet
lies in a room of the job's own, which is swept when the job dies; so a kill at any moment leaves the old state, and the
next run starts from the source again. Rows pass through in batches and are never held whole.

A day may come in parts, and with `fan_out.validation` above 1 other machines may have read and checked some of them by
now (include.data.jobs.validate). What they kept is taken in the place of the source; all else goes its one way. So
nothing depends on who read a part: no snapshot, no report, no sentence of a refusal.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from include.data.core.contract import Validation, wants_docs
from include.data.core.snapshots import CONTRACT_REPORT, Snapshot, known_on
from include.data.jobs.validate import open_parts
from include.data.landing.landed_rows import Rows
from include.data.landing.landing import land_parts
from include.data.sources.base import Part, Source
from include.data.sources.open import open_source
from include.data.spec import DataManifest
from include.data.store.content import read_content
from include.data.validation.landed_parts import Gathered, LandedParts
from include.data.validation.polars_validator import validate
from include.data.validation.reference_day import Comparison, compared, day_of
from include.data.wiring import find_data_docs, find_work_room, open_snapshot_store
from include.kernel.code_digest import INGESTING, digest_code
from include.kernel.errors import Conflict, DataRefused
from include.kernel.files import scratch, storing, write_atomic
from include.kernel.job import Intent, JobRequest, JobResult

if TYPE_CHECKING:
    from include.data.sources.base import Budget

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: DataManifest) -> JobResult:
    """Params: `day` (ISO date), `scenario` (replay source only). Raises `DataRefused` when the contract is broken."""
    day, scenario = day_of(request), request.params.get("scenario") or None
    store, docs = open_snapshot_store(), find_data_docs()
    kept = open_parts(day, manifest) if manifest.fan_out.validation > 1 else None
    with closing(open_source(manifest, scenario)) as source, scratch(find_work_room()) as room, storing(room):
        landed, read = _landed(source, day, kept, room)
        source.close()  # what is held of a database is not held until the day is published
        if landed is None:
            return _result(request, "no", f"no rows were delivered for {day}; nothing was published", {"day": str(day)})
        log.info("landed %d rows of %s from %s", landed.rows.count, day, read)
        found = _validated(landed, kept, room, day, compared(day, request.as_of, manifest, store))
        page = _page(landed.rows, found, request, day, manifest, docs)
        accepted = _accepted(found, page, docs)
        snapshot = _described(accepted, found, read, request, day, manifest)
        changed = store.publish(snapshot, accepted, _beside(found, room), intent=request.intent)
        shown = _shown(found, day, docs)
        if kept:
            kept.clear()
    pages = {"data_docs": page, "quarantine_page": shown}
    return _told(request, snapshot, {"uri": store.uri(snapshot), "changed": changed, **pages})


def _landed(source: Source, day: date, kept: LandedParts | None, room: Path) -> tuple[Gathered | None, str]:
    """The delivered rows and what they were read from. Raises `Conflict` when that changed while it was read."""
    read, parts, budget = source.describe(day), source.parts(day), source.budget()
    landed = kept.gather(parts, budget, room) if kept else _read(parts, budget, room)
    if source.describe(day) != read:
        raise Conflict(f"The delivery of {day} changed while it was read ({read}); try again when it is complete.")
    return landed, read


def _read(parts: Sequence[Part], budget: Budget, room: Path) -> Gathered | None:
    """The same rows in one file, none of which was found."""
    landing = land_parts((part.read(budget) for part in parts), room)
    if landing is None:
        return None
    rows = Rows.landed(landing)
    return Gathered(rows, (None,) * len(rows.fragments))


def _validated(landed: Gathered, kept: LandedParts | None, room: Path, day: date, against: Comparison) -> Validation:
    return validate(
        landed.rows,
        against.manifest,
        day,
        directory=room,
        reference=against.reference,
        published=against.published,
        place=f"{day} of {against.manifest.source.place}",
        marks=kept.marks(landed, against.rules()) if kept else (),
    )


def _page(
    landed: Rows, found: Validation, request: JobRequest, day: date, manifest: DataManifest, docs: Path
) -> str | None:
    """The day's page of Data Docs, where the manifest wants one. It is evidence: without it the verdict stands."""
    live = request.intent is Intent.LIVE
    if not wants_docs(manifest.contract.data_docs, live, bool(found.refusal)):
        return None
    from include.data.validation import data_docs

    rules = [outcome.expectation for outcome in found.outcomes]
    told = found.refusal or f"{found.rows - found.quarantined} of {found.rows} rows of {day} were accepted."
    try:
        return str(data_docs.write(landed, rules, manifest.name, day, told, docs))
    except Exception:  # whatever the engine stumbles over, the day has its verdict already
        log.warning("no page of Data Docs for %s", day, exc_info=True)
        return None


def _accepted(found: Validation, page: str | None, docs: Path) -> Path:
    """The file of the rows that may be published. Raises `DataRefused`."""
    if found.refusal or found.accepted is None:
        where = f" Its page is {docs / 'site' / page}." if page else ""
        raise DataRefused(f"{found.refusal}{where}", page)
    log.info("%d expectations run, %d rows set aside", len(found.outcomes), found.quarantined)
    for warning in found.warnings:
        log.warning("warning: %s", warning)
    return found.accepted


def _described(
    accepted: Path, found: Validation, source: str, request: JobRequest, day: date, manifest: DataManifest
) -> Snapshot:
    content, begin = read_content(accepted), datetime.combine(day, time(), UTC)
    return Snapshot(
        id=content.id,
        day=day,
        rows=content.rows,
        columns=content.columns,
        types=content.types,
        interval=(begin, begin + timedelta(days=1)),
        source=source,
        quarantined=found.quarantined,
        manifest=manifest.digest,
        code=digest_code(*INGESTING),
        expectations=len(found.outcomes),
        warnings=found.warnings,
        known_on=known_on(day, request.as_of),
    )


def _beside(found: Validation, room: Path) -> dict[str, Path]:
    """What is kept beside the rows: the report, and the rows that were set aside with a page to read them."""
    report = room / CONTRACT_REPORT
    report.write_text(json.dumps([asdict(outcome) for outcome in found.outcomes], default=str, indent=1))
    return {path.name: path for path in (report, found.quarantine, found.page) if path}


def _shown(found: Validation, day: date, docs: Path) -> str | None:
    """The page of the rows that were set aside, where a browser finds it: its place in the site of Data Docs."""
    if found.page is None:
        return None
    place = f"quarantine/{day}.html"
    write_atomic(docs / "site" / place, found.page.read_text())
    return place


def _told(request: JobRequest, snapshot: Snapshot, more: dict[str, object]) -> JobResult:
    aside = f", {snapshot.quarantined} were set aside" if snapshot.quarantined else ""
    warned = f", {len(snapshot.warnings)} warnings" if snapshot.warnings else ""
    news = "published" if more["changed"] else "already published, nothing rewritten"
    summary = (
        f"{snapshot.rows} rows of {snapshot.day} passed {snapshot.expectations} expectations{aside}{warned}: "
        f"snapshot {snapshot.id[:12]} {news}"
    )
    outputs = snapshot.model_dump(mode="json", exclude={"columns", "types", "files"})
    return _result(request, "yes", summary, {**outputs, **more})


def _result(request: JobRequest, verdict: str, summary: str, outputs: dict[str, object]) -> JobResult:
    return JobResult.model_validate(
        {"job": "ingest", "run_key": request.run_key, "verdict": verdict, "summary": summary, "outputs": outputs}
    )
