"""The contract at work: real days, one broken rule at a time, through the job that publishes."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from include.data.core.contract import list_expectations
from include.data.validation.polars_validator import validate
from include.jobs.__main__ import run
from include.kernel.errors import DataRefused, RequestInvalid
from include.kernel.job import Intent, JobRequest
from include.manifest import DEFAULT_PATH, load
from tests import edge
from tests.delivered import read_day

DAY = date(2026, 8, 1)
SHIPPED = load(DEFAULT_PATH)


@pytest.fixture
def deliver(small, tmp_path):
    """Delivers rows as the day's file and ingests it, under a contract with these changes."""

    def delivered(rows: pd.DataFrame, day: date = DAY, **changes):
        source = {"kind": "files", "path": str(tmp_path / "{day}.csv")}
        small(**{"source": source, "contract.max_quarantined": 0.0, **changes})
        rows.to_csv(tmp_path / f"{day}.csv", index=False)
        return ingest(day=str(day))

    return delivered


def ingest(intent: Intent = Intent.LIVE, **params):
    params = {"day": str(DAY), **params}
    as_of = DAY + timedelta(days=1)
    return run(JobRequest(job="ingest", run_key="k", as_of=as_of, intent=intent, params=params))


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return read_day(SHIPPED, DAY)


def test_a_clean_day_passes_every_rule(clean, tmp_path):
    clean.to_parquet(tmp_path / "landed.parquet", index=False)
    found = validate(tmp_path / "landed.parquet", SHIPPED, DAY, directory=tmp_path)
    assert [outcome.expectation for outcome in found.outcomes] == list_expectations(SHIPPED.contract, SHIPPED.label)
    assert [str(outcome) for outcome in found.outcomes if not outcome.passed] == []
    assert (found.refusal, found.quarantined, found.quarantine) == (None, 0, None)


def without_column(rows):
    return rows.drop(columns="Income")


def text_for_a_number(rows):
    return rows.assign(Age=rows["Age"].astype(object).where(rows.index != 3, "old"))


def unknown_category(rows):
    return rows.assign(Home=rows["Home"].where(rows.index > 1, "castle"))


def a_repeated_id(rows):
    return rows.assign(application_id=rows["application_id"].where(rows.index != 1, rows["application_id"].iloc[0]))


def too_many_rows(rows):
    many = pd.concat([rows] * 30, ignore_index=True)
    return many.assign(application_id=[f"B{number}" for number in range(len(many))])


def too_few_rows(rows):
    return rows.head(5)


def a_flood_of_missing_values(rows):
    return rows.assign(Income=np.nan)


def an_impossible_age(rows):
    return rows.assign(Age=rows["Age"].where(rows.index != 0, 980))


def an_outcome_nobody_knows(rows):
    return rows.assign(Status=rows["Status"].where(rows.index != 0, "ugly"))


BROKEN = [
    (without_column, "Income: exists, found no such column"),
    (text_for_a_number, "Age: typed (kind=number)"),
    (unknown_category, "Home: in set"),
    (a_repeated_id, "application_id: unique, found 2 of"),
    (too_many_rows, "rows: row count (min=20, max=2000), found"),
    (too_few_rows, "rows: row count (min=20, max=2000), found 5"),
    (a_flood_of_missing_values, "Income: complete (max_missing=0.4)"),
    (an_impossible_age, "Age: in range (min=18.0, max=100.0), found 1 of"),
    (an_outcome_nobody_knows, "Status: in set (values=('good', 'bad')), found 1 of"),
]


@pytest.mark.parametrize(("damage", "told"), BROKEN, ids=lambda each: getattr(each, "__name__", None))
def test_what_breaks_the_contract_is_named_in_one_sentence_and_nothing_is_published(deliver, clean, damage, told):
    with pytest.raises(DataRefused) as caught:
        deliver(damage(clean))
    sentence = str(caught.value)
    assert told in sentence
    assert "\n" not in sentence and str(DAY) in sentence
    assert edge.store().list_snapshots() == []


