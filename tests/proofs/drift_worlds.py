"""A table of twenty features with scores and labels, whose truth is known: drawn, profiled and judged.

The features share a tenth of their variance, as columns of one table do. From one window to the next every one of them
wanders by a hundredth of sigma and nothing else: no feed is the same to three digits on two days, and a monitor that
alarms at that is of no use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special, stats

from include import manifest
from include.kernel.inference import statistics as st
from include.monitoring.core import drift
from include.monitoring.core.correlations import compute_correlations
from include.monitoring.core.drift import TableProfile, Window
from include.monitoring.core.profiles import (
    CategoryProfile,
    NumberProfile,
    Profile,
    build_category_baseline,
    build_number_baseline,
)
from include.monitoring.core.signals import SCORE, Signal
from include.monitoring.spec import MonitorSpec
from tests.proofs.drift_shapes import MIXES, NUMBERS, Mix, Shape

DAY = date(2026, 9, 1)
LEFT_OUT = ("wide", "tiny", "exponential", "bounded", "rounded")
SHAPES: dict[str, Shape] = {name: shape for name, shape in NUMBERS.items() if name not in LEFT_OUT}
FEATURES: dict[str, Shape | Mix] = {**SHAPES, **{f"mix_{name}": mix for name, mix in MIXES.items()}}
SHARED, WANDER, THRESHOLD = 0.1, 0.01, 0.25
TEXTBOOK = 0.05


@lru_cache
def spec() -> MonitorSpec:
    return manifest.load().monitor


@dataclass(frozen=True)
class Move:
    """What happens to the normal behind a feature."""

    shift: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Drawn:
    """Features (n,) by name, categories as codes; scores (n,); truth (n,) of 0 and 1."""

    features: dict[str, Any]
    scores: Any
    truth: Any


@dataclass(frozen=True)
class World:
    rng: np.random.Generator
    moves: Mapping[str, Move] = field(default_factory=dict)

    def drawn(self, rows: int) -> Drawn:
        rng, common = self.rng, self.rng.standard_normal(rows) * np.sqrt(SHARED)
        features = {}
        for name, shape in FEATURES.items():
            move = self.moves.get(name, Move())
            normals = np.sqrt(1 - SHARED) * rng.standard_normal(rows) + common
            features[name] = shape.formed(rng, normals * move.scale + move.shift + WANDER * rng.standard_normal())
        score = special.expit(-1.3 + 0.9 * (rng.standard_normal(rows) + WANDER * rng.standard_normal()))
        return Drawn(features, score, (rng.random(rows) < score).astype(np.float64))


@dataclass(frozen=True)
class Baseline:
    measured: TableProfile
    labels: tuple[int, int]

    def of(self, table: Drawn) -> TableProfile:
        known = self.measured.profiles
        profiles = {name: _profile(known[name], name, values) for name, values in table.features.items()}
        numbers = {name: table.features[name] for name in SHAPES}
        scores = known[SCORE].count_values(table.scores)
        return TableProfile({**profiles, SCORE: scores}, compute_correlations(numbers, known))

    def judged(self, table: Drawn, current: TableProfile) -> tuple[Window, tuple[Signal, ...]]:
        """The window, and all of its signals with those of its labels, as the monitor's report has them."""
        window = drift.compare_window(DAY, self.measured, current, THRESHOLD, spec())
        labels = drift.detect_label_drift(self.labels, table.truth, table.scores, spec(), seed=1)
        return window, (*window.signals, *labels)


def baseline(table: Drawn) -> Baseline:
    profiles: dict[str, Profile] = {name: build_number_baseline(table.features[name]) for name in SHAPES}
    for name, shape in FEATURES.items():
        if isinstance(shape, Mix):
            profiles[name] = _profile(build_category_baseline(shape.names), name, table.features[name])
    relations = compute_correlations({name: table.features[name] for name in SHAPES}, profiles)
    profiles[SCORE] = build_number_baseline(table.scores, include=[THRESHOLD])
    return Baseline(TableProfile(profiles, relations), (int(table.truth.sum()), len(table.truth)))


def _profile(grid: Profile, name: str, values: Any) -> Profile:
    shape = FEATURES[name]
    if isinstance(grid, CategoryProfile) and isinstance(shape, Mix):
        counted = np.bincount(values + 1, minlength=len(shape.names) + 1).tolist()
        return grid.build_from_counts(dict(zip((None, *shape.names), counted, strict=True)))
    return grid.count_values(values)


def textbook(before: TableProfile, now: TableProfile) -> bool:
    """Any of the features with p < 0.05: Kolmogorov-Smirnov for numbers, chi-square for categories."""
    return any(_p_value(before.profiles[name], now.profiles[name]) < TEXTBOOK for name in FEATURES)


def _p_value(one: Profile, other: Profile) -> float:
    if isinstance(one, NumberProfile) and isinstance(other, NumberProfile):
        return st.compute_ks_p_value(one.measure_distance(other), one.known, other.known)
    table = np.array([one.counts, other.counts])
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 0], correction=False).pvalue)


def evidently_default(reference: Drawn, current: Drawn) -> list[str]:
    """Which features Evidently calls drifted: its own choice of test and threshold, asked column by column."""
    import pandas as pd
    from evidently.legacy.calculations.stattests import get_stattest

    found = []
    for name, shape in FEATURES.items():
        kind = "cat" if isinstance(shape, Mix) else "num"
        pair = [pd.Series(table.features[name]).replace(-1 if kind == "cat" else np.nan, np.nan).dropna()
                for table in (reference, current)]  # fmt: skip
        test = get_stattest(pair[0], pair[1], kind, None)
        found += [name] * bool(test(pair[0], pair[1], kind, test.default_threshold).drifted)
    return found
