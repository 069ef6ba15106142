"""Drift: profiles, one window's verdict, and the episode a run of verdicts makes.

A feature counts as moved when the move is both large (PSI above a floor) and not chance (chi-square, Benjamini-Hochberg
over all features). An alarm further asks for persistence: k of the last n windows, the newest among them. The textbook
rule "any p < 0.05" alarms on most healthy days of a table of this width; this one keeps a budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np

from include.core import statistics as st
from include.core.manifest import MonitorSpec


@dataclass(frozen=True)
class Profile:
    """A histogram of one feature. Numbers: inner quantile edges (k,), k + 2 counts; categories: one count each + other.

    The last count is that of missing values. Profiles of the same edges or categories can be added up.
    """

    kind: Literal["number", "category"]
    edges: tuple[float, ...]
    categories: tuple[str, ...]
    counts: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "edges": self.edges, "categories": self.categories, "counts": self.counts}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Profile:
        return cls(content["kind"], *(tuple(content[name]) for name in ("edges", "categories", "counts")))

    def of(self, values: Sequence[Any]) -> Profile:
        """The profile of other values over this profile's bins."""
        count = _count_numbers if self.kind == "number" else _count_categories
        return Profile(self.kind, self.edges, self.categories, count(values, self))


def profile_numbers(values: Sequence[float], bins: int) -> Profile:
    """Bins of equal share of `values` (NaN is missing); ties merge bins."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if len(known) else np.empty(0)
    return Profile("number", tuple(map(float, edges)), (), ()).of(values)


def profile_categories(values: Sequence[str | None]) -> Profile:
    known = tuple(sorted({value for value in values if isinstance(value, str)}))
    return Profile("category", (), known, ()).of(values)


def _count_numbers(values: Sequence[float], profile: Profile) -> tuple[int, ...]:
    numbers = np.asarray(values, dtype=np.float64)
    missing = np.isnan(numbers)
    bins = np.searchsorted(profile.edges, numbers[~missing], side="left")
    counts = np.bincount(bins, minlength=len(profile.edges) + 1)
    return (*map(int, counts), int(missing.sum()))


def _count_categories(values: Sequence[str | None], profile: Profile) -> tuple[int, ...]:
    place = {category: index for index, category in enumerate(profile.categories)}
    counts = [0] * (len(place) + 2)
    for value in values:
        counts[place.get(value, len(place)) if isinstance(value, str) else -1] += 1
    return tuple(counts)


@dataclass(frozen=True)
class Moved:
    feature: str
    psi: float
    p_value: float
    moved: bool


@dataclass(frozen=True)
class Window:
    """One window of ingested days, ending at `last`, against the live version's baseline."""

    last: date
    rows: int
    features: tuple[Moved, ...]
    verdict: Literal["healthy", "drifted", "not enough data"]

    @property
    def moved(self) -> tuple[str, ...]:
        return tuple(feature.feature for feature in self.features if feature.moved)


def compare(last: date, baseline: Mapping[str, Profile], current: Mapping[str, Profile], spec: MonitorSpec) -> Window:
    """The verdict of one window. Both mappings hold the same features."""
    rows = sum(next(iter(current.values())).counts) if current else 0
    if rows < spec.min_rows:
        return Window(last, rows, (), "not enough data")
    counts = {name: [np.asarray(p.counts, np.float64) for p in (baseline[name], current[name])] for name in baseline}
    p_values = [st.homogeneity(*pair) for pair in counts.values()]
    significant = st.false_discovery(p_values, spec.alpha)
    features = tuple(
        Moved(name, distance := st.psi(*pair), p, chance_excluded and distance >= spec.psi)
        for (name, pair), p, chance_excluded in zip(counts.items(), p_values, significant, strict=True)
    )
    return Window(last, rows, features, "drifted" if any(f.moved for f in features) else "healthy")


def alarm(windows: Sequence[Window], spec: MonitorSpec) -> bool:
    """k of the last n windows drifted, the newest among them; `windows` are oldest first."""
    recent = [window.verdict == "drifted" for window in windows[-spec.persistence.n :]]
    return bool(recent) and recent[-1] and sum(recent) >= spec.persistence.k
