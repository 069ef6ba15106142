"""What a person sees: a live table where there is a terminal, plain lines where there is none (CI, a log).

Never silent for more than a few seconds: a start that takes half a minute should not look like one that hangs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from include.embedded.configuration.settings import EmbeddedSettings

REPORT_INTERVAL_S = 5.0


class Progress:
    """Which programs are still waited for, shown while `with` lasts."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.started = time.monotonic()
        self.last_line_at = 0.0
        self.healthy_before: set[str] = set()
        self.live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def show(self, report: Mapping[str, str | None]) -> None:
        """`report`: for each program what is missing, None when it is healthy."""
        if self.live:
            self.live.update(self._build_table(report))
        else:
            self._print_lines(report)

    def _build_table(self, report: Mapping[str, str | None]) -> Table:
        table = Table(title=f"{time.monotonic() - self.started:.0f} s", box=None, show_header=False)
        for name, missing in report.items():
            mark = Text("…", "yellow") if missing else Text("✓", "green")
            table.add_row(mark, name, Text(missing or "healthy"))
        return table

    def _print_lines(self, report: Mapping[str, str | None]) -> None:
        seconds = time.monotonic() - self.started
        healthy = {name for name, missing in report.items() if missing is None}
        for name in sorted(healthy - self.healthy_before):
            self.console.print(f"{seconds:4.0f} s  {name} is healthy")
        if not healthy - self.healthy_before and seconds - self.last_line_at >= REPORT_INTERVAL_S:
            self.console.print(f"{seconds:4.0f} s  waiting for {', '.join(sorted(set(report) - healthy))}")
        elif not healthy - self.healthy_before:
            return
        self.healthy_before, self.last_line_at = healthy, seconds


def build_address_table(settings: EmbeddedSettings) -> Table:
    """Where everything is."""
    login = f"{settings.user} / {settings.password}"
    rows = [
        ("Airflow UI", settings.airflow_url, login),
        ("MLflow", settings.mlflow_url, ""),
        ("Predictions (through Envoy)", settings.serving_url, ""),
        ("Envoy admin", settings.envoy_admin_url, ""),
        ("Blue slot", settings.blue_url, ""),
        ("Green slot", settings.green_url, ""),
        ("Metrics of monitoring", f"{settings.exporter_url}/metrics", ""),
        ("Process manager", settings.supervisor_url, "in secrets.json"),
    ]
    table = Table(title="Evergreen is up")
    for heading in ("What", "Where", "User / password"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
