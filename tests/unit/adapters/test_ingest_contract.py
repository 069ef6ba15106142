"""The contract at work: real days, one broken rule at a time, through the job that publishes."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from include.adapters import factory
from include.adapters.sources import read_day
from include.adapters.validator_polars import validate
from include.core.contract import expectations
from include.core.errors import DataRefused, RequestInvalid
from include.core.job import Intent, JobRequest
from include.core.manifest import DEFAULT_PATH, load
from include.jobs.__main__ import run

DAY = date(2026, 8, 1)
SHIPPED = load(DEFAULT_PATH)


@pytest.fixture
def deliver(small, tmp_path):
    """Delivers rows as the day's file and ingests it."""
    small(**{"source": {"kind": "files", "path": str(tmp_path / "{day}.csv")}})

    def delivered(rows: pd.DataFrame):
        rows.to_csv(tmp_path / f"{DAY}.csv", index=False)
        return ingest()

    return delivered


def ingest(**params):
    params = {"day": str(DAY), **params}
    return run(JobRequest(job="ingest", run_key="k", as_of=DAY, intent=Intent.LIVE, params=params))


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    return read_day(SHIPPED, DAY)


def test_a_clean_day_passes_every_rule(clean, tmp_path):
    clean.to_parquet(tmp_path / "landed.parquet", index=False)
    found = validate(tmp_path / "landed.parquet", SHIPPED, DAY, directory=tmp_path)
    assert [outcome.expectation for outcome in found.outcomes] == expectations(SHIPPED.contract, SHIPPED.label)
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
    assert factory.store().snapshots() == []


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
    assert [snapshot.rows for snapshot in factory.store().snapshots()] == [len(clean)]


def test_a_refused_correction_leaves_the_published_day_alone(deliver, clean):
    good = deliver(clean).outputs["id"]
    with pytest.raises(DataRefused):
        deliver(too_few_rows(clean))
    assert [snapshot.id for snapshot in factory.store().snapshots()] == [good]


def test_ingesting_a_day_twice_publishes_it_once(deliver, clean):
    first, second = deliver(clean), deliver(clean)
    assert (first.outputs["changed"], second.outputs["changed"]) == (True, False)
    assert "already published" in second.summary
    assert first.outputs["id"] == second.outputs["id"]


def test_a_day_without_a_delivery_is_a_no_and_no_failure(deliver):
    result = ingest()
    assert (result.verdict, result.summary) == ("no", f"no rows were delivered for {DAY}; nothing was published")


def test_a_scenario_stands_in_the_description_of_what_it_made(small):
    small()
    ingest(scenario="new_market")
    [snapshot] = factory.store().snapshots()
    assert snapshot.source.endswith("?scenario=new_market")


@pytest.mark.parametrize("day", [None, "yesterday", "2026-13-01"])
def test_a_day_that_is_no_day_is_refused(small, day):
    small()
    with pytest.raises(RequestInvalid, match="ISO date"):
        ingest(day=day)
