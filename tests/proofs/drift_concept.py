"""The example's applications with a concept that drifts: labels turn round, inputs stay. Who notices, and on which day?

A model is trained on the first days and judged on the next ones, as a training does it; then days go by. From one day
on, half of the good risks among applicants with a fixed job and no records are bad ones. In another play good and bad
change places there, so that the share of bad ones stays what it was: only who they are changes. Days are counted as if
labels were known at once; in production all this is `label.delay_days` later.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from include import manifest
from include.model import pipelines
from include.model.schema import conform, describe
from include.monitoring.core import drift, performance
from include.monitoring.core.drift import TableProfile
from include.monitoring.core.profiles import Profile, build_category_baseline, build_number_baseline
from include.monitoring.core.signals import SCORE, Signal
from tests.delivered import read_day

TRAINED, JUDGED, CALM, TURNED = 16, 8, 8, 10
SHARE = 0.5
WATCHED = ("feature_drift", "prediction_drift", "rate_change", "calibration_error", "performance", "adwin", "ddm")


def who_notices() -> dict[str, Any]:
    """Per scene, for each check: the day after the first turned one on which it raised a signal first, or None."""
    return {scene: _play(scene) for scene in ("calm", "turned", "swapped")}


def held(found: dict[str, Any]) -> dict[str, bool]:
    """Nobody may cry on calm days; inputs must not be blamed; who watches labels must notice both kinds."""
    blind = ("feature_drift", "prediction_drift")
    return {
        "calm": not any(found["calm"].values()),
        "inputs not blamed": not any(found[scene][check] for scene in ("turned", "swapped") for check in blind),
        "turned labels noticed": bool(found["turned"]["rate_change"]),
        "swapped labels noticed": any(
            found["swapped"][check] for check in ("calibration_error", "performance", "adwin")
        ),
    }


def _play(scene: str) -> dict[str, int | None]:
    spec = manifest.load()
    days = [read_day(spec, spec.source.first_day + timedelta(days=number)) for number in range(spec.source.days)]  # type: ignore[union-attr]
    first = TRAINED + JUDGED + CALM
    rng = np.random.default_rng(3)
    days = [day if number < first or scene == "calm" else turned(day, scene, rng) for number, day in enumerate(days)]
    judge = Judge(pd.concat(days[:TRAINED]), pd.concat(days[TRAINED : TRAINED + JUDGED]))
    noticed: dict[str, int | None] = dict.fromkeys(WATCHED)
    for newest in range(TRAINED + JUDGED + 2, min(first + TURNED, len(days))):
        for name in judge.raised(days[TRAINED + JUDGED : newest + 1]):
            noticed[name] = noticed[name] or newest - first + 1
    return noticed


def turned(day: pd.DataFrame, scene: str, rng: np.random.Generator) -> pd.DataFrame:
    """Good ones become bad in a part of the table; swapped: as many bad ones of the same part become good."""
    day = day.copy()
    part = (day["Records"] == "no") & (day["Job"] == "fixed")
    good, bad = (np.flatnonzero(part & (day["Status"] == label)) for label in ("good", "bad"))
    count = int(SHARE * len(good)) if scene == "turned" else min(len(bad), len(good))
    status = day["Status"].to_numpy(copy=True)
    status[rng.choice(good, count, replace=False)] = "bad"
    if scene == "swapped":
        status[rng.choice(bad, count, replace=False)] = "good"
    return day.assign(Status=status)


class Judge:
    """A model with its baseline, and the checks of one window."""

    def __init__(self, training: pd.DataFrame, holdout: pd.DataFrame) -> None:
        self.spec = manifest.load()
        names = list(self.spec.contract.columns)
        self.columns = describe(training[names])
        self.pipeline = pipelines.build("logistic", self.columns, {"C": 1.0}, 1)
        self.pipeline.fit(conform(training, self.columns), self._truth(training))
        inputs, scores = self._scored(holdout)
        self.profiles: dict[str, Profile] = {
            c.name: build_category_baseline(inputs[c.name])
            if c.kind == "category"
            else build_number_baseline(inputs[c.name])
            for c in self.columns
        }
        self.profiles[SCORE] = build_number_baseline(scores, include=[self.spec.gate.threshold])
        truth = self._truth(holdout)
        self.labels = (int(truth.sum()), len(truth))
        self.decided = performance.count_decisions(truth, scores, self.spec.gate.threshold)

    def _truth(self, table: pd.DataFrame) -> Any:
        return (table["Status"] == "bad").to_numpy().astype(np.float64)

    def _scored(self, table: pd.DataFrame) -> tuple[pd.DataFrame, Any]:
        inputs = conform(table, self.columns)
        return inputs, self.pipeline.predict_proba(inputs)[:, 1]

    def raised(self, days: list[pd.DataFrame]) -> list[str]:
        """Which checks raise a signal after these days: the window is the last of them, errors are those of all."""
        monitor, matured = self.spec.monitor, self._matured(days)
        rows = pd.concat(days[-monitor.window_days :])
        threshold = self.spec.gate.threshold
        found = [s.check for s in self._window(rows) if s.raised and s.check in ("feature_drift", "prediction_drift")]
        newest = matured.select_last(monitor.window_days)
        labels = drift.detect_label_drift(self.labels, newest.truth, newest.scores, monitor, seed=1)
        found += [
            s.measure for s in [*labels, *performance.detect_concept_drift(matured, threshold, monitor)] if s.raised
        ]
        worse = performance.check_performance(self.decided, newest, threshold, self.spec)
        return [*found, *["performance"] * any(signal.raised for signal in worse)]

    def _matured(self, days: list[pd.DataFrame]) -> performance.MaturedRows:
        rows = pd.concat(days)
        place = np.repeat(np.arange(len(days), dtype=np.float64), [len(day) for day in days])
        dates = tuple(drift_day() + timedelta(days=number) for number in range(len(days)))
        return performance.MaturedRows(self._truth(rows), self._scored(rows)[1], place, dates)

    def _window(self, rows: pd.DataFrame) -> tuple[Signal, ...]:
        inputs, scores = self._scored(rows)
        values: dict[str, Any] = {**{c.name: inputs[c.name] for c in self.columns}, SCORE: scores}
        current = TableProfile({name: self.profiles[name].count_values(each) for name, each in values.items()})
        before, spec = TableProfile(self.profiles), self.spec
        return drift.compare_window(drift_day(), before, current, spec.gate.threshold, spec.monitor).signals


def drift_day() -> Any:
    return manifest.load().source.first_day  # type: ignore[union-attr]
