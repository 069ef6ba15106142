"""The example data and candidates trained on it, once a test run: what the model and serving tests share."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from include.model.artifact import ArtifactMeta, Golden, ServableModel
from include.model.pipelines import build
from include.model.schema import Column, conform, describe, is_missing

CSV = Path(__file__).resolve().parents[1] / "include" / "data" / "credit_data.csv"
LABEL = "Status"
Row = dict[str, Any]


@lru_cache
def data() -> pd.DataFrame:
    return pd.read_csv(CSV)


@lru_cache
def columns() -> tuple[Column, ...]:
    kinds = {name: "category" if data()[name].dtype == object else "number" for name in data() if name != LABEL}
    declared = [Column(name=name, kind=kind, nullable=name != "Amount") for name, kind in kinds.items()]
    return describe(conform(data(), declared), declared)


@lru_cache
def rows() -> list[Row]:
    table = data()[[column.name for column in columns()]]
    return [{name: None if is_missing(value) else value for name, value in row.items()} for row in _records(table)]


@lru_cache
def trained(kind: str, *needed: str) -> ServableModel:
    """`needed`: trained on these columns only."""
    chosen = tuple(column for column in columns() if not needed or column.name in needed)
    asked = [{column.name: row[column.name] for column in chosen} for row in rows()[:5]]
    params = {"boosting": {"max_iter": 30}, "random_forest": {"n_estimators": 20}}.get(kind, {})
    truth = (data()[LABEL] == "bad").astype(int)
    pipeline = build(kind, chosen, params, seed=7).fit(conform(data(), chosen), truth)
    meta = ArtifactMeta(name="credit", columns=chosen, positive="bad", negative="good", threshold=0.25)
    probabilities = ServableModel(meta, pipeline).predict_proba(asked)
    golden = tuple(Golden(row=row, probability=float(p)) for row, p in zip(asked, probabilities, strict=True))
    return ServableModel(meta.model_copy(update={"golden": golden}), pipeline)


def _records(table: pd.DataFrame) -> list[Row]:
    return [dict(row) for row in table.astype(object).to_dict("records")]
