"""A real Prometheus asks the real stack; rules and dashboards ask only for what somebody tells."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

from include.embedded.commands.prometheus import MONITORING_DIR, build_configuration, read_rules, write_configuration
from include.embedded.configuration.settings import EmbeddedSettings
from include.kernel.ledger import Entry
from include.kernel.ledger_file import LocalLedger
from include.kernel.wiring import open_ledger
from include.metrics_exporter import build_registry
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.signals import Signal
from include.monitoring.report_store import LocalReports
from include.monitoring.wiring import open_report_store
from include.serving.metrics import Metrics
from tests import ground
from tests.ground import free_ports, wait_for
from tests.prometheus import said, tool

DAY = date(2026, 8, 20)
DROPPED = Signal(
    check="performance",
    subject="all",
    measure="auc",
    value=0.6,
    low=0.55,
    high=0.64,
    threshold=0.65,
    severity="critical",
)
REPORT = MonitorReport(
    as_of=DAY, version="3", alarm=True, verdict="drifted", rows=300, moved={"Income": 0.4}, signals=(DROPPED,)
)
DASHBOARDS = sorted((MONITORING_DIR / "dashboards").glob("*.json"))


def live(ledger: LocalLedger) -> None:
    ledger.append(Entry(what="release.live", subject="3", who="deploy", why="", key="live"))


@contextmanager
def program(*command: str | Path) -> Iterator[None]:
    running = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        running.terminate()
        running.wait(60)


def asked(url: str, **params: str) -> Any:
    return httpx.get(url, params=params, trust_env=False, timeout=10).raise_for_status().json()["data"]


def test_a_real_prometheus_scrapes_the_stack_and_its_alerts_reach_a_real_alertmanager(tmp_path: Path) -> None:
    prometheus, alertmanager = tool("prometheus"), tool("prometheus-alertmanager")
    own, manager = free_ports(2)
    with ground.stack(tmp_path, "envoy", "slot-blue", "slot-green", "exporter") as stack:
        live(LocalLedger(stack.settings.store_dir / "ledger.jsonl"))
        LocalReports(stack.settings.store_dir).write_report(REPORT)
        write_configuration(stack.settings)
        place = stack.settings.home / "prometheus"
        settings = build_configuration(stack.settings, f"127.0.0.1:{manager}")
        settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (place / "prometheus.yml").write_text(yaml.safe_dump(settings))
        told = [f"--config.file={place / 'alertmanager.yml'}", f"--web.listen-address=127.0.0.1:{manager}"]
        kept = [f"--storage.path={place / 'told'}", "--cluster.listen-address="]
        asks = [f"--config.file={place / 'prometheus.yml'}", f"--web.listen-address=127.0.0.1:{own}"]
        url = f"http://127.0.0.1:{own}/api/v1"
        with program(alertmanager, *told, *kept), program(prometheus, *asks, f"--storage.tsdb.path={place / 'data'}"):
            wait_for(lambda: [target["health"] for target in asked(f"{url}/targets")["activeTargets"]] == ["up"] * 4)
            [seen] = wait_for(lambda: asked(f"{url}/query", query="evergreen_signal")["result"])
            assert seen["metric"]["measure"] == "auc" and float(seen["value"][1]) == 0.6
            assert asked(f"{url}/query", query="envoy_server_live")["result"]
            told_of = wait_for(lambda: {a["labels"]["alertname"]: a for a in alerts(manager)}.get("EvergreenDrift"))
            assert told_of["annotations"]["runbook"] == "docs/runbook.md#a-drift-alarm"
            wait_for(lambda: "EvergreenAccuracyDropped" in {alert["labels"]["alertname"] for alert in alerts(manager)})


def alerts(port: int) -> Any:
    return httpx.get(f"http://127.0.0.1:{port}/api/v2/alerts", trust_env=False).raise_for_status().json()


def test_prometheus_and_alertmanager_accept_what_make_prometheus_writes(tmp_path: Path) -> None:
    settings = EmbeddedSettings(home=tmp_path / "home")
    command = write_configuration(settings)
    place = settings.home / "prometheus"
    assert str(place / "prometheus.yml") in command
    assert "SUCCESS" in said("promtool", "check", "config", place / "prometheus.yml")
    assert "SUCCESS" in said("amtool", "check-config", place / "alertmanager.yml")


def queries() -> dict[str, list[str]]:
    """Every expression of rules and dashboards, by the place it stands in."""
    found = {"rules": [rule["expr"] for group in read_rules()["groups"] for rule in group["rules"]]}
    for path in DASHBOARDS:
        panels = json.loads(path.read_text())["panels"]
        found[path.stem] = [target["expr"] for panel in panels for target in panel["targets"]]
    return found


@pytest.mark.parametrize("place", queries())
def test_every_query_is_one_that_prometheus_understands(place: str, tmp_path: Path) -> None:
    recorded = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(queries()[place])]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": place, "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in said("promtool", "check", "rules", tmp_path / "rules.yml")


def names(told: CollectorRegistry) -> set[str]:
    """The names under which a query finds what this registry tells."""
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + end for family in told.collect() for end in endings.get(family.type, [""])}


def test_every_metric_that_is_asked_for_is_told_by_somebody(small: Callable[..., Any]) -> None:
    small()
    live(open_ledger())
    open_report_store().write_report(REPORT)
    recorded = {rule["record"] for group in read_rules()["groups"] for rule in group["rules"] if "record" in rule}
    metrics = Metrics("blue")
    metrics.make_log_metrics("predictions")
    told = names(build_registry()) | names(metrics.registry) | recorded | {"evergreen_newest_day_seconds"}
    for place, expressions in queries().items():
        used = {name for expr in expressions for name in re.findall(r"\bevergreen[_:][\w:]+", expr)}
        assert used and used <= told, (place, used - told)


def test_dashboards_are_whole_and_their_panels_do_not_overlap() -> None:
    assert [path.stem for path in DASHBOARDS] == [f"evergreen-{n}" for n in ("business", "drift", "model", "service")]
    for path in DASHBOARDS:
        document = json.loads(path.read_text())
        cells = [
            (x, y)
            for panel in document["panels"]
            for place in [panel["gridPos"]]
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert document["uid"] == path.stem and len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
