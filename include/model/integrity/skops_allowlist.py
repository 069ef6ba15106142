"""What a model file may contain: our own list of types, and bounds for what the types alone cannot promise.

skops asks "is this type harmless in general"; we ask "does one of our pipelines need it". The file's own declaration
is read first, before anything is built from it, then skops checks again with nothing but the list below. Both matter:
the list is ours, the audit knows how each type is really constructed.

A tree's nodes are indices that compiled code follows unchecked, which is why skops trusts no tree. We allow the trees
of boosting and of forests and check every index: a crafted file is refused instead of reading foreign memory or looping
for ever.
Adding a pipeline means adding its types here.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import skops.io as sio
from numpy.typing import NDArray

from include.kernel.errors import ArtifactRejected

TREE_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
TREE = "sklearn.tree._tree.Tree"

# what skops does not trust by itself, and we do
EXTRA_ALLOWED_TYPES = ("numpy.dtype", TREE_PREDICTOR, TREE)

ALLOWED_TYPES = frozenset(
    {
        "builtins.bool",
        "builtins.dict",
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "numpy.bool",
        "numpy.float64",
        "numpy.int64",
        "numpy.ndarray",
        "numpy.random._generator.Generator",
        "numpy.uint64",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "sklearn.ensemble._forest.RandomForestClassifier",
        "sklearn.impute._base.MissingIndicator",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.MinMaxScaler",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
        "sklearn.preprocessing._encoders.OrdinalEncoder",
        "sklearn.preprocessing._function_transformer.FunctionTransformer",
        "sklearn.preprocessing._label.LabelEncoder",
        "sklearn.tree._classes.DecisionTreeClassifier",
        *EXTRA_ALLOWED_TYPES,
    }
)


class Nodes(NamedTuple):
    """A tree as parallel arrays, one entry a node."""

    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    leaf: NDArray[np.bool_]


def read(data: bytes) -> Any:
    """The model in these bytes, or `ArtifactRejected` with one sentence. Never pickle."""
    check(data)
    try:
        model = sio.loads(data, trusted=list(EXTRA_ALLOWED_TYPES))
    except Exception as error:  # a crafted file may fail anywhere inside skops or numpy
        raise ArtifactRejected(f"The model file cannot be read: {_read_first_line(error)}.") from error
    for trees, features in _iterate_forests(model):
        for tree in trees:
            _check_bounds(tree, features)
    return model


def check(data: bytes) -> None:
    """Raises `ArtifactRejected` when the file asks for a type that is not allowed."""
    foreign = sorted(_read_declared_types(data) - ALLOWED_TYPES)
    if foreign:
        raise ArtifactRejected(f"The model file asks for the type {foreign[0]}, which is not allowed.")
    try:
        untrusted = set(sio.get_untrusted_types(data=data)) - set(EXTRA_ALLOWED_TYPES)
    except Exception as error:
        raise ArtifactRejected(f"The model file cannot be read: {_read_first_line(error)}.") from error
    if untrusted:
        raise ArtifactRejected(f"The model file asks for the type {min(untrusted)}, which is not allowed.")


def _read_declared_types(data: bytes) -> set[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            schema = json.loads(archive.read("schema.json"))
        return set(_iterate_types(schema))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, NotImplementedError, RuntimeError) as error:
        raise ArtifactRejected("The model file is not in the skops format; save the model again.") from error


def _iterate_types(state: Any) -> Iterator[str]:
    if isinstance(state, dict):
        if "__class__" in state or "__loader__" in state:
            yield f"{state.get('__module__')}.{state.get('__class__')}"
        for value in state.values():
            yield from _iterate_types(value)
    elif isinstance(state, list):
        for value in state:
            yield from _iterate_types(value)


def _iterate_forests(model: Any) -> Iterator[tuple[list[Any], int]]:
    """Every list of trees below a model, each tree as (left, right, feature, leaf), with the number of features."""
    for step in [model, *(part for _, part in getattr(model, "steps", ()))]:
        predictors = getattr(step, "_predictors", None)
        if predictors is not None:
            yield (
                [_read_boosted_nodes(tree.nodes) for iteration in predictors for tree in iteration],
                int(step.n_features_in_),
            )
        if hasattr(step, "estimators_"):
            yield [_read_tree_nodes(tree.tree_) for tree in step.estimators_], int(step.n_features_in_)


def _read_boosted_nodes(nodes: NDArray[Any]) -> Nodes:
    if nodes["is_categorical"].any():
        raise ArtifactRejected("The model file holds a tree with native categories; train the model again.")
    return Nodes(nodes["left"], nodes["right"], nodes["feature_idx"], nodes["is_leaf"].astype(bool))


def _read_tree_nodes(tree: Any) -> Nodes:
    """A node without a left child is a leaf, by what scikit-learn's own descent asks."""
    return Nodes(tree.children_left, tree.children_right, tree.feature, tree.children_left == -1)


def _check_bounds(nodes: Nodes, features: int) -> None:
    """Children lie behind their parent and inside the array; features exist."""
    inner, count = ~nodes.leaf, len(nodes.leaf)
    parents = np.arange(count)[inner]
    children = np.stack([nodes.left[inner], nodes.right[inner]]).astype(np.int64)
    asked = nodes.feature[inner]
    sound = (
        count > 0
        and bool((children > parents).all() and (children < count).all())
        and bool((asked >= 0).all() and (asked < features).all())
    )
    if not sound:
        raise ArtifactRejected("The model file holds a tree whose nodes point outside of it; train the model again.")


def _read_first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
