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
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from include.data.core.contract import Validation, should_render_docs
from include.data.core.snapshots import CONTRACT_REPORT, Snapshot, compute_known_on
from include.data.jobs.validate import open_parts
from include.data.landing.landed_rows import LandedRows
from include.data.landing.landing import land_parts
from include.data.sources.base import DeliveryPart, Source
from include.data.sources.open import open_source
from include.data.spec import DataManifest
from include.data.store.content import read_content
from include.data.validation.landed_parts import GatheredRows, LandedParts
from include.data.validation.polars_validator import validate
from include.data.validation.reference_day import Comparison, compare_day, parse_day
from include.data.wiring import find_data_docs, find_work_room, open_snapshot_store
from include.kernel.code_digest import INGESTING, compute_code_digest
from include.kernel.errors import Conflict, DataRefused
from include.kernel.files import open_scratch_directory, translate_write_errors, write_atomic
from include.kernel.job import Intent, JobRequest, JobResult

if TYPE_CHECKING:
    from include.data.sources.base import Budget

log = logging.getLogger(__name__)


def run(request: JobRequest, manifest: DataManifest) -> JobResult:
    """Params: `day` (ISO date), `scenario` (replay source only). Raises `DataRefused` when the contract is broken."""
    day, scenario = parse_day(request), request.params.get("scenario") or None
    store, docs = open_snapshot_store(), find_data_docs()
    landed_parts = open_parts(day, manifest) if manifest.fan_out.validation > 1 else None
    with (
        closing(open_source(manifest, scenario)) as source,
        open_scratch_directory(find_work_room()) as workspace,
        translate_write_errors(workspace),
    ):
        landed, read = _land_delivery(source, day, landed_parts, workspace, manifest.declared_columns)
        source.close()  # what is held of a database is not held until the day is published
        if landed is None:
            return _build_result(
                request, "no", f"no rows were delivered for {day}; nothing was published", {"day": str(day)}
            )
        log.info("landed %d rows of %s from %s", landed.rows.count, day, read)
        validation = _validate_rows(
            landed, landed_parts, workspace, day, compare_day(day, request.as_of, manifest, store)
        )
        page, page_problem = _write_docs_page(landed.rows, validation, request, day, manifest, docs)
        accepted = _require_accepted(validation, page, docs)
        snapshot = _describe_snapshot(accepted, validation, read, request, day, manifest)
        twin = store.find_same_rows(snapshot)
        if twin:
            warning = f"the very rows of {twin} came again: deliver the day's own, and ingest it again"
            log.warning("warning: %s", warning)
            snapshot = snapshot.model_copy(update={"warnings": (*snapshot.warnings, warning)})
        changed = store.publish(snapshot, accepted, _collect_evidence(validation, workspace), intent=request.intent)
        shown = _publish_quarantine_page(validation, day, docs)
        if landed_parts:
            landed_parts.clear()
    pages = {"data_docs": page, "data_docs_problem": page_problem, "quarantine_page": shown}
    more = {"uri": store.build_uri(snapshot), "changed": changed, "same_rows_as": str(twin) if twin else None, **pages}
    return _describe_result(request, snapshot, more)


def _land_delivery(
    source: Source, day: date, landed_parts: LandedParts | None, workspace: Path, declared: frozenset[str] | None
) -> tuple[GatheredRows | None, str]:
    """The delivered rows and what they were read from. Raises `Conflict` when that changed while it was read."""
    read, parts, budget = source.describe(day), source.list_parts(day), source.make_budget()
    if landed_parts:
        landed = landed_parts.gather(parts, budget, workspace)
    else:
        landed = _read_parts(parts, budget, workspace, declared)
    if source.describe(day) != read:
        raise Conflict(f"The delivery of {day} changed while it was read ({read}); try again when it is complete.")
    return landed, read


def _read_parts(
    parts: Sequence[DeliveryPart], budget: Budget, workspace: Path, declared: frozenset[str] | None
) -> GatheredRows | None:
    """The same rows in one file, none of which was found."""
    landing = land_parts((part.read(budget) for part in parts), workspace, declared=declared)
    if landing is None:
        return None
    rows = LandedRows.build_from_landing(landing)
    return GatheredRows(rows, (None,) * len(rows.fragments))


