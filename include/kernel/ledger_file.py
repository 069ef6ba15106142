"""The ledger as one JSON-lines file, appended to under a lock."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from include.kernel import ledger
from include.kernel.files import hold_lock
from include.kernel.ledger import Entry

LOCK_TIMEOUT_S = 20.0  # for whoever is appending


class LocalLedger:
    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, entry: Entry) -> bool:
        with hold_lock(self._path.with_suffix(".lock"), LOCK_TIMEOUT_S):
            if entry.key and self._has_entry(entry.what, entry.key):
                return False
            self._write(entry.model_copy(update={"previous": self.compute_head_hash()}))
        return True

    def _has_entry(self, what: str, key: str) -> bool:
        named = json.dumps(key, ensure_ascii=False).encode()
        found = (ledger.parse_entry(line) for line in self.read_lines() if named in line)
        return any(entry is not None and (entry.what, entry.key) == (what, key) for entry in found)

    def _write(self, entry: Entry) -> None:
        with open(self._path, "ab") as file:
            if file.tell() and not self._has_final_newline():
                file.write(b"\n")  # a line cut off by a kill must not swallow this one
            file.write(entry.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _has_final_newline(self) -> bool:
        with open(self._path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def read_entries(self, *kinds: str) -> Iterator[Entry]:
        """Those of these kinds, by default all, oldest first. A line cut off by a kill was never acknowledged and is
        passed over.
        """
        names = [json.dumps(kind).encode() for kind in kinds] or [b""]
        for line in self.read_lines():
            is_named = any(name in line for name in names)  # reading all of a long ledger takes seconds
            entry = ledger.parse_entry(line) if is_named else None
            if entry and (not kinds or entry.what in kinds):
                yield entry

    def read_lines(self) -> list[bytes]:
        """As they are stored; splitlines would also break at U+2028 within a reason."""
        return self._path.read_bytes().split(b"\n") if self._path.exists() else []

    def compute_head_hash(self) -> str:
        """The hash of the newest entry's line, which the next entry carries."""
        newest = next((line for line in reversed(self.read_lines()) if ledger.parse_entry(line)), None)
        return ledger.hash_line(newest) if newest else ledger.GENESIS_HASH
