"""How columns go together: what a profile of each column alone cannot see break.

Two feeds joined on the wrong key leave every column as it was and all relations gone. So the baseline keeps, for pairs
of numeric columns, the sums that make a correlation of ranks. Ranks are places in the baseline's own profile, so that
heavy tails do no harm, batches can be added up, and nothing has to be sorted twice. The price: a relation that turns
without a linear trend in ranks is not seen.

Pairs grow with the square of the columns (a thousand have half a million, 70 MB of sums), so a baseline keeps `PAIRS`
of them, those that are strongest when it is made: what a wrong join breaks was strong before. Up to 63 columns these
are all pairs. Of a wider table a relation that appears where there was hardly any is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.kernel.errors import Permanent
from include.monitoring.core.profiles import NumberProfile, Profile

Floats = NDArray[np.float64]
SPEARMAN = 1.06  # variance of a rank correlation's z beside that of Pearson's (Fieller, Hartley and Pearson 1957)
PAIRS = 2_000  # kept by a baseline, at some 130 bytes of JSON each; every later day measures the same ones
Pair = tuple[str, str]


@dataclass(frozen=True)
class Correlations:
    """Of p pairs of columns, over the rows in which both are known. `sums` is (6, p): how many rows these are, the sum
    of the one and of the other, of the squares of the one and of the other, and of the products.
    """

    pairs: tuple[Pair, ...]
    sums: Floats

    def __add__(self, other: Correlations) -> Correlations:
        if self.pairs != other.pairs:
            raise Permanent("Correlations of different columns cannot be added up; measure both over one baseline.")
        return Correlations(self.pairs, self.sums + other.sums)

    def select(self, names: Collection[str]) -> Correlations:
        """Of these columns alone: each pair has sums of its own, so nothing has to be measured again."""
        known = set(names)
        return self._take([at for at, pair in enumerate(self.pairs) if known.issuperset(pair)])

    def keep_strongest(self, limit: int = PAIRS) -> Correlations:
        """At most so many pairs, in their order; one in which a column never varies is the weakest."""
        strength = np.nan_to_num(np.abs(self.compute_coefficients()), nan=-1.0)
        return self._take(np.sort(np.argsort(-strength, kind="stable")[:limit]).tolist())

    def _take(self, positions: Sequence[int]) -> Correlations:
        return Correlations(tuple(self.pairs[at] for at in positions), self.sums[:, list(positions)])

    def compute_coefficients(self) -> Floats:
        """(p,) in [-1, 1]; NaN where one of the two never varies."""
        n = np.maximum(self.sums[0], 1)
        one, other, one_square, other_square, product = self.sums[1:] / n
        spread = [square - mean**2 for square, mean in ((one_square, one), (other_square, other))]
        variance = np.where((spread[0] > 1e-9) & (spread[1] > 1e-9), spread[0] * spread[1], np.nan)
        return np.asarray(np.clip((product - one * other) / np.sqrt(variance), -1, 1))

    def iterate_pairs(self) -> Iterator[tuple[str, str, float, int]]:
        """(column, column, correlation, rows) of each pair that has one."""
        for (one, other), value, rows in zip(self.pairs, self.compute_coefficients(), self.sums[0], strict=True):
            if not np.isnan(value):
                yield one, other, float(value), int(rows)

    def encode(self) -> dict[str, Any]:
        return {"pairs": self.pairs, "sums": self.sums.tolist()}

    @classmethod
    def decode(cls, content: Mapping[str, Any]) -> Correlations:
        """Also of the former form: four matrices over all columns."""
        if "parts" in content:
            names, matrices = content["names"], [np.asarray(part, np.float64) for part in content["parts"]]
            return _pick_pairs(names, list(combinations(names, 2)), *matrices)
        return cls(
            tuple((one, other) for one, other in content["pairs"]),
            np.asarray(content["sums"], np.float64).reshape(6, -1),
        )


def compute_correlations(
    columns: Mapping[str, Any], baseline: Mapping[str, Profile], pairs: Sequence[Pair] | None = None
) -> Correlations:
    """Of the numeric ones among the columns, each (n,), NaN is missing: those of `pairs` that are there, or all."""
    grids = {name: grid for name in columns if isinstance(grid := baseline.get(name), NumberProfile)}
    chosen = [pair for pair in (combinations(grids, 2) if pairs is None else pairs) if grids.keys() >= {*pair}]
    if not chosen:
        return Correlations((), np.zeros((6, 0)))
    names = sorted({name for pair in chosen for name in pair})
    table = np.column_stack([grids[name].locate_values(columns[name]) for name in names])
    present = (~np.isnan(table)).astype(np.float64)
    filled = np.where(present, table - 0.5, 0.0)  # around the middle, so that the sums stay exact
    return _pick_pairs(
        names, chosen, present.T @ present, filled.T @ present, (filled**2).T @ present, filled.T @ filled
    )


def _pick_pairs(
    names: Sequence[str], pairs: Sequence[Pair], rows: Floats, sums: Floats, squares: Floats, products: Floats
) -> Correlations:
    """From matrices (k, k), in which a row's column is summed where the other column is known."""
    places = {name: place for place, name in enumerate(names)}
    i, j = (np.array([places[pair[side]] for pair in pairs], np.intp) for side in (0, 1))
    picked = (rows[i, j], sums[i, j], sums[j, i], squares[i, j], squares[j, i], products[i, j])
    return Correlations(tuple(pairs), np.stack(picked))


def compare_correlations(one: tuple[float, int], other: tuple[float, int]) -> float:
    """How many standard errors two correlations (value, rows) are apart (Fisher 1921, for ranks)."""
    (a, rows), (b, others) = one, other
    if min(rows, others) < 10:
        return 0.0
    error = np.sqrt(SPEARMAN / (rows - 3) + SPEARMAN / (others - 3))
    return float((np.arctanh(np.clip(a, -0.999999, 0.999999)) - np.arctanh(np.clip(b, -0.999999, 0.999999))) / error)
