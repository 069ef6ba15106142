"""Data Docs: the page Great Expectations keeps of each validated day, as a static site below the state directory.

    <root>/gx/     its own files: suites, results
    <root>/site/   what a browser reads; index.html lists the days

Every rule of the contract is run again by Great Expectations for the page; the verdict has been taken before and does
not change. That costs seconds, nearly all of them for the import, so the manifest says which days are worth it. A day
has one page, and a correction replaces it. Of a very large day the page shows the first rows, and says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.data.core.contract import Expectation
from include.data.validation import gx_validator
from include.kernel.files import hold_lock, write_atomic

if TYPE_CHECKING:
    import pandas as pd

    from include.data.landing.landed_rows import LandedRows

log = logging.getLogger(__name__)
MAX_ROWS = 100_000
SITE = "contract"
MAX_TEXT_CHARACTERS = 1000  # characters of one text
UNSAFE = {ord("<"): "‹", ord(">"): "›", ord("&"): "＆"}  # noqa: RUF001  (look-alikes that no page takes for markup)


def write(landed: LandedRows, rules: Sequence[Expectation], name: str, day: date, note: str, root: Path) -> Path:
    """The page of `day`, relative to the site; `note` stands above it.

    Writers take turns: the engine keeps its settings in one file. Ids of other days are not asked for again.
    """
    frame, total = _read_head(landed)
    shown = f"{note} The first {len(frame)} of {total} rows are shown here." if total > len(frame) else note
    runnable = [rule for rule in rules if gx_validator.can_run(rule, frame) and rule.rule != "new_id"]
    rows = _escape_rows(gx_validator.cast_frame(frame, runnable))
    with hold_lock(root / ".lock"):
        _run_expectations(rows, gx_validator.translate_rules(rows, runnable), name, day, root)
        [page] = (root / "site" / "validations" / name / str(day)).glob("*/*.html")
        _insert_note(page, shown)
    return page.relative_to(root / "site")


def _insert_note(page: Path, note: str) -> None:
    """Puts the verdict above the page: the engine shows its own result, which knows no quarantine."""
    html = page.read_text()
    begin = html.index(">", html.index("<body")) + 1
    banner = f'<p style="margin:0;padding:.6rem 1rem;background:#eef3f0;color:#1d2a24">{escape(note)}</p>'
    write_atomic(page, html[:begin] + banner + html[begin:])


def _read_head(landed: LandedRows) -> tuple[pd.DataFrame, int]:
    return landed.read_head(MAX_ROWS).to_pandas(integer_object_nulls=True), landed.count


def _escape_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The site's templates print some values as they are, so no cell may hold markup by the time they see it."""
    texts = {name: rows[name].map(_escape_value) for name in rows.columns if rows[name].dtype == object}
    return rows.assign(**texts)


def _escape_value(value: object) -> object:
    return value.translate(UNSAFE)[:MAX_TEXT_CHARACTERS] if isinstance(value, str) else value


def _run_expectations(rows: pd.DataFrame, expectations: list[Any], name: str, day: date, root: Path) -> None:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context: Any = gx.get_context(mode="file", project_root_dir=root)
    context.variables.progress_bars = {"globally": False}
    _configure_site(context, root / "site")
    asset = context.data_sources.add_or_update_pandas("rows").add_dataframe_asset(str(day))
    batch = asset.add_batch_definition_whole_dataframe("all")
    suite = context.suites.add_or_update(gx.ExpectationSuite(name=name, expectations=expectations))
    definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
    checkpoint = gx.Checkpoint(
        name=name,
        validation_definitions=[context.validation_definitions.add_or_update(definition)],
        result_format={"result_format": "SUMMARY"},
        actions=[gx.checkpoint.actions.UpdateDataDocsAction(name="page", site_names=[SITE])],
    )
    moment = gx.RunIdentifier(run_name=str(day), run_time=f"{day}T00:00:00+00:00")
    context.checkpoints.add_or_update(checkpoint).run(batch_parameters={"dataframe": rows}, run_id=moment)


def _configure_site(context: Any, place: Path) -> None:
    """One site, at a place of ours; the one that the engine sets up by itself is taken away."""
    wanted: Mapping[str, Any] = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(place)},
    }
    known = list(context.list_data_docs_sites())
    for other in set(known) - {SITE}:
        context.delete_data_docs_site(other)
    put = context.update_data_docs_site if SITE in known else context.add_data_docs_site
    put(site_name=SITE, site_config=wanted)
