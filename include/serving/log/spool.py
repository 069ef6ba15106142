"""What a segment will hold, kept on the local disk until the segment is stored: what kill -9 does not take.

Rows reach the spool a fraction of a second after the answer; the segment is written when it is full or old. Between the
two lie `flush_s` seconds of predictions, or an hour of them while a bucket is down, and a server that dies then has
written most of it here. The next server on this directory takes up what has no living owner, under the key the dead one
had chosen, so a segment that was stored just before the kill is found stored. An owner holds a lock on its file, and
the kernel drops a lock when its holder dies.

It is a help and no condition: a full or read-only disk costs the spool and nothing else. Nothing is synced to the disk,
so a power cut takes what the kernel had not written yet.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pyarrow as pa

log = logging.getLogger(__name__)
SUFFIX = ".arrows"


class SpoolFile:
    """The rows of one segment as an Arrow stream, under a lock until it is removed or its process ends."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self._file: IO[bytes] = open(path, "xb", buffering=0)  # noqa: SIM115 - lives as long as the segment
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write(schema.serialize())
        except BaseException:
            self.remove()
            raise

    def add(self, batch: pa.RecordBatch) -> None:
        self._write(batch.serialize())

    def _write(self, message: pa.Buffer) -> None:
        """One call for each message: pyarrow's own writer takes the interpreter's lock anew for each of its buffers."""
        if self._file.write(message) != message.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def leave(self) -> None:
        """To whoever comes next."""
        self._file.close()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()


class Spool:
    """A directory of spool files; without one, every answer is None and nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def begin(self, key: str, schema: pa.Schema) -> SpoolFile | None:
        if self._directory is None:
            return None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            return SpoolFile(self._directory / (key.replace("/", "@") + SUFFIX), schema)
        except OSError as error:
            log.warning("no spool in %s (%s); a killed server loses what it had not stored", self._directory, error)
            return None

    def iterate_orphans(self, stream: str) -> Iterator[tuple[str, pa.Table | None, Path]]:
        """Key, rows and file of what a dead server left, locked while it is looked at. The caller removes the file."""
        for path in sorted(self._directory.glob(f"{stream}@*{SUFFIX}")) if self._directory else ():
            with suppress(FileNotFoundError, BlockingIOError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_nlink:  # else its owner has just removed it
                    yield path.name.removesuffix(SUFFIX).replace("@", "/"), _read_rows(file), path


def _read_rows(file: IO[bytes]) -> pa.Table | None:
    """The whole batches; the last one may be cut."""
    batches = []
    with suppress(pa.ArrowInvalid, OSError), pa.ipc.open_stream(file) as stream:
        for batch in stream:
            batches.append(batch)
    return pa.Table.from_batches(batches) if batches else None
