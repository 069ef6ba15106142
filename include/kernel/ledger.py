"""The ledger's entries: who decided what, why, and by which data, code, manifest and model.

Entries are only ever appended. An entry may carry a `key`: a ledger holds each key once, which is how a retried task
avoids saying the same thing twice. Each entry also carries the hash of the line before it, so that a line which was
changed, taken out or put in afterwards breaks the chain at a place that can be named. What a chain cannot show is an
end that was cut off, or a ledger that somebody wrote anew from the first line to the last: note the newest hash
somewhere else (`make history` prints it) if that has to be proved.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

GENESIS_HASH = "0" * 64  # what the first entry of a chain follows


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str = Field(description="noun.verb, such as gate.refused or release.live")
    subject: str = Field(description="what it is about: a model version, a snapshot, an episode")
    who: str = Field(description="DAG and run, or person")
    why: str
    details: dict[str, Any] = Field(default_factory=dict)
    key: str | None = None
    at: datetime = Field(default_factory=lambda: datetime.now(UTC), description="wall clock, for readers only")
    previous: str | None = Field(None, description="sha256, hex, of the line before; set by the ledger")


def build_live_key(release: Mapping[str, Any]) -> str:
    """By which release.live stands once for a release, whichever run, command or reconciliation says it."""
    return f"release.live-{release['generation']}-{str(release['digest'])[:12]}"


def parse_entry(line: bytes) -> Entry | None:
    """The entry of a line; None for a line cut off by a kill, which was never acknowledged."""
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None


def hash_line(line: bytes) -> str:
    """sha256, hex, of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def find_broken_entry(lines: Iterable[bytes]) -> int | None:
    """The number, from 1, of the first entry that does not follow the one before it; None while the chain is whole.

    Lines that hold no entry are passed over. Entries from before the chain carry no hash; after the first one that
    does, every one must.
    """
    last, chained = GENESIS_HASH, False
    for number, (line, entry) in enumerate(((line, entry) for line in lines if (entry := parse_entry(line))), 1):
        chained = chained or entry.previous is not None
        if chained and entry.previous != last:
            return number
        last = hash_line(line)
    return None
