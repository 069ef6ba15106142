from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from include.alerting.channels import Channel
from include.alerting.core.alerts import Alert, Severity
from include.alerting.wiring import open_outbox
from include.kernel.errors import Permanent, ServiceUnavailable
from include.manifest import read_manifest
from include.monitoring import baselines
from tests import edge
from tests.delivered import read_day
from tests.job_world import FIRST, LAST, go_live, publish, publish_rows


@pytest.fixture
def live(place, ask, registry):
    return go_live(registry, ask("train").outputs["run_id"])


def test_before_a_version_is_live_there_is_nothing_to_measure(place, ask):
    result = ask("monitor")
    assert (result.verdict, result.summary) == ("no", "no version is live yet; nothing to measure")
    assert edge.reports().read_reports() == []


def test_a_release_that_serves_and_is_no_champion_yet_is_watched(place, ask, registry):
    run_id = ask("train").outputs["run_id"]
    version = registry.register(run_id, f"runs:/{run_id}/model", "k")
    assert registry.find_champion() is None
    assert ask("monitor", serving=version).outputs["version"] == version


def test_before_a_day_is_ingested_there_is_nothing_to_measure(live, ask):
    result = ask("monitor", as_of=date(2026, 7, 1))
    assert (result.verdict, result.summary) == ("no", "no day up to 2026-07-01 is ingested; nothing to measure")


def test_days_like_those_of_the_training_are_no_alarm(live, ask):
    result = ask("monitor")
    [report] = edge.reports().read_reports()
    assert (report.alarm, report.moved, report.version) == (False, {}, live)
    assert result.outputs["alarm"] is False
    assert 0.6 < report.auc_low < report.auc < report.auc_high <= 1


def test_a_market_that_changed_for_long_enough_is_an_alarm_that_names_what_moved(live, place, ask):
    for number in (2, 3):
        publish(edge.store(), place, FIRST + timedelta(days=number), "new_market")
    ask("monitor")
    [report] = edge.reports().read_reports()
    assert report.alarm and {"Seniority", "Income"} <= set(report.moved)
    picture = Path(report.page).with_suffix(".evidently.html")
    assert "Seniority" in picture.read_text() and picture.name in Path(report.page).read_text()
    drawn = picture.stat().st_mtime_ns
    ask("monitor", key="k2")
    assert picture.stat().st_mtime_ns == drawn


def test_the_page_lies_beside_the_report(live, ask):
    ask("monitor")
    [report] = edge.reports().read_reports()
    page = edge.reports().locate_page(report.version, report.as_of)
    assert str(page) == report.page and "<!doctype html>" in page.read_text()


class Unreachable(Channel):
    name, least = "slack", Severity.INFO

    def send(self, alert: Alert, link: str) -> None:
        raise ServiceUnavailable("slack answered 404; correct the Airflow Connection evergreen_slack.")


def test_what_could_not_be_told_stands_in_the_report_and_on_its_page(live, ask):
    outbox = open_outbox(read_manifest())
    outbox.put(Alert(severity=Severity.WARNING, title="The world <moved>", text="", runbook="roll-back", key="k"))
    outbox.deliver([Unreachable()])
    result = ask("monitor")
    [untold] = result.outputs["untold"]
    assert untold.startswith("The world <moved> (since ") and "slack answered 404" in untold
    assert "1 alerts could not be told: The world <moved>" in result.summary
    page = Path(result.outputs["page"]).read_text()
    assert "What could not be told to people" in page and "The world &lt;moved&gt;" in page


def test_measuring_again_overwrites_the_same_report(live, ask):
    first, second = ask("monitor"), ask("monitor", key="k2")
    assert first.outputs == second.outputs
    assert len(edge.reports().read_reports()) == 1
    assert edge.reports().read_reports()[0].as_of == LAST - timedelta(days=1)


def test_a_report_holds_every_check_with_its_bound_and_its_page_tells_the_budget(live, ask):
    ask("monitor")
    [report] = edge.reports().read_reports()
    checks = {signal.check for signal in report.signals}
    assert {"feature_drift", "prediction_drift", "data_quality", "label_drift"} <= checks
    assert all(signal.threshold is not None for signal in report.signals if signal.severity == "ok")
    assert "days have an alarm" in Path(report.page).read_text()


def test_a_column_that_is_no_longer_delivered_is_a_signal_and_no_failure(live, place, ask):
    fewer = read_day(place, FIRST + timedelta(days=3)).drop(columns="Income")
    publish_rows(edge.store(), place, FIRST + timedelta(days=3), fewer)
    assert ask("monitor").verdict == "yes"
    [report] = edge.reports().read_reports()
    gone = {signal.subject: signal.severity for signal in report.signals if signal.check == "schema_drift"}
    assert gone == {"Income": "critical"}
    assert [s.severity for s in report.signals if s.check == "prediction_drift"] == ["unknown"]
    assert {"Age", "Seniority"} <= {s.subject for s in report.signals if s.check == "feature_drift"}


def test_a_baseline_of_another_time_asks_for_a_training_in_one_sentence(tmp_path):
    (tmp_path / "baseline.json").write_text('{"Age": {"kind": "number", "edges": [1], "counts": [1, 1, 0]}}')
    with pytest.raises(Permanent, match="is no baseline that this Evergreen can read; train the model again"):
        baselines.read(tmp_path)


def test_a_report_tells_what_became_of_the_decisions_too(live, place, ask):
    publish_rows(edge.store(), place, FIRST + timedelta(days=4), read_day(place, FIRST))
    ask("monitor", as_of=FIRST + timedelta(days=9))
    [report] = edge.reports().read_reports()
    measured = {(s.check, s.measure) for s in report.signals if s.severity != "unknown"}
    assert {("performance", "accuracy"), ("performance", "auc"), ("business", "cost_per_row")} <= measured
    assert {("estimated_performance", "accuracy_gap"), ("fairness", "parity_ratio")} <= measured
    assert [s.severity for s in report.signals if s.check == "service"] == ["unknown"]  # nobody asked the server


def test_labels_that_turned_round_are_an_alarm_though_no_feature_moved(live, place, ask):
    for number in (4, 5, 6):
        rows = read_day(place, FIRST + timedelta(days=number % 4))
        rows["Status"] = rows["Status"].map({"good": "bad", "bad": "good"})
        publish_rows(edge.store(), place, FIRST + timedelta(days=number), rows)
    ask("monitor", as_of=FIRST + timedelta(days=9))
    report = edge.reports().read_reports()[-1]
    grave = {s.check for s in report.signals if s.severity == "critical"}
    assert report.alarm and {"performance", "concept_drift"} <= grave


def test_a_baseline_of_before_performance_was_watched_leaves_it_unknown(live, ask, monkeypatch):
    now = baselines.read
    monkeypatch.setattr(baselines, "read", lambda place: replace(now(place), decisions=None, since=None))
    ask("monitor")
    [report] = edge.reports().read_reports()
    assert [s.severity for s in report.signals if s.check == "performance"] == ["unknown"]
