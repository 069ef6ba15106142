"""Looking on where a record cannot be read: which one it is, is part of what was seen."""

from collections.abc import Iterator
from contextlib import contextmanager

from include.kernel.errors import RecordDamaged


@contextmanager
def record_damage(name: str, damaged: set[str]) -> Iterator[None]:
    """Reads on where a record is damaged, and adds its name."""
    try:
        yield
    except RecordDamaged:
        damaged.add(name)
