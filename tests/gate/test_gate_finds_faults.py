"""The gate's test of itself: challengers with a known fault, judged by the shipped manifest."""

from __future__ import annotations

import pytest

from include import manifest
from tests.proofs.sabotage import CASES, Case


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_challenger_with_a_known_fault_gets_the_verdict_it_must(case: Case, seed: int) -> None:
    report = case.judged(manifest.load().gate, seed)
    assert case.as_expected(report), report.sentence
