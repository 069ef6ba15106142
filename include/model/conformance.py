"""Does the artifact on disk compute what the model in memory computes? Asked once, before anything is registered.

Rows of every awkward kind go through both: real ones, one without any value, one of unseen categories, extremes.
A compiled model format is held to the same questions, which is why they are rows and not knowledge of the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from include.core.errors import ArtifactRejected
from include.model.artifact import ServableModel, load
from include.model.schema import Column

PARITY = 1e-9
GOLDEN_PARITY = 1e-6
Row = Mapping[str, Any]


def check(model: ServableModel, directory: Path, rows: Sequence[Row] = (), tolerance: float = PARITY) -> list[str]:
    """The problems of the artifact in `directory` against the model it was saved from; none means it conforms."""
    try:
        saved = load(directory)
    except ArtifactRejected as error:
        return [str(error)]
    probes: dict[str, Sequence[Row]] = {"the given rows": list(rows), **awkward(model.meta.columns)}
    problems = [_compare(model, saved, what, asked, tolerance) for what, asked in probes.items() if asked]
    return [problem for problem in [*problems, golden(saved)] if problem]


def golden(model: ServableModel) -> str | None:
    """Whether a loaded model still computes its golden rows; a sentence when it does not."""
    if not model.meta.golden:
        return None
    found = model.predict_proba([item.row for item in model.meta.golden])
    worst = float(np.max(np.abs(found - [item.probability for item in model.meta.golden])))
    if worst <= GOLDEN_PARITY:
        return None
    return (
        f"The model misses its golden rows by {worst:.2g}; "
        f"it was saved with scikit-learn {model.meta.sklearn_version}, retrain it with the installed one."
    )


def awkward(columns: Sequence[Column]) -> dict[str, list[dict[str, Any]]]:
    """Rows nobody trained on, by what is odd about them."""
    return {
        "a row without any value": [{column.name: None for column in columns}],
        "an unseen category": [_row(columns, 1.0)],
        "extremes": [_row(columns, number) for number in (0.0, -1e12, 1e12, 1e-12, 1e300, -1e300)],
    }


def _row(columns: Sequence[Column], number: float) -> dict[str, Any]:
    return {column.name: number if column.kind == "number" else "never seen before" for column in columns}


def _compare(
    model: ServableModel, saved: ServableModel, what: str, rows: Sequence[Row], tolerance: float
) -> str | None:
    try:
        expected, found = model.predict_proba(rows), saved.predict_proba(rows)
    except Exception as error:  # any failure of either model is the finding
        return f"The model fails on {what}: {type(error).__name__}."
    worst = float(np.max(np.abs(expected - found)))
    return None if worst <= tolerance else f"The saved model differs on {what} by {worst:.2g}."
