"""The baseline of a model version: made once by its training, kept with its artifact, read by every monitoring of it.

It is made of the holdout days: they are the newest, and scores of rows a model was fitted on are too sure of
themselves. Of their labels it keeps two counts. It travels in the artifact's directory, so its digest is sealed with
the model's and a version can never be watched against another one's baseline. It is a part of the artifact's size too,
so wide tables share what they keep: all inputs together `SHARED_KNOTS` (400 each, at a thousand inputs) and the
strongest pairs (include.monitoring.core.correlations).
"""

import gzip
import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from include.data.dataset import LabelledRows
from include.kernel.errors import Permanent
from include.model.artifact import Model
from include.monitoring.core.correlations import Correlations, compute_correlations
from include.monitoring.core.drift import TableProfile
from include.monitoring.core.performance import ConfusionCounts, count_decisions
from include.monitoring.core.profiles import (
    KNOTS,
    Profile,
    build_category_baseline,
    build_number_baseline,
    decode_counts,
    decode_profile,
    encode_counts,
    encode_profile,
)
from include.monitoring.core.signals import SCORE

FILE = "baseline.json"
SHARED_KNOTS, FEWEST_KNOTS = 400_000, 100  # of all inputs, some 25 bytes of JSON each; of one input at least


@dataclass(frozen=True)
class Baseline:
    """`labels` are (positives, rows) of the holdout, `decisions` the model's on it, `since` its first day.

    The last two are None in baselines that were made before performance was watched.
    """

    profile: TableProfile
    labels: tuple[int, int]
    decisions: ConfusionCounts | None = None
    since: date | None = None

    def render_json(self) -> str:
        profiles = {name: encode_profile(profile) for name, profile in self.profile.profiles.items()}
        relations = self.profile.correlations
        extras = {"decisions": self.decisions and astuple(self.decisions), "since": self.since and str(self.since)}
        return json.dumps(
            {"profiles": profiles, "correlations": relations and relations.encode(), "labels": self.labels, **extras}
        )

    def measure(self, inputs: pd.DataFrame, model: Model | None) -> TableProfile:
        """Other rows over this grid; without a model, their scores are not measured."""
        grids, columns = self.profile.profiles, _extract_columns(inputs)
        measured = {name: grids[name].count_values(values) for name, values in columns.items() if name in grids}
        if model is not None and SCORE in grids:
            measured[SCORE] = grids[SCORE].count_values(model.predict_frame(inputs))
        kept = self.profile.correlations
        return TableProfile(measured, compute_correlations(columns, grids, kept.pairs) if kept else None)

    def pack(self, measured: TableProfile) -> bytes:
        """What was measured over this grid, without the grid: mostly zeros for a small lot, so it is compressed."""
        profiles = {name: encode_counts(profile) for name, profile in measured.profiles.items()}
        relations = measured.correlations and measured.correlations.encode()
        return gzip.compress(json.dumps({"profiles": profiles, "correlations": relations}).encode(), mtime=0)

    def unpack(self, packed: bytes) -> TableProfile:
        """What `pack` of the same baseline made, to the last bit."""
        content = json.loads(gzip.decompress(packed))
        grids, relations = self.profile.profiles, content["correlations"]
        profiles = {name: decode_counts(grids[name], profile) for name, profile in content["profiles"].items()}
        return TableProfile(profiles, Correlations.decode(relations) if relations else None)


def make(rows: LabelledRows, model: Model, since: date | None = None) -> Baseline:
    """Of the rows a model is judged on, from the day `since`; the decision's threshold becomes a knot of the scores."""
    kinds = {column.name: column.kind for column in model.meta.columns}
    columns = _extract_columns(rows.inputs)
    knots = min(KNOTS, max(SHARED_KNOTS // max(len(columns), 1), FEWEST_KNOTS))
    profiles: dict[str, Profile] = {
        name: build_category_baseline(values)
        if kinds[name] == "category"
        else build_number_baseline(values, knots=knots)
        for name, values in columns.items()
    }
    relations = compute_correlations(columns, profiles).keep_strongest()
    scores, threshold = model.predict_frame(rows.inputs), model.meta.threshold
    profiles[SCORE] = build_number_baseline(scores, include=[threshold])
    labels, decided = (int(rows.truth.sum()), len(rows.truth)), count_decisions(rows.truth, scores, threshold)
    return Baseline(TableProfile(profiles, relations), labels, decided, since)


def read(directory: Path) -> Baseline:
    """Raises `Permanent` when the version was trained before baselines had this form, or without one."""
    try:
        content: Mapping[str, Any] = json.loads((directory / FILE).read_text())
        profiles = {name: decode_profile(profile) for name, profile in content["profiles"].items()}
        relations = content["correlations"] and Correlations.decode(content["correlations"])
        labels = (content["labels"][0], content["labels"][1])
        decided, since = content.get("decisions"), content.get("since")
        return Baseline(
            TableProfile(profiles, relations or None),
            labels,
            ConfusionCounts(*decided) if decided else None,
            date.fromisoformat(since) if since else None,
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Permanent(
            f"{directory / FILE} is no baseline that this Evergreen can read; train the model again to have one."
        ) from error


def _extract_columns(inputs: pd.DataFrame) -> dict[str, Any]:
    return {str(name): inputs[name].to_numpy() for name in inputs.columns}
