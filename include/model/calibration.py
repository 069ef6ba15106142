"""Calibration as data: a monotone map from a model's score to a probability, small enough to stand in artifact.json.

A gate that compares costs and a threshold derived from costs (Elkan 2001) are only right when 0.2 means "two in ten".
The map is fitted on rows the model was not fitted on: the calibration days, or the out-of-fold scores of the training.

sigmoid: Platt's map (1999) on the log-odds: two numbers, safe from a few hundred rows on, and the identity is among its
members. isotonic: any monotone step-wise map (Zadrozny and Elkan 2002), for some thousand rows and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

Floats = NDArray[np.float64]
Method = Literal["none", "sigmoid", "isotonic"]
MIN_PROBABILITY = 1e-12  # log-odds of 0 and 1 are infinite


class Calibration(BaseModel):
    """sigmoid: 1 / (1 + exp(-(slope * logit(score) + intercept))); isotonic: linear between the points (x, y)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Method = "none"
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _check_points(self) -> Calibration:
        if self.method == "isotonic" and not (len(self.x) == len(self.y) > 0):
            raise ValueError("isotonic needs as many x as y, and at least one")
        if any(b < a for a, b in zip(self.x, self.x[1:], strict=False)) or not all(0 <= y <= 1 for y in self.y):
            raise ValueError("x must not fall and y must lie between 0 and 1")
        return self

    def __call__(self, score: Floats) -> Floats:
        """Probabilities, shape of `score` (n,); NaN stays NaN."""
        if self.method == "none":
            return score
        if self.method == "isotonic":
            return np.interp(score, self.x, self.y)
        probabilities: Floats = 1 / (1 + np.exp(-(self.slope * compute_log_odds(score) + self.intercept)))
        return probabilities


def compute_log_odds(score: Floats) -> Floats:
    clipped = np.minimum(np.maximum(score, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
    odds: Floats = np.log(clipped / (1 - clipped))
    return odds


def fit(method: Method, score: Floats, truth: Floats) -> Calibration:
    """The map of this method for scores (n,) and truth (n,) of 0 and 1; one class alone cannot be calibrated: none."""
    if method == "none" or len(np.unique(truth)) < 2:
        return Calibration()
    return _fit_isotonic(score, truth) if method == "isotonic" else _fit_sigmoid(score, truth)


def fit_across(method: Method, score: Floats, truth: Floats, folds: Sequence[NDArray[np.intp]]) -> Floats:
    """Calibrated out-of-fold scores: each fold by the map of the others, so that no row helps to calibrate itself."""
    calibrated = score.copy()
    for fold in folds:
        rest = np.ones(len(score), dtype=bool)
        rest[fold] = False
        calibrated[fold] = fit(method, score[rest], truth[rest])(score[fold])
    return calibrated


def _fit_sigmoid(score: Floats, truth: Floats) -> Calibration:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf).fit(compute_log_odds(score)[:, None], truth.astype(int))
    return Calibration(method="sigmoid", slope=float(model.coef_[0, 0]), intercept=float(model.intercept_[0]))


def _fit_isotonic(score: Floats, truth: Floats) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, truth)
    x, y = np.asarray(model.X_thresholds_, dtype=float), np.asarray(model.y_thresholds_, dtype=float)
    return Calibration(method="isotonic", x=tuple(x.tolist()), y=tuple(np.clip(y, 0, 1).tolist()))
