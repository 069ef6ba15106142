"""Parts of a day that were read and checked elsewhere: pieces (include.core.pieces) of the work of `ingest`.

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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from include.adapters import cells, row_marks
from include.adapters.landing import FILE, land
from include.adapters.row_marks import Marks
from include.adapters.store import Objects, md5_of
from include.core.contract import Expectation
from include.core.errors import Conflict, RequestInvalid
from include.core.manifest import Manifest
from include.core.pieces import PREFIX, Piece, piece

if TYPE_CHECKING:
    from include.adapters.delivered_files import Budget
    from include.adapters.pieces import Pieces
    from include.adapters.sources import Part

DESCRIBED, MARKED, ROWS = "landed", "marks", "landed-rows"  # kinds of pieces; the last one are the files themselves
ENGINES = f"pyarrow {pa.__version__}, polars {pl.__version__}"


@dataclass(frozen=True)
class Described:
    """A landed part; without `md5` it has no rows. `needed` bytes of its day's budget it asked for, `spent` it took."""

    rows: int
    md5: str | None
    needed: float
    spent: int


@dataclass(frozen=True)
class LandedPart:
    """A part that was landed. Its rows lie in `file`, which is open until they were read; None where it has none."""

    name: str
    piece: Piece
    told: Described
    file: pq.ParquetFile | None

    def batches(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        """What the source would give, batch by batch."""
        budget.spend(self.name, self.told.spent)
        if self.file is None:
            return
        with self.file as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=self.told.rows, row_groups=[group]):
                    yield batch.replace_schema_metadata({FILE: self.name.encode()})

    def fits(self, schema: pa.Schema) -> bool:
        """Whether its marks hold where its rows lie in a file of this schema."""
        return self.file is not None and bool(self.file.schema_arrow.equals(schema))


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
        if told.md5 is None:
            return LandedPart(part.name, named, told, None)
        file = self._rows(told.md5, room)
        return LandedPart(part.name, named, told, file) if file else None

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
        told = Described(landed.rows if landed else 0, md5, budget.needed, budget.spent)
        if landed and md5:
            self._keep(md5, landed.path, room)
        named = self._named(part, content)
        kept = self._pieces.get(named, lambda: json.dumps(asdict(told)).encode())
        file = pq.ParquetFile(landed.path, pre_buffer=False) if landed else None
        return LandedPart(part.name, named, Described(**json.loads(kept)), file)

    def mark(self, part: LandedPart, manifest: Manifest, rules: Sequence[Expectation]) -> None:
        """Keeps which rows of the part break which of the rules, unless that is there already."""
        if part.file is None:
            return
        with part.file as file:
            groups, form = range(file.num_row_groups), cells.form(file.schema_arrow, manifest)
            self._pieces.get(self._marked(part, rules), lambda: row_marks.mark(file, groups, form, rules).dump())

    def marks(self, part: LandedPart, rules: Sequence[Expectation]) -> Marks | None:
        found = self._pieces.read(self._marked(part, rules))
        return row_marks.load(found) if found is not None else None

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

    def _rows(self, md5: str, room: Path) -> pq.ParquetFile | None:
        """The landed file of these bytes, open, so that nobody can take it away any more."""
        with suppress(FileNotFoundError):
            path = self._objects.local(self._place(md5), room)
            if path is not None and md5_of(path) == md5:
                file = pq.ParquetFile(path, pre_buffer=False)
                if path.parent == room:  # a copy of ours
                    path.unlink()
                return file
        return None

    def _keep(self, md5: str, path: Path, room: Path) -> None:
        """Stores the file, also in the place of a damaged one."""
        if self._rows(md5, room) is None:
            self._objects.remove(self._place(md5))
            self._objects.keep(self._place(md5), path)
