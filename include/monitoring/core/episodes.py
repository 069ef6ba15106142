"""Monitor reports and the drift episodes they form; light enough for a sensor and a trigger to import.

An episode is an unbroken run of alarms about one live version. It has a key, so that it is announced once however many
reports repeat it, however often a sensor is restarted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pydantic import BaseModel, ConfigDict

from include.monitoring.core.signals import Signal


class MonitorReport(BaseModel):
    """One monitoring run. `as_of` is the newest ingested day it looked at; `moved` maps a feature to its PSI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    version: str
    alarm: bool
    verdict: str
    rows: int
    moved: dict[str, float]
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    auc_rows: int = 0
    page: str | None = None
    signals: tuple[Signal, ...] = ()
    untold: tuple[str, ...] = ()  # alerts that some channel did not take yet

    @property
    def sentence(self) -> str:
        moved = ", ".join(f"{name} (PSI {psi:.2f})" for name, psi in self.moved.items()) or "no feature moved"
        quality = f"; AUC on {self.auc_rows} matured rows {self.auc:.3f}" if self.auc is not None else ""
        untold = f"; {len(self.untold)} alerts could not be told: {'; '.join(self.untold[:3])}" if self.untold else ""
        return f"version {self.version} as of {self.as_of}: {self.verdict}, {moved}{quality}{untold}"


@dataclass(frozen=True)
class Episode:
    version: str
    began: date
    last: date
    moved: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"drift-{self.version}-{self.began}"


def find_current_episode(reports: Sequence[MonitorReport]) -> Episode | None:
    """The episode the newest report belongs to, or None when that report is no alarm; reports oldest first."""
    run: list[MonitorReport] = []
    for report in reversed(reports):
        if not report.alarm or report.version != reports[-1].version:
            break
        run.append(report)
    if not run:
        return None
    return Episode(run[0].version, run[-1].as_of, run[0].as_of, tuple(run[0].moved))
