"""The serving artifact as an MLflow model, for people and tools that speak MLflow.

MLflow stores the name of this module and calls `_load_pyfunc` (its "loader module" convention) instead of unpickling an
object. So the MLflow model answers with the very numbers the model server answers with, for every kind of candidate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from include.model import artifact
from include.model.artifact import Model
from include.model.schema import conform

if TYPE_CHECKING:
    import pandas as pd


class PyfuncModel:
    """Raw columns in, the probability of the positive class out, shape (n,)."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> NDArray[np.float64]:
        return self._model.predict_frame(conform(model_input, self._model.meta.columns))


def _load_pyfunc(path: str) -> PyfuncModel:
    return PyfuncModel(artifact.load(Path(path)))
