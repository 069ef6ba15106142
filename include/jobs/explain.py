"""Which columns move a model's probabilities: a SHAP summary of what serves, as numbers and as a picture.

The permutation explainer (Lundberg and Lee 2017, by sampled orders) asks nothing of a model but answers, so one way
explains a line, a forest and a network, and what is explained is the compiled form itself with its calibration. The
contributions of the columns a category was spread over are added up: contributions are made to be added.

Importing shap costs about four seconds and 300 MB, hence `train.explain_rows`, which is 0 unless somebody asks.
"""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from include.core.errors import Permanent
from include.model.artifact import CompiledModel, Model
from include.model.encoding import Floats

log = logging.getLogger(__name__)
BACKGROUND = 50  # rows that stand for "not known"
ADDITIVE = 1e-6
JSON, PICTURE = "shap.json", "shap.svg"


def write(model: Model, table: Any, seed: int, directory: Path) -> None:
    """Mean absolute contributions by column as JSON and SVG; a model without a compiled form is left unexplained."""
    if not isinstance(model, CompiledModel):
        log.info("no SHAP summary: only compiled models are explained")
        return
    found = contributions(model, table, seed)
    mean = {name: float(np.mean(np.abs(values))) for name, values in found.items()}
    ranked = dict(sorted(mean.items(), key=lambda item: -item[1]))
    (directory / JSON).write_text(json.dumps({"rows": len(table), "mean_absolute": ranked}, indent=1))
    (directory / PICTURE).write_text(_picture(ranked, len(table)))


def contributions(model: CompiledModel, table: Any, seed: int) -> dict[str, Floats]:
    """SHAP values (n,) of each input column, in probability. Raises `Permanent` when they do not add up."""
    import shap

    matrix = model.encoder.frame(table).astype(np.float64)
    masker = shap.maskers.Independent(matrix, max_samples=BACKGROUND)
    explainer = shap.PermutationExplainer(model.answer, masker, seed=seed)
    found = explainer(matrix, max_evals=2 * matrix.shape[1] + 1, silent=True)
    apart = np.max(np.abs(found.base_values + found.values.sum(axis=1) - model.answer(matrix)))
    if not apart <= ADDITIVE:
        raise Permanent(
            f"The SHAP values of the model miss its probabilities by {apart:.2g}; set train.explain_rows: 0."
        )
    owners = np.array(model.encoder.owners)
    return {name: found.values[:, owners == name].sum(axis=1) for name in dict.fromkeys(owners.tolist())}


def _picture(ranked: dict[str, float], rows: int) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.4 + 0.3 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(ranked)[::-1], list(ranked.values())[::-1], color="#2f7d4f")
    axes.set(title=f"Mean absolute SHAP value of {rows} rows", xlabel="probability")
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "evergreen"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
