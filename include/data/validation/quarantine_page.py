"""The quarantine for a browser: which rows were set aside, and why. Every cell is escaped and cut; nothing is run."""

from collections.abc import Sequence
from datetime import date
from html import escape
from pathlib import Path

MAX_ROWS = 500  # a page for people; the Parquet file beside it has them all
CELL_CHARACTERS = 80
STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1d2a24} h1{font-size:1.3rem}
table{border-collapse:collapse} td,th{padding:.25rem .6rem;text-align:left;vertical-align:top;white-space:nowrap}
tr+tr{border-top:1px solid #dde5e0} td:nth-child(2){color:#c8502d;white-space:normal;min-width:18rem}
"""


def write(path: Path, day: date, names: Sequence[str], rows: Sequence[Sequence[object]], total: int) -> Path:
    """One row a quarantined row: its number, its reasons (a list of sentences), its cells as text."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(map(_render_cell, row))}</tr>" for row in rows[:MAX_ROWS])
    summary = f"{total} rows of {day} were set aside" + (
        f"; the first {MAX_ROWS} are shown" if total > MAX_ROWS else ""
    )
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>Quarantine of {day}</title><style>{STYLE}</style>"
        f"<h1>{summary}</h1><p>Row 1 is the first row of data. All of them, with every cell as it was delivered, stand "
        f"in quarantine.parquet of the day's snapshot.</p><table><tr>{head}</tr>{body}</table>",
        encoding="utf-8",
    )
    return path


def _render_cell(value: object) -> str:
    if value is None:
        return "<td><i>missing</i></td>"
    text = "; ".join(map(str, value)) if isinstance(value, list) else _cut(str(value))
    return f"<td>{escape(text)}</td>"


def _cut(text: str) -> str:
    printable = "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text[:CELL_CHARACTERS])
    return printable + ("…" if len(text) > CELL_CHARACTERS else "")
