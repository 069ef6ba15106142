"""Where the monitor's reports lie, by the environment."""

from __future__ import annotations

from pathlib import Path

from include.kernel.environment import read_setting
from include.monitoring.report_store import LocalReports


def open_report_store() -> LocalReports:
    return LocalReports(Path(read_setting("EVERGREEN_STORE")))
