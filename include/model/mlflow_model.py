"""The serving artifact as an MLflow model, for people and tools that speak MLflow.

MLflow stores the name of this module and calls `_load_pyfunc` (its "loader module" convention) instead of unpickling an
object. So the MLflow model answers with the very numbers the model server answers with, for every kind of candidate.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.kernel.errors import ArtifactRejected, RequestInvalid
from include.model import artifact
from include.model.artifact import Model
from include.model.conformance import check_golden
from include.model.schema import Column, conform

PROJECT = __name__.partition(".")[0]


class PyfuncModel:
    """Raw columns in, the probability of the positive class out, shape (n,)."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> NDArray[np.float64]:
        columns = self._model.meta.columns
        return self._model.predict_frame(pd.DataFrame({c.name: _read_column(model_input, c) for c in columns}))


def _read_column(table: pd.DataFrame, column: Column) -> pd.Series[Any]:
    """As the server reads it, whatever type pandas gave it. Raises `RequestInvalid` when a number is none.

    A column that is not there is missing. Codes beside a gap are floats in pandas, which knows no gap among integers:
    1.0 is the category 1 again, unless the training knew it as 1.0.
    """
    values = table[column.name] if column.name in table else pd.Series([None] * len(table), dtype=object)
    if column.kind == "category" and pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values if any(known.endswith(".0") for known in column.categories) else values.astype("Int64")
    try:
        return conform(pd.DataFrame({column.name: values}), [column])[column.name]
    except (TypeError, ValueError) as error:
        raise RequestInvalid(f"The column {column.name!r} must hold numbers: {error}.") from error


def _load_pyfunc(path: str) -> PyfuncModel:
    """Raises `ArtifactRejected`, above all when what is installed here, or another feature function of that name,
    computes other numbers than the training did."""
    _add_own_code(Path(path))
    model = artifact.load(Path(path))
    if problem := check_golden(model):
        raise ArtifactRejected(problem)
    return PyfuncModel(model)


def _add_own_code(path: Path) -> None:
    """A process that holds a checkout or has loaded another model looks for a feature function in that code alone."""
    for root in (place / "code" for place in path.parents if (place / "MLmodel").is_file()):
        for name, module in list(sys.modules.items()):
            folder = str(root.joinpath(*name.split(".")))
            if name.partition(".")[0] == PROJECT and folder not in getattr(module, "__path__", [folder]):
                module.__path__.append(folder)
