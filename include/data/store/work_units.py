"""Work units in the snapshot store, under a prefix of their own: see include.kernel.work_units for what they are.

Get or make: what is there, whole, is read; everything else is made here and now. Two makers of one unit at the same
time cost one of them its work, and both go on with the work unit that was stored first, so that those who ask later see
what those who asked before saw, also where making it again would not give the same bytes (a search that ran out of
seconds).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

from include.kernel.errors import Conflict
from include.kernel.work_units import PREFIX, WorkUnit, list_expired

if TYPE_CHECKING:
    from include.data.store.snapshot_store import ObjectStore

log = logging.getLogger(__name__)


class WorkUnitStore:
    """Raises `Conflict`, and what its objects raise."""

    def __init__(self, objects: ObjectStore, keep_days: int) -> None:
        """`keep_days`: days of data after which `sweep` takes a work unit for old."""
        self._objects = objects
        self._keep_days = keep_days

    def read(self, unit: WorkUnit) -> bytes | None:
        """The content; None where there is no such work unit, or a damaged one."""
        found = self._objects.read(unit.place)
        return unit.unwrap(found.data) if found else None

    def has(self, unit: WorkUnit) -> bool:
        return self.read(unit) is not None

    def get_or_make(self, unit: WorkUnit, make: Callable[[], bytes]) -> bytes:
        """The content, made by `make` if it is not there, and then kept."""
        found = self.read(unit)
        return found if found is not None else self._keep(unit, make())

    def _keep(self, unit: WorkUnit, content: bytes) -> bytes:
        """In the place of a damaged one, if there is any. Gives the content that counts."""
        found = self._objects.read(unit.place)
        if found is not None:
            if (other := unit.unwrap(found.data)) is not None:
                return other
            log.warning("%s/%s is damaged, and made again", self._objects.uri, unit.place)
        if self._objects.write(unit.place, unit.wrap(content), found.tag if found else None):
            return content
        stored = self.read(unit)
        if stored is None:
            raise Conflict(f"{self._objects.uri}/{unit.place} is being written by another run too; try again.")
        return stored

    def sweep(self, kind: str, today: date) -> int:
        """Removes work units of this kind that are past their time; how many there were.

        `today` is a day of the data: that of the newest work of this kind.
        """
        gone = list_expired(self._objects.list_keys(f"{PREFIX}/{kind}/"), today, self._keep_days)
        for place in gone:
            self._objects.remove(place)
        return len(gone)