def test_everything_that_is_broken_is_named_at_once(deliver, clean):
    with pytest.raises(DataRefused, match=r"breaks 2 rule\(s\)[\s\S]*Home: in set[\s\S]*Age: in range"):
        deliver(unknown_category(an_impossible_age(clean)))


def test_a_missing_column_is_named_once_and_not_by_each_of_its_rules(deliver, clean):
    with pytest.raises(DataRefused, match=r"breaks 1 rule\(s\)"):
        deliver(without_column(clean))


def test_after_a_refusal_the_next_good_delivery_is_published(deliver, clean):
    with pytest.raises(DataRefused):
        deliver(unknown_category(clean))
    result = deliver(clean)
    assert result.verdict == "yes" and result.outputs["changed"] is True
    assert [snapshot.rows for snapshot in edge.store().list_snapshots()] == [len(clean)]


def test_a_refused_correction_leaves_the_published_day_alone(deliver, clean):
    good = deliver(clean).outputs["id"]
    with pytest.raises(DataRefused):
        deliver(too_few_rows(clean))
    assert [snapshot.id for snapshot in edge.store().list_snapshots()] == [good]


def test_ingesting_a_day_twice_publishes_it_once(deliver, clean):
    first, second = deliver(clean), deliver(clean)
    assert (first.outputs["changed"], second.outputs["changed"]) == (True, False)
    assert "already published" in second.summary
    assert first.outputs["id"] == second.outputs["id"]


def test_a_few_bad_rows_are_set_aside_with_their_reasons_and_the_rest_is_published(deliver, clean, tmp_path):
    delivered = clean.assign(Home=clean["Home"].where(clean.index != 4, '=cmd|"<b>\n'))
    result = deliver(delivered, **{"contract.max_quarantined": 0.01})
    assert (result.outputs["rows"], result.outputs["quarantined"]) == (len(clean) - 1, 1)
    assert "1 were set aside" in result.summary
    [snapshot] = edge.store().list_snapshots()
    [row] = pq.read_table(edge.store().fetch_file(snapshot, "quarantine.parquet")).to_pylist()
    assert (row["row_number"], row["reasons"], row["Home"]) == (5, [row["reasons"][0]], '=cmd|"<b>\n')
    assert row["reasons"][0].startswith("Home is none of ('owner'")
    page = (tmp_path / "store/data_docs/site" / result.outputs["quarantine_page"]).read_text()
    assert "=cmd|&quot;&lt;b&gt;\\n" in page and "<b>" not in page


def test_one_bad_row_too_many_refuses_the_day_and_says_how_many_were_allowed(deliver, clean):
    damaged = clean.assign(Age=clean["Age"].where(clean.index > 1, 980))
    with pytest.raises(DataRefused, match=r"2 of 102 rows are bad; contract.max_quarantined lets 1 be set aside"):
        deliver(damaged, **{"contract.max_quarantined": 0.01})
    assert edge.store().list_snapshots() == []


def test_an_id_of_a_day_before_does_not_come_again(deliver, clean):
    deliver(clean)
    with pytest.raises(DataRefused, match=r"application_id: new id, found 102 of 102 rows \(1, 2, 3, ...\)"):
        deliver(clean, DAY + timedelta(days=1))
    deliver(clean)  # the same day again is no repetition


def test_a_column_nobody_declared_is_named_and_kept(deliver, clean):
    result = deliver(clean.assign(channel="web"))
    assert any("found 'channel'" in warning for warning in result.outputs["warnings"])
    assert edge.store().list_snapshots()[0].columns[-1] == "channel"
    with pytest.raises(DataRefused, match="found 'channel'"):
        deliver(clean.assign(channel="web"), **{"contract.unknown_columns": "refuse"})


