"""Fits one candidate: out-of-fold scores, calibration, the decision threshold's check, and the model on all rows.

Everything a candidate is compared by comes from cross-validation on the training days. The holdout is the gate's, and
the calibration days, where the manifest sets some aside, only calibrate.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold

from include.data.dataset import LabelledRows
from include.gate.core import gate
from include.kernel.errors import NotEnoughData, Permanent, Temporary
from include.kernel.work_units import Shard
from include.model import calibration, pipelines
from include.model.calibration import Calibration
from include.model.features import apply
from include.model.schema import Column, describe
from include.training.core import training_rows
from include.training.core.search import Study
from include.training.spec import TrainingManifest

log = logging.getLogger(__name__)
FOLDS = 5
Floats = NDArray[np.float64]
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


class CandidateFailed(Permanent):
    """One candidate cannot be trained; the others may."""


@dataclass(frozen=True)
class Prepared:
    """What every candidate is fitted on: inputs after the feature function, classes (n,), the folds, the columns that
    hold a value, and the names of those that are left out since they hold none."""

    inputs: Any
    classes: NDArray[np.int_]
    folds: list[Fold]
    columns: tuple[Column, ...]
    empty: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, Floats]:
        return {c.name: self.inputs[c.name].to_numpy(np.float64) for c in self.columns if c.kind == "number"}


@dataclass(frozen=True)
class TunedParams:
    """The parameters a candidate is fitted with, and every finished trial that led there."""

    params: dict[str, Any]
    trials: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A fitted pipeline. `out_of_fold` (n,) are calibrated probabilities of the training rows, by models that did not
    see them."""

    kind: str
    tuned: TunedParams
    pipeline: Any
    calibration: Calibration
    out_of_fold: Floats
    metrics: dict[str, float]


def fit_candidate(
    kind: str,
    manifest: TrainingManifest,
    rows: LabelledRows,
    later: LabelledRows | None,
    tuned: TunedParams | None = None,
) -> Candidate:
    """`later` are the rows that calibrate; without them the out-of-fold scores do. Not tuned: as the manifest says."""
    spec = manifest.train
    tuned = tuned or TunedParams(dict(spec.candidates[kind]))
    prepared = prepare(kind, manifest, rows)
    pipeline = pipelines.build(kind, prepared.columns, tuned.params, spec.seed)
    raw = predict_out_of_fold(pipeline, prepared.inputs, prepared.classes, prepared.folds)
    if bad := int(np.sum(~np.isfinite(raw))):
        raise Permanent(f"it gives no number for {bad} of {len(raw)} rows, so its training diverged")
    pipeline.fit(prepared.inputs, prepared.classes)
    calibrator = _fit_calibration(pipeline, raw, manifest, rows, later)
    held = [test for _, test in prepared.folds]
    scores = calibrator(raw) if later else calibration.fit_across(spec.calibration, raw, rows.truth, held)
    metrics = _compute_metrics(manifest, rows.truth, raw, scores, held)
    log.info("%s: %s", kind, ", ".join(f"{name[3:]} {metrics[name]:.4f}" for name in LOGGED_METRICS))
    return Candidate(kind, tuned, pipeline, calibrator, scores, metrics)


def prepare(kind: str | None, manifest: TrainingManifest, rows: LabelledRows) -> Prepared:
    """Raises `NotEnoughData` for too few rows of a class, or no value at all; of a `kind` that scales its numbers also
    `Permanent`, for one of them that dwarfs the rest."""
    training_rows.check_classes(rows.truth, FOLDS)
    inputs, classes = apply(manifest.train.features, rows.inputs), rows.truth.astype(int)
    folds = list(split_folds(classes, manifest.train.seed))
    empty = training_rows.find_empty({str(name): inputs[name].isna().to_numpy() for name in inputs}, folds)
    columns = tuple(column for column in describe(inputs) if column.name not in empty)
    if not columns:
        raise NotEnoughData(f"None of the inputs holds enough values to train on: {', '.join(empty)} are missing.")
    prepared = Prepared(inputs, classes, folds, columns, tuple(empty))
    if kind in pipelines.SCALED and (problem := training_rows.describe_dominated(prepared.numbers)):
        raise Permanent(problem)
    return prepared


