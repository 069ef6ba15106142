"""The monitor's reports in the store's directory, each with its page beside it."""

from datetime import date
from pathlib import Path

from include.kernel.files import write_atomic
from include.monitoring.core.episodes import MonitorReport


class LocalReports:
    """<root>/reports/<version>/<as_of>.json and the page beside it: one monitor report a version and day."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write_report(self, report: MonitorReport) -> None:
        write_atomic(self._locate_report(report.version, report.as_of), report.model_dump_json(indent=1))

    def locate_page(self, version: str, as_of: date) -> Path:
        """Where the report's HTML page belongs."""
        return self._locate_report(version, as_of).with_suffix(".html")

    def write_page(self, path: Path, html: str) -> None:
        write_atomic(path, html)

    def _locate_report(self, version: str, as_of: date) -> Path:
        return self._root / "reports" / version / f"{as_of}.json"

    def read_newest(self, version: str) -> MonitorReport | None:
        """The newest report on this version; without reading the others, of which a year has many."""
        path = max((self._root / "reports" / version).glob("*.json"), default=None)
        return MonitorReport.model_validate_json(path.read_text()) if path else None

    def read_reports(self) -> list[MonitorReport]:
        """Reports on all versions, by day and then by version, oldest first."""
        paths = (self._root / "reports").glob("*/*.json")
        reports = [MonitorReport.model_validate_json(path.read_text()) for path in paths]
        return sorted(reports, key=lambda report: (report.as_of, _parse_version(report.version)))


def _parse_version(version: str) -> int:
    return int(version) if version.isdigit() else 0