def test_a_day_from_another_market_is_warned_of_and_published(small):
    small()
    ingest()
    result = ingest(day=str(DAY + timedelta(days=1)), scenario="new_market")
    assert result.verdict == "yes" and result.outputs["quarantined"] == 0
    assert any(warning.startswith("Seniority: mean shift") for warning in result.outputs["warnings"])


@pytest.mark.parametrize(
    ("policy", "intent", "made"), [("live", "live", 1), ("live", "historical", 0), ("always", "historical", 1)]
)
def test_the_manifest_says_which_days_get_a_page_of_data_docs(small, tmp_path, policy, intent, made):
    small(**{"contract.data_docs": policy})
    result = ingest(intent=Intent(intent))
    pages = list((tmp_path / "store/data_docs/site/validations").rglob("*.html"))
    assert len(pages) == made
    assert [str(page.relative_to(tmp_path / "store/data_docs/site")) for page in pages] == [
        result.outputs["data_docs"]
    ][:made]


def test_every_day_has_its_page_refused_and_corrected_ones_too_and_the_index_lists_them_without_a_script(
    small, tmp_path
):
    """From the second day on there was none: what the engine kept of the first it could not read again."""
    spec = small(**{"contract.data_docs": "always"})
    site = tmp_path / "store/data_docs/site"
    pages = [ingest(day=str(DAY + timedelta(days=number))).outputs["data_docs"] for number in range(3)]
    assert ingest(scenario="new_market").outputs["data_docs"] == pages[0]  # a correction
    small(**{"contract.data_docs": "always", "contract.rows": {"min": 1, "max": 2}})
    with pytest.raises(DataRefused) as refused:
        ingest(day=str(DAY + timedelta(days=3)))
    pages.append(refused.value.page)
    assert sorted(pages) == sorted(str(path.relative_to(site)) for path in site.glob("validations/**/*.html"))
    index = (site / "index.html").read_text()
    assert [page for page in pages if f'href="{page}"' not in index] == [] and "<script" not in index
    assert f"Data Docs of {spec.name}: 4 days" in index


def test_a_page_that_cannot_be_drawn_is_said_in_the_result_and_the_day_is_published(small, monkeypatch, caplog):
    small(**{"contract.data_docs": "always"})

    def fail(*given):
        raise ValueError("the engine\nstumbled")

    monkeypatch.setattr("include.data.validation.data_docs.write", fail)
    result = ingest()
    assert result.outputs["changed"] and result.outputs["data_docs"] is None
    assert "no page of Data Docs could be drawn (ValueError: the engine stumbled)" in result.summary
    assert not any(record.exc_info for record in caplog.records)


def test_a_refused_day_has_its_page_with_the_refusal_and_without_the_markup_of_its_cells(deliver, clean):
    damaged = clean.assign(Home=clean["Home"].where(clean.index > 1, "<script>alert(1)</script>"))
    with pytest.raises(DataRefused, match=r"Its page is \S+\.html\.$") as caught:
        deliver(damaged, **{"contract.data_docs": "live"})
    place = str(caught.value).rsplit("Its page is ", 1)[1].removesuffix(".")
    assert caught.value.page and place.endswith(caught.value.page)
    html = Path(place).read_text()
    assert "breaks 1 rule(s) of the contract" in html and "<script>alert" not in html


def test_a_day_without_a_delivery_is_a_no_and_no_failure(small, tmp_path):
    small(**{"source": {"kind": "files", "path": str(tmp_path / "{day}.csv")}})
    result = ingest()
    assert (result.verdict, result.summary) == ("no", f"no rows were delivered for {DAY}; nothing was published")


def test_a_scenario_stands_in_the_description_of_what_it_made(small):
    small()
    ingest(scenario="new_market")
    [snapshot] = edge.store().list_snapshots()
    assert snapshot.source.endswith("?scenario=new_market")


@pytest.mark.parametrize("day", [None, "yesterday", "2026-13-01"])
def test_a_day_that_is_no_day_is_refused(small, day):
    small()
    with pytest.raises(RequestInvalid, match="ISO date"):
        ingest(day=day)
