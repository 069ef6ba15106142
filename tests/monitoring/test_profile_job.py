"""A day is measured once, by whoever comes to it first, and a window is the sum of its days."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.kernel.job import Intent, JobRequest
from include.kernel.work_units import list_shards
from include.monitoring.baselines import Baseline
from include.monitoring.core import drift
from include.monitoring.core.signals import SCORE
from include.monitoring.jobs import profile
from include.monitoring.wiring import open_monitored_model
from tests import edge
from tests.delivered import read_day
from tests.job_world import FIRST, LAST, go_live, publish, publish_rows
from tests.killed import killed

LATER = LAST + timedelta(days=9)


@pytest.fixture
def live(place, small, ask, registry):
    """A quick model, watched in windows of two days."""
    small(name=place.name, **{"train.candidates": {"logistic": {"C": 1.0}}, "monitor.window_days": 2})
    return go_live(registry, ask("train").outputs["run_id"])


@pytest.fixture
def measured(monkeypatch):
    """The days that were measured, in the order they were."""
    days, truly = [], profile._measure_rows

    def noted(day, found):
        days.append(day.day)
        return truly(day, found)

    monkeypatch.setattr(profile, "_measure_rows", noted)
    return days


def asked(job="profile", **params) -> JobRequest:
    return JobRequest(job=job, run_key="k", as_of=LATER, intent=Intent.LIVE, params=params)


def made() -> dict[str, bytes]:
    objects = edge.store().objects
    return {key: objects.read(key).data for key in objects.list_keys("pieces/profiles/")}


def at_once(days, found):
    """A window measured as it was before days were: all rows of it, held together."""
    columns = found.model.meta.columns
    delivered = tuple(c for c in columns if all(c.name in day.columns for day in days))
    rows = found.dataset.read(days, delivered)
    return found.baseline.measure(rows.inputs, found.model if delivered == columns else None)


def judged(found, days, current):
    spec, threshold = found.manifest.monitor, found.model.meta.threshold
    window = drift.compare_window(days[-1].day, found.baseline.profile, current, threshold, spec)
    return window.verdict, [flat(signal) for signal in window.signals]


def flat(signal):
    told = signal.model_dump(mode="json")
    details = told.pop("details") or {}
    return {name: value if isinstance(value, str) else pytest.approx(value) for name, value in (told | details).items()}


def test_a_window_is_the_sum_of_its_days_and_of_their_batches(live, place, monkeypatch):
    publish(edge.store(), place, FIRST + timedelta(days=3), "new_market")
    fewer = read_day(place, FIRST + timedelta(days=1)).drop(columns="Income")
    publish_rows(edge.store(), place, FIRST + timedelta(days=4), fewer)
    monkeypatch.setattr(profile, "BATCH_ROWS", 100)
    held, count = [], Baseline.measure
    monkeypatch.setattr(
        Baseline, "measure", lambda self, inputs, model: held.append(len(inputs)) or count(self, inputs, model)
    )
    found = open_monitored_model(asked(), edge.manifest())
    verdicts = set()
    for days in found.windows:
        summed, whole = profile.measure_days(days, found), at_once(days, found)
        assert list(summed.profiles) == list(whole.profiles)
        assert summed.correlations.pairs == whole.correlations.pairs
        for name, profiled in whole.columns.items():
            assert list(summed.profiles[name].counts) == list(profiled.counts), name
        verdict, signals = judged(found, days, summed)
        assert (verdict, signals) == judged(found, days, whole)
        verdicts.add((verdict, SCORE in summed.profiles))
        assert held and held.pop() == whole.rows > 100 >= max(held, default=0)  # no more than a batch at a time
    assert verdicts == {("healthy", True), ("drifted", True), ("drifted", False)}


def test_a_day_is_measured_once_for_a_version_and_again_only_when_its_piece_is_damaged(
    live, place, ask, registry, measured, tmp_path
):
    first = ask("monitor")
    assert measured == [FIRST + timedelta(days=number) for number in range(4)]
    assert ask("monitor", key="k2").outputs == first.outputs and len(measured) == 4

    publish_rows(edge.store(), place, FIRST + timedelta(days=4), read_day(place, FIRST))
    ask("monitor", as_of=LATER)
    assert measured[4:] == [FIRST + timedelta(days=4)]  # the new day alone

    before = made()
    (tmp_path / "store" / min(before)).write_bytes(b"half of a pro")
    assert ask("monitor").outputs == first.outputs
    assert measured[5:] == [FIRST] and made() == before

    old = "pieces/profiles/2026-01-01/abc"
    assert edge.store().objects.write(old, b"x", None)
    go_live(registry, ask("train", columns=["Income", "Age"]).outputs["run_id"], key="other")
    ask("monitor")
    assert len(measured) == 10 and old not in made()  # another version measures anew, and sweeps


def test_tasks_make_the_very_pieces_the_monitor_would_also_when_one_is_killed(live, ask, measured, tmp_path):
    told = ask("profile")
    assert told.outputs["days"] == [str(FIRST + timedelta(days=number)) for number in range(4)]
    alone = made()
    assert len(alone) == 4 and max(map(len, alone.values())) < 30_000
    for key in alone:
        edge.store().objects.remove(key)

    killed(asked(**list_shards(3)[0].params), "include.model.schema", "_conform_series", 20, tmp_path / "result.json")
    assert [key.split("/")[2] for key in made()] == [str(FIRST)]  # it was killed within the second of its days
    days = [ask("profile", **shard.params).outputs["days"] for shard in list_shards(3)[1:]]
    assert days == [[str(FIRST + timedelta(days=1))], [str(FIRST + timedelta(days=2))]]
    measured.clear()
    ask("monitor")
    assert measured == [FIRST + timedelta(days=3)]
    assert made() == alone


def test_without_a_live_version_there_is_nothing_to_measure(place, ask):
    result = ask("profile")
    assert (result.verdict, result.summary) == ("no", "no version is live yet; nothing to measure")
