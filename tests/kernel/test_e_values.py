"""The gambler's wealth: fair where the hypothesis holds, rich where it does not, and blind to the order of looks."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.kernel.inference.e_values import (
    BET_FRACTIONS,
    PeriodCounts,
    compute_evidence_above,
    compute_evidence_below,
    compute_mean_evidence,
    compute_share_difference,
    compute_weight_evidence,
)

weights = st.sampled_from([0.01, 0.05, 0.25, 0.5, 0.9])
margins = st.sampled_from([-0.2, 0.0, 0.01, 0.1, 0.5])
shares = st.floats(0, 1)


def expected_factor(weight: float, candidate: float, stable: float, margin: float, evidence) -> float:
    """The exact mean of the e-value after one request, over all that can happen to it."""
    chances = {
        (1, 0, 1, 0): weight * candidate,
        (1, 0, 0, 0): weight * (1 - candidate),
        (0, 1, 0, 1): (1 - weight) * stable,
        (0, 1, 0, 0): (1 - weight) * (1 - stable),
    }
    return sum(
        chance * math.exp(evidence([PeriodCounts(weight, *counts)], margin)) for counts, chance in chances.items()
    )


@given(weights, shares, shares, margins)
def test_no_hypothesis_that_holds_makes_the_gambler_richer_on_average(weight, candidate, stable, margin):
    """The one property on which everything rests: then Ville's inequality bounds the chance of ever being rich."""
    above = expected_factor(weight, candidate, stable, margin, compute_evidence_above)
    below = expected_factor(weight, candidate, stable, margin, compute_evidence_below)
    if candidate - stable <= margin:
        assert above <= 1 + 1e-12
    if candidate - stable >= margin:
        assert below <= 1 + 1e-12


@given(weights, margins, st.integers(0, 4))
def test_no_single_request_takes_all_the_wealth(weight, margin, what):
    one = PeriodCounts(weight, what < 2, what >= 2, what == 1, what == 3)
    assert math.isfinite(compute_evidence_above([one], margin)) and math.isfinite(compute_evidence_below([one], margin))


def test_no_request_is_no_evidence():
    for nothing in ([], [PeriodCounts(0.05, 0, 0, 0, 0)]):
        assert compute_evidence_above(nothing, 0) == compute_evidence_below(nothing, 0.1) == pytest.approx(0)
        assert compute_share_difference(nothing) == 0


def test_periods_of_one_weight_are_as_good_as_their_sum():
    first, second = PeriodCounts(0.25, 100, 300, 5, 3), PeriodCounts(0.25, 50, 150, 1, 1)
    both = PeriodCounts(0.25, 150, 450, 6, 4)
    for evidence in (compute_evidence_above, compute_evidence_below):
        assert evidence([first, second], 0.01) == pytest.approx(evidence([both], 0.01))


def test_evidence_grows_with_what_is_seen():
    few, many = (PeriodCounts(0.5, n, n, n // 10, n // 100) for n in (100, 1000))
    assert compute_evidence_above([many], 0) > compute_evidence_above([few], 0) > 0
    assert compute_evidence_above([many], 0.2) < 0 < compute_evidence_below([many], 0.2)


def test_an_average_of_evidence_lies_between_its_parts_and_pays_for_the_useless_ones():
    assert compute_mean_evidence([0.0, 0.0]) == pytest.approx(0)
    assert compute_mean_evidence([10.0, 0.0]) == pytest.approx(10 - math.log(2), abs=1e-3)


def test_the_bets_are_spread_from_bold_to_timid():
    assert all(0 < later < earlier < 1 for earlier, later in itertools.pairwise(BET_FRACTIONS))
    assert BET_FRACTIONS[-1] < 1e-3


@given(weights, st.integers(0, 40))
def test_the_test_of_the_split_is_fair_where_requests_are_dealt_by_the_weight(weight, requests):
    chances = (math.comb(requests, n) * weight**n * (1 - weight) ** (requests - n) for n in range(requests + 1))
    found = (math.exp(compute_weight_evidence(n, requests - n, weight)) for n in range(requests + 1))
    assert sum(chance * value for chance, value in zip(chances, found, strict=True)) == pytest.approx(1)


def test_the_test_of_the_split_sees_a_slot_that_took_over_for_the_other():
    assert compute_weight_evidence(200, 800, 0.2) < 0 < 5 < compute_weight_evidence(300, 700, 0.2)
