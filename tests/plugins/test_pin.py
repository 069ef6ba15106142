"""What a run of `score` is about: the version that serves, not the newest, and days as they were known."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from evergreen.operators.scoring import PinOperator
from include.data.wiring import open_snapshot_store
from include.kernel.errors import ServiceUnavailable
from include.kernel.files import write_atomic
from include.kernel.ledger import Entry
from include.release.core.rollout import Route
from include.release.targets.local import envoy_routes
from tests.blessed import OTHER_KEY
from tests.delivered import described, rows, written
from tests.plugins.conftest import context, event

FIRST = date(2026, 8, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(3)]


def pin(*events, **options):
    return PinOperator(task_id="pin").execute(context(*events, **options))


def serves(world, version: str = "7", digest: str | None = None) -> None:
    """Version in the green slot, with the route to it."""
    content = {"version": version, "digest": digest or version * 64, "generation": 1}
    write_atomic(world.root / "serving" / "slots" / "green.json", json.dumps(content))
    route = Route(live="green", standby=None, generation=1)
    write_atomic(world.root / "serving" / "route" / "routes.yaml", envoy_routes.render(route))


@pytest.fixture(autouse=True)
def days(world, small, tmp_path):
    small(name="credit-risk")
    for number, day in enumerate(DAYS):
        path = written(rows(float(number)), tmp_path, f"{day}.parquet")
        open_snapshot_store().publish(described(path, day), path)
    return {str(each.day): each.id for each in open_snapshot_store().read_history()}


def test_it_is_the_version_that_serves_and_not_the_newest_and_its_newest_day(world, days):
    world.shelf.has_blessed("7")
    world.shelf.has_blessed("8")
    serves(world)
    last = str(DAYS[-1])
    assert pin() == {"version": "7", "digest": "7" * 64, "days": [{"day": last, "snapshot": days[last]}]}


def test_events_that_were_merged_into_one_run_are_all_answered(world):
    world.shelf.has_blessed("7")
    serves(world)
    found = pin(event(1, day=str(DAYS[0])), event(2, day=str(DAYS[1])), run_type="asset_triggered")
    assert [each["day"] for each in found["days"]] == [str(day) for day in DAYS[:2]]


def test_a_backfill_scores_the_day_of_its_interval_with_the_version_that_was_asked_for(world):
    world.shelf.has_blessed("6")
    moments = {
        "data_interval_start": datetime(2026, 8, 2, tzinfo=UTC),
        "data_interval_end": datetime(2026, 8, 3, tzinfo=UTC),
    }
    found = PinOperator(task_id="pin").execute(context(run_type="backfill", params={"version": "6"}) | moments)
    assert (found["version"], [each["day"] for each in found["days"]]) == ("6", ["2026-08-02"])


def test_the_registry_may_be_down_for_a_version_that_went_live(world, monkeypatch):
    envelope = world.shelf.has_blessed("7")
    world.open_ledger().append(
        Entry(what="release.live", subject="7", who="w", why="y", details={"blessing": envelope})
    )

    def down(version):
        raise ServiceUnavailable("MLflow does not answer.")

    monkeypatch.setattr(world.shelf, "fetch_blessing", down)
    serves(world)
    assert pin()["version"] == "7"


@pytest.mark.parametrize(
    ("signed", "says"),
    [({"digest": "f" * 64}, "its blessing is of ffff"), ({"key": OTHER_KEY}, "and trusted is"), (None, "no blessing")],
)
def test_a_live_version_whose_blessing_does_not_hold_scores_nothing(world, signed, says):
    if signed:
        world.shelf.has_blessed("7", **signed)
    serves(world)
    with pytest.raises(AirflowFailException, match=says):
        pin()


def test_a_version_that_was_asked_for_needs_a_blessing_too(world):
    with pytest.raises(AirflowFailException, match="no blessing"):
        pin(params={"version": "5"})


def test_without_a_live_version_there_is_nothing_to_do(world):
    with pytest.raises(AirflowSkipException, match="No version is live yet"):
        pin()


def test_a_day_that_is_missing_fails_whoever_asked_for_it_and_skips_who_did_not(world):
    world.shelf.has_blessed("7")
    serves(world)
    with pytest.raises(AirflowFailException, match="No day from 2026-09-01 to 2026-09-03 was known as of 2026-08-20"):
        pin(params={"day": "2026-09-01", "until": "2026-09-03"})
    with pytest.raises(AirflowSkipException, match="no day to score as of 2026-08-20"):
        pin(event(day="2026-09-01"), run_type="asset_triggered")