def _validate_rows(
    landed: GatheredRows, landed_parts: LandedParts | None, workspace: Path, day: date, comparison: Comparison
) -> Validation:
    return validate(
        landed.rows,
        comparison.manifest,
        day,
        directory=workspace,
        reference=comparison.reference,
        published=comparison.published,
        place=f"{day} of {comparison.manifest.source.place}",
        checks=landed_parts.read_checks(landed, comparison.build_rules()) if landed_parts else (),
    )


def _write_docs_page(
    landed: LandedRows, validation: Validation, request: JobRequest, day: date, manifest: DataManifest, docs: Path
) -> tuple[str | None, str | None]:
    """The day's page of Data Docs, where the manifest wants one, or why there is none: the verdict stands without."""
    live = request.intent is Intent.LIVE
    if not should_render_docs(manifest.contract.data_docs, live, bool(validation.refusal)):
        return None, None
    from include.data.validation import data_docs

    rules = [outcome.expectation for outcome in validation.outcomes]
    note = (
        validation.refusal
        or f"{validation.rows - validation.quarantined} of {validation.rows} rows of {day} were accepted."
    )
    try:
        return str(data_docs.write(landed, rules, manifest.name, day, note, docs)), None
    except Exception as error:  # whatever the engine stumbles over, the day has its verdict already
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        log.warning("no page of Data Docs could be drawn for %s (%s)", day, problem)
        return None, problem


def _require_accepted(validation: Validation, page: str | None, docs: Path) -> Path:
    """The file of the rows that may be published. Raises `DataRefused`."""
    if validation.refusal or validation.accepted is None:
        where = f" Its page is {docs / 'site' / page}." if page else ""
        raise DataRefused(f"{validation.refusal}{where}", page)
    log.info("%d expectations run, %d rows set aside", len(validation.outcomes), validation.quarantined)
    for warning in validation.warnings:
        log.warning("warning: %s", warning)
    return validation.accepted


def _describe_snapshot(
    accepted: Path, validation: Validation, source: str, request: JobRequest, day: date, manifest: DataManifest
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
        quarantined=validation.quarantined,
        manifest=manifest.digest,
        code=compute_code_digest(*INGESTING),
        expectations=len(validation.outcomes),
        warnings=validation.warnings,
        known_on=compute_known_on(day, request.as_of),
    )


def _collect_evidence(validation: Validation, workspace: Path) -> dict[str, Path]:
    """What is kept beside the rows: the report, and the rows that were set aside with a page to read them."""
    report = workspace / CONTRACT_REPORT
    report.write_text(json.dumps([asdict(outcome) for outcome in validation.outcomes], default=str, indent=1))
    return {path.name: path for path in (report, validation.quarantine, validation.page) if path}


def _publish_quarantine_page(validation: Validation, day: date, docs: Path) -> str | None:
    """The page of the rows that were set aside, where a browser finds it: its place in the site of Data Docs."""
    if validation.page is None:
        return None
    place = f"quarantine/{day}.html"
    write_atomic(docs / "site" / place, validation.page.read_text())
    return place


def _describe_result(request: JobRequest, snapshot: Snapshot, more: Mapping[str, object]) -> JobResult:
    aside = f", {snapshot.quarantined} were set aside" if snapshot.quarantined else ""
    warned = f", {len(snapshot.warnings)} warnings" if snapshot.warnings else ""
    problem = more["data_docs_problem"]
    undrawn = f"; no page of Data Docs could be drawn ({problem})" if problem else ""
    again = f"; these are the very rows of {more['same_rows_as']}, delivered again" if more["same_rows_as"] else ""
    state = "published" if more["changed"] else "already published, nothing rewritten"
    summary = (
        f"{snapshot.rows} rows of {snapshot.day} passed {snapshot.expectations} expectations{aside}{warned}: "
        f"snapshot {snapshot.id[:12]} {state}{again}{undrawn}"
    )
    outputs = snapshot.model_dump(mode="json", exclude={"columns", "types", "files"})
    return _build_result(request, "yes", summary, {**outputs, **more})


def _build_result(request: JobRequest, verdict: str, summary: str, outputs: dict[str, object]) -> JobResult:
    return JobResult.model_validate(
        {"job": "ingest", "run_key": request.run_key, "verdict": verdict, "summary": summary, "outputs": outputs}
    )
