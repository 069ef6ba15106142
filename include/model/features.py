"""The project's own feature function, called by the same code in training and in the server.

A function inside the saved pipeline would be a type the loader must not trust. So the artifact carries only its name,
"module:function", and both sides resolve that name in their own checkout. The trade-off: the server image needs the
module. A name from a file must not run just any code: only functions defined under FEATURE_ROOTS are called.

A function computes each row from that row alone, since a server is asked one row at a time; training asks it so.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from include.kernel.errors import Permanent
from include.model.row_groupings import list_groupings

FeatureFunction = Callable[[pd.DataFrame], pd.DataFrame]
FEATURE_ROOTS: tuple[str, ...] = ("include",)
ROWS_ALONE = 64  # rows that training asks of a function one by one


def resolve(name: str | None, roots: tuple[str, ...] = FEATURE_ROOTS) -> FeatureFunction:
    """The function named "module:function"; None is the identity. Raises `Permanent`."""
    if name is None:
        return _return_unchanged
    module, separator, function = name.partition(":")
    if not (separator and module and function):
        raise Permanent(f"The feature function {name!r} must be written module:function.")
    if module.partition(".")[0] not in roots:
        raise Permanent(f"The feature function {name!r} must live under {' or '.join(roots)}; move it there.")
    return _get_function(_import_module(module, name), function, name)


def apply(name: str | None, table: pd.DataFrame, roots: tuple[str, ...] = FEATURE_ROOTS) -> pd.DataFrame:
    """The table after the feature function, held to its promise: a DataFrame with the same number of rows, of columns
    with a name each and no infinity. What the function does to the table it gets changes nobody else's."""
    function = resolve(name, roots)
    if name is None:
        return table
    try:
        features = function(table.copy())
    except Exception as error:  # the project's own code, which may raise anything
        raise Permanent(f"The feature function {name!r} fails: {type(error).__name__}: {error}.") from error
    if not isinstance(features, pd.DataFrame):
        raise Permanent(f"The feature function {name!r} returned {type(features).__name__}; return a DataFrame.")
    if len(features) != len(table):
        raise Permanent(f"The feature function {name!r} made {len(features)} rows of {len(table)}; keep every row.")
    _check_columns(name, features)
    return features


def check_row_wise(name: str | None, table: pd.DataFrame, roots: tuple[str, ...] = FEATURE_ROOTS) -> None:
    """Raises `Permanent` when the function gives a row something else backwards, beside half of the rows, or alone."""
    if name is None or table.empty:
        return
    whole = apply(name, table, roots).reset_index(drop=True)
    alone = np.unique(np.linspace(0, len(table) - 1, ROWS_ALONE).astype(int)).tolist()
    for positions in (*list_groupings(len(table), alone=0)[1:], *([position] for position in alone)):
        own = apply(name, table.iloc[positions].reset_index(drop=True), roots).reset_index(drop=True)
        column = _find_difference(whole.iloc[positions].reset_index(drop=True), own)
        if column is not None:
            raise Permanent(
                f"What the feature function {name!r} gives for a row depends on the rows beside it (column "
                f"{column!r}); compute every row from that row alone, since a server is asked one row at a time."
            )


def _check_columns(name: str, features: pd.DataFrame) -> None:
    odd = [column for column in features if not isinstance(column, str)] + [
        *features.columns[features.columns.duplicated()]
    ]
    if odd or features.columns.empty:
        seen = f"the column name {odd[0]!r}" if odd else "no column"
        raise Permanent(f"The feature function {name!r} returned {seen}; give every column a text of its own as name.")
    for column in features.select_dtypes("number"):
        if np.isinf(features[column].to_numpy(dtype=np.float64, na_value=np.nan)).any():
            raise Permanent(
                f"The feature function {name!r} gives infinity in column {column!r}; let it give a missing value where "
                "there is no number, such as after a division by zero."
            )


def _find_difference(expected: pd.DataFrame, actual: pd.DataFrame) -> object:
    """The first column that is not the same in both; None where all are. The last bits of a number may differ."""
    if list(expected) != list(actual):
        return next(iter(expected.columns.symmetric_difference(actual.columns)), expected.columns[0])
    return next((name for name in expected if not _is_same(expected[name], actual[name])), None)


def _is_same(expected: pd.Series, actual: pd.Series) -> bool:
    if pd.api.types.is_numeric_dtype(expected):
        numbers, again = (
            pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan)
            for values in (expected, actual)
        )
        return bool(np.isclose(numbers, again, rtol=1e-9, atol=1e-12, equal_nan=True).all())
    return bool((expected.astype(object).fillna("").map(str) == actual.astype(object).fillna("").map(str)).all())


def _return_unchanged(table: pd.DataFrame) -> pd.DataFrame:
    return table


def _import_module(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Permanent(f"The feature function {name!r} cannot be imported: {error}.") from error


def _get_function(module: Any, function: str, name: str) -> FeatureFunction:
    candidate = getattr(module, function, None)
    if not inspect.isfunction(candidate) or candidate.__module__ != module.__name__:
        raise Permanent(f"The feature function {name!r} is not a function defined in {module.__name__}.")
    return candidate
