"""The checks of the gate: each is a function of numbers that answers with value, interval, threshold and reason.

Three verdicts. *Passed* means shown: the whole interval is on the right side of the threshold. *Refused* means that
the estimate itself is on the wrong side. *Inconclusive* is what lies between: the estimate is right and these rows are
too few to show it. Every check must be shown to pass, so looking at many needs no correction for passing: a bad model
gets through no more often than past any one check that should stop it. What needs one is refusing by the worst of many:
the worst of twenty slices looks bad by chance. So slices and groups are refused on proof only, slices after Holm.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.gate.spec import (
    CalibrationSpec,
    ClassicSpec,
    FairnessSpec,
    GateSpec,
    InfraSpec,
    LeakageSpec,
    OverfitSpec,
    SliceSpec,
    StabilitySpec,
)
from include.kernel.inference import statistics as st
from include.kernel.inference.statistics import Interval

Labels = NDArray[Any]


class Verdict(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Check:
    """One line of the report. `blocks` is false where the manifest asks for no more than a warning."""

    name: str
    verdict: Verdict
    value: float
    low: float
    high: float
    threshold: float
    reason: str
    family: str = "data"
    blocks: bool = True

    @property
    def warns(self) -> bool:
        return self.verdict is not Verdict.PASSED and not self.blocks


@dataclass(frozen=True)
class Scores:
    """One set of rows: truth (n,) of 0 and 1, probabilities of the positive class (n,). A first model has no rival."""

    truth: st.Floats
    challenger: st.Floats
    champion: st.Floats | None = None


@dataclass(frozen=True)
class InfraMeasurement:
    """What the artifact cost where it was loaded; None is not measured. `why` says why it cannot be served at all.

    `tolerance` is what the artifact declares of itself: a network in single precision keeps no six digits.
    `unexplained` says why the golden rows are not explained; it is empty when they are.
    """

    parity: float | None = None
    p99_ms: float | None = None
    rss_mb: float | None = None
    size_mb: float | None = None
    why: str | None = None
    tolerance: float = 0.0
    unexplained: str | None = None


def make_check(name: str, family: str, verdict: Verdict, interval: Interval, threshold: float, reason: str) -> Check:
    return Check(name, verdict, interval.value, interval.low, interval.high, threshold, reason, family)


def make_plain_check(name: str, family: str, verdict: Verdict, value: float, threshold: float, reason: str) -> Check:
    """A check of a number that has no interval."""
    return Check(name, verdict, value, value, value, threshold, reason, family)


def make_unmeasured_check(family: str) -> Check:
    return make_plain_check(family, family, Verdict.INCONCLUSIVE, 0, 0, f"{family} was not measured")


def _format_interval(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _format_change(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def judge_at_least(interval: Interval, threshold: float) -> Verdict:
    """Passed when the whole interval clears the threshold, refused when the estimate misses it."""
    if interval.low >= threshold:
        return Verdict.PASSED
    return Verdict.REFUSED if interval.value < threshold else Verdict.INCONCLUSIVE


def judge_at_most(interval: Interval, threshold: float) -> Verdict:
    if interval.high <= threshold:
        return Verdict.PASSED
    return Verdict.REFUSED if interval.value > threshold else Verdict.INCONCLUSIVE


# --- can anything be said at all ------------------------------------------------------------------------------------


def check_usable(scores: Scores, spec: GateSpec) -> Check | None:
    """Scores no statistic can be built on: a broken challenger is refused, a holdout without information is not."""
    rows = len(scores.truth)
    if not np.isfinite(scores.challenger).all():
        return make_plain_check(
            "scores", "data", Verdict.REFUSED, rows, 0, "the challenger's scores hold NaN or infinity"
        )
    if scores.champion is not None and not np.isfinite(scores.champion).all():
        return make_plain_check(
            "scores", "data", Verdict.INCONCLUSIVE, rows, 0, "the champion's scores hold NaN or infinity"
        )
    if rows < spec.min_rows:
        reason = f"{rows} holdout rows, gate.min_rows asks for {spec.min_rows}"
        return make_plain_check("rows", "data", Verdict.INCONCLUSIVE, rows, spec.min_rows, reason)
    return _check_classes(scores)


def _check_classes(scores: Scores) -> Check | None:
    rarer = int(min(scores.truth.sum(), (1 - scores.truth).sum()))
    if rarer == 0:
        return make_plain_check("classes", "data", Verdict.INCONCLUSIVE, rarer, 2, "the holdout holds one class only")
    if rarer == 1:
        return make_plain_check(
            "classes", "data", Verdict.INCONCLUSIVE, rarer, 2, "the holdout holds one row of the rarer class"
        )
    if np.ptp(scores.challenger) == 0:
        return make_plain_check(
            "scores", "data", Verdict.REFUSED, 0, 0, "the challenger gives every row the same score"
        )
    return None


# --- floors ---------------------------------------------------------------------------------------------------------


def check_floors(scores: Scores, spec: GateSpec) -> Iterator[Check]:
    yield _check_floor(
        "auc_floor", "AUC", st.estimate_auc(scores.truth, scores.challenger, spec.confidence), spec.floor_auc
    )
    if spec.floor_ap is not None:
        area = st.estimate_average_precision(scores.truth, scores.challenger, spec.confidence)
        yield _check_floor("ap_floor", "average precision", area, spec.floor_ap)
    if spec.floor_f1 is not None:
        _, drawn = resample_decisions(scores, spec)
        yield _check_floor("f1_floor", "F1", st.compute_percentile_interval(drawn.f1, spec.confidence), spec.floor_f1)


def _check_floor(name: str, what: str, interval: Interval, floor: float, family: str = "floors") -> Check:
    reason = f"{what} {_format_interval(interval)} against the floor {floor:g}"
    return make_check(name, family, judge_at_least(interval, floor), interval, floor, reason)


def resample_decisions(scores: Scores, spec: GateSpec) -> tuple[st.Confusion, st.Confusion]:
    """Resampled decisions of champion and challenger at the costs' threshold; without a champion, its own twice."""
    champion = scores.challenger if scores.champion is None else scores.champion
    first, second = champion >= spec.threshold, scores.challenger >= spec.threshold
    return st.resample_decisions(scores.truth, first, second, spec.resamples, spec.seed)


