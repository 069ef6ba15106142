"""What the gate asks about beside the scores, read off the rows: groups, bands, each input alone, the folds of a run.

Only here does the gate's input still know pandas; behind this line there are arrays and names.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from include.data.spec import GroupsSpec
from include.gate.core.checks import Labels
from include.kernel.inference.statistics import Floats
from include.kernel.words.groups import name_bands

FOLD_METRIC_PREFIX = "cv_auc_fold_"


def read_fold_aucs(logged: Mapping[str, float]) -> tuple[float, ...] | None:
    """AUC of each fold, as the training logged it."""
    return tuple(value for name, value in sorted(logged.items()) if name.startswith(FOLD_METRIC_PREFIX)) or None


def assign_groups(inputs: pd.DataFrame, spec: GroupsSpec, names: Iterable[str]) -> dict[str, Labels]:
    """Column -> the group of each row (n,), None where it is missing; numbers by their bands."""
    return {name: _assign_labels(inputs[name], spec.bands.get(name)) for name in names}


def _assign_labels(values: pd.Series, cuts: tuple[float, ...] | None) -> Labels:
    if cuts is None:
        return np.array([None if missing else value for value, missing in zip(values, values.isna(), strict=True)])
    banded: Labels = np.array(name_bands(cuts), dtype=object)[np.digitize(values.to_numpy(), cuts)]
    banded[values.isna().to_numpy()] = None
    return banded


def encode_features(holdout: pd.DataFrame, training: pd.DataFrame, truth: Floats) -> dict[str, Floats]:
    """Every input as one number a row: a category by its rate of positives in training, and what is missing."""
    encoded: dict[str, Floats] = {}
    for name in map(str, holdout):
        encoded[name] = _encode_as_number(holdout[name], training[name], truth)
        if holdout[name].isna().any():
            encoded[f"{name} missing"] = holdout[name].isna().to_numpy().astype(np.float64)
    return encoded


def _encode_as_number(values: pd.Series, training: pd.Series, truth: Floats) -> Floats:
    if pd.api.types.is_numeric_dtype(values):
        return np.asarray(values.fillna(training.median()).fillna(0.0), dtype=np.float64)
    rate = pd.Series(truth).groupby(training.to_numpy()).mean()
    return np.asarray(values.map(rate).fillna(truth.mean()), dtype=np.float64)
