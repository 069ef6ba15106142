"""What a baseline keeps of a wide table; it is a part of the artifact, which the gate measures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from include import manifest as manifests
from include.monitoring import baselines
from include.monitoring.core.signals import SCORE


class Scorer:
    """A model as far as a baseline knows one."""

    def __init__(self, columns: list[str]) -> None:
        self.meta = SimpleNamespace(
            columns=[SimpleNamespace(name=name, kind="number") for name in columns], threshold=0.5
        )

    def predict_frame(self, inputs: pd.DataFrame) -> Any:
        return np.linspace(0, 1, len(inputs))


@pytest.mark.parametrize("rows", [400, 3000])
def test_a_thousand_inputs_stay_well_below_the_gates_limit_and_come_back_whole(rows, tmp_path) -> None:
    limit = manifests.load().gate.infra
    assert limit is not None
    inputs = pd.DataFrame(
        np.random.default_rng(1).normal(size=(rows, 1000)), columns=[f"input_{n}" for n in range(1000)]
    )
    made: Any = baselines.make(
        SimpleNamespace(inputs=inputs, truth=np.arange(rows) % 2),
        Scorer(list(inputs)),  # type: ignore[arg-type]
    )
    text = made.render_json()
    assert len(text) / 2**20 < limit.max_size_mb / 3
    assert all(made.profile.profiles[name].resolution <= 1 / 400 for name in inputs)
    (tmp_path / baselines.FILE).write_text(text)
    again = baselines.read(tmp_path)
    assert again.profile.profiles == made.profile.profiles and SCORE in again.profile.profiles
    assert again.profile.correlations.pairs == made.profile.correlations.pairs
    day = again.measure(inputs.head(100), None)
    assert day.correlations and day.correlations.pairs == made.profile.correlations.pairs
    assert again.unpack(again.pack(day)).profiles == day.profiles
