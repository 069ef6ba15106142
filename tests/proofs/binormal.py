"""Scores of known truth: two models whose AUCs, calibration and correlation are chosen, not estimated.

The binormal model: a model's signal is normal with mean 0 for the good and d for the bad, so that its AUC is exactly
Phi(d / sqrt 2). The probability each model answers is the exact posterior of its own signal: both are perfectly
calibrated, so what the gate finds is never an accident of calibration. The noise of the two models is correlated, as
that of two models over the same applicants is; without that, a paired test would look weaker than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from include.gate.core.checks import InfraMeasurement, Scores
from include.gate.core.gate import Evidence
from include.kernel.inference.statistics import Floats

POSITIVE = 0.28  # as in the example's data
CORRELATION = 0.8
OPTIMISM = 0.03  # AUC a model has more on the rows it was trained on


@dataclass(frozen=True)
class World:
    """Two models of known AUC, judged on `rows` rows."""

    rows: int
    champion: float
    challenger: float

    def scores(self, random: np.random.Generator) -> Scores:
        truth, shared = _truth(random, self.rows), random.normal(size=self.rows)
        first, second = (_answers(random, truth, shared, area) for area in (self.champion, self.challenger))
        return Scores(truth, second, first)

    def evidence(self, random: np.random.Generator, scores: Scores) -> Evidence:
        """What the rest of the gate asks about, of the same known challenger: nothing is wrong with it."""
        segment = random.choice(np.array(["a", "b", "c", "d"], dtype=object), self.rows)
        protected = random.choice(np.array(["x", "y"], dtype=object), self.rows, p=[0.7, 0.3])
        names = {"signal": "number", "noise": "number"}
        return Evidence(
            training=_alone(random, self.rows, self.challenger + OPTIMISM),
            folds=self._folds(random),
            groups={"segment": segment, "protected": protected},
            protected={"protected": protected},
            features={"signal": scores.truth + random.normal(0, 2, self.rows), "noise": random.normal(size=self.rows)},
            schema=(names, names),
            infra=InfraMeasurement(parity=0.0, p99_ms=5.0, rss_mb=200.0, size_mb=1.0),
        )

    def _folds(self, random: np.random.Generator) -> tuple[float, ...]:
        each = [_alone(random, self.rows // 5, self.challenger) for _ in range(5)]
        return tuple(area(fold.truth, fold.challenger) for fold in each)


def area(truth: Floats, score: Floats) -> float:
    """AUC by the rank sum of Mann and Whitney; scipy's ranks, not the gate's own code."""
    bad = truth == 1
    ranks = stats.rankdata(score)[bad].sum() - bad.sum() * (bad.sum() + 1) / 2
    return float(ranks / (bad.sum() * (~bad).sum()))


def _truth(random: np.random.Generator, rows: int) -> Floats:
    return (random.uniform(size=rows) < POSITIVE).astype(np.float64)


def _answers(random: np.random.Generator, truth: Floats, shared: Floats, auc: float) -> Floats:
    """Posterior probability of the positive class given the model's signal; shape of truth."""
    distance = np.sqrt(2) * stats.norm.ppf(auc)
    own = random.normal(size=len(truth))
    signal = distance * truth + np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    return np.asarray(special.expit(special.logit(POSITIVE) + distance * signal - distance**2 / 2))


def _alone(random: np.random.Generator, rows: int, auc: float) -> Scores:
    truth = _truth(random, rows)
    return Scores(truth, _answers(random, truth, random.normal(size=rows), auc))
