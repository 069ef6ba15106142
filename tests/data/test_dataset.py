"""Parts of a split on generated rows with entities, ingested by the job itself: nobody stands on two sides."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from include.data.core.lineage import PARTS
from include.data.core.snapshots import Split, split
from include.data.dataset import Dataset, list_columns, name_entities
from include.jobs.__main__ import run
from include.kernel.errors import DataRefused, NotEnoughData
from include.kernel.job import Intent, JobRequest
from include.manifest import Manifest
from tests import edge

FIRST, DAYS = date(2026, 8, 1), 8
CUSTOMERS, ROWS = 60, 40

DOMAIN = {
    "label": {"column": "outcome", "positive": "left", "negative": "stayed", "delay_days": 1},
    "contract": {
        "id": "visit",
        "rows": {"min": 5, "max": 500},
        "columns": {"spend": {"kind": "number"}, "plan": {"kind": "category", "values": ["basic", "pro"]}},
        "extras": {"customer": {"kind": "category", "max_missing": 0.2}},
    },
    "groups": {},
    "train.window_days": DAYS,
    "train.holdout_days": 2,
    "train.calibration_days": 2,
    "train.min_rows": 50,
}


def deliver(path: Path, day: date, people: range, nameless: float) -> None:
    """Customers come again and again; some rows do not say whose they are."""
    draw = random.Random(day.toordinal())
    with open(path, "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["visit", "customer", "spend", "plan", "outcome"])
        for number in range(ROWS):
            whose = "" if draw.random() < nameless else f"c{draw.choice(people)}"
            plan, outcome = draw.choice(["basic", "pro"]), draw.choice(["left", "stayed"])
            out.writerow([f"{day}-{number}", whose, draw.randint(1, 100_000), plan, outcome])


@pytest.fixture
def known(small: Callable[..., Manifest], tmp_path: Path) -> Callable[..., tuple[Manifest, Split]]:
    """Eight days ingested under a manifest that names an entity (or not), and their split."""

    def made(
        entity: str | None = "customer", people: range = range(CUSTOMERS), nameless: float = 0.1
    ) -> tuple[Manifest, Split]:
        source = {"kind": "files", "path": str(tmp_path / "{day}.csv")}
        manifest = small(source=source, **DOMAIN, **{"train.entity": entity})
        for day in (FIRST + timedelta(days=number) for number in range(DAYS)):
            deliver(tmp_path / f"{day}.csv", day, people, nameless)
            run(JobRequest(job="ingest", run_key="k", as_of=day, intent=Intent.HISTORICAL, params={"day": str(day)}))
        as_of = FIRST + timedelta(days=DAYS)
        return manifest, split(edge.store().read_history(), as_of, manifest.label, manifest.train)

    return made


def delivered(days: Split, part: str) -> pd.DataFrame:
    return edge.store().read_rows(days.get_part(part))  # type: ignore[arg-type]


def kept(manifest: Manifest, days: Split, part: str) -> pd.DataFrame:
    """The delivered rows that are in the part, found again by what they spent, which no two rows share by chance."""
    inputs = Dataset(edge.store(), manifest).read_part(days, part, list_columns(manifest)).inputs  # type: ignore[arg-type]
    rows = delivered(days, part)
    return rows[rows["spend"].isin(inputs["spend"])]


def test_nobody_is_in_two_parts_and_no_row_is_lost_for_another_reason(known):
    manifest, days = known()
    people = {part: set(kept(manifest, days, part)["customer"].dropna()) for part in PARTS}
    assert sum(map(len, people.values())) == len(set.union(*people.values()))
    assert all(people.values())  # a split that leaves a part empty would prove nothing
    for part, later in (("train", ("calibration", "holdout")), ("calibration", ("holdout",))):
        theirs = set().union(*(set(delivered(days, each)["customer"].dropna()) for each in later))
        rows = delivered(days, part)
        assert len(kept(manifest, days, part)) == (~rows["customer"].isin(theirs)).sum() < len(rows)


def test_the_holdout_and_rows_that_say_not_whose_they_are_stay_whole(known):
    manifest, days = known()
    assert len(kept(manifest, days, "holdout")) == 2 * ROWS
    nameless = [delivered(days, part)["customer"].isna().sum() for part in PARTS]
    assert all(nameless)
    assert [kept(manifest, days, part)["customer"].isna().sum() for part in PARTS] == nameless


def test_without_an_entity_parts_are_whole_days(known):
    manifest, days = known(entity=None)
    assert [len(kept(manifest, days, part)) for part in PARTS] == [4 * ROWS, 2 * ROWS, 2 * ROWS]


def test_when_everybody_is_in_the_holdout_nothing_is_left_to_train_on_and_it_says_so(known):
    manifest, days = known(people=range(1), nameless=0)
    with pytest.raises(NotEnoughData, match="All 160 train rows are of a customer that a later part of the split has"):
        Dataset(edge.store(), manifest).read_part(days, "train", list_columns(manifest))


def test_an_entity_that_the_days_do_not_hold_is_named_with_what_they_hold(known):
    manifest, days = known(entity="household")
    with pytest.raises(DataRefused, match=r"has no column household, only visit, outcome, spend, plan, customer"):
        Dataset(edge.store(), manifest).read_part(days, "train", list_columns(manifest))


@pytest.mark.parametrize("spelled", [str, int, float, Decimal, np.int64, np.float64])
def test_an_entity_is_one_in_whatever_type_a_day_names_it(spelled: Callable[[int], object]) -> None:
    names = name_entities(pd.Series([spelled(7), None, spelled(2**40)], dtype=object))
    assert [name if isinstance(name, str) else None for name in names] == ["7", None, str(2**40)]


def test_whom_the_days_name_in_different_types_is_in_one_part_alone(small, tmp_path):
    """Numbers until the seventh day, texts from then on, as after an export was changed."""
    source = {"kind": "files", "path": str(tmp_path / "{day}.parquet")}
    manifest = small(source=source, **DOMAIN, **{"train.entity": "household", "contract.extras": {}})
    for number in range(DAYS):
        day, draw = FIRST + timedelta(days=number), random.Random(number)
        houses = pd.Series([draw.randrange(3 * ROWS) for _ in range(ROWS)])
        rows = {
            "visit": [f"{day}-{row}" for row in range(ROWS)], "spend": [draw.randint(1, 10**5) for _ in range(ROWS)],
            "plan": ["pro"] * ROWS, "outcome": [draw.choice(["left", "stayed"]) for _ in range(ROWS)],
            "household": houses.astype(str) if number >= DAYS - 2 else houses,
        }  # fmt: skip
        pd.DataFrame(rows).to_parquet(tmp_path / f"{day}.parquet", index=False)
        run(JobRequest(job="ingest", run_key="k", as_of=day, intent=Intent.HISTORICAL, params={"day": str(day)}))
    days = split(edge.store().read_history(), FIRST + timedelta(days=DAYS), manifest.label, manifest.train)
    people = {part: set(kept(manifest, days, part)["household"].astype(str)) for part in PARTS}
    assert all(people.values()) and sum(map(len, people.values())) == len(set.union(*people.values()))
