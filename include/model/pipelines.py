"""The candidates: a straight line, two kinds of forest and a network. All take missing values and unseen categories.

Boosting gets ordinal codes, not scikit-learn's native categories: explainers and compiled forests are wrong on native
ones, and on a handful of levels a few more splits cost nothing. Random forest and network calculate in float32, where a
large number is infinite: their columns are held within what the training saw, which no split and no weight can tell.
Kept to parts that can be written as data (see compiling) and whose types the artifact codec trusts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from include.kernel.errors import Permanent
from include.model.schema import Column, Kind

Builder = Callable[[Sequence[Column], Mapping[str, Any], int], Pipeline]


def build(kind: str, columns: Sequence[Column], params: Mapping[str, Any], seed: int) -> Pipeline:
    """An unfitted pipeline over `columns` (those after the feature function). Raises `Permanent`."""
    if kind not in BUILDERS:
        raise Permanent(f"There is no pipeline {kind!r}; known are {', '.join(sorted(BUILDERS))}.")
    try:
        return BUILDERS[kind](columns, params, seed)
    except TypeError as error:
        raise Permanent(f"The pipeline {kind!r} does not take these parameters: {error}.") from error


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
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False)


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
