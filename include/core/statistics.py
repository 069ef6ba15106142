"""The statistics the gate and the monitor share: metrics, a paired bootstrap, drift distances, multiple testing.

All functions take and return plain numbers or numpy arrays. Resampling works on row weights, so one sort serves every
resample and thousands of them cost milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A point estimate with its two-sided confidence interval."""

    value: float
    low: float
    high: float


def weights(rows: int, resamples: int, seed: int) -> Floats:
    """Bootstrap weights, shape (resamples + 1, rows): the first row is the sample itself (all ones)."""
    draw = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    return np.vstack([np.ones(rows), draw]).astype(np.float64)


def interval(values: Floats, confidence: float) -> Interval:
    """Percentile interval (Efron 1979) of a statistic whose first entry is the one of the sample itself."""
    low, high = np.nanquantile(values[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values[0]), float(low), float(high))


def auc(truth: Floats, score: Floats, weight: Floats) -> Floats:
    """Area under the ROC curve per row of `weight`, ties counted half (Mann and Whitney 1947).

    truth: (n,) of 0 and 1; score: (n,); weight: (b, n). Returns (b,); NaN where a resample holds one class only.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) > 0])
    positive = np.add.reduceat(weight[:, order] * truth[order], starts, axis=1)
    negative = np.add.reduceat(weight[:, order] * (1 - truth[order]), starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * below).sum(axis=1) / pairs)


def mean(per_row: Floats, weight: Floats) -> Floats:
    """Weighted mean of a per-row loss, shape (b,)."""
    return np.asarray(weight @ per_row / weight.sum(axis=1))


def brier(truth: Floats, score: Floats) -> Floats:
    """Squared error per row (Brier 1950), shape (n,)."""
    return np.asarray((score - truth) ** 2)


def cost(truth: Floats, score: Floats, threshold: float, false_approval: float, false_denial: float) -> Floats:
    """Cost per row of deciding by `threshold`: positives below it are wrongly approved, other rows wrongly denied."""
    denied = score >= threshold
    return np.where(truth == 1, np.where(denied, 0.0, false_approval), np.where(denied, false_denial, 0.0))


def psi(reference: Floats, current: Floats) -> float:
    """Population stability index of two histograms over the same bins (counts); empty bins count as half a row."""
    p, q = (np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum() for counts in (reference, current))
    return float(((q - p) * np.log(q / p)).sum())


def homogeneity(reference: Floats, current: Floats) -> float:
    """p-value of the chi-square test that two histograms over the same bins share one distribution."""
    table = np.vstack([reference, current])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def false_discovery(p_values: list[float], alpha: float) -> list[bool]:
    """Which hypotheses the Benjamini-Hochberg procedure (1995) rejects at false-discovery rate `alpha`."""
    if not p_values:
        return []
    adjusted = stats.false_discovery_control(np.asarray(p_values))
    return [bool(p <= alpha) for p in adjusted]
