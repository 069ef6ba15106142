"""The monitor's page: what moved, by how much, since when, and what to do. One self-contained HTML file.

What was raised stands first with its action; the whole of what was measured follows check by check, because a calm page
that shows nothing cannot be told from a monitor that looked at nothing.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from include.kernel.page_style import STYLE
from include.monitoring.core.drift import Window
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.false_alarms import compute_budget
from include.monitoring.core.signals import Signal, list_raised
from include.monitoring.spec import MonitorSpec

PICTURE_SUFFIX = ".evidently.html"  # how the name of an alarm's picture ends, beside this page
COLUMN_HEADINGS = ("subject", "measure", "value", "", "interval or p", "bound", "also", "severity")


def render_monitor_page(report: MonitorReport, windows: Sequence[Window], spec: MonitorSpec) -> str:
    state = '<span class="alarm">alarm</span>' if report.alarm else '<span class="calm">no alarm</span>'
    past = ", ".join(f"{window.last}: {escape(window.verdict)}" for window in windows)
    body = [
        f"<h1>Version {escape(report.version)} as of {report.as_of}: {state}</h1>",
        f"<p>{escape(report.sentence)}.</p><p>Windows, oldest first: {past}. Rows in the newest: {report.rows}.</p>",
        _render_untold(report),
        _render_picture_link(report),
        _render_raised(report.signals, windows),
        _render_quality(report),
        *_render_checks(report.signals),
        f"<p>Budget: {escape(compute_budget(spec).sentence)}.</p>",
    ]
    return f"<!doctype html><meta charset=utf-8><title>Monitor</title><style>{STYLE}</style>{''.join(body)}"


def _render_untold(report: MonitorReport) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.untold)
    return f'<h2 class="alarm">What could not be told to people</h2><ul>{items}</ul>' if items else ""


def _render_picture_link(report: MonitorReport) -> str:
    picture = Path(report.page).with_suffix(PICTURE_SUFFIX) if report.page else None
    if picture is None or not picture.exists():
        return ""
    return f'<p><a href="{escape(picture.name)}">Every column beside its baseline</a>, drawn by Evidently.</p>'


def _render_raised(signals: Sequence[Signal], windows: Sequence[Window]) -> str:
    items = [
        f"<li>{escape(signal.sentence)} {_describe_since(signal, windows)}</li>" for signal in list_raised(signals)
    ]
    return f"<h2>What to do</h2><ul>{''.join(items)}</ul>" if items else "<p>No signal was raised.</p>"


def _describe_since(signal: Signal, windows: Sequence[Window]) -> str:
    """From which of the windows on this signal has been raised without a break."""
    first = None
    for window in reversed(windows):
        if not any(s.raised and _build_signal_key(s) == _build_signal_key(signal) for s in window.signals):
            break
        first = window.last
    return f"Since the window of {first}." if first else ""


def _build_signal_key(signal: Signal) -> tuple[str, str, str]:
    return signal.check, signal.subject, signal.measure


def _render_checks(signals: Sequence[Signal]) -> Iterator[str]:
    heads = "".join(f"<th>{head}</th>" for head in COLUMN_HEADINGS)
    for check, group in groupby(signals, key=lambda signal: signal.check):
        rows = "".join(map(_render_row, group))
        yield f"<h2>{escape(check.replace('_', ' '))}</h2><table><tr>{heads}</tr>{rows}</table>"


def _render_row(signal: Signal) -> str:
    width = min(abs(signal.value or 0) / (2 * signal.threshold), 1) * 100 if signal.threshold else 0
    details = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in signal.details.items())
    cells = [
        escape(signal.subject),
        escape(signal.measure.replace("_", " ")),
        "" if signal.value is None else f"{signal.value:.3f}",
        f'<div class="bar" style="width:{width:.1f}%"></div>',
        _format_chance(signal),
        "" if signal.threshold is None else f"{signal.threshold:g}",
        escape(details),
        signal.severity,
    ]
    columns = "".join(f"<td{' style=width:25%' if 'bar' in cell else ''}>{cell}</td>" for cell in cells)
    return f'<tr class="{"moved" if signal.raised else ""}">{columns}</tr>'


def _format_chance(signal: Signal) -> str:
    interval = f"[{signal.low:.3f}, {signal.high:.3f}]" if signal.low is not None and signal.high is not None else ""
    return interval if signal.p_value is None else f"{interval} p {signal.p_value:.2g}"


def _render_quality(report: MonitorReport) -> str:
    if report.auc is None:
        return "<p>No labels of these days are known yet.</p>"
    interval = f"[{report.auc_low:.3f}, {report.auc_high:.3f}]"
    return f"<p>AUC on {report.auc_rows} matured rows: {report.auc:.3f} {interval}.</p>"