# --- against the champion -------------------------------------------------------------------------------------------


def compare_with_champion(scores: Scores, spec: GateSpec) -> Iterator[Check]:
    if scores.champion is None:
        reason = "the first model: nothing to compare with, floors and limits alone decide"
        yield make_plain_check("champion", "champion", Verdict.PASSED, len(scores.truth), 0, reason)
        return
    yield check_non_inferiority(scores, spec)
    yield check_superiority(scores, spec)


def _estimate_auc_gain(scores: Scores, spec: GateSpec) -> Interval:
    assert scores.champion is not None
    return st.compute_wald_interval(
        *st.estimate_auc_gain(scores.truth, scores.challenger, scores.champion), spec.confidence
    )


def check_non_inferiority(scores: Scores, spec: GateSpec) -> Check:
    """The ranking may be worse by the margin at most: DeLong's interval of the paired difference."""
    gain, margin = _estimate_auc_gain(scores, spec), spec.auc_margin
    reason = f"AUC gain {_format_change(gain)}, may lose {margin:g}"
    return make_check("auc_non_inferiority", "champion", judge_at_least(gain, -margin), gain, -margin, reason)


def check_superiority(scores: Scores, spec: GateSpec) -> Check:
    """The manifest's measure must be better: DeLong for the AUC, Student's t over paired rows for a loss."""
    gain = _estimate_auc_gain(scores, spec) if spec.superiority == "auc" else _estimate_saved_loss(scores, spec)
    verb = "gained" if spec.superiority == "auc" else "saved per row"
    verdict = Verdict.PASSED if gain.low > 0 else Verdict.REFUSED if gain.value <= 0 else Verdict.INCONCLUSIVE
    reason = f"{spec.superiority} {verb} {_format_change(gain)}, must be above 0"
    return make_check(f"{spec.superiority}_superiority", "champion", verdict, gain, 0.0, reason)


