"""The monitor's page: what moved, by how much, in which of the last windows. One self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from include.core.drift import Window
from include.core.episodes import MonitorReport
from include.jobs.page_style import STYLE


def page(report: MonitorReport, windows: Sequence[Window]) -> str:
    newest = windows[-1]
    state = '<span class="alarm">alarm</span>' if report.alarm else '<span class="calm">no alarm</span>'
    past = ", ".join(f"{window.last}: {escape(window.verdict)}" for window in windows)
    body = [
        f"<h1>Version {escape(report.version)} as of {report.as_of}: {state}</h1>",
        f"<p>{escape(report.sentence)}.</p><p>Windows, oldest first: {past}. Rows in the newest: {newest.rows}.</p>",
        "<table><tr><th>feature</th><th>PSI</th><th></th><th>p (chi-square)</th></tr>",
        *(_row(f.feature, f.psi, f.p_value, f.moved) for f in sorted(newest.features, key=lambda f: -f.psi)),
        "</table>",
        _quality(report),
    ]
    return f"<!doctype html><meta charset=utf-8><title>Monitor</title><style>{STYLE}</style>{''.join(body)}"


def _row(feature: str, psi: float, p_value: float, moved: bool) -> str:
    width = min(psi / 2, 1) * 100
    return (
        f'<tr class="{"moved" if moved else ""}"><td>{escape(feature)}</td><td>{psi:.3f}</td>'
        f'<td style="width:50%"><div class="bar" style="width:{width:.1f}%"></div></td><td>{p_value:.2g}</td></tr>'
    )


def _quality(report: MonitorReport) -> str:
    if report.auc is None:
        return "<p>No labels of these days are known yet.</p>"
    interval = f"[{report.auc_low:.3f}, {report.auc_high:.3f}]"
    return f"<p>AUC on {report.auc_rows} matured rows: {report.auc:.3f} {interval}.</p>"
