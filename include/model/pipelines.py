"""The candidates: a straight line, two kinds of forest and a network. All take missing values and unseen categories.

Boosting gets ordinal codes, not scikit-learn's native categories: explainers and compiled forests are wrong on native
ones, and on a handful of levels a few more splits cost nothing. Random forest and network calculate in float32, where a
large number is infinite: their columns are held within what the training saw, which no split and no weight can tell.
Kept to parts that can be written as data (see compiling) and whose types the artifact codec trusts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from include.kernel.errors import Permanent
from include.model.schema import Column, Kind

SCALED = ("logistic", "random_forest", "torch_mlp")  # beside one number that dwarfs them all others become the same
Builder = Callable[[Sequence[Column], Mapping[str, Any], int], Pipeline]


def build(kind: str, columns: Sequence[Column], params: Mapping[str, Any], seed: int) -> Pipeline:
    """An unfitted pipeline over `columns` (those after the feature function). Raises `Permanent`."""
    if kind not in BUILDERS:
        raise Permanent(f"There is no pipeline {kind!r}; known are {', '.join(sorted(BUILDERS))}.")
    try:
        pipeline = BUILDERS[kind](columns, params, seed)
        model = pipeline.named_steps["model"]
        if hasattr(model, "_parameter_constraints"):  # scikit-learn's own check, which it makes in `fit` only
            model._validate_params()
    except (TypeError, ValueError) as error:
        sentence = " ".join(str(error).split()).rstrip(".")
        raise Permanent(
            f"The pipeline {kind!r} does not take these parameters: {sentence}{_explain_texts(params)}."
        ) from error
    return pipeline


def _explain_texts(params: Mapping[str, Any]) -> str:
    """YAML reads 1e-3 as a text, which nobody expects."""
    for name, value in params.items():
        if isinstance(value, str) and (number := _read_number(value)) is not None:
            return f"; YAML takes {name}: {value} for a text, write {number!r}"
    return ""


def _read_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def check_params(kind: str, params: Mapping[str, Any], seed: int) -> None:
    """What `build` refuses, and what only a fit refuses: solvers that lack a penalty, layers of a wrong size.

    Forests are not fitted here: some of their parameters are only wrong for as few rows as these.
    """
    pipeline = build(kind, (Column(name="n", kind="number"),), params, seed)
    if kind not in ("logistic", "torch_mlp"):
        return
    shortened = {"model__max_epochs": 1} if kind == "torch_mlp" and "max_epochs" not in params else {}
    rows, classes = pd.DataFrame({"n": np.arange(40.0)}), np.arange(40) % 2
    try:
        pipeline.set_params(**shortened).fit(rows, classes)
    except Exception as error:
        sentence = " ".join(str(error).split()).rstrip(".")
        raise Permanent(
            f"The pipeline {kind!r} cannot be fitted with these parameters: {sentence}{_explain_texts(params)}."
        ) from error


def _build_logistic(columns: Sequence[Column], params: Mapping[str, Any], seed: int) -> Pipeline:
    model = LogisticRegression(**{"max_iter": 2000, "random_state": seed, **params})
    return Pipeline(
        [("prepare", _prepare(columns, _build_imputer(StandardScaler()), _build_onehot())), ("model", model)]
    )


def _build_random_forest(columns: Sequence[Column], params: Mapping[str, Any], seed: int) -> Pipeline:
    model = RandomForestClassifier(**{"n_estimators": 200, "min_samples_leaf": 5, "random_state": seed, **params})
    return Pipeline(
        [("prepare", _prepare(columns, _build_imputer(_build_clipper()), _build_onehot())), ("model", model)]
    )


def _build_torch_mlp(columns: Sequence[Column], params: Mapping[str, Any], seed: int) -> Pipeline:
    from include.model import network

    numbers = _build_imputer(_build_clipper(), StandardScaler())
    return Pipeline(
        [("prepare", _prepare(columns, numbers, _build_onehot())), ("model", network.build_classifier(params, seed))]
    )


def _build_boosting(columns: Sequence[Column], params: Mapping[str, Any], seed: int) -> Pipeline:
    categories = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=np.nan)
    model = HistGradientBoostingClassifier(
        **{"random_state": seed, "early_stopping": False, "categorical_features": None, **params}
    )
    return Pipeline([("prepare", _prepare(columns, "passthrough", categories)), ("model", model)])


def _build_imputer(*then: Any) -> Pipeline:
    """Missing becomes the median, with a column that says so."""
    median = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return Pipeline([("impute", median), *((f"scale{place or ''}", step) for place, step in enumerate(then))])


def _build_clipper() -> MinMaxScaler:
    return MinMaxScaler(clip=True)


def _build_onehot() -> OneHotEncoder:
    """Sparse, and so is what it stands in as long as most of that is zero: a wide category takes room by its rows."""
    return OneHotEncoder(handle_unknown="ignore")


def _prepare(columns: Sequence[Column], numbers: Any, categories: Any) -> ColumnTransformer:
    parts = [
        ("numbers", numbers, _select_names(columns, "number")),
        ("categories", categories, _select_names(columns, "category")),
    ]
    return ColumnTransformer([part for part in parts if part[2]])


def _select_names(columns: Sequence[Column], kind: Kind) -> list[str]:
    return [column.name for column in columns if column.kind == kind]


BUILDERS: dict[str, Builder] = {
    "logistic": _build_logistic,
    "random_forest": _build_random_forest,
    "boosting": _build_boosting,
    "torch_mlp": _build_torch_mlp,
}
