"""The snapshot store: immutable, content-addressed days over any place that can keep objects.

    snapshots/<day>/<id>/snapshot.json      the description; written last, so what has one is whole
                         sample.json        the first rows, for whoever must not load pandas
                         <name>.dvc         one pointer a file: DVC's own format
    files/md5/<xx>/<rest>                   the files themselves, under the names a DVC remote gives them
    days/<day>.json                         the day's history: [{id, known_on}, ...], the last one counts

Rows lie where DVC would look for them, and nowhere else: the store *is* a DVC remote, without a second copy. Every
object but the history is written once and never changed, under a name that says what is in it; a publisher that is
killed leaves objects nobody points to, and the next one finds them done. The history is the one thing that moves, by
compare-and-set, so two publishers of one day both stand in it, one after the other. Descriptions are read without
pandas, so that sensors and deciders stay light.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError

from include.data.core.snapshots import Snapshot, StoredFile, Version, enter_version
from include.data.store.content import open_parquet
from include.kernel.errors import Conflict, DataRefused
from include.kernel.job import Intent

if TYPE_CHECKING:
    import pandas as pd

ROWS = "rows.parquet"
SAMPLE = "sample.json"
SAMPLE_ROWS = 50
DESCRIPTION = "snapshot.json"
NEAR_DAYS = 7
READER_THREADS = 8
ATTEMPTS = 20  # at the compare-and-set of a history; each one lost means that another publisher got through

_history = TypeAdapter(tuple[Version, ...])


@dataclass(frozen=True)
class StoredObject:
    """An object and the tag of this very version of it."""

    data: bytes
    tag: str


class ObjectStore(ABC):
    """What a place must be able to do. All of it is atomic: an object is there, whole, or it is not."""

    uri: str

    @abstractmethod
    def read(self, key: str) -> StoredObject | None: ...

    @abstractmethod
    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        """Writes if the object still has this tag, or with None if there is none; else False and nothing is written."""

    @abstractmethod
    def add(self, key: str, data: bytes) -> None:
        """Stores `data` unless the key is there already: then it is the same object, written before a kill."""

    @abstractmethod
    def keep(self, key: str, file: Path) -> None:
        """Stores a file's bytes, unless the key is there already. The file must not be changed afterwards."""

    @abstractmethod
    def fetch(self, key: str, md5: str) -> Path | None:
        """A local file with the object's bytes, to be read only; None when there is no such object.

        `md5` is what they should be: a copy of one's own that is damaged is fetched again.
        """

    @abstractmethod
    def fetch_into(self, key: str, workspace: Path) -> Path | None:
        """As `fetch`, but a file that must be fetched is put into `room`, unchecked."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Nothing, if there is no such object."""

    @abstractmethod
    def list_keys(self, prefix: str) -> list[str]: ...