@contextmanager
def explain_failure(kind: str) -> Iterator[None]:
    """Whatever a candidate's libraries raise comes out as `CandidateFailed`; what another try may mend stays."""
    try:
        yield
    except (Temporary, OSError, MemoryError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, Permanent) else f"{type(error).__name__}: {error}"
        sentence = " ".join(reason.split()).rstrip(".")
        raise CandidateFailed(f"The candidate {kind!r} cannot be trained: {sentence}.") from error


def search_params(kind: str, manifest: TrainingManifest, rows: LabelledRows, journal: Path, shard: Shard) -> Study:
    """One study of a candidate, by the Brier score on the folds that judge every candidate; kept in `journal`."""
    from include.training import tuning

    spec = manifest.train
    prepared = prepare(kind, manifest, rows)
    inputs, classes = prepared.inputs, prepared.classes

    def iterate_losses(params: dict[str, Any]) -> Iterator[float]:
        pipeline = pipelines.build(kind, prepared.columns, params, spec.seed)
        for train, test in prepared.folds:
            yield float(np.mean((score_fold(pipeline, inputs, classes, train, test) - classes[test]) ** 2))

    return tuning.tune(kind, dict(spec.candidates[kind]), spec.tuning, spec.seed, journal, iterate_losses, shard)


LOGGED_METRICS = ("cv_auc", "cv_brier", "cv_cost")


def split_folds(classes: NDArray[np.int_], seed: int) -> Any:
    """Stratified folds, (train, test) positions; the same for every candidate and trial of one training."""
    return StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(classes)), classes)


def predict_out_of_fold(pipeline: Any, inputs: Any, classes: NDArray[np.int_], folds: list[Fold]) -> Floats:
    """Scores (n,) of every row by a model that did not see it."""
    scores = np.empty(len(classes))
    for train, test in folds:
        scores[test] = score_fold(pipeline, inputs, classes, train, test)
    return scores


def score_fold(
    pipeline: Any, inputs: Any, classes: NDArray[np.int_], train: NDArray[np.intp], test: NDArray[np.intp]
) -> Floats:
    fitted = clone(pipeline).fit(inputs.iloc[train], classes[train])
    return np.asarray(fitted.predict_proba(inputs.iloc[test]), dtype=np.float64)[:, 1]


def _fit_calibration(
    pipeline: Any, raw: Floats, manifest: TrainingManifest, rows: LabelledRows, later: LabelledRows | None
) -> Calibration:
    if later is None:
        return calibration.fit(manifest.train.calibration, raw, rows.truth)
    scores = np.asarray(pipeline.predict_proba(apply(manifest.train.features, later.inputs)), dtype=np.float64)[:, 1]
    return calibration.fit(manifest.train.calibration, scores, later.truth)


def _compute_metrics(
    manifest: TrainingManifest, truth: Floats, raw: Floats, scores: Floats, held: list[NDArray[np.intp]]
) -> dict[str, float]:
    """Of the calibrated probabilities; beside them the Brier score before calibration, and what the threshold costs."""
    metrics = {f"cv_{name}": value for name, value in gate.compute_metrics(truth, scores, manifest.gate).items()}
    areas = gate.compute_fold_aucs(truth, scores, held)
    folded = {f"cv_auc_fold_{number}": area for number, area in enumerate(areas, 1)}  # the gate asks how they differ
    best, lowest = find_cheapest_threshold(truth, scores, manifest)
    uncalibrated = {"cv_brier_uncalibrated": float(np.mean((raw - truth) ** 2))}
    return metrics | folded | uncalibrated | {"cv_best_threshold": best, "cv_cost_at_best_threshold": lowest}


def find_cheapest_threshold(truth: Floats, scores: Floats, manifest: TrainingManifest) -> tuple[float, float]:
    """The threshold that would have cost least on these rows, and that cost per row.

    The model decides by the threshold that follows from the costs (Elkan 2001, eq. 2), which is right for calibrated
    probabilities; the best one in hindsight shows how far the data disagree. It is logged and never served: chosen on
    the rows it is judged by, it would flatter itself.
    """
    spec, order = manifest.gate.cost, np.argsort(scores, kind="stable")
    approved_bad = np.r_[0, np.cumsum(truth[order])] * spec.false_approval
    denied_good = (np.sum(1 - truth) - np.r_[0, np.cumsum(1 - truth[order])]) * spec.false_denial
    total = approved_bad + denied_good
    cut = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0, True])  # equal scores are decided alike
    at = cut[np.argmin(total[cut])]
    threshold = scores[order][at] if at < len(scores) else 1.0
    return float(threshold), float(total[at] / len(scores))
