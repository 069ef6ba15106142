"""Point-in-time data for training, evaluation and monitoring: snapshots in, model inputs and truth out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from include.data.core.snapshots import Part, Snapshot, Split, find_dropped_entities, name_entity
from include.data.spec import DataManifest
from include.data.store.snapshot_store import SnapshotStore
from include.kernel.errors import DataRefused, NotEnoughData
from include.model.schema import Column, conform


@dataclass(frozen=True)
class LabelledRows:
    """Inputs (n, columns) exactly as the model server will build them, and truth (n,) of 0 and 1."""

    inputs: pd.DataFrame
    truth: NDArray[np.float64]


def list_columns(manifest: DataManifest, only: Iterable[str] | None = None) -> tuple[Column, ...]:
    """The model's input columns: those of the contract, or the named ones among them, in the contract's order."""
    chosen = set(only) if only else set(manifest.contract.columns)
    return tuple(
        Column(name=name, kind=spec.kind, nullable=spec.max_missing > 0, categories=spec.values)
        for name, spec in manifest.contract.columns.items()
        if name in chosen
    )


@dataclass(frozen=True)
class Dataset:
    """The rows of a store as the manifest reads them."""

    store: SnapshotStore
    manifest: DataManifest

    def read(self, snapshots: Iterable[Snapshot], inputs: tuple[Column, ...]) -> LabelledRows:
        """The rows of whole days. Only the inputs and the label are read."""
        return self._separate_label(
            self._read([self.manifest.label.column, *(c.name for c in inputs)], snapshots), inputs
        )

    def read_part(self, days: Split, name: Part, inputs: tuple[Column, ...]) -> LabelledRows:
        """The rows of one part of a split, without those of entities that a later part has too.

        Raises `NotEnoughData` when nothing is left, `DataRefused` when a day does not hold the entity's column.
        """
        if not days.get_part(name) or days.entity is None:
            return self.read(days.get_part(name), inputs)
        wanted = [self.manifest.label.column, *(c.name for c in inputs), days.entity]
        table = self._read(list(dict.fromkeys(wanted)), days.get_part(name))
        later = self._read([days.entity], days.list_later_days(name))
        names = name_entities(table[days.entity])
        dropped = find_dropped_entities(names.dropna(), name_entities(later[days.entity]).dropna())
        remaining = table[~names.isin(dropped)].reset_index(drop=True)
        if remaining.empty:
            raise NotEnoughData(
                f"All {len(table)} {name} rows are of a {days.entity} that a later part of the split has too; "
                "lower train.holdout_days or train.calibration_days, or raise train.window_days."
            )
        return self._separate_label(remaining, inputs)

    def _read(self, columns: list[str], snapshots: Iterable[Snapshot]) -> pd.DataFrame:
        days = tuple(snapshots)
        for snapshot in days:
            missing = [name for name in columns if name not in snapshot.columns]
            if missing:
                raise DataRefused(
                    f"Snapshot {snapshot.id[:12]} of {snapshot.day} has no column {', '.join(missing)}, only "
                    f"{', '.join(snapshot.columns)}: correct the manifest, or ingest the day again under it."
                )
        return self.store.read_rows(days, columns) if days else pd.DataFrame(columns=columns)

    def _separate_label(self, table: pd.DataFrame, inputs: tuple[Column, ...]) -> LabelledRows:
        label = self.manifest.label
        return LabelledRows(
            conform(table, inputs), (table[label.column] == label.positive).to_numpy().astype(np.float64)
        )


def name_entities(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Whom each row is about, by one name whatever type a day delivered; a missing name is nobody's."""
    return column.map({value: name_entity(value) for value in column.dropna().unique()})
