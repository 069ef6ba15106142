"""Data quality against the baseline: what a contract, which knows no history, lets through.

A contract says which values may be there at all; this says which came more often than when the model was judged:
missing values, values outside of all that was seen, far-out values, categories nobody saw, relations between columns
that broke. Each share has a floor in the manifest and a test that it did not rise by chance, and false discoveries
are controlled over all columns, measures and pairs together: the check is one, and so is its budget. Only rises
count; a column that became better is not a fault.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from include.kernel.inference import statistics as st
from include.monitoring.core.correlations import Correlations, compare_correlations
from include.monitoring.core.profiles import NumberProfile, Profile
from include.monitoring.core.signals import Signal
from include.monitoring.spec import MonitorSpec, QualitySpec

ACTIONS = {
    "missing": "Ask the source why the column is not delivered; the model answers without it meanwhile.",
    "out_of_range": "Look at the values for a change of unit; the model never saw such ones.",
    "outliers": "Look at the values for a change of unit or a broken sensor.",
    "new_categories": "Add the categories to the contract and train again, or have the source correct them.",
    "correlation": "Look for a wrong join or a shifted column: each column looks as before, together they do not.",
}
FENCE_RANGES = 3.0  # interquartile ranges beyond the quartiles (Tukey 1977)


@dataclass(frozen=True)
class Suspect:
    """One share, or one correlation, beside what it was; `value` is the rise, and counts from `floor` on."""

    subject: str
    measure: str
    value: float
    floor: float
    p_value: float
    before: float
    now: float

    def build_signal(self, chance_excluded: bool) -> Signal:
        wrong = chance_excluded and self.value >= self.floor
        return Signal(
            check="data_quality",
            subject=self.subject,
            measure=self.measure,
            value=self.value,
            p_value=self.p_value,
            threshold=self.floor,
            severity="warning" if wrong else "ok",
            action=ACTIONS[self.measure] if wrong else "",
            details={"before": self.before, "now": self.now},
        )


def check_data_quality(
    baseline: Mapping[str, Profile],
    current: Mapping[str, Profile],
    relations: tuple[Correlations, Correlations] | None,
    spec: MonitorSpec,
) -> list[Signal]:
    """Every suspect that is one, and of each measure without any, the column that came nearest to its floor."""
    suspects = [
        s
        for name in current
        if name in baseline
        for s in _list_column_suspects(name, baseline[name], current[name], spec)
    ]
    suspects += _list_relation_suspects(*relations, spec.quality) if relations else []
    excluded = st.reject_by_false_discovery([suspect.p_value for suspect in suspects], spec.alpha)
    signals = [suspect.build_signal(real) for suspect, real in zip(suspects, excluded, strict=True)]
    return list(_select_signals(sorted(signals, key=lambda signal: (signal.measure, -(signal.value or 0)))))


def _select_signals(signals: list[Signal]) -> Iterator[Signal]:
    for _, group in groupby(signals, key=lambda signal: signal.measure):
        same = list(group)
        yield from [signal for signal in same if signal.raised] or same[:1]


def _list_column_suspects(name: str, baseline: Profile, current: Profile, spec: MonitorSpec) -> Iterator[Suspect]:
    quality = spec.quality
    yield _measure_rise(
        name, "missing", (baseline.missing, baseline.rows), (current.missing, current.rows), quality.missing
    )
    if isinstance(baseline, NumberProfile) and isinstance(current, NumberProfile):
        if baseline.known:
            yield from _list_number_suspects(name, baseline, current, quality)
    elif not isinstance(baseline, NumberProfile) and not isinstance(current, NumberProfile):
        before, now = (baseline.others, baseline.known), (current.others, current.known)
        yield _measure_rise(name, "new_categories", before, now, quality.new_categories)


def _list_number_suspects(
    name: str, baseline: NumberProfile, current: NumberProfile, spec: QualitySpec
) -> Iterator[Suspect]:
    low, high = baseline.find_quantile(0.25), baseline.find_quantile(0.75)
    fence = (low - FENCE_RANGES * (high - low), high + FENCE_RANGES * (high - low))
    inner = tuple(float(baseline.knots[i]) for i in _find_fence_knots(baseline, fence))
    ends = (float(baseline.knots[0]), float(baseline.knots[-1]))
    # of n + 1 values that come in any order, the newest is the smallest or the largest with probability 2/(n + 1)
    yield _measure_rise(
        name, "out_of_range", (2, baseline.known), (current.count_outside(ends), current.known), spec.out_of_range
    )
    before, now = ((p.count_outside((inner[0], inner[1])), p.known) for p in (baseline, current))
    yield _measure_rise(name, "outliers", before, now, spec.outliers)


def _find_fence_knots(baseline: NumberProfile, fence: tuple[float, float]) -> tuple[int, int]:
    """The last knot not above the lower fence and the first not below the upper one: counted exactly on both sides."""
    last = len(baseline.knots) - 1
    low = int((baseline.knots <= fence[0]).sum()) - 1
    return max(low, 0), min(int((baseline.knots < fence[1]).sum()), last)


def _measure_rise(name: str, measure: str, before: tuple[int, int], now: tuple[int, int], floor: float) -> Suspect:
    shares = [hits / rows if rows else 0.0 for hits, rows in (before, now)]
    p_value = st.compute_increase_p_value(now[0], now[1], before[0], before[1])
    return Suspect(name, measure, shares[1] - shares[0], floor, p_value, shares[0], shares[1])


def _list_relation_suspects(baseline: Correlations, current: Correlations, spec: QualitySpec) -> Iterator[Suspect]:
    before = {(one, other): (value, rows) for one, other, value, rows in baseline.iterate_pairs()}
    for one, other, value, rows in current.iterate_pairs():
        if reference := before.get((one, other)):
            p_value = 2 * st.compute_lower_p_value(-abs(compare_correlations((value, rows), reference)))
            away = abs(value - reference[0])
            yield Suspect(f"{one} ~ {other}", "correlation", away, spec.correlation, p_value, reference[0], value)
