"""Rules and dashboards ask in the words of those who write, and who writes keeps to the words of one owner.

YAML and JSON cannot import a name. So every selector in them is held to what a server and the exporter really wrote:
its metric, its labels, and its values. A value that nobody writes would be a rule that can never fire.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, NamedTuple, get_args

import pytest
from prometheus_client import CollectorRegistry

from include.embedded.commands.prometheus import MONITORING_DIR, build_configuration, read_rules
from include.embedded.configuration.settings import EmbeddedSettings
from include.feedback.core.prediction_records import ServedBy, Stream
from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds
from include.kernel.words.colours import COLOURS
from include.metrics_exporter import _build_bounds, build_registry
from include.monitoring.core.episodes import MonitorReport
from include.monitoring.core.signals import Check, Signal
from include.serving.app import create_app
from include.serving.metrics import Metrics
from include.serving.routes import POLICY
from include.serving.settings import Settings
from include.serving.transport.middleware import resolve_route
from include.serving.wiring import open_service
from include.serving.words import slot_metrics as words
from tests import edge

SELECTOR = re.compile(r"\b(evergreen_\w+|up|process_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|=|!=|!~)"([^"]*)"')
STATUSES = ("200", "422", "499", "503")


class Selector(NamedTuple):
    place: str
    metric: str
    label: str
    operator: str
    value: str


def expressions() -> Iterator[tuple[str, str]]:
    for group in read_rules()["groups"]:
        yield from (("rules", rule["expr"]) for rule in group["rules"])
    for path in sorted((MONITORING_DIR / "dashboards").glob("*.json")):
        panels = json.loads(path.read_text())["panels"]
        yield from ((path.stem, target["expr"]) for panel in panels for target in panel["targets"])


def selectors() -> list[Selector]:
    return [
        Selector(place, metric, *matcher)
        for place, expression in expressions()
        for metric, told in SELECTOR.findall(expression)
        for matcher in MATCHER.findall(told)
    ]


def full() -> Metrics:
    """The metrics of a server to which everything has happened."""
    metrics = Metrics("blue")
    for path in (*words.PREDICTING, "/made/up"):
        for status in STATUSES:
            metrics.count_answer("3", path, int(status), 0.01)
    oddities = {("Age", "high"): 1, ("Age", "low"): 1, ("Job", "unseen"): 1, ("Job", "missing"): 1}
    metrics.record_scores("3", [0.1, 0.9], oddities)  # type: ignore[arg-type]
    metrics.count_decisions("3", [True, False])
    metrics.record_batch(2)
    metrics.count_explanation("3", "explained")
    metrics.count_not_additive("3")
    metrics.count_explainer_start()
    metrics.watch(lambda: 0.0, lambda: 0.0)
    for served_by in get_args(ServedBy):
        metrics.count_fallback("3", served_by)
    for stream in get_args(Stream):
        log = metrics.make_log_metrics(stream)
        log.count_lost(1, "full")
        log.watch_waiting(lambda: 0.0)
    return metrics


def labels_of(told: CollectorRegistry) -> dict[str, set[str]]:
    """Of each sample that is told: its labels, but for a histogram's own."""
    samples = [sample for family in told.collect() for sample in family.samples]
    return {sample.name: {*sample.labels} - {"le"} for sample in samples}


@pytest.fixture
def exported(small: Callable[..., Any]) -> dict[str, set[str]]:
    """What the exporter tells of a store in which a version is live and was looked at."""
    small()
    edge.ledger().append(Entry(what=ledger_kinds.RELEASE_LIVE, subject="3", who="deploy", why="", key="live"))
    measured = {"value": 0.6, "low": 0.5, "high": 0.7, "threshold": 0.65}
    signal = Signal(check="performance", subject="all", measure="auc", severity="critical", **measured)  # type: ignore[arg-type]
    about = {"as_of": date(2026, 8, 20), "version": "3", "alarm": True, "verdict": "", "rows": 300, "moved": {}}
    edge.reports().write_report(MonitorReport(signals=(signal,), **about))
    return labels_of(build_registry())


def test_a_server_writes_what_its_owner_says_and_nothing_else() -> None:
    metrics = full()
    metrics._info.labels("3", "blue", "credit", "0" * 64, "1").set(1)
    metrics._ready.labels("3", "blue").set(1)
    written = {name: found for name, found in labels_of(metrics.registry).items() if name.startswith("evergreen_")}
    written = {name: found for name, found in written.items() if not name.endswith("_created")}
    owned = {sample: {*family.labels} for family in words.FAMILIES for sample in family.samples}
    assert written == owned


def test_the_paths_that_predict_are_those_the_server_answers_so(tmp_path) -> None:
    settings = Settings(slot="blue", serving_dir=tmp_path, port=0)
    assert set(create_app(open_service(settings)).handlers) == set(words.PREDICTING)


def test_every_label_that_is_asked_for_is_one_that_is_written(exported: dict[str, set[str]]) -> None:
    owned = {sample: {*family.labels} for family in words.FAMILIES for sample in family.samples}
    jobs = {"up": {"job"}, words.RESIDENT: {"job"}}
    known = {**owned, **exported, **jobs}
    found = selectors()
    assert len(found) > 40
    assert [one for one in found if one.label not in known[one.metric]] == []


def test_every_value_that_is_asked_for_is_one_that_is_written() -> None:
    values = known_values()
    for one in selectors():
        assert one.operator in ("=", "=~")
        for wanted in [one.value] if one.operator == "=" else one.value.split("|"):
            assert [value for value in values[one.label] if re.fullmatch(wanted, value)], one


def test_where_rules_ask_for_paths_they_mean_all_that_predict_and_no_other() -> None:
    asked = {one.value for one in selectors() if one.label == words.PATH}
    paths = {*map(resolve_route, POLICY), words.OTHER}
    assert asked and all({p for p in paths if re.fullmatch(one, p)} == {*words.PREDICTING} for one in asked)


def known_values() -> dict[str, tuple[str, ...]]:
    """Of each label, what is written there."""
    settings = build_configuration(EmbeddedSettings())
    bounds = {sample.labels["name"] for sample in _bounds()}
    return {
        words.DECISION: (words.YES, words.NO),
        words.PATH: (*words.PREDICTING, words.OTHER),
        words.STATUS: STATUSES,
        words.SLOT: COLOURS,
        words.SERVED_BY: get_args(ServedBy),
        words.STREAM: get_args(Stream),
        "check": get_args(Check),
        "what": tuple(ledger_kinds.KINDS),
        "name": tuple(bounds),
        "job": tuple(job["job_name"] for job in settings["scrape_configs"]),
    }


def _bounds() -> list[Any]:
    return list(_build_bounds(edge.manifest()).samples)
