"""Land, validate, publish: one day's rows become an immutable snapshot, or nothing at all.

One job and not three, because starting a process takes longer than validating a day. Whatever is not published yet
lies in a room of the job's own, which is swept when the job dies; so a kill at any moment leaves the old state, and the
next run starts from the source again. Rows pass through in batches and are never held whole.

A day may come in parts, and with `fan_out.validation` above 1 other machines may have read and checked some of them by
now (include.jobs.validate). What they kept is taken in the place of the source, batch by batch as the source would give
it; all else goes its one way. So nothing depends on who read a part: no snapshot, no report, no sentence of a refusal.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from include.adapters import factory
from include.adapters.content import read_content
from include.adapters.files import scratch, storing, write_atomic
from include.adapters.landed_parts import LandedPart, LandedParts
from include.adapters.landing import Landing, land_parts
from include.adapters.sources import Source, open_source
from include.adapters.store import ContentStore
from include.adapters.validator_polars import Span, validate
from include.core.contract import Expectation, Validation, wants_docs
from include.core.errors import Conflict, DataRefused
from include.core.job import Intent, JobRequest, JobResult
from include.core.manifest import Manifest
from include.core.snapshots import Snapshot, known_on
from include.jobs.comparison import compared, day_of
from include.jobs.validate import READS, kept_parts

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
REPORT = "contract.json"  # kept beside the rows: every expectation with what was found


@dataclass(frozen=True)
class Delivery:
    """A day from wherever its parts are; `found` becomes what was taken from `kept`, None for a part read here."""

    source: Source
    day: date
    kept: LandedParts | None
    room: Path
    found: list[LandedPart | None] = field(default_factory=list)

    def parts(self) -> Iterator[Iterator[pa.RecordBatch]]:
        """The batches of each part, in the order of delivery."""
        budget = self.source.budget()
        for part in self.source.parts(self.day):
            found = self.kept.find(part, self.room) if self.kept else None
            if found and not budget.covers(found.told.needed):
                found = None  # read on, up to where the day is too large
            self.found.append(found)
            yield found.batches(budget) if found else part.read(budget)

    def spans(self, landed: Landing, rules: list[Expectation]) -> list[Span]:
        """The parts in the landed file, with the marks of those whose rows lie there as they were marked."""
        schema = pq.read_schema(landed.path)
        return [
            Span(groups, self.kept.marks(found, rules) if self.kept and found and found.fits(schema) else None)
            for groups, found in zip(landed.parts, self.found, strict=True)
        ]


def run(request: JobRequest, manifest: Manifest) -> JobResult:
    """Params: `day` (ISO date), `scenario` (replay source only). Raises `DataRefused` when the contract is broken."""
    day, scenario = day_of(request), request.params.get("scenario") or None
    source, store = open_source(manifest, scenario), factory.store()
    kept = kept_parts(day) if manifest.fan_out.validation > 1 else None
    with scratch(factory.work_room()) as room, storing(room):
        delivery = Delivery(source, day, kept, room)
        landed, read = _landed(delivery)
        if landed is None:
            return _result(request, "no", f"no rows were delivered for {day}; nothing was published", {"day": str(day)})
        log.info("landed %d rows of %s from %s", landed.rows, day, read)
        found = _validated(landed, delivery, request.as_of, manifest, store)
        page = _page(landed, found, request, day, manifest)
        accepted = _accepted(found, page)
        snapshot = _described(accepted, found, read, request, day, manifest)
        changed = store.publish(snapshot, accepted, _beside(found, room), intent=request.intent)
        shown = _shown(found, day)
        if kept:
            kept.clear()
    pages = {"data_docs": page, "quarantine_page": shown}
    return _told(request, snapshot, {"uri": store.uri(snapshot), "changed": changed, **pages})


def _landed(delivery: Delivery) -> tuple[Landing | None, str]:
    """The delivered rows and what they were read from. Raises `Conflict` when that changed while it was read."""
    source, day = delivery.source, delivery.day
    read = source.describe(day)
    landed = land_parts(delivery.parts(), delivery.room)
    if source.describe(day) != read:
        raise Conflict(f"The delivery of {day} changed while it was read ({read}); try again when it is complete.")
    return landed, read


def _validated(landed: Landing, delivery: Delivery, as_of: date, manifest: Manifest, store: ContentStore) -> Validation:
    against = compared(delivery.day, as_of, manifest, store)
    return validate(
        landed.path,
        manifest,
        delivery.day,
        directory=delivery.room,
        reference=against.reference,
        published=[store.file(each) for each in against.watched],
        place=f"{delivery.day} of {manifest.source.place}",
        parts=delivery.spans(landed, against.rules()),
    )


def _page(landed: Landing, found: Validation, request: JobRequest, day: date, manifest: Manifest) -> str | None:
    """The day's page of Data Docs, where the manifest wants one. It is evidence: without it the verdict stands."""
    live = request.intent is Intent.LIVE
    if not wants_docs(manifest.contract.data_docs, live, bool(found.refusal)):
        return None
    from include.adapters import data_docs

    rules = [outcome.expectation for outcome in found.outcomes]
    told = found.refusal or f"{found.rows - found.quarantined} of {found.rows} rows of {day} were accepted."
    try:
        return str(data_docs.write(landed.path, rules, manifest.name, day, told, factory.data_docs()))
    except Exception:  # whatever the engine stumbles over, the day has its verdict already
        log.warning("no page of Data Docs for %s", day, exc_info=True)
        return None


def _accepted(found: Validation, page: str | None) -> Path:
    """The file of the rows that may be published. Raises `DataRefused`."""
    if found.refusal or found.accepted is None:
        where = f" Its page is {factory.data_docs() / 'site' / page}." if page else ""
        raise DataRefused(f"{found.refusal}{where}", page)
    log.info("%d expectations run, %d rows set aside", len(found.outcomes), found.quarantined)
    for warning in found.warnings:
        log.warning("warning: %s", warning)
    return found.accepted


def _described(
    accepted: Path, found: Validation, source: str, request: JobRequest, day: date, manifest: Manifest
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
        code=factory.code_digest(READS),
        expectations=len(found.outcomes),
        warnings=found.warnings,
        known_on=known_on(day, request.as_of),
    )


def _beside(found: Validation, room: Path) -> dict[str, Path]:
    """What is kept beside the rows: the report, and the rows that were set aside with a page to read them."""
    report = room / REPORT
    report.write_text(json.dumps([asdict(outcome) for outcome in found.outcomes], default=str, indent=1))
    return {path.name: path for path in (report, found.quarantine, found.page) if path}


def _shown(found: Validation, day: date) -> str | None:
    """The page of the rows that were set aside, where a browser finds it: its place in the site of Data Docs."""
    if found.page is None:
        return None
    place = f"quarantine/{day}.html"
    write_atomic(factory.data_docs() / "site" / place, found.page.read_text())
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
