"""Which columns moved a score, and by how much: SHAP values from what the artifact keeps for it (see explanation).

A linear model is explained in closed form, with numpy alone. Trees and everything else go through shap, whose import
costs seconds and 250 MB: it is imported where such an explainer is made, which in production is a process of its own.

What is explained is always compared with the model that serves: TreeExplainer takes a categorical split for a number,
is then wrong by ten log-odds, and does not say so. Contributions that do not add up to the score are no explanation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from include.kernel.errors import ArtifactRejected, Permanent
from include.model.artifact import ArtifactMeta, CompiledModel, Files, Model, ServableModel
from include.model.calibration import MIN_PROBABILITY, Calibration, compute_log_odds
from include.model.explanation import explanation
from include.model.explanation.explanation import Explanation
from include.model.schema import build_frame

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]
AnswerSpace = Literal["log_odds", "probability", "score_log_odds", "score"]
ADDITIVE_TOLERANCE = 1e-6
SATURATED_LOG_ODDS = 20.0  # log-odds beyond which a float64 probability no longer tells them
SAMPLED_ORDERS = 8  # sampled orders, each walked both ways; exact for interactions of two columns from the first one on
SEED = 0


class NotAdditive(Permanent):
    """The contributions do not add up to the score: a fault, never shown as an explanation."""


class TooLarge(Permanent):
    """A row's numbers are beyond what can be added up."""


@dataclass(frozen=True)
class Attribution:
    """`base` + the sum of a row of `contributions` (n, input columns) is the raw score, in the explanation's space.

    `score` (n,) is what the model itself computed, as a probability before calibration.
    """

    base: float
    contributions: Floats
    score: Floats


@dataclass(frozen=True)
class RowExplanation:
    """One row as it is answered. `space` says what `base` + the sum of `contributions` is:

    log_odds        the log-odds of the served probability       score_log_odds  the log-odds of the score before
    probability     the served probability                       score           the score before calibration
    """

    space: AnswerSpace
    base: float
    contributions: dict[str, float]


class Explainer(Protocol):
    def __call__(self, rows: Rows) -> Attribution: ...


def build_explainer(files: Files, model: Model) -> Explainer:
    """For the artifact of these files, which holds `model`. Raises `ArtifactRejected`."""
    document = explanation.read(files)
    if document is None:
        raise ArtifactRejected(describe_missing(model.meta.name))
    if isinstance(model, CompiledModel):
        if document.method == "linear":
            return LinearExplainer(document, model)
        if document.method == "trees":
            return TreeExplainer(document, model, files)
    if document.method != "permutation" or not document.background:
        raise ArtifactRejected(
            f"{explanation.EXPLANATION_FILE} does not fit the model beside it; train the model again."
        )
    return PermutationExplainer(document, model)


def describe_missing(name: str) -> str:
    return f"The artifact of {name} holds no {explanation.EXPLANATION_FILE}; train the model again and release it."


