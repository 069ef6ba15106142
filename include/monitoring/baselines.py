"""The baseline of a model version: made once by its training, kept with its artifact, read by every monitoring of it.

It is made of the holdout days: they are the newest, and scores of rows a model was fitted on are too sure of
themselves. Of their labels it keeps two counts. It travels in the artifact's directory, so its digest is sealed with
the model's and a version can never be watched against another one's baseline.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from include.data.dataset import Rows
from include.kernel.errors import Permanent
from include.model.artifact import Model
from include.monitoring.core.correlations import Correlations, correlations
from include.monitoring.core.drift import Measured
from include.monitoring.core.performance import Reference, decisions
from include.monitoring.core.profiles import (
    Profile,
    as_dict,
    category_baseline,
    counted,
    from_dict,
    number_baseline,
    over,
)
from include.monitoring.core.signals import SCORE

FILE = "baseline.json"


@dataclass(frozen=True)
class Baseline:
    """`labels` are (positives, rows) of the holdout, `decisions` the model's on it, `since` its first day.

    The last two are None in baselines that were made before performance was watched.
    """

    measured: Measured
    labels: tuple[int, int]
    decisions: Reference | None = None
    since: date | None = None

    def text(self) -> str:
        profiles = {name: as_dict(profile) for name, profile in self.measured.profiles.items()}
        relations = self.measured.correlations
        kept = {"decisions": self.decisions and astuple(self.decisions), "since": self.since and str(self.since)}
        return json.dumps(
            {"profiles": profiles, "correlations": relations and relations.as_dict(), "labels": self.labels, **kept}
        )

    def of(self, inputs: pd.DataFrame, model: Model | None) -> Measured:
        """Other rows over this grid; without a model, their scores are not measured."""
        known, columns = self.measured.profiles, _columns(inputs)
        measured = {name: known[name].of(values) for name, values in columns.items() if name in known}
        if model is not None and SCORE in known:
            measured[SCORE] = known[SCORE].of(model.predict_frame(inputs))
        return Measured(measured, correlations(columns, known))

    def pack(self, measured: Measured) -> bytes:
        """What was measured over this grid, without the grid: mostly zeros for a small lot, so it is compressed."""
        profiles = {name: counted(profile) for name, profile in measured.profiles.items()}
        relations = measured.correlations and measured.correlations.as_dict()
        return gzip.compress(json.dumps({"profiles": profiles, "correlations": relations}).encode(), mtime=0)

    def unpack(self, packed: bytes) -> Measured:
        """What `pack` of the same baseline made, to the last bit."""
        content = json.loads(gzip.decompress(packed))
        known, relations = self.measured.profiles, content["correlations"]
        profiles = {name: over(known[name], profile) for name, profile in content["profiles"].items()}
        return Measured(profiles, Correlations.from_dict(relations) if relations else None)


def make(rows: Rows, model: Model, since: date | None = None) -> Baseline:
    """Of the rows a model is judged on, from the day `since`; the decision's threshold becomes a knot of the scores."""
    kinds = {column.name: column.kind for column in model.meta.columns}
    columns = _columns(rows.inputs)
    profiles: dict[str, Profile] = {
        name: category_baseline(values) if kinds[name] == "category" else number_baseline(values)
        for name, values in columns.items()
    }
    relations = correlations(columns, profiles)
    scores, threshold = model.predict_frame(rows.inputs), model.meta.threshold
    profiles[SCORE] = number_baseline(scores, include=[threshold])
    labels, decided = (int(rows.truth.sum()), len(rows.truth)), decisions(rows.truth, scores, threshold)
    return Baseline(Measured(profiles, relations), labels, decided, since)


def read(place: Path) -> Baseline:
    """Raises `Permanent` when the version was trained before baselines had this form, or without one."""
    try:
        content: Mapping[str, Any] = json.loads((place / FILE).read_text())
        profiles = {name: from_dict(profile) for name, profile in content["profiles"].items()}
        relations = content["correlations"] and Correlations.from_dict(content["correlations"])
        labels = (content["labels"][0], content["labels"][1])
        decided, since = content.get("decisions"), content.get("since")
        return Baseline(
            Measured(profiles, relations or None),
            labels,
            Reference(*decided) if decided else None,
            date.fromisoformat(since) if since else None,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Permanent(
            f"{place / FILE} is no baseline that this Evergreen can read; train the model again to have one."
        ) from error


def _columns(inputs: pd.DataFrame) -> dict[str, Any]:
    return {str(name): inputs[name].to_numpy() for name in inputs.columns}
