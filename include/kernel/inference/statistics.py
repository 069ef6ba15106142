"""The statistics the gate and the monitor share: metrics with intervals, drift distances, multiple testing.

All functions take and return plain numbers or numpy arrays. The gate's intervals never resample rows: DeLong's
variance of an AUC costs one sort, the mean of per-row differences has its t interval, and everything made of counts
(rates, F1, groups, bins) is resampled as counts. So a hundred thousand rows cost milliseconds and no memory, where a
bootstrap over rows would hold thousands of weights for each. Row weights are left to the monitor's small windows.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
LN2 = math.log(2)
EXACT_TEST_HITS = 2000  # up to which the exact test is affordable


@dataclass(frozen=True)
class Interval:
    """A point estimate with its two-sided confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """A difference with its interval, and the p-value of the test that there is none."""

    by: Interval
    p_value: float


def draw_bootstrap_weights(rows: int, resamples: int, seed: int) -> Floats:
    """Bootstrap weights, shape (resamples + 1, rows): the first row is the sample itself (all ones)."""
    draw = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=resamples)
    return np.vstack([np.ones(rows), draw]).astype(np.float64)


def compute_percentile_interval(values: Floats, confidence: float) -> Interval:
    """Percentile interval (Efron 1979) of a statistic whose first entry is the one of the sample itself."""
    low, high = np.nanquantile(values[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(values[0]), float(low), float(high))


def compute_auc(truth: Floats, score: Floats, weight: Floats) -> Floats:
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


def compute_weighted_mean(per_row: Floats, weight: Floats) -> Floats:
    """Weighted mean of a per-row loss, shape (b,)."""
    return np.asarray(weight @ per_row / weight.sum(axis=1))


def compute_brier_losses(truth: Floats, score: Floats) -> Floats:
    """Squared error per row (Brier 1950), shape (n,)."""
    return np.asarray((score - truth) ** 2)


def compute_decision_costs(
    truth: Floats, score: Floats, threshold: float, false_approval: float, false_denial: float
) -> Floats:
    """Cost per row of deciding by `threshold`: positives below it are wrongly approved, other rows wrongly denied."""
    denied = score >= threshold
    return np.where(truth == 1, np.where(denied, 0.0, false_approval), np.where(denied, false_denial, 0.0))


def estimate_auc_covariance(truth: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """AUCs of k models on the same rows and their covariance (DeLong et al. 1988), one sort a model (Sun and Xu 2014).

    truth: (n,) of 0 and 1, at least two of each; scores: (k, n). Returns (k,) and (k, k).
    """
    positive = truth == 1
    placed = np.vstack([_compute_placements(positive, score) for score in scores])
    over, under = placed[:, positive], placed[:, ~positive]
    covariance = np.cov(over) / over.shape[1] + np.cov(under) / under.shape[1]
    return over.mean(axis=1), np.atleast_2d(covariance)


def _compute_placements(positive: NDArray[np.bool_], score: Floats) -> Floats:
    """Of each row, the share of the other class that it is ranked rightly against, ties counted half; shape (n,)."""
    order = np.argsort(score)
    ranked, group = positive[order], np.cumsum(np.r_[True, np.diff(score[order]) > 0]) - 1
    above, below = np.bincount(group, ranked), np.bincount(group, ~ranked)
    wins = (np.cumsum(below) - below / 2) / below.sum()
    losses = (above.sum() - np.cumsum(above) + above / 2) / above.sum()
    placed = np.empty(len(score))
    placed[order] = np.where(ranked, wins[group], losses[group])
    return placed


def compute_normal_quantile(confidence: float) -> float:
    """The two-sided normal quantile."""
    return float(stats.norm.ppf((1 + confidence) / 2))


def compute_lower_p_value(value: float) -> float:
    """The one-sided p-value of a standard normal that came out at `value` or lower."""
    return float(special.ndtr(value))


def estimate_auc(truth: Floats, score: Floats, confidence: float) -> Interval:
    """AUC with DeLong's interval on the logit scale, which stays within 0 and 1 (Qin and Hotilovac 2008)."""
    areas, covariance = estimate_auc_covariance(truth, score[None])
    return _compute_logit_interval(float(areas[0]), math.sqrt(covariance[0, 0]), confidence)


def _compute_logit_interval(value: float, error: float, confidence: float) -> Interval:
    if not 0 < value < 1:
        return Interval(value, value, value)
    middle, half = math.log(value / (1 - value)), compute_normal_quantile(confidence) * error / (value * (1 - value))
    return Interval(value, *(float(special.expit(middle + side * half)) for side in (-1, 1)))


def estimate_auc_gain(truth: Floats, challenger: Floats, champion: Floats) -> tuple[float, float]:
    """Challenger's AUC minus champion's on the same rows, and its standard error by DeLong's covariance."""
    areas, covariance = estimate_auc_covariance(truth, np.vstack([challenger, champion]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return float(areas[0] - areas[1]), math.sqrt(max(variance, 0.0))


def compute_wald_interval(value: float, error: float, confidence: float) -> Interval:
    half = compute_normal_quantile(confidence) * error
    return Interval(value, value - half, value + half)


def estimate_paired_mean(difference: Floats, confidence: float) -> Interval:
    """Mean of per-row differences with Student's t interval.

    Degrees of freedom count the rows that differ: where two models decide alike, a row says nothing about which is
    better, and four rows that happen to agree would otherwise look like proof.
    """
    value, differing = float(difference.mean()), int(np.count_nonzero(difference))
    if differing < 2:
        widest = float(np.abs(difference).sum())
        return Interval(value, value - widest, value + widest)
    half = stats.t.ppf((1 + confidence) / 2, differing - 1) * stats.sem(difference)
    return Interval(value, float(value - half), float(value + half))


def estimate_proportion(hits: float, rows: float, confidence: float) -> Interval:
    """Share of `rows` with Jeffreys' interval (Brown, Cai and DasGupta 2001); without rows it may be anything."""
    if rows <= 0:
        return Interval(0.0, 0.0, 1.0)
    low, high = stats.beta.ppf([(1 - confidence) / 2, (1 + confidence) / 2], hits + 0.5, rows - hits + 0.5)
    return Interval(hits / rows, float(min(low, hits / rows)), float(max(high, hits / rows)))


def compute_average_precision(truth: Floats, score: Floats) -> float:
    """Precision averaged over the recall it is reached at (scikit-learn's definition); NaN without a positive."""
    if not truth.any():
        return math.nan
    order = np.argsort(-score, kind="stable")
    last = np.r_[np.diff(score[order]) != 0, True]
    found = np.cumsum(truth[order])[last]
    precision = found / (np.flatnonzero(last) + 1)
    return float((np.diff(found, prepend=0.0) * precision).sum() / found[-1])


def estimate_average_precision(truth: Floats, score: Floats, confidence: float) -> Interval:
    """Logit interval with the number of positives as sample size (Boyd, Eng and Page 2013, section 3.2)."""
    value = compute_average_precision(truth, score)
    return _compute_logit_interval(value, math.sqrt(value * (1 - value) / truth.sum()), confidence)


@dataclass(frozen=True)
class Confusion:
    """Counts of decisions, each a number or an array of resamples (b,): positives found, missed, and so on."""

    true_positive: Any
    false_negative: Any
    false_positive: Any
    true_negative: Any

    @property
    def f1(self) -> Any:
        hits = 2 * self.true_positive
        return _compute_share(hits, hits + self.false_negative + self.false_positive)

    @property
    def precision(self) -> Any:
        return _compute_share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> Any:
        return _compute_share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Any:
        return _compute_share(self.true_negative, self.true_negative + self.false_positive)


def _compute_share(part: Any, whole: Any) -> Any:
    return part / np.maximum(whole, 1)  # nothing of nothing is 0, as in scikit-learn


def count_confusion(truth: Floats, denied: NDArray[np.bool_]) -> Confusion:
    """truth (n,) of 0 and 1; denied (n,): called positive."""
    return _build_confusion(np.bincount((2 * truth + denied).astype(np.int64), minlength=4))


def _build_confusion(cells: Any) -> Confusion:
    """cells (..., 4) in the order truth, decision: 00, 01, 10, 11."""
    return Confusion(cells[..., 3], cells[..., 2], cells[..., 1], cells[..., 0])


def resample_decisions(
    truth: Floats, first: NDArray[np.bool_], second: NDArray[np.bool_], resamples: int, seed: int
) -> tuple[Confusion, Confusion]:
    """Paired bootstrap of two models' decisions, the sample itself first; arrays of shape (resamples + 1,).

    Drawing rows and counting cells is drawing the eight cells by a multinomial, whatever the number of rows.
    """
    seen = np.bincount((4 * truth + 2 * first + second).astype(np.int64), minlength=8)
    draws = np.random.default_rng(seed).multinomial(len(truth), seen / seen.sum(), size=resamples)
    cells = np.vstack([seen, draws]).reshape(-1, 2, 2, 2).astype(np.float64)
    return _build_confusion(cells.sum(axis=3).reshape(-1, 4)), _build_confusion(cells.sum(axis=2).reshape(-1, 4))


def compute_calibration_bins(truth: Floats, score: Floats, bins: int) -> tuple[Floats, Floats, Floats]:
    """Equally filled bins of the score: rows, mean of truth minus score, and that mean's variance; each (bins,)."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split((truth - score)[order], bins) if len(part) > 1]
    rows = np.array([len(part) for part in parts], dtype=np.float64)
    return rows, np.array([part.mean() for part in parts]), np.array([part.var(ddof=1) / len(part) for part in parts])


def estimate_calibration_error(
    truth: Floats, score: Floats, bins: int, confidence: float, resamples: int, seed: int
) -> Interval:
    """Expected calibration error over equally filled bins, less the noise that it counts as error.

    The mean of absolute gaps is too large even for a perfect model, and a resample adds that bias once more. So the
    bias is read off the resamples and taken away (of a perfect model's, about half), and the interval is the reversed
    percentile one (Davison and Hinkley 1997, 5.2). Gaps are drawn as normal: they are means of many rows.
    """
    rows, gap, variance = compute_calibration_bins(truth, score, bins)
    weight, drawn = rows / rows.sum(), np.random.default_rng(seed).normal(size=(resamples, len(rows)))
    plain = float(weight @ np.abs(gap))
    again = np.abs(gap + drawn * np.sqrt(variance)) @ weight
    low, high = np.quantile(again, [(1 - confidence) / 2, (1 + confidence) / 2])
    value, ends = max(0.0, 2 * plain - again.mean()), (max(0.0, 2 * plain - high), max(0.0, 2 * plain - low))
    return Interval(float(value), float(min(ends[0], value)), float(max(ends[1], value)))


def compute_calibration_p_value(truth: Floats, score: Floats, bins: int, seed: int, draws: int = 10_000) -> float:
    """p-value of the test that scores are probabilities: how often chance alone makes an error as large as this one.

    The mean absolute gap over equally filled bins, against binomial draws at each bin's mean score, which vary a little
    more than rows of different scores do: small bins are skewed, and a normal law would see errors in them.
    """
    order = np.argsort(score, kind="stable")
    parts = [order[part] for part in np.array_split(np.arange(len(order)), bins) if len(part)]
    rows, expected = np.array([len(part) for part in parts]), np.array([score[part].mean() for part in parts])
    events = np.array([truth[part].sum() for part in parts])
    drawn = np.random.default_rng(seed).binomial(rows, np.clip(expected, 0, 1), size=(draws, len(parts)))
    errors = np.abs(np.vstack([events, drawn]) - rows * expected).sum(axis=1)
    return float((errors >= errors[0] - 1e-9).mean())


def draw_group_rates(hits: Floats, rows: Floats, resamples: int, seed: int) -> Floats:
    """Rates of g groups, the sample first, then draws of Jeffreys' posterior (never stuck at 0 or 1): (b + 1, g)."""
    drawn = np.random.default_rng(seed).beta(hits + 0.5, rows - hits + 0.5, size=(resamples, len(rows)))
    return np.vstack([hits / rows, drawn])


def estimate_rows_needed(rows: int, distance: float, half: float, confidence: float, power: float = 0.8) -> float:
    """Rows on which a one-sided look at an interval passes with `power`, if the estimate is the truth.

    The textbook's sample size (Chow et al. 2008, 3.2) for a mean whose interval on `rows` rows reaches `half` to the
    side of a threshold that lies `distance` away. Raises `ZeroDivisionError` where the estimate is the threshold.
    """
    wanted, known = (
        compute_normal_quantile(confidence) + float(stats.norm.ppf(power)),
        compute_normal_quantile(confidence),
    )
    return rows * (half / distance * wanted / known) ** 2


def estimate_deviation(values: Floats, confidence: float) -> Interval:
    """Standard deviation with its chi-square interval; values are taken as normal."""
    free, found = len(values) - 1, float(np.std(values, ddof=1))
    high, low = stats.chi2.ppf([(1 - confidence) / 2, (1 + confidence) / 2], free)
    return Interval(found, found * math.sqrt(free / low), found * math.sqrt(free / high))


def reject_by_holm(p_values: list[float], alpha: float) -> list[bool]:
    """Which hypotheses Holm's step-down procedure (1979) rejects at family-wise error rate `alpha`."""
    rejected, order = [False] * len(p_values), sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def compute_psi(reference: Floats, current: Floats) -> float:
    """Population stability index of two histograms over the same bins (counts); empty bins count as half a row.

    Bins that are empty in both are none, or half a row of few would stand against half a row of many.
    """
    filled = reference + current > 0
    p, q = (np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum() for counts in (reference[filled], current[filled]))
    return float(((q - p) * np.log(q / p)).sum())


def compute_jensen_shannon(reference: Floats, current: Floats) -> float:
    """Jensen-Shannon distance (Lin 1991; base 2, so 0 to 1) of two histograms over the same bins (counts)."""
    p, q = (counts / max(counts.sum(), 1) for counts in (reference, current))
    middle = (p + q) / 2
    return math.sqrt(max(float(special.rel_entr(p, middle).sum() + special.rel_entr(q, middle).sum()) / 2, 0) / LN2)


def compute_ks_p_value(distance: float, rows: int, others: int) -> float:
    """p-value of a two-sample distance: the limit law at n m / (n + m) rows with Stephens' correction (1970).

    It is within a tenth of the exact law from forty rows on, which takes a second at a million. Ties make the
    p-value too large.
    """
    if not rows or not others:
        return 1.0
    root = math.sqrt(rows * others / (rows + others))
    return float(special.kolmogorov((root + 0.12 + 0.11 / root) * distance))


def compute_homogeneity_p_value(reference: Floats, current: Floats) -> float:
    """p-value of the chi-square test that two histograms over the same bins share one distribution.

    The smallest bins are counted as one until five rows of either side are expected in it (Cochran 1954): in the far
    tail, where a test among many has to decide, rare categories would make the p-value too small.
    """
    table = np.vstack([reference, current])
    table = table[:, np.argsort(table.sum(axis=0), kind="stable")]
    expected = np.cumsum(table.sum(axis=0)) * table.sum(axis=1).min() / max(table.sum(), 1)
    rare = min(int(np.searchsorted(expected, 5)) + 1, table.shape[1])
    table = np.column_stack([table[:, :rare].sum(axis=1), table[:, rare:]])
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return 1.0
    even = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(special.chdtrc(table.shape[1] - 1, ((table - even) ** 2 / even).sum()))


def compute_increase_p_value(hits: int, rows: int, before: int, rows_before: int) -> float:
    """p-value that a share rose by chance alone: Fisher's exact test while hits are few, else the normal test."""
    together, everything = hits + before, rows + rows_before
    if not rows or not rows_before or hits * rows_before <= before * rows:
        return 1.0  # it did not rise
    if together <= EXACT_TEST_HITS:  # hypergeometric, the two margins swapped so that the sum is short
        return float(stats.hypergeom.sf(hits - 1, everything, rows, together))
    error = math.sqrt(together / everything * (1 - together / everything) * (1 / rows + 1 / rows_before))
    return 1 - compute_lower_p_value((hits / rows - before / rows_before) / error) if error else 1.0


def compute_change_p_value(hits: int, rows: int, before: int, rows_before: int) -> float:
    """p-value that a share changed by chance alone: the smaller side's, doubled. Exact, where chi-square is not."""
    sides = (
        compute_increase_p_value(hits, rows, before, rows_before),
        compute_increase_p_value(rows - hits, rows, rows_before - before, rows_before),
    )
    return min(1.0, 2 * min(sides))


def estimate_mean_shift(
    mean: float, variance: float, rows: int, before: tuple[float, float, int], confidence: float
) -> Change:
    """How far a mean moved from (mean, variance, rows) before, both of many rows: Welch's test with the normal law."""
    error = math.sqrt(variance / rows + before[1] / before[2])
    moved = mean - before[0]
    p_value = 2 * compute_lower_p_value(-abs(moved) / error) if error else float(moved == 0)
    return Change(compute_wald_interval(moved, error, confidence), p_value)


def reject_by_false_discovery(p_values: list[float], alpha: float) -> list[bool]:
    """Which hypotheses the Benjamini-Hochberg procedure (1995) rejects at false-discovery rate `alpha`."""
    if not p_values:
        return []
    adjusted = stats.false_discovery_control(np.asarray(p_values))
    return [bool(p <= alpha) for p in adjusted]