def _estimate_saved_loss(scores: Scores, spec: GateSpec) -> Interval:
    assert scores.champion is not None
    saved = compute_loss(scores.truth, scores.champion, spec) - compute_loss(scores.truth, scores.challenger, spec)
    return st.estimate_paired_mean(saved, spec.confidence)


def compute_loss(truth: st.Floats, score: st.Floats, spec: GateSpec) -> st.Floats:
    """The per-row loss that superiority is measured in, shape (n,)."""
    if spec.superiority == "brier":
        return st.compute_brier_losses(truth, score)
    return st.compute_decision_costs(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)


# --- the classic four -----------------------------------------------------------------------------------------------


def check_classic(scores: Scores, spec: GateSpec, limits: ClassicSpec) -> Iterator[Check]:
    before, after = resample_decisions(scores, spec)
    if scores.champion is not None:
        ratio = st.compute_percentile_interval(after.f1 / np.maximum(before.f1, 1e-12), spec.confidence)
        reason = f"F1 {_format_interval(ratio)} times the champion's, must reach {limits.f1_ratio:g}"
        yield make_check("f1_ratio", "classic", judge_at_least(ratio, limits.f1_ratio), ratio, limits.f1_ratio, reason)
    for name in ("precision", "specificity", "sensitivity"):
        floor = getattr(limits, name)
        yield _check_floor(name, name, estimate_rates(scores.truth, scores.challenger, spec)[name], floor, "classic")


def estimate_rates(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, Interval]:
    """Shares of decisions at the costs' threshold, each with its own interval."""
    confusion = st.count_confusion(truth, score >= spec.threshold)
    parts = {
        "precision": (confusion.true_positive, confusion.false_positive),
        "sensitivity": (confusion.true_positive, confusion.false_negative),
        "specificity": (confusion.true_negative, confusion.false_positive),
    }
    return {name: st.estimate_proportion(hits, hits + rest, spec.confidence) for name, (hits, rest) in parts.items()}


# --- how it was trained ---------------------------------------------------------------------------------------------


def check_stability(folds: tuple[float, ...], spec: GateSpec, limits: StabilitySpec) -> Check:
    spread = st.estimate_deviation(np.asarray(folds), spec.confidence)
    reason = f"the AUCs of {len(folds)} folds differ by {_format_interval(spread)} (SD), at most {limits.max_fold_sd:g}"
    verdict = judge_at_most(spread, limits.max_fold_sd)
    return make_check("cv_stability", "stability", verdict, spread, limits.max_fold_sd, reason)


def check_overfit(scores: Scores, training: Scores, spec: GateSpec, limits: OverfitSpec) -> Check:
    """The two AUCs are of different rows, so their variances add up."""
    parts = [st.estimate_auc_covariance(side.truth, side.challenger[None]) for side in (training, scores)]
    (training_auc, variance), (holdout_auc, other) = ((float(area[0]), float(cov[0, 0])) for area, cov in parts)
    gap = st.compute_wald_interval(training_auc - holdout_auc, math.sqrt(variance + other), spec.confidence)
    reason = (
        f"AUC {training_auc:.3f} on training rows, {holdout_auc:.3f} on the holdout: gap "
        f"{_format_change(gap)}, at most {limits.max_gap:g}"
    )
    return make_check("overfit_gap", "overfit", judge_at_most(gap, limits.max_gap), gap, limits.max_gap, reason)


# --- calibration ----------------------------------------------------------------------------------------------------


