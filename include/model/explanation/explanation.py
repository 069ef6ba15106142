"""What an artifact keeps so that its predictions can be explained: tables, means or one row, and nothing that runs.

    linear       coefficients and the means of the encoded columns: SHAP of a linear model in closed form
    trees        the nodes with the number of training rows that reached each (path-dependent TreeSHAP); log-odds for
                 boosting, the share of votes for a forest
    permutation  a row that stands for "not known": for networks and for any pipeline behind code of its own

The row is made of each column's median or most frequent value, so it is nobody's; real rows are kept only when the
manifest asks for them (`train.explain_background`). The runtimes' own files lack what TreeSHAP weighs by, so the trees
stand in the artifact twice: some hundred kilobytes. The server holds every answer's sum to its score (see attribution).
"""

import io
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.kernel.errors import ArtifactRejected
from include.model import artifact
from include.model.artifact import CompiledModel, Files, ServableModel
from include.model.schema import Column, is_missing

EXPLANATION_FILE, TABLES_FILE = "explanation.json", "explanation.npz"
Row = dict[str, float | str | None]
Tables = dict[str, NDArray[Any]]
Space = Literal["log_odds", "probability"]
EXACT_PRECISION = 1e-15  # float64 throughout
NODE_FIELDS = ("left", "right", "default", "features", "thresholds", "values", "weights")  # one entry a node
POINTER_FIELDS = NODE_FIELDS[:4]  # whole numbers, which compiled code follows unchecked


