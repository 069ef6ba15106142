"""DAGs are joined by assets only, so the graph Airflow draws is the data flow: here it is read from the DAGs."""

from __future__ import annotations

from collections import defaultdict

import pytest
from airflow.sdk import Asset

LOOP = {
    ("ingest", "dataset.validated", "monitor"),
    ("monitor", "monitor.reported", "watch"),
    ("watch", "drift.detected", "retrain"),
    ("retrain", "training.requested", "train"),
    ("train", "model.blessed", "deploy"),
    ("deploy", "model.live", "monitor"),
    ("rollback", "model.live", "monitor"),
    ("ingest", "dataset.validated", "score"),
}
OUTWARD = {"scores.published"}  # for whoever uses the scores; the loop itself needs nobody to wait for it


def produced(dag) -> set[str]:
    return {asset.name for task in dag.tasks for asset in task.outlets}


def consumed(dag) -> set[str]:
    return names(getattr(dag.timetable, "asset_condition", None))


def names(condition) -> set[str]:
    """Of the assets in a condition, whatever it joins by and, by or."""
    if hasattr(condition, "objects"):
        return set().union(*map(names, condition.objects))
    return {condition.name} if isinstance(condition, Asset) else set()


@pytest.fixture(scope="module")
def edges(bag) -> set[tuple[str, str, str]]:
    dags = bag.dags.values()
    return {(a.dag_id, asset, b.dag_id) for a in dags for b in dags for asset in produced(a) & consumed(b)}


def test_the_edges_are_the_ones_the_design_draws(edges):
    assert edges == LOOP


def test_nothing_is_announced_to_nobody_and_nobody_waits_for_what_never_comes(bag):
    sent = {name for dag in bag.dags.values() for name in produced(dag)}
    awaited = {name for dag in bag.dags.values() for name in consumed(dag)}
    assert sent - OUTWARD == awaited
    assert sent >= OUTWARD


def test_every_dag_is_reached_from_the_data_and_the_loop_closes(edges):
    after = reachable(edges)
    assert after["ingest"] == {"monitor", "watch", "retrain", "train", "deploy", "score"}
    assert "monitor" in after["deploy"] and "deploy" in after["monitor"]


def reachable(edges) -> dict[str, set[str]]:
    follows = defaultdict(set)
    for sender, _, receiver in edges:
        follows[sender].add(receiver)
    found = {}
    for start in list(follows):
        seen: set[str] = set()
        ahead = list(follows[start])
        while ahead:
            dag_id = ahead.pop()
            if dag_id not in seen:
                seen.add(dag_id)
                ahead += follows[dag_id]
        found[start] = seen
    return found


def test_no_dag_calls_another_but_by_an_asset(bag):
    kinds = {type(task).__name__ for dag in bag.dags.values() for task in dag.tasks}
    assert not kinds & {"TriggerDagRunOperator", "ExternalTaskSensor"}


def test_every_asset_is_named_noun_state_and_has_an_address_of_ours(bag):
    for asset in {asset for dag in bag.dags.values() for task in dag.tasks for asset in task.outlets}:
        assert asset.name.count(".") == 1
        assert asset.uri == "evergreen://" + asset.name.replace(".", "/")


def test_weekly_or_drift_hourly_or_new_data_and_daily_or_new_data_are_all_on_the_clock(bag):
    for dag_id in ("retrain", "monitor", "score"):
        assert type(bag.dags[dag_id].timetable).__name__ == "AssetOrTimeSchedule"
