"""How columns go together: what a profile of each column alone cannot see break.

Two feeds joined on the wrong key leave every column as it was and all relations gone. So the baseline keeps, for each
pair of numeric columns, the sums that make a correlation of ranks. Ranks are places in the baseline's own profile, so
that heavy tails do no harm, batches can be added up, and nothing has to be sorted twice. The price: a relation that
turns without a linear trend in ranks is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.kernel.errors import Permanent
from include.monitoring.core.profiles import NumberProfile, Profile

Floats = NDArray[np.float64]
SPEARMAN = 1.06  # variance of a rank correlation's z beside that of Pearson's (Fieller, Hartley and Pearson 1957)


@dataclass(frozen=True)
class Correlations:
    """Over the rows in which both of a pair are known, each (k, k): count, sums of the one, its square, the product."""

    names: tuple[str, ...]
    rows: Floats
    sums: Floats
    squares: Floats
    products: Floats

    def __add__(self, other: Correlations) -> Correlations:
        if self.names != other.names:
            raise Permanent("Correlations of different columns cannot be added up; measure both over one baseline.")
        return Correlations(self.names, *(a + b for a, b in zip(self._parts, other._parts, strict=True)))

    def select(self, names: Collection[str]) -> Correlations:
        """Of these columns alone: each pair has sums of its own, so nothing has to be measured again."""
        positions = [position for position, name in enumerate(self.names) if name in names]
        cut = np.ix_(positions, positions)
        return Correlations(tuple(self.names[position] for position in positions), *(part[cut] for part in self._parts))

    @property
    def _parts(self) -> tuple[Floats, ...]:
        return self.rows, self.sums, self.squares, self.products

    def compute_matrix(self) -> Floats:
        """(k, k) in [-1, 1]; NaN where one of the two never varies."""
        n = np.maximum(self.rows, 1)
        variance = self.squares / n - (self.sums / n) ** 2
        covariance = self.products / n - self.sums * self.sums.T / n**2
        with np.errstate(invalid="ignore", divide="ignore"):
            coefficients = covariance / np.sqrt(np.where(variance > 1e-9, variance, np.nan) * variance.T)
        return np.asarray(np.clip(coefficients, -1, 1))

    def iterate_pairs(self) -> Iterator[tuple[str, str, float, int]]:
        """(column, column, correlation, rows) of each pair that has one."""
        matrix = self.compute_matrix()
        for i, j in combinations(range(len(self.names)), 2):
            if not np.isnan(matrix[i, j]) and not np.isnan(matrix[j, i]):
                yield self.names[i], self.names[j], float(matrix[i, j]), int(self.rows[i, j])

    def encode(self) -> dict[str, Any]:
        return {"names": list(self.names), "parts": [part.tolist() for part in self._parts]}

    @classmethod
    def decode(cls, content: Mapping[str, Any]) -> Correlations:
        return cls(tuple(content["names"]), *(np.asarray(part, np.float64) for part in content["parts"]))


def compute_correlations(columns: Mapping[str, Any], baseline: Mapping[str, Profile]) -> Correlations:
    """Of the numeric ones among the columns, each (n,); NaN is missing."""
    numeric = {name: baseline[name] for name in columns if isinstance(baseline.get(name), NumberProfile)}
    ranks = [
        profile.locate_values(columns[name]) for name, profile in numeric.items() if isinstance(profile, NumberProfile)
    ]
    if not ranks:
        nothing = np.zeros((0, 0))
        return Correlations((), nothing, nothing, nothing, nothing)
    table = np.column_stack(ranks)
    present = (~np.isnan(table)).astype(np.float64)
    filled = np.where(present, table - 0.5, 0.0)  # around the middle, so that the sums stay exact
    rows, sums, squares = present.T @ present, filled.T @ present, (filled**2).T @ present
    return Correlations(tuple(numeric), rows, sums, squares, filled.T @ filled)


def compare_correlations(one: tuple[float, int], other: tuple[float, int]) -> float:
    """How many standard errors two correlations (value, rows) are apart (Fisher 1921, for ranks)."""
    (a, rows), (b, others) = one, other
    if min(rows, others) < 10:
        return 0.0
    error = np.sqrt(SPEARMAN / (rows - 3) + SPEARMAN / (others - 3))
    return float((np.arctanh(np.clip(a, -0.999999, 0.999999)) - np.arctanh(np.clip(b, -0.999999, 0.999999))) / error)
