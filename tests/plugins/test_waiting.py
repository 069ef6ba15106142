"""Sensors ask before they defer; the trigger asks the same question of the same files."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferred,
)

from evergreen.assets import DRIFT_DETECTED
from evergreen.errors import JobRefused, translate_errors
from evergreen.operators.rejection_callback import record_refused_day
from evergreen.sensors.drift import DriftSensor
from evergreen.sensors.retraining import RetrainingSensor
from evergreen.sensors.wait_condition import WaitConditionSensor
from evergreen.triggers.poll import PollTrigger
from include.data.wiring import open_snapshot_store
from include.kernel.environment import read_setting
from include.kernel.errors import RequestInvalid, ServiceUnavailable
from include.kernel.ledger import Entry
from include.kernel.wiring import open_ledger
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.signals import Signal
from include.monitoring.wiring import open_report_store
from include.retraining.wiring import open_wait_conditions
from tests.job_world import publish
from tests.plugins.conftest import context, event

DAY = date(2026, 8, 8)
TRAINED = {"intent": "live", "as_of": "2026-08-02"}


@pytest.fixture(autouse=True)
def manifest(small):
    made = small()
    live("3")
    return made


def live(version: str) -> None:
    count = len(list(open_ledger().read_entries("release.live")))
    open_ledger().append(Entry(what="release.live", subject=version, who="deploy", why="", key=f"live-{count}"))


def alarm(day: int = 20, version: str = "3", alarm: bool = True) -> None:
    moved = {"Income": 0.4}
    report = MonitorReport(
        as_of=date(2026, 8, day), version=version, alarm=alarm, verdict="drift", rows=300, moved=moved
    )
    open_report_store().write_report(report)


class TestPollTrigger:
    def test_its_address_and_arguments_are_a_contract_with_every_trigger_already_stored(self):
        path, arguments = PollTrigger("drift", {}, 2.0).serialize()
        assert path == "evergreen.triggers.poll.PollTrigger"
        assert arguments == {"question": "drift", "arguments": {}, "interval": 2.0}

    def test_what_was_stored_comes_back_as_the_same_trigger(self):
        path, arguments = PollTrigger("retraining", {"trigger": "drift"}, 0.5).serialize()
        again = import_string(path)(**arguments)
        assert again.serialize() == (path, arguments)

    async def test_it_waits_while_there_is_no_answer_and_fires_when_the_files_hold_one(self):
        fired = asyncio.ensure_future(anext(PollTrigger("drift", {}, 0.02).run()))
        await asyncio.sleep(0.2)
        assert not fired.done()
        await asyncio.to_thread(alarm)
        found = await asyncio.wait_for(fired, 5)
        assert found.payload["key"] == "drift-3-2026-08-20"

    @pytest.mark.parametrize("name", ["drift", "retraining", "rollout"])
    def test_what_stored_triggers_ask_for_is_still_known(self, manifest, name):
        assert name in open_wait_conditions(manifest)._conditions

    def test_it_keeps_what_it_opened_until_the_manifest_changes(self, small):
        trigger = PollTrigger("drift", {}, 2.0)
        trigger._ask()
        opened = trigger._opened
        trigger._ask()
        assert trigger._opened is opened
        small(**{"retraining.monthly_budget": 1})
        trigger._ask()
        assert trigger._opened[0].retraining.monthly_budget == 1 and trigger._opened[1] is not opened[1]

    async def test_it_fires_once(self):
        alarm()
        async with asyncio.timeout(5):
            assert len([found async for found in PollTrigger("drift", {}, 0.02).run()]) == 1


class Away(WaitConditionSensor):
    """Its condition cannot be asked: `error` is raised."""

    error: Exception = ServiceUnavailable("the store is away")

    def fetch_answer(self, context):
        with translate_errors():
            raise self.error


class TestEndOfAWait:
    """Of a sensor with soft_fail, as both of ours are: nothing but the time limit ends a wait as skipped."""

    def resume(self, sensor, method: str = "execute_complete", **event):
        return sensor.resume_execution(method, event or {"event": {"sentence": "s"}}, context())

    @pytest.mark.parametrize("error", [AirflowException("away"), AirflowFailException("refused"), ValueError("odd")])
    def test_what_goes_wrong_after_a_wait_is_no_skip(self, monkeypatch, error):
        def fail(*given):
            raise error

        sensor = DriftSensor(task_id="drift", soft_fail=True)
        monkeypatch.setattr(sensor, "handle_answer", fail)
        with pytest.raises(type(error)) as raised:
            self.resume(sensor)
        assert raised.value is error

    def test_a_trigger_that_failed_is_no_skip(self):
        with pytest.raises(TaskDeferralError):
            self.resume(DriftSensor(task_id="drift", soft_fail=True), "__fail__", error="Trigger failure")

    @pytest.mark.parametrize(("soft", "ends"), [(True, AirflowSkipException), (False, AirflowSensorTimeout)])
    def test_the_end_of_the_time_limit_skips_where_it_may_and_says_for_what_it_waited(self, soft, ends):
        sensor = DriftSensor(task_id="drift", soft_fail=soft, timeout=90)
        with pytest.raises(ends, match="No answer to 'drift' within 0:01:30"):
            self.resume(sensor, "__fail__", error="Trigger timeout")

    @pytest.mark.parametrize("deferrable", [True, False])
    @pytest.mark.parametrize(
        ("error", "ends"),
        [(ServiceUnavailable("away"), AirflowException), (RequestInvalid("no such day"), AirflowFailException)],
    )
    def test_an_outage_at_the_first_look_is_retried_and_a_refusal_is_not(self, deferrable, error, ends, monkeypatch):
        monkeypatch.setattr(Away, "error", error)
        with pytest.raises(ends, match=str(error)) as raised:
            Away(task_id="wait", soft_fail=True, deferrable=deferrable).execute(context())
        assert not isinstance(raised.value, AirflowSkipException)

    async def test_the_trigger_rides_over_an_outage(self, monkeypatch, caplog):
        answers = [ServiceUnavailable("the store is away"), OSError("stale handle"), None, {"sentence": "now"}]

        def ask(self):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(PollTrigger, "_ask_now", ask)
        async with asyncio.timeout(5):
            fired = await anext(PollTrigger("drift", {}, 0.01).run())
        assert fired.payload == {"sentence": "now"} and answers == []
        assert "asked again in 0.01 s: the store is away" in caplog.text

    async def test_what_no_time_mends_ends_the_wait(self, monkeypatch):
        def fail(self):
            raise RequestInvalid("there is no such condition")

        monkeypatch.setattr(PollTrigger, "_ask_now", fail)
        with pytest.raises(RequestInvalid):
            await anext(PollTrigger("drift", {}, 0.01).run())


class TestDriftSensor:
    def test_it_answers_at_once_when_there_is_an_answer(self):
        alarm()
        found = DriftSensor(task_id="drift").execute(context())
        assert (found["version"], found["moved"]) == ("3", {"Income": 0.4})

    def test_otherwise_it_waits_in_the_triggerer_no_longer_than_its_timeout(self):
        sensor = DriftSensor(task_id="drift", timeout=90, poke_interval=3)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute(context())
        assert deferred.value.timeout == timedelta(seconds=90)
        assert deferred.value.trigger.serialize()[1] == {"question": "drift", "arguments": {}, "interval": 3.0}
        assert deferred.value.method_name == "execute_complete"

    def test_what_the_trigger_found_is_what_the_task_returns(self):
        told = {"key": "k", "sentence": "Income moved"}
        assert DriftSensor(task_id="drift").execute_complete(context(), told) == told

    def test_it_can_poke_in_a_worker_as_well(self):
        alarm()
        assert DriftSensor(task_id="drift", deferrable=False).execute(context())["version"] == "3"

    def test_an_episode_that_was_announced_is_no_answer_any_more(self):
        alarm()
        entry = Entry(what="drift.detected", subject="3", who="watch", why="", key="drift-3-2026-08-20")
        open_ledger().append(entry)
        with pytest.raises(TaskDeferred):
            DriftSensor(task_id="drift").execute(context())

    def test_after_a_rollback_the_reports_of_the_older_version_count(self):
        alarm(20, version="3")
        alarm(20, version="4", alarm=False)
        live("4")
        with pytest.raises(TaskDeferred):
            DriftSensor(task_id="drift").execute(context())
        live("3")
        assert DriftSensor(task_id="drift").execute(context())["version"] == "3"

    def test_an_alarm_that_is_over_is_no_answer(self):
        alarm(20)
        alarm(21, alarm=False)
        with pytest.raises(TaskDeferred):
            DriftSensor(task_id="drift").execute(context())


class TestRetrainingSensor:
    @pytest.fixture(autouse=True)
    def served(self, monkeypatch, tmp_path):
        monkeypatch.setenv("EVERGREEN_SERVING_DIR", str(tmp_path / "serving"))
        for name in ("EVERGREEN_SERVING_URL", "EVERGREEN_ENVOY_ADMIN_URL", "EVERGREEN_SUPERVISOR_URL"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("EVERGREEN_BLUE_PORT", "EVERGREEN_GREEN_PORT"):
            monkeypatch.setenv(name, "9")

    def arguments(self, *events, **options):
        return RetrainingSensor(task_id="decide").build_arguments(context(*events, **options))

    def test_a_drift_looks_at_the_newest_day_whatever_day_that_will_be(self):
        found = self.arguments(
            event(as_of="2026-08-12", key="drift-3-2026-08-11"), asset=DRIFT_DETECTED, run_type="asset_triggered"
        )
        assert found == {"trigger": "drift", "triggered": "2026-08-12", "as_of": None, "episode": "drift-3-2026-08-11"}

    def test_a_schedule_looks_at_its_own_day(self):
        found = self.arguments(run_type="scheduled")
        assert found == {"trigger": "schedule", "triggered": "2026-08-20", "as_of": "2026-08-20", "episode": None}

    def test_a_backfilled_week_is_a_schedule_of_that_week(self):
        assert self.arguments(run_type="backfill")["trigger"] == "schedule"

    def test_a_person_may_name_the_day(self):
        found = self.arguments(params={"as_of": "2026-08-04"})
        assert found == {"trigger": "manual", "triggered": "2026-08-04", "as_of": "2026-08-04", "episode": None}

    def test_a_no_skips_the_run_with_its_reason_and_goes_to_the_ledger(self):
        with pytest.raises(AirflowSkipException, match="0 labelled rows"):
            RetrainingSensor(task_id="decide").execute(context())
        assert [entry.what for entry in open_ledger().read_entries("retraining.declined")] == ["retraining.declined"]

    @pytest.fixture
    def rows(self, manifest):
        """Four days whose labels are known as of 6 August."""
        for number in range(4):
            publish(open_snapshot_store(), manifest, date(2026, 8, 1) + timedelta(days=number))

    def test_a_yes_is_the_tasks_answer_and_is_entered_by_its_number(self, rows):
        told = RetrainingSensor(task_id="decide").execute(context())
        assert told == {
            "verdict": "yes",
            "sentence": "a person asked for it.",
            "as_of": "2026-08-05",
            "key": "retraining-1",
        }
        [entry] = open_ledger().read_entries("retraining.approved")
        assert (entry.key, entry.details["trigger"]) == ("retraining-1", "manual")

    def test_a_run_that_was_killed_behind_its_approval_finds_it_again(self, rows):
        first = RetrainingSensor(task_id="decide").execute(context())
        assert RetrainingSensor(task_id="decide").execute(context()) == first
        assert len(list(open_ledger().read_entries("retraining.approved"))) == 1

    def test_what_the_trigger_saw_only_wakes_the_worker_who_decides_by_what_is_known_then(self, rows):
        drifted = (event(as_of="2026-08-04", key="drift-3-2026-08-04"),)
        woken = {"verdict": "yes", "sentence": "it was so a while ago.", "as_of": "2026-08-05", "number": 1}
        options = {"asset": DRIFT_DETECTED, "run_type": "asset_triggered"}
        RetrainingSensor(task_id="decide").execute_complete(context(*drifted, run_id="one", **options), woken)
        with pytest.raises(AirflowSkipException, match="approved as of 2026-08-05 answers this drift already"):
            RetrainingSensor(task_id="decide").execute_complete(context(*drifted, run_id="two", **options), woken)

    def test_what_labels_say_against_the_live_version_is_among_the_reasons(self, rows):
        open_ledger().append(Entry(what="model.trained", subject="r", who="t", why="", details=TRAINED, key="t"))
        fell = Signal(
            check="performance", subject="(all)", measure="accuracy", value=0.6, threshold=0.7, severity="critical"
        )
        open_report_store().write_report(
            MonitorReport(as_of=DAY, version="3", alarm=True, verdict="", rows=300, moved={}, signals=(fell,))
        )
        week = {"run_type": "scheduled", "params": {"as_of": "2026-08-09"}}
        told = RetrainingSensor(task_id="decide").execute(context(**week))
        assert told["sentence"].startswith("accuracy of (all) on matured rows is 0.600, bound 0.700; schedule: ")

    @pytest.mark.parametrize(
        "error", [JobRefused("There is no scenario 'new_marked'", "RequestInvalid"), AirflowException("S3 is away")]
    )
    def test_a_mistyped_form_or_an_outage_is_told_and_says_nothing_about_the_data(self, rows, manifest, error):
        task = SimpleNamespace(job_params={"day": "2026-08-05"})
        record_refused_day(context() | {"task": task, "exception": error})
        assert list(open_ledger().read_entries("dataset.refused")) == []
        [told] = (Path(read_setting("EVERGREEN_STORE")) / "alerts").rglob("*.json")
        assert "The day 2026-08-05 was not ingested" in told.read_text() and str(error) in told.read_text()

    def test_a_refused_day_that_an_earlier_version_entered_of_a_wrong_form_is_passed_over(self, rows, manifest):
        open_ledger().append(Entry(what="model.trained", subject="r", who="t", why="", details=TRAINED, key="t"))
        open_ledger().append(Entry(what="dataset.refused", subject="2026-13-01", who="ingest", why="", key="d"))
        week = {"run_type": "scheduled", "params": {"as_of": "2026-08-09"}}
        assert "labelled rows" in RetrainingSensor(task_id="decide").execute(context(**week))["sentence"]

    def test_a_day_that_was_refused_stops_the_policy_until_a_later_one_is_valid(self, rows, manifest):
        open_ledger().append(Entry(what="model.trained", subject="r", who="t", why="", details=TRAINED, key="t"))
        task = SimpleNamespace(job_params={"day": "2026-08-05"})
        refused = JobRefused("rule 3 is broken", "DataRefused")
        record_refused_day(context() | {"task": task, "exception": refused})
        [told] = (Path(read_setting("EVERGREEN_STORE")) / "alerts").rglob("*.json")
        assert "The delivery of 2026-08-05 was refused" in told.read_text() and "rule 3" in told.read_text()
        week = {"run_type": "scheduled", "params": {"as_of": "2026-08-09"}}
        with pytest.raises(AirflowSkipException, match="the delivery of 2026-08-05 was refused and no later day"):
            RetrainingSensor(task_id="decide").execute(context(**week))
        publish(open_snapshot_store(), manifest, date(2026, 8, 5))
        told = RetrainingSensor(task_id="decide").execute(context(**week))
        assert "labelled rows the last training has not seen" in told["sentence"]
