"""Point-in-time data for training, evaluation and monitoring: snapshots in, model inputs and truth out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.adapters import factory
from include.core.manifest import Manifest
from include.core.snapshots import Snapshot
from include.model.schema import Column, conform

SCORE = "(score)"  # a baseline's name for the model's own output; no column is called so


@dataclass(frozen=True)
class Rows:
    """Inputs (n, columns) exactly as the model server will build them, and truth (n,) of 0 and 1."""

    inputs: pd.DataFrame
    truth: NDArray[np.float64]


def columns(manifest: Manifest, only: Iterable[str] | None = None) -> tuple[Column, ...]:
    """The model's input columns: those of the contract, or the named ones among them, in the contract's order."""
    chosen = set(only) if only else set(manifest.contract.columns)
    return tuple(
        Column(name=name, kind=spec.kind, nullable=spec.max_missing > 0, categories=spec.values)
        for name, spec in manifest.contract.columns.items()
        if name in chosen
    )


def load(manifest: Manifest, snapshots: Iterable[Snapshot], inputs: tuple[Column, ...]) -> Rows:
    rows = factory.store().rows(snapshots)
    truth = (rows[manifest.label.column] == manifest.label.positive).to_numpy().astype(np.float64)
    return Rows(conform(rows, inputs), truth)