def check_calibration(scores: Scores, spec: GateSpec, limits: CalibrationSpec) -> Iterator[Check]:
    error = estimate_calibration_error(scores.truth, scores.challenger, spec, limits)
    reason = f"calibration error {_format_interval(error)}, at most {limits.max_error:g}"
    yield make_check("ece", "calibration", judge_at_most(error, limits.max_error), error, limits.max_error, reason)
    skill = estimate_brier_skill(scores.truth, scores.challenger, spec.confidence)
    reason = f"Brier skill {_format_change(skill)} over always saying the base rate, must reach 0"
    yield make_check("brier_skill", "calibration", judge_at_least(skill, 0.0), skill, 0.0, reason)


def estimate_calibration_error(truth: st.Floats, score: st.Floats, spec: GateSpec, limits: CalibrationSpec) -> Interval:
    return st.estimate_calibration_error(truth, score, limits.bins, spec.confidence, spec.resamples, spec.seed)


def estimate_brier_skill(truth: st.Floats, score: st.Floats, confidence: float) -> Interval:
    """1 - Brier / Brier of the base rate (Murphy 1973)."""
    base = st.compute_brier_losses(truth, np.full(len(truth), truth.mean()))
    saved, scale = st.estimate_paired_mean(base - st.compute_brier_losses(truth, score), confidence), base.mean()
    return Interval(saved.value / scale, saved.low / scale, saved.high / scale)


# --- slices ---------------------------------------------------------------------------------------------------------


def check_slices(scores: Scores, groups: Mapping[str, Labels], spec: GateSpec, limits: SliceSpec) -> list[Check]:
    """One check a slice, after Holm over all that are large enough."""
    parts = {f"{column}={label}": labels == label for column, labels in groups.items() for label in list_labels(labels)}
    big = {
        name: _estimate_slice_gain(scores, rows, limits)
        for name, rows in parts.items()
        if _is_large_enough(scores.truth[rows], limits)
    }
    margin = limits.floor_auc if scores.champion is None else -limits.auc_margin
    worse = [st.compute_lower_p_value((value - margin) / max(error, 1e-12)) for value, error in big.values()]
    proved = dict(zip(big, st.reject_by_holm(worse, 1 - spec.confidence), strict=True))
    return [
        _judge_slice(name, big[name], proved[name], margin, spec)
        if name in big
        else _describe_small_slice(name, scores.truth[rows], limits)
        for name, rows in parts.items()
    ]


def list_labels(labels: Labels) -> list[str]:
    return sorted({str(label) for label in labels if label is not None})


def _is_large_enough(truth: st.Floats, limits: SliceSpec) -> bool:
    return len(truth) >= limits.min_rows and min(truth.sum(), (1 - truth).sum()) >= limits.min_class_rows


def _estimate_slice_gain(scores: Scores, rows: NDArray[np.bool_], limits: SliceSpec) -> tuple[float, float]:
    """AUC gain of a slice with its standard error; without a champion, the AUC itself."""
    truth, challenger = scores.truth[rows], scores.challenger[rows]
    if scores.champion is not None:
        return st.estimate_auc_gain(truth, challenger, scores.champion[rows])
    area, variance = st.estimate_auc_covariance(truth, challenger[None])
    return float(area[0]), math.sqrt(variance[0, 0])


def _judge_slice(name: str, gain: tuple[float, float], proved: bool, margin: float, spec: GateSpec) -> Check:
    interval = st.compute_wald_interval(*gain, spec.confidence)
    unrefuted = Verdict.PASSED if interval.low >= margin else Verdict.INCONCLUSIVE
    verdict = Verdict.REFUSED if proved else unrefuted
    reason = (
        f"AUC {_format_change(interval)}, may lose {-margin:g}"
        if margin <= 0
        else f"AUC {_format_interval(interval)}, floor {margin:g}"
    )
    return make_check(f"slice {name}", "slices", verdict, interval, margin, f"{name}: {reason}")


