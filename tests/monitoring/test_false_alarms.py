from __future__ import annotations

import numpy as np
import pytest

from include import manifest as manifests
from include.monitoring.core.false_alarms import compute_budget
from include.monitoring.spec import MonitorSpec, Persistence

SPEC = manifests.load().monitor


def spec(alpha: float, k: int, n: int) -> MonitorSpec:
    return SPEC.model_copy(update={"alpha": alpha, "persistence": Persistence(k=k, n=n)})


def test_without_persistence_every_drifted_window_is_an_alarm() -> None:
    assert (
        compute_budget(spec(0.01, 1, 1)).alarms
        == compute_budget(spec(0.01, 1, 1)).alarms_if_independent
        == pytest.approx(7.3)
    )


def test_the_figure_for_independent_windows_is_what_a_simulation_finds() -> None:
    drifted = np.random.default_rng(1).random((2000, 365 + 3)) < 2 * 0.05
    recent = np.lib.stride_tricks.sliding_window_view(drifted, 4, axis=1)[:, :365]
    alarms = (recent[..., -1] & (recent.sum(axis=-1) >= 2)).sum(axis=1)
    assert compute_budget(spec(0.05, 2, 4)).alarms_if_independent == pytest.approx(alarms.mean(), rel=0.05)


def test_persistence_never_adds_alarms_and_the_sentence_tells_both_figures() -> None:
    found = compute_budget(spec(0.005, 2, 3))
    assert found.alarms_if_independent <= found.alarms
    assert found.sentence == (
        "on healthy rows each check raises a signal on at most 1.8 days a year, "
        "and at most 3.6 days have an alarm (0.073 if windows were independent); "
        "matured labels add at most 2.6"
    )