class Explanation(BaseModel):
    """The content of explanation.json. Contributions add up to the score before calibration, in `space`.

    `coefficients` and `means` have one entry for each encoded column, `background` at least one row of input columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    method: Literal["linear", "trees", "permutation"]
    space: Space
    reference: str = Field(description="what the base value stands for, in words")
    precision: float = Field(
        EXACT_PRECISION, ge=0, description="how far an explained score may lie from the model's own"
    )
    offset: float = Field(0.0, description="linear: the intercept; trees: what is added to the sum of the trees")
    coefficients: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    background: tuple[Row, ...] = ()


def write(model: ServableModel, directory: Path, inputs: Any, sample: int = 0, seed: int = 0) -> Explanation:
    """Adds to the artifact in `directory` what explains it; its digest changes.

    `inputs` is the table of input columns (pandas) the reference is taken from; `sample` real rows of it are kept for
    a permutation, none at 0.
    """
    saved = artifact.load(directory)
    document, tables = _explain_exactly(model.pipeline, saved, inputs) or (
        _explain_permutation(model, saved, inputs, sample, seed),
        {},
    )
    (directory / EXPLANATION_FILE).write_text(document.model_dump_json(indent=1) + "\n")
    if tables:
        np.savez_compressed(directory / TABLES_FILE, allow_pickle=False, **tables)
    return document


def read(files: Files) -> Explanation | None:
    """None for an artifact that keeps nothing to explain it. Raises `ArtifactRejected`."""
    if EXPLANATION_FILE not in files:
        return None
    try:
        return Explanation.model_validate_json(files[EXPLANATION_FILE])
    except ValidationError as error:
        raise ArtifactRejected(f"{EXPLANATION_FILE} cannot be read; train the model again.") from error


def read_tables(files: Files, width: int) -> list[Tables]:
    """The trees, each checked so that no node points outside of its tree. Raises `ArtifactRejected`."""
    try:
        with np.load(io.BytesIO(files[TABLES_FILE]), allow_pickle=False) as file:
            tables = {name: file[name] for name in ("starts", *NODE_FIELDS)}
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise ArtifactRejected(f"{TABLES_FILE} cannot be read; train the model again.") from error
    starts = tables.pop("starts")
    trees = [{name: tables[name][a:b] for name in NODE_FIELDS} for a, b in pairwise(starts)]
    if not trees or not all(_is_sound(tree, width) for tree in trees):
        raise ArtifactRejected(f"{TABLES_FILE} holds a tree whose nodes point outside of it; train the model again.")
    return trees


def _is_sound(tree: Tables, width: int) -> bool:
    """Children lie inside and behind their parent, all nodes have all entries, a column asked is one of `width`."""
    sizes = {table.shape for table in tree.values()}
    if len(sizes) != 1 or min(sizes) < (1,) or any(tree[name].dtype.kind != "i" for name in POINTER_FIELDS):
        return False
    inner = tree["left"] != -1
    children = np.stack([tree[name][inner] for name in ("left", "right")])
    inside = (children > np.flatnonzero(inner)).all() and (children < len(inner)).all()
    default = (tree["default"][inner] == children).any(axis=0).all()
    asked, weighed = tree["features"][inner], (tree["weights"] > 0).all()
    leaves = all((tree[name][~inner] == -1).all() for name in ("right", "default"))
    known = ((asked >= 0) & (asked < width)).all()
    return bool(inside and default and leaves and weighed and known)


def _explain_exactly(pipeline: Any, saved: Any, inputs: Any) -> tuple[Explanation, Tables] | None:
    """What explains a compiled model by its own structure; None where there is no such way."""
    if not isinstance(saved, CompiledModel):
        return None
    estimator = pipeline.steps[-1][1]
    for kind in type(estimator).__mro__:
        if kind.__name__ in BUILDERS:
            return BUILDERS[kind.__name__](estimator, saved, inputs)
    return None


def _explain_linear(estimator: Any, saved: CompiledModel, inputs: Any) -> tuple[Explanation, Tables]:
    parts = saved.encoder.iterate_frame(inputs)
    return Explanation(
        method="linear",
        space="log_odds",
        reference="the mean of the training rows",
        offset=float(estimator.intercept_[0]),
        coefficients=tuple(estimator.coef_[0].tolist()),
        means=tuple((sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(inputs)).tolist()),
    ), {}


def _explain_boosting(estimator: Any, saved: CompiledModel, _: Any) -> tuple[Explanation, Tables] | None:
    nodes = [trees[0].nodes for trees in estimator._predictors]
    if any(tree["is_categorical"].any() for tree in nodes):
        return None  # TreeSHAP takes such a split for a number, and the sum is far off
    offset = float(np.ravel(estimator._baseline_prediction)[0])
    return _describe_trees("log_odds", saved, offset), _join_trees([_read_boosted_tree(tree) for tree in nodes])


def _read_boosted_tree(nodes: Any) -> Tables:
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, -1, nodes[name].astype(np.int32)) for name in ("left", "right"))
    return {
        "left": left,
        "right": right,
        "default": np.where(nodes["missing_go_to_left"].astype(bool), left, right),
        "features": np.where(leaf, -2, nodes["feature_idx"].astype(np.int32)),
        "thresholds": nodes["num_threshold"],
        "values": nodes["value"],
        "weights": nodes["count"],
    }


def _explain_forest(estimator: Any, saved: CompiledModel, _: Any) -> tuple[Explanation, Tables]:
    trees = [one.tree_ for one in estimator.estimators_]
    return _describe_trees("probability", saved), _join_trees(
        [_read_forest_tree(tree, 1 / len(trees)) for tree in trees]
    )


def _read_forest_tree(tree: Any, share: float) -> Tables:
    leaf = tree.children_left == -1
    left, right = tree.children_left, tree.children_right
    votes = tree.value[:, 0, :]
    return {
        "left": left,
        "right": right,
        "default": np.where(tree.missing_go_to_left.astype(bool) & ~leaf, left, right),
        "features": tree.feature,
        "thresholds": tree.threshold,
        "values": votes[:, 1] / votes.sum(axis=1) * share,
        "weights": tree.weighted_n_node_samples,
    }


def _describe_trees(space: Space, saved: CompiledModel, offset: float = 0.0) -> Explanation:
    precision = EXACT_PRECISION if saved.encoder.dtype == np.float64 else saved.meta.tolerance
    reference = "the mean of the training rows"
    return Explanation(method="trees", space=space, reference=reference, precision=precision, offset=offset)


def _join_trees(trees: Sequence[Tables]) -> Tables:
    """All trees one behind the other; `starts` (trees + 1) says where each begins. Pointers stay those of its tree."""
    kinds = {name: np.int32 if name in POINTER_FIELDS else np.float64 for name in NODE_FIELDS}
    tables = {name: np.concatenate([tree[name] for tree in trees]).astype(kind) for name, kind in kinds.items()}
    return tables | {"starts": np.cumsum([0, *(len(tree["left"]) for tree in trees)])}


BUILDERS: dict[str, Callable[[Any, CompiledModel, Any], tuple[Explanation, Tables] | None]] = {
    "HistGradientBoostingClassifier": _explain_boosting,
    "LogisticRegression": _explain_linear,
    "RandomForestClassifier": _explain_forest,
}


def _explain_permutation(model: ServableModel, saved: Any, inputs: Any, sample: int, seed: int) -> Explanation:
    """Log-odds where the model itself adds up in them; votes of a forest may be 0 or 1, whose log-odds are infinite."""
    estimator = model.pipeline.steps[-1][1] if hasattr(model.pipeline, "steps") else model.pipeline
    additive = isinstance(saved, CompiledModel) or hasattr(estimator, "decision_function")
    rows = (
        _sample_rows(inputs, saved.meta.columns, sample, seed)
        if sample
        else [build_typical_row(inputs, saved.meta.columns)]
    )
    return Explanation(
        method="permutation",
        space="log_odds" if additive else "probability",
        reference=f"{len(rows)} training rows" if sample else "a row of each column's median or most frequent value",
        precision=saved.meta.tolerance,
        background=tuple(rows),
    )


def build_typical_row(inputs: Any, columns: Sequence[Column]) -> Row:
    """Median or most frequent value of each column by itself; None where a column has no value."""
    return {
        column.name: _choose_typical_value(inputs[column.name].tolist(), column.kind == "number") for column in columns
    }


def _choose_typical_value(values: Sequence[Any], number: bool) -> float | str | None:
    known = [value for value in values if not is_missing(value)]
    if not known:
        return None
    if number:
        return float(np.median(known))
    counts = Counter(known)
    return str(min(counts, key=lambda value: (-counts[value], value)))


def _sample_rows(inputs: Any, columns: Sequence[Column], sample: int, seed: int) -> list[Row]:
    chosen = np.random.default_rng(seed).choice(len(inputs), min(sample, len(inputs)), replace=False)
    rows = inputs.iloc[np.sort(chosen)][[column.name for column in columns]].astype(object).to_dict("records")
    return [{name: _replace_missing(value) for name, value in row.items()} for row in rows]


def _replace_missing(value: Any) -> Any:
    return None if is_missing(value) else value


def build_ownership_matrix(owners: Sequence[str], columns: Sequence[str]) -> NDArray[np.float64]:
    """(encoded columns, input columns) of 0 and 1: a matrix of contributions times this is one by input column."""
    return np.array([[owner == column for column in columns] for owner in owners], dtype=np.float64)
