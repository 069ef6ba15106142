"""The checks of the gate: each is a function of numbers that answers with value, interval, threshold and reason.

Three verdicts. *Passed* means shown: the whole interval is on the right side of the threshold. *Refused* means that
the estimate itself is on the wrong side. *Inconclusive* is what lies between: the estimate is right and these rows are
too few to show it. Every check must be shown to pass, so looking at many needs no correction for passing: a bad model
gets through no more often than past any one check that should stop it. What needs one is refusing by the worst of many:
the worst of twenty slices looks bad by chance. So slices and groups are refused on proof only, slices after Holm.
"""

from __future__ import annotations

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
class InfraMeasured:
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


def found(name: str, family: str, verdict: Verdict, interval: Interval, threshold: float, reason: str) -> Check:
    return Check(name, verdict, interval.value, interval.low, interval.high, threshold, reason, family)


def plain(name: str, family: str, verdict: Verdict, value: float, threshold: float, reason: str) -> Check:
    """A check of a number that has no interval."""
    return Check(name, verdict, value, value, value, threshold, reason, family)


def unmeasured(family: str) -> Check:
    return plain(family, family, Verdict.INCONCLUSIVE, 0, 0, f"{family} was not measured")


def _told(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _change(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def at_least(interval: Interval, threshold: float) -> Verdict:
    """Passed when the whole interval clears the threshold, refused when the estimate misses it."""
    if interval.low >= threshold:
        return Verdict.PASSED
    return Verdict.REFUSED if interval.value < threshold else Verdict.INCONCLUSIVE


def at_most(interval: Interval, threshold: float) -> Verdict:
    if interval.high <= threshold:
        return Verdict.PASSED
    return Verdict.REFUSED if interval.value > threshold else Verdict.INCONCLUSIVE


# --- can anything be said at all ------------------------------------------------------------------------------------


def unusable(scores: Scores, spec: GateSpec) -> Check | None:
    """Scores no statistic can be built on: a broken challenger is refused, a holdout without information is not."""
    rows = len(scores.truth)
    if not np.isfinite(scores.challenger).all():
        return plain("scores", "data", Verdict.REFUSED, rows, 0, "the challenger's scores hold NaN or infinity")
    if scores.champion is not None and not np.isfinite(scores.champion).all():
        return plain("scores", "data", Verdict.INCONCLUSIVE, rows, 0, "the champion's scores hold NaN or infinity")
    if rows < spec.min_rows:
        reason = f"{rows} holdout rows, gate.min_rows asks for {spec.min_rows}"
        return plain("rows", "data", Verdict.INCONCLUSIVE, rows, spec.min_rows, reason)
    return _one_sided(scores)


def _one_sided(scores: Scores) -> Check | None:
    rarer = int(min(scores.truth.sum(), (1 - scores.truth).sum()))
    if rarer == 0:
        return plain("classes", "data", Verdict.INCONCLUSIVE, rarer, 2, "the holdout holds one class only")
    if rarer == 1:
        return plain("classes", "data", Verdict.INCONCLUSIVE, rarer, 2, "the holdout holds one row of the rarer class")
    if np.ptp(scores.challenger) == 0:
        return plain("scores", "data", Verdict.REFUSED, 0, 0, "the challenger gives every row the same score")
    return None


# --- floors ---------------------------------------------------------------------------------------------------------


def floors(scores: Scores, spec: GateSpec) -> Iterator[Check]:
    yield _floor("auc_floor", "AUC", st.auc_interval(scores.truth, scores.challenger, spec.confidence), spec.floor_auc)
    if spec.floor_ap is not None:
        area = st.average_precision_interval(scores.truth, scores.challenger, spec.confidence)
        yield _floor("ap_floor", "average precision", area, spec.floor_ap)
    if spec.floor_f1 is not None:
        _, drawn = decisions(scores, spec)
        yield _floor("f1_floor", "F1", st.interval(drawn.f1, spec.confidence), spec.floor_f1)


def _floor(name: str, what: str, interval: Interval, floor: float, family: str = "floors") -> Check:
    reason = f"{what} {_told(interval)} against the floor {floor:g}"
    return found(name, family, at_least(interval, floor), interval, floor, reason)


def decisions(scores: Scores, spec: GateSpec) -> tuple[st.Confusion, st.Confusion]:
    """Resampled decisions of champion and challenger at the costs' threshold; without a champion, its own twice."""
    champion = scores.challenger if scores.champion is None else scores.champion
    first, second = champion >= spec.threshold, scores.challenger >= spec.threshold
    return st.resampled_decisions(scores.truth, first, second, spec.resamples, spec.seed)


# --- against the champion -------------------------------------------------------------------------------------------


def champion(scores: Scores, spec: GateSpec) -> Iterator[Check]:
    if scores.champion is None:
        reason = "the first model: nothing to compare with, floors and limits alone decide"
        yield plain("champion", "champion", Verdict.PASSED, len(scores.truth), 0, reason)
        return
    yield not_inferior(scores, spec)
    yield superior(scores, spec)


def _gain(scores: Scores, spec: GateSpec) -> Interval:
    assert scores.champion is not None
    return st.wald(*st.auc_gain(scores.truth, scores.challenger, scores.champion), spec.confidence)


def not_inferior(scores: Scores, spec: GateSpec) -> Check:
    """The ranking may be worse by the margin at most: DeLong's interval of the paired difference."""
    gain, margin = _gain(scores, spec), spec.auc_margin
    reason = f"AUC gain {_change(gain)}, may lose {margin:g}"
    return found("auc_non_inferiority", "champion", at_least(gain, -margin), gain, -margin, reason)


def superior(scores: Scores, spec: GateSpec) -> Check:
    """The manifest's measure must be better: DeLong for the AUC, Student's t over paired rows for a loss."""
    gain = _gain(scores, spec) if spec.superiority == "auc" else _saved(scores, spec)
    verb = "gained" if spec.superiority == "auc" else "saved per row"
    verdict = Verdict.PASSED if gain.low > 0 else Verdict.REFUSED if gain.value <= 0 else Verdict.INCONCLUSIVE
    reason = f"{spec.superiority} {verb} {_change(gain)}, must be above 0"
    return found(f"{spec.superiority}_superiority", "champion", verdict, gain, 0.0, reason)


def _saved(scores: Scores, spec: GateSpec) -> Interval:
    assert scores.champion is not None
    saved = loss(scores.truth, scores.champion, spec) - loss(scores.truth, scores.challenger, spec)
    return st.paired_mean(saved, spec.confidence)


def loss(truth: st.Floats, score: st.Floats, spec: GateSpec) -> st.Floats:
    """The per-row loss that superiority is measured in, shape (n,)."""
    if spec.superiority == "brier":
        return st.brier(truth, score)
    return st.cost(truth, score, spec.threshold, spec.cost.false_approval, spec.cost.false_denial)


# --- the classic four -----------------------------------------------------------------------------------------------


def classic(scores: Scores, spec: GateSpec, limits: ClassicSpec) -> Iterator[Check]:
    before, after = decisions(scores, spec)
    if scores.champion is not None:
        ratio = st.interval(after.f1 / np.maximum(before.f1, 1e-12), spec.confidence)
        reason = f"F1 {_told(ratio)} times the champion's, must reach {limits.f1_ratio:g}"
        yield found("f1_ratio", "classic", at_least(ratio, limits.f1_ratio), ratio, limits.f1_ratio, reason)
    for name in ("precision", "specificity", "sensitivity"):
        floor = getattr(limits, name)
        yield _floor(name, name, rates(scores.truth, scores.challenger, spec)[name], floor, "classic")


def rates(truth: st.Floats, score: st.Floats, spec: GateSpec) -> dict[str, Interval]:
    """Shares of decisions at the costs' threshold, each with its own interval."""
    made = st.confusion(truth, score >= spec.threshold)
    parts = {
        "precision": (made.true_positive, made.false_positive),
        "sensitivity": (made.true_positive, made.false_negative),
        "specificity": (made.true_negative, made.false_positive),
    }
    return {name: st.proportion(hits, hits + rest, spec.confidence) for name, (hits, rest) in parts.items()}


# --- how it was trained ---------------------------------------------------------------------------------------------


def stability(folds: tuple[float, ...], spec: GateSpec, limits: StabilitySpec) -> Check:
    spread = st.deviation(np.asarray(folds), spec.confidence)
    reason = f"the AUCs of {len(folds)} folds differ by {_told(spread)} (SD), at most {limits.max_fold_sd:g}"
    verdict = at_most(spread, limits.max_fold_sd)
    return found("cv_stability", "stability", verdict, spread, limits.max_fold_sd, reason)


def overfit(scores: Scores, training: Scores, spec: GateSpec, limits: OverfitSpec) -> Check:
    """The two AUCs are of different rows, so their variances add up."""
    parts = [st.delong(each.truth, each.challenger[None]) for each in (training, scores)]
    (known, known_variance), (new, new_variance) = ((float(area[0]), float(cov[0, 0])) for area, cov in parts)
    gap = st.wald(known - new, math.sqrt(known_variance + new_variance), spec.confidence)
    reason = (
        f"AUC {known:.3f} on training rows, {new:.3f} on the holdout: gap {_change(gap)}, at most {limits.max_gap:g}"
    )
    return found("overfit_gap", "overfit", at_most(gap, limits.max_gap), gap, limits.max_gap, reason)


# --- calibration ----------------------------------------------------------------------------------------------------


def calibration(scores: Scores, spec: GateSpec, limits: CalibrationSpec) -> Iterator[Check]:
    error = calibration_error(scores.truth, scores.challenger, spec, limits)
    reason = f"calibration error {_told(error)}, at most {limits.max_error:g}"
    yield found("ece", "calibration", at_most(error, limits.max_error), error, limits.max_error, reason)
    skill = brier_skill(scores.truth, scores.challenger, spec.confidence)
    reason = f"Brier skill {_change(skill)} over always saying the base rate, must reach 0"
    yield found("brier_skill", "calibration", at_least(skill, 0.0), skill, 0.0, reason)


def calibration_error(truth: st.Floats, score: st.Floats, spec: GateSpec, limits: CalibrationSpec) -> Interval:
    return st.calibration_error(truth, score, limits.bins, spec.confidence, spec.resamples, spec.seed)


def brier_skill(truth: st.Floats, score: st.Floats, confidence: float) -> Interval:
    """1 - Brier / Brier of the base rate (Murphy 1973)."""
    base = st.brier(truth, np.full(len(truth), truth.mean()))
    saved, scale = st.paired_mean(base - st.brier(truth, score), confidence), base.mean()
    return Interval(saved.value / scale, saved.low / scale, saved.high / scale)


# --- slices ---------------------------------------------------------------------------------------------------------


def slices(scores: Scores, groups: Mapping[str, Labels], spec: GateSpec, limits: SliceSpec) -> list[Check]:
    """One check a slice, after Holm over all that are large enough."""
    parts = {f"{column}={label}": labels == label for column, labels in groups.items() for label in labels_of(labels)}
    big = {name: _gained(scores, rows, limits) for name, rows in parts.items() if _large(scores.truth[rows], limits)}
    margin = limits.floor_auc if scores.champion is None else -limits.auc_margin
    worse = [st.normal_below((value - margin) / max(error, 1e-12)) for value, error in big.values()]
    proved = dict(zip(big, st.holm(worse, 1 - spec.confidence), strict=True))
    return [
        _slice(name, big[name], proved[name], margin, spec) if name in big else _small(name, scores.truth[rows], limits)
        for name, rows in parts.items()
    ]


def labels_of(labels: Labels) -> list[str]:
    return sorted({str(label) for label in labels if label is not None})


def _large(truth: st.Floats, limits: SliceSpec) -> bool:
    return len(truth) >= limits.min_rows and min(truth.sum(), (1 - truth).sum()) >= limits.min_class_rows


def _gained(scores: Scores, rows: NDArray[np.bool_], limits: SliceSpec) -> tuple[float, float]:
    """AUC gain of a slice with its standard error; without a champion, the AUC itself."""
    truth, challenger = scores.truth[rows], scores.challenger[rows]
    if scores.champion is not None:
        return st.auc_gain(truth, challenger, scores.champion[rows])
    area, variance = st.delong(truth, challenger[None])
    return float(area[0]), math.sqrt(variance[0, 0])


def _slice(name: str, gain: tuple[float, float], proved: bool, margin: float, spec: GateSpec) -> Check:
    interval = st.wald(*gain, spec.confidence)
    shown = Verdict.PASSED if interval.low >= margin else Verdict.INCONCLUSIVE
    verdict = Verdict.REFUSED if proved else shown
    reason = (
        f"AUC {_change(interval)}, may lose {-margin:g}" if margin <= 0 else f"AUC {_told(interval)}, floor {margin:g}"
    )
    return found(f"slice {name}", "slices", verdict, interval, margin, f"{name}: {reason}")


def _small(name: str, truth: st.Floats, limits: SliceSpec) -> Check:
    rarer = int(min(truth.sum(), (1 - truth).sum()))
    reason = (
        f"{name}: {len(truth)} rows, {rarer} of the rarer class; "
        f"gate.slices asks for {limits.min_rows} and {limits.min_class_rows}"
    )
    return plain(f"slice {name}", "slices", Verdict.INCONCLUSIVE, len(truth), limits.min_rows, reason)


# --- fairness -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fairness:
    """One protected column: which groups were compared, the two numbers, each with its interval."""

    groups: dict[str, int]
    parity_ratio: Interval
    opportunity_difference: Interval


def fairness(
    scores: Scores, protected: Mapping[str, Labels], spec: GateSpec, limits: FairnessSpec
) -> Iterator[tuple[str, Fairness | None, list[Check]]]:
    """Column by column: the numbers (None: fewer than two groups are large enough) and their checks."""
    for column, labels in protected.items():
        measured = measure_fairness(scores.truth, scores.challenger, labels, spec, limits)
        yield column, measured, _fair(column, measured, limits)


def measure_fairness(
    truth: st.Floats, score: st.Floats, labels: Labels, spec: GateSpec, limits: FairnessSpec
) -> Fairness | None:
    """Demographic parity ratio and equal opportunity difference as fairlearn defines them, of the favourable decision.

    The extremes over groups lean towards unfair on few rows: the interval says so, and refusal asks for proof.
    """
    positive, sign = (truth == 1, score >= spec.threshold)
    deserving, given = (positive, sign) if limits.favourable == "positive" else (~positive, ~sign)
    names = [name for name in labels_of(labels) if (deserving & (labels == name)).sum() >= limits.min_rows]
    if len(names) < 2:
        return None
    inside = np.array([labels == name for name in names])
    rate = _group_rates(inside, np.full(len(truth), True), given, spec)
    opportunity = _group_rates(inside, deserving, given, spec)
    ratio = rate.min(axis=1) / np.maximum(rate.max(axis=1), 1e-12)
    return Fairness(
        dict(zip(names, map(int, inside.sum(axis=1)), strict=True)),
        _around(ratio, spec.confidence),
        _around(np.ptp(opportunity, axis=1), spec.confidence),
    )


def _group_rates(inside: Labels, among: Labels, given: Labels, spec: GateSpec) -> st.Floats:
    rows, hits = (inside & among).sum(axis=1), (inside & among & given).sum(axis=1)
    return st.group_rates(hits.astype(np.float64), rows.astype(np.float64), spec.resamples, spec.seed)


def _around(values: st.Floats, confidence: float) -> Interval:
    """The draws' interval, widened to hold the estimate, which the extremes of draws may lie beyond."""
    drawn = st.interval(values, confidence)
    return Interval(drawn.value, min(drawn.low, drawn.value), max(drawn.high, drawn.value))


def _fair(column: str, measured: Fairness | None, limits: FairnessSpec) -> list[Check]:
    if measured is None:
        reason = f"{column}: fewer than two groups have {limits.min_rows} rows of the favourable class"
        return [plain(f"fairness {column}", "fairness", Verdict.INCONCLUSIVE, 0, limits.min_rows, reason)]
    ratio, spread = measured.parity_ratio, measured.opportunity_difference
    least, most = limits.parity_ratio, limits.opportunity_difference
    told = f"{column}: lowest over highest rate of the favourable decision {_told(ratio)}, at least {least:g}"
    parity = Verdict.PASSED if ratio.low >= least else Verdict.REFUSED if ratio.high < least else Verdict.INCONCLUSIVE
    also = f"{column}: rate among the deserving differs by {_told(spread)}, at most {most:g}"
    equal = Verdict.PASSED if spread.high <= most else Verdict.REFUSED if spread.low > most else Verdict.INCONCLUSIVE
    return [
        found(f"parity {column}", "fairness", parity, ratio, least, told),
        found(f"opportunity {column}", "fairness", equal, spread, most, also),
    ]


# --- too good to be true, and what it costs to serve -----------------------------------------------------------------


def leakage(truth: st.Floats, features: Mapping[str, st.Floats], spec: GateSpec, limits: LeakageSpec) -> Check:
    """The AUC of every input alone, whichever way it points; the best one is the suspect."""
    turned = {name: _alone(truth, values, spec.confidence) for name, values in features.items()}
    name, best = max(turned.items(), key=lambda item: item[1].value)
    reason = f"the best single input is {name} with AUC {_told(best)}, at most {limits.max_auc:g}"
    return found("leakage", "leakage", at_most(best, limits.max_auc), best, limits.max_auc, reason)


def _alone(truth: st.Floats, values: st.Floats, confidence: float) -> Interval:
    area = st.auc_interval(truth, values, confidence)
    return area if area.value >= 0.5 else Interval(1 - area.value, 1 - area.high, 1 - area.low)


def schema(expected: Mapping[str, str], asked: Mapping[str, str]) -> Check:
    """Column -> kind: what the contract delivers, and what the model asks for."""
    foreign = sorted(set(asked) - set(expected))
    turned = sorted(name for name in set(asked) & set(expected) if asked[name] != expected[name])
    unused = len(set(expected) - set(asked))
    if foreign or turned:
        names = ", ".join([*foreign, *(f"{name} as {asked[name]}" for name in turned)])
        return plain("schema", "schema", Verdict.REFUSED, len(foreign + turned), 0, f"the contract has no {names}")
    reason = f"the contract delivers all {len(asked)} inputs" + (f", {unused} more are not used" if unused else "")
    return plain("schema", "schema", Verdict.PASSED, 0, 0, reason)


def infra(measured: InfraMeasured, limits: InfraSpec) -> Iterator[Check]:
    if measured.why:
        yield plain("served", "infra", Verdict.REFUSED, 0, 1, f"the server cannot serve it: {measured.why}")
        return
    parts = (
        ("parity", "golden rows differ by", "", measured.parity, max(limits.parity, measured.tolerance)),
        ("p99", "a row takes", " ms (p99)", measured.p99_ms, limits.max_p99_ms),
        ("rss", "the server holds", " MiB", measured.rss_mb, limits.max_rss_mb),
        ("size", "the artifact has", " MiB", measured.size_mb, limits.max_size_mb),
    )
    for name, what, unit, value, limit in parts:
        if value is None:
            yield plain(name, "infra", Verdict.INCONCLUSIVE, 0, limit, f"{name} was not measured")
            continue
        verdict = Verdict.PASSED if value <= limit else Verdict.REFUSED
        yield plain(name, "infra", verdict, value, limit, f"{what} {value:.3g}{unit}, at most {limit:g}{unit}")
    if limits.explain:
        yield _explained(measured.unexplained)


def _explained(problem: str | None) -> Check:
    if problem is None:
        return plain("explained", "infra", Verdict.INCONCLUSIVE, 0, 1, "no golden row was explained or refused")
    if problem:
        return plain("explained", "infra", Verdict.REFUSED, 0, 1, f"a golden row is not explained: {problem}")
    return plain("explained", "infra", Verdict.PASSED, 1, 1, "every golden row is explained, and adds up")
