"""The snapshot store on a local disk: immutable, content-addressed days, and the monitor's reports.

    <root>/snapshots/<day>/<id>/{rows.parquet, sample.json, snapshot.json}     never rewritten
    <root>/days/<day>.json                                        which snapshot of a day counts
    <root>/reports/<version>/<as_of>.json                         one monitor report

Publishing renames a finished directory into place and then moves the day's pointer: a kill between the two leaves a
snapshot nobody points to, and the next run finishes the work. Descriptions are read without pandas, so that sensors and
deciders stay light.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.adapters.files import write_atomic
from include.core.episodes import MonitorReport
from include.core.snapshots import Snapshot

if TYPE_CHECKING:
    import pandas as pd

ROWS = "rows.parquet"
SAMPLE = "sample.json"
SAMPLE_ROWS = 50
DESCRIPTION = "snapshot.json"


def content_id(rows: pd.DataFrame) -> str:
    """sha256 over the rows in canonical text form: independent of the file format and its version."""
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


class LocalStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def publish(self, snapshot: Snapshot, rows: pd.DataFrame) -> bool:
        """Makes `snapshot` the one that counts for its day. False when it already was: nothing is rewritten."""
        place = self._place(snapshot)
        if not (place / DESCRIPTION).exists():
            self._write(place, snapshot, rows)
        pointer = self._root / "days" / f"{snapshot.day}.json"
        known = pointer.read_text() if pointer.exists() else None
        if known == snapshot.id:
            return False
        write_atomic(pointer, snapshot.id)
        return True

    def _write(self, place: Path, snapshot: Snapshot, rows: pd.DataFrame) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=place.parent))
        try:
            rows.to_parquet(scratch / ROWS, index=False)
            rows.head(SAMPLE_ROWS).to_json(scratch / SAMPLE, orient="records")
            (scratch / DESCRIPTION).write_text(snapshot.model_dump_json(indent=1))
            self._rename(scratch, place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @staticmethod
    def _rename(scratch: Path, place: Path) -> None:
        try:
            scratch.rename(place)
        except OSError:
            if not (place / DESCRIPTION).exists():
                raise  # else another publisher of the same content was first, which is as good

    def _place(self, snapshot: Snapshot) -> Path:
        return self._root / "snapshots" / str(snapshot.day) / snapshot.id

    def uri(self, snapshot: Snapshot) -> str:
        return str(self._place(snapshot))

    def snapshots(self) -> list[Snapshot]:
        """The snapshot that counts of every day, oldest day first."""
        return [self._described(pointer) for pointer in sorted((self._root / "days").glob("*.json"))]

    def history(self) -> list[Snapshot]:
        """Every version of every day with the day from which it is known, in the order they were entered."""
        return self.snapshots()

    def _described(self, pointer: Path) -> Snapshot:
        place = self._root / "snapshots" / pointer.stem / pointer.read_text()
        return Snapshot.model_validate_json((place / DESCRIPTION).read_text())

    def newest_day(self) -> date | None:
        days = sorted((self._root / "days").glob("*.json"))
        return date.fromisoformat(days[-1].stem) if days else None

    def rows(self, snapshots: Iterable[Snapshot], columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of these snapshots, in their order; with `columns`, only those are read."""
        import pandas as pd

        wanted = list(columns) if columns is not None else None
        return pd.concat([pd.read_parquet(self._place(s) / ROWS, columns=wanted) for s in snapshots], ignore_index=True)

    def sample(self, snapshot: Snapshot, columns: Iterable[str]) -> list[dict[str, Any]]:
        """The first rows of a snapshot, these columns only, read without pandas."""
        wanted = tuple(columns)
        rows = json.loads((self._place(snapshot) / SAMPLE).read_text())
        return [{name: row[name] for name in wanted} for row in rows]

    def write_report(self, report: MonitorReport) -> None:
        write_atomic(self._report_path(report.version, report.as_of), report.model_dump_json(indent=1))

    def report_page(self, version: str, as_of: date) -> Path:
        """Where the report's HTML page belongs."""
        return self._report_path(version, as_of).with_suffix(".html")

    def write_page(self, place: Path, html: str) -> None:
        write_atomic(place, html)

    def _report_path(self, version: str, as_of: date) -> Path:
        return self._root / "reports" / version / f"{as_of}.json"

    def reports(self) -> list[MonitorReport]:
        """Reports on all versions, by day and then by version, oldest first."""
        paths = (self._root / "reports").glob("*/*.json")
        found = [MonitorReport.model_validate_json(path.read_text()) for path in paths]
        return sorted(found, key=lambda report: (report.as_of, _numeric(report.version)))


def _numeric(version: str) -> int:
    return int(version) if version.isdigit() else 0
