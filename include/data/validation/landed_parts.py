"""Parts of a day that were read and checked elsewhere: work units (include.kernel.work_units) of the work of `ingest`.

Three things are kept of a part, each of them only where it is whole. Its rows are a landed file under the md5 of its
bytes. Its description says which file that is, and is named by what decides about it: what the source says of the
part's bytes, and our code. Its marks are named by that and by the rules. So a part that was delivered anew is another
part, and a contract that changed, or another day to compare with, costs the checking and not the reading.

Nothing here is needed: `ingest` reads and marks itself what it does not find, and meets there what the source refuses.
Once the day is published its parts go, since the snapshot has the rows; those of a refused day wait, because mostly
one file of it is delivered again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from include.data.core.contract import Expectation
from include.data.landing.landed_rows import LandedRows
from include.data.landing.landing import FILE_KEY, land
from include.data.spec import DataManifest
from include.data.store.snapshot_store import ObjectStore, compute_md5
from include.data.validation import column_casts, row_checks
from include.data.validation.row_checks import RowChecks
from include.kernel.errors import Conflict, RequestInvalid
from include.kernel.files import link_or_copy
from include.kernel.work_units import PREFIX, WorkUnit, build_work_unit

if TYPE_CHECKING:
    from include.data.sources.base import Budget, DeliveryPart
    from include.data.store.work_units import WorkUnitStore

DESCRIPTION_KIND, CHECKS_KIND, ROWS_KIND = (
    "landed",
    "marks",
    "landed-rows",
)  # kinds of work units; the last one are the files themselves
ENGINE_VERSIONS = f"pyarrow {pa.__version__}, polars {pl.__version__}"


@dataclass(frozen=True)
class PartDescription:
    """What is stored of a landed part beside its file; without `md5` it has no rows."""

    md5: str | None
    needed: float
    spent: int


@dataclass(frozen=True)
class LandedPart:
    """A part that was landed, in `rows`; None where it has none. `needed` and `spent` are bytes of a day's budget."""

    name: str
    work_unit: WorkUnit
    needed: float
    spent: int
    rows: LandedRows | None

    def read_batches(self) -> Iterator[pa.RecordBatch]:
        """What the source would give, batch by batch."""
        for batch in self.rows.read_row_groups() if self.rows else ():
            yield batch.replace_schema_metadata({FILE_KEY: self.name.encode()})


@dataclass(frozen=True)
class GatheredRows:
    """The rows of a day, and for each of their fragments the part it was found as; None for one that was read here."""

    rows: LandedRows
    parts: tuple[LandedPart | None, ...]


