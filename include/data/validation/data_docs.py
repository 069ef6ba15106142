"""Data Docs: the page Great Expectations draws of each validated day, as a static site below the state directory.

Every rule of the contract is run again by Great Expectations for the page; the verdict has been taken before and does
not change. That costs seconds, nearly all of them for the import, so the manifest says which days are worth it. A day
has one page, and a correction replaces it. Of a very large day the page shows the first rows, and says so.

The engine keeps nothing between two days: what it had written of one day it could not read on the next, since a frame
in memory is no data source that it finds again. So `index.html`, which lists the days, is ours; it needs no script.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from include.data.core.contract import Expectation
from include.data.validation import gx_validator
from include.kernel.files import hold_lock, write_atomic
from include.kernel.page_style import STYLE

if TYPE_CHECKING:
    import pandas as pd

    from include.data.landing.landed_rows import LandedRows

MAX_ROWS = 100_000
SITE = "contract"
# The engine's pages take their looks from the net; this is what they have where there is none.
PAGE_STYLE = f"""{STYLE} body{{max-width:72rem}} .verdict{{margin:0;padding:.6rem 1rem;background:#eef3f0}}
nav.navbar,#ge-cta-footer,.cta-footer,.cooltip .cooltip-text,h6+.row{{display:none}}
ul{{columns:4;padding-left:1rem}} td ul{{columns:1}} section,.card{{margin:1rem 0}} h5,h6{{margin:.4rem 0}}
.fa-check-circle::before{{content:"✓"}} .fa-times::before{{content:"✗"}}
"""
MAX_TEXT_CHARACTERS = 1000  # characters of one text
UNSAFE = {ord("<"): "‹", ord(">"): "›", ord("&"): "＆"}  # noqa: RUF001  (look-alikes that no page takes for markup)


def write(landed: LandedRows, rules: Sequence[Expectation], name: str, day: date, note: str, root: Path) -> Path:
    """The page of `day`, relative to the site; `note` stands above it. Ids of other days are not asked for again.

    Writers take turns: they share the pages beside those of the days.
    """
    frame, total = _read_head(landed)
    shown = f"{note} The first {len(frame)} of {total} rows are shown here." if total > len(frame) else note
    runnable = [rule for rule in rules if gx_validator.can_run(rule, frame) and rule.rule != "new_id"]
    rows = _escape_rows(gx_validator.cast_frame(frame, runnable))
    site = root / "site"
    with hold_lock(root / ".lock"), TemporaryDirectory() as scratch:
        _run_expectations(rows, gx_validator.translate_rules(rows, runnable), name, day, Path(scratch))
        [page] = Path(scratch).glob(f"validations/{name}/{day}/*/*.html")
        _insert_note(page, shown)
        for file in (each for each in Path(scratch).rglob("*") if each.is_file()):
            write_atomic(site / file.relative_to(scratch), file.read_bytes())
        write_index(site, name)
    return page.relative_to(scratch)


def write_index(site: Path, name: str) -> None:
    """The list of all days that have a page, the newest first."""
    days = sorted(
        (page.parents[1].name, page.relative_to(site)) for page in site.glob(f"validations/{name}/*/*/*.html")
    )
    rows = "".join(_render_day(site, day, page) for day, page in reversed(days))
    write_atomic(
        site / "index.html",
        f"<!doctype html><meta charset=utf-8><title>Data Docs of {name}</title><style>{STYLE}</style>"
        f"<h1>Data Docs of {name}: {len(days)} days</h1>"
        "<p>Each page holds a day against every rule of the contract, as Great Expectations sees it.</p>"
        f"<table><tr><th>day</th><th>rows set aside</th></tr>{rows}</table>",
    )


def _render_day(site: Path, day: str, page: Path) -> str:
    aside = f"quarantine/{day}.html"
    link = f'<a href="{aside}">quarantine</a>' if (site / aside).exists() else ""
    return f'<tr><td><a href="{quote(str(page))}">{escape(day)}</a></td><td>{link}</td></tr>'


def _insert_note(page: Path, note: str) -> None:
    """Puts the verdict above the page: the engine shows its own result, which knows no quarantine."""
    html = page.read_text()
    begin = html.index(">", html.index("<body")) + 1
    banner = f'<style>{PAGE_STYLE}</style><p class="verdict">{escape(note)}</p>'
    page.write_text(html[:begin] + banner + html[begin:])


def _read_head(landed: LandedRows) -> tuple[pd.DataFrame, int]:
    return landed.read_head(MAX_ROWS).to_pandas(integer_object_nulls=True), landed.count


def _escape_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The site's templates print some values as they are, so no cell may hold markup by the time they see it."""
    texts = {name: rows[name].map(_escape_value) for name in rows.columns if rows[name].dtype == object}
    return rows.assign(**texts)


def _escape_value(value: object) -> object:
    return value.translate(UNSAFE)[:MAX_TEXT_CHARACTERS] if isinstance(value, str) else value


def _run_expectations(rows: pd.DataFrame, expectations: list[Any], name: str, day: date, site: Path) -> None:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    _configure_site(context, site)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset(str(day))
    batch = asset.add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[definition],
        result_format={"result_format": "SUMMARY"},
        actions=[gx.checkpoint.actions.UpdateDataDocsAction(name="page", site_names=[SITE])],
    )
    moment = gx.RunIdentifier(run_name=str(day), run_time=f"{day}T00:00:00+00:00")
    context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows}, run_id=moment)


def _configure_site(context: Any, place: Path) -> None:
    """One site, at a place of ours; the one that the engine sets up by itself is taken away."""
    wanted: Mapping[str, Any] = {
        "class_name": "SiteBuilder",
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(place)},
    }
    for other in list(context.list_data_docs_sites()):
        context.delete_data_docs_site(other)
    context.add_data_docs_site(site_name=SITE, site_config=wanted)
