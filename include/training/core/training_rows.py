"""What training rows must hold before a library is asked to fit them: it would end in a trace, or in a model that saw
nothing, and say neither why nor where."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from include.kernel.errors import NotEnoughData

DOMINATING_RATIO = 1e9  # how far the farthest number may lie from the median, in spreads of the others
SPREAD_SHARE = 0.9  # of the numbers that are not the median itself; what lies farther is no spread
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def check_classes(truth: NDArray[np.float64], folds: int) -> None:
    """Raises `NotEnoughData` when a class has fewer rows than there are folds."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if min(positive, negative) < folds:
        raise NotEnoughData(
            f"The {len(truth)} training rows hold {positive} positive and {negative} negative outcomes, and "
            f"cross-validation needs {folds} of each: ingest more days, raise train.window_days or correct the label."
        )


def find_empty(missing: Mapping[str, NDArray[np.bool_]], folds: Sequence[Fold]) -> list[str]:
    """The columns that the training rows of some fold hold no value of, so that nothing can be learned from them."""
    return [name for name, gaps in missing.items() if any(gaps[train].all() for train, _ in folds)]


def describe_dominated(numbers: Mapping[str, NDArray[np.float64]]) -> str | None:
    """A sentence about the first column in which one number leaves the others nothing but zeros once it is scaled."""
    for name, column in numbers.items():
        known = column[np.isfinite(column)]
        distances = np.abs(known / 2 - np.median(known / 2)) if known.size else known  # halves cannot overflow
        apart = distances[distances > 0]
        if apart.size and apart.max() / DOMINATING_RATIO > np.quantile(apart, SPREAD_SHARE):
            farthest = known[distances.argmax()]
            return (
                f"the column {name!r} holds {farthest:g}, beside which all its other numbers are the same; bound it by "
                f"contract.columns.{name}.min and max, or in the feature function that makes it"
            )
    return None
