"""Parts of a day that were read and checked elsewhere: pieces (include.kernel.work_units) of the work of `ingest`.

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
from include.data.landing.landed_rows import Rows
from include.data.landing.landing import FILE, land
from include.data.spec import DataManifest
from include.data.store.snapshot_store import Objects, md5_of
from include.data.validation import column_casts, row_checks
from include.data.validation.row_checks import Marks
from include.kernel.errors import Conflict, RequestInvalid
from include.kernel.files import linked
from include.kernel.work_units import PREFIX, Piece, piece

if TYPE_CHECKING:
    from include.data.sources.base import Budget, Part
    from include.data.store.work_units import Pieces

DESCRIBED, MARKED, ROWS = "landed", "marks", "landed-rows"  # kinds of pieces; the last one are the files themselves
ENGINES = f"pyarrow {pa.__version__}, polars {pl.__version__}"


@dataclass(frozen=True)
class Described:
    """What is stored of a landed part beside its file; without `md5` it has no rows."""

    md5: str | None
    needed: float
    spent: int


@dataclass(frozen=True)
class LandedPart:
    """A part that was landed, in `rows`; None where it has none. `needed` and `spent` are bytes of a day's budget."""

    name: str
    piece: Piece
    needed: float
    spent: int
    rows: Rows | None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What the source would give, batch by batch."""
        for batch in self.rows.row_groups() if self.rows else ():
            yield batch.replace_schema_metadata({FILE: self.name.encode()})


@dataclass(frozen=True)
class Gathered:
    """The rows of a day, and for each of their fragments the part it was found as; None for one that was read here."""

    rows: Rows
    found: tuple[LandedPart | None, ...]


class LandedParts:
    """The parts of one day. `code` is the digest of the code that reads and checks."""

    def __init__(self, objects: Objects, pieces: Pieces, day: date, code: str) -> None:
        self._objects = objects
        self._pieces = pieces
        self._day = day
        self._code = code

    def find(self, part: Part, room: Path) -> LandedPart | None:
        """The part as somebody landed it; None where nobody did, or what is left of it is damaged."""
        content = part.content()
        if content is None:
            return None
        named = self._named(part, content)
        found = self._pieces.read(named)
        if found is None:
            return None
        told = Described(**json.loads(found))
        path = self._fetched(told.md5, room) if told.md5 else None
        if told.md5 and not path:
            return None
        return LandedPart(part.name, named, told.needed, told.spent, Rows.of(path) if path else None)

    def land(self, part: Part, budget: Budget, room: Path) -> LandedPart:
        """Reads the part and keeps its rows. `budget` is that of a day of its own, `room` an empty directory.

        Raises `Conflict` when it changed while it was read, and what its source raises.
        """
        content = part.content()
        if content is None:
            raise RequestInvalid(f"{part.name} has no digest before it is read, so it is not kept; ingest reads it.")
        landed = land(part.read(budget), room)
        if part.content() != content:
            raise Conflict(f"{part.name} changed while it was read; deliver it by a rename.")
        md5 = md5_of(landed.path) if landed else None
        told = Described(md5, budget.needed, budget.spent)
        if landed and md5:
            self._keep(md5, landed.path, room)
        named = self._named(part, content)
        self._pieces.get(named, lambda: json.dumps(asdict(told)).encode())
        return LandedPart(part.name, named, told.needed, told.spent, Rows.landed(landed) if landed else None)

    def gather(self, parts: Iterable[Part], budget: Budget, room: Path) -> Gathered | None:
        """The whole day: parts that were landed elsewhere from there, the others read here; None without any rows.

        The first part with rows says which columns there are. Raises what reading the day in one go would raise.
        """
        schema: pa.Schema | None = None
        gathered: list[tuple[Rows, LandedPart | None]] = []
        for number, part in enumerate(parts):
            own = room / f"part-{number}"
            own.mkdir()
            found = _paid(self.find(part, own), budget)
            rows = found.rows if found else None
            if rows is None or (schema is not None and rows.schema != schema):
                landed = land(found.batches() if found else part.read(budget), own, schema)
                found, rows = None, Rows.landed(landed) if landed else None
            if rows:
                schema = schema or rows.schema
                gathered.append((rows, found))
        fragments = tuple(each for rows, _ in gathered for each in rows.fragments)
        return Gathered(Rows(fragments), tuple(found for _, found in gathered)) if fragments else None

    def mark(self, part: LandedPart, manifest: DataManifest, rules: Sequence[Expectation]) -> None:
        """Keeps which rows of the part break which of the rules, unless that is there already."""
        if part.rows:
            rows, there = part.rows, [cell for cell in column_casts.form(part.rows.schema, manifest) if cell.kind]
            raws = row_checks.batches(rows, there)
            self._pieces.get(self._marked(part, rules), lambda: row_checks.mark(raws, there, rules).dump())

    def marks(self, gathered: Gathered, rules: Sequence[Expectation]) -> list[Marks | None]:
        """What was kept of each fragment."""
        found = [self._pieces.read(self._marked(part, rules)) if part else None for part in gathered.found]
        return [None if each is None else row_checks.load(each) for each in found]

    def clear(self) -> None:
        """Removes what is kept of the day, and of refused days long gone. Whoever looks for it does without."""
        for kind in (DESCRIBED, MARKED, ROWS):
            self._pieces.sweep(kind, self._day)
            for key in self._objects.keys(f"{PREFIX}/{kind}/{self._day}/"):
                self._objects.remove(key)

    def _named(self, part: Part, content: str) -> Piece:
        return piece(DESCRIBED, self._day, part.name, content, self._code, ENGINES)

    def _marked(self, part: LandedPart, rules: Sequence[Expectation]) -> Piece:
        told = json.dumps([asdict(rule) for rule in rules], default=str)
        return piece(MARKED, self._day, part.piece.key, hashlib.sha256(told.encode()).hexdigest())

    def _place(self, md5: str) -> str:
        return f"{PREFIX}/{ROWS}/{self._day}/{md5}"

    def _fetched(self, md5: str, room: Path) -> Path | None:
        """The landed file of these bytes, in `room`, where nobody takes it away."""
        own = room / f"{md5}.parquet"
        with suppress(FileNotFoundError):
            path = self._objects.local(self._place(md5), room)
            if path is not None and md5_of(path) == md5:
                return own if own.exists() else linked(path, own)
        return None

    def _keep(self, md5: str, path: Path, room: Path) -> None:
        """Stores the file, also in the place of a damaged one."""
        if self._fetched(md5, room) is None:
            self._objects.remove(self._place(md5))
            self._objects.keep(self._place(md5), path)


def _paid(found: LandedPart | None, budget: Budget) -> LandedPart | None:
    """The part, its bytes spent; None where the day is too large with it: to read it, then, is to be told so."""
    if found is None or not budget.covers(found.needed):
        return None
    budget.spend(found.name, found.spent)
    return found
