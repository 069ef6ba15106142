"""Every alert, evaluated by Prometheus itself on series in which it must fire and on series in which it must not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.embedded.commands.prometheus import ROOT, read_rules
from tests.prometheus import said

ALERTS = {rule["alert"]: rule for group in read_rules()["groups"] for rule in group["rules"] if "alert" in rule}
ANCHOR = re.compile(r"[^\w\- ]")


@dataclass(frozen=True)
class Case:
    """`fires` and `quiet` are series in promtool's notation, a sample a minute; looked at after `minutes`."""

    fires: dict[str, str]
    quiet: dict[str, str]
    minutes: int = 10


def series(metric: str, /, **labels: str) -> str:
    told = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{metric}{{{told}}}"


def bound(name: str) -> str:
    return series("evergreen_bound", name=name)


def entry(what: str) -> str:
    return series("evergreen_ledger_entries_total", what=what)


GOOD, BAD = (
    series("evergreen_requests_total", path="/predict", status=status, slot="blue", version="3")
    for status in ("200", "503")
)
FAST, SLOW, ALL = (series("evergreen_request_seconds_bucket", status="200", le=le) for le in ("0.05", "1", "+Inf"))


def errors(objective: str, limit: float, bad: int, minutes: int) -> Case:
    """`bad` of a hundred requests fail, or one in ten thousand does."""
    told = {bound(objective): f"{limit}x{minutes}"}
    return Case(
        {**told, GOOD: f"0+{100 - bad}x{minutes}", BAD: f"0+{bad}x{minutes}"},
        {**told, GOOD: f"0+10000x{minutes}", BAD: f"0+1x{minutes}"},
        minutes,
    )


def latency(objective: str, limit: float, share: int) -> Case:
    """`share` of a hundred requests take between 0.05 and 1 s, or none does."""
    told = {bound(objective): f"{limit}x20", SLOW: "0+100x20", ALL: "0+100x20"}
    return Case({**told, FAST: f"0+{100 - share}x20"}, {**told, FAST: "0+100x20"}, 15)


def entries(what: str, **limits: float) -> Case:
    """Three more of the kind, or none; a limit's name is spelt with __ for a dot."""
    told = {bound(name.replace("__", ".")): f"{limit}x30" for name, limit in limits.items()}
    return Case({**told, entry(what): "0x5 3x20"}, {**told, entry(what): "3x30"}, 20)


def judged(check: str, from_severity: int = 2) -> Case:
    """The signal's severity is at that from which the alert fires, or one below."""
    found = series("evergreen_signal_severity", check=check, subject="x", measure="m", version="3")
    return Case({found: f"{from_severity}x20"}, {found: f"{from_severity - 1}x20"})


def switched(metric: str, fires: str, quiet: str, /, **labels: str) -> Case:
    """One series that alone decides."""
    return Case({series(metric, **labels): fires}, {series(metric, **labels): quiet})


BLUE, GREEN = (series("evergreen_ready", version="3", slot=slot) for slot in ("blue", "green"))
UP = series("up", job="evergreen-exporter")
WAITING, MOST = series("evergreen_queue_rows", slot="blue"), bound("serving.queue_rows")
REFUSED_TWICE = {entry("gate.refused"): "0x5 2x20", bound("retraining.breaker_refusals"): "2x25"}
CASES: dict[str, list[Case]] = {
    "EvergreenNothingServes": [
        Case({BLUE: "1x3 0x20", GREEN: "0x20"}, {BLUE: "1x20", GREEN: "0x20"}),
        Case({}, {BLUE: "1x20"}),  # nobody is there to say that it is not ready
    ],
    "EvergreenSlotDown": [switched("up", "0x20", "1x20", job="evergreen-slots", instance="127.0.0.1:8101")],
    "EvergreenErrorRate": [errors("serving.objectives.error_rate", 0.01, bad=2, minutes=10)],
    "EvergreenErrorBudgetBurnsFast": [errors("serving.objectives.availability", 0.999, bad=2, minutes=70)],
    "EvergreenErrorBudgetBurns": [errors("serving.objectives.availability", 0.999, bad=1, minutes=400)],
    "EvergreenSlowP95": [latency("serving.objectives.p95_seconds", 0.1, share=10)],
    "EvergreenSlowP99": [latency("serving.objectives.p99_seconds", 0.25, share=3)],
    "EvergreenOverloaded": [Case({MOST: "1024x20", WAITING: "900x20"}, {MOST: "1024x20", WAITING: "800x20"})],
    "EvergreenBreakerOpen": [switched("evergreen_breaker_open", "1x20", "0x20", slot="blue")],
    "EvergreenFallback": [switched("evergreen_fallback_total", "0+1x20", "5x20", served_by="rule", slot="blue")],
    "EvergreenPredictionLogLoses": [
        switched("evergreen_log_lost_rows_total", "0+1x20", "9x20", stream="predictions", reason="full")
    ],
    "EvergreenMonitoringSilent": [Case({UP: "0x20"}, {UP: "1x20"}), Case({}, {UP: "1x20"})],
    "EvergreenAccuracyDropped": [judged("performance")],
    "EvergreenEstimatedAccuracyDropped": [judged("estimated_performance")],
    "EvergreenConceptDrift": [judged("concept_drift")],
    "EvergreenUnfair": [judged("fairness")],
    "EvergreenGateRefusesAgainAndAgain": [
        entries("gate.refused", retraining__breaker_refusals=2),
        Case({**REFUSED_TWICE, entry("gate.passed"): "4x25"}, {**REFUSED_TWICE, entry("gate.passed"): "4x15 5x10"}, 20),
    ],
    "EvergreenReverted": [entries("release.reverted")],
    "EvergreenRolledBack": [entries("rollback.wanted")],
    "EvergreenRetrainingStorm": [entries("retraining.approved", retraining__monthly_budget=3)],
    "EvergreenDrift": [switched("evergreen_drift_alarm", "1x20", "0x20", version="3")],
    "EvergreenPredictionDrift": [judged("prediction_drift", 3), judged("label_drift", 3)],
    "EvergreenDataQuality": [judged("data_quality"), judged("schema_drift")],
    "EvergreenDataRefused": [entries("dataset.refused")],
    "EvergreenCostlyDecisions": [judged("business")],
}


def test_every_alert_has_its_cases() -> None:
    assert sorted(CASES) == sorted(ALERTS)


def unit_test(alert: str, given: dict[str, str], minutes: int, firing: bool) -> dict[str, Any]:
    look = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if firing else []
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in given.items()],
        "promql_expr_test": [{"expr": f"{look} > 0", "eval_time": f"{minutes}m", "exp_samples": expected}],
    }


def test_every_alert_fires_when_it_must_and_is_quiet_when_it_must_be(tmp_path: Path) -> None:
    tests = [
        unit_test(alert, given, case.minutes, firing)
        for alert, cases in CASES.items()
        for case in cases
        for given, firing in ((case.fires, True), (case.quiet, False))
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(read_rules()))
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in said("promtool", "test", "rules", tmp_path / "tests.yml")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_grave_it_is_and_links_to_a_section_that_exists(alert: str) -> None:
    found = ALERTS[alert]
    assert found["labels"]["severity"] in ("critical", "warning")
    place, _, section = found["annotations"]["runbook"].partition("#")
    assert section in anchors((ROOT / place).read_text())


def anchors(markdown: str) -> set[str]:
    """As GitHub makes them of titles."""
    titles = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {ANCHOR.sub("", title.lower()).replace(" ", "-") for title in titles}
