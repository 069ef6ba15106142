"""Columns as tables have them, for the proof and the benchmark of drift: twenty shapes, with ties and missing values.

A shape draws from a stream of standard normals, so that a shift of a tenth of sigma means the same for every one: the
normal behind it moves by that much, and the column follows in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """`form` turns normals (n,) into the column; `missing` is the share of rows that have no value."""

    form: Callable[[Floats], Any]
    missing: float = 0.0

    def drawn(self, rng: np.random.Generator, rows: int, shift: float = 0.0) -> Any:
        return self.formed(rng, rng.standard_normal(rows) + shift)

    def formed(self, rng: np.random.Generator, normals: Floats) -> Any:
        values = self.form(normals)
        rows = len(normals)
        if self.missing:
            values = np.where(rng.random(rows) < self.missing, np.nan, values)
        return values


def _share(normal: Floats) -> Floats:
    return np.asarray(special.ndtr(normal))


def _heavy(normal: Floats) -> Floats:
    """Tails of a Pareto with exponent 1.5 on both sides: a mean, and no variance."""
    return np.sign(normal) * (np.maximum(2 * special.ndtr(-np.abs(normal)), 1e-300) ** (-1 / 1.5) - 1)


NUMBERS: Mapping[str, Shape] = {
    "normal": Shape(lambda z: z),
    "wide": Shape(lambda z: 1e6 + 250 * z),
    "tiny": Shape(lambda z: 1e-9 * z),
    "lognormal": Shape(np.exp),
    "heavy_tails": Shape(_heavy),
    "uniform": Shape(_share),
    "exponential": Shape(lambda z: -np.log1p(-np.minimum(_share(z), 1 - 1e-16))),
    "two_hills": Shape(lambda z: z + 4 * (z > 0)),
    "bounded": Shape(lambda z: special.expit(2 * z)),
    "cents": Shape(lambda z: np.round(np.exp(1 + z), 2)),
    "rounded": Shape(lambda z: np.round(z, 1)),
    "integers": Shape(lambda z: np.floor(40 + 12 * z)),
    "counts": Shape(lambda z: np.floor(np.exp(0.8 * z))),
    "few_values": Shape(lambda z: np.clip(np.round(z), -1, 1)),
    "flag": Shape(lambda z: (z > 1.3).astype(np.float64)),
    "mostly_zero": Shape(lambda z: np.where(z > 0.7, np.exp(z), 0.0)),
    "constant": Shape(lambda z: np.full(len(z), 3.0)),
    "some_missing": Shape(lambda z: z, missing=0.05),
    "often_missing": Shape(np.exp, missing=0.4),
    "ties_and_missing": Shape(lambda z: np.round(5 * z), missing=0.2),
}


@dataclass(frozen=True)
class Mix:
    """Categories by their shares: a normal cut into pieces, so that a shift of it moves rows along the list."""

    shares: tuple[float, ...]
    missing: float = 0.0

    def formed(self, rng: np.random.Generator, normals: Floats) -> Any:
        """Codes (n,), -1 where missing: `names` says what they stand for."""
        codes = np.searchsorted(special.ndtri(np.cumsum(self.shares)[:-1]), normals)
        return np.where(rng.random(len(normals)) < self.missing, -1, codes) if self.missing else codes

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"c{code:02d}" for code in range(len(self.shares)))


MIXES: Mapping[str, Mix] = {
    "even": Mix((0.2,) * 5),
    "skewed": Mix((0.7, 0.15, 0.1, 0.04, 0.01)),
    "two": Mix((0.9, 0.1)),
    "many": Mix((0.025,) * 40),
    "missing": Mix((0.5, 0.3, 0.2), missing=0.1),
}