def _describe_small_slice(name: str, truth: st.Floats, limits: SliceSpec) -> Check:
    rarer = int(min(truth.sum(), (1 - truth).sum()))
    reason = (
        f"{name}: {len(truth)} rows, {rarer} of the rarer class; "
        f"gate.slices asks for {limits.min_rows} and {limits.min_class_rows}"
    )
    return make_plain_check(f"slice {name}", "slices", Verdict.INCONCLUSIVE, len(truth), limits.min_rows, reason)


# --- fairness -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fairness:
    """One protected column: which groups were compared, the two numbers, each with its interval."""

    groups: dict[str, int]
    parity_ratio: Interval
    opportunity_difference: Interval


def check_fairness(
    scores: Scores, protected: Mapping[str, Labels], spec: GateSpec, limits: FairnessSpec
) -> Iterator[tuple[str, Fairness | None, list[Check]]]:
    """Column by column: the numbers (None: fewer than two groups are large enough) and their checks."""
    for column, labels in protected.items():
        measured = measure_fairness(scores.truth, scores.challenger, labels, spec, limits)
        yield column, measured, _judge_fairness(column, measured, limits)


def measure_fairness(
    truth: st.Floats, score: st.Floats, labels: Labels, spec: GateSpec, limits: FairnessSpec
) -> Fairness | None:
    """Demographic parity ratio and equal opportunity difference as fairlearn defines them, of the favourable decision.

    The extremes over groups lean towards unfair on few rows: the interval says so, and refusal asks for proof.
    """
    positive, sign = (truth == 1, score >= spec.threshold)
    deserving, favoured = (positive, sign) if limits.favourable == "positive" else (~positive, ~sign)
    names = [name for name in list_labels(labels) if (deserving & (labels == name)).sum() >= limits.min_rows]
    if len(names) < 2:
        return None
    inside = np.array([labels == name for name in names])
    rate = _resample_group_rates(inside, np.full(len(truth), True), favoured, spec)
    opportunity = _resample_group_rates(inside, deserving, favoured, spec)
    ratio = rate.min(axis=1) / np.maximum(rate.max(axis=1), 1e-12)
    return Fairness(
        dict(zip(names, map(int, inside.sum(axis=1)), strict=True)),
        _widen_interval(ratio, spec.confidence),
        _widen_interval(np.ptp(opportunity, axis=1), spec.confidence),
    )


def _resample_group_rates(inside: Labels, among: Labels, favoured: Labels, spec: GateSpec) -> st.Floats:
    rows, hits = (inside & among).sum(axis=1), (inside & among & favoured).sum(axis=1)
    return st.draw_group_rates(hits.astype(np.float64), rows.astype(np.float64), spec.resamples, spec.seed)


def _widen_interval(values: st.Floats, confidence: float) -> Interval:
    """The draws' interval, widened to hold the estimate, which the extremes of draws may lie beyond."""
    drawn = st.compute_percentile_interval(values, confidence)
    return Interval(drawn.value, min(drawn.low, drawn.value), max(drawn.high, drawn.value))


def _judge_fairness(column: str, measured: Fairness | None, limits: FairnessSpec) -> list[Check]:
    if measured is None:
        reason = f"{column}: fewer than two groups have {limits.min_rows} rows of the favourable class"
        return [make_plain_check(f"fairness {column}", "fairness", Verdict.INCONCLUSIVE, 0, limits.min_rows, reason)]
    ratio, spread = measured.parity_ratio, measured.opportunity_difference
    least, most = limits.parity_ratio, limits.opportunity_difference
    parity_reason = (
        f"{column}: lowest over highest rate of the favourable decision {_format_interval(ratio)}, at least {least:g}"
    )
    parity = Verdict.PASSED if ratio.low >= least else Verdict.REFUSED if ratio.high < least else Verdict.INCONCLUSIVE
    opportunity_reason = f"{column}: rate among the deserving differs by {_format_interval(spread)}, at most {most:g}"
    equal = Verdict.PASSED if spread.high <= most else Verdict.REFUSED if spread.low > most else Verdict.INCONCLUSIVE
    return [
        make_check(f"parity {column}", "fairness", parity, ratio, least, parity_reason),
        make_check(f"opportunity {column}", "fairness", equal, spread, most, opportunity_reason),
    ]


