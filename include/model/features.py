"""The project's own feature function, called by the same code in training and in the server.

A function inside the saved pipeline would be a type the loader must not trust. So the artifact carries only its name,
"module:function", and both sides resolve that name in their own checkout. The trade-off: the server image needs the
module. A name from a file must not run just any code: only functions defined under FEATURE_ROOTS are called.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pandas as pd

from include.kernel.errors import Permanent

FeatureFunction = Callable[[pd.DataFrame], pd.DataFrame]
FEATURE_ROOTS: tuple[str, ...] = ("include",)


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
    """The table after the feature function, held to its promise: a DataFrame with the same number of rows."""
    features = resolve(name, roots)(table)
    if not isinstance(features, pd.DataFrame):
        raise Permanent(f"The feature function {name!r} returned {type(features).__name__}; return a DataFrame.")
    if len(features) != len(table):
        raise Permanent(f"The feature function {name!r} made {len(features)} rows of {len(table)}; keep every row.")
    return features


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