class SnapshotStore:
    """Raises `DataRefused` for what is damaged, `Conflict`, and what its objects raise."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    @property
    def objects(self) -> ObjectStore:
        """The place itself, for what is kept in it beside snapshots."""
        return self._objects

    def publish(
        self,
        snapshot: Snapshot,
        accepted: Path,
        extras: Mapping[str, Path] | None = None,
        *,
        intent: Intent = Intent.LIVE,
    ) -> bool:
        """Enters the Parquet file `accepted` as what its day holds, from `snapshot.known_from` on.

        `extras` are kept beside it. False when the day's history holds it already: then nothing is rewritten. Raises
        `DataRefused` when it would change what a past day knew, and leaves nothing behind.
        """
        version = Version(id=snapshot.id, known_on=snapshot.known_from)
        known = self._read_versions(snapshot.day)
        if enter_version(known, version, snapshot.day, intent) == known:
            return False
        place = _build_snapshot_prefix(snapshot)
        if self._objects.read(f"{place}/{DESCRIPTION}") is None:
            self._describe(place, snapshot, {ROWS: accepted, **(extras or {})})
        return self._enter_version(version, snapshot.day, intent)

    def _describe(self, place: str, snapshot: Snapshot, files: Mapping[str, Path]) -> None:
        stored = tuple(self._keep(place, name, path) for name, path in files.items())
        self._objects.write(f"{place}/{SAMPLE}", json.dumps(_take_sample(files[ROWS])).encode(), None)
        description = snapshot.model_copy(update={"files": stored}).model_dump_json(indent=1, exclude={"known_on"})
        self._objects.write(f"{place}/{DESCRIPTION}", description.encode(), None)  # False: another publisher was first

    def _keep(self, place: str, name: str, path: Path) -> StoredFile:
        stored = StoredFile(name=name, size=path.stat().st_size, md5=compute_md5(path))
        self._objects.keep(_build_file_key(stored), path)
        self._objects.write(f"{place}/{name}.dvc", render_dvc_pointer(stored).encode(), None)
        return stored

    def _enter_version(self, version: Version, day: date, intent: Intent) -> bool:
        for _ in range(ATTEMPTS):
            found = self._objects.read(_build_history_key(day))
            known = self._parse_versions(day, found)
            history = enter_version(known, version, day, intent)
            if history == known:
                return False
            if self._objects.write(
                _build_history_key(day), _history.dump_json(history, indent=1), found.tag if found else None
            ):
                return True
        raise Conflict(f"{self._objects.uri}/{_build_history_key(day)} changed {ATTEMPTS} times meanwhile; try again.")

    def _parse_versions(self, day: date, found: StoredObject | None) -> tuple[Version, ...]:
        try:
            return _history.validate_json(found.data) if found else ()
        except ValidationError as error:
            place = f"{self._objects.uri}/{_build_history_key(day)}"
            raise DataRefused(f"{place} is not a list of versions; remove it and ingest {day} again.") from error

    def build_uri(self, snapshot: Snapshot) -> str:
        return f"{self._objects.uri}/{_build_snapshot_prefix(snapshot)}"

    def list_days(self) -> list[date]:
        """Every day that has a snapshot, oldest first."""
        keys = [Path(key) for key in self._objects.list_keys("days/")]
        return sorted(date.fromisoformat(key.stem) for key in keys if key.suffix == ".json")

    def find_same_rows(self, snapshot: Snapshot) -> date | None:
        """Another day, one of the `NEAR_DAYS` published before or after, that holds the very rows of this snapshot."""
        days = self.list_days()
        before = [day for day in days if day < snapshot.day][-NEAR_DAYS:]
        near = [*before, *[day for day in days if day > snapshot.day][:NEAR_DAYS]]
        return next((day for day in near if self._read_versions(day)[-1].id == snapshot.id), None)

    def find_newest_day(self) -> date | None:
        return max(self.list_days(), default=None)

    def read_history(self) -> list[Snapshot]:
        """Every version of every day with the day from which it is known, in the order they were entered."""
        days = self.list_days()
        with ThreadPoolExecutor(READER_THREADS) as pool:  # in a bucket, each read is a journey
            entries = zip(days, pool.map(self._read_versions, days), strict=True)
            versions = [(day, version) for day, known in entries for version in known]
            return list(pool.map(self._read_snapshot, *zip(*versions, strict=True))) if versions else []

    def list_snapshots(self) -> list[Snapshot]:
        """The snapshot that counts of every day, oldest day first."""
        return list({snapshot.day: snapshot for snapshot in self.read_history()}.values())

    def _read_versions(self, day: date) -> tuple[Version, ...]:
        return self._parse_versions(day, self._objects.read(_build_history_key(day)))

    def _read_snapshot(self, day: date, version: Version) -> Snapshot:
        key = f"snapshots/{day}/{version.id}/{DESCRIPTION}"
        found = self._objects.read(key)
        if found is None:
            raise DataRefused(f"{self._objects.uri}/{key} is gone, but {day} points to it; restore it from a backup.")
        return Snapshot.model_validate_json(found.data).model_copy(update={"known_on": version.known_on})

    def fetch_file(self, snapshot: Snapshot, name: str = ROWS) -> Path:
        """A local copy of one of the snapshot's files, to be read only. Raises `DataRefused` when it is damaged."""
        stored = next((each for each in snapshot.files if each.name == name), None)
        path = self._objects.fetch(_build_file_key(stored), stored.md5) if stored else None
        if stored is None or path is None:
            raise DataRefused(f"{self.build_uri(snapshot)} lost its {name}; remove it and ingest {snapshot.day} again.")
        if compute_md5(path) != stored.md5:
            place, again = f"{self._objects.uri}/{_build_file_key(stored)}", f"then ingest {snapshot.day} again"
            raise DataRefused(f"{place} is not what was published; remove it and {self.build_uri(snapshot)}, {again}.")
        return path

    def read_rows(self, snapshots: Iterable[Snapshot], columns: Iterable[str] | None = None) -> pd.DataFrame:
        """The rows of these snapshots, in their order; with `columns`, these columns only."""
        import pandas as pd

        wanted = None if columns is None else list(columns)
        return pd.concat(
            [pd.read_parquet(self.fetch_file(each), columns=wanted) for each in snapshots], ignore_index=True
        )

    def read_sample(self, snapshot: Snapshot, columns: Iterable[str]) -> list[dict[str, Any]]:
        """The first rows of a snapshot, these columns only, read without pandas."""
        found = self._objects.read(f"{_build_snapshot_prefix(snapshot)}/{SAMPLE}")
        if found is None:
            raise DataRefused(
                f"{self.build_uri(snapshot)} lost its {SAMPLE}; remove it and ingest {snapshot.day} again."
            )
        wanted = tuple(columns)
        return [{name: row[name] for name in wanted} for row in json.loads(found.data)]


def compute_md5(path: Path) -> str:
    """Against damage, not against forgers: it is DVC's choice. The snapshot's id is a sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def render_dvc_pointer(file: StoredFile) -> str:
    """What `dvc add` would write for this file, to the letter."""
    return f"outs:\n- md5: {file.md5}\n  size: {file.size}\n  hash: md5\n  path: {file.name}\n"


def _build_file_key(file: StoredFile) -> str:
    return f"files/md5/{file.md5[:2]}/{file.md5[2:]}"


def _build_history_key(day: date) -> str:
    return f"days/{day}.json"


def _build_snapshot_prefix(snapshot: Snapshot) -> str:
    return f"snapshots/{snapshot.day}/{snapshot.id}"


def _take_sample(path: Path) -> list[dict[str, Any]]:
    import polars as pl  # pyarrow would load pandas to make a datetime

    with open_parquet(path) as file:
        first = next(file.iter_batches(SAMPLE_ROWS), None)
    rows = cast(pl.DataFrame, pl.from_arrow(first)).to_dicts() if first is not None else []
    return [{name: _convert_to_json(value) for name, value in row.items()} for row in rows]


def _convert_to_json(value: Any) -> Any:
    """What JSON can say; it has no word for NaN and infinity, which count as missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