# --- too good to be true, and what it costs to serve -----------------------------------------------------------------


def check_leakage(truth: st.Floats, features: Mapping[str, st.Floats], spec: GateSpec, limits: LeakageSpec) -> Check:
    """The AUC of every input alone, whichever way it points; the best one is the suspect."""
    areas = {name: _estimate_single_auc(truth, values, spec.confidence) for name, values in features.items()}
    name, best = max(areas.items(), key=lambda item: item[1].value)
    reason = f"the best single input is {name} with AUC {_format_interval(best)}, at most {limits.max_auc:g}"
    return make_check("leakage", "leakage", judge_at_most(best, limits.max_auc), best, limits.max_auc, reason)


def _estimate_single_auc(truth: st.Floats, values: st.Floats, confidence: float) -> Interval:
    area = st.estimate_auc(truth, values, confidence)
    return area if area.value >= 0.5 else Interval(1 - area.value, 1 - area.high, 1 - area.low)


def check_schema(expected: Mapping[str, str], requested: Mapping[str, str]) -> Check:
    """Column -> kind: what the contract delivers, and what the model asks for."""
    foreign = sorted(set(requested) - set(expected))
    mismatched = sorted(name for name in set(requested) & set(expected) if requested[name] != expected[name])
    unused = len(set(expected) - set(requested))
    if foreign or mismatched:
        names = ", ".join([*foreign, *(f"{name} as {requested[name]}" for name in mismatched)])
        return make_plain_check(
            "schema", "schema", Verdict.REFUSED, len(foreign + mismatched), 0, f"the contract has no {names}"
        )
    reason = f"the contract delivers all {len(requested)} inputs" + (f", {unused} more are not used" if unused else "")
    return make_plain_check("schema", "schema", Verdict.PASSED, 0, 0, reason)


def check_infra(measured: InfraMeasurement, limits: InfraSpec) -> Iterator[Check]:
    if measured.why:
        yield make_plain_check("served", "infra", Verdict.REFUSED, 0, 1, f"the server cannot serve it: {measured.why}")
        return
    parts = (
        ("parity", "golden rows differ by", "", measured.parity, max(limits.parity, measured.tolerance)),
        ("p99", "a row takes", " ms (p99)", measured.p99_ms, limits.max_p99_ms),
        ("rss", "the server holds", " MiB", measured.rss_mb, limits.max_rss_mb),
        ("size", "the artifact has", " MiB", measured.size_mb, limits.max_size_mb),
    )
    for name, what, unit, value, limit in parts:
        if value is None:
            yield make_plain_check(name, "infra", Verdict.INCONCLUSIVE, 0, limit, f"{name} was not measured")
            continue
        verdict = Verdict.PASSED if value <= limit else Verdict.REFUSED
        yield make_plain_check(
            name, "infra", verdict, value, limit, f"{what} {value:.3g}{unit}, at most {limit:g}{unit}"
        )
    if limits.explain:
        yield _check_explained(measured.unexplained)


def _check_explained(problem: str | None) -> Check:
    if problem is None:
        return make_plain_check(
            "explained", "infra", Verdict.INCONCLUSIVE, 0, 1, "no golden row was explained or refused"
        )
    if problem:
        return make_plain_check(
            "explained", "infra", Verdict.REFUSED, 0, 1, f"a golden row is not explained: {problem}"
        )
    return make_plain_check("explained", "infra", Verdict.PASSED, 1, 1, "every golden row is explained, and adds up")
