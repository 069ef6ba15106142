"""CSV and Parquet files on a disk, one or more a day, by a pattern that holds {day} and may hold wildcards.

A day without a matching file was not delivered, which is no error; a folder that should hold the files and is not there
is one, since an unmounted disk would otherwise look like days without data. A file that changes while it is read is
read again later. Whoever writes `<file>.sha256` beside a file (the format of sha256sum) has it checked before use: of
a CSV, and of most Parquet, it is the only proof that no byte was turned on the way.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from include.data.sources import delivered_files
from include.data.sources.base import Budget, Declared, DeliveryPart, Source, resolve_path
from include.data.sources.delivered_files import FileSurvey
from include.data.spec import FilesSource
from include.kernel.errors import Conflict, DataRefused, ServiceUnavailable

if TYPE_CHECKING:
    import pyarrow as pa

WILDCARDS = re.compile(r"[*?[]")


@dataclass(frozen=True)
class DeliveredFile(DeliveryPart):
    source: Files
    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def find_identity(self) -> str:
        return self.source.check_file(self.path).identity

    def read(self, budget: Budget) -> Iterator[pa.RecordBatch]:
        return self.source.read(self.path, budget)


class Files(Source):
    def __init__(self, spec: FilesSource, declared: Declared = None) -> None:
        self._spec, self._declared = spec, declared
        self._known: dict[Path, tuple[tuple[int, int], FileSurvey]] = {}

    def list_parts(self, day: date) -> list[DeliveredFile]:
        return [DeliveredFile(self, path) for path in self._list_paths(day)]

    def make_budget(self) -> Budget:
        return Budget(self._spec.max_gib)

    def describe(self, day: date) -> str:
        files = []
        for path in self._list_paths(day):
            with _open_file(path) as handle:
                known = self._survey(path, handle)
                files.append((f"file://{path}", known.size, known.identity))
        return delivered_files.describe_files(self._spec.path.format(day=day), files)

    def _list_paths(self, day: date) -> list[Path]:
        """The files of `day` in the order of their names. Raises `ServiceUnavailable` when their folder is gone."""
        pattern = _escape_literal_parts(str(resolve_path(self._spec.path.format(day=day))))
        folder = _find_fixed_folder(str(resolve_path(self._spec.path)))
        if not folder.is_dir():
            raise ServiceUnavailable(f"The folder {folder} of source.path is not there; mount or create it.")
        return [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]

    def check_file(self, path: Path) -> FileSurvey:
        """The file as it is now. Raises `DataRefused` when it is not the one its checksum was written for."""
        with _open_file(path) as handle:
            known = self._survey(path, handle)
        _check_checksum(path, known)
        return known

    def read(self, path: Path, budget: Budget) -> Iterator[pa.RecordBatch]:
        with _open_file(path) as handle:
            stamp = _read_stamp(handle)
            known = self._survey(path, handle)
            _check_checksum(path, known)
            yield from delivered_files.read(handle, str(path), known, budget, self._declared)
            if _read_stamp(handle) != stamp:
                raise Conflict(f"{path} was still being written while it was read; deliver it by a rename.")

    def _survey(self, path: Path, handle: BinaryIO) -> FileSurvey:
        stamp = _read_stamp(handle)
        if path not in self._known or self._known[path][0] != stamp:
            self._known[path] = (stamp, delivered_files.survey(handle))
        return self._known[path][1]


def _find_fixed_folder(pattern: str) -> Path:
    """The part of a pattern that is the same on every day: the folder deliveries come into."""
    parts = Path(pattern).parts
    literal = list(_iterate_literal_parts(parts))
    ends = next(number for number, part in enumerate(parts) if "{" in part or number >= len(literal))
    return Path(*parts[:ends])


def _iterate_literal_parts(parts: tuple[str, ...]) -> Iterator[str]:
    """The leading parts that are names: they hold no wildcard, or there is a file or folder of this very name."""
    for number, part in enumerate(parts, 1):
        if WILDCARDS.search(part) and not os.path.lexists(Path(*parts[:number])):
            return
        yield part


def _escape_literal_parts(path: str) -> str:
    """`path` as a pattern in which a bracket in a name that is there is no wildcard."""
    parts = Path(path).parts
    literal = list(_iterate_literal_parts(parts))
    return str(Path(*map(glob.escape, literal), *parts[len(literal) :]))


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    try:
        handle = open(path, "rb")  # noqa: SIM115  (closed below; only the opening may fail in these ways)
    except FileNotFoundError as error:
        raise Conflict(f"{path} went away before it was read; deliver it again.") from error
    except IsADirectoryError as error:
        raise DataRefused(f"{path} is a folder; name the files in it in source.path, as {path}/*.parquet.") from error
    except OSError as error:
        raise DataRefused(f"{path} cannot be opened ({error.strerror}); give this user the right to.") from error
    with handle:
        yield handle


def _read_stamp(handle: BinaryIO) -> tuple[int, int]:
    seen = os.fstat(handle.fileno())
    return seen.st_size, seen.st_mtime_ns


def _check_checksum(path: Path, known: FileSurvey) -> None:
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.exists():
        return
    wanted = beside.read_text(errors="replace").split()[:1]
    if wanted != [known.sha256]:
        raise DataRefused(f"{path} is not the file {beside.name} was written for; deliver both again, whole.")
