"""What every source of rows is: `Source`, and the `Part` of a day that can be read by itself.

A source hands out Arrow record batches of bounded size, so a day of any volume passes through a few megabytes. It does
not judge values: CSV cells come as the text they are (an empty one as null), Parquet and SQL keep their types, and the
contract, which knows every column's type, says later what is wrong with which row. What a source does refuse is what
cannot be read as rows at all: a truncated file, a ragged line, a missing table, a withdrawn key.

A day has parts: what can be read by itself, and so by another machine (`include.data.validation.landed_parts`). A file
is one, an object is one, and so is a span of the day in a database. There a day is one moment of the table, and who
reads it is told by the server whether a span that was read at another moment is still the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from include.kernel.environment import ROOT
from include.kernel.errors import DataRefused

if TYPE_CHECKING:
    import pyarrow as pa

GIB = 2**30
MAX_BATCH_ROWS = 65_536
POSTGRES_CONNECTION = "evergreen_postgres"  # the Airflow Connection, and what a job reads of it: a libpq string
POSTGRES_VARIABLE = "EVERGREEN_POSTGRES_DSN"


Declared = Collection[str] | None  # names of the columns that must be as they are declared; None: all of them


def is_declared(name: str, declared: Declared) -> bool:
    return declared is None or name in declared


class Budget:
    """What one day may still unfold to, in bytes; `needed` is the most it had to allow at any one time."""

    def __init__(self, max_gib: float) -> None:
        self._max_gib = max_gib
        self._left = max_gib * GIB
        self.needed = 0.0
        self.spent = 0

    def can_cover(self, nbytes: float) -> bool:
        return nbytes <= self._left

    def check(self, name: str, nbytes: float) -> None:
        """Raises `DataRefused` when `nbytes` more would be too much."""
        self.needed = max(self.needed, self.spent + nbytes)
        if not self.can_cover(nbytes):
            raise DataRefused(
                f"{name} unfolds to more than source.max_gib = {self._max_gib:g} GiB; "
                "deliver a smaller file, or raise the bound in the manifest if the volume is right."
            )

    def spend(self, name: str, nbytes: int) -> None:
        self.check(name, nbytes)
        self._left -= nbytes
        self.spent += nbytes


class DeliveryPart(ABC):
    """What of a day can be read by itself: one file, one object."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What refusals call it."""

    @abstractmethod
    def find_identity(self) -> str | None:
        """What tells its bytes from any others: size and digest. None where only reading them all would.

        Raises what reading would raise for a part that is not what it was delivered as.
        """

    @abstractmethod
    def read(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        """Its rows, at most `MAX_BATCH_ROWS` a batch, all of one schema."""


class Source(ABC):
    """Rows by day. Raises `DataRefused` naming file, column and fix, `AccessRefused`, or `ServiceUnavailable`."""

    @abstractmethod
    def list_parts(self, day: date) -> Sequence[DeliveryPart]:
        """The parts of `day` in the order of delivery; none where nothing was delivered."""

    @abstractmethod
    def make_budget(self) -> Budget:
        """What one day may unfold to, all of it still to be spent."""

    def read_batches(self, day: date) -> Iterator[pa.RecordBatch]:
        """The rows of `day` in the order of delivery, at most `MAX_BATCH_ROWS` a batch, all of one schema.

        No delivery, or one without rows, gives no batch.
        """
        budget = self.make_budget()
        for part in self.list_parts(day):
            yield from part.read(budget)

    def close(self) -> None:
        """Ends what reading holds open."""
        return

    @abstractmethod
    def describe(self, day: date) -> str:
        """What is read for `day`, as URIs with size and digest where there is one; holds no secret, for the lineage."""


class WholeDay(DeliveryPart):
    """A day that only one reader can read, and that has no digest before it was read."""

    def __init__(self, name: str, rows: Callable[[Budget], Iterator[pa.RecordBatch]]) -> None:
        self._name = name
        self._rows = rows

    @property
    def name(self) -> str:
        return self._name

    def find_identity(self) -> None:
        return None

    def read(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        return self._rows(budget)


def resolve_path(path: str) -> Path:
    """A path of the manifest: from the project's root unless it starts with a slash."""
    return Path(path) if Path(path).is_absolute() else ROOT / path
