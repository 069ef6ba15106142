"""Which columns move a model's scores: a SHAP summary of what serves, as numbers and as a picture.

The way is that of the model server (see include.model.explanation.attribution): what the artifact keeps, by input
column, held to the probabilities that are served. Importing shap costs about four seconds and 250 MB, hence
`train.explain_rows`, which is 0 unless somebody asks; a linear model needs no shap.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from include.model import artifact
from include.model.explanation import attribution, explanation
from include.model.integrity import artifact_integrity

JSON, PICTURE = "shap.json", "shap.svg"
UNITS = {
    "log_odds": "log-odds of the probability",
    "probability": "probability",
    "score_log_odds": "log-odds of the score before calibration",
    "score": "score before calibration",
}


def write_summary(serving: Path, rows: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """Mean absolute contributions by column as JSON and SVG, of the artifact in `serving`.

    Raises `NotAdditive` when they miss what is served, `ArtifactRejected` when the artifact cannot be explained.
    """
    explanations = explain_rows(serving, rows)
    columns = list(explanations[0].contributions)
    table = np.array([list(row.contributions.values()) for row in explanations])
    mean = dict(zip(columns, np.abs(table).mean(axis=0).tolist(), strict=True))
    ranked = dict(sorted(mean.items(), key=lambda item: -item[1]))
    summary = {"rows": len(rows), "space": explanations[0].space, "mean_absolute": ranked}
    (directory / JSON).write_text(json.dumps(summary, indent=1))
    (directory / PICTURE).write_text(_render_picture(ranked, len(rows), UNITS[explanations[0].space]))


def explain_rows(serving: Path, rows: Sequence[Mapping[str, Any]]) -> list[attribution.RowExplanation]:
    """The rows as the model server explains them."""
    files = artifact_integrity.read_contents(serving)
    model, document = artifact.open_artifact(files), explanation.read(files)
    explanations = attribution.build_explainer(files, model)(rows)
    assert document  # without one there is no explainer
    return attribution.build_explanations(document, model.meta, explanations, model.predict_proba(rows).tolist())


def _render_picture(ranked: dict[str, float], rows: int, unit: str) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.4 + 0.3 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(ranked)[::-1], list(ranked.values())[::-1], color="#2f7d4f")
    axes.set(title=f"Mean absolute SHAP value of {rows} rows", xlabel=unit)
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "evergreen"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
