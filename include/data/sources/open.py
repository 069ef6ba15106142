"""Where one day's rows come from, behind one port: `Source`. This module chooses; each kind has a module of its own.

A source hands out Arrow record batches of bounded size, so a day of any volume passes through a few megabytes. It does
not judge values: CSV cells come as the text they are (an empty one as null), Parquet and SQL keep their types, and the
contract, which knows every column's type, says later what is wrong with which row. What a source does refuse is what
cannot be read as rows at all: a truncated file, a ragged line, a missing table, a withdrawn key.

A day has parts: what can be read by itself, and so by another machine (`include.data.landing.landed_parts`). A file is
one, an object is one, and so is a span of the day in a database. There a day is one moment of the table, and who reads
it is told by the server whether a span that was read at another moment is still the same.

Imports of readers stay inside the functions: the factory and the tests of small things import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from include.data.spec import DataManifest, FilesSource, ReplaySource, S3Source
from include.kernel.errors import RequestInvalid

if TYPE_CHECKING:
    import pyarrow as pa

    from include.data.sources.delivered_files import Budget

ROOT = Path(__file__).resolve().parents[3]
MAX_BATCH_ROWS = 65_536
POSTGRES_CONNECTION = "evergreen_postgres"  # the Airflow Connection, and what a job reads of it: a libpq string
POSTGRES_VARIABLE = "EVERGREEN_POSTGRES_DSN"


class Part(Protocol):
    """What of a day can be read by itself: one file, one object."""

    @property
    def name(self) -> str:
        """What refusals call it."""
        ...

    def content(self) -> str | None:
        """What tells its bytes from any others: size and digest. None where only reading them all would.

        Raises what reading would raise for a part that is not what it was delivered as.
        """
        ...

    def read(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        """Its rows, at most `MAX_BATCH_ROWS` a batch, all of one schema."""
        ...


class Source(Protocol):
    """Rows by day. Raises `DataRefused` naming file, column and fix, `AccessRefused`, or `ServiceUnavailable`."""

    def parts(self, day: date) -> Sequence[Part]:
        """The parts of `day` in the order of delivery; none where nothing was delivered."""
        ...

    def budget(self) -> Budget:
        """What one day may unfold to, all of it still to be spent."""
        ...

    def batches(self, day: date) -> Iterator[pa.RecordBatch]:
        """The rows of `day` in the order of delivery, at most `MAX_BATCH_ROWS` a batch, all of one schema.

        No delivery, or one without rows, gives no batch.
        """
        budget = self.budget()
        for part in self.parts(day):
            yield from part.read(budget)

    def close(self) -> None:
        """Ends what reading holds open."""
        return

    def describe(self, day: date) -> str:
        """What is read for `day`, as URIs with size and digest where there is one; holds no secret, for the lineage."""
        ...


@dataclass(frozen=True)
class WholeDay:
    """A day that only one reader can read, and that has no digest before it was read."""

    name: str
    rows: Callable[[Budget], Iterator[pa.RecordBatch]]

    def content(self) -> None:
        return None

    def read(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        return self.rows(budget)


def open_source(manifest: DataManifest, scenario: str | None = None) -> Source:
    """The source of the manifest. `scenario` changes rows openly and exists for the replay alone."""
    spec = manifest.source
    if scenario and not isinstance(spec, ReplaySource):
        raise RequestInvalid(f"Scenario {scenario!r} exists for the replay source only; leave it empty.")
    if isinstance(spec, ReplaySource):
        from include.data.sources.replay import Replay

        return Replay(spec, manifest.contract.id, scenario)
    if isinstance(spec, FilesSource):
        from include.data.sources.files import Files

        return Files(spec)
    if isinstance(spec, S3Source):
        from include.data.sources.s3 import S3

        return S3(spec)
    from include.data.sources.postgres import Postgres

    return Postgres(spec, manifest.contract.id)


def absolute(path: str) -> Path:
    """A path of the manifest: from the project's root unless it starts with a slash."""
    return Path(path) if Path(path).is_absolute() else ROOT / path