class LinearExplainer:
    """Coefficient times (value - mean): SHAP of a linear model whose columns count as independent."""

    def __init__(self, document: Explanation, model: CompiledModel) -> None:
        self._model = model
        self._owned = explanation.build_ownership_matrix(model.encoder.owners, _list_column_names(model.meta))
        self._weights, self._means = np.array(document.coefficients), np.array(document.means)
        if not len(self._weights) == len(self._means) == len(self._owned):
            raise ArtifactRejected(
                f"{explanation.EXPLANATION_FILE} has another width than the model; train the model again."
            )
        self._base = document.offset + float(self._weights @ self._means)

    def __call__(self, rows: Rows) -> Attribution:
        matrix = self._model.encoder.encode_rows(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            moved = ((matrix - self._means) * self._weights) @ self._owned
        if not np.isfinite(moved).all():
            raise TooLarge("A number of the row is too large to be explained; send one that can be true.")
        return Attribution(self._base, moved, self._model.score_matrix(matrix))


class TreeExplainer:
    """Path-dependent TreeSHAP (Lundberg et al. 2020, algorithm 2) by shap's compiled code."""

    def __init__(self, document: Explanation, model: CompiledModel, files: Files) -> None:
        import shap

        self._model, self._owned = (
            model,
            explanation.build_ownership_matrix(model.encoder.owners, _list_column_names(model.meta)),
        )
        trees = explanation.read_tables(files, len(self._owned))
        ensemble = {
            "trees": [_rename_for_shap(tree) for tree in trees],
            "base_offset": document.offset,
            "internal_dtype": np.float64,
            "input_dtype": model.encoder.dtype.type,
        }
        self._shap = shap.TreeExplainer(ensemble, feature_perturbation="tree_path_dependent")
        self._base = float(np.ravel(self._shap.expected_value)[0])

    def __call__(self, rows: Rows) -> Attribution:
        matrix = self._model.encoder.encode_rows(rows)
        shap_values = self._shap.shap_values(matrix, check_additivity=False)  # `build_explanations` is stricter
        return Attribution(self._base, shap_values @ self._owned, self._model.score_matrix(matrix))


def _rename_for_shap(tree: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    children = {f"children_{name}": tree[name] for name in ("left", "right", "default")}
    plain = {name: tree[name] for name in ("features", "thresholds")}
    return {**children, **plain, "values": tree["values"][:, None], "node_sample_weight": tree["weights"]}


class PermutationExplainer:
    """By sampled orders (Lundberg and Lee 2017): columns become known one after the other, and what each moves counts.

    The players are the input columns by name, so neither a column's place nor how it is encoded changes what it is
    given, and all rows see the same orders. Additive by construction: each order begins at the background and ends at
    the row.
    """

    def __init__(self, document: Explanation, model: Model) -> None:
        self._columns = _list_column_names(model.meta)
        self._by_name = np.argsort(np.array(self._columns))
        self._log_odds = document.space == "log_odds"
        self._game: _Game = (
            _MatrixGame(model, document) if isinstance(model, CompiledModel) else _FrameGame(model, document)
        )

    def __call__(self, rows: Rows) -> Attribution:
        explained = [self._explain_row(row) for row in rows]
        bases, moved, scores = zip(*explained, strict=True)
        return Attribution(bases[0], np.stack(moved), np.array(scores))

    def _explain_row(self, row: Mapping[str, Any]) -> tuple[float, Floats, float]:
        import shap

        prepared_row, size = self._game.prepare_row(row), len(self._columns)
        masker = shap.maskers.Independent(np.zeros((1, size)), max_samples=1)
        made = shap.PermutationExplainer(lambda known: self._compute_value(prepared_row, known), masker, seed=SEED)
        explained = made(np.ones((1, size)), max_evals=SAMPLED_ORDERS * (2 * size + 1), silent=True)
        moved = np.empty(size)
        moved[self._by_name] = explained.values[0]
        score = self._game.score_coalitions(prepared_row, np.ones((1, size), dtype=bool))
        return float(np.ravel(explained.base_values)[0]), moved, float(score[0, 0])

    def _compute_value(self, prepared_row: Any, known: Floats) -> Floats:
        """The mean over the background of the score, in the space, for sets of known players (m, columns): (m,)."""
        masks = np.zeros(known.shape, dtype=bool)
        masks[:, self._by_name] = known > 0
        scores = self._game.score_coalitions(prepared_row, masks)
        values: Floats = (compute_log_odds(scores) if self._log_odds else scores).mean(axis=1)
        return values


class _Game(Protocol):
    """A row of which some columns are known, the others taken from each row of the background."""

    def prepare_row(self, row: Mapping[str, Any]) -> Any: ...
    def score_coalitions(self, prepared_row: Any, masks: NDArray[np.bool_]) -> Floats:
        """For masks (m, columns) the raw scores (m, rows of the background)."""
        ...


class _MatrixGame:
    """On the matrix a compiled model reads."""

    def __init__(self, model: CompiledModel, document: Explanation) -> None:
        self._model = model
        self._background = model.encoder.encode_rows(document.background)
        self._owner = np.argmax(
            explanation.build_ownership_matrix(model.encoder.owners, _list_column_names(model.meta)), axis=1
        )

    def prepare_row(self, row: Mapping[str, Any]) -> NDArray[Any]:
        return self._model.encoder.encode_rows([row])

    def score_coalitions(self, prepared_row: NDArray[Any], masks: NDArray[np.bool_]) -> Floats:
        mixed = np.where(masks[:, None, self._owner], prepared_row[None], self._background[None])
        return self._model.score_matrix(mixed.reshape(-1, mixed.shape[2])).reshape(mixed.shape[:2])


class _FrameGame:
    """On a DataFrame, for a pipeline that serves by itself, also behind a feature function."""

    def __init__(self, model: Model, document: Explanation) -> None:
        if not isinstance(model, ServableModel):
            raise ArtifactRejected("This form of a model cannot be explained; train the model again.")
        self._model, self._background = model, document.background

    def prepare_row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return row

    def score_coalitions(self, prepared_row: Mapping[str, Any], masks: NDArray[np.bool_]) -> Floats:
        names = _list_column_names(self._model.meta)
        mixed = [
            {
                name: prepared_row.get(name) if known else other.get(name)
                for name, known in zip(names, mask, strict=True)
            }
            for mask in masks
            for other in self._background
        ]
        return self._model.score_frame(build_frame(mixed, self._model.meta.columns)).reshape(len(masks), -1)


def build_explanations(
    document: Explanation, meta: ArtifactMeta, attribution: Attribution, served: Sequence[float]
) -> list[RowExplanation]:
    """The rows as they are answered, in the space of the served probabilities (n,) where calibration allows it.

    Raises `NotAdditive` when the contributions miss the score, or the score is not the one that was served.
    """
    columns = _list_column_names(meta)
    rows = attribution.contributions.tolist()
    for row, score, probability in zip(rows, attribution.score.tolist(), served, strict=True):
        _check_sum(document, attribution.base, row, score)
        _check_served(meta.calibration, score, probability, max(ADDITIVE_TOLERANCE, document.precision))
    space, slope, shift = _choose_space(document, meta.calibration)
    base = slope * attribution.base + shift
    return [
        RowExplanation(space, base, {name: slope * value for name, value in zip(columns, row, strict=True)})
        for row in rows
    ]


def _choose_space(document: Explanation, calibration: Calibration) -> tuple[AnswerSpace, float, float]:
    """What the answer adds up to, and the straight line that leads there from the raw score's space."""
    if calibration.method == "none":
        return document.space, 1.0, 0.0
    if document.space == "probability":
        return "score", 1.0, 0.0
    if calibration.method == "sigmoid":  # a straight line on the log-odds
        return "log_odds", calibration.slope, calibration.intercept
    return "score_log_odds", 1.0, 0.0


def _check_sum(document: Explanation, base: float, row: Sequence[float], score: float) -> None:
    total = base + math.fsum(row)
    if document.space == "probability":
        distance, allowed = abs(total - score), ADDITIVE_TOLERANCE + document.precision
    elif abs(total) <= SATURATED_LOG_ODDS:
        clipped = min(max(score, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
        distance = abs(total - math.log(clipped / (1 - clipped)))
        allowed = ADDITIVE_TOLERANCE + document.precision / (
            clipped * (1 - clipped)
        )  # what rounding a probability does to log-odds
    else:
        distance, allowed = abs(_compute_sigmoid(total) - score), ADDITIVE_TOLERANCE + document.precision
    if not distance <= allowed:  # written so that NaN counts as apart
        raise NotAdditive(
            f"The contributions of a row miss the model's score by {distance:.2g}, so they are not shown."
        )


def _check_served(calibration: Calibration, score: float, served: float, tolerance: float) -> None:
    """Calibration is monotone and may be steep: a score within the tolerance may become any probability between."""
    low, high = sorted(calibration(np.array([score - tolerance, score + tolerance]).clip(0, 1)).tolist())
    if not low - tolerance <= served <= high + tolerance:
        raise NotAdditive(
            f"The explained score belongs to a probability {min(abs(served - low), abs(served - high)):.2g} from the "
            "one that was served, so it is not shown."
        )


def _compute_sigmoid(total: float) -> float:
    return 1 / (1 + math.exp(-total)) if total > 0 else 1 - 1 / (1 + math.exp(min(total, 700)))


def _list_column_names(meta: ArtifactMeta) -> list[str]:
    return [column.name for column in meta.columns]
