"""Where time and intent are read from Airflow: who has the first word."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowFailException

from evergreen.run_context import build_job_request, find_newest_extra, list_announced_days, read_run_context
from include.kernel.job import Intent
from tests.plugins.conftest import context, event

ROOT = Path(__file__).resolve().parents[2]
PARAM, EVENT, INTERVAL, RUN_AFTER = "2026-08-01", "2026-08-02", datetime(2026, 8, 3, tzinfo=UTC), date(2026, 8, 20)


def seen(param: str | None = None, sent: str | None = None, interval: datetime | None = None) -> date:
    events = [event(as_of=sent)] if sent else []
    found = context(*events, params={"as_of": param})
    return read_run_context(found | ({"data_interval_end": interval} if interval else {})).as_of


def test_the_day_is_the_params_then_the_events_then_the_intervals_then_the_runs():
    assert seen(PARAM, EVENT, INTERVAL) == date(2026, 8, 1)
    assert seen(None, EVENT, INTERVAL) == date(2026, 8, 2)
    assert seen(None, None, INTERVAL) == date(2026, 8, 3)
    assert seen() == RUN_AFTER


@pytest.mark.parametrize(
    ("run_type", "param", "sent", "expected"),
    [
        ("manual", None, None, "live"),
        ("scheduled", None, None, "live"),
        ("asset_triggered", None, "historical", "historical"),
        ("asset_triggered", None, "rehearsal", "rehearsal"),
        ("asset_triggered", "live", "historical", "live"),
        ("manual", "rehearsal", None, "rehearsal"),
        ("backfill", None, None, "historical"),
        ("backfill", "live", None, "historical"),
        ("backfill", None, "live", "historical"),
        ("backfill", "live", "live", "historical"),
    ],
)
def test_the_intent_is_the_params_then_the_events_and_a_backfill_is_always_historical(run_type, param, sent, expected):
    events = [event(intent=sent)] if sent else []
    found = read_run_context(context(*events, params={"intent": param}, run_type=run_type))
    assert found.intent is Intent(expected)
    assert found.is_live is (expected == "live")


def test_the_type_of_a_run_is_known_whether_it_comes_as_a_word_or_as_an_enumeration():
    from airflow.utils.types import DagRunType

    assert read_run_context(context(run_type=DagRunType.BACKFILL_JOB)).intent is Intent.HISTORICAL
    assert read_run_context(context(run_type=DagRunType.MANUAL)).run_type == "manual"


@pytest.mark.parametrize("where", ["param", "event"])
def test_a_day_that_is_none_is_one_sentence_and_no_retry(where):
    told = {"as_of": "yesterday"}
    found = context(params=told) if where == "param" else context(event(**told), run_type="asset_triggered")
    with pytest.raises(AirflowFailException, match="as_of is 'yesterday', which is no day; write it as 2026-08-31"):
        read_run_context(found)


@pytest.mark.parametrize("intent", [["live"], {"a": 1}, 3])
def test_an_intent_that_is_none_is_one_sentence_and_no_retry(intent):
    with pytest.raises(AirflowFailException, match="There is no intent"):
        read_run_context(context(event(intent=intent), run_type="asset_triggered"))


def test_a_day_announced_by_an_event_is_read_as_strictly():
    with pytest.raises(AirflowFailException, match="day is 'today', which is no day"):
        list_announced_days(context(event(day="today"), event(day="2026-08-01")), "day")
    assert list_announced_days(context(event(day="2026-08-01"), event()), "day") == [date(2026, 8, 1)]


def run_of(dag_id: str, conf: dict[str, object]):
    from airflow.dag_processing.dagbag import DagBag

    found = context(dag_id=dag_id)
    found["dag_run"].conf = conf
    return found | {"dag": DagBag(str(ROOT / "dags" / f"{dag_id}.py")).dags[dag_id]}


@pytest.mark.parametrize("dag_id", ["deploy", "ingest", "monitor", "retrain", "rollback", "score", "train", "watch"])
def test_no_dag_takes_a_key_that_its_form_does_not_have(dag_id, monkeypatch):
    found = run_of(dag_id, {"verson": "99"})
    with pytest.raises(AirflowFailException, match=f"The run's conf names 'verson', which {dag_id} does not know"):
        read_run_context(found)
    for root in found["dag"].roots:
        monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
        with pytest.raises(AirflowFailException, match="does not know"):
            root.execute(found)


def test_the_nearest_known_key_is_named():
    with pytest.raises(AirflowFailException, match="did you mean 'version'\\? It takes version, why"):
        read_run_context(run_of("rollback", {"verson": "99"}))
    for fine in ({}, {"version": "2"}, {"airflow/task_span_detail_level": 2}):
        assert read_run_context(run_of("rollback", fine)).is_live


def test_of_several_events_the_newest_counts():
    assert find_newest_extra(context(event(2, n=2), event(3, n=3), event(1, n=1)))["n"] == 3


def test_a_live_event_counts_before_a_newer_historical_one():
    found = find_newest_extra(context(event(1, intent="live", n=1), event(2, intent="historical", n=2)))
    assert found["n"] == 1


def test_an_event_that_says_nothing_about_its_intent_is_live():
    assert find_newest_extra(context(event(1, n=1), event(2, intent="historical", n=2)))["n"] == 1


def test_when_all_events_are_historical_so_is_the_run():
    found = read_run_context(
        context(event(1, intent="historical"), event(2, intent="historical"), run_type="asset_triggered")
    )
    assert found.intent is Intent.HISTORICAL


def test_without_events_there_is_no_extra():
    assert find_newest_extra(context()) == {}


def test_a_retry_asks_for_the_same_work_under_the_same_key_and_another_run_for_other_work():
    first, retry = (build_job_request(context(run_id="a"), "train", {"columns": None}) for _ in range(2))
    assert first == retry
    assert first.run_key != build_job_request(context(run_id="b"), "train", {"columns": None}).run_key