class LandedParts:
    """The parts of one day. `code` is the digest of the code that reads and checks; only columns that are `declared`
    must be alike in all of them."""

    def __init__(
        self, objects: ObjectStore, work_units: WorkUnitStore, day: date, code: str, declared: frozenset[str] | None
    ) -> None:
        self._objects = objects
        self._work_units = work_units
        self._day = day
        self._code = code
        self._declared = declared

    def find(self, part: DeliveryPart, workspace: Path) -> LandedPart | None:
        """The part as somebody landed it; None where nobody did, or what is left of it is damaged."""
        content = part.find_identity()
        if content is None:
            return None
        unit = self._build_description_unit(part, content)
        stored = self._work_units.read(unit)
        if stored is None:
            return None
        description = PartDescription(**json.loads(stored))
        path = self._fetch_rows(description.md5, workspace) if description.md5 else None
        if description.md5 and not path:
            return None
        return LandedPart(
            part.name, unit, description.needed, description.spent, LandedRows.build_from_file(path) if path else None
        )

    def land(self, part: DeliveryPart, budget: Budget, workspace: Path) -> LandedPart:
        """Reads the part and keeps its rows. `budget` is that of a day of its own, `room` an empty directory.

        Raises `Conflict` when it changed while it was read, and what its source raises.
        """
        content = part.find_identity()
        if content is None:
            raise RequestInvalid(f"{part.name} has no digest before it is read, so it is not kept; ingest reads it.")
        landed = land(part.read(budget), workspace)
        if part.find_identity() != content:
            raise Conflict(f"{part.name} changed while it was read; deliver it by a rename.")
        md5 = compute_md5(landed.path) if landed else None
        description = PartDescription(md5, budget.needed, budget.spent)
        if landed and md5:
            self._keep_rows(md5, landed.path, workspace)
        unit = self._build_description_unit(part, content)
        self._work_units.get_or_make(unit, lambda: json.dumps(asdict(description)).encode())
        return LandedPart(
            part.name,
            unit,
            description.needed,
            description.spent,
            LandedRows.build_from_landing(landed) if landed else None,
        )

    def gather(self, parts: Iterable[DeliveryPart], budget: Budget, workspace: Path) -> GatheredRows | None:
        """The whole day: parts that were landed elsewhere from there, the others read here; None without any rows.

        The first part with rows says which columns there are. Raises what reading the day in one go would raise.
        """
        schema: pa.Schema | None = None
        gathered: list[tuple[LandedRows, LandedPart | None]] = []
        for number, part in enumerate(parts):
            own = workspace / f"part-{number}"
            own.mkdir()
            found = _spend_budget(self.find(part, own), budget)
            rows = found.rows if found else None
            if rows is None or (schema is not None and rows.schema != schema):
                landed = land(found.read_batches() if found else part.read(budget), own, schema, self._declared)
                found, rows = None, LandedRows.build_from_landing(landed) if landed else None
            if rows:
                schema = schema or rows.schema
                gathered.append((rows, found))
        fragments = tuple(each for rows, _ in gathered for each in rows.fragments)
        return GatheredRows(LandedRows(fragments), tuple(found for _, found in gathered)) if fragments else None

    def keep_checks(self, part: LandedPart, manifest: DataManifest, rules: Sequence[Expectation]) -> None:
        """Keeps which rows of the part break which of the rules, unless that is there already."""
        if part.rows:
            rows, columns = (
                part.rows,
                [cell for cell in column_casts.list_casts(part.rows.schema, manifest) if cell.kind],
            )
            raws = row_checks.read_batches(rows, columns)
            self._work_units.get_or_make(
                self._build_checks_unit(part, rules), lambda: row_checks.check_rows(raws, columns, rules).dump()
            )

    def read_checks(self, gathered: GatheredRows, rules: Sequence[Expectation]) -> list[RowChecks | None]:
        """What was kept of each fragment."""
        found = [
            self._work_units.read(self._build_checks_unit(part, rules)) if part else None for part in gathered.parts
        ]
        return [None if each is None else row_checks.load(each) for each in found]

    def clear(self) -> None:
        """Removes what is kept of the day, and of refused days long gone. Whoever looks for it does without."""
        for kind in (DESCRIPTION_KIND, CHECKS_KIND, ROWS_KIND):
            self._work_units.sweep(kind, self._day)
            for key in self._objects.list_keys(f"{PREFIX}/{kind}/{self._day}/"):
                self._objects.remove(key)

    def _build_description_unit(self, part: DeliveryPart, content: str) -> WorkUnit:
        how = (self._code, ENGINE_VERSIONS, *(sorted(self._declared) if self._declared is not None else ()))
        return build_work_unit(DESCRIPTION_KIND, self._day, part.name, content, *how)

    def _build_checks_unit(self, part: LandedPart, rules: Sequence[Expectation]) -> WorkUnit:
        text = json.dumps([asdict(rule) for rule in rules], default=str)
        return build_work_unit(CHECKS_KIND, self._day, part.work_unit.key, hashlib.sha256(text.encode()).hexdigest())

    def _build_rows_key(self, md5: str) -> str:
        return f"{PREFIX}/{ROWS_KIND}/{self._day}/{md5}"

    def _fetch_rows(self, md5: str, workspace: Path) -> Path | None:
        """The landed file of these bytes, in `room`, where nobody takes it away."""
        own = workspace / f"{md5}.parquet"
        with suppress(FileNotFoundError):
            path = self._objects.fetch_into(self._build_rows_key(md5), workspace)
            if path is not None and compute_md5(path) == md5:
                return own if own.exists() else link_or_copy(path, own)
        return None

    def _keep_rows(self, md5: str, path: Path, workspace: Path) -> None:
        """Stores the file, also in the place of a damaged one."""
        if self._fetch_rows(md5, workspace) is None:
            self._objects.remove(self._build_rows_key(md5))
            self._objects.keep(self._build_rows_key(md5), path)


def _spend_budget(part: LandedPart | None, budget: Budget) -> LandedPart | None:
    """The part, its bytes spent; None where the day is too large with it: to read it, then, is to be told so."""
    if part is None or not budget.can_cover(part.needed):
        return None
    budget.spend(part.name, part.spent)
    return part
