"""Evidently's report of an alarm: every column drawn beside its baseline, in the form many teams know.

It is a picture and no judge: the verdict is ours, and Evidently is given our measure and our bound. Both sides are
drawn from the profiles, two thousand rows each: no stored rows are read again, no value of a person can be in it but
those that stand in the baseline, and it takes seconds whatever the window's size. Columns are drawn one by one, so
relations between them are not in the picture; the monitor's own page has those. Evidently is imported when there is
an alarm.
"""

import os
from typing import Any

import numpy as np

from include.monitoring.core.drift import TableProfile
from include.monitoring.core.profiles import NumberProfile
from include.monitoring.spec import MonitorSpec

SAMPLE_ROWS = 2000


def render_drift_report(baseline: TableProfile, current: TableProfile, spec: MonitorSpec, seed: int) -> str | None:
    """One self-contained HTML page; None when no column has values on both sides."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # its telemetry
    names = [name for name, p in current.profiles.items() if p.known and _has_known_values(baseline, name)]
    if not names:
        return None
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in names if isinstance(baseline.profiles[name], NumberProfile)]
    columns = DataDefinition(numerical_columns=numbers, categorical_columns=[n for n in names if n not in numbers])
    now, before = (
        Dataset.from_pandas(pd.DataFrame(_draw_samples(side, names, seed)), data_definition=columns)
        for side in (current, baseline)
    )
    preset = DataDriftPreset(num_method="psi", cat_method="psi", num_threshold=spec.psi, cat_threshold=spec.psi)
    return str(Report([preset]).run(now, before).get_html_str(as_iframe=False))


def _has_known_values(baseline: TableProfile, name: str) -> bool:
    return name in baseline.profiles and baseline.profiles[name].known > 0


def _draw_samples(side: TableProfile, names: list[str], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: side.profiles[name].draw_sample(SAMPLE_ROWS, rng) for name in names}
