"""Does the artifact on disk compute what the model in memory computes? Asked once, before anything is registered.

Rows of every awkward kind go through both: real ones, one without any value, one of unseen categories, extremes.
A compiled model is held to the same questions as a saved pipeline, which is why they are rows and not knowledge of it.

A compiled tree may split a value that lies on the edge in float32 the other way, so a thousandth of the rows may lie
outside the tolerance. None may change its decision: that is what a person would notice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from include.kernel.errors import ArtifactRejected
from include.model.artifact import Model, load
from include.model.row_groupings import list_groupings
from include.model.schema import Column

PARITY_TOLERANCE = 1e-9  # of a saved pipeline, which is the same code on the same numbers
MAX_DIFFERING_SHARE = 0.001  # share of the rows
Row = Mapping[str, Any]


def check(model: Model, directory: Path, rows: Sequence[Row] = (), tolerance: float | None = None) -> list[str]:
    """The problems of the artifact in `directory` against the model it was made from; none means it conforms.

    Without a `tolerance` (absolute, of a probability) a compiled artifact is held to its own, a saved one to PARITY.
    """
    try:
        saved = load(directory)
    except ArtifactRejected as error:
        return [str(error)]
    if tolerance is None:
        tolerance = PARITY_TOLERANCE if saved.meta.path == "generic" else saved.meta.tolerance
    probes: dict[str, Sequence[Row]] = {"the given rows": list(rows), **build_awkward_rows(model.meta.columns)}
    if model.meta.features:  # a product of two extremes has no number, and the function may refuse to answer
        del probes["extremes"]
    problems = [_compare(model, saved, what, asked, tolerance) for what, asked in probes.items() if asked]
    return [problem for problem in [*problems, check_golden(saved)] if problem]


def check_golden(model: Model) -> str | None:
    """Whether a loaded model still computes its golden rows, in whatever company; a sentence when it does not."""
    meta = model.meta
    if not meta.golden:
        return None
    distances = [
        float(np.max(np.abs(model.predict_proba([one.row for one in asked]) - [one.probability for one in asked])))
        for asked in ([meta.golden[position] for position in group] for group in list_groupings(len(meta.golden)))
    ]
    if not distances[0] <= meta.tolerance:
        return (
            f"The model misses its golden rows by {distances[0]:.2g}; "
            f"it was saved with scikit-learn {meta.sklearn_version}, retrain it with the installed one."
        )
    worst = float(np.max(distances))
    if worst <= meta.tolerance:
        return None
    cause = f"what the feature function {meta.features!r} gives" if meta.features else "what the model computes"
    return (
        f"The model misses its golden rows by {worst:.2g} when they are asked alone or in other company: {cause} for a "
        "row depends on the rows beside it; compute every row from that row alone, and train again."
    )


def build_awkward_rows(columns: Sequence[Column]) -> dict[str, list[dict[str, Any]]]:
    """Rows nobody trained on, by what is odd about them."""
    return {
        "a row without any value": [{column.name: None for column in columns}],
        "an unseen category": [_build_row(columns, 1.0)],
        "extremes": [_build_row(columns, number) for number in (0.0, -1e12, 1e12, 1e-12, 1e300, -1e300)],
    }


def _build_row(columns: Sequence[Column], number: float) -> dict[str, Any]:
    return {column.name: number if column.kind == "number" else "never seen before" for column in columns}


def _compare(model: Model, saved: Model, what: str, rows: Sequence[Row], tolerance: float) -> str | None:
    try:
        expected, actual = model.predict_proba(rows), saved.predict_proba(rows)
        regrouped = max(
            float(np.max(np.abs(saved.predict_proba([rows[position] for position in group]) - actual[group])))
            for group in list_groupings(len(rows))[1:]
        )
    except Exception as error:  # any failure of either model is the finding
        return f"The model fails on {what}: {type(error).__name__}: {str(error).rstrip('.')}."
    distances, threshold = np.abs(expected - actual), model.meta.threshold
    other = int(np.sum((expected >= threshold) != (actual >= threshold)))
    if np.mean(~(distances <= tolerance)) > MAX_DIFFERING_SHARE:  # written so that NaN counts as apart
        return f"The saved model differs on {what} by {np.max(distances):.2g}."
    if not regrouped <= tolerance:
        return f"The saved model answers {what} otherwise by {regrouped:.2g} when other rows are asked beside them."
    return f"The saved model decides {other} of {what} otherwise." if other else None
